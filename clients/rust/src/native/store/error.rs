//! Why a data folder cannot be used.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::rescue::RebuiltReason;

/// Primary result codes of SQLite.
const SQLITE_READONLY: i32 = 8;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_NOTADB: i32 = 26;

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the data folder {0} is in use by another process")]
    InUse(PathBuf),
    /// There is no room left where it lies. Nothing that was shown is lost; what is written now is not taken.
    #[error("there is no room left for the data folder")]
    Full,
    /// It, or what it lies on, cannot be written.
    #[error("the data folder cannot be written")]
    ReadOnly,
    /// It cannot be made or opened.
    #[error("the data folder {0} cannot be used: {1}")]
    Folder(PathBuf, std::io::Error),
    /// The database is damaged. It is set aside when the folder is opened the next time.
    #[error("the database of the data folder is damaged: {0}")]
    Damaged(String),
    /// A row holds what it cannot: damage, too.
    #[error("the database of the data folder holds what it cannot: {0}")]
    Content(&'static str),
    /// A later version of this program has written it.
    #[error("the database of the data folder is of a later version (schema {0})")]
    Schema(i64),
    /// Anything else that the database says.
    #[error("the database of the data folder failed: {0}")]
    Database(String),
}

impl StoreError {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::InUse(_) => "data_folder_in_use",
            StoreError::Full => "data_folder_full",
            StoreError::ReadOnly => "data_folder_read_only",
            StoreError::Folder(..) => "data_folder_unusable",
            StoreError::Damaged(_) | StoreError::Content(_) => "data_folder_damaged",
            StoreError::Schema(_) => "data_folder_newer",
            StoreError::Database(_) => "data_folder_failed",
        }
    }

    pub(super) fn of_folder(folder: &Path, error: std::io::Error) -> StoreError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => StoreError::ReadOnly,
            _ => StoreError::Folder(folder.to_owned(), error),
        }
    }

    /// Whether another database in this one's place would do better.
    pub(super) fn damage(&self) -> Option<RebuiltReason> {
        match self {
            StoreError::Damaged(_) | StoreError::Content(_) => Some(RebuiltReason::Damaged),
            StoreError::Schema(_) => Some(RebuiltReason::NewerVersion),
            _ => None,
        }
    }

    /// The same kind of error once more, for another who waits for the same thing.
    pub(in crate::native) fn again(&self) -> StoreError {
        match self {
            StoreError::Full => StoreError::Full,
            StoreError::ReadOnly => StoreError::ReadOnly,
            other => StoreError::Database(other.to_string()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match &error {
            sqlx::Error::Database(said) => {
                let extended = said.code().and_then(|code| code.parse::<i32>().ok());
                // The low byte is the primary code.
                match extended.unwrap_or(0) & 0xff {
                    SQLITE_FULL => StoreError::Full,
                    SQLITE_READONLY => StoreError::ReadOnly,
                    SQLITE_CORRUPT | SQLITE_NOTADB => StoreError::Damaged(error.to_string()),
                    _ => StoreError::Database(error.to_string()),
                }
            }
            sqlx::Error::ColumnNotFound(_) | sqlx::Error::ColumnDecode { .. } => {
                StoreError::Damaged(error.to_string())
            }
            _ => StoreError::Database(error.to_string()),
        }
    }
}
