-- Where each endpoint's QUIC is, and until when (ms since 1970) it is not tried.
CREATE TABLE quic_routes (
    endpoint TEXT PRIMARY KEY,
    port INTEGER,
    certificate BLOB,
    avoid_until_ms INTEGER NOT NULL
) WITHOUT ROWID;
