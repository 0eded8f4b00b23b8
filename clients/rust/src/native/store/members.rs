//! Members of channels as far as this device knows them: a list from the server, moved on by the events behind it.
//!
//! A list stands as of a seq. Events above it that change members are applied in the transaction that stores them; one that
//! the list held already changes nothing, because adding and removing can be repeated in order. A channel whose first event
//! is here needs no list from the server.

use conch_wire::event::EventBody;
use conch_wire::{ChannelId, Event, EventKind, MemberRole, Seq, UserId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use super::rows::id;
use super::{Store, StoreError, end_write};
use crate::native::http::{Member, Person};

impl Store {
    /// The members of a channel, as far as they are known. A person whom this device does not know has no names.
    pub(in crate::native) async fn members(
        &self,
        channel: ChannelId,
    ) -> Result<Vec<Member>, StoreError> {
        let rows = sqlx::query(
            "SELECT members.*, handle, display_name FROM members LEFT JOIN people USING (user_id)
             WHERE channel_id = ? ORDER BY joined_seq, user_id",
        )
        .bind(channel.0 as i64)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_member).collect()
    }

    /// Keeps the server's list, as of an event that was placed before the list was asked for.
    pub(in crate::native) async fn save_members(
        &self,
        channel: ChannelId,
        as_of: Seq,
        members: &[Member],
    ) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let written = put_list(&mut connection, channel, as_of, members).await;
        end_write(connection, written).await
    }
}

async fn put_list(
    connection: &mut SqliteConnection,
    channel: ChannelId,
    as_of: Seq,
    members: &[Member],
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    begin_list(&mut transaction, channel, as_of).await?;
    for member in members {
        let (user, role) = (member.person.user, member.role);
        put(&mut transaction, channel, user, role, member.joined_seq).await?;
    }
    Ok(transaction.commit().await?)
}

/// Moves a list on over an event that is being stored.
pub(super) async fn on_event(
    connection: &mut SqliteConnection,
    channel: ChannelId,
    event: &Event,
) -> Result<(), StoreError> {
    let kind = match EventKind::from_u8(event.kind) {
        Some(
            kind @ (EventKind::ChannelCreated
            | EventKind::MembersAdded
            | EventKind::MemberRemoved
            | EventKind::MemberLeft),
        ) => kind,
        _ => return Ok(()),
    };
    // What cannot be read says nothing about members.
    let Ok(body) = EventBody::decode(&event.tail) else {
        return Ok(());
    };
    let as_of: Option<Seq> =
        sqlx::query_scalar("SELECT as_of_seq FROM member_lists WHERE channel_id = ?")
            .bind(channel.0 as i64)
            .fetch_optional(&mut *connection)
            .await?;
    match as_of {
        // Loaded behind later ones, it would begin a list that lacks what those changed.
        None if kind == EventKind::ChannelCreated
            && is_newest(connection, channel, event.seq).await? =>
        {
            begin_list(connection, channel, event.seq).await?;
        }
        Some(as_of) if as_of < event.seq => {
            sqlx::query("UPDATE member_lists SET as_of_seq = ? WHERE channel_id = ?")
                .bind(event.seq)
                .bind(channel.0 as i64)
                .execute(&mut *connection)
                .await?;
        }
        _ => return Ok(()),
    }
    for member in &body.members {
        if matches!(kind, EventKind::MemberRemoved | EventKind::MemberLeft) {
            sqlx::query("DELETE FROM members WHERE channel_id = ? AND user_id = ?")
                .bind(channel.0 as i64)
                .bind(member.user.0 as i64)
                .execute(&mut *connection)
                .await?;
        } else {
            put(connection, channel, member.user, member.role, event.seq).await?;
        }
    }
    Ok(())
}

async fn is_newest(
    connection: &mut SqliteConnection,
    channel: ChannelId,
    seq: Seq,
) -> Result<bool, StoreError> {
    let newest: Option<Seq> =
        sqlx::query_scalar("SELECT max(seq) FROM messages WHERE channel_id = ?")
            .bind(channel.0 as i64)
            .fetch_one(connection)
            .await?;
    Ok(newest.is_none_or(|newest| newest <= seq))
}

async fn begin_list(
    connection: &mut SqliteConnection,
    channel: ChannelId,
    as_of: Seq,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM members WHERE channel_id = ?")
        .bind(channel.0 as i64)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT OR REPLACE INTO member_lists VALUES (?, ?)")
        .bind(channel.0 as i64)
        .bind(as_of)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn put(
    connection: &mut SqliteConnection,
    channel: ChannelId,
    user: UserId,
    role: MemberRole,
    joined: Seq,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)")
        .bind(channel.0 as i64)
        .bind(user.0 as i64)
        .bind(role as u8)
        .bind(joined)
        .execute(connection)
        .await?;
    Ok(())
}

fn read_member(row: &SqliteRow) -> Result<Member, StoreError> {
    let name = |column| row.try_get::<Option<String>, _>(column);
    Ok(Member {
        person: Person {
            user: UserId(id(row, "user_id")?),
            handle: name("handle")?.unwrap_or_default(),
            display_name: name("display_name")?.unwrap_or_default(),
        },
        role: MemberRole::from_u8(row.try_get("role")?)
            .ok_or(StoreError::Content("role of a member"))?,
        joined_seq: row.try_get("joined_seq")?,
    })
}
