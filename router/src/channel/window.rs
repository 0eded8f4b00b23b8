//! The dedupe window: which keys the newest messages of a channel came under.
//!
//! Holds `key hash → seq` of at least the last 1024 messages, those not committed yet included. A hit is only a hint:
//! the owner checks it against the row before it believes it. A miss means "not among the newest"; for a send that says
//! RETRY the store is asked. Pure.

use std::collections::VecDeque;

use conch_wire::Seq;

use crate::map::Map;

/// Keys kept: twice the promised 1024, so that what waits uncommitted never crowds them out.
pub(crate) const WINDOW_KEYS: usize = 2_048;

/// Newest keys of a channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    seqs: Map<u64, Seq>,
    order: VecDeque<(u64, Seq)>,
    /// Highest seq whose key was dropped: everything newer is in here.
    forgotten: Seq,
}

impl Window {
    /// From the store's newest keys, ascending by seq. `complete`: the channel has no older ones.
    pub(crate) fn load(keys: Vec<(u64, Seq)>, complete: bool) -> Window {
        let forgotten = match keys.first() {
            Some(&(_, oldest)) if !complete => oldest.saturating_sub(1),
            _ => 0,
        };
        Window {
            seqs: keys.iter().copied().collect(),
            order: keys.into(),
            forgotten,
        }
    }

    /// A message was sequenced.
    pub(crate) fn insert(&mut self, hash: u64, seq: Seq) {
        self.seqs.insert(hash, seq);
        self.order.push_back((hash, seq));
        if self.order.len() > WINDOW_KEYS
            && let Some((oldest, seq)) = self.order.pop_front()
        {
            self.forgotten = seq;
            if self.seqs.get(&oldest) == Some(&seq) {
                self.seqs.remove(&oldest);
            }
        }
    }

    /// Where a message under this key may lie.
    pub(crate) fn find(&self, hash: u64) -> Option<Seq> {
        self.seqs.get(&hash).copied()
    }

    /// Whether every message behind `seq` is still in the window.
    pub(crate) fn covers_after(&self, seq: Seq) -> bool {
        self.forgotten <= seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_known_and_the_gap_is_told() {
        let mut window = Window::load(vec![(7, 3), (8, 4)], false);
        assert_eq!(window.find(7), Some(3));
        assert!(window.covers_after(2) && !window.covers_after(1));
        for seq in 5..5 + WINDOW_KEYS as u32 {
            window.insert(u64::from(seq) + 100, seq);
        }
        assert_eq!(window.find(7), None);
        assert_eq!(window.order.len(), WINDOW_KEYS);
        assert!(window.covers_after(4) && !window.covers_after(3));
    }

    #[test]
    fn a_key_used_twice_is_not_forgotten_with_its_older_place() {
        let mut window = Window::default();
        window.insert(1, 1);
        window.insert(1, 2);
        for seq in 3..=WINDOW_KEYS as u32 + 1 {
            window.insert(u64::from(seq) + 100, seq);
        }
        assert_eq!(window.find(1), Some(2));
    }
}
