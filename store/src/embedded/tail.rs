//! The memory in front of the index: what is durable and not applied yet, readable at once.
//!
//! Two layers: the *active* overlay, into which the writer folds each group when it is durable, and at most one
//! *frozen* overlay, which the applier is writing into the index. Readers look at active, frozen, index, in that order.
//!
//! Invariant: a reader that takes its layers and its view of the index under one lock sees every durable record exactly
//! once or twice, never not at all: an overlay leaves only after the index shows it.
//!
//! What it does not do: bound itself. `bytes` counts queued and folded records; `admit` asks it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use conch_wire::{ChannelId, Seq, UserId};

use crate::Lsn;

use super::overlay::{ChannelDelta, Overlay};

/// Both layers.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) active: Overlay,
    pub(super) frozen: Option<Arc<Overlay>>,
}

/// One channel's part of the layers; cheap to take and independent of the lock.
#[derive(Clone, Debug, Default)]
pub(super) struct ChannelLayers {
    pub(super) active: Option<Arc<ChannelDelta>>,
    pub(super) frozen: Option<Arc<ChannelDelta>>,
}

#[derive(Debug, Default)]
pub(super) struct Tail {
    layers: RwLock<Layers>,
    bytes: AtomicUsize,
}

impl Layers {
    pub(super) fn channel(&self, channel: ChannelId) -> ChannelLayers {
        ChannelLayers {
            active: self.active.channels.get(&channel).cloned(),
            frozen: self
                .frozen
                .as_ref()
                .and_then(|frozen| frozen.channels.get(&channel).cloned()),
        }
    }

    pub(super) fn holds(&self, channel: ChannelId) -> bool {
        self.active.channels.contains_key(&channel)
            || self
                .frozen
                .as_ref()
                .is_some_and(|frozen| frozen.channels.contains_key(&channel))
    }

    /// Newest position of a user's touched channels, in no order.
    pub(super) fn touched_by(&self, user: UserId) -> Vec<(ChannelId, Lsn)> {
        let mut touched: Vec<(ChannelId, Lsn)> = self.active.touched_by(user).collect();
        if let Some(frozen) = &self.frozen {
            touched.extend(
                frozen
                    .touched_by(user)
                    .filter(|(channel, _)| !self.active.touches.contains_key(&(user, *channel))),
            );
        }
        touched
    }
}

impl ChannelLayers {
    /// The layers that know the channel, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &ChannelDelta> {
        self.active.iter().chain(&self.frozen).map(|delta| &**delta)
    }

    pub(super) fn newest(&self) -> Option<&ChannelDelta> {
        self.newest_first().next()
    }

    /// First seq that the layers hold; `None`: no event.
    pub(super) fn first_seq(&self) -> Option<Seq> {
        let oldest_first = self.frozen.iter().chain(&self.active);
        oldest_first
            .filter_map(|delta| delta.events.first())
            .map(|event| event.seq)
            .next()
    }

    /// Whether an event that lies in the layer below `active` (or in the index) was erased since.
    pub(super) fn erased(&self, seq: Seq) -> bool {
        self.newest_first().any(|delta| delta.erased.contains(&seq))
    }
}

impl Tail {
    pub(super) fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Folds into the active overlay.
    pub(super) fn fold(&self, fold: impl FnOnce(&mut Overlay)) {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        let before = layers.active.bytes;
        fold(&mut layers.active);
        self.add(layers.active.bytes - before);
    }

    /// Moves the active overlay aside for the index, if it holds anything. The one frozen before must be gone.
    pub(super) fn freeze(&self) -> Option<Arc<Overlay>> {
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        assert!(layers.frozen.is_none(), "one overlay is applied at a time");
        if layers.active.last_lsn == 0 {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut layers.active));
        layers.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// Drops the frozen overlay: the index shows it.
    pub(super) fn release_frozen(&self) {
        let frozen = {
            let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
            layers.frozen.take()
        };
        // Freed outside the lock: it may be many rows.
        if let Some(frozen) = frozen {
            self.bytes.fetch_sub(frozen.bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn active_bytes(&self) -> usize {
        self.layers().active.bytes
    }

    /// Memory of everything queued or folded and not applied.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
