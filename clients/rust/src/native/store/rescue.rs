//! A database that cannot be used is set aside, and what is ours alone is carried over into another one.
//!
//! What came from the server comes from there again. Only the login, whose folder it is, the session that the next one
//! replaces, and the outbox are nowhere else: they are read out of the old database as far as it gives them.
//!
//! The new database is made beside the old one, under another name and in one transaction; then the old one's files are
//! renamed, its write-ahead log first (a log beside a database that it does not belong to would be taken for that one's),
//! and at last the new one takes its name. A crash between any two of these is finished by the next program: a whole new
//! database is there, so the renaming goes on. Nothing is deleted: a person, or a better program, may read more out of it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::login::put_login;
use super::rows::{read_login, read_meta, read_outbox};
use super::steps::{put_meta, put_outbox};
use super::{DATABASE, SCHEMA, StoreError, prepare};
use crate::core::{Meta, OutboxItem, OutboxState};
use crate::native::login::{StoredLogin, wall_ms};

/// The new database while it is made.
const NEW: &str = "client.db.new";
/// What SQLite adds to the name of a database.
const SUFFIXES: [&str; 2] = ["-wal", "-shm"];

/// The database of a data folder could not be used, and another one took its place. Channels and messages come from the
/// server again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// Why.
    pub reason: RebuiltReason,
    /// Where the old database lies now; `None`: there was none.
    pub set_aside: Option<PathBuf>,
    /// Messages that were not sent or were given up, and are kept.
    pub outbox_kept: u32,
    /// Whether these are all: the old outbox could be read to its end.
    pub outbox_is_whole: bool,
    /// Whether somebody is still logged in.
    pub login_kept: bool,
}

/// Why a database could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RebuiltReason {
    /// It is no database, or not a whole one.
    Damaged,
    /// A later version of this program has written it.
    NewerVersion,
    /// There was one, and it is gone or empty.
    Missing,
}

/// What is ours alone.
#[derive(Default)]
struct Ours {
    meta: Meta,
    login: Option<StoredLogin>,
    outbox: Vec<OutboxItem>,
    is_whole: bool,
}

impl Rebuilt {
    pub(super) fn nothing_there() -> Rebuilt {
        Rebuilt {
            reason: RebuiltReason::Missing,
            set_aside: None,
            outbox_kept: 0,
            outbox_is_whole: false,
            login_kept: false,
        }
    }
}

/// Sets the database of `folder` aside and puts another one in its place.
pub(super) async fn set_aside(folder: &Path, reason: RebuiltReason) -> Result<Rebuilt, StoreError> {
    let ours = read_ours(&folder.join(DATABASE)).await;
    make_new(&folder.join(NEW), &ours).await?;
    let aside = rename_all(folder)?;
    Ok(Rebuilt {
        reason,
        set_aside: Some(aside),
        outbox_kept: ours.outbox.len() as u32,
        outbox_is_whole: ours.is_whole,
        login_kept: ours.login.is_some(),
    })
}

/// Finishes what a program began that ended in the middle of it.
pub(super) async fn finish(folder: &Path) -> Result<Option<Rebuilt>, StoreError> {
    let new = folder.join(NEW);
    if !new.exists() {
        return Ok(None);
    }
    let ours = match read_whole(&new).await {
        Some(ours) => ours,
        None => {
            remove_all(&new).map_err(|error| StoreError::of_folder(folder, error))?;
            return Ok(None);
        }
    };
    let aside = rename_all(folder)?;
    Ok(Some(Rebuilt {
        reason: RebuiltReason::Damaged,
        set_aside: Some(aside),
        outbox_kept: ours.outbox.len() as u32,
        // The one who knew it is gone.
        outbox_is_whole: false,
        login_kept: ours.login.is_some(),
    }))
}

async fn read_ours(database: &Path) -> Ours {
    // Read-only, so that what is set aside is what was found.
    let options = SqliteConnectOptions::new()
        .filename(database)
        .read_only(true);
    let Ok(mut connection) = options.connect().await else {
        return Ours::default();
    };
    let mut ours = Ours::default();
    if let Ok(Some(row)) = sqlx::query("SELECT * FROM meta")
        .fetch_optional(&mut connection)
        .await
        && let Ok(meta) = read_meta(&row)
    {
        ours.meta.user = meta.user;
        ours.meta.session = meta.session;
    }
    if let Ok(Some(row)) = sqlx::query("SELECT * FROM login")
        .fetch_optional(&mut connection)
        .await
    {
        ours.login = read_login(&row).ok();
    }
    ours.is_whole = read_unsent(&mut connection, &mut ours.outbox).await.is_ok();
    // It was only read: there is nothing that could be lost.
    let _ = connection.close().await;
    ours
}

/// Row by row: a page that cannot be read costs what lies behind it, not what lies before.
async fn read_unsent(
    connection: &mut SqliteConnection,
    outbox: &mut Vec<OutboxItem>,
) -> Result<(), StoreError> {
    let mut after = i64::MIN;
    loop {
        let row = sqlx::query("SELECT * FROM outbox WHERE id > ? ORDER BY id LIMIT 1")
            .bind(after)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = row else { return Ok(()) };
        let item = read_outbox(&row)?;
        after = item.id as i64;
        // What the server has comes from there.
        if !matches!(item.state, OutboxState::Stored { .. }) {
            outbox.push(item);
        }
    }
}

/// In one transaction, so that the new database is whole or no database at all.
async fn make_new(path: &Path, ours: &Ours) -> Result<(), StoreError> {
    remove_all(path).map_err(|error| StoreError::of_folder(path, error))?;
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    let mut transaction = connection.begin().await?;
    prepare(&mut transaction).await?;
    put_meta(&mut transaction, &ours.meta).await?;
    if let Some(login) = &ours.login {
        put_login(&mut transaction, login).await?;
    }
    for item in &ours.outbox {
        put_outbox(&mut transaction, item).await?;
    }
    transaction.commit().await?;
    Ok(connection.close().await?)
}

/// A new database that was finished; `None`: its transaction was not.
async fn read_whole(path: &Path) -> Option<Ours> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .ok()?;
    let schema: Option<i64> = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut connection)
        .await
        .ok();
    let _ = connection.close().await;
    if schema != Some(SCHEMA) {
        return None;
    }
    let ours = read_ours(path).await;
    ours.is_whole.then_some(ours)
}

/// The old database's files get another name, and the new one gets its name. Returns where the old one is.
fn rename_all(folder: &Path) -> Result<PathBuf, StoreError> {
    let aside = folder.join(format!("{DATABASE}.aside-{}", wall_ms()));
    let renamed = SUFFIXES
        .iter()
        .map(|suffix| rename(&with(&folder.join(DATABASE), suffix), &with(&aside, suffix)))
        .chain([rename(&folder.join(DATABASE), &aside)])
        .collect::<std::io::Result<()>>()
        .and_then(|()| std::fs::rename(folder.join(NEW), folder.join(DATABASE)));
    renamed.map_err(|error| StoreError::of_folder(folder, error))?;
    Ok(aside)
}

/// A file that is not there needs no other name.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove_all(path: &Path) -> std::io::Result<()> {
    for path in ["", "-wal", "-shm", "-journal"].map(|suffix| with(path, suffix)) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
