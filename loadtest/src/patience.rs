//! Calls to the HTTP API that are made again while the node says that it is too much: passwords are hashed a few at a time, and
//! whoever comes beside them is sent away for a moment.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::http::HttpError;

/// A node that asks to wait is asked again so often, a second apart.
const TRIES: u32 = 120;
/// How long an answer may take. Password hashing queues up.
const CALL_PATIENCE: Duration = Duration::from_secs(60);

/// Waits while the node says that it is too much; any other refusal is an error.
pub(crate) async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, HttpError>>,
{
    for _ in 0..TRIES {
        let answer = timeout(CALL_PATIENCE, call());
        match answer.await.context("the node does not answer any more")? {
            Err(HttpError::Problem { code, .. })
                if code == "rate_limited" || code == "overloaded" =>
            {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            result => return Ok(result?),
        }
    }
    bail!(
        "the node keeps refusing for its rate limits; lift `limits.*` and `auth.*` there for a load run (docs/loadtest.md)"
    )
}
