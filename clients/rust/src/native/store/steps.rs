//! Steps of the core as statements. All steps of a batch are in one transaction.

use conch_wire::Code;
use sqlx::sqlite::SqliteConnection;

use super::{StoreError, members};
use crate::core::{ChannelRow, MessageRow, Meta, OutboxItem, OutboxState, Persist};

/// States of rows in the outbox.
pub(super) const WAITING: u8 = 0;
pub(super) const STORED: u8 = 1;
pub(super) const REFUSED: u8 = 2;

pub(super) async fn apply_step(
    connection: &mut SqliteConnection,
    step: &Persist,
) -> Result<(), StoreError> {
    match step {
        Persist::Meta(meta) => put_meta(connection, meta).await?,
        Persist::Channel(row) => put_channel(connection, row).await?,
        Persist::ChannelRemoved(channel) => {
            for statement in [
                "DELETE FROM messages WHERE channel_id = ?",
                "DELETE FROM members WHERE channel_id = ?",
                "DELETE FROM member_lists WHERE channel_id = ?",
                "DELETE FROM channels WHERE channel_id = ?",
            ] {
                delete(connection, statement, channel.0).await?;
            }
        }
        Persist::MessagesTrimmed(channel, below) => {
            sqlx::query("DELETE FROM messages WHERE channel_id = ? AND seq < ?")
                .bind(channel.0 as i64)
                .bind(*below)
                .execute(connection)
                .await?;
        }
        Persist::MessagesRemoved(channel) => {
            delete(
                connection,
                "DELETE FROM messages WHERE channel_id = ?",
                channel.0,
            )
            .await?;
        }
        Persist::Message(row) => {
            put_message(connection, row).await?;
            members::on_event(connection, row.channel, &row.event).await?;
        }
        Persist::Outbox(item) => put_outbox(connection, item).await?,
        Persist::OutboxRemoved(item) => {
            delete(connection, "DELETE FROM outbox WHERE id = ?", *item).await?;
        }
        Persist::Forget => {
            let everything = "DELETE FROM messages; DELETE FROM channels; DELETE FROM members; \
                DELETE FROM member_lists";
            sqlx::raw_sql(everything).execute(connection).await?;
        }
    }
    Ok(())
}

async fn delete(
    connection: &mut SqliteConnection,
    statement: &'static str,
    id: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(statement)
        .bind(id as i64)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn put_meta(
    connection: &mut SqliteConnection,
    meta: &Meta,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?)")
        .bind(meta.user.map(|it| it.0 as i64))
        .bind(meta.generation)
        .bind(meta.session.map(|it| it.0 as i64))
        .bind(&meta.sync_token)
        .bind(meta.listing.round)
        .bind(meta.listing.phase as u8)
        .execute(connection)
        .await?;
    Ok(())
}

async fn put_channel(
    connection: &mut SqliteConnection,
    row: &ChannelRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO channels
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row.channel.0 as i64)
    .bind(row.kind as u8)
    .bind(&row.title)
    .bind(row.peer.map(|it| it.0 as i64))
    .bind(row.role as u8)
    .bind(row.first_seq)
    .bind(row.left_seq)
    .bind(row.base)
    .bind(row.have)
    .bind(row.head)
    .bind(row.marks.head_seq)
    .bind(row.marks.head_ordinal)
    .bind(row.marks.read_seq)
    .bind(row.marks.read_ordinal)
    .bind(row.marks.mentions)
    .bind(row.marks.wanted)
    .bind(row.marks.uncounted)
    .bind(row.informed_seq)
    .bind(row.listed)
    .bind(row.used as i64)
    .bind(row.last.as_ref().map(|last| last.seq))
    .bind(row.last.as_ref().map(|last| last.author.0 as i64))
    .bind(row.last.as_ref().map(|last| last.time_ms as i64))
    .bind(row.last.as_ref().map(|last| last.kind))
    .bind(row.last.as_ref().map(|last| &last.text))
    .execute(connection)
    .await?;
    Ok(())
}

async fn put_message(
    connection: &mut SqliteConnection,
    row: &MessageRow,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(row.channel.0 as i64)
        .bind(row.event.seq)
        .bind(row.event.author.0 as i64)
        .bind(row.event.time_ms as i64)
        .bind(row.event.kind)
        .bind(row.event.flags.0)
        .bind(&row.event.tail[..])
        .bind(row.key.as_ref().map(|key| &key.0[..]))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn put_outbox(
    connection: &mut SqliteConnection,
    item: &OutboxItem,
) -> Result<(), sqlx::Error> {
    let (state, stored, refusal) = match item.state {
        OutboxState::Waiting => (WAITING, None, None),
        OutboxState::Stored { seq, time_ms } => (STORED, Some((seq, time_ms)), None),
        OutboxState::Refused(reason) => (REFUSED, None, Some(reason)),
    };
    sqlx::query("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(item.id as i64)
        .bind(item.channel.0 as i64)
        .bind(&item.key.0[..])
        .bind(item.kind)
        .bind(item.flags.0)
        .bind(&item.tail[..])
        .bind(item.created_ms as i64)
        .bind(item.after)
        .bind(state)
        .bind(stored.map(|(seq, _)| seq))
        .bind(stored.map(|(_, time_ms)| time_ms as i64))
        .bind(refusal.map(|reason| reason.code().map_or(0, Code::number)))
        .execute(connection)
        .await?;
    Ok(())
}
