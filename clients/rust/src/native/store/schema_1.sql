-- The data folder of one client. Ids are 63-bit, so SQLite's signed integers hold them.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    user_id INTEGER,
    generation INTEGER NOT NULL,
    session_id INTEGER,
    sync_token BLOB NOT NULL,
    listing_round INTEGER NOT NULL,
    listing_phase INTEGER NOT NULL
);
CREATE TABLE login (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    user_id INTEGER NOT NULL,
    device_id INTEGER NOT NULL,
    handle TEXT NOT NULL,
    display_name TEXT NOT NULL,
    access_token TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    refresh_token TEXT NOT NULL
);
CREATE TABLE channels (
    channel_id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    title TEXT NOT NULL,
    peer_id INTEGER,
    role INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    left_seq INTEGER,
    base INTEGER NOT NULL,
    have INTEGER NOT NULL,
    head INTEGER NOT NULL,
    marks_head_seq INTEGER NOT NULL,
    marks_head_ordinal INTEGER NOT NULL,
    read_seq INTEGER NOT NULL,
    read_ordinal INTEGER NOT NULL,
    mentions INTEGER NOT NULL,
    wanted INTEGER NOT NULL,
    uncounted INTEGER NOT NULL,
    informed_seq INTEGER NOT NULL,
    listed INTEGER NOT NULL,
    used INTEGER NOT NULL
);
CREATE TABLE messages (
    channel_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    author_id INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    tail BLOB NOT NULL,
    message_key BLOB,
    PRIMARY KEY (channel_id, seq)
) WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    channel_id INTEGER NOT NULL,
    message_key BLOB NOT NULL,
    kind INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    tail BLOB NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE TABLE people (
    user_id INTEGER PRIMARY KEY,
    handle TEXT NOT NULL,
    display_name TEXT NOT NULL
);
