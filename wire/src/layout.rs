//! Bytes that are not tables: reading and writing fixed layouts, 64-bit halves, 48-bit times, and frame headers.
//!
//! Called by every encoder and decoder of this crate and by nothing else. Reading copies at most one struct onto the
//! stack and never allocates; every read is bounded by the slice that it is given. Generated structs are byte arrays, so
//! `cut` and `exact` hand their bytes over without any assumption of alignment. Nothing here knows what a frame means.

use bytes::{BufMut, BytesMut};

use crate::frame::{HEADER_BYTES, WireError};
use crate::generated::conch as fb;
use crate::id::ID_MAX;

/// The largest time that 48 bits hold, in milliseconds.
pub(crate) const TIME_MS_MAX: u64 = (1 << 48) - 1;

/// Cuts `N` bytes off the front.
pub(crate) fn cut<const N: usize>(input: &[u8]) -> Result<([u8; N], &[u8]), WireError> {
    match input.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((*head, rest)),
        None => Err(WireError::bad("body is shorter than its fixed part")),
    }
}

/// The whole input as `N` bytes; more or fewer are refused.
pub(crate) fn exact<const N: usize>(input: &[u8]) -> Result<[u8; N], WireError> {
    <[u8; N]>::try_from(input)
        .map_err(|_| WireError::bad("body is not as long as its fixed layout"))
}

/// Refuses padding that is not zero: it would be lost in the next encoding.
pub(crate) fn zero(pad: impl Into<u32>) -> Result<(), WireError> {
    if pad.into() == 0 {
        Ok(())
    } else {
        Err(WireError::bad("padding is not zero"))
    }
}

/// Refuses what is longer, or more, than its limit.
pub(crate) fn at_most(len: usize, max: usize, what: &'static str) -> Result<(), WireError> {
    if len <= max {
        Ok(())
    } else {
        Err(WireError::too_large(what))
    }
}

/// A 64-bit value from its halves.
pub(crate) fn join(value: &fb::U64) -> u64 {
    u64::from(value.lo()) | u64::from(value.hi()) << 32
}

/// The halves of a 64-bit value.
pub(crate) fn halves(value: u64) -> fb::U64 {
    fb::U64::new(value as u32, (value >> 32) as u32)
}

/// An id: 63 bits, or it is refused.
pub(crate) fn id(value: &fb::U64) -> Result<u64, WireError> {
    match join(value) {
        id if id <= ID_MAX => Ok(id),
        _ => Err(WireError::bad("id has more than 63 bits")),
    }
}

/// A 48-bit time from its parts.
pub(crate) fn time(lo: u32, hi: u16) -> u64 {
    u64::from(lo) | u64::from(hi) << 32
}

/// The parts of a 48-bit time; later times (after the year 10,889) are held at the largest.
pub(crate) fn time_parts(time_ms: u64) -> (u32, u16) {
    let time_ms = time_ms.min(TIME_MS_MAX);
    (time_ms as u32, (time_ms >> 32) as u16)
}

/// Appends a frame: the header, then what `body` appends; the length is filled in afterwards.
pub(crate) fn put_frame(
    out: &mut BytesMut,
    frame_type: u8,
    reference: u32,
    body: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    out.put_u32_le(u32::from(frame_type));
    out.put_u32_le(reference);
    body(out);
    let body_len = out.len() - start - HEADER_BYTES;
    debug_assert!(
        body_len < 1 << 24,
        "callers keep frames under the frame limit"
    );
    out[start + 1..start + 4].copy_from_slice(&(body_len as u32).to_le_bytes()[..3]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_times_join_to_what_they_were() {
        for value in [0, 1, u64::from(u32::MAX), 1 << 32, ID_MAX, u64::MAX] {
            assert_eq!(join(&halves(value)), value);
        }
        for value in [0, 1, 1 << 32, TIME_MS_MAX] {
            let (lo, hi) = time_parts(value);
            assert_eq!(time(lo, hi), value);
        }
        assert_eq!(time_parts(u64::MAX), time_parts(TIME_MS_MAX));
    }

    #[test]
    fn ids_of_64_bits_are_refused() {
        assert!(id(&halves(ID_MAX)).is_ok());
        assert!(id(&halves(ID_MAX + 1)).is_err());
    }
}
