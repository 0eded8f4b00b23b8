//! The model of a message store: simple enough to be obviously right, in memory, with handles for tests.
//!
//! Router tests run on it, and the conformance suite compares every other store with it. "Durable" here means: in `log`.
//! [`MemoryStore`] is a cheap handle; clones share one store, so a test keeps one while the router owns another.
//!
//! Invariants: `log` and `tables` change together under one lock; what is held back is in neither; batches become
//! durable in the order of their append calls; after a failed append none succeeds.
//!
//! What it does not do: real disks. A crash is modelled by [`MemoryStore::reopen`], which replays the durable records
//! into a new store and leaves the old one dead.

mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conch_wire::{ChannelId, MessageKey, Seq, UserId};
use tokio::sync::{oneshot, watch};

use crate::contract::{
    AppendError, Appended, BoxFuture, InboxPage, InboxQuery, MessageStore, Range, ReadError,
    ReadLimit, Refusal, StoreIdentity,
};
use crate::row::{ChannelSnapshot, EventRow, InboxRow, MemberRow, Record};
use crate::{Fold, Lsn};

use tables::Tables;
pub use tables::{ERASED_BODY_BYTES, KEY_WINDOW_MS};

/// How many reads of each kind were asked for since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadCounts {
    pub channels: u64,
    pub event_pages: u64,
    pub keys: u64,
    pub members: u64,
    pub pairs: u64,
    pub inbox_positions: u64,
    pub inbox_pages: u64,
    /// Single inbox rows asked for by channel.
    pub inbox_rows: u64,
    /// Sum of `rows_read` of all inbox pages.
    pub inbox_page_rows: u64,
}

impl ReadCounts {
    /// All calls together (rows inside pages not counted).
    pub fn calls(&self) -> u64 {
        self.channels
            + self.event_pages
            + self.keys
            + self.members
            + self.pairs
            + self.inbox_positions
            + self.inbox_pages
            + self.inbox_rows
    }
}

/// What a reopened store shows of batches whose append failed: both happen on real disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailedBatches {
    Lost,
    Kept,
}

type Answer = Result<Appended, AppendError>;

struct Held {
    batch: Vec<Record>,
    waiter: oneshot::Sender<Answer>,
}

struct Failure {
    reason: Arc<str>,
    batches: FailedBatches,
}

struct State {
    log: Vec<Record>,
    tables: Tables,
    /// Next free seq of channels with events that were appended and are not durable yet, or never will be.
    taken: BTreeMap<ChannelId, Seq>,
    held: VecDeque<Held>,
    holding: bool,
    failure: Option<Failure>,
    /// Records of failed batches that the next life will find.
    left_behind: Vec<Record>,
    refusal: Option<Refusal>,
    closed: bool,
    reads: ReadCounts,
}

struct Inner {
    identity: StoreIdentity,
    fold: Arc<dyn Fold>,
    state: Mutex<State>,
    reads_held: watch::Sender<bool>,
}

/// The model implementation of [`MessageStore`].
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryStore")
            .field("identity", &self.inner.identity)
            .field("durable", &state.tables.last_lsn())
            .field("held", &state.held.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn new(log: Vec<Record>, fold: &dyn Fold) -> State {
        let mut tables = Tables::default();
        for record in &log {
            tables.apply(record.clone(), fold);
        }
        State {
            log,
            tables,
            taken: BTreeMap::new(),
            held: VecDeque::new(),
            holding: false,
            failure: None,
            left_behind: Vec::new(),
            refusal: None,
            closed: false,
            reads: ReadCounts::default(),
        }
    }

    /// Notes the places that the batch takes; `Err`: the first event that is not at its channel's next seq.
    fn take_places(&mut self, batch: &[Record]) -> Result<(), (ChannelId, Seq)> {
        let mut taken = self.taken.clone();
        for record in batch {
            let Record::Event(event) = record else {
                continue;
            };
            let durable = self.tables.head_seq(event.channel);
            let next = taken.entry(event.channel).or_insert(durable + 1);
            if event.seq != *next {
                return Err((event.channel, event.seq));
            }
            *next += 1;
        }
        self.taken = taken;
        Ok(())
    }

    /// Brings one batch to its end: durable, or failed.
    fn settle(&mut self, batch: Vec<Record>, fold: &dyn Fold) -> Answer {
        if let Some(failure) = &self.failure {
            if failure.batches == FailedBatches::Kept {
                self.left_behind.extend(batch);
            }
            return Err(AppendError::LogFailed(failure.reason.clone()));
        }
        let first = self.tables.last_lsn() + 1;
        for record in batch {
            self.tables.apply(record.clone(), fold);
            self.log.push(record);
        }
        Ok(Appended { first })
    }

    fn settle_held(&mut self, batches_max: usize, fold: &dyn Fold) -> usize {
        let count = self.held.len().min(batches_max);
        let batches: Vec<Held> = self.held.drain(..count).collect();
        for held in batches {
            let answer = self.settle(held.batch, fold);
            // A caller that has dropped its future does not want the answer; the batch is durable all the same.
            let _ = held.waiter.send(answer);
        }
        if self.held.is_empty() && self.failure.is_none() {
            self.taken.clear();
        }
        count
    }
}

