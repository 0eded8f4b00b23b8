//! How the program ends: documented codes, which a supervisor acts on.
//!
//! | code | meaning | a supervisor |
//! |---|---|---|
//! | 0 | stopped cleanly | leaves it |
//! | 1 | something else failed | starts it again |
//! | 2 | the configuration is refused; the message says what to set | leaves it |
//! | 3 | the data folder is refused (format, damage, index behind, in use) | leaves it: a person decides |
//! | 4 | the log failed while running (write, fsync): nothing is acknowledged any more | starts it again |

use conch_store::embedded::OpenError;
use thiserror::Error;

use crate::config::ConfigError;
use crate::tls::TlsError;

/// Why the program ends with a code above 0.
#[derive(Debug, Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the data folder is refused: {0}")]
    Data(#[from] OpenError),
    #[error("the accounts database is refused: {0}")]
    Accounts(#[source] Box<conch_store::accounts::DatabaseError>),
    #[error("the log failed: {0}")]
    Log(String),
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Failure {
        let what = what.into();
        move |source| Failure::Io { what, source }
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Tls(_) => 2,
            Failure::Data(OpenError::Options(_)) => 2,
            Failure::Data(_) | Failure::Accounts(_) => 3,
            Failure::Log(_) => 4,
            Failure::Io { .. } | Failure::Other(_) => 1,
        }
    }
}
