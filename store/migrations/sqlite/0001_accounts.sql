-- People, their devices, the devices' refresh tokens, and remembered HTTP requests.
-- Types and constraints are those that SQLite and PostgreSQL share. Ids are 63-bit, times are ms since 1970,
-- hashes are hex text. A migration that was released is never edited: the next one changes it.

CREATE TABLE accounts (
    id            BIGINT NOT NULL PRIMARY KEY,
    handle        TEXT   NOT NULL UNIQUE,
    display_name  TEXT   NOT NULL,
    issuer        TEXT   NOT NULL,
    subject       TEXT   NOT NULL,
    password_hash TEXT,
    created_ms    BIGINT NOT NULL,
    UNIQUE (issuer, subject)
);

CREATE TABLE devices (
    id         BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    name       TEXT   NOT NULL,
    platform   TEXT   NOT NULL,
    created_ms BIGINT NOT NULL,
    seen_ms    BIGINT NOT NULL,
    revoked_ms BIGINT
);

CREATE INDEX devices_by_account ON devices (account_id, created_ms);

-- One family per device. `number` counts rotations; `state` is current, superseded or replaced.
CREATE TABLE refresh_tokens (
    hash          TEXT   NOT NULL PRIMARY KEY,
    device_id     BIGINT NOT NULL REFERENCES devices (id),
    number        BIGINT NOT NULL,
    state         TEXT   NOT NULL CHECK (state IN ('current', 'superseded', 'replaced')),
    expires_ms    BIGINT NOT NULL,
    superseded_ms BIGINT
);

CREATE INDEX refresh_tokens_by_device ON refresh_tokens (device_id, number);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_ms);

-- `status` and `body` are set together, when the request has its answer.
CREATE TABLE remembered_requests (
    account_id   BIGINT NOT NULL,
    request_key  TEXT   NOT NULL,
    request_hash TEXT   NOT NULL,
    subject      BIGINT NOT NULL,
    created_ms   BIGINT NOT NULL,
    status       BIGINT,
    body         TEXT,
    PRIMARY KEY (account_id, request_key)
);

CREATE INDEX remembered_requests_by_age ON remembered_requests (created_ms);
