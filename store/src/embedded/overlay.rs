//! The logical tables in memory: everything durable that the index does not hold yet.
//!
//! An [`Overlay`] holds what a run of consecutive records changed, as whole rows that replace those of the layer below
//! (an older overlay, then the index). [`super::fold`] fills it, [`super::read`] merges it, [`super::index::write`]
//! turns it into one batch of the index. Pure.
//!
//! Invariants: events of a channel are gapless and begin where the layer below ends; a touch is always later than
//! anything the layers below know of that (user, channel).
//!
//! The inbox costs nothing per message: the first event of a run puts every present member into `touches` as
//! *following*, and from then on the channel's last touch is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, Seq, UserId};

use crate::Lsn;
use crate::row::{ChannelMeta, EventRow, Head, MemberRow};

use super::idmap::IdMap;

/// What an erasure leaves of a body: the event's header, none of its content.
pub(super) const ERASED_BODY_BYTES: usize = 20;

/// Estimates of what entries cost besides the bytes in them: they bound memory, nothing else depends on them.
pub(super) const CHANNEL_COST: usize = 420;
pub(super) const TOUCH_COST: usize = 72;

/// A channel's own row: what the index keeps under its id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ChannelRow {
    /// `None` until an event created the channel; it is then not listed or loaded.
    pub(super) meta: Option<ChannelMeta>,
    pub(super) head: Head,
    /// Lsn of the last event: the last touch of everybody present.
    pub(super) touched: Lsn,
    /// The two lowest ids among members, present and former: the people of a direct channel.
    pub(super) pair: [Option<UserId>; 2],
}

impl ChannelRow {
    /// The other person of a direct channel.
    pub(super) fn peer_of(&self, user: UserId) -> Option<UserId> {
        self.meta
            .as_ref()
            .filter(|meta| meta.kind == ChannelKind::Direct)?;
        self.pair.into_iter().flatten().find(|other| *other != user)
    }
}

/// A member's row with what the store keeps besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoredMember {
    pub(super) row: MemberRow,
    /// Lsn of the last touch that was this person's alone: joining, leaving, reading.
    pub(super) own: Lsn,
    /// Former member: the channel's head when they left.
    pub(super) left: Option<Head>,
}

impl StoredMember {
    /// The inbox position of this person in a channel whose last event is `touched`.
    pub(super) fn position(&self, touched: Lsn) -> Lsn {
        if self.row.left_seq.is_some() {
            self.own
        } else {
            self.own.max(touched)
        }
    }
}

/// A key of the dedupe window: hash, and the message's place.
pub(super) type KeyEntry = (u64, Seq);

/// What a run changed in one channel.
#[derive(Clone, Debug)]
pub(super) struct ChannelDelta {
    pub(super) row: ChannelRow,
    pub(super) events: Vec<EventRow>,
    /// Changed members, whole rows.
    pub(super) members: BTreeMap<UserId, StoredMember>,
    /// Keys of the block that the run begins in which the layers below hold already.
    pub(super) carried: Vec<KeyEntry>,
    pub(super) keys: Vec<KeyEntry>,
    /// Events of the layers below that were erased in this run.
    pub(super) erased: BTreeSet<Seq>,
}

impl ChannelDelta {
    pub(super) fn new(row: ChannelRow, carried: Vec<KeyEntry>) -> ChannelDelta {
        ChannelDelta {
            row,
            events: Vec::new(),
            members: BTreeMap::new(),
            carried,
            keys: Vec::new(),
            erased: BTreeSet::new(),
        }
    }

    /// The event of this run at `seq`.
    pub(super) fn event_at(&self, seq: Seq) -> Option<usize> {
        let first = self.events.first()?.seq;
        let index = seq.checked_sub(first)? as usize;
        (index < self.events.len()).then_some(index)
    }
}

/// A (user, channel) of the inbox that a run touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Touch {
    /// Position in the layer below; 0: not in the inbox there.
    pub(super) previous: Lsn,
    pub(super) own: Lsn,
    /// Every event of the channel touches it.
    pub(super) follows: bool,
}

impl Touch {
    /// The position, given the last event of the channel.
    pub(super) fn position(&self, touched: Lsn) -> Lsn {
        if self.follows {
            self.own.max(touched)
        } else {
            self.own
        }
    }
}

/// What a run of records changed.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Shared so that a reader takes a channel out of the lock for the price of a counter.
    pub(super) channels: IdMap<ChannelId, Arc<ChannelDelta>>,
    pub(super) touches: BTreeMap<(UserId, ChannelId), Touch>,
    pub(super) pairs: BTreeMap<(UserId, UserId), ChannelId>,
    pub(super) id_blocks: BTreeMap<u8, u64>,
    /// Last record in it; 0: empty.
    pub(super) last_lsn: Lsn,
    /// Estimated memory.
    pub(super) bytes: usize,
}

impl Overlay {
    /// Positions of a user's touched channels.
    pub(super) fn touched_by(&self, user: UserId) -> impl Iterator<Item = (ChannelId, Lsn)> + '_ {
        self.touches
            .range((user, ChannelId(0))..=(user, ChannelId(u64::MAX)))
            .map(|((_, channel), touch)| (*channel, self.position(*channel, touch)))
    }

    /// Position of a touch in this overlay.
    pub(super) fn position(&self, channel: ChannelId, touch: &Touch) -> Lsn {
        let touched = self
            .channels
            .get(&channel)
            .map_or(0, |delta| delta.row.touched);
        touch.position(touched)
    }
}
