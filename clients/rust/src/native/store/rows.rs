//! Rows of the database, read back. What cannot be is damage.

use bytes::Bytes;
use conch_wire::event::{ChannelKind, SendFlags};
use conch_wire::{
    ChannelId, Code, DeviceId, Event, EventFlags, MemberRole, MessageKey, SessionId, UserId,
};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::StoreError;
use super::steps::{REFUSED, STORED, WAITING};
use crate::core::{
    ChannelRow, Listing, ListingPhase, Marks, MessageRow, Meta, OutboxItem, OutboxState, Preview,
    RefusalReason,
};
use crate::native::login::{Account, StoredLogin};

pub(super) fn id(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| StoreError::Content("a number below zero"))
}

fn maybe_id(row: &SqliteRow, column: &str) -> Result<Option<u64>, StoreError> {
    let number: Option<i64> = row.try_get(column)?;
    number
        .map(|number| u64::try_from(number).map_err(|_| StoreError::Content("an id below zero")))
        .transpose()
}

fn key(bytes: Vec<u8>) -> Result<MessageKey, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::Content("a key of another length"))?;
    Ok(MessageKey(bytes))
}

pub(super) fn read_meta(row: &SqliteRow) -> Result<Meta, StoreError> {
    let phase: u8 = row.try_get("listing_phase")?;
    Ok(Meta {
        user: maybe_id(row, "user_id")?.map(UserId),
        generation: row.try_get("generation")?,
        session: maybe_id(row, "session_id")?.map(SessionId),
        sync_token: row.try_get("sync_token")?,
        listing: Listing {
            round: row.try_get("listing_round")?,
            phase: match phase {
                0 => ListingPhase::None,
                1 => ListingPhase::Pages,
                2 => ListingPhase::Check,
                _ => return Err(StoreError::Content("phase of a listing")),
            },
        },
    })
}

pub(super) fn read_channel(row: &SqliteRow) -> Result<ChannelRow, StoreError> {
    Ok(ChannelRow {
        channel: ChannelId(id(row, "channel_id")?),
        kind: ChannelKind::from_u8(row.try_get("kind")?)
            .ok_or(StoreError::Content("kind of a channel"))?,
        title: row.try_get("title")?,
        peer: maybe_id(row, "peer_id")?.map(UserId),
        role: MemberRole::from_u8(row.try_get("role")?)
            .ok_or(StoreError::Content("role of a member"))?,
        first_seq: row.try_get("first_seq")?,
        left_seq: row.try_get("left_seq")?,
        base: row.try_get("base")?,
        have: row.try_get("have")?,
        head: row.try_get("head")?,
        marks: Marks {
            head_seq: row.try_get("marks_head_seq")?,
            head_ordinal: row.try_get("marks_head_ordinal")?,
            read_seq: row.try_get("read_seq")?,
            read_ordinal: row.try_get("read_ordinal")?,
            mentions: row.try_get("mentions")?,
            wanted: row.try_get("wanted")?,
            uncounted: row.try_get("uncounted")?,
        },
        last: read_preview(row)?,
        informed_seq: row.try_get("informed_seq")?,
        listed: row.try_get("listed")?,
        used: id(row, "used")?,
    })
}

fn read_preview(row: &SqliteRow) -> Result<Option<Preview>, StoreError> {
    let Some(seq) = row.try_get("last_seq")? else {
        return Ok(None);
    };
    Ok(Some(Preview {
        seq,
        author: UserId(id(row, "last_author_id")?),
        time_ms: id(row, "last_time_ms")?,
        kind: row.try_get("last_kind")?,
        text: row.try_get("last_text")?,
    }))
}

pub(super) fn read_message(row: &SqliteRow) -> Result<MessageRow, StoreError> {
    let message_key: Option<Vec<u8>> = row.try_get("message_key")?;
    let tail: Vec<u8> = row.try_get("tail")?;
    Ok(MessageRow {
        channel: ChannelId(id(row, "channel_id")?),
        event: Event {
            author: UserId(id(row, "author_id")?),
            seq: row.try_get("seq")?,
            time_ms: id(row, "time_ms")?,
            kind: row.try_get("kind")?,
            flags: EventFlags(row.try_get("flags")?),
            tail: Bytes::from(tail),
        },
        key: message_key.map(key).transpose()?,
    })
}

pub(super) fn read_outbox(row: &SqliteRow) -> Result<OutboxItem, StoreError> {
    let tail: Vec<u8> = row.try_get("tail")?;
    Ok(OutboxItem {
        id: id(row, "id")?,
        channel: ChannelId(id(row, "channel_id")?),
        key: key(row.try_get("message_key")?)?,
        kind: row.try_get("kind")?,
        flags: SendFlags(row.try_get("flags")?),
        tail: Bytes::from(tail),
        created_ms: id(row, "created_ms")?,
        after: unless_older(row.try_get("after_seq"), 0)?,
        state: read_state(row)?,
    })
}

/// Columns that an older database lacks, which was too damaged to be brought to this version.
fn unless_older<T>(found: Result<T, sqlx::Error>, then: T) -> Result<T, sqlx::Error> {
    match found {
        Err(sqlx::Error::ColumnNotFound(_)) => Ok(then),
        found => found,
    }
}

fn read_state(row: &SqliteRow) -> Result<OutboxState, StoreError> {
    Ok(match unless_older(row.try_get("state"), WAITING)? {
        WAITING => OutboxState::Waiting,
        STORED => OutboxState::Stored {
            seq: row.try_get("stored_seq")?,
            time_ms: id(row, "stored_time_ms")?,
        },
        REFUSED => OutboxState::Refused(match row.try_get("refusal")? {
            0 => RefusalReason::Expired,
            number => RefusalReason::Server(
                Code::nearest(number).ok_or(StoreError::Content("reason of a refusal"))?,
            ),
        }),
        _ => return Err(StoreError::Content("state of an unsent message")),
    })
}

pub(super) fn read_login(row: &SqliteRow) -> Result<StoredLogin, StoreError> {
    Ok(StoredLogin {
        account: Account {
            user: UserId(id(row, "user_id")?),
            device: DeviceId(id(row, "device_id")?),
            handle: row.try_get("handle")?,
            display_name: row.try_get("display_name")?,
        },
        access_token: row.try_get("access_token")?,
        expires_ms: id(row, "expires_ms")?,
        refresh_token: row.try_get("refresh_token")?,
    })
}