impl MemoryStore {
    /// An empty store of generation 1, in its first epoch.
    pub fn new(fold: Arc<dyn Fold>) -> MemoryStore {
        let identity = StoreIdentity {
            generation: 1,
            inbox_incarnation: 1,
            epoch: 1,
            id_key: *b"the model's key.",
        };
        MemoryStore::with_identity(fold, identity)
    }

    /// An empty store with the given facts: two generations, another id key.
    pub fn with_identity(fold: Arc<dyn Fold>, identity: StoreIdentity) -> MemoryStore {
        MemoryStore::replayed(fold, identity, Vec::new())
    }

    /// A store whose log holds these records.
    pub fn replayed(fold: Arc<dyn Fold>, identity: StoreIdentity, log: Vec<Record>) -> MemoryStore {
        assert_ne!(identity.generation, 0, "generation 0 means none");
        let state = Mutex::new(State::new(log, &*fold));
        let (reads_held, _) = watch::channel(false);
        MemoryStore {
            inner: Arc::new(Inner {
                identity,
                fold,
                state,
                reads_held,
            }),
        }
    }

    /// A crash and a start: a new store, one epoch on, with the durable records only. The old one is dead: what waits
    /// in it ends with [`AppendError::Closed`], and nothing that its clones do reaches the new one.
    pub fn reopen(&self) -> MemoryStore {
        let log = {
            let mut state = self.lock();
            state.closed = true;
            state.held.clear();
            let mut log = state.log.clone();
            log.append(&mut state.left_behind);
            log
        };
        self.release_reads();
        let identity = StoreIdentity {
            epoch: self.inner.identity.epoch + 1,
            ..self.inner.identity
        };
        MemoryStore::replayed(self.inner.fold.clone(), identity, log)
    }

    /// From now on appended batches wait: undurable and invisible until [`MemoryStore::release`].
    pub fn hold(&self) {
        self.lock().holding = true;
    }

    /// Ends [`MemoryStore::hold`] and makes everything held durable, in order.
    pub fn release(&self) {
        let mut state = self.lock();
        state.holding = false;
        state.settle_held(usize::MAX, &*self.inner.fold);
    }

    /// Makes the oldest held batch durable and keeps holding. `false`: there was none.
    pub fn release_one(&self) -> bool {
        self.lock().settle_held(1, &*self.inner.fold) == 1
    }

    /// How many batches are held back.
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// The log fails: batches held now and everything appended later end with [`AppendError::LogFailed`]. Whether
    /// [`MemoryStore::reopen`] finds them is the test's to say.
    pub fn fail_appends(&self, reason: &str, batches: FailedBatches) {
        let mut state = self.lock();
        state.failure = Some(Failure {
            reason: reason.into(),
            batches,
        });
        state.settle_held(usize::MAX, &*self.inner.fold);
    }

