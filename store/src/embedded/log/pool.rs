//! The segment files of a running store.
//!
//! The writer takes a clean segment when its own is full; a keeper thread sees to it that one is there (a new file, or
//! one recycled), so that the writer practically never waits for zeros. A full segment is recycled only when the index
//! has **fsynced** a place past its last record, and the newest [`Pool::retained`] full ones are kept even then.
//!
//! Invariants: lives rise with every use; at most [`CLEAN_MAX`] clean files lie ready, more are removed, so the disk
//! used is bounded by what is retained, what the index has not fsynced, the current segment and the clean ones.
//!
//! What it does not do: write records ([`super::writer`]), or decide when the index is fsynced: it only says that it
//! waits for that ([`Pool::wants_persist`]).

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;

use crate::{Lsn, metrics as names};

use super::super::folder::sync_dir;
use super::recover::{Live, Recovered};
use super::segment::{self, Header, Number, Segment, State};

/// Clean files kept ready.
const CLEAN_MAX: usize = 2;

/// How long the keeper waits after a failure before it tries again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Files {
    /// Full ones in order, with their last lsn.
    full: VecDeque<(Live, Lsn)>,
    current: Option<Live>,
    clean: Vec<Number>,
    dirty: Vec<Number>,
    life: u64,
    number_max: Number,
    persisted: Lsn,
    /// The current segment is half full, or the writer waits: a clean one must be there.
    spare_wanted: bool,
    closed: bool,
    /// Why the keeper could not make a clean segment the last time it tried.
    failure: Option<(io::ErrorKind, String)>,
}

#[derive(Debug)]
pub(in crate::embedded) struct Pool {
    log_dir: PathBuf,
    store: u64,
    segment_bytes: u64,
    retained: usize,
    files: Mutex<Files>,
    changed: Condvar,
    #[cfg(test)]
    faults: std::sync::Arc<segment::Faults>,
}

/// What the keeper does next.
enum Chore {
    Create(Number),
    Zero(Number),
    Recycle(Live),
    Remove(Live),
}

impl Pool {
    pub(in crate::embedded) fn new(
        log_dir: PathBuf,
        store: u64,
        segment_bytes: u64,
        retained: usize,
        recovered: &Recovered,
        persisted: Lsn,
    ) -> Pool {
        let full = recovered
            .live
            .windows(2)
            .map(|pair| (pair[0], pair[1].first_lsn - 1))
            .collect();
        Pool {
            log_dir,
            store,
            segment_bytes,
            retained,
            files: Mutex::new(Files {
                full,
                current: recovered.live.last().copied(),
                clean: recovered.clean.clone(),
                dirty: recovered.dirty.clone(),
                life: recovered.life,
                number_max: recovered.number_max,
                persisted,
                spare_wanted: false,
                closed: false,
                failure: None,
            }),
            changed: Condvar::new(),
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        }
    }

    #[cfg(test)]
    pub(in crate::embedded) fn faults(&self) -> std::sync::Arc<segment::Faults> {
        self.faults.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, number: Number) -> io::Result<Segment> {
        #[cfg_attr(not(test), allow(unused_mut))] // tests put their faults in
        let mut segment = Segment::open(&self.log_dir, number)?;
        #[cfg(test)]
        {
            segment.faults = self.faults.clone();
        }
        Ok(segment)
    }

    /// Whether there is a segment to write on.
    pub(in crate::embedded) fn has_current(&self) -> bool {
        self.lock().current.is_some()
    }

    /// The segment that was being written when the store was last closed, if any.
    pub(in crate::embedded) fn reopen_current(&self) -> io::Result<Option<(Segment, Live)>> {
        let current = self.lock().current;
        current
            .map(|live| Ok((self.open(live.number)?, live)))
            .transpose()
    }

