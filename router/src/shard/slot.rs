//! A channel's life in a shard.
//!
//! Loading (requests wait, bounded) → loaded → unloaded when idle. A panic of the state drops it; while its batch is
//! still in the log's hands the channel is settling, then it is loaded again from what the log says. What outlives the
//! state stands here: the batch in flight and the outbox, so that whatever is committed is fanned out, and the count of
//! panics. Three in a row without a commit between: quarantined.

use std::collections::VecDeque;

use crate::SendRequest;
use crate::channel::outbox::Outbox;
use crate::channel::state::{Batch, ChannelState};
use crate::channel::{Ask, Ticket};

/// Requests that wait while a channel is loaded.
pub(crate) const WAITING_MAX: usize = 1_024;
/// Panics in a row after which a channel takes nothing any more.
pub(crate) const PANICS_MAX: u8 = 3;

/// A request for one channel.
#[derive(Debug)]
pub(crate) enum Request {
    Send(SendRequest),
    Ask { ask: Ask, ticket: Ticket },
}

impl Request {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Request::Send(send) => crate::channel::send::record_bytes(send),
            Request::Ask { ask, .. } => ask.bytes(),
        }
    }

    /// Whether a quarantined channel refuses it.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Request::Send(_) => true,
            Request::Ask { ask, .. } => ask.writes(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// The store is being read.
    Loading(VecDeque<Request>),
    /// The state is lost; its last batch is still in the log's hands.
    Settling(VecDeque<Request>),
    Loaded(Box<ChannelState>),
}

/// A channel in a shard.
#[derive(Debug)]
pub(crate) struct ChannelSlot {
    pub(crate) phase: Phase,
    /// Which loaded state this is: answers to an earlier one's questions are dropped.
    pub(crate) life: u64,
    pub(crate) panics: u8,
    pub(crate) in_flight: Option<Batch>,
    pub(crate) outbox: Outbox,
    /// It is on the list of channels whose deliveries wait for room.
    pub(crate) behind: bool,
    /// It is on the list of channels to look after at the end of the pass.
    pub(crate) touched: bool,
    pub(crate) used_at_ms: u64,
}

impl ChannelSlot {
    pub(crate) fn loading(life: u64) -> ChannelSlot {
        ChannelSlot {
            phase: Phase::Loading(VecDeque::new()),
            life,
            panics: 0,
            in_flight: None,
            outbox: Outbox::default(),
            behind: false,
            touched: false,
            used_at_ms: 0,
        }
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        self.panics >= PANICS_MAX
    }

    /// Nothing would be lost by forgetting it: nothing waits, nothing is on its way, every owner has every delivery.
    pub(crate) fn may_unload(&self) -> bool {
        let is_quiet = match &self.phase {
            Phase::Loaded(state) => state.is_quiet(),
            Phase::Loading(_) | Phase::Settling(_) => false,
        };
        is_quiet && self.in_flight.is_none() && self.outbox.is_empty() && self.panics == 0
    }
}
