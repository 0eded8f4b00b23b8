//! How the checker knows a message again: by what every reader sees of it.

use std::hash::{DefaultHasher, Hasher};

use conch_wire::{Event, EventKind, Seq, UserId};

/// A 64-bit hash of author, kind and content. Equal only within one process; never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(pub(super) u64);

impl Fingerprint {
    /// The fingerprint of a message: `kind` and `tail` as they are in SEND and in the event.
    pub fn of(author: UserId, kind: u8, tail: &[u8]) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(author.0);
        hasher.write_u8(kind);
        hasher.write(tail);
        Fingerprint(hasher.finish().max(1))
    }

    /// A key for a message whose real key the checker's caller does not see: as unique as the content.
    pub(crate) fn key_bytes(self) -> [u8; 16] {
        u128::from(self.0).to_le_bytes()
    }
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
