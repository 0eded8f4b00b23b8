//! Who somebody is: access tokens, refresh tokens, passwords.
//!
//! [`Gate`] is what sessions and HTTP ask: does this token speak for an active device? It never says which of the many
//! possible things was wrong with a token, only whether it is worth refreshing (expired) or not.

pub mod passwords;
pub mod tokens;

use std::sync::Arc;

use conch_router::Refused;
use conch_store::accounts::{Accounts, Device};
use conch_wire::Code;

use crate::clock::Clock;
use crate::session::effect::Identity;
use tokens::{TokenError, Tokens};

/// A device's last sign of life is this exact.
const SEEN_EVERY_MS: u64 = 3_600_000;

/// The check of access tokens against the key, the clock and the list of devices.
#[derive(Debug)]
pub struct Gate {
    pub tokens: Tokens,
    pub accounts: Accounts,
    pub clock: Clock,
}

fn refused(code: Code, detail: &'static str) -> Refused {
    Refused {
        code,
        retry_after_ms: 0,
        item: 0,
        detail,
    }
}

impl Gate {
    pub fn new(tokens: Tokens, accounts: Accounts, clock: Clock) -> Arc<Gate> {
        Arc::new(Gate {
            tokens,
            accounts,
            clock,
        })
    }

    /// Who the token speaks for, if its device is still active.
    pub async fn check(&self, token: &str) -> Result<Identity, Refused> {
        let wall_ms = self.clock.wall_ms();
        let claims = self.tokens.verify(token, wall_ms).map_err(|e| match e {
            TokenError::Expired => refused(Code::TokenExpired, "the token has expired"),
            TokenError::Invalid => refused(Code::Unauthenticated, "the token is not accepted"),
        })?;
        match self.accounts.device(claims.device).await {
            Ok(Some(device)) if device.user == claims.user && device.is_active() => {
                self.note_seen(&device, wall_ms);
            }
            Ok(Some(device)) if device.user == claims.user => {
                return Err(refused(Code::DeviceRevoked, "the device was logged out"));
            }
            Ok(_) => {
                return Err(refused(Code::Unauthenticated, "the token is not accepted"));
            }
            Err(error) => {
                tracing::error!(%error, "the accounts database failed");
                return Err(Refused {
                    retry_after_ms: 1_000,
                    ..refused(Code::Unavailable, "accounts cannot be read now")
                });
            }
        }
        // Wall time becomes monotonic here, once: a clock that jumps later moves no deadline.
        let left_ms = claims.expires_ms.saturating_sub(wall_ms);
        Ok(Identity {
            user: claims.user,
            device: claims.device,
            expires_ms: self.clock.now_ms() + left_ms,
        })
    }

    /// Notes a sign of life, seldom and behind the caller's back: it is a durable write, and only for people to look at.
    fn note_seen(&self, device: &Device, wall_ms: u64) {
        if wall_ms.saturating_sub(device.seen_ms) < SEEN_EVERY_MS {
            return;
        }
        let (accounts, id) = (self.accounts.clone(), device.id);
        tokio::spawn(async move {
            if let Err(error) = accounts.touch_device(id, wall_ms).await {
                tracing::warn!(%error, "a sign of life could not be noted");
            }
        });
    }
}
