//! The data folder: its lock, and the database with what the core remembers.
//!
//! One process at a time: an operating system's lock on the file `lock` is held until the [`Store`] is closed or dropped,
//! and falls with the process. The database is SQLite in WAL mode with `synchronous = FULL`, so a batch that [`Store::apply`] has
//! committed survives power loss; each batch is one transaction. Reading may go on beside writing.
//!
//! **What a crash leaves.** The driver stores a batch before it sends, answers or gives out anything of it, so there are
//! three moments. Before the commit: nothing of the batch happened, for anybody; what the server had already said it says
//! again (an ack in WELCOME's answers, an event by cursor or SYNC). After the commit and before frames and events left: a
//! message waits in the outbox, an event is held and was not given out, and the next program shows both from here. After
//! they left: the same rows. A message passes from the outbox into the log in one transaction, so it is always in one of
//! them; a sync token moves in the transaction that holds the rows it speaks of.
//!
//! | file | concept |
//! |---|---|
//! | `steps.rs` | steps of the core as statements |
//! | `rows.rs` | rows, read back |
//! | `members.rs` | members of channels as far as they are known |
//! | `login.rs` | the login, and people's names |
//! | `routes.rs` | what was learnt of transports |
//! | `rescue.rs` | a database that cannot be used is set aside, and what is ours alone is carried over |
//! | `error.rs` | why a data folder cannot be used |

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use conch_wire::{ChannelId, Seq};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection, Sqlite};
use tokio::time::timeout;

use super::http::Person;
use super::login::StoredLogin;
use crate::core::{Loaded, MessageRow, Persist};

mod error;
mod login;
mod members;
mod rescue;
mod routes;
mod rows;
mod steps;

pub use error::StoreError;
pub use rescue::{Rebuilt, RebuiltReason};

use rows::{read_channel, read_message, read_meta, read_outbox};
use steps::apply_step;

/// What makes each version of the schema out of the one before. A folder of a later version is another program's.
const SCHEMA_STEPS: [&str; 3] = [
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
];
const SCHEMA: i64 = SCHEMA_STEPS.len() as i64;
/// The database in its folder.
const DATABASE: &str = "client.db";
/// The content of the lock's file once there is a database.
const MADE: &[u8] = b"made\n";

/// What is being written when the store closes has so long.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Handle to the data folder. Cheap to clone; the lock falls with [`Store::close`], or with the last one.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pool: SqlitePool,
    lock: Arc<File>,
}

/// A data folder and everything in it that is held in memory.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) loaded: Loaded,
    pub(super) people: Vec<Person>,
    pub(super) login: Option<StoredLogin>,
    /// The database could not be used, and this is another one.
    pub(super) rebuilt: Option<Rebuilt>,
}

impl Store {
    /// Opens the folder, and makes it if it is not there. A database that is damaged, or of a later version, is set aside.
    pub(super) async fn open(folder: &Path) -> Result<Opened, StoreError> {
        let failed = |error| StoreError::of_folder(folder, error);
        make_private_folder(folder).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut content = Vec::new();
        lock.read_to_end(&mut content).map_err(failed)?;
        let was_made = content == MADE;
        let lock = Arc::new(lock);

        let rebuilt = match rescue::finish(folder).await? {
            None if was_made && is_empty(&folder.join(DATABASE)) => Some(Rebuilt::nothing_there()),
            finished => finished,
        };
        let mut opened = match Store::load_all(folder, &lock).await {
            Err(error) => match error.damage() {
                Some(reason) => {
                    tracing::warn!(%error, "the database cannot be used: it is set aside");
                    let rebuilt = rescue::set_aside(folder, reason).await?;
                    let opened = Store::load_all(folder, &lock).await?;
                    Opened {
                        rebuilt: Some(rebuilt),
                        ..opened
                    }
                }
                None => return Err(error),
            },
            Ok(opened) => opened,
        };
        opened.rebuilt = opened.rebuilt.or(rebuilt);
        if !was_made {
            (&*lock).write_all(MADE).map_err(failed)?;
        }
        Ok(opened)
    }

