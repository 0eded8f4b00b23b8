//! Store reads of a shard: tasks of their own, so that a slow disk never stops the loop, and bounded in number.
//!
//! What exceeds the bound waits in order; what exceeds that is refused by the caller. A read that panics counts as
//! failed.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use super::input::Completion;

/// Reads of one shard at the store at once: enough to keep a disk's queue busy, few enough to be fair.
const RUNNING_MAX: usize = 64;
/// Reads that wait for one of those to end.
const WAITING_MAX: usize = 8_192;

/// A read under way; resolves to its completion.
pub(crate) type Running = Pin<Box<dyn Future<Output = Completion> + Send>>;

/// The reads of a shard.
#[derive(Default)]
pub(crate) struct Reads {
    running: usize,
    waiting: VecDeque<Running>,
}

impl Reads {
    /// Whether one more finds a place.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// The read to start now, if any: this one, or none because it has to wait.
    pub(crate) fn start(&mut self, read: Running) -> Option<Running> {
        if self.running >= RUNNING_MAX {
            self.waiting.push_back(read);
            return None;
        }
        self.running += 1;
        Some(read)
    }

    /// A read has ended; the next one to start.
    pub(crate) fn ended(&mut self) -> Option<Running> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.running -= 1;
        }
        next
    }
}

/// Runs a store read as a task of its own and turns its outcome, a panic included, into a completion.
pub(crate) fn read<T, F>(
    future: F,
    failed: T,
    completion: impl FnOnce(T) -> Completion + Send + 'static,
) -> Running
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    Box::pin(async move {
        let outcome = tokio::spawn(future).await.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "a store read panicked");
            failed
        });
        completion(outcome)
    })
}
