//! Values of the index. Pure; little-endian; the first byte is the format number of the value.
//!
//! `None` from a decoder means damage (or a newer program's value): the caller names the table.

use conch_wire::event::{ChannelKind, MemberRole};
use conch_wire::{ChannelId, Seq, UserId};

use crate::Lsn;
use crate::row::{ChannelMeta, EventRow, Head, MemberRow};

use super::super::codec::{self, EVENT_OVERHEAD, FORMAT, Reader};
use super::super::overlay::{ChannelRow, KeyEntry, StoredMember};

fn opened(bytes: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader(bytes);
    (reader.u8()? == FORMAT).then_some(reader)
}

pub(super) fn put_number(number: u64) -> [u8; 9] {
    let mut out = [FORMAT; 9];
    out[1..].copy_from_slice(&number.to_le_bytes());
    out
}

pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let mut reader = opened(bytes)?;
    let number = reader.u64()?;
    reader.end()?;
    Some(number)
}

fn put_head(out: &mut Vec<u8>, head: &Head) {
    out.extend_from_slice(&head.seq.to_le_bytes());
    out.extend_from_slice(&head.ordinal.to_le_bytes());
    out.extend_from_slice(&head.created_ms.to_le_bytes());
}

fn head(reader: &mut Reader<'_>) -> Option<Head> {
    Some(Head {
        seq: reader.u32()?,
        ordinal: reader.u32()?,
        created_ms: reader.u64()?,
    })
}

pub(super) fn put_channel(row: &ChannelRow) -> Vec<u8> {
    let title = row.meta.as_ref().map_or("", |meta| &meta.title);
    let mut out = Vec::with_capacity(48 + title.len());
    out.push(FORMAT);
    put_head(&mut out, &row.head);
    out.extend_from_slice(&row.touched.to_le_bytes());
    out.push(row.pair.iter().flatten().count() as u8);
    for user in row.pair.iter().flatten() {
        out.extend_from_slice(&user.0.to_le_bytes());
    }
    out.push(row.meta.as_ref().map_or(0, |meta| meta.kind as u8));
    out.extend_from_slice(title.as_bytes());
    out
}

pub(super) fn channel(bytes: &[u8]) -> Option<ChannelRow> {
    let mut reader = opened(bytes)?;
    let head = head(&mut reader)?;
    let touched = reader.u64()?;
    let mut pair = [None; 2];
    for place in pair.get_mut(..usize::from(reader.u8()?))? {
        *place = Some(UserId(reader.u64()?));
    }
    let meta = match reader.u8()? {
        0 => None,
        number => Some(ChannelMeta {
            kind: ChannelKind::from_u8(number)?,
            title: std::str::from_utf8(reader.0).ok()?.to_owned(),
        }),
    };
    Some(ChannelRow {
        meta,
        head,
        touched,
        pair,
    })
}

pub(super) fn put_member(member: &StoredMember) -> Vec<u8> {
    let row = &member.row;
    let mut out = Vec::with_capacity(64);
    out.push(FORMAT);
    out.push(row.role as u8);
    for number in [
        row.joined_seq,
        row.joined_ordinal,
        row.visible_from,
        row.read_seq,
        row.read_ordinal,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&member.own.to_le_bytes());
    if let (Some(seq), Some(left)) = (row.left_seq, &member.left) {
        out.extend_from_slice(&seq.to_le_bytes());
        put_head(&mut out, left);
    }
    out
}

pub(super) fn member(user: UserId, bytes: &[u8]) -> Option<StoredMember> {
    let mut reader = opened(bytes)?;
    let role = MemberRole::from_u8(reader.u8()?)?;
    let mut row = MemberRow {
        user,
        role,
        joined_seq: reader.u32()?,
        joined_ordinal: reader.u32()?,
        visible_from: reader.u32()?,
        left_seq: None,
        read_seq: reader.u32()?,
        read_ordinal: reader.u32()?,
    };
    let own: Lsn = reader.u64()?;
    let mut left = None;
    if reader.end().is_none() {
        row.left_seq = Some(reader.u32()?);
        left = Some(head(&mut reader)?);
        reader.end()?;
    }
    Some(StoredMember { row, own, left })
}

/// Keys of one block, ascending by place, and the time of its newest message (ms), by which whole blocks expire.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct KeyBlock {
    pub(super) newest_ms: u64,
    pub(super) keys: Vec<KeyEntry>,
}

