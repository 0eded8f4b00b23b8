//! What the core remembers between runs, as rows and as steps that change them.
//!
//! The caller stores all steps of one [`super::Outputs`] in one durable transaction, in order, before it carries out
//! anything else of them. That is the whole contract: no send leaves before its outbox row is safe, no event is given out
//! and no sync token moves without the rows that remember it.

use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, Event, MemberRole, MessageKey, Seq, SessionId, UserId};

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
    /// Inserts; a seq that is there already is left as it is.
    Message(MessageRow),
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
    pub sync_token: Vec<u8>,
    pub listing: Listing,
}

/// A full listing of channels, after the server declared a token void. Which channels are ours is known only at its end,
/// and a channel that was touched while it ran may be on none of its pages; so one more sync follows before channels that
/// were not mentioned are taken for gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Rows carry the round in which they were last mentioned.
    pub round: u32,
    pub phase: ListingPhase,
}

/// How far a listing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum ListingPhase {
    #[default]
    None = 0,
    Pages = 1,
    Check = 2,
}

/// A channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelRow {
    pub channel: ChannelId,
    pub kind: ChannelKind,
    pub title: String,
    pub peer: Option<UserId>,
    pub role: MemberRole,
    pub first_seq: Seq,
    pub left_seq: Option<Seq>,
    /// `base ..= have` is stored without a hole.
    pub base: Seq,
    pub have: Seq,
    /// Above `have`: a gap that is still to be fetched.
    pub head: Seq,
    pub marks: Marks,
    /// Title and membership are as of this seq.
    pub informed_seq: Seq,
    /// The listing's round that mentioned it last.
    pub listed: u32,
    pub used: u64,
}

/// An event of a channel, with the key if this device sent it.
#[derive(Clone, PartialEq, Debug)]
pub struct MessageRow {
    pub channel: ChannelId,
    pub event: Event,
    pub key: Option<MessageKey>,
}

/// What was stored when the program last ended.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Loaded {
    pub meta: Meta,
    pub channels: Vec<ChannelRow>,
    /// In the order of their ids.
    pub outbox: Vec<OutboxItem>,
}
