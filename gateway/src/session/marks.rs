//! Channels that a client must be told to look at: the memory of a collapse.
//!
//! Pure. Order of marking is kept, a channel stands once. Bounded by its users, who turn too many marks into one
//! SYNC_NOW; see [`super::outbound`] and [`crate::hub::mailbox`].

use std::collections::{HashSet, VecDeque};

use conch_wire::ChannelId;

/// An ordered set of channels; without memory of its own while it is empty, as it is on nearly every connection.
#[derive(Clone, Debug, Default)]
pub struct Marks(Option<Box<Marked>>);

#[derive(Clone, Debug, Default)]
struct Marked {
    order: VecDeque<ChannelId>,
    set: HashSet<ChannelId>,
}

impl Marks {
    /// Adds a channel; false if it was marked already.
    pub fn insert(&mut self, channel: ChannelId) -> bool {
        let marked = self.0.get_or_insert_default();
        let new = marked.set.insert(channel);
        if new {
            marked.order.push_back(channel);
        }
        new
    }

    pub fn contains(&self, channel: ChannelId) -> bool {
        self.0
            .as_ref()
            .is_some_and(|marked| marked.set.contains(&channel))
    }

    /// Takes the channel that was marked first.
    pub fn pop(&mut self) -> Option<ChannelId> {
        let marked = self.0.as_mut()?;
        let channel = marked.order.pop_front()?;
        marked.set.remove(&channel);
        if marked.order.is_empty() {
            self.clear();
        }
        Some(channel)
    }

    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |marked| marked.order.len())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Forgets all marks and gives their memory back.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}
