//! What a client sends: one type per frame of the catalogue, and the closed set of them.
//!
//! The SDK builds these and encodes them; the session decodes them and handles every variant. SEND and SEND_MANY borrow
//! their tails from the input, so that the checks of a send allocate nothing. Layouts and limits are in `client_codec`;
//! what a frame means at a moment of a session is the session's business.

use crate::event::{PendingSend, SendFlags};
use crate::{Alias, ChannelId, MessageKey, Seq, SessionId};

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
    /// Most events wanted, at least 1; the server's cap holds too.
    pub items_max: u16,
    /// True: when the range does not fit, keep its newest end (paging upwards in a chat); false: its oldest (filling gaps).
    pub newest_first: bool,
}

/// What a node receives. One variant per frame of the catalogue; the header's `ref` is `request` (not 0), `alias` or
/// `nonce`.
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
    /// `rows_max` is at least 1; the server's cap holds too.
    Sync {
        request: u32,
        token: Vec<u8>,
        rows_max: u16,
    },
    /// Everything up to `seq` has been read. The only request that may be 0: a refusal then names none.
    Read {
        request: u32,
        channel: ChannelId,
        seq: Seq,
    },
    Credit {
        bytes: u32,
    },
    /// The nonce travels in the header and comes back in PONG; 0 is as good as any.
    Ping {
        nonce: u32,
    },
    Goodbye,
    /// A frame of a newer minor version that says it may be skipped.
    Skipped {
        frame_type: u8,
    },
}
