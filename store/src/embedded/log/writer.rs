//! Group commit: the queue of batches and the thread that makes them durable.
//!
//! Callers push batches; the writer takes all that are queued (bounded in bytes), checks their places, frames them into
//! one buffer, writes it at once, syncs once, folds the records into the tail and only then answers. So a read that is
//! started after an append resolved always shows it, and no read ever shows what is not synced.
//!
//! While one group is being synced the next one gathers by itself. The writer lingers only when groups are tiny and
//! follow each other closely (several senders just out of step), never longer than half the last sync took, and never
//! for a batch that comes after a pause.
//!
//! Invariants: groups are strictly one after the other; nothing is written behind a failed write or sync, and no sync
//! is ever tried again; after a failure every waiter, present and future, gets `LogFailed`.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tokio::sync::oneshot;

use crate::contract::{AppendError, Appended};
use crate::row::Record;
use crate::{Lsn, metrics as names};

use super::super::codec::{self, FORMAT};
use super::super::fold::{Folder, OutOfPlace, memory_bytes};
use super::super::index::shared_text;
use super::super::options::Fatal;
use super::super::shared::Shared;
use super::record::{self, Owner};
use super::recover::Live;
use super::segment::{DATA_START, Segment};

/// Groups of at most this many batches may linger.
const LINGER_BATCHES_MAX: usize = 2;

/// Syncs faster than this are not worth a timer.
const LINGER_SYNC_MIN: Duration = Duration::from_micros(200);

/// A timer fires about this late.
const TIMER_SLACK: Duration = Duration::from_micros(60);

/// What a batch's waiter hears.
#[derive(Debug)]
pub(in crate::embedded) enum Answer {
    Durable(Appended),
    Failed(AppendError),
    /// A broken caller: nothing was written.
    OutOfPlace(OutOfPlace),
}

#[derive(Debug)]
struct Batch {
    records: Vec<Record>,
    /// Bytes in the log.
    framed: usize,
    /// Bytes counted in the tail.
    memory: usize,
    waiter: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    framed: usize,
    closed: bool,
    failure: Option<Arc<str>>,
}

