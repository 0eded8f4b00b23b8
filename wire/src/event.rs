//! An event: one place in a channel's log, as it is stored, pushed and paged.
//!
//! The **event body** is encoded once by the channel's owner and is the same bytes in the store, in every DELIVER and
//! over every link: a 20-byte header {author u64, seq u32, time 48 bit, kind u8, flags u8}, little-endian, then the
//! tail: the UTF-8 text of a message, or, with [`EventFlags::TABLE`], `u32 text length`, text, FlatBuffers table; for
//! kinds that are not messages the tail is one FlatBuffers table ([`EventBody`]).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{EVENT_HEADER_BYTES, WireError};
use crate::generated::conch as fb;
use crate::layout::{cut, halves, id, time, time_parts, zero};
use crate::limits::{
    GROUP_MEMBERS_MAX, PAYLOAD_BYTES_MAX, SEQ_MAX, TABLE_BYTES_MAX, TEXT_BYTES_MAX, TEXT_CHARS_MAX,
    TITLE_CHARS_MAX,
};
use crate::{ChannelId, Code, MessageKey, Seq, UserId, table};

/// Kinds from here on change the channel; those below are messages.
pub(crate) const FIRST_CHANGE_KIND: u8 = 16;
/// Place of the kind and of the flags in an event body.
pub(crate) const EVENT_KIND_AT: usize = 18;
pub(crate) const EVENT_FLAGS_AT: usize = 19;

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

    /// Whether a device may send it. `System` is a word of the node or of a server key: nobody may speak in its name.
    pub fn is_sent_by_devices(self) -> bool {
        self.is_message() && self != EventKind::System
    }

    /// Whether it is a person's message: takes an ordinal, counts as unread, may be sent by SEND.
    pub fn is_message(self) -> bool {
        (self as u8) < FIRST_CHANGE_KIND
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
    /// All bits that are defined; a SEND with others is refused.
    pub(crate) const KNOWN: SendFlags = SendFlags(3);

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

/// The table behind the text of a message ([`EventFlags::TABLE`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MessageBody {
    /// Who is mentioned. Mentions are never parsed out of text.
    pub mentions: Vec<UserId>,
}

impl Event {
    /// Encodes the event body: the 20-byte header and the tail. Done once, by the channel's owner.
    pub fn encode_body(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(EVENT_HEADER_BYTES + self.tail.len());
        self.put_body(&mut body);
        body.freeze()
    }

    /// Appends the event body.
    pub(crate) fn put_body(&self, out: &mut BytesMut) {
        let (ts_lo, ts_hi) = time_parts(self.time_ms);
        let author = halves(self.author.0);
        out.put_slice(
            &fb::EventHdr::new(&author, self.seq, ts_lo, ts_hi, self.kind, self.flags.0).0,
        );
        out.put_slice(&self.tail);
    }

    /// Decodes an event body; the tail shares its memory. Does not look into the tail.
    pub fn decode_body(mut body: Bytes) -> Result<Event, WireError> {
        let header = fb::EventHdr(cut(&body)?.0);
        body.advance(EVENT_HEADER_BYTES);
        let event = Event {
            author: UserId(id(header.author())?),
            seq: header.seq(),
            time_ms: time(header.ts_lo(), header.ts_hi()),
            kind: header.kind(),
            flags: EventFlags(header.flags()),
            tail: body,
        };
        event.check()?;
        Ok(event)
    }

    /// What holds for every event, wherever it came from.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        if self.seq == 0 || self.seq > SEQ_MAX {
            return Err(WireError::bad("seq is out of range"));
        }
        if self.kind == 0 {
            return Err(WireError::bad("kind of an event is 0"));
        }
        if self.flags.contains(EventFlags::BODY_OMITTED) && self.tail.len() != 4 {
            return Err(WireError::bad("omitted body without its size"));
        }
        Ok(())
    }

    /// The size of the tail that was too large to push, in bytes; `None` when the tail is here.
    pub fn omitted_bytes(&self) -> Option<u32> {
        let size = <[u8; 4]>::try_from(&self.tail[..]).ok()?;
        self.flags
            .contains(EventFlags::BODY_OMITTED)
            .then_some(u32::from_le_bytes(size))
    }

    /// The text of a message: the tail, or its text part when there is a table. `None` for other kinds and bad tails.
    pub fn text(&self) -> Option<&str> {
        if self.kind >= FIRST_CHANGE_KIND || self.flags.contains(EventFlags::BODY_OMITTED) {
            return None;
        }
        let text = if self.flags.contains(EventFlags::TABLE) {
            text_and_table(&self.tail).ok()?.0
        } else if is_text(self.kind) {
            &self.tail[..]
        } else {
            return None;
        };
        std::str::from_utf8(text).ok()
    }

    /// The table behind the text of a message, if it has one.
    pub fn message_body(&self) -> Result<Option<MessageBody>, WireError> {
        if self.kind >= FIRST_CHANGE_KIND
            || self.flags.contains(EventFlags::BODY_OMITTED)
            || !self.flags.contains(EventFlags::TABLE)
        {
            return Ok(None);
        }
        let (_, table) = text_and_table(&self.tail)?;
        MessageBody::decode(table).map(Some)
    }
}