    /// Ends the current segment, whose records are all synced, and begins the next, synced, with `first_lsn`. Waits for
    /// a clean file if none is ready.
    pub(in crate::embedded) fn next(&self, first_lsn: Lsn) -> io::Result<(Segment, Live)> {
        let mut files = self.lock();
        while files.clean.is_empty() {
            if let Some((kind, said)) = files.failure.take() {
                return Err(io::Error::new(kind, said));
            }
            if files.closed {
                return Err(io::Error::other("the segment pool is closed"));
            }
            files.spare_wanted = true;
            self.changed.notify_all();
            files = self
                .changed
                .wait(files)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let number = files.clean.remove(0);
        files.spare_wanted = false;
        files.life += 1;
        let live = Live {
            number,
            first_lsn,
            life: files.life,
            bytes: self.segment_bytes,
        };
        drop(files);

        let segment = self.open(number)?;
        segment.begin(&Header {
            state: State::Live,
            store: self.store,
            life: live.life,
            first_lsn,
            bytes: live.bytes,
        })?;

        let mut files = self.lock();
        if let Some(before) = files.current.replace(live) {
            files.full.push_back((before, first_lsn - 1));
        }
        drop(files);
        self.changed.notify_all();
        Ok((segment, live))
    }

    /// The current segment is half full: the next one should be made ready. Not earlier, because a node that hardly
    /// writes needs none.
    pub(in crate::embedded) fn want_spare(&self) {
        self.lock().spare_wanted = true;
        self.changed.notify_all();
    }

    /// The index has fsynced everything up to `lsn`.
    pub(in crate::embedded) fn set_persisted(&self, lsn: Lsn) {
        let mut files = self.lock();
        files.persisted = files.persisted.max(lsn);
        drop(files);
        self.changed.notify_all();
    }

    /// Whether a segment could be recycled if the index were fsynced up to `applied`.
    pub(in crate::embedded) fn wants_persist(&self, applied: Lsn) -> bool {
        let files = self.lock();
        let spare = files.full.len().saturating_sub(self.retained);
        files.full.iter().take(spare).any(|(_, last)| {
            (files.persisted..applied + 1).contains(last) && *last > files.persisted
        })
    }

    /// Number of segment files.
    #[cfg(test)]
    pub(in crate::embedded) fn files(&self) -> usize {
        let files = self.lock();
        files.full.len()
            + files.clean.len()
            + files.dirty.len()
            + usize::from(files.current.is_some())
    }

    /// Ends the keeper.
    pub(in crate::embedded) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The keeper's loop: runs until [`Pool::close`].
    pub(in crate::embedded) fn keep(&self) {
        loop {
            let mut files = self.lock();
            let chore = loop {
                if files.closed {
                    return;
                }
                if files.failure.is_none()
                    && let Some(chore) = self.chore(&mut files)
                {
                    break chore;
                }
                files = if files.failure.is_some() {
                    let (mut files, _) = self
                        .changed
                        .wait_timeout(files, RETRY)
                        .unwrap_or_else(PoisonError::into_inner);
                    files.failure = None;
                    files
                } else {
                    self.changed
                        .wait(files)
                        .unwrap_or_else(PoisonError::into_inner)
                };
            };
            let life = files.life;
            drop(files);
            let outcome = self.run(&chore, life);
            self.settle(chore, outcome);
        }
    }

    fn chore(&self, files: &mut Files) -> Option<Chore> {
        if let Some(number) = files.dirty.pop() {
            return Some(Chore::Zero(number));
        }
        let surplus = files.full.len() > self.retained;
        if surplus
            && files
                .full
                .front()
                .is_some_and(|(_, last)| *last <= files.persisted)
        {
            let (live, _) = files.full.pop_front()?;
            return Some(if files.clean.len() < CLEAN_MAX {
                Chore::Recycle(live)
            } else {
                Chore::Remove(live)
            });
        }
        if files.clean.is_empty() && files.spare_wanted {
            files.number_max += 1;
            return Some(Chore::Create(files.number_max));
        }
        None
    }

    fn run(&self, chore: &Chore, life: u64) -> io::Result<()> {
        match chore {
            Chore::Create(number) | Chore::Zero(number) => {
                self.open(*number)?
                    .clean(self.store, life, self.segment_bytes)?;
                sync_dir(&self.log_dir)
            }
            Chore::Recycle(live) => {
                self.open(live.number)?
                    .clean(self.store, life, self.segment_bytes)
            }
            Chore::Remove(live) => {
                // Dirty first: a name that comes back after a crash must not look alive.
                self.open(live.number)?.clean(self.store, life, 4096)?;
                std::fs::remove_file(segment::path(&self.log_dir, live.number))?;
                sync_dir(&self.log_dir)
            }
        }
    }

    fn settle(&self, chore: Chore, outcome: io::Result<()>) {
        let mut files = self.lock();
        let number = match chore {
            Chore::Create(number) | Chore::Zero(number) => number,
            Chore::Recycle(live) | Chore::Remove(live) => live.number,
        };
        match outcome {
            Ok(()) if matches!(chore, Chore::Remove(_)) => {}
            Ok(()) => files.clean.push(number),
            Err(error) => {
                tracing::error!(%error, segment = number, "cannot prepare a log segment");
                files.failure = Some((error.kind(), error.to_string()));
                files.dirty.push(number);
            }
        }
        let count = files.full.len() + files.clean.len() + files.dirty.len() + 1;
        gauge!(names::LOG_SEGMENTS.name).set(count as f64);
        drop(files);
        self.changed.notify_all();
    }

    /// Makes one clean segment on this thread if none is ready: before the keeper runs.
    pub(in crate::embedded) fn prepare(&self) -> io::Result<()> {
        let mut files = self.lock();
        if !files.clean.is_empty() {
            return Ok(());
        }
        files.number_max += 1;
        let chore = Chore::Create(files.number_max);
        let life = files.life;
        drop(files);
        self.run(&chore, life)?;
        self.settle(chore, Ok(()));
        Ok(())
    }
}
