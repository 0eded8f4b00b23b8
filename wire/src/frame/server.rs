//! What a node sends: one type per frame of the catalogue, and the closed set of them.
//!
//! The gateway builds these (events and pages straight from stored bodies, by [`crate::frame::put_event`] and
//! [`crate::frame::put_history_page`]); the SDK decodes them and handles every variant. Layouts and limits are in
//! `server_codec` and `history_page`.

use crate::event::{Ack, ChannelKind, Event, MemberRole, PendingAnswer};
use crate::{Alias, ChannelId, Code, DeviceId, Ordinal, Seq, SessionId, UserId};

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