pub(super) fn put_keys(newest_ms: u64, keys: &[&[KeyEntry]]) -> Vec<u8> {
    let count: usize = keys.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(9 + 12 * count);
    out.push(FORMAT);
    out.extend_from_slice(&newest_ms.to_le_bytes());
    for (hash, seq) in keys.iter().copied().flatten() {
        out.extend_from_slice(&hash.to_le_bytes());
        out.extend_from_slice(&seq.to_le_bytes());
    }
    out
}

pub(super) fn keys(bytes: &[u8]) -> Option<KeyBlock> {
    let mut reader = opened(bytes)?;
    let newest_ms = reader.u64()?;
    let mut keys = Vec::with_capacity(reader.0.len() / 12);
    while reader.end().is_none() {
        keys.push((reader.u64()?, reader.u32()?));
    }
    Some(KeyBlock { newest_ms, keys })
}

/// Packs consecutive rows of one channel.
pub(super) fn put_rows(rows: &[EventRow]) -> Vec<u8> {
    let bodies: usize = rows.iter().map(|row| row.body.len()).sum();
    let mut out = Vec::with_capacity(1 + rows.len() * EVENT_OVERHEAD + bodies);
    out.push(FORMAT);
    for row in rows {
        codec::put_event(&mut out, row);
    }
    out
}

/// Unpacks the rows of a run that lie in `from ..= to`; others are skipped without copying their bodies.
pub(super) fn rows(bytes: &[u8], channel: ChannelId, from: Seq, to: Seq) -> Option<Vec<EventRow>> {
    const LENGTH_AT: usize = EVENT_OVERHEAD - 4;
    let mut reader = opened(bytes)?;
    let mut out = Vec::new();
    while reader.end().is_none() {
        let seq = u32::from_le_bytes(*reader.0.first_chunk()?);
        if (from..=to).contains(&seq) {
            out.push(codec::event(&mut reader, channel)?);
        } else {
            let length = u32::from_le_bytes(*reader.0.get(LENGTH_AT..)?.first_chunk()?);
            reader.bytes(EVENT_OVERHEAD + length as usize)?;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed step is a failed test

    use bytes::Bytes;
    use conch_wire::{DeviceId, MessageKey};

    use super::*;

    fn row(seq: Seq) -> EventRow {
        EventRow {
            channel: ChannelId(7),
            seq,
            epoch: 2,
            ordinal: seq,
            kind: 1,
            sender: UserId(3),
            device: DeviceId(4),
            key: MessageKey([seq as u8; 16]),
            created_ms: 99,
            content_hash: 5,
            body: Bytes::from(vec![1; 20 + seq as usize]),
        }
    }

    #[test]
    fn rows_read_back_in_part() {
        let all: Vec<EventRow> = (10..20).map(row).collect();
        let bytes = put_rows(&all);
        assert_eq!(rows(&bytes, ChannelId(7), 1, 99).unwrap(), all);
        assert_eq!(rows(&bytes, ChannelId(7), 12, 14).unwrap(), all[2..5]);
        assert_eq!(rows(&bytes[..bytes.len() - 1], ChannelId(7), 1, 99), None);
    }

    #[test]
    fn channels_and_members_read_back() {
        for meta in [
            None,
            Some(ChannelMeta {
                kind: ChannelKind::Group,
                title: "Ünder".into(),
            }),
        ] {
            let before = ChannelRow {
                meta,
                head: Head {
                    seq: 1,
                    ordinal: 2,
                    created_ms: 3,
                },
                touched: 4,
                pair: [Some(UserId(8)), None],
            };
            assert_eq!(channel(&put_channel(&before)).unwrap(), before);
        }
        for left in [None, Some(Head::default())] {
            let before = StoredMember {
                row: MemberRow {
                    user: UserId(8),
                    role: MemberRole::Admin,
                    joined_seq: 1,
                    joined_ordinal: 2,
                    visible_from: 3,
                    left_seq: left.map(|_| 9),
                    read_seq: 4,
                    read_ordinal: 5,
                },
                own: 6,
                left,
            };
            assert_eq!(member(UserId(8), &put_member(&before)).unwrap(), before);
        }
    }

    #[test]
    fn keys_read_back() {
        let block = keys(&put_keys(5, &[&[(1, 2)], &[(3, 4)]])).unwrap();
        assert_eq!(block.newest_ms, 5);
        assert_eq!(block.keys, [(1, 2), (3, 4)]);
    }
}
