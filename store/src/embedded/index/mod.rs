//! The index behind the log: a fjall keyspace that is filled in bulk and may be thrown away.
//!
//! One keyspace for all tables (letters in [`keys`], layouts in [`values`]): what survives a crash is then always a
//! prefix of the batches, whatever fjall had flushed, and `applied` is part of every batch. [`View`] reads, as of one
//! moment; [`write`] turns an overlay into a batch.
//!
//! Invariants: only durable records reach it; `applied` says exactly up to which.
//!
//! What it does not do: sync on its own account. Losing its last batches costs a replay, nothing else; only before a
//! log segment is recycled must they be safe ([`Index::persist`]).

pub(in crate::embedded) mod keys;
pub(in crate::embedded) mod values;
pub(in crate::embedded) mod view;
pub(in crate::embedded) mod write;

use std::path::Path;
use std::sync::Arc;

use fjall::config::CompressionPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use thiserror::Error;

use crate::{Lsn, ReadError};

pub(in crate::embedded) use view::View;

/// Size at which fjall moves a memtable to a file.
const MEMTABLE_BYTES: u64 = 24 << 20;

/// Values of this size lie in files of their own. Those are runs of rows, which never change: written once, they are not
/// written again at every level that their key goes down.
const APART_BYTES: u32 = 2_048;

/// Most of fjall's own journal; it is read at a start.
const JOURNAL_BYTES: u64 = 64 << 20;

/// An index that cannot be read or written.
#[derive(Debug, Error)]
pub(in crate::embedded) enum IndexError {
    #[error(transparent)]
    Fjall(#[from] fjall::Error),
    #[error("a value of table {0} cannot be decoded")]
    Undecodable(&'static str),
}

impl From<IndexError> for ReadError {
    fn from(error: IndexError) -> ReadError {
        tracing::error!(%error, "the index cannot be read");
        ReadError::Index(error.to_string().into())
    }
}

/// Handle of the open index; clones share it.
#[derive(Clone)]
pub(in crate::embedded) struct Index {
    db: Database,
    space: Keyspace,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl Index {
    pub(in crate::embedded) fn open(dir: &Path, cache_bytes: u64) -> Result<Index, IndexError> {
        let db = Database::builder(dir)
            .cache_size(cache_bytes)
            .worker_threads(1)
            .max_cached_files(Some(256))
            .max_journaling_size(JOURNAL_BYTES)
            .journal_compression(fjall::CompressionType::None)
            .open()?;
        let space = db.keyspace("tables", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .with_kv_separation(Some(
                    KvSeparationOptions::default().separation_threshold(APART_BYTES),
                ))
                .data_block_compression_policy(CompressionPolicy::new([
                    fjall::CompressionType::None,
                    fjall::CompressionType::None,
                    fjall::CompressionType::Lz4,
                ]))
        })?;
        Ok(Index { db, space })
    }

    /// Everything as of now.
    pub(in crate::embedded) fn view(&self) -> View {
        View::new(self.db.snapshot(), self.space.clone())
    }

    /// Makes all committed batches durable.
    pub(in crate::embedded) fn persist(&self) -> Result<(), IndexError> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    /// Last record of the log that it holds; 0: none.
    pub(in crate::embedded) fn applied(&self) -> Result<Lsn, IndexError> {
        self.view().applied()
    }
}

/// For error types that want a shared text.
pub(in crate::embedded) fn shared_text(error: &IndexError) -> Arc<str> {
    error.to_string().into()
}
