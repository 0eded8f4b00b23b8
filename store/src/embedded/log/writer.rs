//! Group commit: the queue of batches and the thread that makes them durable.
//!
//! Callers push batches; the writer takes all that are queued (bounded in bytes), checks their places, frames them into
//! one buffer, writes it at once, syncs once, folds the records into the tail and only then answers. So a read that is
//! started after an append resolved always shows it, and no read ever shows what is not synced.
//!
//! While one group is being synced the next one gathers by itself; when messages come one by one but often, groups keep
//! a distance ([`super::pace`]). The writer is woken once per group: by its first batch, or by the clock.
//!
//! Invariants: groups are strictly one after the other; nothing is written behind a failed write or sync, and no sync
//! is ever tried again; after a failure every waiter, present and future, gets `LogFailed`.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::oneshot;

use crate::contract::{AppendError, Appended};
use crate::row::Record;
use crate::{Lsn, metrics as names};

use super::super::codec::{self, FORMAT};
use super::super::fold::{Folder, OutOfPlace, memory_bytes};
use super::super::index::shared_text;
use super::super::options::Fatal;
use super::super::shared::Shared;
use super::pace::{Pace, RECORDS_ENOUGH};
use super::record::{self, Owner};
use super::recover::Live;
use super::segment::{DATA_START, Segment};

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
    records: usize,
    /// The writer sleeps, and this many records are worth waking it.
    wake_at: Option<usize>,
    closed: bool,
    failure: Option<Arc<str>>,
}

/// What a batch counts towards a group: one without records wants its answer too.
fn company(records: &[Record]) -> usize {
    records.len().max(1)
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
        waiting.records += company(&records);
        waiting.batches.push_back(Batch {
            records,
            framed,
            memory,
            waiter,
        });
        let records = waiting.records;
        let wakes = waiting.wake_at.take_if(|enough| records >= *enough);
        drop(waiting);
        if wakes.is_some() {
            self.changed.notify_one();
        }
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
        waiting.records = 0;
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
        if let Some(begins_at) = pace.begins_at() {
            let is_early = |waiting: &mut Waiting| {
                waiting.records < RECORDS_ENOUGH && !waiting.closed && waiting.failure.is_none()
            };
            let wait = begins_at.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                waiting.wake_at = Some(RECORDS_ENOUGH);
                (waiting, _) = self
                    .changed
                    .wait_timeout_while(waiting, wait, is_early)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        while waiting.batches.is_empty() {
            if waiting.closed || waiting.failure.is_some() {
                return None;
            }
            waiting.wake_at = Some(1);
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        waiting.wake_at = None;
        let mut group = Vec::with_capacity(waiting.batches.len());
        let mut bytes = 0;
        while let Some(batch) = waiting.batches.pop_front() {
            if !group.is_empty() && bytes + batch.framed > bytes_max {
                waiting.batches.push_front(batch);
                break;
            }
            bytes += batch.framed;
            waiting.records -= company(&batch.records);
            group.push(batch);
        }
        waiting.framed -= bytes.min(waiting.framed);
        Some(group)
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

/// What every group counts: looked up once.
struct Metrics {
    records: Counter,
    bytes: Counter,
    group_records: Histogram,
    sync_seconds: Histogram,
    tail_bytes: Gauge,
    applied_lag: Gauge,
}

impl Metrics {
    fn new() -> Metrics {
        Metrics {
            records: counter!(names::APPENDED_RECORDS.name),
            bytes: counter!(names::APPENDED_BYTES.name),
            group_records: histogram!(names::GROUP_RECORDS.name),
            sync_seconds: histogram!(names::SYNC_SECONDS.name),
            tail_bytes: gauge!(names::TAIL_BYTES.name),
            applied_lag: gauge!(names::APPLIED_LAG.name),
        }
    }
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
    last_sync: Duration,
    metrics: Metrics,
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
            pace: Pace::new(Instant::now()),
            last_sync: Duration::ZERO,
            metrics: Metrics::new(),
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
            let records = group.iter().map(|batch| batch.records.len()).sum();
            self.pace.on_group(Instant::now(), group.len(), records);
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
        self.last_sync = began.elapsed();
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

        let metrics = &self.metrics;
        metrics.records.increment(records);
        metrics.bytes.increment(framed as u64);
        metrics.group_records.record(records as f64);
        metrics.sync_seconds.record(self.last_sync.as_secs_f64());
        metrics.tail_bytes.set(shared.tail.bytes() as f64);
        metrics.applied_lag.set(shared.lag() as f64);

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
