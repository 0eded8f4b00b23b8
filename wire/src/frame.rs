//! Frames: the 8-byte header, one Rust type per frame, and the two closed sets that either side may receive.
//!
//! ```text
//! 0     u8  type      bit 7: skip if unknown; bit 6: body compressed (reserved)
//! 1..3  u24 body_len
//! 4..7  u32 ref       channel alias, or request id; 0 otherwise
//! 8..   body          hot frames: a FlatBuffers struct, then a raw tail; all others: one FlatBuffers table root
//! ```

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::event::{Ack, ChannelKind, Event, MemberRole, PendingAnswer, PendingSend, SendFlags};
use crate::{Alias, ChannelId, Code, DeviceId, MessageKey, Ordinal, Seq, SessionId, UserId};

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 8;

/// A decoded frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The raw type byte, both flag bits included.
    pub frame_type: u8,
    /// Bytes that follow the header.
    pub body_len: u32,
    /// Channel alias or request id; its meaning is the frame's.
    pub reference: u32,
}

/// Why bytes from outside are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{what}")]
pub struct WireError {
    /// What to close or refuse with.
    pub code: Code,
    /// What was wrong, for a log line or the detail of an ERROR.
    pub what: &'static str,
}

/// Whether a device gets the events of all its channels, or only of those it opened (and heads of the others).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum PushMode {
    #[default]
    All = 0,
    Opened = 1,
}

/// An open channel that a client comes back with, and the last seq that it holds without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub channel: ChannelId,
    /// The store generation that `seq` belongs to; 0 when the client knows nothing of the channel yet.
    pub generation: u32,
    pub seq: Seq,
    /// The client's alias for the channel on this connection: 1 ..= 0x7fff_ffff.
    pub alias: Alias,
}

/// First frame of a client.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// Minor version that the client was written for.
    pub minor: u16,
    /// Feature bits that it would like; none are defined yet.
    pub features: u64,
    pub token: String,
    /// Program and version, for logs; ≤ 64 bytes.
    pub client: String,
    /// Opaque; from the last SYNC_CHANGES. Empty: a fresh device.
    pub sync_token: Vec<u8>,
    pub cursors: Vec<Cursor>,
    pub pending: Vec<PendingSend>,
    /// The session of this device that this connection takes over from; its late frames are refused.
    pub replaces: Option<SessionId>,
    /// Bytes of pushed events that the client takes before it grants more.
    pub credit_bytes: u32,
    pub push: PushMode,
}

/// Limits as announced; see [`crate::limits`] for meanings and units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    pub text_chars_max: u32,
    pub payload_bytes_max: u32,
    pub frame_bytes_max: u32,
    pub pushed_body_bytes_max: u32,
    pub send_many_items_max: u32,
    pub send_many_bytes_max: u32,
    pub sends_in_flight_max: u32,
    pub requests_in_flight_max: u32,
    pub history_items_max: u32,
    pub history_bytes_max: u32,
    pub sync_rows_max: u32,
    pub group_members_max: u32,
    pub heartbeat_ms: u32,
    pub silence_max_ms: u32,
}

/// Answer to HELLO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    pub minor: u16,
    pub features: u64,
    pub session: SessionId,
    pub user: UserId,
    pub device: DeviceId,
    /// The server's clock, ms since 1970.
    pub time_ms: u64,
    /// The store's generation: cursors of another one are void.
    pub generation: u32,
    /// Highest durable inbox position of this user now; compare with PONG's.
    pub inbox_position: u64,
    pub limits: Limits,
    /// Answers to HELLO's pending sends, by index.
    pub pending: Vec<PendingAnswer>,
    /// False: the sync token was void (too old, or of another generation or incarnation): SYNC starts afresh.
    pub resumed: bool,
    /// The node's name.
    pub node: String,
}

/// One message on its way to the owner; `tail` borrows from the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Send<'a> {
    pub key: MessageKey,
    pub alias: Alias,
    /// An [`crate::EventKind`] that is a message.
    pub kind: u8,
    pub flags: SendFlags,
    /// UTF-8 text, or with [`SendFlags::TABLE`] `u32 text length`, text, table.
    pub tail: &'a [u8],
}

