//! Ids: unique without a check, not guessable, no clock.
//!
//! A counter per space is taken from the store in blocks ([`Record::IdBlock`], durable before the first id of the block
//! is given out; what a crash leaves of a block is skipped) and goes through a permutation of `1 ..= 2⁶³ − 1` whose key
//! lives and dies with the store. [`Permutation`] and [`Counter`] are pure; [`Ids`] drives them for `Router`. The
//! permutation is frozen by golden vectors: another one would hand out ids that are taken.

use std::sync::{Arc, Mutex, PoisonError};

use conch_store::{AppendError, MessageStore, Record};
use conch_wire::id::ID_MAX;

/// What a counter numbers. The number is the space of [`Record::IdBlock`]: for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Space {
    User = 1,
    Channel = 2,
    Device = 3,
}

/// Ids taken from the log at once: one sync per 4096 sign-ups, and a crash wastes no more than these.
const BLOCK: u64 = 4096;
/// Feistel rounds; four are the theoretical minimum for a strong pseudo-random permutation.
const ROUNDS: u64 = 8;

/// A keyed permutation of `1 ..= 2⁶³ − 1`: a Feistel network over 64 bits, walked along its cycle until the value is in
/// the range again.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    key: [u64; 2],
}

impl Permutation {
    /// Of a store's id key.
    pub fn new(key: [u8; 16]) -> Permutation {
        let (low, high) = key.split_at(8);
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0u64, |word, &byte| word << 8 | u64::from(byte))
        };
        Permutation {
            key: [word(low), word(high)],
        }
    }

    /// The id of a counter value. `counter` must be in `1 ..= 2⁶³ − 1`, and so is the id.
    pub fn apply(&self, space: Space, counter: u64) -> u64 {
        assert!(
            (1..=ID_MAX).contains(&counter),
            "the counter left its range"
        );
        let mut value = counter;
        loop {
            value = self.feistel(space, value);
            if (1..=ID_MAX).contains(&value) {
                return value;
            }
        }
    }

    fn feistel(&self, space: Space, value: u64) -> u64 {
        let (mut left, mut right) = ((value >> 32) as u32, value as u32);
        for round in 0..ROUNDS {
            let message = u64::from(right) | round << 32 | u64::from(space as u8) << 40;
            let mixed = left ^ siphash_2_4(self.key, message) as u32;
            (left, right) = (right, mixed);
        }
        u64::from(left) << 32 | u64::from(right)
    }
}

/// SipHash-2-4 of one eight-byte message: a keyed function that its outputs do not give away.
fn siphash_2_4(key: [u64; 2], message: u64) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let length_block = 8u64 << 56;
    for block in [message, length_block] {
        v[3] ^= block;
        sip_round(&mut v);
        sip_round(&mut v);
        v[0] ^= block;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// A counter and the end of the block that it may run to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    next: u64,
    end: u64,
}

impl Counter {
    /// Starts where the last durable block ended: what that block had left is skipped.
    pub fn after(block_end: u64) -> Counter {
        Counter {
            next: block_end.max(1),
            end: block_end.max(1),
        }
    }

    /// The next value, if the durable block has one left.
    pub fn take(&mut self) -> Option<u64> {
        (self.next < self.end).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// The end of the block to be made durable next.
    pub fn wanted_end(&self) -> u64 {
        self.end.saturating_add(BLOCK).min(ID_MAX)
    }

    /// The block up to `end` is durable.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }
}

/// The id counters of a node.
pub(crate) struct Ids {
    store: Arc<dyn MessageStore>,
    permutation: Permutation,
    spaces: [SpaceCounter; 3],
}

struct SpaceCounter {
    space: Space,
    counter: Mutex<Counter>,
    /// Held while a block is being made durable: the others wait for it instead of taking blocks of their own.
    refill: tokio::sync::Mutex<()>,
}

impl Ids {
    pub(crate) fn new(store: Arc<dyn MessageStore>) -> Ids {
        let spaces = [Space::User, Space::Channel, Space::Device].map(|space| SpaceCounter {
            space,
            counter: Mutex::new(Counter::after(store.id_block_end(space as u8))),
            refill: tokio::sync::Mutex::new(()),
        });
        Ids {
            permutation: Permutation::new(store.identity().id_key),
            store,
            spaces,
        }
    }

