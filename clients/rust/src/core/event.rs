//! What an application hears: typed events, owned, without lifetimes.
//!
//! Messages of a channel come in the order of its log, each exactly once, also over restarts: an event is given out only
//! with the storage that remembers it. An own message is shown under its key from `send` on; [`Event::SendStored`] says
//! that it is safe, [`Event::Message`] with the same key says where it stands among the others.

use bytes::Bytes;
use conch_wire::event::{ChannelKind, EventBody, MessageBody};
use conch_wire::{ChannelId, Code, EventFlags, EventKind, MemberRole, MessageKey, Seq, UserId};

/// Something happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The connection is another one, or none.
    Connection(ConnectionState),
    /// The next event of a channel.
    Message(Message),
    /// The server has this message, for ever.
    SendStored {
        /// Where it lies.
        channel: ChannelId,
        /// Which one it is.
        key: MessageKey,
        /// Its place in the channel.
        seq: Seq,
        /// ms since 1970 by the server's clock.
        time_ms: u64,
    },
    /// The message is given up. It stays in the outbox, refused, until the person retries or cancels it; one that was
    /// cancelled is gone.
    SendRefused {
        /// Where it was to go.
        channel: ChannelId,
        /// Which one it is.
        key: MessageKey,
        /// Why, and by that what to do.
        reason: RefusalReason,
    },
    /// What this device still has to send into the channel is another list, or in another state.
    Outbox {
        /// The channel.
        channel: ChannelId,
    },
    /// The channel's messages wait because the server asked for patience; they go out by themselves.
    SendsDelayed {
        /// The channel.
        channel: ChannelId,
        /// What the server said.
        code: Code,
        /// When they go out again, in milliseconds.
        retry_in_ms: u64,
    },
    /// A channel is new, or its name, marks, newest message or membership changed.
    Channel(ChannelInfo),
    /// The channel is not one of ours any more.
    ChannelRemoved {
        /// The channel.
        channel: ChannelId,
    },
    /// What was known of the channel is void: show nothing of it and read its history again.
    ChannelReset {
        /// The channel.
        channel: ChannelId,
    },
    /// These events are not to be had for us (trimmed, or from a time when we were not a member).
    Skipped {
        /// The channel.
        channel: ChannelId,
        /// The first of them.
        from: Seq,
        /// The last of them.
        to: Seq,
    },
}

impl Event {
    /// The channel that it is about; `None` for the connection.
    pub fn channel(&self) -> Option<ChannelId> {
        match self {
            Event::Connection(_) => None,
            Event::Message(message) => Some(message.channel),
            Event::Channel(info) => Some(info.channel),
            Event::SendStored { channel, .. }
            | Event::SendRefused { channel, .. }
            | Event::Outbox { channel }
            | Event::SendsDelayed { channel, .. }
            | Event::ChannelRemoved { channel }
            | Event::ChannelReset { channel }
            | Event::Skipped { channel, .. } => Some(*channel),
        }
    }
}

/// Why a message of this device is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalReason {
    /// The server will not take it.
    Server(Code),
    /// It could not be sent for as long as the server promises to know it again. Whether it arrived is not known if it
    /// was sent before.
    Expired,
    /// The person cancelled it before it left.
    Cancelled,
}

/// What a person can do about a message that is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalAdvice {
    /// Retry it: the reason may be over by now.
    Retry,
    /// Look whether it is in the channel already, and retry it if it is not.
    CheckThenRetry,
    /// Write it differently: this content is not taken.
    Edit,
    /// Nothing: the channel does not take messages from this person.
    Discard,
}

impl RefusalReason {
    /// A stable name: the code's, `expired` or `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            RefusalReason::Server(code) => code.name(),
            RefusalReason::Expired => "expired",
            RefusalReason::Cancelled => "cancelled",
        }
    }

    /// The server's code, if it was the server's word.
    pub fn code(self) -> Option<Code> {
        match self {
            RefusalReason::Server(code) => Some(code),
            RefusalReason::Expired | RefusalReason::Cancelled => None,
        }
    }

    /// What to offer the person.
    pub fn advice(self) -> RefusalAdvice {
        match self {
            RefusalReason::Expired => RefusalAdvice::CheckThenRetry,
            RefusalReason::Cancelled => RefusalAdvice::Discard,
            RefusalReason::Server(code) => match code {
                Code::Invalid | Code::TooLarge | Code::BadFrame => RefusalAdvice::Edit,
                Code::NotFound | Code::Forbidden | Code::ChannelFull => RefusalAdvice::Discard,
                _ => RefusalAdvice::Retry,
            },
        }
    }
}

impl std::fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RefusalReason::Server(code) => code.fmt(f),
            other => f.write_str(other.name()),
        }
    }
}

/// Where a message of this device stands that is not among the channel's messages yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendState {
    /// Safe on this device; goes out by itself.
    Waiting,
    /// On its way; the server's answer is awaited.
    Sending,
    /// The server has it; events before it are still to come.
    Sent {
        /// Its place in the channel.
        seq: Seq,
        /// ms since 1970 by the server's clock.
        time_ms: u64,
    },
    /// Given up, and kept for the person to retry or cancel.
    Refused {
        /// Why, and by that what to do.
        reason: RefusalReason,
    },
}

/// A message of this device that is not among the channel's messages yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxMessage {
    /// Where it is to go.
    pub channel: ChannelId,
    /// Its name, by which events speak of it.
    pub key: MessageKey,
    /// What it says.
    pub content: Content,
    /// When it was written, ms since 1970 by this device's clock.
    pub created_ms: u64,
    /// The newest event of the channel that this device held when it was written: one that is given up stands behind it.
    /// `u32::MAX`: the channel was not known.
    pub after: Seq,
    /// How far it is.
    pub state: SendState,
}

