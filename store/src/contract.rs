//! The contract of a message store. `conformance` runs it on every implementation.
//!
//! * **Durable first.** [`MessageStore::append`] resolves `Ok` only when the whole batch is on stable storage; no read
//!   shows any of it earlier, and every read started after that shows it. A batch is durable whole or not at all as far
//!   as anyone can observe it through this trait; after a crash a prefix of an unacknowledged batch may remain.
//! * **Order.** Batches become durable in the order of their `append` calls.
//! * **One content per place.** An event for a (channel, seq) that is already durable is a broken caller and asserts.
//!   The caller appends seq `head + 1` upwards, one batch in flight per channel.
//! * **Derived in the same instant.** When an append resolves, heads, members, read marks, inbox and keys already
//!   include it. An inbox position is the record's [`Lsn`]: it never repeats, never moves back, survives a rebuild of
//!   the index, and is only shown when durable.
//! * **Admission.** Callers take [`MessageStore::admit`] before they give out a seq; a refusal is certain and nothing
//!   was stored. After it, `append` fails only in the ways of [`AppendError`], which end the process.
//! * **Reads** never block an append. They are ascending by seq; a page holds at least one event if there is one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use conch_wire::{ChannelId, MessageKey, Seq, UserId};
use thiserror::Error;

use crate::{ChannelSnapshot, EventRow, InboxRow, Lsn, MemberRow, Record};

/// A boxed future: the trait is used as `Arc<dyn MessageStore>`, and one allocation per batch or page is nothing.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Fixed facts of an opened store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreIdentity {
    /// Minted when the store was created and again by every restore; void cursors are told by it. Never 0.
    pub generation: u32,
    /// Of the inbox: changes when inbox positions of before may not be continued.
    pub inbox_incarnation: u32,
    /// Raised at every start; the epoch of all slots on a single node.
    pub epoch: u32,
    /// Key of the permutation that ids go through; lives and dies with the store.
    pub id_key: [u8; 16],
}

/// Where an appended batch lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Lsn of the batch's first record; record `i` has `first + i`.
    pub first: Lsn,
}

/// Why nothing may be appended now. Certain: nothing was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The index is too far behind the log.
    #[error("the memory in front of the index is full")]
    Overloaded { retry_after_ms: u32 },
    /// The disk's reserve is reached.
    #[error("the disk is full")]
    StorageFull { retry_after_ms: u32 },
}

/// An append whose outcome is not known. The node must stop acknowledging and end: what was not synced may be lost or not.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AppendError {
    /// A write or sync of the log failed.
    #[error("the log failed: {0}")]
    LogFailed(Arc<str>),
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}

/// A read that failed inside. Never "not there": that is an empty answer.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ReadError {
    #[error("the index failed: {0}")]
    Index(Arc<str>),
    #[error("the store is closed")]
    Closed,
}

/// Seqs `from ..= to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub from: Seq,
    pub to: Seq,
    /// When not all fits: keep the newest end instead of the oldest.
    pub newest_first: bool,
}

/// Bounds of one page; the first event is returned even if it alone is above `bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimit {
    pub events: usize,
    pub bytes: usize,
}

/// Which part of a user's inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InboxQuery {
    /// Channels touched after this position, ascending by position.
    After(u64),
    /// Channels last touched at or before this position, newest first: a fresh device's listing.
    AtOrBefore(u64),
}

/// A page of a user's inbox.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InboxPage {
    pub rows: Vec<InboxRow>,
    /// More rows lie behind the last one.
    pub more: bool,
    /// How many stored rows were looked at: follows the rows returned, never the channels joined.
    pub rows_read: u64,
}

/// The message log and what is derived from it. See the module's documentation for what every implementation keeps.
pub trait MessageStore: Send + Sync + 'static {
    fn identity(&self) -> StoreIdentity;

    /// Asks for room for `bytes` more in front of the index. Cheap; called once per batch.
    fn admit(&self, bytes: usize) -> Result<(), Refusal>;

    /// Makes the records durable, in order, all in one group. Enqueued before this returns; the future only waits.
    fn append(&self, batch: Vec<Record>) -> BoxFuture<Result<Appended, AppendError>>;

    /// Everything to serve a channel: `tail` newest events, `keys` newest keys. `None`: there is no such channel.
    fn load_channel(
        &self,
        channel: ChannelId,
        tail: usize,
        keys: usize,
    ) -> BoxFuture<Result<Option<ChannelSnapshot>, ReadError>>;

    /// Events of a range, ascending.
    fn read_events(
        &self,
        channel: ChannelId,
        range: Range,
        limit: ReadLimit,
    ) -> BoxFuture<Result<Vec<EventRow>, ReadError>>;

    /// The message that a sender stored under this key in the last 7 days.
    fn find_key(
        &self,
        channel: ChannelId,
        sender: UserId,
        key: MessageKey,
    ) -> BoxFuture<Result<Option<EventRow>, ReadError>>;

    /// One member's row, present or former.
    fn member(
        &self,
        channel: ChannelId,
        user: UserId,
    ) -> BoxFuture<Result<Option<MemberRow>, ReadError>>;

    /// The direct channel of two people (in either order), or a person's own log when both are the same.
    fn find_pair(
        &self,
        one: UserId,
        other: UserId,
    ) -> BoxFuture<Result<Option<ChannelId>, ReadError>>;

    /// Highest inbox position of a user; 0 for an empty inbox.
    fn inbox_position(&self, user: UserId) -> BoxFuture<Result<u64, ReadError>>;

    /// A page of a user's inbox, at most `rows_max` rows.
    fn inbox(
        &self,
        user: UserId,
        query: InboxQuery,
        rows_max: usize,
    ) -> BoxFuture<Result<InboxPage, ReadError>>;

    /// One channel of a user's inbox.
    fn inbox_row(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> BoxFuture<Result<Option<InboxRow>, ReadError>>;

    /// The end of the last id block of a space; 0 if none was ever taken.
    fn id_block_end(&self, space: u8) -> u64;

    /// Stops taking appends, makes what was taken durable, settles the index as far as is cheap, releases files.
    fn close(&self) -> BoxFuture<()>;
}
