//! The thread that brings the index forward, and looks after the disk's reserve.
//!
//! It freezes the tail when it is large or old enough, writes it into the index in one batch, lets go of it, and syncs
//! the index only when a log segment waits to be recycled (and at a close). Each second it looks at the free space:
//! below the reserve appends are not admitted and the index rests; above it both go on by themselves.
//!
//! Invariants: one overlay at a time, in order; an index that failed ends the store (it stays failed until a restart,
//! and the log holds everything it lacks).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::{gauge, histogram};

use crate::metrics as names;

use super::disk;
use super::index::{Index, IndexError, shared_text};
use super::options::Fatal;
use super::shared::{Ending, Shared};

/// How often the free space is looked at.
const DISK_CHECK: Duration = Duration::from_secs(1);

/// The thread's loop.
pub(super) fn run(shared: Arc<Shared>, index: Index) {
    let interval = shared.options.apply_interval;
    check_disk(&shared);
    let mut checked_at = Instant::now();
    // What was replayed goes into the index at once: lives that end before the first interval would otherwise hand an
    // ever longer replay to the next one.
    if !shared.storage_full.load(Ordering::Relaxed)
        && let Err(error) = apply(&shared, &index, false)
    {
        return shared.fail(Fatal::Index(shared_text(&error)));
    }
    let mut applied_at = Instant::now();
    loop {
        let (ending, forced) = shared.await_signal(interval.min(DISK_CHECK));
        if checked_at.elapsed() >= DISK_CHECK {
            check_disk(&shared);
            checked_at = Instant::now();
        }
        if ending == Some(Ending::AsItIs) || shared.fatal.borrow().is_some() {
            return;
        }
        let due = forced
            || applied_at.elapsed() >= interval
            || shared.tail.active_bytes() >= shared.options.apply_bytes
            || ending.is_some();
        if due && !shared.storage_full.load(Ordering::Relaxed) {
            if let Err(error) = apply(&shared, &index, ending.is_some()) {
                return shared.fail(Fatal::Index(shared_text(&error)));
            }
            applied_at = Instant::now();
        }
        if ending.is_some() {
            return;
        }
    }
}

/// Brings the index forward by what is durable now.
fn apply(shared: &Shared, index: &Index, settle: bool) -> Result<(), IndexError> {
    if let Some(frozen) = shared.tail.freeze() {
        let began = Instant::now();
        fail::fail_point!("index.before_apply", |_| crate::crash::kill_self());
        index.apply(&frozen)?;
        fail::fail_point!("index.applied", |_| crate::crash::kill_self());
        // In this order: a reader that no longer meets the overlay must know that the index holds it.
        shared.applied.store(frozen.last_lsn, Ordering::Relaxed);
        shared.tail.release_frozen();
        histogram!(names::APPLY_SECONDS.name).record(began.elapsed().as_secs_f64());
        gauge!(names::TAIL_BYTES.name).set(shared.tail.bytes() as f64);
        gauge!(names::APPLIED_LAG.name).set(shared.lag() as f64);
    }
    let applied = shared.applied.load(Ordering::Relaxed);
    if settle || shared.pool.wants_persist(applied) {
        index.persist()?;
        shared.pool.set_persisted(applied);
    }
    Ok(())
}

fn check_disk(shared: &Shared) {
    match disk::free_bytes(&shared.options.dir) {
        Ok(free) => note_free(shared, free),
        Err(error) => tracing::warn!(%error, "cannot ask for the free space"),
    }
}

/// Begins or ends the refusal of appends.
pub(super) fn note_free(shared: &Shared, free: u64) {
    gauge!(names::DISK_FREE_BYTES.name).set(free as f64);
    let full = free < shared.options.disk_reserve_bytes;
    let was_full = shared.storage_full.swap(full, Ordering::Relaxed);
    if full && !was_full {
        tracing::error!(free, "the disk's reserve is reached: sends are refused");
    } else if was_full && !full {
        tracing::info!(free, "there is space again");
    }
}