    async fn load_all(folder: &Path, lock: &Arc<File>) -> Result<Opened, StoreError> {
        let options = options(&folder.join(DATABASE));
        let pool = SqlitePoolOptions::new()
            .max_connections(3)
            .connect_with(options)
            .await?;
        let store = Store {
            pool,
            lock: Arc::clone(lock),
        };
        match store.read_all().await {
            Ok((loaded, people, login)) => Ok(Opened {
                store,
                loaded,
                people,
                login,
                rebuilt: None,
            }),
            Err(error) => {
                store.pool.close().await;
                Err(error)
            }
        }
    }

    async fn read_all(&self) -> Result<(Loaded, Vec<Person>, Option<StoredLogin>), StoreError> {
        prepare(&mut *self.pool.acquire().await?).await?;
        let word: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&self.pool)
            .await?;
        if word != "ok" {
            return Err(StoreError::Damaged(word));
        }
        Ok((
            self.load().await?,
            self.people().await?,
            self.load_login().await?,
        ))
    }

    /// Waits until what is being written is written, and lets go of the folder: handles that are left do nothing more.
    pub(super) async fn close(&self) {
        // Nothing can be asked of the pool from here on. A connection that does not come back, after the disk failed under it,
        // must not keep its application from ending: then the lock falls with the last handle.
        if timeout(CLOSE_MAX, self.pool.close()).await.is_ok() {
            let _ = self.lock.unlock();
        }
    }

    async fn load(&self) -> Result<Loaded, StoreError> {
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
        let mut connection = self.pool.acquire().await?;
        let written = apply_all(&mut connection, steps).await;
        end_write(connection, written).await
    }

    /// The newest `items` events of a channel within `from ..= to`, oldest first. Only the run without holes is read.
    pub(super) async fn newest(
        &self,
        channel: ChannelId,
        from: Seq,
        to: Seq,
        items: u32,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT messages.* FROM messages JOIN channels USING (channel_id)
             WHERE channel_id = ? AND seq BETWEEN ? AND ? AND seq BETWEEN base AND have
             ORDER BY seq DESC LIMIT ?",
        )
        .bind(channel.0 as i64)
        .bind(from)
        .bind(to)
        .bind(items)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().rev().map(read_message).collect()
    }

    /// The oldest `items` events of a channel within `from ..= to`, oldest first. Only the run without holes is read.
    pub(super) async fn oldest(
        &self,
        channel: ChannelId,
        from: Seq,
        to: Seq,
        items: u32,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT messages.* FROM messages JOIN channels USING (channel_id)
             WHERE channel_id = ? AND seq BETWEEN ? AND ? AND seq BETWEEN base AND have
             ORDER BY seq LIMIT ?",
        )
        .bind(channel.0 as i64)
        .bind(from)
        .bind(to)
        .bind(items)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read_message).collect()
    }
}

async fn apply_all(connection: &mut SqliteConnection, steps: &[Persist]) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for step in steps {
        apply_step(&mut transaction, step).await?;
    }
    Ok(transaction.commit().await?)
}

/// A connection on which a transaction failed is not used again: a full disk makes SQLite end the transaction by itself, and
/// the connection's own count of them is wrong from then on.
async fn end_write(
    connection: PoolConnection<Sqlite>,
    written: Result<(), StoreError>,
) -> Result<(), StoreError> {
    if written.is_err() {
        // What was not committed is not there; that it also could not be closed changes nothing.
        let _ = connection.close().await;
    }
    written
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
}

/// Brings the schema to this version.
async fn prepare(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let schema: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await?;
    let done = usize::try_from(schema).map_err(|_| StoreError::Schema(schema))?;
    let Some(steps) = SCHEMA_STEPS.get(done..) else {
        return Err(StoreError::Schema(schema));
    };
    if steps.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for step in steps {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    sqlx::raw_sql("PRAGMA user_version = 3")
        .execute(&mut *transaction)
        .await?;
    const { assert!(SCHEMA == 3, "the number in the statement above") };
    Ok(transaction.commit().await?)
}

/// Tokens and messages lie there: for this user only.
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |file| file.len() == 0)
}

#[cfg(test)]
mod tests;
