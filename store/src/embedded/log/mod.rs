//! The segment log: the one thing that is fsynced before an acknowledgement.
//!
//! [`record`] is the frame of a record and [`segment`] one file; both know nothing of the store. [`recover`] walks the
//! files at a start and says where the log ends. [`pool`] owns the files of a running store: spare ones ahead of the
//! writer, recycling behind the index. [`writer`] is the queue and the thread that make batches durable, [`pace`] says
//! when a group waits for company.
//!
//! Invariants: lsns are dense from 1; a record never spans segments; a segment begins only after everything before it
//! is synced; nothing is written behind a failed write or sync.

mod pace;
pub(super) mod pool;
pub(super) mod record;
pub(super) mod recover;
pub(super) mod segment;
pub(super) mod writer;
