//! What the gateway and HTTP say to owners, and what owners push back.

use std::sync::Arc;

use bytes::Bytes;
use conch_store::InboxRow;
use conch_wire::event::{Ack, ChannelKind, MemberRole, SendFlags};
use conch_wire::frame::ChannelHead;
use conch_wire::{ChannelId, Code, DeviceId, MessageKey, Ordinal, Seq, SessionId, UserId};
use smallvec::SmallVec;
use thiserror::Error;

/// A refusal. Certain unless `code` is [`Code::OutcomeUnknown`]: what was asked did not happen and will not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{code}: {detail}")]
pub struct Refused {
    pub code: Code,
    /// 0: no advice.
    pub retry_after_ms: u32,
    /// Index of the refused item of a SEND_MANY.
    pub item: u16,
    /// For people; never API.
    pub detail: &'static str,
}

/// One message to be sequenced.
#[derive(Clone, Debug)]
pub struct SendItem {
    pub key: MessageKey,
    pub kind: u8,
    pub flags: SendFlags,
    /// Checked by the session (`conch_wire::event::check_send_tail`).
    pub tail: Bytes,
}

/// A SEND or SEND_MANY. Its answer comes as [`Push::Acked`] or [`Push::Refused`] on the session.
#[derive(Clone, Debug)]
pub struct SendRequest {
    pub session: SessionId,
    pub user: UserId,
    pub device: DeviceId,
    /// The frame's request id, echoed.
    pub request: u32,
    /// The frame's type, echoed in a refusal.
    pub frame_type: u8,
    pub channel: ChannelId,
    /// 1..=64, admitted all or none.
    pub items: SmallVec<[SendItem; 1]>,
}

/// A committed event on its way to its members.
#[derive(Clone, Debug)]
pub struct Published {
    pub channel: ChannelId,
    pub channel_kind: ChannelKind,
    pub seq: Seq,
    pub ordinal: Ordinal,
    /// Durable inbox position of this event.
    pub position: u64,
    /// The event's kind byte.
    pub kind: u8,
    pub author: UserId,
    /// The session that sent it: it gets the ack in place of the event.
    pub origin: Option<SessionId>,
    /// Who is a member no longer after this event: it is the last they get.
    pub left: SmallVec<[UserId; 1]>,
    /// The event body, encoded once.
    pub body: Bytes,
}

/// Something for one session.
#[derive(Clone, Debug)]
pub enum Push {
    /// The sends of `request` are durable; one ack per item, in order.
    Acked {
        request: u32,
        acks: SmallVec<[Ack; 1]>,
    },
    Refused {
        request: u32,
        frame_type: u8,
        refused: Refused,
    },
    /// Events of one channel that became durable together, ascending; never empty. Shared by everybody who gets them.
    Events(Arc<[Published]>),
    /// The user's read mark moved (on whichever device).
    Head(ChannelHead),
    /// The session must end with this code.
    Close(Code),
}

/// The way from owners to the sessions of a gateway. Implemented by the gateway's hub.
pub trait Link: Send + Sync + 'static {
    /// Hands over a batch, draining it. Never blocks and never fails: sessions that are gone are skipped, and a session
    /// that cannot take more collapses on its own side.
    fn push(&self, batch: &mut Vec<(SessionId, Push)>);
}

/// An authenticated session that wants the pushes of its user.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    pub session: SessionId,
    pub user: UserId,
    pub device: DeviceId,
    /// The session it takes over from: closed with `session_replaced`, its late sends refused.
    pub replaces: Option<SessionId>,
}

/// From here on every event of the user's channels is pushed to the session.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// The user's inbox position, read after registering.
    pub inbox_position: u64,
}

/// A channel as one of its members sees it at the committed position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelView {
    pub head: ChannelHead,
    pub kind: ChannelKind,
    pub title: String,
    /// Direct channel: the other person.
    pub peer: Option<UserId>,
    pub first_seq: Seq,
    pub left_seq: Option<Seq>,
    pub role: MemberRole,
    pub members: u32,
}

/// One member for a member list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberView {
    pub user: UserId,
    pub role: MemberRole,
    pub joined_seq: Seq,
}

/// A range of raw events; see `conch_wire::frame::History`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryRequest {
    pub channel: ChannelId,
    pub from: Seq,
    pub to: Seq,
    pub items_max: usize,
    pub bytes_max: usize,
    pub newest_first: bool,
}

/// A page: event bodies ascending and gapless from `covered_from`.
#[derive(Clone, Debug)]
pub struct HistoryRows {
    pub covered_from: Seq,
    /// Below `covered_from`: nothing lies in the range for this user.
    pub covered_to: Seq,
    pub first_seq: Seq,
    pub head_seq: Seq,
    pub bodies: Vec<Bytes>,
}

/// What a device asks of its user's inbox. Tokens are made and checked by the gateway's session; positions are the store's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncQuery {
    After(u64),
    AtOrBefore(u64),
}

/// Changed channels, in the query's order.
#[derive(Clone, Debug, Default)]
pub struct SyncRows {
    pub rows: Vec<InboxRow>,
    pub more: bool,
}

/// Settings of the owners.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Owner loops; default: one per core.
    pub shards: usize,
    /// Members of a group: ≤ 1,000.
    pub group_members_max: usize,
    /// Requests waiting in front of one shard; above it: `overloaded`.
    pub queue_max: usize,
    /// A channel without traffic for this long is unloaded, in milliseconds.
    pub channel_idle_ms: u64,
    /// Newest events kept in memory per loaded channel.
    pub tail_events: usize,
}

impl Default for RouterConfig {
    fn default() -> Self {
        RouterConfig {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            group_members_max: conch_wire::limits::GROUP_MEMBERS_DEFAULT,
            queue_max: 16_384,
            channel_idle_ms: 300_000,
            tail_events: 64,
        }
    }
}
