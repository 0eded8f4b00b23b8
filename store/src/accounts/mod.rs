//! The relational part of what must not be lost: accounts, devices, refresh tokens, remembered HTTP requests.
//!
//! [`Accounts`] is the gateway's handle: cheap to clone, never on the path of a message. Behind it is one SQLite file
//! through sqlx: write-ahead log, `synchronous=FULL`, so that what resolved `Ok` is on stable storage.
//!
//! Invariants: only hashes of passwords and refresh tokens are stored. Times come from the caller, in ms since 1970; there
//! is no clock and no randomness here. All writes go through one connection, so transactions never wait for each other's
//! locks inside SQLite; reads have their own connections and see what is committed.
//!
//! The SQL is what SQLite and PostgreSQL share (`$1` placeholders, `ON CONFLICT DO NOTHING`, no returned row ids, no
//! booleans, no blobs). Where PostgreSQL would need a row lock that SQLite's single writer implies, a conditional update
//! stands first and takes it. The SQLite-only parts are in this file: options, pragmas, the pools.
//!
//! What it does not do: hash passwords, make or sign tokens, count attempts, decide policy.

mod devices;
mod handle;
mod name;
mod people;
mod requests;
#[cfg(test)]
mod tests;
mod tokens;

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};
use thiserror::Error;

pub use devices::{CreateDeviceError, Device, NewDevice};
pub use handle::{HANDLE_CHARS_MAX, HANDLE_CHARS_MIN, Handle, HandleError};
pub use name::{DISPLAY_NAME_CHARS_MAX, DisplayName, DisplayNameError};
pub use people::{Account, CreateAccountError, NewAccount, PasswordHash};
pub use requests::{Memory, REQUEST_MEMORY_MS, RequestAnswer, RequestHash};
pub use tokens::{IssueError, Rotation, RotationTimes, SUPERSEDED_KEPT, TokenHash};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Reading connections: SQLite reads in parallel in this mode, and lookups are short.
const READERS_MAX: u32 = 4;
/// How long a statement waits for a lock that another process (a backup, a shell) holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection before it is told that the database does not answer.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The database failed; whether the statement took effect is not known. Never "not there": that is an empty answer.
#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error("the accounts database failed")]
    Sql(#[from] sqlx::Error),
    /// Also: the file was written by a newer version, or a released migration was edited.
    #[error("the accounts database could not be brought to this version")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the accounts database could not be created")]
    File(#[from] std::io::Error),
}

type Result<T, E = DatabaseError> = std::result::Result<T, E>;

/// The accounts database.
#[derive(Clone, Debug)]
pub struct Accounts {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Accounts {
    /// Opens the file, creates it if there is none (readable by its owner only), and migrates it to this version.
    pub async fn open(path: impl AsRef<Path>) -> Result<Accounts> {
        create_private(path.as_ref())?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool()
            .max_connections(1)
            .connect_with(options.clone())
            .await?;
        MIGRATIONS.run(&writer).await?;
        let reading = options.pragma("query_only", "ON");
        let readers = pool()
            .max_connections(READERS_MAX)
            .connect_with(reading)
            .await?;
        Ok(Accounts { writer, readers })
    }

    /// Waits for running statements and releases the file. Later calls fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Drops what has run out: refresh tokens past their expiry, requests remembered for [`REQUEST_MEMORY_MS`]. For the
    /// node to call now and then; nothing but space depends on it. Returns how many rows went.
    pub async fn purge(&self, now_ms: u64) -> Result<u64> {
        let tokens = tokens::purge(&self.writer, now_ms).await?;
        let requests = requests::purge(&self.writer, now_ms).await?;
        Ok(tokens + requests)
    }

    async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.writer.begin().await?)
    }
}

/// Makes the file before SQLite does, because SQLite would make it (and the log beside it) readable by everybody.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Ids and times are below 2⁶³; a larger number from outside becomes negative here and is in no row.
fn sql(number: u64) -> i64 {
    number.cast_signed()
}

/// The number that [`sql`] stored.
fn unsql(stored: i64) -> u64 {
    stored.cast_unsigned()
}
