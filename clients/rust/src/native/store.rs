//! The data folder: its lock, and the database with what the core remembers.
//!
//! One process at a time: an operating system's lock on the file `lock` is held until the [`Store`] is closed or dropped,
//! and falls with the process. The database is SQLite in WAL mode with `synchronous = FULL`, so a batch that [`Store::apply`] has
//! committed survives power loss; each batch is one transaction. Reading may go on beside writing.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conch_wire::event::{ChannelKind, SendFlags};
use conch_wire::{
    ChannelId, DeviceId, Event, EventFlags, MemberRole, MessageKey, Seq, SessionId, UserId,
};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection, Row};
use thiserror::Error;

use super::http::Person;
use super::login::{Account, StoredLogin};
use crate::core::{
    ChannelRow, Listing, ListingPhase, Loaded, Marks, MessageRow, Meta, OutboxItem, Persist,
};

/// Number of the schema; another one in a folder is another program's.
const SCHEMA: i64 = 1;
const SCHEMA_SQL: &str = include_str!("schema.sql");

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("the data folder {0} is in use by another process")]
    InUse(PathBuf),
    #[error("the data folder {0} cannot be used: {1}")]
    Folder(PathBuf, std::io::Error),
    #[error("the data folder was written by another version (schema {0})")]
    Schema(i64),
    #[error("the database of the data folder failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database of the data folder holds what it cannot: {0}")]
    Content(&'static str),
}

/// Handle to the data folder. Cheap to clone; the lock falls with [`Store::close`], or with the last one.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pool: SqlitePool,
    lock: Arc<File>,
}

impl Store {
    pub(super) async fn open(folder: &Path) -> Result<Store, StoreError> {
        let failed = |error| StoreError::Folder(folder.to_owned(), error);
        make_private_folder(folder).map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let options = SqliteConnectOptions::new()
            .filename(folder.join("client.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new()
            .max_connections(3)
            .connect_with(options)
            .await?;
        let store = Store {
            pool,
            lock: Arc::new(lock),
        };
        store.prepare().await?;
        Ok(store)
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let schema: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *connection)
            .await?;
        match schema {
            SCHEMA => return Ok(()),
            0 => {}
            other => return Err(StoreError::Schema(other)),
        }
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(SCHEMA_SQL).execute(&mut *transaction).await?;
        sqlx::raw_sql("PRAGMA user_version = 1")
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Waits until what is being written is written, and lets go of the folder: handles that are left do nothing more.
    pub(super) async fn close(&self) {
        self.pool.close().await;
        // The pool is closed: whoever takes the folder now has it alone. If this fails the lock falls with the handle.
        let _ = self.lock.unlock();
    }

    // ---- the core's memory ----

    pub(super) async fn load(&self) -> Result<Loaded, StoreError> {
        let meta = sqlx::query("SELECT * FROM meta")
            .fetch_optional(&self.pool)
            .await?;
        let channels = sqlx::query("SELECT * FROM channels")
            .fetch_all(&self.pool)
            .await?;
        let outbox = sqlx::query("SELECT * FROM outbox ORDER BY id")
            .fetch_all(&self.pool)
            .await?;
        Ok(Loaded {
            meta: meta
                .as_ref()
                .map(read_meta)
                .transpose()?
                .unwrap_or_default(),
            channels: channels
                .iter()
                .map(read_channel)
                .collect::<Result<_, _>>()?,
            outbox: outbox.iter().map(read_outbox).collect::<Result<_, _>>()?,
        })
    }

    /// Carries out the steps in one durable transaction.
    pub(super) async fn apply(&self, steps: &[Persist]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for step in steps {
            apply_step(&mut transaction, step).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Up to `items` events of a channel below `before`, oldest first. Only the run without holes is read.
    pub(super) async fn messages(
        &self,
        channel: ChannelId,
        before: Seq,
        items: u32,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT messages.* FROM messages JOIN channels USING (channel_id)
             WHERE channel_id = ? AND seq < ? AND seq BETWEEN base AND have
             ORDER BY seq DESC LIMIT ?",
        )
        .bind(channel.0 as i64)
        .bind(before)
        .bind(items)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().rev().map(read_message).collect()
    }

    // ---- login and people ----

    pub(super) async fn load_login(&self) -> Result<Option<StoredLogin>, StoreError> {
        let row = sqlx::query("SELECT * FROM login")
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read_login).transpose()
    }

    pub(super) async fn save_login(&self, login: Option<&StoredLogin>) -> Result<(), StoreError> {
        let Some(login) = login else {
            sqlx::query("DELETE FROM login").execute(&self.pool).await?;
            return Ok(());
        };
        sqlx::query("INSERT OR REPLACE INTO login VALUES (1, ?, ?, ?, ?, ?, ?, ?)")
            .bind(login.account.user.0 as i64)
            .bind(login.account.device.0 as i64)
            .bind(&login.account.handle)
            .bind(&login.account.display_name)
            .bind(&login.access_token)
            .bind(login.expires_ms as i64)
            .bind(&login.refresh_token)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn people(&self) -> Result<Vec<Person>, StoreError> {
        let rows = sqlx::query("SELECT * FROM people")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Person {
                    user: UserId(id(row, "user_id")?),
                    handle: row.try_get("handle")?,
                    display_name: row.try_get("display_name")?,
                })
            })
            .collect()
    }

