//! The frame of a log record. Pure.
//!
//! 32 bytes, little-endian: payload length u32, CRC-32C u32, lsn u64, durable lsn u64 (the last lsn known to be durable
//! when this record's group was written), low half of the segment's life u32, kind u8, format u8, reserved u16 = 0; then
//! the payload, then zeros up to a multiple of 8.
//!
//! The CRC covers header and payload and starts from a seed that only this store knows. So bytes of another store, of
//! an earlier life of the segment, or of a message that somebody has shaped like a record never pass for a record:
//! recovery searches damaged segments for records at every 8th byte, and may refuse to start for one that it finds.

use crate::Lsn;

/// Bytes of a record header.
pub(in crate::embedded) const HEADER_BYTES: usize = 32;

/// Records start at multiples of this.
pub(in crate::embedded) const ALIGNMENT: usize = 8;

/// What makes a record belong to a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::embedded) struct Owner {
    pub crc_seed: u32,
    /// Low half of the life of the segment.
    pub life: u32,
}

/// A record found in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::embedded) struct Found<'a> {
    pub lsn: Lsn,
    pub durable: Lsn,
    pub life: u32,
    pub kind: u8,
    pub format: u8,
    pub payload: &'a [u8],
}

/// Bytes that a record with this payload takes in a segment.
pub(in crate::embedded) const fn framed_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(ALIGNMENT)
}

/// Appends a record; `put_payload` appends its payload.
pub(in crate::embedded) fn put(
    out: &mut Vec<u8>,
    owner: Owner,
    lsn: Lsn,
    durable: Lsn,
    kind: u8,
    format: u8,
    put_payload: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&lsn.to_le_bytes());
    out.extend_from_slice(&durable.to_le_bytes());
    out.extend_from_slice(&owner.life.to_le_bytes());
    out.extend_from_slice(&[kind, format, 0, 0]);
    put_payload(out);
    let length = (out.len() - start - HEADER_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(owner.crc_seed, &out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

/// Reads the record at the front of `bytes`, of whatever life. `None`: there is no whole record of this store here.
pub(in crate::embedded) fn read(bytes: &[u8], crc_seed: u32) -> Option<Found<'_>> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    let length = u32::from_le_bytes(header[..4].try_into().expect("4 bytes")) as usize;
    let crc = u32::from_le_bytes(header[4..8].try_into().expect("4 bytes"));
    let whole = bytes.get(..HEADER_BYTES + length)?;
    // A header of zeros has an empty payload; lsn 0 is never given.
    if number(8) == 0 || checksum(crc_seed, whole) != crc {
        return None;
    }
    Some(Found {
        lsn: number(8),
        durable: number(16),
        life: u32::from_le_bytes(header[24..28].try_into().expect("4 bytes")),
        kind: header[28],
        format: header[29],
        payload: &whole[HEADER_BYTES..],
    })
}

/// Whether a record may start here at all: cheap, before any checksum. Used by searches that try every 8th byte.
pub(in crate::embedded) fn plausible(bytes: &[u8], lsn_from: Lsn, lsn_to: Lsn) -> bool {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let lsn = u64::from_le_bytes(header[8..16].try_into().expect("8 bytes"));
    let length = u32::from_le_bytes(header[..4].try_into().expect("4 bytes")) as usize;
    (lsn_from..=lsn_to).contains(&lsn) && HEADER_BYTES + length <= bytes.len()
}

fn checksum(seed: u32, record: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(seed, &record[..4]);
    crc32c::crc32c_append(crc, &record[8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner {
        crc_seed: 77,
        life: 9,
    };

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, OWNER, 5, 4, 2, 1, |out| {
            out.extend_from_slice(payload)
        });
        out
    }

    #[test]
    fn a_record_reads_back() {
        let bytes = framed(b"hello");
        assert_eq!(bytes.len(), framed_bytes(5));
        let found = read(&bytes, 77).expect("whole");
        assert_eq!((found.lsn, found.durable, found.life), (5, 4, 9));
        assert_eq!((found.kind, found.format), (2, 1));
        assert_eq!(found.payload, b"hello");
    }

    #[test]
    fn every_flipped_bit_outside_the_padding_is_noticed() {
        let bytes = framed(b"hello");
        for bit in 0..(HEADER_BYTES + 5) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped, 77), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_store_is_none() {
        assert_eq!(read(&framed(b"hello"), 78), None);
    }

    #[test]
    fn zeros_and_short_slices_are_none() {
        assert_eq!(read(&[0; 64], 77), None);
        let bytes = framed(b"hello");
        for end in 0..HEADER_BYTES + 5 {
            assert_eq!(read(&bytes[..end], 77), None);
        }
    }
}
