//! Slots: the 4096 shares of the key space.
//!
//! A slot is what is owned, moved and recovered as one; channels, users and pairs of people hash to one each. The hash
//! and the count are frozen for ever (golden tests below): every node and every stored deployment must agree on them.
//! Called by `Router` to find an owner and by channel owners to find the owners of their members. Pure.

use conch_wire::{ChannelId, UserId};
use xxhash_rust::xxh3::xxh3_64;

/// How many slots there are. For ever.
pub const SLOTS: usize = 4096;

/// A share of the key space: `0 .. 4096`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u16);

fn slot_of(bytes: &[u8]) -> Slot {
    Slot((xxh3_64(bytes) & (SLOTS as u64 - 1)) as u16)
}

impl Slot {
    /// `xxh3('c' ‖ id little-endian) & 4095`.
    pub fn of_channel(channel: ChannelId) -> Slot {
        let mut bytes = [b'c'; 9];
        bytes[1..].copy_from_slice(&channel.0.to_le_bytes());
        slot_of(&bytes)
    }

    /// `xxh3('u' ‖ id little-endian) & 4095`.
    pub fn of_user(user: UserId) -> Slot {
        let mut bytes = [b'u'; 9];
        bytes[1..].copy_from_slice(&user.0.to_le_bytes());
        slot_of(&bytes)
    }

    /// `xxh3('p' ‖ low ‖ high) & 4095`: two people have one slot, whoever names the other.
    pub fn of_pair(one: UserId, other: UserId) -> Slot {
        let (low, high) = (one.0.min(other.0), one.0.max(other.0));
        let mut bytes = [b'p'; 17];
        bytes[1..9].copy_from_slice(&low.to_le_bytes());
        bytes[9..].copy_from_slice(&high.to_le_bytes());
        slot_of(&bytes)
    }

    /// Which of this process's `shards` loops holds the slot.
    pub fn shard(self, shards: usize) -> usize {
        usize::from(self.0) % shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: a change here would move every stored key.
    #[test]
    fn slots_are_frozen() {
        let channels: Vec<u16> = [0, 1, 2, 42, u64::MAX >> 1]
            .map(|id| Slot::of_channel(ChannelId(id)).0)
            .to_vec();
        let users: Vec<u16> = [0, 1, 2, 42, u64::MAX >> 1]
            .map(|id| Slot::of_user(UserId(id)).0)
            .to_vec();
        let pairs: Vec<u16> = [(1, 1), (1, 2), (7, 42), (42, u64::MAX >> 1)]
            .map(|(a, b)| Slot::of_pair(UserId(a), UserId(b)).0)
            .to_vec();
        assert_eq!(channels, [2096, 260, 2807, 3254, 1580]);
        assert_eq!(users, [3280, 3833, 2117, 1499, 2456]);
        assert_eq!(pairs, [1518, 382, 3321, 2424]);
    }

    #[test]
    fn a_pair_has_one_slot_from_both_sides() {
        for (a, b) in [(1, 2), (9, 3), (5, 5)] {
            assert_eq!(
                Slot::of_pair(UserId(a), UserId(b)),
                Slot::of_pair(UserId(b), UserId(a))
            );
        }
    }
}
