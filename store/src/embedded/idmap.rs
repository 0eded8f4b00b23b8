//! Hash maps keyed by ids.
//!
//! Ids come out of a keyed permutation, so nobody can choose many that collide; one multiplication spreads them well
//! enough and costs a tenth of the standard hasher, which shows on the path of every record.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from ids (or pairs of ids).
pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Multiply and fold.
#[derive(Clone, Copy, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x243F_6A88_85A3_08D3) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
