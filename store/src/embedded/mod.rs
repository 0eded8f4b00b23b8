//! The embedded store of a single node: log first, index behind.
//!
//! A record's way: [`EmbeddedStore::append`](crate::MessageStore::append) queues the batch → the writer thread frames,
//! writes and syncs a group ([`log`]) → folds it into the tail ([`fold`], [`tail`]) → answers. Later the applier thread
//! writes the tail into the fjall index in bulk ([`index`]), and when the index is fsynced past a segment the keeper
//! thread recycles it. Reads merge tail and index ([`read`]). At a start [`open`] walks the log and replays what the
//! index lacks.
//!
//! Invariants: the log is the only truth, everything else can be made again from it and the index; no read shows what
//! is not synced; memory in front of the index and disk behind it are bounded; a failure of log or index ends the store
//! ([`EmbeddedStore::fatal`]), it never acknowledges on.
//!
//! What it does not do: know what an event means (the [`Fold`] does), talk to other nodes, keep accounts.

mod applier;
mod codec;
mod disk;
mod fold;
mod folder;
mod idmap;
mod index;
mod log;
mod open;
mod options;
mod overlay;
mod page;
mod read;
mod shared;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use conch_wire::{ChannelId, MessageKey, UserId};
use metrics::counter;
use tokio::sync::watch;

use crate::contract::{
    AppendError, Appended, BoxFuture, InboxPage, InboxQuery, MessageStore, Range, ReadError,
    ReadLimit, Refusal, StoreIdentity,
};
use crate::row::{ChannelSnapshot, EventRow, InboxRow, MemberRow, Record};
use crate::{Fold, Lsn, metrics as names};

pub use folder::{RESTORE_ID_SKIP, new_generation};
pub use options::{EmbeddedOptions, Fatal, OpenError, SEGMENT_BYTES_MIN};

use folder::Folder as DataFolder;
use log::writer::Answer;
use read::Plan;
use shared::{Ending, Shared};

/// What a refused sender is told to wait.
const OVERLOADED_RETRY_MS: u32 = 250;
const STORAGE_FULL_RETRY_MS: u32 = 5_000;

// The model says what the contract leaves open; these two numbers are part of it.
const _: () = assert!(index::write::KEY_WINDOW_MS == crate::memory::KEY_WINDOW_MS);
const _: () = assert!(overlay::ERASED_BODY_BYTES == crate::memory::ERASED_BODY_BYTES);

#[derive(Debug, Default)]
struct Threads {
    writer: Option<JoinHandle<()>>,
    applier: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

/// The embedded store. Dropping it without [`MessageStore::close`] stops it in order too, but leaves the index behind:
/// the next start replays.
#[derive(Debug)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// `None` once somebody has begun to close it.
    running: Arc<Mutex<Option<Running>>>,
}

/// What ends when the store ends.
#[derive(Debug)]
struct Running {
    threads: Threads,
    /// Holds the folder's lock: goes last.
    data: DataFolder,
}

impl Running {
    /// Ends the threads in the order in which work flows through them.
    fn end(&mut self, shared: &Shared, ending: Ending) {
        shared.queue.close();
        if let Some(writer) = self.threads.writer.take() {
            shared::join(writer);
        }
        shared.end_applier(ending);
        if let Some(applier) = self.threads.applier.take() {
            shared::join(applier);
        }
        shared.pool.close();
        if let Some(keeper) = self.threads.keeper.take() {
            shared::join(keeper);
        }
    }
}

impl EmbeddedStore {
    /// Opens or creates the store in `options.dir`. Blocking: recovers the log and replays what the index lacks.
    pub fn open(options: EmbeddedOptions, fold: Arc<dyn Fold>) -> Result<EmbeddedStore, OpenError> {
        open::open(options, fold)
    }

    /// Tells when the store has failed. From then on nothing is acknowledged; the program exits with its own code.
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.shared.fatal.subscribe()
    }

    /// Lsn of the last durable record; 0: none.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Last record that the index holds.
    pub fn applied_lsn(&self) -> Lsn {
        self.shared.applied.load(Ordering::Relaxed)
    }

    /// Memory in front of the index, bytes.
    pub fn tail_bytes(&self) -> usize {
        self.shared.tail.bytes()
    }

    fn new(shared: Arc<Shared>, data: DataFolder) -> EmbeddedStore {
        let running = Running {
            threads: Threads::default(),
            data,
        };
        EmbeddedStore {
            shared,
            running: Arc::new(Mutex::new(Some(running))),
        }
    }

    fn start_threads(
        &self,
        writer: log::writer::Writer,
        index: index::Index,
    ) -> std::io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = &mut running.as_mut().expect("not closed yet").threads;
        let shared = &self.shared;
        threads.keeper = Some(shared::spawn_thread("log-keeper", shared, |shared| {
            shared.pool.keep();
        })?);
        threads.applier = Some(shared::spawn_thread("index-applier", shared, |shared| {
            applier::run(shared, index);
        })?);
        threads.writer = Some(shared::spawn_thread("log-writer", shared, |_| {
            writer.run()
        })?);
        Ok(())
    }

    /// Turns a plan into a future: what memory answers is ready, the rest waits for a place on the read pool.
    fn answer<T: Send + 'static>(
        &self,
        plan: Result<Plan<T>, ReadError>,
    ) -> BoxFuture<Result<T, ReadError>> {
        let work = match plan {
            Err(error) => return Box::pin(std::future::ready(Err(error))),
            Ok(Plan::Ready(answer)) => return Box::pin(std::future::ready(Ok(answer))),
            Ok(Plan::Blocking(work)) => work,
        };
        let shared = self.shared.clone();
        Box::pin(async move {
            let _permit = shared
                .read_permits
                .acquire()
                .await
                .map_err(|_| ReadError::Closed)?;
            match tokio::task::spawn_blocking(work).await {
                Ok(answer) => Ok(answer?),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => Err(ReadError::Closed),
            }
        })
    }
}

