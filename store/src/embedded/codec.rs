//! Bytes of rows and log payloads: little-endian, fixed order, no padding. Pure.
//!
//! The same event encoding serves the log and the index, so a row is laid out once. Every encoding is named by a format
//! number kept beside it (in the record header, in the first byte of an index value); a layout never changes under its
//! number. Decoding never panics: what does not fit is `None`, and the caller says which file or table is damaged.
//!
//! Event (format 1): seq u32, epoch u32, ordinal u32, kind u8, sender u64, device u64, key 16 bytes, created_ms u64,
//! content_hash u64, body length u32, body. In the log the channel u64 stands before it.

use bytes::Bytes;
use conch_wire::{ChannelId, DeviceId, MessageKey, UserId};

use crate::row::{EventRow, Record};

/// Format number of record payloads and of all values of the index.
pub(super) const FORMAT: u8 = 1;

/// Bytes of an encoded event besides its body.
pub(super) const EVENT_OVERHEAD: usize = 4 + 4 + 4 + 1 + 8 + 8 + 16 + 8 + 8 + 4;

/// Record kinds of the log; numbers are for ever.
pub(super) mod kind {
    /// Not a record of the contract: repeats the last durable lsn at a clean end, which proves the last group.
    pub(in crate::embedded) const SEAL: u8 = 1;
    pub(in crate::embedded) const EVENT: u8 = 2;
    pub(in crate::embedded) const READ_MARK: u8 = 3;
    pub(in crate::embedded) const PAIR: u8 = 4;
    pub(in crate::embedded) const ID_BLOCK: u8 = 5;
    pub(in crate::embedded) const ERASURE: u8 = 6;
}

/// Reads numbers off the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// `Some` only when everything was read.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends an event without its channel.
pub(super) fn put_event(out: &mut Vec<u8>, event: &EventRow) {
    out.extend_from_slice(&event.seq.to_le_bytes());
    out.extend_from_slice(&event.epoch.to_le_bytes());
    out.extend_from_slice(&event.ordinal.to_le_bytes());
    out.push(event.kind);
    out.extend_from_slice(&event.sender.0.to_le_bytes());
    out.extend_from_slice(&event.device.0.to_le_bytes());
    out.extend_from_slice(&event.key.0);
    out.extend_from_slice(&event.created_ms.to_le_bytes());
    out.extend_from_slice(&event.content_hash.to_le_bytes());
    out.extend_from_slice(&(event.body.len() as u32).to_le_bytes());
    out.extend_from_slice(&event.body);
}

/// Reads an event of `channel`; its body is copied out.
pub(super) fn event(reader: &mut Reader<'_>, channel: ChannelId) -> Option<EventRow> {
    Some(EventRow {
        channel,
        seq: reader.u32()?,
        epoch: reader.u32()?,
        ordinal: reader.u32()?,
        kind: reader.u8()?,
        sender: UserId(reader.u64()?),
        device: DeviceId(reader.u64()?),
        key: MessageKey(reader.array()?),
        created_ms: reader.u64()?,
        content_hash: reader.u64()?,
        body: {
            let length = reader.u32()? as usize;
            Bytes::copy_from_slice(reader.bytes(length)?)
        },
    })
}

/// The kind number of a record.
pub(super) fn record_kind(record: &Record) -> u8 {
    match record {
        Record::Event(_) => kind::EVENT,
        Record::ReadMark { .. } => kind::READ_MARK,
        Record::Pair { .. } => kind::PAIR,
        Record::IdBlock { .. } => kind::ID_BLOCK,
        Record::Erasure { .. } => kind::ERASURE,
    }
}

/// Bytes of a record's payload.
pub(super) fn payload_bytes(record: &Record) -> usize {
    match record {
        Record::Event(event) => 8 + EVENT_OVERHEAD + event.body.len(),
        Record::ReadMark { .. } | Record::Pair { .. } => 24,
        Record::IdBlock { .. } => 9,
        Record::Erasure { .. } => 12,
    }
}

/// Appends a record's payload: exactly [`payload_bytes`].
pub(super) fn put_payload(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Event(event) => {
            out.extend_from_slice(&event.channel.0.to_le_bytes());
            put_event(out, event);
        }
        Record::ReadMark {
            channel,
            user,
            seq,
            ordinal,
        } => {
            out.extend_from_slice(&channel.0.to_le_bytes());
            out.extend_from_slice(&user.0.to_le_bytes());
            out.extend_from_slice(&seq.to_le_bytes());
            out.extend_from_slice(&ordinal.to_le_bytes());
        }
        Record::Pair { low, high, channel } => {
            out.extend_from_slice(&low.0.to_le_bytes());
            out.extend_from_slice(&high.0.to_le_bytes());
            out.extend_from_slice(&channel.0.to_le_bytes());
        }
        Record::IdBlock { space, end } => {
            out.push(*space);
            out.extend_from_slice(&end.to_le_bytes());
        }
        Record::Erasure { channel, seq } => {
            out.extend_from_slice(&channel.0.to_le_bytes());
            out.extend_from_slice(&seq.to_le_bytes());
        }
    }
}

/// Decodes a payload. `None`: not a record of this kind and format.
pub(super) fn payload(kind_number: u8, format: u8, bytes: &[u8]) -> Option<Record> {
    if format != FORMAT {
        return None;
    }
    let mut reader = Reader(bytes);
    let record = match kind_number {
        kind::EVENT => {
            let channel = ChannelId(reader.u64()?);
            Record::Event(event(&mut reader, channel)?)
        }
        kind::READ_MARK => Record::ReadMark {
            channel: ChannelId(reader.u64()?),
            user: UserId(reader.u64()?),
            seq: reader.u32()?,
            ordinal: reader.u32()?,
        },
        kind::PAIR => Record::Pair {
            low: UserId(reader.u64()?),
            high: UserId(reader.u64()?),
            channel: ChannelId(reader.u64()?),
        },
        kind::ID_BLOCK => Record::IdBlock {
            space: reader.u8()?,
            end: reader.u64()?,
        },
        kind::ERASURE => Record::Erasure {
            channel: ChannelId(reader.u64()?),
            seq: reader.u32()?,
        },
        _ => return None,
    };
    reader.end()?;
    Some(record)
}