/// Ask for a range of raw events, ascending, clipped to what is committed and visible to the asker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct History {
    pub channel: ChannelId,
    /// First seq wanted.
    pub from: Seq,
    /// Last seq wanted; ≥ `from`.
    pub to: Seq,
    /// Most events wanted; the server's cap holds too.
    pub items_max: u16,
    /// True: when the range does not fit, keep its newest end (paging upwards in a chat); false: its oldest (filling gaps).
    pub newest_first: bool,
}

/// A page of raw events, ascending and gapless: event `i` has seq `first + i`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryPage {
    pub channel: ChannelId,
    pub generation: u32,
    /// The seq range that this page covers (inclusive). `covered_to < covered_from`: nothing lies in the range asked for.
    pub covered_from: Seq,
    pub covered_to: Seq,
    /// First and last seq that there are for this user now.
    pub first_seq: Seq,
    pub head_seq: Seq,
    pub events: Vec<Event>,
}

/// A channel's state for one user: what an unread badge is computed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelHead {
    pub channel: ChannelId,
    pub head_seq: Seq,
    pub head_ordinal: Ordinal,
    pub read_seq: Seq,
    pub read_ordinal: Ordinal,
    /// Unread mentions; 0 until mentions are counted.
    pub mentions: u32,
}

/// A channel that changed since a sync token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncRow {
    pub head: ChannelHead,
    pub kind: ChannelKind,
    /// Title of a group; for a direct channel empty.
    pub title: String,
    /// Direct channel: the other person.
    pub peer: Option<UserId>,
    /// First seq visible to this user.
    pub first_seq: Seq,
    /// The user has left or was removed at this seq: what lies behind it is not theirs to see.
    pub left_seq: Option<Seq>,
    /// The user's role, while a member.
    pub role: MemberRole,
}

/// Answer to SYNC, and sent once by itself after WELCOME.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncChanges {
    /// The asked token was void: this is the beginning of a full listing, newest channels first.
    pub reset: bool,
    pub rows: Vec<SyncRow>,
    /// More rows wait: ask SYNC with `token`. The token of a page with `more` may be stored too.
    pub more: bool,
    pub token: Vec<u8>,
}

/// Answer to OPEN_CHANNEL and to every cursor in HELLO; also by itself before the first DELIVER with an alias that the
/// server chose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelOpened {
    /// The alias that holds from here on: the one asked for, or the one the channel already had.
    pub alias: Alias,
    pub head: ChannelHead,
    pub kind: ChannelKind,
    pub title: String,
    pub peer: Option<UserId>,
    pub first_seq: Seq,
    /// The cursor's generation was void: forget the channel and load it again.
    pub resync: bool,
}

/// A refusal, or the word before a close.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorFrame {
    pub code: Code,
    /// 0: no advice.
    pub retry_after_ms: u32,
    /// Type of the refused frame; 0: the connection itself.
    pub refused_type: u8,
    /// SEND_MANY: index of the item that was refused (none of the frame was stored).
    pub item: u16,
    /// For people and logs; never API.
    pub detail: String,
}

/// What a node receives. One variant per frame of the catalogue; the header's `ref` is `request` or `alias`.
#[derive(Clone, PartialEq, Debug)]
pub enum ClientFrame<'a> {
    Hello(Hello),
    AuthRefresh {
        request: u32,
        token: String,
    },
    Send {
        request: u32,
        send: Send<'a>,
    },
    /// At least one item, all with the same alias.
    SendMany {
        request: u32,
        sends: Vec<Send<'a>>,
    },
    OpenChannel {
        request: u32,
        cursor: Cursor,
    },
    CloseChannel {
        alias: Alias,
    },
    History {
        request: u32,
        history: History,
    },
    Sync {
        request: u32,
        token: Vec<u8>,
        rows_max: u16,
    },
    /// Everything up to `seq` has been read.
    Read {
        request: u32,
        channel: ChannelId,
        seq: Seq,
    },
    Credit {
        bytes: u32,
    },
    Ping {
        nonce: u32,
    },
    Goodbye,
    /// A frame of a newer minor version that says it may be skipped.
    Skipped {
        frame_type: u8,
    },
}

