//! How the checker knows a message again: by what every reader sees of it.
//!
//! XXH3 in 64 bits. It is compared with the messages of one channel only, where two different ones of n share a fingerprint
//! with a probability of n²/2⁶⁵: 3 in a million for ten million messages in a single channel, less than that of a memory
//! error meanwhile. Such a pair makes a clean run look broken, and is seen; to hide a fault it would have to be the very pair that the
//! fault exchanges.

use std::num::NonZeroU64;

use conch_wire::{Event, EventKind, MessageKey, Seq, UserId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A 64-bit hash of author, kind and content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(NonZeroU64);

impl Fingerprint {
    /// The fingerprint of a message: `kind` and `tail` as they are in SEND and in the event.
    pub fn of(author: UserId, kind: u8, tail: &[u8]) -> Fingerprint {
        let seed = author.0.rotate_left(8) ^ u64::from(kind);
        Fingerprint(not_zero(xxh3_64_with_seed(tail, seed)))
    }

    /// A key for a message whose real key the checker's caller does not see: as unique as the content.
    pub(crate) fn key_bytes(self) -> [u8; 16] {
        u128::from(self.bits()).to_le_bytes()
    }

    pub(super) fn bits(self) -> u64 {
        self.0.get()
    }
}

/// A 64-bit hash of a key and of who used it, by the same sum as unlikely to be another one's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct KeyPrint(NonZeroU64);

impl KeyPrint {
    pub(super) fn of(sender: UserId, key: MessageKey) -> KeyPrint {
        KeyPrint(not_zero(xxh3_64_with_seed(&key.0, sender.0)))
    }

    /// Which of so many equal parts of all keys it belongs to.
    pub(super) fn part(self, parts: u64) -> u64 {
        ((u128::from(self.0.get()) * u128::from(parts)) >> 64) as u64
    }
}

fn not_zero(hash: u64) -> NonZeroU64 {
    NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)
}

/// One event as a reader saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observed {
    pub seq: Seq,
    /// `None`: the reader sees that the channel changed, and not by which bytes.
    pub print: Option<Fingerprint>,
    /// A person's message: somebody must have sent it. Other events are made by the node.
    pub is_message: bool,
}

impl Observed {
    /// What is seen of an event. Its body must be whole (not omitted).
    pub fn of(event: &Event) -> Observed {
        Observed::parts(event.seq, event.author, event.kind, &event.tail)
    }

    /// The same from its parts, for a sender that learns its own message's seq by an ack.
    pub fn parts(seq: Seq, author: UserId, kind: u8, tail: &[u8]) -> Observed {
        Observed {
            seq,
            print: Some(Fingerprint::of(author, kind, tail)),
            is_message: EventKind::from_u8(kind).is_some_and(EventKind::is_message),
        }
    }

    /// A change of the channel whose bytes the reader does not see.
    pub fn change(seq: Seq) -> Observed {
        Observed {
            seq,
            print: None,
            is_message: false,
        }
    }
}
