//! Keys of the index: one table letter, then ids and places big-endian, so that bytes sort as the tables do. Pure.
//!
//! ```text
//! A                              what is applied
//! B space u8                     id block
//! C channel                      channel row
//! I user, position u64           channel           (inbox log)
//! K channel, seq >> 6 u32        keys of 64 places (dedupe)
//! M channel, user                member row
//! P low, high                    channel           (pairs)
//! R channel, seq >> 10 u32, seq of the first u32   a run of rows within the bucket
//! ```

use conch_wire::{ChannelId, Seq, UserId};

pub(super) const APPLIED: [u8; 1] = *b"A";

/// Places per bucket of rows: `seq >> BUCKET_SHIFT`.
pub(super) const BUCKET_SHIFT: u32 = 10;

/// Places per block of keys: `seq >> BLOCK_SHIFT`.
pub(in crate::embedded) const BLOCK_SHIFT: u32 = 6;

fn key<const N: usize>(table: u8, parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    out[0] = table;
    let mut at = 1;
    for part in parts {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, N);
    out
}

pub(super) fn id_block(space: u8) -> [u8; 2] {
    [b'B', space]
}

pub(super) const ID_BLOCKS: [u8; 1] = *b"B";

pub(super) fn channel(channel: ChannelId) -> [u8; 9] {
    key(b'C', &[&channel.0.to_be_bytes()])
}

pub(super) fn inbox(user: UserId, position: u64) -> [u8; 17] {
    key(b'I', &[&user.0.to_be_bytes(), &position.to_be_bytes()])
}

/// The position in a key made by [`inbox`].
pub(super) fn inbox_position(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(9..)?.first_chunk()?))
}

pub(super) fn key_block(channel: ChannelId, block: u32) -> [u8; 13] {
    key(b'K', &[&channel.0.to_be_bytes(), &block.to_be_bytes()])
}

/// The block in a key made by [`key_block`].
pub(super) fn key_block_number(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*key.get(9..)?.first_chunk()?))
}

pub(super) fn member(channel: ChannelId, user: UserId) -> [u8; 17] {
    key(b'M', &[&channel.0.to_be_bytes(), &user.0.to_be_bytes()])
}

/// Front of all members of a channel.
pub(super) fn members(channel: ChannelId) -> [u8; 9] {
    key(b'M', &[&channel.0.to_be_bytes()])
}

pub(super) fn pair(low: UserId, high: UserId) -> [u8; 17] {
    key(b'P', &[&low.0.to_be_bytes(), &high.0.to_be_bytes()])
}

pub(super) fn rows(channel: ChannelId, first: Seq) -> [u8; 17] {
    let bucket = first >> BUCKET_SHIFT;
    key(
        b'R',
        &[
            &channel.0.to_be_bytes(),
            &bucket.to_be_bytes(),
            &first.to_be_bytes(),
        ],
    )
}
