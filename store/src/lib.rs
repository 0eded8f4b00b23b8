//! What must not be lost.
//!
//! Two parts. [`MessageStore`] is the message log and everything derived from it, with a written contract and one
//! conformance suite; it has a memory model ([`memory`]) and the embedded store of a single node ([`embedded`]: an own
//! segment log, fsynced before an ack, and a fjall index filled in bulk behind it). [`accounts`] is the relational part:
//! people, devices and refresh tokens, through sqlx.
//!
//! The store keeps event bodies as opaque bytes. What an event changes besides its own row (members, title, whether it
//! counts as a message) it learns from a [`Fold`] that the router hands in, so that replay after a crash derives
//! exactly what was derived before it.

pub mod accounts;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod contract;
pub mod crash;
pub mod embedded;
pub mod fold;
pub mod memory;
pub mod metrics;
pub mod row;

pub use contract::{
    AppendError, Appended, BoxFuture, InboxPage, InboxQuery, MessageStore, Range, ReadError,
    ReadLimit, Refusal, StoreIdentity,
};
pub use embedded::{EmbeddedOptions, EmbeddedStore, Fatal, OpenError};
pub use fold::{EventEffect, Fold, MemberChange};
pub use memory::MemoryStore;
pub use row::{
    ChannelMeta, ChannelSnapshot, EventRow, Head, InboxRow, MemberRow, Record, content_hash,
    key_hash,
};

/// Place of a record in the log of a node: dense, starting at 1, never reused, the same after every replay.
pub type Lsn = u64;
