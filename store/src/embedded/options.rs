//! How an embedded store is opened, and why it may not open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::Lsn;

/// Smallest segment: holds the header and a full batch of a test.
pub const SEGMENT_BYTES_MIN: u64 = 16 * 1024;

/// Everything that can be set. [`EmbeddedOptions::new`] gives the values of a node.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The data folder; created if it is missing. One process at a time.
    pub dir: PathBuf,
    /// Size of one log segment; fixed for files once created. A multiple of 4096, at least [`SEGMENT_BYTES_MIN`].
    pub segment_bytes: u64,
    /// Full segments kept behind the index, so that an older copy of the index can be brought forward.
    pub retained_segments: usize,
    /// Most bytes written and synced as one group.
    pub group_bytes_max: usize,
    /// Memory in front of the index (queued, being applied, not yet applied); above it appends are not admitted.
    pub tail_bytes_max: usize,
    /// The tail goes to the index when it is this large ...
    pub apply_bytes: usize,
    /// ... or this old. Longer means fewer, larger index rows.
    pub apply_interval: Duration,
    /// Memory for members, marks and heads of channels that were lately written.
    pub hot_bytes_max: usize,
    /// Block cache of the index.
    pub index_cache_bytes: u64,
    /// Free space below which appends are not admitted and the index rests. Must cover what was admitted before it was
    /// noticed: the tail, one segment and the index's own files.
    pub disk_reserve_bytes: u64,
    /// Index reads running at once.
    pub reads_max: usize,
}

impl EmbeddedOptions {
    /// The values of a node, for this data folder.
    pub fn new(dir: impl Into<PathBuf>) -> EmbeddedOptions {
        EmbeddedOptions {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            retained_segments: 4,
            group_bytes_max: 2 << 20,
            tail_bytes_max: 64 << 20,
            apply_bytes: 12 << 20,
            apply_interval: Duration::from_secs(2),
            hot_bytes_max: 48 << 20,
            index_cache_bytes: 32 << 20,
            disk_reserve_bytes: 256 << 20,
            reads_max: 8,
        }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let wrong = |what: &str| Err(OpenError::Options(what.into()));
        if self.segment_bytes < SEGMENT_BYTES_MIN || !self.segment_bytes.is_multiple_of(4096) {
            return wrong("segment_bytes must be a multiple of 4096 and at least 16384");
        }
        if self.segment_bytes > 1 << 30 {
            return wrong("segment_bytes must be at most 1 GiB");
        }
        if self.group_bytes_max == 0 || self.apply_bytes == 0 || self.reads_max == 0 {
            return wrong("group_bytes_max, apply_bytes and reads_max must not be 0");
        }
        if self.tail_bytes_max < self.apply_bytes {
            return wrong("tail_bytes_max must be at least apply_bytes");
        }
        Ok(())
    }
}

/// Why a store does not open. Everything but `Locked` and `Io` needs a person: nothing was changed or cut.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("option out of range: {0}")]
    Options(Box<str>),
    /// Another process has it open.
    #[error("the data folder {0} is in use by another process")]
    Locked(PathBuf),
    /// Not a data folder, or of a version that this program does not know.
    #[error("{0} is not a data folder of this version: {1}")]
    Format(PathBuf, Box<str>),
    /// The log is damaged at or below a place that is proven to have been durable: acknowledged messages are lost.
    /// Nothing was cut. Restore a copy.
    #[error(
        "the log is damaged: record {lsn} in {segment} (offset {offset}) is not readable, but {proof}; \
         acknowledged messages would be lost, so nothing was changed"
    )]
    Corrupt {
        lsn: Lsn,
        segment: PathBuf,
        offset: u64,
        proof: Box<str>,
    },
    /// The index ends before the oldest record that the log still holds.
    #[error(
        "the index holds records up to {applied}, but the log begins at {oldest}: the records between are gone; \
         restore a newer index or a whole copy of the data folder"
    )]
    IndexBehind { applied: Lsn, oldest: Lsn },
    /// The log ends before records that are known to have been durable.
    #[error(
        "the log ends at record {last}, but {known} records are known to have been durable: part of the log is missing"
    )]
    LogBehind { last: Lsn, known: Lsn },
    #[error(
        "the index cannot be read: {0}; if the log still reaches back to its beginning, the folder `index` may be moved \
         away and is rebuilt"
    )]
    Index(Arc<str>),
    #[error("{what}: {source}")]
    Io {
        what: Box<str>,
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(what: impl Into<Box<str>>) -> impl FnOnce(io::Error) -> OpenError {
        let what = what.into();
        move |source| OpenError::Io { what, source }
    }
}

/// Why a running store has ended. The program stops acknowledging and exits with its documented code.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Fatal {
    /// A write or sync of the log failed, or its writer died.
    #[error("the log failed: {0}")]
    Log(Arc<str>),
    /// The index failed; what is durable is in the log.
    #[error("the index failed: {0}")]
    Index(Arc<str>),
}
