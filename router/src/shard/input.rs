//! What a shard is told: requests, control, and what comes back from the store.

use conch_store::{AppendError, Appended, ChannelSnapshot, ReadError};
use conch_wire::{ChannelId, Code, DeviceId, SessionId, UserId};
use tokio::sync::oneshot;

use crate::channel::{Answer, Ask, Known, LookupId, Ticket};
use crate::{HistoryRows, Refused, Registered, Registration, SendRequest};

/// Where an answer goes; gone when nobody waits any more.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// Two people, the lower id first.
pub(crate) type PairKey = (UserId, UserId);

/// A request to an owner.
#[derive(Debug)]
pub(crate) enum Input {
    Send(SendRequest),
    Ask {
        channel: ChannelId,
        ask: Ask,
        /// A session that is fenced before the question is put.
        fence: Option<(UserId, SessionId)>,
        reply: Reply<Answer>,
    },
    Register {
        registration: Registration,
        reply: Reply<Registered>,
    },
    /// The channel of two people: its id, made durable first if there is none.
    Pair {
        pair: PairKey,
        reply: Reply<ChannelId>,
    },
}

/// What must arrive even when the queue of requests is full. Bounded by what it ends: one goodbye per session, one
/// close per log-out, one shutdown.
#[derive(Debug)]
pub(crate) enum Control {
    Unregister {
        user: UserId,
        session: SessionId,
    },
    CloseDevice {
        user: UserId,
        device: DeviceId,
        code: Code,
    },
    Shutdown,
}

/// A channel's part of an append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appending {
    pub(crate) channel: ChannelId,
    /// Index of its first record in the append.
    pub(crate) first: usize,
}

/// Something that the shard had under way has ended.
pub(crate) enum Completion {
    Appended {
        parts: Vec<Appending>,
        result: Result<Appended, AppendError>,
    },
    Loaded {
        channel: ChannelId,
        life: u64,
        result: Result<Option<ChannelSnapshot>, ReadError>,
    },
    Found {
        channel: ChannelId,
        life: u64,
        id: LookupId,
        result: Result<Option<Known>, ()>,
    },
    Page {
        ticket: Ticket,
        result: Result<HistoryRows, Refused>,
    },
    Position {
        registration: Registration,
        reply: Reply<Registered>,
        result: Result<u64, ReadError>,
    },
    /// A shard's queue has room again.
    Room { shard: usize },
    Pair {
        pair: PairKey,
        result: Result<ChannelId, Refused>,
    },
}
