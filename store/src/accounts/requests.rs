//! Remembered requests: the durable half of HTTP's `Idempotency-Key`.
//!
//! Before a request creates something, its key is remembered, with a hash of the request and the id minted for what it
//! will create. After it, its answer is kept. Asked again within [`REQUEST_MEMORY_MS`], the same request gets that answer; another
//! request under the same key is a mismatch.
//!
//! A request whose node died in between (or that still runs elsewhere) is *unfinished*: the caller creates again **under
//! the id of the first attempt**, which the owner takes for the same thing, and so nothing is made twice.
//!
//! What it does not do: run anything, or bound keys: the caller refuses keys that are too long.

use conch_wire::UserId;
use sqlx::{Row, SqlitePool};

use super::{Accounts, Result, sql, unsql};

/// A request is remembered for a day.
pub const REQUEST_MEMORY_MS: u64 = 24 * 3_600 * 1_000;

/// SHA-256 over the request's method, path and body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestHash(pub [u8; 32]);

/// The answer that a finished request got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body, as it was sent.
    pub body: String,
}

/// What is known of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Nothing until now: run it, under the given subject.
    Fresh,
    /// The same request was begun under this subject and has no answer yet: run it (again) under this one.
    Unfinished { subject: u64 },
    /// The same request had this answer.
    Replay(RequestAnswer),
    /// Another request has this key.
    Mismatch,
}

impl Accounts {
    /// Remembers that `user` begins a request that will create `subject`, or says what is known of its key.
    pub async fn remember_request(
        &self,
        user: UserId,
        key: &str,
        hash: RequestHash,
        subject: u64,
        now_ms: u64,
    ) -> Result<Memory> {
        let hash = hex::encode(hash.0);
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM remembered_requests WHERE account_id = $1 AND request_key = $2 AND created_ms <= $3")
            .bind(sql(user.0))
            .bind(key)
            .bind(forgotten_until(now_ms))
            .execute(&mut *tx)
            .await?;
        let begun = sqlx::query(
            "INSERT INTO remembered_requests (account_id, request_key, request_hash, subject, created_ms) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(sql(user.0))
        .bind(key)
        .bind(&hash)
        .bind(sql(subject))
        .bind(sql(now_ms))
        .execute(&mut *tx)
        .await?;
        if begun.rows_affected() == 1 {
            tx.commit().await?;
            return Ok(Memory::Fresh);
        }
        let row = sqlx::query(
            "SELECT * FROM remembered_requests WHERE account_id = $1 AND request_key = $2",
        )
        .bind(sql(user.0))
        .bind(key)
        .fetch_one(&mut *tx)
        .await?;
        if row.get::<&str, _>("request_hash") != hash {
            return Ok(Memory::Mismatch);
        }
        Ok(match row.get::<Option<i64>, _>("status") {
            Some(status) => Memory::Replay(RequestAnswer {
                status: status as u16,
                body: row.get("body"),
            }),
            None => Memory::Unfinished {
                subject: unsql(row.get("subject")),
            },
        })
    }

    /// Keeps the answer of a request that was remembered. The first answer stays.
    pub async fn complete_request(
        &self,
        user: UserId,
        key: &str,
        answer: &RequestAnswer,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE remembered_requests SET status = $3, body = $4 \
             WHERE account_id = $1 AND request_key = $2 AND status IS NULL",
        )
        .bind(sql(user.0))
        .bind(key)
        .bind(i64::from(answer.status))
        .bind(&answer.body)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Forgets a request that was refused for certain, so that its key may be tried again. Finished ones stay.
    pub async fn forget_request(&self, user: UserId, key: &str) -> Result<()> {
        sqlx::query("DELETE FROM remembered_requests WHERE account_id = $1 AND request_key = $2 AND status IS NULL")
            .bind(sql(user.0))
            .bind(key)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

/// Requests begun up to then are forgotten. Before 1970 nothing was: a clock at zero forgets nothing.
fn forgotten_until(now_ms: u64) -> i64 {
    now_ms.checked_sub(REQUEST_MEMORY_MS).map_or(-1, sql)
}

/// Drops requests that are remembered no longer.
pub(super) async fn purge(writer: &SqlitePool, now_ms: u64) -> Result<u64> {
    let gone = sqlx::query("DELETE FROM remembered_requests WHERE created_ms <= $1")
        .bind(forgotten_until(now_ms))
        .execute(writer)
        .await?;
    Ok(gone.rows_affected())
}