#[cfg(test)]
impl EmbeddedStore {
    /// From now on as after a kill: what is queued is lost, nothing is sealed or settled. Drop it next.
    fn kill(&self) {
        self.shared.queue.poison(&"killed by a test".into());
    }

    /// Brings the index forward by everything durable; blocking.
    fn settle_index(&self) {
        let durable = self.durable_lsn();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.applied_lsn() < durable || self.shared.tail.layers().frozen.is_some() {
            assert!(std::time::Instant::now() < deadline, "the applier is stuck");
            self.shared.force_apply();
            std::thread::yield_now();
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut running) = running {
            running.end(&self.shared, Ending::AsItIs);
            self.shared.read_permits.close();
            release_index(&self.shared);
            drop(running.data);
        }
    }
}

fn release_index(shared: &Shared) {
    let index = shared
        .index
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    drop(index);
}

impl MessageStore for EmbeddedStore {
    fn identity(&self) -> StoreIdentity {
        self.shared.identity
    }

    fn admit(&self, bytes: usize) -> Result<(), Refusal> {
        if self.shared.storage_full.load(Ordering::Relaxed) {
            counter!(names::REFUSED_STORAGE_FULL.name).increment(1);
            return Err(Refusal::StorageFull {
                retry_after_ms: STORAGE_FULL_RETRY_MS,
            });
        }
        if self.shared.tail.bytes().saturating_add(bytes) > self.shared.options.tail_bytes_max {
            counter!(names::REFUSED_OVERLOADED.name).increment(1);
            return Err(Refusal::Overloaded {
                retry_after_ms: OVERLOADED_RETRY_MS,
            });
        }
        Ok(())
    }

    fn append(&self, batch: Vec<Record>) -> BoxFuture<Result<Appended, AppendError>> {
        let answer = match self.shared.queue.push(&self.shared, batch) {
            Ok(answer) => answer,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let shared = self.shared.clone();
        Box::pin(async move {
            match answer.await {
                Ok(Answer::Durable(appended)) => Ok(appended),
                Ok(Answer::Failed(error)) => Err(error),
                Ok(Answer::OutOfPlace(wrong)) => panic!(
                    "seq {} is not the next of {:?}, which is {}",
                    wrong.seq, wrong.channel, wrong.next
                ),
                // The writer died with the batch in its hands: a close answers all.
                Err(_) => Err(AppendError::LogFailed(
                    shared
                        .queue
                        .failed()
                        .unwrap_or_else(|| "the log's writer died".into()),
                )),
            }
        })
    }

    fn load_channel(
        &self,
        channel: ChannelId,
        tail: usize,
        keys: usize,
    ) -> BoxFuture<Result<Option<ChannelSnapshot>, ReadError>> {
        self.answer(read::load_channel(&self.shared, channel, tail, keys))
    }

    fn read_events(
        &self,
        channel: ChannelId,
        range: Range,
        limit: ReadLimit,
    ) -> BoxFuture<Result<Vec<EventRow>, ReadError>> {
        self.answer(read::read_events(&self.shared, channel, range, limit))
    }

    fn find_key(
        &self,
        channel: ChannelId,
        sender: UserId,
        key: MessageKey,
    ) -> BoxFuture<Result<Option<EventRow>, ReadError>> {
        self.answer(read::find_key(&self.shared, channel, sender, key))
    }

    fn member(
        &self,
        channel: ChannelId,
        user: UserId,
    ) -> BoxFuture<Result<Option<MemberRow>, ReadError>> {
        self.answer(read::member(&self.shared, channel, user))
    }

    fn find_pair(
        &self,
        one: UserId,
        other: UserId,
    ) -> BoxFuture<Result<Option<ChannelId>, ReadError>> {
        self.answer(read::find_pair(&self.shared, one, other))
    }

    fn inbox_position(&self, user: UserId) -> BoxFuture<Result<u64, ReadError>> {
        self.answer(read::inbox_position(&self.shared, user))
    }

    fn inbox(
        &self,
        user: UserId,
        query: InboxQuery,
        rows_max: usize,
    ) -> BoxFuture<Result<InboxPage, ReadError>> {
        self.answer(read::inbox(&self.shared, user, query, rows_max))
    }

    fn inbox_row(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> BoxFuture<Result<Option<InboxRow>, ReadError>> {
        self.answer(read::inbox_row(&self.shared, user, channel))
    }

    fn id_block_end(&self, space: u8) -> u64 {
        self.shared.id_blocks().get(&space).copied().unwrap_or(0)
    }

    fn close(&self) -> BoxFuture<()> {
        let shared = self.shared.clone();
        let running = self.running.clone();
        shared.queue.close();
        Box::pin(async move {
            let taken = running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let Some(mut running) = taken else {
                return;
            };
            // Reads that are under way end first, later ones find it closed.
            let places = shared.options.reads_max as u32;
            if let Ok(permits) = shared.read_permits.acquire_many(places).await {
                permits.forget();
            }
            shared.read_permits.close();
            let ended = tokio::task::spawn_blocking(move || {
                running.end(&shared, Ending::Settled);
                release_index(&shared);
                drop(running.data);
            });
            if ended.await.is_err() {
                tracing::error!("closing the store has panicked");
            }
        })
    }
}
