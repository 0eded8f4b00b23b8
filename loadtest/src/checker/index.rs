//! At which seq each settled message of a channel lies, by its fingerprint.
//!
//! Hash tables of seqs: the fingerprint itself is read where the message lies. A slot takes 5 bytes and tables are between 7/16
//! and 7/8 full, so a message takes 5.7 to 11.4 bytes. A channel of many messages has 256 tables of unequal shares, the
//! largest with almost twice the smallest's: they double one after the other, so that no call stands still for the growth of
//! all, and together they take about 8 bytes per message at any time.

use conch_wire::Seq;
use hashbrown::HashTable;

use super::Fingerprint;

/// Messages in one table before there are many.
const SMALL_MAX: usize = 1 << 15;
/// Tables are in groups of 16; the shares of the groups are 16, 17 .. 31.
const GROUPS: usize = 16;
const GROUP_TABLES: usize = 16;
/// 16 + 17 + .. + 31.
const SHARES: usize = 376;
const GROUP_OF_SHARE: [u8; SHARES] = {
    let mut groups = [0; SHARES];
    let (mut share, mut group) = (0, 0);
    while group < GROUPS {
        let mut of_group = 0;
        while of_group < GROUPS + group {
            groups[share] = group as u8;
            share += 1;
            of_group += 1;
        }
        group += 1;
    }
    groups
};

#[derive(Debug)]
pub(super) enum Index {
    Small(HashTable<Seq>),
    Large(Box<[HashTable<Seq>]>),
}

impl Default for Index {
    fn default() -> Index {
        Index::Small(HashTable::new())
    }
}

impl Index {
    /// Where the message lies. `print_at` tells what is at a seq that was inserted.
    pub(super) fn find(
        &self,
        print: Fingerprint,
        print_at: impl Fn(Seq) -> Fingerprint,
    ) -> Option<Seq> {
        let table = match self {
            Index::Small(table) => table,
            Index::Large(tables) => &tables[table_of(print)],
        };
        table
            .find(print.bits(), |seq| print_at(*seq) == print)
            .copied()
    }

    /// Notes a message that is not there yet.
    pub(super) fn insert(
        &mut self,
        print: Fingerprint,
        seq: Seq,
        print_at: impl Fn(Seq) -> Fingerprint,
    ) {
        if let Index::Small(table) = self
            && table.len() >= SMALL_MAX
        {
            let mut tables = vec![HashTable::new(); GROUPS * GROUP_TABLES].into_boxed_slice();
            for seq in table.iter() {
                let print = print_at(*seq);
                tables[table_of(print)]
                    .insert_unique(print.bits(), *seq, |seq| print_at(*seq).bits());
            }
            *self = Index::Large(tables);
        }
        let table = match self {
            Index::Small(table) => table,
            Index::Large(tables) => &mut tables[table_of(print)],
        };
        table.insert_unique(print.bits(), seq, |seq| print_at(*seq).bits());
    }

    /// Forgets a message that was inserted.
    pub(super) fn remove(&mut self, print: Fingerprint, seq: Seq) {
        let table = match self {
            Index::Small(table) => table,
            Index::Large(tables) => &mut tables[table_of(print)],
        };
        if let Ok(found) = table.find_entry(print.bits(), |it| *it == seq) {
            found.remove();
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Index::Small(table) => table.allocation_size(),
            Index::Large(tables) => {
                size_of_val(&**tables)
                    + tables.iter().map(HashTable::allocation_size).sum::<usize>()
            }
        }
    }
}

/// Of bits that the tables do not use themselves: they find the slot by the lowest, and tell slots apart by the 7 highest.
fn table_of(print: Fingerprint) -> usize {
    let share = (u64::from((print.bits() >> 18) as u32) * SHARES as u64) >> 32;
    let group = usize::from(GROUP_OF_SHARE[share as usize]);
    group * GROUP_TABLES + (print.bits() >> 50) as usize % GROUP_TABLES
}

#[cfg(test)]
mod tests {
    use conch_wire::UserId;

    use super::*;

    fn print_at(seq: Seq) -> Fingerprint {
        Fingerprint::of(UserId(1), 1, &seq.to_le_bytes())
    }

    #[test]
    fn each_message_is_found_where_it_lies_and_no_other_one() {
        let many = 3 * SMALL_MAX as Seq;
        let mut index = Index::default();
        for seq in 1..=many {
            index.insert(print_at(seq), seq, print_at);
        }
        for seq in 1..=many {
            assert_eq!(index.find(print_at(seq), print_at), Some(seq));
        }
        assert_eq!(index.find(print_at(many + 1), print_at), None);
        index.remove(print_at(7), 7);
        assert_eq!(index.find(print_at(7), print_at), None);
        assert_eq!(index.find(print_at(8), print_at), Some(8));
        let each = index.heap_bytes() as f64 / f64::from(many);
        assert!(each < 9.0, "{each} bytes per message");
    }

    #[test]
    fn shares_of_the_tables_differ_by_less_than_two() {
        let mut counts = vec![0u32; GROUPS * GROUP_TABLES];
        for seq in 0..200_000 {
            counts[table_of(print_at(seq))] += 1;
        }
        let group = |at: usize| -> u32 { counts[at * 16..][..16].iter().sum() };
        let ratio = f64::from(group(15)) / f64::from(group(0));
        assert!((1.8..2.1).contains(&ratio), "{ratio}");
        assert!(counts.iter().all(|count| *count > 300));
    }
}
