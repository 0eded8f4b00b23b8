//! What lies at each seq of a channel: the fingerprint of the first one who saw it, and of a message its key.
//!
//! 16 bytes per seq, in blocks of 256 that never move; the first block of a channel grows, so that a channel of few messages
//! takes little. A node that gives seqs at random must not fill the memory: blocks that stand alone are counted, and above
//! [`ALONE_MAX`] there are no more of them. Nothing is hidden by that, as the seqs between them are holes.

use conch_wire::Seq;
use hashbrown::HashMap;

use super::fingerprint::{Fingerprint, KeyPrint};

const BLOCK: Seq = 256;
/// Most blocks of a channel that came without a neighbour.
const ALONE_MAX: u32 = 1_024;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// `None`: nobody saw anything here yet.
    pub(super) print: Option<Fingerprint>,
    /// Of a message that somebody sent.
    pub(super) key: Option<KeyPrint>,
}

#[derive(Debug, Default)]
pub(super) struct Places {
    /// From the first one on, none missing.
    blocks: Vec<Vec<Place>>,
    /// Blocks by their numbers, beyond one that is missing.
    beyond: HashMap<Seq, Vec<Place>>,
    alone: u32,
}

impl Places {
    pub(super) fn at(&self, seq: Seq) -> Place {
        let place = self
            .block(seq / BLOCK)
            .and_then(|block| block.get((seq % BLOCK) as usize));
        place.copied().unwrap_or_default()
    }

    /// `None` where too many blocks stand alone.
    pub(super) fn at_mut(&mut self, seq: Seq) -> Option<&mut Place> {
        let (number, index) = (seq / BLOCK, (seq % BLOCK) as usize);
        if self.block(number).is_none() {
            self.add_block(number)?;
        }
        let block = match self.blocks.get_mut(number as usize) {
            Some(block) => block,
            None => self.beyond.get_mut(&number)?,
        };
        if index >= block.len() {
            block.resize(index + 1, Place::default());
        }
        Some(&mut block[index])
    }

    fn block(&self, number: Seq) -> Option<&Vec<Place>> {
        let block = self.blocks.get(number as usize);
        block.or_else(|| self.beyond.get(&number))
    }

    fn add_block(&mut self, number: Seq) -> Option<()> {
        let is_there = |number| self.block(number).is_some();
        let is_alone = number > 0 && !is_there(number - 1) && !is_there(number + 1);
        if is_alone && self.alone >= ALONE_MAX {
            return None;
        }
        self.alone += u32::from(is_alone);
        let is_first = self.blocks.is_empty() && self.beyond.is_empty();
        let block = Vec::with_capacity(if is_first { 0 } else { BLOCK as usize });
        if number as usize == self.blocks.len() {
            self.blocks.push(block);
        } else {
            self.beyond.insert(number, block);
        }
        while let Some(next) = self.beyond.remove(&(self.blocks.len() as Seq)) {
            self.blocks.push(next);
        }
        Some(())
    }

    /// All places that somebody saw, in no order.
    pub(super) fn seen(&self) -> impl Iterator<Item = (Seq, Place)> {
        let blocks = (0..).zip(&self.blocks);
        let beyond = self.beyond.iter().map(|(number, block)| (*number, block));
        blocks.chain(beyond).flat_map(|(number, block): (Seq, _)| {
            let places = (number * BLOCK..).zip(block.iter().copied());
            places.filter(|(_, place)| place.print.is_some())
        })
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let all = self.blocks.iter().chain(self.beyond.values());
        let places: usize = all.map(Vec::capacity).sum();
        self.blocks.capacity() * size_of::<Vec<Place>>()
            + self.beyond.allocation_size()
            + places * size_of::<Place>()
    }
}

#[cfg(test)]
mod tests {
    use conch_wire::{MessageKey, UserId};

    use super::*;

    #[test]
    fn place_takes_16_bytes_and_a_short_channel_little() {
        let mut places = Places::default();
        for seq in 1..=10 {
            *places.at_mut(seq).expect("a place") = Place {
                print: Some(Fingerprint::of(UserId(1), 1, b"x")),
                key: Some(KeyPrint::of(UserId(1), MessageKey([9; 16]))),
            };
        }
        assert_eq!(places.seen().count(), 10);
        assert!(places.heap_bytes() < 600, "{}", places.heap_bytes());
        for seq in 1..=100_000 {
            places.at_mut(seq).expect("a place");
        }
        let each = places.heap_bytes() as f64 / 100_000.0;
        assert!((16.0..16.5).contains(&each), "{each}");
        assert_eq!(size_of::<Place>(), 16);
        assert!(places.at(10).key.is_some() && places.at(11).key.is_none());
    }

    #[test]
    fn seqs_at_random_take_a_bounded_memory() {
        let mut places = Places::default();
        let random = (1..=100_000_u64).map(|at| (at * 2_654_435_761 % 4_000_000_007) as Seq);
        let kept = random.filter(|seq| places.at_mut(*seq).is_some()).count();
        assert!(kept < 5_000, "{kept} kept");
        assert!(places.heap_bytes() < 8 << 20);
    }
}