    pub(super) async fn save_people(&self, people: &[Person]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for person in people {
            sqlx::query("INSERT OR REPLACE INTO people VALUES (?, ?, ?)")
                .bind(person.user.0 as i64)
                .bind(&person.handle)
                .bind(&person.display_name)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// Tokens and messages lie there: for this user only.
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

async fn apply_step(connection: &mut SqliteConnection, step: &Persist) -> Result<(), StoreError> {
    match step {
        Persist::Meta(meta) => put_meta(connection, meta).await?,
        Persist::Channel(row) => put_channel(connection, row).await?,
        Persist::ChannelRemoved(channel) => {
            delete(
                connection,
                "DELETE FROM messages WHERE channel_id = ?",
                channel.0,
            )
            .await?;
            delete(
                connection,
                "DELETE FROM channels WHERE channel_id = ?",
                channel.0,
            )
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
        Persist::Message(row) => put_message(connection, row).await?,
        Persist::Outbox(item) => put_outbox(connection, item).await?,
        Persist::OutboxRemoved(item) => {
            delete(connection, "DELETE FROM outbox WHERE id = ?", *item).await?;
        }
        Persist::Forget => {
            sqlx::raw_sql("DELETE FROM messages; DELETE FROM channels")
                .execute(connection)
                .await?;
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

async fn put_meta(connection: &mut SqliteConnection, meta: &Meta) -> Result<(), sqlx::Error> {
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
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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

async fn put_outbox(
    connection: &mut SqliteConnection,
    item: &OutboxItem,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(item.id as i64)
        .bind(item.channel.0 as i64)
        .bind(&item.key.0[..])
        .bind(item.kind)
        .bind(item.flags.0)
        .bind(&item.tail[..])
        .bind(item.created_ms as i64)
        .execute(connection)
        .await?;
    Ok(())
}

fn id(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
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

fn read_meta(row: &SqliteRow) -> Result<Meta, StoreError> {
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

fn read_channel(row: &SqliteRow) -> Result<ChannelRow, StoreError> {
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
        informed_seq: row.try_get("informed_seq")?,
        listed: row.try_get("listed")?,
        used: id(row, "used")?,
    })
}

fn read_message(row: &SqliteRow) -> Result<MessageRow, StoreError> {
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

fn read_outbox(row: &SqliteRow) -> Result<OutboxItem, StoreError> {
    let tail: Vec<u8> = row.try_get("tail")?;
    Ok(OutboxItem {
        id: id(row, "id")?,
        channel: ChannelId(id(row, "channel_id")?),
        key: key(row.try_get("message_key")?)?,
        kind: row.try_get("kind")?,
        flags: SendFlags(row.try_get("flags")?),
        tail: Bytes::from(tail),
        created_ms: id(row, "created_ms")?,
    })
}

fn read_login(row: &SqliteRow) -> Result<StoredLogin, StoreError> {
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

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
