//! What the threads and handles of one open store share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::contract::StoreIdentity;
use crate::{Lsn, ReadError};

use super::index::Index;
use super::log::pool::Pool;
use super::log::writer::Queue;
use super::options::{EmbeddedOptions, Fatal};
use super::tail::Tail;

/// How the applier is told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Everything durable goes into the index first.
    Settled,
    /// Now; the log has it.
    AsItIs,
}

#[derive(Debug, Default)]
struct Signal {
    due: bool,
    /// Whatever the size and age of the tail.
    forced: bool,
    ending: Option<Ending>,
}

/// Shared by the handle, the writer, the applier, the keeper and running reads.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: EmbeddedOptions,
    pub(super) identity: StoreIdentity,
    pub(super) queue: Queue,
    pub(super) tail: Tail,
    pub(super) pool: Pool,
    /// `None` once closed.
    pub(super) index: RwLock<Option<Index>>,
    pub(super) read_permits: Semaphore,
    pub(super) id_blocks: Mutex<BTreeMap<u8, u64>>,
    pub(super) storage_full: AtomicBool,
    pub(super) durable: AtomicU64,
    pub(super) applied: AtomicU64,
    pub(super) fatal: watch::Sender<Option<Fatal>>,
    signal: Mutex<Signal>,
    signalled: Condvar,
}

/// The parts that [`Shared::new`] takes over.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) options: EmbeddedOptions,
    pub(super) identity: StoreIdentity,
    pub(super) tail: Tail,
    pub(super) pool: Pool,
    pub(super) index: Index,
    pub(super) id_blocks: BTreeMap<u8, u64>,
    pub(super) durable: Lsn,
    pub(super) applied: Lsn,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Shared {
        Shared {
            queue: Queue::default(),
            read_permits: Semaphore::new(parts.options.reads_max),
            options: parts.options,
            identity: parts.identity,
            tail: parts.tail,
            pool: parts.pool,
            index: RwLock::new(Some(parts.index)),
            id_blocks: Mutex::new(parts.id_blocks),
            storage_full: AtomicBool::new(false),
            durable: AtomicU64::new(parts.durable),
            applied: AtomicU64::new(parts.applied),
            fatal: watch::Sender::new(None),
            signal: Mutex::default(),
            signalled: Condvar::new(),
        }
    }

    /// The open index.
    pub(super) fn index(&self) -> Result<Index, ReadError> {
        self.index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or(ReadError::Closed)
    }

    /// Ends the store for good: nothing is acknowledged from here on.
    pub(super) fn fail(&self, fatal: Fatal) {
        tracing::error!(%fatal, "the store has failed; nothing is acknowledged any more");
        self.queue.poison(&fatal.to_string().into());
        self.fatal.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(fatal);
            }
            first
        });
        // Whoever waits for room in front of the index waits in vain.
        self.signalled.notify_all();
    }

    pub(super) fn note_id_block(&self, space: u8, end: u64) {
        let mut blocks = self
            .id_blocks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = blocks.entry(space).or_default();
        *known = end.max(*known);
    }

    /// Ends of all id blocks by space.
    pub(super) fn id_blocks(&self) -> BTreeMap<u8, u64> {
        self.id_blocks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks the applier to run now.
    pub(super) fn signal_applier(&self) {
        let mut signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        signal.due = true;
        drop(signal);
        self.signalled.notify_all();
    }

    /// Asks the applier to bring the index forward now.
    #[cfg(test)]
    pub(super) fn force_apply(&self) {
        let mut signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        signal.due = true;
        signal.forced = true;
        drop(signal);
        self.signalled.notify_all();
    }

    pub(super) fn end_applier(&self, ending: Ending) {
        let mut signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        signal.ending = Some(ending);
        drop(signal);
        self.signalled.notify_all();
    }

    /// Waits until the applier is asked to run or to end, or the time has passed. Returns how it is to end, if at all,
    /// and whether it is to apply in any case.
    pub(super) fn await_signal(&self, timeout: Duration) -> (Option<Ending>, bool) {
        let signal = self.signal.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut signal, _) = self
            .signalled
            .wait_timeout_while(signal, timeout, |signal| {
                !signal.due && signal.ending.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        signal.due = false;
        (signal.ending, std::mem::take(&mut signal.forced))
    }

    pub(super) fn lag(&self) -> u64 {
        let applied = self.applied.load(Ordering::Relaxed);
        self.durable.load(Ordering::Relaxed).saturating_sub(applied)
    }
}

/// Ends the store when one of its threads dies by a panic: what it left undone is not known.
struct Obituary {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = format!("thread {} panicked", self.name);
            self.shared.fail(Fatal::Log(said.into()));
        }
    }
}

/// Starts a named thread of the store.
pub(super) fn spawn_thread(
    name: &'static str,
    shared: &Arc<Shared>,
    run: impl FnOnce(Arc<Shared>) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let shared = shared.clone();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let _obituary = Obituary {
                name,
                shared: shared.clone(),
            };
            run(shared);
        })
}

/// Waits for a thread's end; a panic has told of itself already.
pub(super) fn join(thread: std::thread::JoinHandle<()>) {
    let _ = thread.join();
}
