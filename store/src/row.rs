//! Rows: the logical tables of the store and the kinds of record that the log holds.
//!
//! The log's records are the truth; heads, members, inbox, read marks and keys are derived from them by replay. Rows are
//! stored for ever: their encodings carry a format number and change only with a new one.

use bytes::Bytes;
use conch_wire::event::{ChannelKind, MemberRole};
use conch_wire::{ChannelId, DeviceId, MessageKey, Ordinal, Seq, UserId};

/// One event of a channel as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRow {
    pub channel: ChannelId,
    pub seq: Seq,
    /// The slot's epoch in which the owner wrote it; never leaves the server.
    pub epoch: u32,
    /// People's messages up to and including this event.
    pub ordinal: Ordinal,
    pub kind: u8,
    pub sender: UserId,
    /// The device that sent it; 0 for events that came over HTTP or from the node itself.
    pub device: DeviceId,
    /// The sender's key; all zero for events that are not messages (they are never looked up by key).
    pub key: MessageKey,
    pub created_ms: u64,
    /// [`content_hash`] of what the sender sent: proves "same content" even after the body was edited or erased.
    pub content_hash: u64,
    /// The event body, encoded once; opaque here.
    pub body: Bytes,
}

/// Hash of a message's content, stable for ever: xxh3-64 over kind, flags that are content, and tail.
pub fn content_hash(kind: u8, flags: u8, tail: &[u8]) -> u64 {
    /// Hashed in one piece: the hasher of a stream costs several times as much to set up.
    const WHOLE_MAX: usize = 512;
    let mut whole = [0; WHOLE_MAX];
    if let Some(place) = whole.get_mut(..2 + tail.len()) {
        place[0] = kind;
        place[1] = flags;
        place[2..].copy_from_slice(tail);
        return xxhash_rust::xxh3::xxh3_64(place);
    }
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&[kind, flags]);
    hasher.update(tail);
    hasher.digest()
}

/// One record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    Event(EventRow),
    /// `user` has read `channel` up to `seq`. Never moves back: replay takes the maximum.
    ReadMark {
        channel: ChannelId,
        user: UserId,
        seq: Seq,
        ordinal: Ordinal,
    },
    /// The one direct channel of two people; `low < high` (or equal, for a person's own log). First record wins.
    Pair {
        low: UserId,
        high: UserId,
        channel: ChannelId,
    },
    /// Every counter below `end` may have been given out in `space`; replay takes the maximum.
    IdBlock {
        space: u8,
        end: u64,
    },
    /// The event's body is gone for good: readers see an empty tail, a replay does not bring it back.
    Erasure {
        channel: ChannelId,
        seq: Seq,
    },
}

/// Newest place of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    pub seq: Seq,
    pub ordinal: Ordinal,
    /// Time of the newest event, ms since 1970.
    pub created_ms: u64,
}

/// What is fixed or set for a whole channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelMeta {
    pub kind: ChannelKind,
    /// Empty for direct and self channels.
    pub title: String,
}

/// A present or former member of a channel, with the read mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberRow {
    pub user: UserId,
    pub role: MemberRole,
    pub joined_seq: Seq,
    /// Ordinal just before joining: unread counts start here.
    pub joined_ordinal: Ordinal,
    /// First seq that the member may read.
    pub visible_from: Seq,
    /// Set when the member left or was removed: the seq of that event, the last one they may read.
    pub left_seq: Option<Seq>,
    pub read_seq: Seq,
    pub read_ordinal: Ordinal,
}

/// All that an owner needs to serve a channel again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelSnapshot {
    pub meta: ChannelMeta,
    pub head: Head,
    /// Former members too.
    pub members: Vec<MemberRow>,
    /// Newest events, ascending, as many as were asked for (or there are).
    pub tail: Vec<EventRow>,
    /// Newest `(key hash, seq)` of messages, ascending by seq: the dedupe window. See [`key_hash`].
    pub keys: Vec<(u64, Seq)>,
}

/// Hash under which a sender's key is kept in dedupe windows; a hit is always checked against the row.
pub fn key_hash(sender: UserId, key: &MessageKey) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&key.0, sender.0)
}

/// A channel in a user's inbox, joined with the channel's head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InboxRow {
    pub channel: ChannelId,
    /// Inbox position of the last touch: an event, the user's own read mark, or the user's leaving.
    pub position: u64,
    pub meta: ChannelMeta,
    /// Clipped to `left_seq` for a former member.
    pub head: Head,
    /// The user's own row.
    pub member: MemberRow,
    /// Direct channel: the other person.
    pub peer: Option<UserId>,
}

#[cfg(test)]
mod tests {
    use super::content_hash;

    #[test]
    fn content_of_any_length_hashes_as_one_stream() {
        let tail: Vec<u8> = (0..2_000u32).map(|n| (n * 7) as u8).collect();
        for length in (0..1_100).chain([1_999, 2_000]) {
            let mut hasher = xxhash_rust::xxh3::Xxh3::new();
            hasher.update(&[1, 2]);
            hasher.update(&tail[..length]);
            assert_eq!(
                content_hash(1, 2, &tail[..length]),
                hasher.digest(),
                "{length} bytes"
            );
        }
    }
}
