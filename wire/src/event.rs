//! An event: one place in a channel's log, as it is stored, pushed and paged.
//!
//! The **event body** is encoded once by the channel's owner and is the same bytes in the store, in every DELIVER and
//! over every link: a 20-byte header {author u64, seq u32, time 48 bit, kind u8, flags u8}, little-endian, then the
//! tail: the UTF-8 text of a message, or, with [`EventFlags::TABLE`], `u32 text length`, text, FlatBuffers table; for
//! kinds that are not messages the tail is one FlatBuffers table ([`EventBody`]).

use bytes::Bytes;

use crate::{ChannelId, MessageKey, Seq, UserId};

/// What an event is. Numbers are for ever. 1–15 are people's messages and count for ordinals; 16 and up change the channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum EventKind {
    Text = 1,
    Image = 2,
    File = 3,
    System = 4,
    ChannelCreated = 16,
    MembersAdded = 17,
    MemberRemoved = 18,
    MemberLeft = 19,
    ChannelRenamed = 20,
}

impl EventKind {
    /// The kind of a number, if it is one of ours.
    pub fn from_u8(number: u8) -> Option<EventKind> {
        Some(match number {
            1 => EventKind::Text,
            2 => EventKind::Image,
            3 => EventKind::File,
            4 => EventKind::System,
            16 => EventKind::ChannelCreated,
            17 => EventKind::MembersAdded,
            18 => EventKind::MemberRemoved,
            19 => EventKind::MemberLeft,
            20 => EventKind::ChannelRenamed,
            _ => return None,
        })
    }

    /// Whether it is a person's message: takes an ordinal, counts as unread, may be sent by SEND.
    pub fn is_message(self) -> bool {
        (self as u8) < 16
    }
}

/// Bits of an event's flags byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct EventFlags(pub u8);

impl EventFlags {
    /// The tail is `u32 text length`, text, table.
    pub const TABLE: EventFlags = EventFlags(1);
    /// The body was too large to push: the tail is `u32` size of the real tail; fetch it by HISTORY.
    pub const BODY_OMITTED: EventFlags = EventFlags(2);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: EventFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Bits of SEND's flags byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SendFlags(pub u8);

impl SendFlags {
    /// The tail is `u32 text length`, text, table.
    pub const TABLE: SendFlags = SendFlags(1);
    /// This key may have been sent before (any attempt but the first, and everything loaded from disk).
    pub const RETRY: SendFlags = SendFlags(2);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: SendFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Bits of SEND_ACK's flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AckFlags(pub u16);

impl AckFlags {
    /// The message was already stored by an earlier attempt.
    pub const DUP: AckFlags = AckFlags(1);
}

/// The kind of a channel, fixed by its first event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ChannelKind {
    /// Two people; one channel per pair.
    Direct = 1,
    /// Up to the configured cap of members.
    Group = 2,
    /// One person's own log.
    SelfLog = 3,
}

impl ChannelKind {
    /// The kind of a number, if it is one of ours.
    pub fn from_u8(number: u8) -> Option<ChannelKind> {
        Some(match number {
            1 => ChannelKind::Direct,
            2 => ChannelKind::Group,
            3 => ChannelKind::SelfLog,
            _ => return None,
        })
    }
}

/// What a member may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MemberRole {
    Member = 1,
    Admin = 2,
    Owner = 3,
}

impl MemberRole {
    /// The role of a number, if it is one of ours.
    pub fn from_u8(number: u8) -> Option<MemberRole> {
        Some(match number {
            1 => MemberRole::Member,
            2 => MemberRole::Admin,
            3 => MemberRole::Owner,
            _ => return None,
        })
    }
}

/// A member named by an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventMember {
    pub user: UserId,
    pub role: MemberRole,
}

/// The table of an event that changes the channel (tail of kinds 16 and up). Fields that do not apply are empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EventBody {
    /// ChannelCreated: the kind. Else `None`.
    pub channel_kind: Option<ChannelKind>,
    /// ChannelCreated, ChannelRenamed: the title (groups).
    pub title: Option<String>,
    /// ChannelCreated, MembersAdded: who is in from here on. MemberRemoved, MemberLeft: who is out.
    pub members: Vec<EventMember>,
}

/// One event, decoded far enough to be handled; `tail` is a slice of the shared body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub author: UserId,
    pub seq: Seq,
    /// Milliseconds since 1970 by the owner's clock; never decreases along seq. 48 bits.
    pub time_ms: u64,
    /// A number that [`EventKind::from_u8`] may not know: newer nodes may have written it.
    pub kind: u8,
    pub flags: EventFlags,
    pub tail: Bytes,
}

/// What an answered send carries: where the message lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    pub seq: Seq,
    pub time_ms: u64,
    pub flags: AckFlags,
}

/// A pending send that a client asks about when it comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingSend {
    pub channel: ChannelId,
    pub key: MessageKey,
}

/// What is known of a pending send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PendingAnswer {
    /// It is in the log.
    Stored { seq: Seq, time_ms: u64 },
    /// It is not, and no earlier attempt can still bring it there.
    Absent,
    /// The owner did not answer in time: send it again with RETRY.
    Unknown,
}

impl Event {
    /// Encodes the event body: the 20-byte header and the tail. Done once, by the channel's owner.
    pub fn encode_body(&self) -> Bytes {
        unimplemented!()
    }

    /// Decodes an event body; the tail shares its memory. Does not look into the tail.
    pub fn decode_body(body: Bytes) -> Result<Event, crate::WireError> {
        let _ = body;
        unimplemented!()
    }

    /// The text of a message: the tail, or its text part when there is a table. `None` for other kinds and bad tails.
    pub fn text(&self) -> Option<&str> {
        unimplemented!()
    }
}

impl EventBody {
    /// Encodes the table.
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Decodes and verifies the table.
    pub fn decode(tail: &[u8]) -> Result<EventBody, crate::WireError> {
        let _ = tail;
        unimplemented!()
    }
}

/// Checks the tail of a SEND: its kind is a message, text is UTF-8 within [`crate::limits::TEXT_CHARS_MAX`], a payload
/// within its size, the table (if flagged) verifies.
pub fn check_send_tail(kind: u8, flags: SendFlags, tail: &[u8]) -> Result<(), crate::WireError> {
    let _ = (kind, flags, tail);
    unimplemented!()
}