    /// What [`MessageStore::admit`] answers from now on; `None` admits.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.lock().refusal = refusal;
    }

    /// From now on reads answer late: each takes its answer when it is asked, and gives it after
    /// [`MemoryStore::release_reads`]. What became durable in between is not in it, the hardest case for a caller.
    pub fn hold_reads(&self) {
        self.inner.reads_held.send_replace(true);
    }

    /// Ends [`MemoryStore::hold_reads`]: all waiting reads answer.
    pub fn release_reads(&self) {
        self.inner.reads_held.send_replace(false);
    }

    /// Reads asked for since this store was opened.
    pub fn reads(&self) -> ReadCounts {
        self.lock().reads
    }

    /// The durable records; the record at index `i` has lsn `i + 1`.
    pub fn log(&self) -> Vec<Record> {
        self.lock().log.clone()
    }

    /// Lsn of the last durable record; 0 for an empty log.
    pub fn durable_lsn(&self) -> Lsn {
        self.lock().tables.last_lsn()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A broken append panics outside the lock, and a panicking fold has not changed the tables yet.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T: Send + 'static>(
        &self,
        take: impl FnOnce(&Tables, &mut ReadCounts) -> T,
    ) -> BoxFuture<Result<T, ReadError>> {
        let answer = {
            let mut state = self.lock();
            let State {
                tables,
                reads,
                closed,
                ..
            } = &mut *state;
            if *closed {
                Err(ReadError::Closed)
            } else {
                Ok(take(tables, reads))
            }
        };
        let mut held = self.inner.reads_held.subscribe();
        Box::pin(async move {
            // The sender is gone only with the store; then nobody can hold reads any more.
            let _ = held.wait_for(|held| !held).await;
            answer
        })
    }
}

impl MessageStore for MemoryStore {
    fn identity(&self) -> StoreIdentity {
        self.inner.identity
    }

    fn admit(&self, _bytes: usize) -> Result<(), Refusal> {
        self.lock().refusal.map_or(Ok(()), Err)
    }

    fn append(&self, batch: Vec<Record>) -> BoxFuture<Answer> {
        let (waiter, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            return Box::pin(async { Err(AppendError::Closed) });
        }
        if let Err((channel, seq)) = state.take_places(&batch) {
            drop(state);
            panic!("seq {seq} is not the next of {channel:?}");
        }
        state.held.push_back(Held { batch, waiter });
        if !state.holding || state.failure.is_some() {
            state.settle_held(usize::MAX, &*self.inner.fold);
        }
        drop(state);
        Box::pin(async move { answer.await.unwrap_or(Err(AppendError::Closed)) })
    }

    fn load_channel(
        &self,
        channel: ChannelId,
        tail: usize,
        keys: usize,
    ) -> BoxFuture<Result<Option<ChannelSnapshot>, ReadError>> {
        self.read(|tables, reads| {
            reads.channels += 1;
            tables.snapshot(channel, tail, keys)
        })
    }

    fn read_events(
        &self,
        channel: ChannelId,
        range: Range,
        limit: ReadLimit,
    ) -> BoxFuture<Result<Vec<EventRow>, ReadError>> {
        self.read(|tables, reads| {
            reads.event_pages += 1;
            tables.events(channel, range, limit)
        })
    }

    fn find_key(
        &self,
        channel: ChannelId,
        sender: UserId,
        key: MessageKey,
    ) -> BoxFuture<Result<Option<EventRow>, ReadError>> {
        self.read(|tables, reads| {
            reads.keys += 1;
            tables.by_key(channel, sender, key)
        })
    }

    fn member(
        &self,
        channel: ChannelId,
        user: UserId,
    ) -> BoxFuture<Result<Option<MemberRow>, ReadError>> {
        self.read(|tables, reads| {
            reads.members += 1;
            tables.member(channel, user)
        })
    }

    fn find_pair(
        &self,
        one: UserId,
        other: UserId,
    ) -> BoxFuture<Result<Option<ChannelId>, ReadError>> {
        self.read(|tables, reads| {
            reads.pairs += 1;
            tables.pair(one, other)
        })
    }

    fn inbox_position(&self, user: UserId) -> BoxFuture<Result<u64, ReadError>> {
        self.read(|tables, reads| {
            reads.inbox_positions += 1;
            tables.inbox_position(user)
        })
    }

    fn inbox(
        &self,
        user: UserId,
        query: InboxQuery,
        rows_max: usize,
    ) -> BoxFuture<Result<InboxPage, ReadError>> {
        self.read(|tables, reads| {
            let page = tables.inbox(user, query, rows_max);
            reads.inbox_pages += 1;
            reads.inbox_page_rows += page.rows_read;
            page
        })
    }

    fn inbox_row(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> BoxFuture<Result<Option<InboxRow>, ReadError>> {
        self.read(|tables, reads| {
            reads.inbox_rows += 1;
            tables.inbox_row(user, channel)
        })
    }

    fn id_block_end(&self, space: u8) -> u64 {
        self.lock().tables.id_block_end(space)
    }

    fn close(&self) -> BoxFuture<()> {
        let mut state = self.lock();
        state.holding = false;
        state.settle_held(usize::MAX, &*self.inner.fold);
        state.closed = true;
        drop(state);
        self.release_reads();
        Box::pin(async {})
    }
}