/// The newest message of a channel, for a list of channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preview {
    /// Its place in the channel.
    pub seq: Seq,
    /// Who wrote it.
    pub author: UserId,
    /// ms since 1970 by the server's clock.
    pub time_ms: u64,
    /// The number of its kind in the protocol.
    pub kind: u8,
    /// Its first 160 characters; empty when it is no text.
    pub text: String,
}

/// Characters of a preview.
const PREVIEW_CHARS_MAX: usize = 160;

impl Preview {
    /// Of an event that is a message.
    pub(crate) fn of(event: &conch_wire::Event) -> Preview {
        let text = event.text().unwrap_or_default();
        Preview {
            seq: event.seq,
            author: event.author,
            time_ms: event.time_ms,
            kind: event.kind,
            text: text.chars().take(PREVIEW_CHARS_MAX).collect(),
        }
    }
}

/// Where the connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// The next attempt is in so many milliseconds. `code` says why the last one ended, if the server said.
    Offline {
        /// How long the wait is, in milliseconds.
        retry_in_ms: u64,
        /// The code or WebSocket close code of the last end.
        code: Option<u16>,
    },
    /// A connection is being made.
    Connecting,
    /// Connected, and what was missed is being caught up with.
    Online,
    /// No further attempt is made.
    Stopped(StopReason),
}

/// Why no further attempt is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// The application asked for it.
    Closed,
    /// The token provider was refused: log in again.
    LoggedOut,
    /// The server ended it for good (device revoked, account closed, flooding).
    Ended(Code),
    /// The server does not speak this version: the program must be updated.
    UnsupportedVersion,
    /// The data folder belongs to another account.
    WrongAccount,
    /// The data folder cannot be written.
    Storage,
}

/// One event of a channel's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Whose log.
    pub channel: ChannelId,
    /// Its place there.
    pub seq: Seq,
    /// Who wrote or did it.
    pub author: UserId,
    /// ms since 1970 by the server's clock.
    pub time_ms: u64,
    /// Set when this device sent it.
    pub key: Option<MessageKey>,
    /// What it says.
    pub content: Content,
}

/// What an event says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A text.
    Text {
        /// The words.
        text: String,
        /// Whom it mentions.
        mentions: Vec<UserId>,
    },
    /// A message that is not text.
    Payload {
        /// Its number in the protocol.
        kind: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The channel was made.
    Created {
        /// Of a group; empty for a direct channel.
        title: String,
        /// Who was in it from the start.
        members: Vec<UserId>,
    },
    /// People were added.
    MembersAdded {
        /// Who.
        members: Vec<UserId>,
    },
    /// Somebody was removed.
    MemberRemoved {
        /// Who.
        members: Vec<UserId>,
    },
    /// Somebody left.
    MemberLeft {
        /// Who.
        members: Vec<UserId>,
    },
    /// The channel has another title.
    Renamed {
        /// The new one.
        title: String,
    },
    /// Of a newer version, or not readable.
    Unknown {
        /// Its number in the protocol.
        kind: u8,
    },
}

/// A channel as this user sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelInfo {
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
    /// We are not a member any more; what came before can be read.
    pub left: bool,
    /// People's messages behind the read mark.
    pub unread: u32,
    /// Those of them that mention us.
    pub mentions: u32,
    /// The newest message that this device has seen.
    pub last: Option<Preview>,
    /// First seq that there is for us.
    pub first_seq: Seq,
    /// The newest seq that is known to exist.
    pub head_seq: Seq,
    /// How far we have read.
    pub read_seq: Seq,
    /// This device holds `held_from ..= held_to` without a hole.
    pub held_from: Seq,
    /// See `held_from`; below it when nothing is held.
    pub held_to: Seq,
    /// Order of last use on this device; higher is later.
    pub used: u64,
}

impl Message {
    /// Reads an event of a log. Never fails: what cannot be read says so.
    pub fn read(channel: ChannelId, event: &conch_wire::Event, key: Option<MessageKey>) -> Message {
        Message {
            channel,
            seq: event.seq,
            author: event.author,
            time_ms: event.time_ms,
            key,
            content: Content::read(event),
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text { text, .. } => Some(text),
            _ => None,
        }
    }
}

impl Content {
    pub(crate) fn read(event: &conch_wire::Event) -> Content {
        let unknown = Content::Unknown { kind: event.kind };
        let Some(kind) = EventKind::from_u8(event.kind) else {
            return unknown;
        };
        if kind.is_message() {
            return Content::read_message(event).unwrap_or(unknown);
        }
        let Ok(body) = EventBody::decode(&event.tail) else {
            return unknown;
        };
        let title = body.title.unwrap_or_default();
        let members = body.members.iter().map(|member| member.user).collect();
        match kind {
            EventKind::ChannelCreated => Content::Created { title, members },
            EventKind::MembersAdded => Content::MembersAdded { members },
            EventKind::MemberRemoved => Content::MemberRemoved { members },
            EventKind::MemberLeft => Content::MemberLeft { members },
            EventKind::ChannelRenamed => Content::Renamed { title },
            _ => unknown,
        }
    }

    fn read_message(event: &conch_wire::Event) -> Option<Content> {
        if event.flags.contains(EventFlags::BODY_OMITTED) {
            return None;
        }
        let Some(text) = event.text() else {
            return Some(Content::Payload {
                kind: event.kind,
                bytes: Bytes::clone(&event.tail).into(),
            });
        };
        let table: Option<MessageBody> = event.message_body().ok()?;
        Some(Content::Text {
            text: text.to_owned(),
            mentions: table.unwrap_or_default().mentions,
        })
    }
}
