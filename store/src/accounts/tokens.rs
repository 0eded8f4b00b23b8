//! Refresh tokens: what lets a device get access tokens without a password.
//!
//! Each device has one family: the tokens that followed each other since its log-in, numbered. One is *current*. Rotating it
//! makes the next one current and it *superseded*. A superseded token that comes again was copied: the thief and the owner
//! cannot be told apart, so the device is revoked and both are out.
//!
//! One case is no theft: the answer to a rotation got lost (the node or the network died) and the device, which has only the
//! old token, asks again. So the token just before the current one may be rotated again, for `grace_ms` after it was
//! first superseded and only while its successor was never used. The successor that got lost is *replaced*: if it turns
//! up after all, it counts as copied. A device therefore refreshes with one request at a time and keeps the last answer;
//! two at once both succeed, and the one whose answer came from the earlier rotation is revoked at its next refresh.
//!
//! Invariants: only SHA-256 hashes are stored. A family has at most one current token. Every step is one transaction.
//! Of the superseded ones the newest [`SUPERSEDED_KEPT`] are kept to recognise copies; older ones are unknown, which
//! opens nothing either.

use conch_wire::{DeviceId, UserId};
use sqlx::{Row, Sqlite, SqlitePool, Transaction};
use thiserror::Error;

use super::{Accounts, DatabaseError, Result, devices, sql, unsql};

/// How many rotations back a copied token is recognised.
pub const SUPERSEDED_KEPT: u64 = 100;

/// SHA-256 of a refresh token. Of 256 random bits, so a plain hash keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    fn hex(self) -> String {
        hex::encode(self.0)
    }
}

/// When a rotation happens, what it leads to, and how long its answer may get lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RotationTimes {
    pub now_ms: u64,
    /// Expiry of the new token.
    pub expires_ms: u64,
    /// How long after it was superseded a token may be rotated again; 0 allows it within the same millisecond only.
    pub grace_ms: u64,
}

/// What became of a rotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rotation {
    /// The new token is current.
    Rotated { user: UserId, device: DeviceId },
    /// The old token was a copy: the device is revoked now, with all its tokens.
    Reused { user: UserId, device: DeviceId },
    /// No such token, or no longer: the device was revoked or has logged in anew.
    Unknown,
    /// The token has run out; the device logs in again.
    Expired,
}

