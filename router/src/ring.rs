//! The ring proposes which node should own a slot; the owner table decides.
//!
//! The proposal is consistent hashing (own virtual nodes, own fixed hash over fixed bytes, so that every build of every
//! node computes the same), bounded: no node gets more than 1.25 × its fair share. It is evaluated into an
//! [`OwnerTable`] when membership changes, never per request. A node alone owns everything. Pure; `Router` holds a table.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use xxhash_rust::xxh3::Xxh3;

use crate::slot::{SLOTS, Slot};

/// A node of a deployment, as the lease table numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// Points of one node on the ring: 256 keep the shares of few nodes within a quarter of each other.
const VIRTUAL_NODES: u32 = 256;
/// No node is proposed for more than 5/4 of its fair share.
const LOAD_NUMERATOR: usize = 5;
const LOAD_DENOMINATOR: usize = 4;
/// Places that a slot tries on the ring before the least loaded node takes it.
const TRIES: u32 = 64;

/// Hashes only what is written to it as bytes; the standard library's hashing of tuples and strings is not stable.
#[derive(Clone, Copy, Debug, Default)]
struct FixedHash;

struct FixedHasher(Xxh3);

impl BuildHasher for FixedHash {
    type Hasher = FixedHasher;
    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(Xxh3::new())
    }
}

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0.digest()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[derive(Clone, Copy, Debug)]
struct VirtualNode {
    node: NodeId,
    index: u32,
}

impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [b'n'; 13];
        bytes[1..9].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[9..].copy_from_slice(&self.index.to_le_bytes());
        state.write(&bytes);
    }
}

/// Where a slot looks for its node; `try_number` above 0 when its earlier places belong to full nodes.
struct Place {
    slot: Slot,
    try_number: u32,
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [b's'; 7];
        bytes[1..3].copy_from_slice(&self.slot.0.to_le_bytes());
        bytes[3..].copy_from_slice(&self.try_number.to_le_bytes());
        state.write(&bytes);
    }
}

/// Slot → owner, the truth that requests are routed by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnerTable {
    owners: Box<[NodeId]>,
}

impl OwnerTable {
    /// Everything belongs to one node.
    pub fn single(node: NodeId) -> OwnerTable {
        OwnerTable {
            owners: vec![node; SLOTS].into_boxed_slice(),
        }
    }

    /// The ring's proposal for these nodes; the same for every order they are named in. `None` without nodes.
    pub fn propose(nodes: &[NodeId]) -> Option<OwnerTable> {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        let mut ring = HashRing::with_hasher(FixedHash);
        ring.batch_add(
            nodes
                .iter()
                .flat_map(|&node| (0..VIRTUAL_NODES).map(move |index| VirtualNode { node, index }))
                .collect(),
        );
        let load_max = (SLOTS * LOAD_NUMERATOR).div_ceil(LOAD_DENOMINATOR * nodes.len().max(1));
        let mut loads = vec![0usize; nodes.len()];
        let mut owners = Vec::with_capacity(SLOTS);
        for slot in (0..SLOTS as u16).map(Slot) {
            let wished = (0..TRIES)
                .filter_map(|try_number| ring.get(&Place { slot, try_number }))
                .filter_map(|point| nodes.binary_search(&point.node).ok())
                .find(|&index| loads[index] < load_max);
            let index = match wished {
                Some(index) => index,
                None => (0..nodes.len()).min_by_key(|&index| loads[index])?,
            };
            loads[index] += 1;
            owners.push(nodes[index]);
        }
        Some(OwnerTable {
            owners: owners.into_boxed_slice(),
        })
    }

    /// Who owns a slot.
    pub fn owner(&self, slot: Slot) -> NodeId {
        self.owners[usize::from(slot.0)]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::*;

    fn digest(table: &OwnerTable) -> u64 {
        let bytes: Vec<u8> = table
            .owners
            .iter()
            .flat_map(|node| node.0.to_le_bytes())
            .collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    fn shares(table: &OwnerTable, nodes: u64) -> Vec<usize> {
        (1..=nodes)
            .map(|node| table.owners.iter().filter(|owner| owner.0 == node).count())
            .collect()
    }

    fn proposal(nodes: u64) -> OwnerTable {
        OwnerTable::propose(&(1..=nodes).map(NodeId).collect::<Vec<_>>()).unwrap()
    }

    /// Frozen: nodes of different builds must propose alike.
    #[test]
    fn proposals_are_frozen() {
        assert_eq!(proposal(1), OwnerTable::single(NodeId(1)));
        assert_eq!(
            [1, 3, 5].map(|nodes| digest(&proposal(nodes))),
            [
                16_787_500_371_948_651_464,
                16_152_150_738_472_076_009,
                15_839_820_112_596_834_241
            ]
        );
    }

    #[test]
    fn no_node_gets_more_than_a_quarter_above_its_share() {
        for nodes in [1, 2, 3, 5, 9] {
            let bound = (SLOTS * 5).div_ceil(4 * nodes as usize);
            assert!(
                shares(&proposal(nodes), nodes)
                    .iter()
                    .all(|&n| n <= bound && n > 0)
            );
        }
    }

    #[test]
    fn the_order_of_nodes_does_not_matter() {
        let there = OwnerTable::propose(&[NodeId(1), NodeId(2), NodeId(3)]).unwrap();
        let back = OwnerTable::propose(&[NodeId(3), NodeId(1), NodeId(2), NodeId(1)]).unwrap();
        assert_eq!(there, back);
        assert!(OwnerTable::propose(&[]).is_none());
    }

    #[test]
    fn a_joining_node_moves_little_more_than_its_share() {
        let (before, after) = (proposal(4), proposal(5));
        let moved = (0..SLOTS as u16)
            .map(Slot)
            .filter(|&slot| before.owner(slot) != after.owner(slot))
            .count();
        assert!(moved < SLOTS * 2 / 5, "{moved}");
    }
}