/// What a client receives.
#[derive(Clone, PartialEq, Debug)]
pub enum ServerFrame {
    Welcome(Box<Welcome>),
    /// A message (kinds 1–15) in the channel of `alias`.
    Deliver {
        alias: Alias,
        event: Event,
    },
    /// An event that changes the channel (kinds 16 and up); its tail is an [`crate::event::EventBody`].
    Event {
        alias: Alias,
        event: Event,
    },
    /// One ack per item of the SEND or SEND_MANY, in its order.
    SendAck {
        request: u32,
        acks: Vec<Ack>,
    },
    ChannelHead(ChannelHead),
    /// Too much changed to list: ask SYNC.
    SyncNow,
    ChannelOpened {
        request: u32,
        opened: ChannelOpened,
    },
    SyncChanges {
        request: u32,
        changes: SyncChanges,
    },
    HistoryPage {
        request: u32,
        page: HistoryPage,
    },
    Error {
        request: u32,
        error: ErrorFrame,
    },
    Credit {
        bytes: u32,
    },
    Pong {
        nonce: u32,
        inbox_position: u64,
    },
    Goaway {
        code: Code,
        delay_min_ms: u32,
        delay_max_ms: u32,
        endpoints: Vec<String>,
    },
    AuthExpiring {
        expires_in_ms: u32,
    },
    /// The answer to AUTH_REFRESH.
    AuthRefreshed {
        request: u32,
        expires_in_ms: u32,
    },
    /// A frame of a newer minor version that says it may be skipped.
    Skipped {
        frame_type: u8,
    },
}

/// Bytes of an event body before its tail.
pub const EVENT_HEADER_BYTES: usize = 20;

/// An event body that was encoded once; see [`crate::event`].
pub type EventBytes = Bytes;

impl FrameHeader {
    /// Reads a header; every eight bytes are one.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> FrameHeader {
        let _ = bytes;
        unimplemented!()
    }
}

/// One frame cut off the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split<'a> {
    pub header: FrameHeader,
    pub body: &'a [u8],
    /// Bytes of the input that it took.
    pub consumed: usize,
}

/// Cuts the first whole frame off `input`. `None`: more bytes are needed. A header that announces more than
/// `frame_bytes_max` is an error as soon as its eight bytes are there, before memory is taken for the body.
pub fn split_frame(input: &[u8], frame_bytes_max: usize) -> Result<Option<Split<'_>>, WireError> {
    let _ = (input, frame_bytes_max);
    unimplemented!()
}

impl<'a> ClientFrame<'a> {
    /// Decodes what a client sent. Hot frames borrow from `body`.
    pub fn decode(header: FrameHeader, body: &'a [u8]) -> Result<ClientFrame<'a>, WireError> {
        let _ = (header, body);
        unimplemented!()
    }

    /// Appends the whole frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let _ = out;
        unimplemented!()
    }
}

impl ServerFrame {
    /// Decodes what a server sent. Events share `body`.
    pub fn decode(header: FrameHeader, body: Bytes) -> Result<ServerFrame, WireError> {
        let _ = (header, body);
        unimplemented!()
    }

    /// Appends the whole frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let _ = out;
        unimplemented!()
    }
}

/// Appends a DELIVER (or, by its kind, an EVENT) of an event body that was encoded once. A body above
/// [`crate::limits::PUSHED_BODY_BYTES_MAX`] goes out as BODY_OMITTED with its size. Returns the bytes appended.
pub fn put_event(out: &mut BytesMut, alias: Alias, body: &EventBytes) -> usize {
    let _ = (out, alias, body);
    unimplemented!()
}

/// Appends a HISTORY_PAGE made from stored event bodies; `page.events` is ignored, `bodies` take its place.
pub fn put_history_page(
    out: &mut BytesMut,
    request: u32,
    page: &HistoryPage,
    bodies: &[EventBytes],
) {
    let _ = (out, request, page, bodies);
    unimplemented!()
}