/// Why a device gets no token.
#[derive(Debug, Error)]
pub enum IssueError {
    #[error("there is no such active device")]
    NoSuchDevice,
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for IssueError {
    fn from(error: sqlx::Error) -> IssueError {
        IssueError::Database(error.into())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TokenState {
    Current,
    Superseded { at_ms: u64 },
    Replaced,
}

struct Token {
    device: DeviceId,
    user: UserId,
    number: u64,
    state: TokenState,
    expires_ms: u64,
}

impl Accounts {
    /// Starts a device's family with its first token; tokens that it had before are gone.
    pub async fn issue_token(
        &self,
        device: DeviceId,
        hash: TokenHash,
        expires_ms: u64,
    ) -> Result<(), IssueError> {
        let mut tx = self.write().await?;
        // Changes nothing, but locks the device's row against a revocation at the same time.
        let active = sqlx::query(
            "UPDATE devices SET created_ms = created_ms WHERE id = $1 AND revoked_ms IS NULL",
        )
        .bind(sql(device.0))
        .execute(&mut *tx)
        .await?;
        if active.rows_affected() == 0 {
            return Err(IssueError::NoSuchDevice);
        }
        sqlx::query("DELETE FROM refresh_tokens WHERE device_id = $1")
            .bind(sql(device.0))
            .execute(&mut *tx)
            .await?;
        insert_current(&mut tx, device, hash, 1, expires_ms).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Exchanges a device's token for its next one. Of several at once for one token the first supersedes it; what the
    /// others get is the rule of the grace above.
    pub async fn rotate_token(
        &self,
        old: TokenHash,
        new: TokenHash,
        times: RotationTimes,
    ) -> Result<Rotation> {
        let mut tx = self.write().await?;
        let Some(token) = find(&mut tx, old).await? else {
            return Ok(Rotation::Unknown);
        };
        if token.expires_ms <= times.now_ms {
            return Ok(Rotation::Expired);
        }
        let (user, device) = (token.user, token.device);
        if !may_rotate(&mut tx, &token, times).await? {
            devices::revoke(&mut tx, device, times.now_ms).await?;
            tx.commit().await?;
            return Ok(Rotation::Reused { user, device });
        }
        if token.state == TokenState::Current {
            supersede(&mut tx, old, times.now_ms).await?;
        } else {
            replace_successor(&mut tx, &token).await?;
        }
        insert_current(&mut tx, device, new, token.number + 1, times.expires_ms).await?;
        forget_ancestors(&mut tx, device, token.number).await?;
        tx.commit().await?;
        Ok(Rotation::Rotated { user, device })
    }
}

async fn find(tx: &mut Transaction<'_, Sqlite>, hash: TokenHash) -> Result<Option<Token>> {
    // The update takes the row's lock before it is read: two rotations of one token go one after the other.
    let known = sqlx::query("UPDATE refresh_tokens SET number = number WHERE hash = $1")
        .bind(hash.hex())
        .execute(&mut **tx)
        .await?;
    if known.rows_affected() == 0 {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT t.device_id, d.account_id, t.number, t.state, t.expires_ms, t.superseded_ms \
         FROM refresh_tokens t JOIN devices d ON d.id = t.device_id WHERE t.hash = $1",
    )
    .bind(hash.hex())
    .fetch_one(&mut **tx)
    .await?;
    let state = match row.get::<&str, _>("state") {
        "current" => TokenState::Current,
        "superseded" => TokenState::Superseded {
            at_ms: unsql(row.get::<Option<i64>, _>("superseded_ms").unwrap_or(0)),
        },
        _ => TokenState::Replaced,
    };
    Ok(Some(Token {
        device: DeviceId(unsql(row.get("device_id"))),
        user: UserId(unsql(row.get("account_id"))),
        number: unsql(row.get("number")),
        state,
        expires_ms: unsql(row.get("expires_ms")),
    }))
}

async fn may_rotate(
    tx: &mut Transaction<'_, Sqlite>,
    token: &Token,
    times: RotationTimes,
) -> Result<bool> {
    match token.state {
        TokenState::Current => Ok(true),
        TokenState::Replaced => Ok(false),
        // A clock that was set back makes this zero: still within, and the successor decides.
        TokenState::Superseded { at_ms } if times.now_ms.saturating_sub(at_ms) > times.grace_ms => {
            Ok(false)
        }
        TokenState::Superseded { .. } => {
            let newest: i64 =
                sqlx::query_scalar("SELECT MAX(number) FROM refresh_tokens WHERE device_id = $1")
                    .bind(sql(token.device.0))
                    .fetch_one(&mut **tx)
                    .await?;
            // A successor that was used has a successor itself.
            Ok(unsql(newest) == token.number + 1)
        }
    }
}

async fn supersede(tx: &mut Transaction<'_, Sqlite>, hash: TokenHash, now_ms: u64) -> Result<()> {
    sqlx::query(
        "UPDATE refresh_tokens SET state = 'superseded', superseded_ms = $2 WHERE hash = $1",
    )
    .bind(hash.hex())
    .bind(sql(now_ms))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn replace_successor(tx: &mut Transaction<'_, Sqlite>, token: &Token) -> Result<()> {
    sqlx::query(
        "UPDATE refresh_tokens SET state = 'replaced' WHERE device_id = $1 AND number = $2",
    )
    .bind(sql(token.device.0))
    .bind(sql(token.number + 1))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn insert_current(
    tx: &mut Transaction<'_, Sqlite>,
    device: DeviceId,
    hash: TokenHash,
    number: u64,
    expires_ms: u64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO refresh_tokens (hash, device_id, number, state, expires_ms, superseded_ms) \
         VALUES ($1, $2, $3, 'current', $4, NULL)",
    )
    .bind(hash.hex())
    .bind(sql(device.0))
    .bind(sql(number))
    .bind(sql(expires_ms))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn forget_ancestors(
    tx: &mut Transaction<'_, Sqlite>,
    device: DeviceId,
    number: u64,
) -> Result<()> {
    if let Some(last) = number.checked_sub(SUPERSEDED_KEPT) {
        sqlx::query("DELETE FROM refresh_tokens WHERE device_id = $1 AND number <= $2")
            .bind(sql(device.0))
            .bind(sql(last))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Drops expired tokens.
pub(super) async fn purge(writer: &SqlitePool, now_ms: u64) -> Result<u64> {
    let gone = sqlx::query("DELETE FROM refresh_tokens WHERE expires_ms <= $1")
        .bind(sql(now_ms))
        .execute(writer)
        .await?;
    Ok(gone.rows_affected())
}