/// Batches on their way to the writer.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a batch. `Err`: it was not queued.
    pub(in crate::embedded) fn push(
        &self,
        shared: &Shared,
        records: Vec<Record>,
    ) -> Result<oneshot::Receiver<Answer>, AppendError> {
        let framed = records
            .iter()
            .map(|record| record::framed_bytes(codec::payload_bytes(record)))
            .sum();
        let room = shared.options.segment_bytes - DATA_START;
        assert!(
            framed as u64 <= room,
            "a batch of {framed} bytes does not fit into a segment"
        );
        let memory = records.iter().map(memory_bytes).sum();
        let (waiter, answer) = oneshot::channel();
        let mut waiting = self.lock();
        if let Some(reason) = &waiting.failure {
            return Err(AppendError::LogFailed(reason.clone()));
        }
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        shared.tail.add(memory);
        waiting.framed += framed;
        waiting.batches.push_back(Batch {
            records,
            framed,
            memory,
            waiter,
        });
        drop(waiting);
        self.changed.notify_one();
        Ok(answer)
    }

    /// No more batches; what is queued is still made durable.
    pub(in crate::embedded) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Nothing succeeds any more.
    pub(in crate::embedded) fn poison(&self, reason: &Arc<str>) {
        let mut waiting = self.lock();
        waiting.failure.get_or_insert_with(|| reason.clone());
        let batches = std::mem::take(&mut waiting.batches);
        drop(waiting);
        self.changed.notify_all();
        for batch in batches {
            let _ = batch
                .waiter
                .send(Answer::Failed(AppendError::LogFailed(reason.clone())));
        }
    }

    /// Why nothing succeeds any more.
    pub(in crate::embedded) fn failed(&self) -> Option<Arc<str>> {
        self.lock().failure.clone()
    }

    /// The next group: everything queued up to `bytes_max`. `None`: closed and empty, or failed.
    fn take(&self, bytes_max: usize, pace: &Pace) -> Option<Vec<Batch>> {
        let mut waiting = self.lock();
        while waiting.batches.is_empty() {
            if waiting.closed || waiting.failure.is_some() {
                return None;
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(linger) = pace.linger(waiting.batches.len()) {
            let few = |waiting: &mut Waiting| {
                waiting.batches.len() <= LINGER_BATCHES_MAX
                    && !waiting.closed
                    && waiting.failure.is_none()
            };
            (waiting, _) = self
                .changed
                .wait_timeout_while(waiting, linger, few)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut group = Vec::with_capacity(waiting.batches.len());
        let mut bytes = 0;
        while let Some(batch) = waiting.batches.pop_front() {
            if !group.is_empty() && bytes + batch.framed > bytes_max {
                waiting.batches.push_front(batch);
                break;
            }
            bytes += batch.framed;
            group.push(batch);
        }
        waiting.framed -= bytes.min(waiting.framed);
        Some(group)
    }
}

/// What the writer knows about the speed of disk and callers.
#[derive(Debug)]
struct Pace {
    last_sync: Duration,
    last_batches: usize,
    group_ended: Instant,
}

impl Pace {
    /// How long to wait for company, if at all.
    fn linger(&self, batches: usize) -> Option<Duration> {
        let follows_closely = self.group_ended.elapsed() < self.last_sync;
        let tiny = batches <= LINGER_BATCHES_MAX && self.last_batches > 1;
        if !follows_closely || !tiny || self.last_sync < LINGER_SYNC_MIN {
            return None;
        }
        Some((self.last_sync / 2).saturating_sub(TIMER_SLACK))
    }
}

/// The segment being written.
struct Current {
    segment: Segment,
    live: Live,
    offset: u64,
    /// Whether the pool was told that this one is half full.
    spare_asked: bool,
}

/// The thread's state.
pub(in crate::embedded) struct Writer {
    shared: Arc<Shared>,
    folder: Folder,
    current: Option<Current>,
    next_lsn: Lsn,
    crc_seed: u32,
    buffer: Vec<u8>,
    pace: Pace,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("next_lsn", &self.next_lsn)
            .finish_non_exhaustive()
    }
}

/// Where the writer goes on.
#[derive(Clone, Copy, Debug)]
pub(in crate::embedded) struct Resume {
    pub(in crate::embedded) offset: u64,
    pub(in crate::embedded) next_lsn: Lsn,
    pub(in crate::embedded) crc_seed: u32,
}

impl Writer {
    pub(in crate::embedded) fn new(
        shared: Arc<Shared>,
        folder: Folder,
        resume: Resume,
    ) -> std::io::Result<Writer> {
        let current = shared
            .pool
            .reopen_current()?
            .map(|(segment, live)| Current {
                segment,
                live,
                offset: resume.offset,
                spare_asked: false,
            });
        Ok(Writer {
            shared,
            folder,
            current,
            next_lsn: resume.next_lsn,
            crc_seed: resume.crc_seed,
            buffer: Vec::new(),
            pace: Pace {
                last_sync: Duration::ZERO,
                last_batches: 0,
                group_ended: Instant::now(),
            },
        })
    }

    /// The loop: until the queue is closed and empty, or the log has failed.
    pub(in crate::embedded) fn run(mut self) {
        let shared = self.shared.clone();
        let bytes_max = shared
            .options
            .group_bytes_max
            .min((shared.options.segment_bytes - DATA_START) as usize);
        while let Some(group) = shared.queue.take(bytes_max, &self.pace) {
            self.commit(group);
        }
        if shared.queue.failed().is_none() {
            self.seal();
        }
    }

    /// Makes records durable on this thread: for a store that is being opened.
    pub(in crate::embedded) fn append_now(
        &mut self,
        records: Vec<Record>,
    ) -> Result<(), AppendError> {
        let shared = self.shared.clone();
        let mut answer = shared.queue.push(&shared, records)?;
        if let Some(group) = shared.queue.take(usize::MAX, &self.pace) {
            self.commit(group);
        }
        match answer.try_recv() {
            Ok(Answer::Durable(_)) => Ok(()),
            Ok(Answer::Failed(error)) => Err(error),
            Ok(Answer::OutOfPlace(_)) | Err(_) => Err(AppendError::Closed),
        }
    }

    fn commit(&mut self, group: Vec<Batch>) {
        let mut accepted = Vec::with_capacity(group.len());
        let mut framed = 0;
        for batch in group {
            match self.folder.check(&batch.records) {
                Ok(Ok(())) => {
                    framed += batch.framed;
                    accepted.push(batch);
                }
                Ok(Err(wrong)) => {
                    self.shared.tail.remove(batch.memory);
                    let _ = batch.waiter.send(Answer::OutOfPlace(wrong));
                }
                Err(error) => {
                    accepted.push(batch);
                    return self.fail(Fatal::Index(shared_text(&error)), accepted);
                }
            }
        }
        if accepted.is_empty() {
            return;
        }
        if let Err(error) = self.write(&accepted, framed as u64) {
            return self.fail(Fatal::Log(error.to_string().into()), accepted);
        }
        fail::fail_point!("log.synced", |_| crate::crash::kill_self());
        self.publish(accepted, framed);
    }

    /// Writes and syncs a group.
    fn write(&mut self, batches: &[Batch], framed: u64) -> std::io::Result<()> {
        let full = self
            .current
            .as_ref()
            .is_none_or(|current| current.offset + framed > current.live.bytes);
        if full {
            let (segment, live) = self.shared.pool.next(self.next_lsn)?;
            self.current = Some(Current {
                segment,
                live,
                offset: DATA_START,
                spare_asked: false,
            });
        }
        let current = self.current.as_mut().expect("begun just above");
        let owner = Owner {
            crc_seed: self.crc_seed,
            life: current.live.life as u32,
        };
        let durable = self.next_lsn - 1;
        self.buffer.clear();
        let records = batches.iter().flat_map(|batch| &batch.records);
        for (lsn, item) in (self.next_lsn..).zip(records) {
            let kind = codec::record_kind(item);
            record::put(&mut self.buffer, owner, lsn, durable, kind, FORMAT, |out| {
                codec::put_payload(out, item)
            });
        }
        debug_assert_eq!(self.buffer.len() as u64, framed);

        fail::fail_point!("log.before_write", |_| crate::crash::kill_self());
        current.segment.write_at(&self.buffer, current.offset)?;
        fail::fail_point!("log.written", |_| crate::crash::kill_self());
        let began = Instant::now();
        fail::fail_point!("log.sync_fails", |_| Err(std::io::Error::other(
            "a sync that a failpoint lets fail"
        )));
        current.segment.sync()?;
        self.pace.last_sync = began.elapsed();
        current.offset += self.buffer.len() as u64;
        if !current.spare_asked && current.offset > current.live.bytes / 2 {
            current.spare_asked = true;
            self.shared.pool.want_spare();
        }
        // One huge batch must not pin its size for ever.
        self.buffer.shrink_to(4 << 20);
        Ok(())
    }

    /// Makes a synced group visible, then answers.
    fn publish(&mut self, batches: Vec<Batch>, framed: usize) {
        let shared = &self.shared;
        let mut answers = Vec::with_capacity(batches.len());
        let mut lsn = self.next_lsn;
        let folder = &mut self.folder;
        let count = batches.len();
        shared.tail.fold(|active| {
            for batch in batches {
                // Counted when it was queued, and again by the fold.
                shared.tail.remove(batch.memory);
                answers.push((batch.waiter, Appended { first: lsn }));
                for record in batch.records {
                    if let Record::IdBlock { space, end } = record {
                        shared.note_id_block(space, end);
                    }
                    folder.apply(active, lsn, record);
                    lsn += 1;
                }
            }
        });
        let records = lsn - self.next_lsn;
        self.next_lsn = lsn;
        shared.durable.store(lsn - 1, Ordering::Release);
        for (waiter, appended) in answers {
            // A caller that has dropped its future does not want the answer; the batch is durable all the same.
            let _ = waiter.send(Answer::Durable(appended));
        }
        self.pace.last_batches = count;
        self.pace.group_ended = Instant::now();

        counter!(names::APPENDED_RECORDS.name).increment(records);
        counter!(names::APPENDED_BYTES.name).increment(framed as u64);
        histogram!(names::GROUP_RECORDS.name).record(records as f64);
        histogram!(names::SYNC_SECONDS.name).record(self.pace.last_sync.as_secs_f64());
        gauge!(names::TAIL_BYTES.name).set(shared.tail.bytes() as f64);
        gauge!(names::APPLIED_LAG.name).set(shared.lag() as f64);

        if shared.tail.active_bytes() >= shared.options.apply_bytes {
            shared.signal_applier();
        }
        self.folder
            .trim(|channel| shared.tail.layers().holds(channel));
    }

    fn fail(&mut self, fatal: Fatal, batches: Vec<Batch>) {
        let reason: Arc<str> = fatal.to_string().into();
        self.shared.fail(fatal);
        for batch in batches {
            let failed = AppendError::LogFailed(reason.clone());
            let _ = batch.waiter.send(Answer::Failed(failed));
        }
    }

    /// Proves the last group: a damaged tail of an orderly closed log is then told from a torn one.
    fn seal(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        let durable = self.next_lsn - 1;
        if current.offset + record::framed_bytes(0) as u64 > current.live.bytes || durable == 0 {
            return;
        }
        let owner = Owner {
            crc_seed: self.crc_seed,
            life: current.live.life as u32,
        };
        self.buffer.clear();
        let seal = codec::kind::SEAL;
        record::put(
            &mut self.buffer,
            owner,
            durable,
            durable,
            seal,
            FORMAT,
            |_| {},
        );
        let sealed = current
            .segment
            .write_at(&self.buffer, current.offset)
            .and_then(|()| current.segment.sync());
        if let Err(error) = sealed {
            tracing::warn!(%error, "the log could not be sealed");
        }
    }
}
