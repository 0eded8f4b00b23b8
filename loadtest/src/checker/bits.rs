//! A set of seqs as one bit each: what one device was shown of one channel. Grows to the highest seq inserted.

use conch_wire::Seq;

#[derive(Clone, Debug, Default)]
pub(super) struct SeqSet {
    words: Vec<u64>,
}

impl SeqSet {
    /// Adds `seq`; false if it was there already.
    pub(super) fn insert(&mut self, seq: Seq) -> bool {
        let (word, bit) = place(seq);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seq> {
        self.words.iter().enumerate().flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits & (1 << bit) != 0)
                .map(move |bit| (word * 64 + bit) as Seq)
        })
    }

    pub(super) fn contains(&self, seq: Seq) -> bool {
        let (word, bit) = place(seq);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(seq: Seq) -> (usize, u64) {
    ((seq / 64) as usize, 1 << (seq % 64))
}
