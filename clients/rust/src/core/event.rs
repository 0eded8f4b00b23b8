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
        channel: ChannelId,
        key: MessageKey,
        seq: Seq,
        time_ms: u64,
    },
    /// The server has not and never will; it is no longer in the outbox.
    SendRefused {
        channel: ChannelId,
        key: MessageKey,
        code: Code,
    },
    /// The channel's messages wait because the server asked for patience; they go out by themselves.
    SendsDelayed {
        channel: ChannelId,
        code: Code,
        retry_in_ms: u64,
    },
    /// A channel is new, or its name, marks or membership changed.
    Channel(ChannelInfo),
    /// The channel is not one of ours any more.
    ChannelRemoved { channel: ChannelId },
    /// What was known of the channel is void: show nothing of it and read its history again.
    ChannelReset { channel: ChannelId },
    /// These events are not to be had for us (trimmed, or from a time when we were not a member).
    Skipped {
        channel: ChannelId,
        from: Seq,
        to: Seq,
    },
}

/// Where the connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// The next attempt is in so many milliseconds. `code` says why the last one ended, if the server said.
    Offline {
        retry_in_ms: u64,
        code: Option<u16>,
    },
    Connecting,
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
    pub channel: ChannelId,
    pub seq: Seq,
    pub author: UserId,
    /// ms since 1970 by the server's clock.
    pub time_ms: u64,
    /// Set when this device sent it.
    pub key: Option<MessageKey>,
    pub content: Content,
}

/// What an event says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    Text {
        text: String,
        mentions: Vec<UserId>,
    },
    /// A message that is not text; `kind` is its number in the protocol.
    Payload {
        kind: u8,
        bytes: Vec<u8>,
    },
    Created {
        title: String,
        members: Vec<UserId>,
    },
    MembersAdded {
        members: Vec<UserId>,
    },
    MemberRemoved {
        members: Vec<UserId>,
    },
    MemberLeft {
        members: Vec<UserId>,
    },
    Renamed {
        title: String,
    },
    /// Of a newer version, or not readable.
    Unknown {
        kind: u8,
    },
}

/// A channel as this user sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelInfo {
    pub channel: ChannelId,
    pub kind: ChannelKind,
    /// Of a group; empty for a direct channel.
    pub title: String,
    /// Direct channel: the other person.
    pub peer: Option<UserId>,
    pub role: MemberRole,
    /// We are not a member any more; what came before can be read.
    pub left: bool,
    pub unread: u32,
    pub mentions: u32,
    /// First seq that there is for us.
    pub first_seq: Seq,
    /// The newest seq that is known to exist.
    pub head_seq: Seq,
    pub read_seq: Seq,
    /// This device holds `held_from ..= held_to` without a hole.
    pub held_from: Seq,
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
    fn read(event: &conch_wire::Event) -> Content {
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
