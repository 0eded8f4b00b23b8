//! What a session asks its driver to do, and the answers it gets.
//!
//! Pure values: [`super::state::Session`] returns effects, the driver ([`super::task`]) carries them out through the
//! router and hands each outcome back as an [`Answer`]. Every effect but [`Effect::Send`] has exactly one answer; a
//! send's answer comes as a push.

use conch_router::{ChannelView, HistoryRequest, HistoryRows, Refused, SendRequest, SyncRows};
use conch_wire::event::PendingAnswer;
use conch_wire::frame::{ChannelHead, Hello};
use conch_wire::{ChannelId, Code, DeviceId, Seq, UserId};

use super::sync_token::SyncPlace;

/// Who an accepted token speaks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub user: UserId,
    pub device: DeviceId,
    /// When the token expires, monotonic.
    pub expires_ms: u64,
}

/// What a page is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageFor {
    /// HISTORY of the client.
    Request(u32),
    /// The gap of a channel that is being opened.
    Gap,
}

/// What the head of a channel is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ViewFor {
    /// A channel that is being opened.
    Opening,
    /// A CHANNEL_HEAD that is owed.
    Head,
}

/// To be done outside.
#[derive(Debug)]
pub enum Effect {
    /// Check the token, register, ask about pending sends: [`Answer::Decided`].
    Admit(Box<Hello>),
    /// Hand to the owner; a refusal comes back like a pushed one.
    Send(SendRequest),
    View {
        channel: ChannelId,
        purpose: ViewFor,
    },
    Page {
        request: HistoryRequest,
        purpose: PageFor,
    },
    Sync {
        request: u32,
        place: SyncPlace,
        rows_max: usize,
    },
    Read {
        request: u32,
        channel: ChannelId,
        seq: Seq,
    },
    /// The user's inbox position.
    Position { nonce: u32 },
    /// Check a fresh token.
    Reauthenticate { request: u32, token: String },
}

/// HELLO was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    pub identity: Identity,
    pub inbox_position: u64,
    pub pending: Vec<PendingAnswer>,
    /// The server's clock for WELCOME, ms since 1970.
    pub wall_ms: u64,
}

/// The outcome of an effect.
#[derive(Debug)]
pub enum Answer {
    /// The refusal ends the connection.
    Decided(Result<Admission, Refused>),
    View {
        channel: ChannelId,
        purpose: ViewFor,
        result: Result<ChannelView, Refused>,
    },
    Page {
        request: HistoryRequest,
        purpose: PageFor,
        result: Result<HistoryRows, Refused>,
    },
    Sync {
        request: u32,
        place: SyncPlace,
        result: Result<SyncRows, Refused>,
    },
    Read {
        request: u32,
        channel: ChannelId,
        result: Result<ChannelHead, Refused>,
    },
    /// `None`: the position could not be read; the client hears the last known one.
    Position { nonce: u32, position: Option<u64> },
    Reauthenticated {
        request: u32,
        result: Result<Identity, Refused>,
    },
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// `None`: both sides are done, nothing went wrong.
    pub code: Option<Code>,
    /// For people.
    pub detail: &'static str,
}
