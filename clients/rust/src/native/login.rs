//! Tokens: handed out for each connection and request, refreshed before they end, kept on disk.
//!
//! A refresh token is good for one use, so one refresh runs at a time and its answer is stored before it is used. An
//! application with accounts of its own brings its own [`TokenProvider`] instead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use conch_wire::{DeviceId, UserId};
use thiserror::Error;
use tokio::sync::Mutex;

use super::http::{Api, ApiError, Login};
use super::store::{Store, StoreError};

/// A token that ends sooner than this is not handed out, in milliseconds.
const TOKEN_LEFT_MIN_MS: u64 = 30_000;

/// Who is logged in on this device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Their id, for ever.
    pub user: UserId,
    /// This device's id.
    pub device: DeviceId,
    /// The name that they are found by.
    pub handle: String,
    /// The name that is shown.
    pub display_name: String,
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// There will be none until the person logs in again.
    #[error("log in again: {0}")]
    Rejected(String),
    /// There is none now.
    #[error("no token now: {0}")]
    Unavailable(String),
}

/// What a provider answers.
pub type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Where access tokens come from.
pub trait TokenProvider: Send + Sync + 'static {
    /// A token that is good now; with `refresh`, another one than before, because the server refused that.
    fn token(&self, refresh: bool) -> TokenFuture;
}

/// A login as it is kept.
#[derive(Clone)]
pub(super) struct StoredLogin {
    pub(super) account: Account,
    pub(super) access_token: String,
    /// ms since 1970, by this device's clock.
    pub(super) expires_ms: u64,
    pub(super) refresh_token: String,
}

/// The provider for accounts of the node itself.
pub(super) struct Tokens {
    api: Api,
    store: Store,
    login: Mutex<Option<StoredLogin>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    pub(super) fn new(api: Api, store: Store, login: Option<StoredLogin>) -> Arc<Tokens> {
        Arc::new(Tokens {
            api,
            store,
            login: Mutex::new(login),
        })
    }

    pub(super) async fn account(&self) -> Option<Account> {
        let login = self.login.lock().await;
        login.as_ref().map(|login| login.account.clone())
    }

    /// Keeps a fresh login.
    pub(super) async fn put(&self, login: Login) -> Result<Account, StoreError> {
        let login = stored(login);
        self.store.save_login(Some(&login)).await?;
        let account = login.account.clone();
        *self.login.lock().await = Some(login);
        Ok(account)
    }

    pub(super) async fn clear(&self) -> Result<(), StoreError> {
        self.store.save_login(None).await?;
        *self.login.lock().await = None;
        Ok(())
    }

    /// A token; the lock is held over a refresh, so that one runs at a time.
    pub(super) async fn token(&self, refresh: bool) -> Result<String, TokenError> {
        let mut login = self.login.lock().await;
        let Some(current) = login.as_ref() else {
            return Err(TokenError::Rejected("nobody is logged in".to_owned()));
        };
        if !refresh && current.expires_ms > wall_ms() + TOKEN_LEFT_MIN_MS {
            return Ok(current.access_token.clone());
        }
        let fresh = match self.api.refresh(&current.refresh_token).await {
            Ok(fresh) => stored(fresh),
            Err(error) if error.is_passing() => {
                return Err(TokenError::Unavailable(error.to_string()));
            }
            Err(error) => return Err(TokenError::Rejected(error.to_string())),
        };
        self.store
            .save_login(Some(&fresh))
            .await
            .map_err(|error| TokenError::Unavailable(error.to_string()))?;
        let token = fresh.access_token.clone();
        *login = Some(fresh);
        Ok(token)
    }
}

/// The provider that a driver holds.
#[derive(Clone, Debug)]
pub(super) struct OwnTokens(pub(super) Arc<Tokens>);

impl TokenProvider for OwnTokens {
    fn token(&self, refresh: bool) -> TokenFuture {
        let tokens = Arc::clone(&self.0);
        Box::pin(async move { tokens.token(refresh).await })
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> ApiError {
        match error {
            TokenError::Rejected(_) => ApiError::LoggedOut,
            TokenError::Unavailable(why) => ApiError::Network(why),
        }
    }
}

fn stored(login: Login) -> StoredLogin {
    StoredLogin {
        account: Account {
            user: login.person.user,
            device: login.device,
            handle: login.person.handle,
            display_name: login.person.display_name,
        },
        access_token: login.access_token,
        expires_ms: wall_ms() + login.expires_in_ms,
        refresh_token: login.refresh_token,
    }
}

/// This device's clock, ms since 1970.
pub(super) fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}