impl MessageBody {
    /// Encodes the table alone.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        table::put(&mut out, |builder| {
            let mentions = (!self.mentions.is_empty()).then(|| {
                builder.create_vector_from_iter(self.mentions.iter().map(|user| halves(user.0)))
            });
            let root = fb::MessageBody::create(builder, &fb::MessageBodyArgs { mentions });
            builder.finish_minimal(root);
        });
        out.into()
    }

    /// Encodes a whole tail, to be sent with [`SendFlags::TABLE`]: `u32 text length`, text, table.
    pub fn encode_tail(&self, text: &str) -> Vec<u8> {
        let mut tail = Vec::with_capacity(4 + text.len() + 64);
        tail.put_u32_le(text.len() as u32);
        tail.put_slice(text.as_bytes());
        tail.put_slice(&self.encode());
        tail
    }

    /// Decodes and verifies the table alone.
    pub fn decode(bytes: &[u8]) -> Result<MessageBody, WireError> {
        let body = table::root::<fb::MessageBody<'_>>(bytes)?;
        let mentions = body.mentions().unwrap_or_default();
        Ok(MessageBody {
            mentions: mentions
                .iter()
                .map(|user| id(user).map(UserId))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl EventBody {
    /// Encodes the table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        table::put(&mut out, |builder| {
            let title = self
                .title
                .as_ref()
                .map(|title| builder.create_string(title));
            let members = (!self.members.is_empty()).then(|| {
                builder.create_vector_from_iter(self.members.iter().map(|member| {
                    fb::EventMember::new(&halves(member.user.0), member.role as u8, 0, 0)
                }))
            });
            let channel_kind = self.channel_kind.map_or(0, |kind| kind as u8);
            let root = fb::EventBody::create(
                builder,
                &fb::EventBodyArgs {
                    channel_kind,
                    title,
                    members,
                },
            );
            builder.finish_minimal(root);
        });
        out.into()
    }

    /// Decodes and verifies the table.
    pub fn decode(tail: &[u8]) -> Result<EventBody, WireError> {
        let body = table::root::<fb::EventBody<'_>>(tail)?;
        let members = body.members().unwrap_or_default();
        if members.len() > GROUP_MEMBERS_MAX {
            return Err(WireError::too_large("more members than a group may have"));
        }
        if body
            .title()
            .is_some_and(|title| title.chars().count() > TITLE_CHARS_MAX)
        {
            return Err(WireError::too_large("title is longer than its limit"));
        }
        Ok(EventBody {
            channel_kind: match body.channel_kind() {
                0 => None,
                kind => Some(
                    ChannelKind::from_u8(kind)
                        .ok_or(WireError::bad("kind of a channel is not known"))?,
                ),
            },
            title: body.title().map(str::to_owned),
            members: members
                .iter()
                .map(decode_member)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn decode_member(member: &fb::EventMember) -> Result<EventMember, WireError> {
    zero(member.pad0())?;
    zero(member.pad1())?;
    let role = MemberRole::from_u8(member.role())
        .ok_or(WireError::bad("role of a member is not known"))?;
    Ok(EventMember {
        user: UserId(id(member.user())?),
        role,
    })
}

/// Whether a tail without a table is text, by kind.
fn is_text(kind: u8) -> bool {
    kind == EventKind::Text as u8 || kind == EventKind::System as u8
}

/// The two parts of a tail that has a table.
fn text_and_table(tail: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (text_len, rest) = cut(tail)?;
    rest.split_at_checked(u32::from_le_bytes(text_len) as usize)
        .ok_or(WireError::bad("text ends behind the message"))
}

/// Checks the tail of a SEND: its kind is a message, text is UTF-8 within [`crate::limits::TEXT_CHARS_MAX`], a payload
/// within its size, the table (if flagged) verifies.
pub fn check_send_tail(kind: u8, flags: SendFlags, tail: &[u8]) -> Result<(), WireError> {
    if !EventKind::from_u8(kind).is_some_and(EventKind::is_sent_by_devices) {
        return Err(WireError::new(
            Code::Invalid,
            "kind is not one that can be sent",
        ));
    }
    if flags.contains(SendFlags::TABLE) {
        let (text, table) = text_and_table(tail)?;
        if table.len() > TABLE_BYTES_MAX {
            return Err(WireError::too_large(
                "table of a message is larger than its limit",
            ));
        }
        check_text(text)?;
        MessageBody::decode(table)?;
        return Ok(());
    }
    if is_text(kind) {
        return check_text(tail);
    }
    if tail.len() > PAYLOAD_BYTES_MAX {
        return Err(WireError::too_large("payload is larger than its limit"));
    }
    Ok(())
}

/// UTF-8 of at most [`TEXT_CHARS_MAX`] scalar values. Counting them is skipped where the bytes are few enough.
fn check_text(text: &[u8]) -> Result<(), WireError> {
    const TOO_LONG: WireError = WireError::too_large("text is longer than its limit");
    if text.len() > TEXT_BYTES_MAX {
        return Err(TOO_LONG);
    }
    let text = std::str::from_utf8(text).map_err(|_| WireError::bad("text is not UTF-8"))?;
    if text.len() > TEXT_CHARS_MAX && text.chars().count() > TEXT_CHARS_MAX {
        return Err(TOO_LONG);
    }
    Ok(())
}
