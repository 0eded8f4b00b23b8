//! Channels that a client must be told to look at: the memory of a collapse.
//!
//! Pure. Order of marking is kept, a channel stands once. Bounded by its users, who turn too many marks into one
//! SYNC_NOW; see [`super::outbound`] and [`crate::hub::mailbox`].

use std::collections::{HashSet, VecDeque};

use conch_wire::ChannelId;

/// An ordered set of channels.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    order: VecDeque<ChannelId>,
    set: HashSet<ChannelId>,
}

impl Marks {
    /// Adds a channel; false if it was marked already.
    pub fn insert(&mut self, channel: ChannelId) -> bool {
        let new = self.set.insert(channel);
        if new {
            self.order.push_back(channel);
        }
        new
    }

    pub fn contains(&self, channel: ChannelId) -> bool {
        !self.set.is_empty() && self.set.contains(&channel)
    }

    /// Takes the channel that was marked first.
    pub fn pop(&mut self) -> Option<ChannelId> {
        let channel = self.order.pop_front()?;
        self.set.remove(&channel);
        if self.order.is_empty() {
            // A collapse is rare: its memory goes back.
            self.clear();
        }
        Some(channel)
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Forgets all marks and gives their memory back.
    pub fn clear(&mut self) {
        *self = Marks::default();
    }
}
