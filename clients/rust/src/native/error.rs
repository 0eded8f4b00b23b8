//! Why a call of the SDK did not do what it says.

use conch_wire::Code;
use thiserror::Error;

use super::http::ApiError;
use super::store::StoreError;

/// Why a call did not do what it says.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The endpoint is no endpoint.
    #[error("`{0}` is not an endpoint: http://host:port or https://host:port")]
    Endpoint(String),
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP API has no answer, or another one than asked for.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A root certificate, or TLS itself, cannot be used.
    #[error("{0}")]
    Tls(String),
    /// No key can be made.
    #[error("the system has no randomness")]
    Randomness,
    /// The message or the range is not one that may be asked for; `code` says why.
    #[error("{what} ({code})")]
    Invalid {
        /// As the server would say.
        code: Code,
        /// For people.
        what: &'static str,
    },
    /// Too many messages wait to be sent, or are given up and not cancelled.
    #[error("too many messages wait to be sent")]
    OutboxFull,
    /// No message of this key is given up.
    #[error("this message is not one that was refused")]
    NotRefused,
    /// What was asked for is only on the server, and there is no connection.
    #[error("not connected")]
    Offline,
    /// The server says no.
    #[error("refused: {0}")]
    Refused(Code),
    /// The data folder holds what another account received.
    #[error("this data folder belongs to another account; take another folder")]
    OtherAccount,
    /// Somebody is logged in; log out first.
    #[error("somebody is logged in already")]
    LoggedIn,
    /// The client has ended because it could not write its data folder. What was shown is kept; open it again when there is
    /// room.
    #[error("the client has ended: its data folder could not be written")]
    Storage,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// A stable name, for programs and for bindings: the server's where it spoke, one of the SDK's otherwise.
    pub fn code(&self) -> String {
        match self {
            ClientError::Endpoint(_) => "bad_endpoint",
            ClientError::Store(error) => error.code(),
            ClientError::Api(error) => return error.code().to_owned(),
            ClientError::Tls(_) => "tls",
            ClientError::Randomness => "no_randomness",
            ClientError::Invalid { code, .. } | ClientError::Refused(code) => code.name(),
            ClientError::OutboxFull => "outbox_full",
            ClientError::NotRefused => "not_refused",
            ClientError::Offline => "offline",
            ClientError::OtherAccount => "other_account",
            ClientError::LoggedIn => "logged_in",
            ClientError::Storage => "storage",
            ClientError::Closed => "closed",
        }
        .to_owned()
    }
}
