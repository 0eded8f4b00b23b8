//! A set of seqs: what one device was shown of one channel, or what anybody saw of it.
//!
//! Seqs that come in order cost nothing: the newest run of them grows in place, and a set without gaps is that run, 24 bytes
//! whatever its length. Behind gaps lie older runs, 8 bytes each; where these are so many that a bit for every seq is
//! less, they become bits, and give way again when the gaps are filled. So a set never takes more than a few bits per seq
//! of what it spans, and `insert` no more than the move of that.

use conch_wire::Seq;

/// So many runs are kept before bits may take their place.
const RUNS_MIN: usize = 64;

/// Seqs without a gap, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) first: Seq,
    pub(super) last: Seq,
}

impl Run {
    /// `None` where nothing lies between.
    pub(super) fn new(first: Seq, last: Seq) -> Option<Run> {
        (first <= last).then_some(Run { first, last })
    }

    pub(super) fn len(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    fn within(self, bounds: Run) -> Option<Run> {
        Run::new(self.first.max(bounds.first), self.last.min(bounds.last))
    }

    fn one(seq: Seq) -> Run {
        Run {
            first: seq,
            last: seq,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct SeqSet {
    newest: Option<Run>,
    /// All below `newest`, and nothing that touches it.
    older: Option<Box<Older>>,
}

#[derive(Debug)]
enum Older {
    /// Ascending, and none touches the next.
    Runs(Vec<Run>),
    Bits(Bits),
}

impl SeqSet {
    /// Adds `seq`; false if it was there already.
    pub(super) fn insert(&mut self, seq: Seq) -> bool {
        let Some(newest) = &mut self.newest else {
            self.newest = Some(Run::one(seq));
            return true;
        };
        if seq > newest.last {
            if seq - newest.last == 1 {
                newest.last = seq;
            } else {
                let ended = std::mem::replace(newest, Run::one(seq));
                self.older.get_or_insert_default().append(ended);
            }
            return true;
        }
        if seq >= newest.first {
            return false;
        }
        if newest.first - seq > 1 && !self.older.get_or_insert_default().insert(seq) {
            return false;
        }
        self.join_newest(seq);
        true
    }

    /// What touches the newest run becomes part of it. `seq` was inserted below it.
    fn join_newest(&mut self, seq: Seq) {
        let Some(newest) = &mut self.newest else {
            return;
        };
        if newest.first - seq == 1 {
            newest.first = seq;
        }
        if let Some(older) = &mut self.older {
            newest.first = older.take_what_ends_at(newest.first);
            if older.is_empty() {
                self.older = None;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.runs().any(|run| run.first <= seq && seq <= run.last)
    }

    pub(super) fn last(&self) -> Seq {
        self.newest.map_or(0, |run| run.last)
    }

    /// All runs, ascending.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        let (runs, bits) = match self.older.as_deref() {
            Some(Older::Runs(runs)) => (runs.as_slice(), None),
            Some(Older::Bits(bits)) => (&[][..], Some(bits)),
            None => (&[][..], None),
        };
        let of_bits = bits.into_iter().flat_map(Bits::runs);
        runs.iter().copied().chain(of_bits).chain(self.newest)
    }

    /// All runs as far as they lie within `bounds`.
    pub(super) fn runs_within(&self, bounds: Run) -> impl Iterator<Item = Run> {
        self.runs().filter_map(move |run| run.within(bounds))
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.older.as_deref().map_or(0, |older| {
            size_of::<Older>()
                + match older {
                    Older::Runs(runs) => runs.capacity() * size_of::<Run>(),
                    Older::Bits(bits) => bits.words.capacity() * 8,
                }
        })
    }
}

/// What of `wanted` is not in `had`; both ascending.
pub(super) fn without(
    mut wanted: impl Iterator<Item = Run>,
    had: impl Iterator<Item = Run>,
) -> impl Iterator<Item = Run> {
    let mut had = had.peekable();
    let mut rest = None;
    std::iter::from_fn(move || {
        loop {
            let run = rest.take().or_else(|| wanted.next())?;
            while had.next_if(|it| it.last < run.first).is_some() {}
            let Some(cut) = had.peek().filter(|it| it.first <= run.last) else {
                return Some(run);
            };
            if cut.last < run.last {
                rest = Some(Run {
                    first: cut.last + 1,
                    last: run.last,
                });
            }
            if cut.first > run.first {
                return Some(Run {
                    first: run.first,
                    last: cut.first - 1,
                });
            }
        }
    })
}

impl Default for Older {
    fn default() -> Older {
        Older::Runs(Vec::new())
    }
}

impl Older {
    fn is_empty(&self) -> bool {
        match self {
            Older::Runs(runs) => runs.is_empty(),
            Older::Bits(bits) => bits.count == 0,
        }
    }

    /// Adds a run above all others.
    fn append(&mut self, run: Run) {
        self.turn_to_runs_if_far(run.last);
        match self {
            Older::Runs(runs) => {
                runs.push(run);
                self.turn_to_bits_if_less();
            }
            Older::Bits(bits) => bits.insert_run(run),
        }
    }

    fn insert(&mut self, seq: Seq) -> bool {
        self.turn_to_runs_if_far(seq);
        let runs = match self {
            Older::Runs(runs) => runs,
            Older::Bits(bits) => return bits.insert(seq),
        };
        // The first run that does not end below `seq`.
        let at = runs.partition_point(|run| run.last < seq);
        if runs.get(at).is_some_and(|run| run.first <= seq) {
            return false;
        }
        let joins_below = at > 0 && seq - runs[at - 1].last == 1;
        let joins_above = runs.get(at).is_some_and(|run| run.first - seq == 1);
        match (joins_below, joins_above) {
            (true, true) => {
                runs[at - 1].last = runs[at].last;
                runs.remove(at);
            }
            (true, false) => runs[at - 1].last = seq,
            (false, true) => runs[at].first = seq,
            (false, false) => {
                runs.insert(at, Run::one(seq));
                self.turn_to_bits_if_less();
            }
        }
        true
    }

    /// Removes the highest run if it ends right below `seq`, and tells where it began; `seq` otherwise.
    fn take_what_ends_at(&mut self, seq: Seq) -> Seq {
        match self {
            Older::Runs(runs) => match runs.last() {
                Some(run) if seq - run.last == 1 => {
                    let first = run.first;
                    runs.pop();
                    first
                }
                _ => seq,
            },
            Older::Bits(bits) => {
                let mut first = seq;
                while first > 0 && bits.remove(first - 1) {
                    first -= 1;
                }
                first
            }
        }
    }

    fn turn_to_bits_if_less(&mut self) {
        let Older::Runs(runs) = self else {
            return;
        };
        let (Some(low), Some(high)) = (runs.first(), runs.last()) else {
            return;
        };
        let span_bytes = u64::from(high.last - low.first) / 8;
        if runs.len() > RUNS_MIN && (runs.len() * size_of::<Run>()) as u64 > span_bytes {
            let mut bits = Bits::default();
            runs.iter().for_each(|run| bits.insert_run(*run));
            *self = Older::Bits(bits);
        }
    }
}

impl Older {
    /// Bits do not reach over a long way of nothing.
    fn turn_to_runs_if_far(&mut self, seq: Seq) {
        if let Older::Bits(bits) = self
            && bits.is_far(seq)
        {
            *self = Older::Runs(bits.runs().collect());
        }
    }
}

/// One bit for each seq from `64 * first_word` on.
#[derive(Debug, Default)]
struct Bits {
    first_word: usize,
    words: Vec<u64>,
    /// Bits that are set.
    count: u64,
}

impl Bits {
    fn insert(&mut self, seq: Seq) -> bool {
        let (word, bit) = Bits::place(seq);
        if self.words.is_empty() {
            self.first_word = word;
        }
        if word < self.first_word {
            // As many again, so that a run that grows downwards does not move everything each time.
            let more = (self.first_word - word)
                .max(self.words.len())
                .min(self.first_word);
            self.words.splice(0..0, std::iter::repeat_n(0, more));
            self.first_word -= more;
        }
        let index = word - self.first_word;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let is_fresh = self.words[index] & bit == 0;
        self.words[index] |= bit;
        self.count += u64::from(is_fresh);
        is_fresh
    }

    /// Whether the words would become more than twice as many, and thousands, for `seq`.
    fn is_far(&self, seq: Seq) -> bool {
        let (word, _) = Bits::place(seq);
        let below = self.first_word.saturating_sub(word);
        let above = word.saturating_sub(self.first_word + self.words.len());
        below.max(above) > self.words.len() + 1_024
    }

    fn insert_run(&mut self, run: Run) {
        for seq in run.first..=run.last {
            self.insert(seq);
        }
    }

    /// False if it was not there.
    fn remove(&mut self, seq: Seq) -> bool {
        let (word, bit) = Bits::place(seq);
        let index = word.checked_sub(self.first_word);
        let Some(bits) = index.and_then(|index| self.words.get_mut(index)) else {
            return false;
        };
        let was_there = *bits & bit != 0;
        *bits &= !bit;
        self.count -= u64::from(was_there);
        was_there
    }

    fn runs(&self) -> impl Iterator<Item = Run> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = self.next(from, false)?;
            let behind = self.next(first, true).unwrap_or(self.words.len() * 64);
            from = behind;
            let base = self.first_word * 64;
            Some(Run {
                first: (base + first) as Seq,
                last: (base + behind - 1) as Seq,
            })
        })
    }

    /// The first bit from `from` on that is set (or clear).
    fn next(&self, from: usize, clear: bool) -> Option<usize> {
        let mut mask = u64::MAX << (from % 64);
        for (index, bits) in self.words.iter().enumerate().skip(from / 64) {
            let bits = if clear { !bits } else { *bits } & mask;
            if bits != 0 {
                return Some(index * 64 + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    fn place(seq: Seq) -> (usize, u64) {
        ((seq / 64) as usize, 1 << (seq % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn seqs(runs: impl Iterator<Item = Run>) -> Vec<Seq> {
        runs.flat_map(|run| run.first..=run.last).collect()
    }

    /// Seqs 1 to 2,000 in some order, some of them missing and some repeated.
    fn order() -> impl Strategy<Value = Vec<Seq>> {
        let chunk =
            (0u32..40, 1u32..60, any::<bool>(), 1u32..4).prop_map(|(at, len, down, step)| {
                let first = at * 50 + 1;
                let mut seqs: Vec<_> = (first..first + len).step_by(step as usize).collect();
                if down {
                    seqs.reverse();
                }
                seqs
            });
        prop::collection::vec(chunk, 1..60).prop_map(|chunks| chunks.concat())
    }

    proptest! {
        #[test]
        fn says_what_a_plain_set_says(order in order()) {
            let mut set = SeqSet::default();
            let mut plain = BTreeSet::new();
            for seq in order {
                prop_assert_eq!(set.insert(seq), plain.insert(seq));
            }
            prop_assert_eq!(seqs(set.runs()), Vec::from_iter(plain.iter().copied()));
            let runs: Vec<_> = set.runs().collect();
            prop_assert!(runs.windows(2).all(|two| two[0].last + 1 < two[1].first), "{:?}", runs);
            prop_assert_eq!(set.last(), plain.last().copied().unwrap_or(0));
        }

        #[test]
        fn difference_is_that_of_plain_sets(wanted in order(), had in order()) {
            let set = |seqs: &[Seq]| {
                let mut set = SeqSet::default();
                seqs.iter().for_each(|seq| { set.insert(*seq); });
                set
            };
            let plain: BTreeSet<_> = had.iter().copied().collect();
            let missing: BTreeSet<_> = wanted.iter().copied().filter(|seq| !plain.contains(seq)).collect();
            let found = seqs(without(set(&wanted).runs(), set(&had).runs()));
            prop_assert_eq!(found, Vec::from_iter(missing));
        }
    }

    #[test]
    fn what_comes_in_order_takes_no_memory() {
        let mut set = SeqSet::default();
        (1..=100_000).for_each(|seq| assert!(set.insert(seq)));
        assert_eq!(set.heap_bytes(), 0);
        assert_eq!(size_of::<SeqSet>(), 24);
    }

    #[test]
    fn every_second_seq_takes_bits_and_gives_them_back() {
        let mut set = SeqSet::default();
        for seq in (1..=100_000).step_by(2) {
            assert!(set.insert(seq));
        }
        let bytes = set.heap_bytes();
        assert!(bytes < 2 * 100_000 / 8, "{bytes} bytes");
        assert!(set.contains(77_777) && !set.contains(77_778));
        for seq in (1..=50_000).rev().map(|half| 2 * half) {
            assert!(set.insert(seq));
        }
        assert_eq!(set.heap_bytes(), 0);
        assert_eq!(set.runs().count(), 1);
    }

    #[test]
    fn bits_do_not_reach_far() {
        let mut set = SeqSet::default();
        let far = 3_000_000_000;
        for seq in (1..=10_000).step_by(2).chain([far, far + 2, far + 4]) {
            assert!(set.insert(seq));
            assert!(!set.insert(seq));
        }
        assert!(set.heap_bytes() < 200_000, "{}", set.heap_bytes());
        assert_eq!(set.runs().count(), 5_003);
    }

    #[test]
    fn highest_seq_has_its_place() {
        let mut set = SeqSet::default();
        for seq in [Seq::MAX, 1, Seq::MAX - 1, 3] {
            assert!(set.insert(seq));
            assert!(!set.insert(seq));
        }
        assert_eq!(set.runs().map(Run::len).sum::<u64>(), 4);
        assert!(set.heap_bytes() < 100);
    }
}