    /// A fresh id; waits for the log only when a block is used up.
    pub(crate) async fn next(&self, space: Space) -> Result<u64, AppendError> {
        let place = &self.spaces[space as usize - 1];
        loop {
            if let Some(counter) = place.take() {
                return Ok(self.permutation.apply(space, counter));
            }
            let _single_flight = place.refill.lock().await;
            let Some(end) = place.missing_end() else {
                continue;
            };
            let block = Record::IdBlock {
                space: space as u8,
                end,
            };
            self.store.append(vec![block]).await?;
            place.extend(end);
        }
    }
}

impl SpaceCounter {
    fn with<T>(&self, change: impl FnOnce(&mut Counter) -> T) -> T {
        // A panic cannot leave the two numbers half written: each step is one assignment.
        change(&mut self.counter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> Option<u64> {
        self.with(Counter::take)
    }

    /// The end of the block to append, unless whoever was before has done it.
    fn missing_end(&self) -> Option<u64> {
        self.with(|counter| (counter.next == counter.end).then(|| counter.wanted_end()))
    }

    fn extend(&self, end: u64) {
        debug_assert!(self.space as u8 != 0);
        self.with(|counter| counter.extend(end));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key() -> [u8; 16] {
        std::array::from_fn(|i| i as u8)
    }

    /// The published vector of SipHash-2-4 for key 00..0f and message 00..07.
    #[test]
    fn the_round_function_is_siphash() {
        let permutation = Permutation::new(key());
        assert_eq!(
            siphash_2_4(permutation.key, 0x0706_0504_0302_0100),
            0x93f5_f579_9a93_2462
        );
    }

    /// Frozen: another permutation would give out ids that are taken.
    #[test]
    fn ids_are_frozen() {
        let permutation = Permutation::new(key());
        assert_eq!(
            [1, 2, 3, 4096, ID_MAX].map(|counter| permutation.apply(Space::Channel, counter)),
            [
                5_352_559_979_327_782_105,
                6_818_102_844_100_122_354,
                1_892_003_176_756_342_656,
                8_780_362_234_307_421_691,
                3_861_102_434_411_352_357
            ]
        );
        assert_eq!(permutation.apply(Space::User, 1), 4_666_745_075_290_989_177);
        assert_eq!(
            permutation.apply(Space::Device, 1),
            7_667_937_264_863_420_376
        );
    }

    #[test]
    fn many_counters_give_as_many_ids() {
        let permutation = Permutation::new([7; 16]);
        let ids: HashSet<u64> = (1..=100_000)
            .map(|counter| permutation.apply(Space::User, counter))
            .collect();
        assert_eq!(ids.len(), 100_000);
    }

    /// Undoes one pass of the network: that it can be undone is what makes it a bijection.
    fn backwards(permutation: &Permutation, space: Space, id: u64) -> u64 {
        let mut value = id;
        loop {
            let (mut left, mut right) = ((value >> 32) as u32, value as u32);
            for round in (0..ROUNDS).rev() {
                let message = u64::from(left) | round << 32 | u64::from(space as u8) << 40;
                let before = right ^ siphash_2_4(permutation.key, message) as u32;
                (left, right) = (before, left);
            }
            value = u64::from(left) << 32 | u64::from(right);
            if (1..=ID_MAX).contains(&value) {
                return value;
            }
        }
    }

    proptest! {
        #[test]
        fn every_id_leads_back_to_its_counter(key: [u8; 16], counter in 1..=ID_MAX) {
            let permutation = Permutation::new(key);
            let id = permutation.apply(Space::Channel, counter);
            prop_assert!((1..=ID_MAX).contains(&id));
            prop_assert_eq!(backwards(&permutation, Space::Channel, id), counter);
        }
    }

    #[test]
    fn a_counter_gives_nothing_that_its_block_does_not_hold() {
        let mut counter = Counter::after(0);
        assert_eq!(counter.take(), None);
        let end = counter.wanted_end();
        counter.extend(end);
        let taken: Vec<u64> = std::iter::from_fn(|| counter.take()).collect();
        assert_eq!((taken[0], *taken.last().unwrap()), (1, end - 1));
        assert_eq!(Counter::after(end).take(), None);
    }
}
