//! The fold: what an event changes besides its own row.
//!
//! The store keeps bodies opaque, so the router hands it this pure function. It runs when a record has become durable
//! and again at every replay, and must give the same answer for the same event for ever.

use conch_wire::UserId;
use conch_wire::event::{ChannelKind, MemberRole};

use crate::EventRow;

/// A change of who is in the channel, as of this event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// In from this event on (seq of the event = joined and visible-from), with a read mark just before it.
    Join { user: UserId, role: MemberRole },
    /// Out: this event is the last that the person may read.
    Leave { user: UserId },
}

/// What an event changes in the derived tables. The store itself does the rest: the row, the head, the sender's read
/// mark (a message moves its author's), the inbox of the members before ∪ after, the dedupe key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EventEffect {
    /// A person's message: has a key to be looked up by, moves its author's read mark, and changes nothing else.
    pub is_message: bool,
    /// Set by the first event of a channel.
    pub created: Option<ChannelKind>,
    /// The title from here on.
    pub title: Option<String>,
    pub members: Vec<MemberChange>,
}

/// Reads an event's effect from its body. Pure; unknown kinds and unreadable bodies have no effect.
pub trait Fold: Send + Sync + 'static {
    fn effect(&self, event: &EventRow) -> EventEffect;
}
