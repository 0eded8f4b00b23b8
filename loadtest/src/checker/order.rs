//! Whether what one device sent to one channel lies in the order in which it was first attempted.
//!
//! Messages are numbered as they are attempted, and each is told once when its seq is known. Known in order they cost
//! nothing: the last one is all there is to compare with. A message that others overtook is a hole between two known ones,
//! 16 bytes for each row of neighbours, and must come to lie between them. Every pair of neighbours is compared when the
//! later one of the two becomes known; so what is found is what sorting at the end would find.

use conch_wire::Seq;

/// The messages of one device in one channel.
#[derive(Debug, Default)]
pub(super) struct Order {
    attempted: u32,
    /// Of those whose seq is known, the one attempted last, and its seq.
    last: u32,
    last_seq: Seq,
    /// Ascending.
    holes: Vec<Hole>,
}

/// Messages whose seq is not known, between two whose seq is.
#[derive(Clone, Copy, Debug)]
struct Hole {
    first: u32,
    last: u32,
    /// Seq of the message attempted before the hole; 0: it begins with the first one.
    above: Seq,
    /// Seq of the one attempted after it.
    below: Seq,
}

/// Seqs of two messages in the order of attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Overtaken {
    pub(super) first: Seq,
    pub(super) second: Seq,
}

impl Order {
    /// The number of the next message, from 1.
    pub(super) fn attempt(&mut self) -> u32 {
        self.attempted += 1;
        self.attempted
    }

    /// The message of this number lies at `seq`. To be told once for each message.
    pub(super) fn place(&mut self, nth: u32, seq: Seq) -> Option<Overtaken> {
        if nth > self.last {
            let before = self.last_seq;
            if nth - self.last > 1 {
                self.holes.push(Hole {
                    first: self.last + 1,
                    last: nth - 1,
                    above: before,
                    below: seq,
                });
            }
            (self.last, self.last_seq) = (nth, seq);
            return compare(before, seq);
        }
        let at = self.holes.partition_point(|hole| hole.last < nth);
        let hole = *self.holes.get(at).filter(|hole| hole.first <= nth)?;
        let lower = Hole {
            last: nth - 1,
            below: seq,
            ..hole
        };
        let upper = Hole {
            first: nth + 1,
            above: seq,
            ..hole
        };
        let rest = [lower, upper];
        let rest = rest.into_iter().filter(|hole| hole.first <= hole.last);
        self.holes.splice(at..=at, rest);
        compare(hole.above, seq).or_else(|| compare(seq, hole.below))
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.holes.capacity() * size_of::<Hole>()
    }
}

fn compare(first: Seq, second: Seq) -> Option<Overtaken> {
    (first > second).then_some(Overtaken { first, second })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Messages become known in any order, some never: found is what is there to find.
        #[test]
        fn finds_what_sorting_would_find(
            seqs in prop::collection::vec(1u32..1_000, 1..40),
            known in prop::collection::vec(any::<(prop::sample::Index, bool)>(), 1..80),
            is_sorted in any::<bool>(),
        ) {
            let mut seqs = seqs;
            if is_sorted {
                seqs.sort_unstable();
            }
            seqs.dedup();
            let mut order = Order::default();
            let numbers: Vec<_> = seqs.iter().map(|_| order.attempt()).collect();
            let mut told = vec![false; seqs.len()];
            let mut found = false;
            for (index, _) in known.iter().filter(|(_, is_told)| *is_told) {
                let at = index.index(seqs.len());
                if !std::mem::replace(&mut told[at], true) {
                    found |= order.place(numbers[at], seqs[at]).is_some();
                }
            }
            let rest: Vec<_> = seqs.iter().zip(&told).filter(|(_, told)| **told).map(|(seq, _)| *seq).collect();
            prop_assert_eq!(found, !rest.is_sorted());
        }
    }

    #[test]
    fn what_is_known_in_order_takes_no_memory() {
        let mut order = Order::default();
        for seq in 1..10_000 {
            let nth = order.attempt();
            assert_eq!(order.place(nth, seq), None);
        }
        assert_eq!(order.heap_bytes(), 0);
    }

    #[test]
    fn both_seqs_are_told_in_the_order_of_attempts() {
        let mut order = Order::default();
        let [first, second, third] = [(); 3].map(|()| order.attempt());
        assert_eq!(order.place(first, 5), None);
        assert_eq!(order.place(third, 9), None);
        let overtaken = Some(Overtaken {
            first: 12,
            second: 9,
        });
        assert_eq!(order.place(second, 12), overtaken);
    }
}
