//! What the core remembers between runs, as rows and as steps that change them.
//!
//! The caller stores all steps of one [`super::Outputs`] in one durable transaction, in order, before it carries out
//! anything else of them. That is the whole contract: no send leaves before its outbox row is safe, no event is given out
//! and no sync token moves without the rows that remember it.

use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, Event, MemberRole, MessageKey, Seq, SessionId, UserId};

use super::event::Preview;
use super::marks::Marks;
use super::outbox::OutboxItem;

/// One step of a transaction.
#[derive(Clone, PartialEq, Debug)]
pub enum Persist {
    /// The one row of this kind.
    Meta(Meta),
    /// Inserts or replaces.
    Channel(Box<ChannelRow>),
    /// With its messages.
    ChannelRemoved(ChannelId),
    /// All messages of a channel go; the channel stays.
    MessagesRemoved(ChannelId),
    /// The channel's messages below this seq go.
    MessagesTrimmed(ChannelId, Seq),
    /// Inserts; a seq that is there already is left as it is.
    Message(MessageRow),
    /// Inserts or replaces, by the item's id.
    Outbox(OutboxItem),
    /// By the item's id.
    OutboxRemoved(u64),
    /// All channels and messages go; the outbox stays.
    Forget,
}

/// What is known beyond channels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Whose data this is; `None` before the first WELCOME.
    pub user: Option<UserId>,
    /// The server's store generation that channels and messages belong to; 0: none yet.
    pub generation: u32,
    /// The last session, which the next one replaces.
    pub session: Option<SessionId>,
    /// Up to where changes are remembered; the server's word, opaque.
    pub sync_token: Vec<u8>,
    /// A full listing of channels that is under way.
    pub listing: Listing,
}

/// A full listing of channels, after the server declared a token void. Which channels are ours is known only at its end,
/// and a channel that was touched while it ran may be on none of its pages; so one more sync follows before channels that
/// were not mentioned are taken for gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Rows carry the round in which they were last mentioned.
    pub round: u32,
    /// How far it is.
    pub phase: ListingPhase,
}

/// How far a listing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum ListingPhase {
    /// None is under way.
    #[default]
    None = 0,
    /// Its pages come.
    Pages = 1,
    /// Its last page came, and the sync behind it runs.
    Check = 2,
}

/// A channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelRow {
    /// Which one.
    pub channel: ChannelId,
    /// Direct, group or one's own.
    pub kind: ChannelKind,
    /// Of a group; empty for a direct channel.
    pub title: String,
    /// Direct channel: the other person.
    pub peer: Option<UserId>,
    /// What we may do in it.
    pub role: MemberRole,
    /// First seq that there is for us.
    pub first_seq: Seq,
    /// Where we left; nothing behind it is for us.
    pub left_seq: Option<Seq>,
    /// `base ..= have` is stored without a hole.
    pub base: Seq,
    /// See `base`.
    pub have: Seq,
    /// Above `have`: a gap that is still to be fetched.
    pub head: Seq,
    /// Unread and read mark.
    pub marks: Marks,
    /// The newest message that was placed.
    pub last: Option<Preview>,
    /// Title and membership are as of this seq.
    pub informed_seq: Seq,
    /// The listing's round that mentioned it last.
    pub listed: u32,
    /// Order of last use on this device; higher is later.
    pub used: u64,
}

/// An event of a channel, with the key if this device sent it.
#[derive(Clone, PartialEq, Debug)]
pub struct MessageRow {
    /// Whose log.
    pub channel: ChannelId,
    /// The event as the server has it.
    pub event: Event,
    /// Set when this device sent it.
    pub key: Option<MessageKey>,
}

/// What was stored when the program last ended.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Loaded {
    /// The one row of what is known beyond channels.
    pub meta: Meta,
    /// In any order.
    pub channels: Vec<ChannelRow>,
    /// In the order of their ids.
    pub outbox: Vec<OutboxItem>,
}
