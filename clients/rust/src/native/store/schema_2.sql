-- The newest message of each channel, the ends of own messages, and members as far as they are known.
ALTER TABLE channels ADD COLUMN last_seq INTEGER;
ALTER TABLE channels ADD COLUMN last_author_id INTEGER;
ALTER TABLE channels ADD COLUMN last_time_ms INTEGER;
ALTER TABLE channels ADD COLUMN last_kind INTEGER;
ALTER TABLE channels ADD COLUMN last_text TEXT;
ALTER TABLE outbox ADD COLUMN after_seq INTEGER NOT NULL DEFAULT 0;
-- 0: waiting, 1: stored, at its seq, 2: refused, with a code or, for one that is too old, 0.
ALTER TABLE outbox ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN stored_seq INTEGER;
ALTER TABLE outbox ADD COLUMN stored_time_ms INTEGER;
ALTER TABLE outbox ADD COLUMN refusal INTEGER;
-- The members of a channel as of an event of its log; those behind it are applied as they come.
CREATE TABLE member_lists (
    channel_id INTEGER PRIMARY KEY,
    as_of_seq INTEGER NOT NULL
);
CREATE TABLE members (
    channel_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    role INTEGER NOT NULL,
    joined_seq INTEGER NOT NULL,
    PRIMARY KEY (channel_id, user_id)
) WITHOUT ROWID;
