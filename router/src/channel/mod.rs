//! A channel's owner: the pure half ([`state::ChannelState`]) and the words it speaks with its driver, the shard loop.
//!
//! Inputs come one at a time, with the clock and the store's word on room in a [`Context`]; what is to be done comes
//! back in [`Effects`], which the shard reuses from pass to pass. Nothing here knows tokio, a clock or randomness.
//!
//! `state` owns the log position and commits; `send` gives messages their place; `change` makes and changes channels;
//! `read` answers from what is committed; `pending` tells what became of sends; `roster`, `window`, `tail` and `outbox`
//! are the parts they stand on.

pub(crate) mod change;
pub(crate) mod outbox;
pub(crate) mod pending;
pub(crate) mod read;
pub(crate) mod roster;
pub(crate) mod send;
pub(crate) mod state;
pub(crate) mod window;

#[cfg(test)]
mod properties;

use conch_store::{EventRow, Range, ReadLimit, Refusal};
use conch_wire::event::{ChannelKind, PendingAnswer};
use conch_wire::frame::ChannelHead;
use conch_wire::{MessageKey, Seq, SessionId, UserId};

use crate::fence::Fences;
use crate::{ChannelView, HistoryRequest, HistoryRows, MemberView, Push, Refused};

/// Names one asynchronous answer; the shard keeps who waits for it.
pub(crate) type Ticket = u64;

/// Settings that a channel is ruled by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) members_max: usize,
    pub(crate) tail_events: usize,
    /// Owner loops of this process: recipients are grouped by them.
    pub(crate) shards: usize,
}

/// What the outside world is like while one input is handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Whether the store has room for what is being asked; taken before any seq is given.
    pub(crate) admission: Result<(), Refusal>,
    pub(crate) fences: &'a Fences,
    /// Deliveries of this channel that found no room yet.
    pub(crate) behind: usize,
}

/// A question or change that is answered by ticket.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    View {
        user: UserId,
    },
    Members {
        user: UserId,
    },
    History {
        user: UserId,
        request: HistoryRequest,
    },
    Read {
        user: UserId,
        seq: Seq,
    },
    Pending {
        user: UserId,
        keys: Vec<MessageKey>,
    },
    Create(Creation),
    Change(Change),
}

impl Ask {
    /// Whether it would write to the channel's log.
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Ask::Create(_) | Ask::Change(_))
    }

    /// Room to ask the store for: a generous bound of the event's record.
    pub(crate) fn bytes(&self) -> usize {
        const RECORD: usize = 256;
        const PER_MEMBER: usize = 48;
        match self {
            Ask::Create(creation) => {
                RECORD + creation.title.len() + creation.others.len() * PER_MEMBER
            }
            Ask::Change(Change::Add { users, .. }) => RECORD + users.len() * PER_MEMBER,
            Ask::Change(_) | Ask::Read { .. } => RECORD,
            Ask::View { .. } | Ask::Members { .. } | Ask::History { .. } | Ask::Pending { .. } => 0,
        }
    }
}

/// The first event of a channel; asked again it answers what is there.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    pub(crate) by: UserId,
    pub(crate) kind: ChannelKind,
    /// Groups only.
    pub(crate) title: String,
    pub(crate) others: Vec<UserId>,
}

/// A change of a group.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add { by: UserId, users: Vec<UserId> },
    Remove { by: UserId, user: UserId },
    Leave { user: UserId },
    Rename { by: UserId, title: String },
}

/// What a ticket is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    View(ChannelView),
    Members(Vec<MemberView>),
    History(HistoryRows),
    Head(ChannelHead),
    Pending(Vec<PendingAnswer>),
    Done,
}

/// Which parked request a store read belongs to, and which of its items.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LookupId {
    pub(crate) park: u64,
    pub(crate) item: u16,
}

/// A row that is not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lookup {
    Row(Seq),
    Key { sender: UserId, key: MessageKey },
}

/// A history page that is not in memory. The right to see it was checked; the driver answers it without coming back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRead {
    pub(crate) ticket: Ticket,
    pub(crate) range: Range,
    pub(crate) limit: ReadLimit,
    pub(crate) first_seq: Seq,
    pub(crate) head_seq: Seq,
}

/// What is to be done, in order within each list.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) pushes: Vec<(SessionId, Push)>,
    pub(crate) answers: Vec<(Ticket, Result<Answer, Refused>)>,
    pub(crate) lookups: Vec<(LookupId, Lookup)>,
    pub(crate) pages: Vec<PageRead>,
    /// Read marks that became durable: to all devices of the user.
    pub(crate) heads: Vec<(UserId, ChannelHead)>,
}

impl Effects {
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Result<Answer, Refused>) {
        self.answers.push((ticket, answer));
    }
}

/// What is kept of a stored message to recognise it by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) sender: UserId,
    pub(crate) key: MessageKey,
    pub(crate) seq: Seq,
    pub(crate) ordinal: u32,
    pub(crate) time_ms: u64,
    pub(crate) content_hash: u64,
}

impl Known {
    pub(crate) fn of(row: &EventRow) -> Known {
        Known {
            sender: row.sender,
            key: row.key,
            seq: row.seq,
            ordinal: row.ordinal,
            time_ms: row.created_ms,
            content_hash: row.content_hash,
        }
    }
}
