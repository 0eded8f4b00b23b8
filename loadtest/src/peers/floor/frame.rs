//! The floor's protocol. All numbers are little-endian; every frame begins with its type and the bytes that follow these three.
//!
//! ```text
//! u8 type  u16 length
//! 1 SUBSCRIBE    u32 channel                         client to relay
//! 2 PUBLISH      u32 channel, payload
//! 3 SUBSCRIBED   u32 channel                         relay to client
//! 4 ACK          u32 channel, u32 seq
//! 5 DELIVER      u32 channel, u32 seq, payload
//! ```

/// The highest channel there is.
pub(super) const CHANNEL_MAX: u32 = u16::MAX as u32;

pub(super) const HEADER_BYTES: usize = 3;

pub(super) const SUBSCRIBE: u8 = 1;
pub(super) const PUBLISH: u8 = 2;
pub(super) const SUBSCRIBED: u8 = 3;
pub(super) const ACK: u8 = 4;
pub(super) const DELIVER: u8 = 5;

/// A frame, its body cut into its first number and what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) channel: u32,
    pub(super) rest: &'a [u8],
    /// Bytes of the input that it took.
    pub(super) consumed: usize,
}

/// Cuts the first whole frame off `input`. `Ok(None)`: more bytes are needed. `Err`: a body too short for its channel.
pub(super) fn cut(input: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let Some(([kind, low, high], rest)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let (channel, rest) = number(body).ok_or("a frame without a channel")?;
    Ok(Some(Frame {
        kind: *kind,
        channel,
        rest,
        consumed: HEADER_BYTES + length,
    }))
}

/// The number at the front, and what follows.
pub(super) fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// Appends a frame of numbers and a payload of less than 64 KiB.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, numbers: &[u32], payload: &[u8]) {
    let length = (4 * numbers.len() + payload.len()) as u16;
    out.push(kind);
    out.extend_from_slice(&length.to_le_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_these_bytes() {
        let mut out = Vec::new();
        put(&mut out, DELIVER, &[7, 0x0102_0304], b"hi");
        assert_eq!(out, [5, 10, 0, 7, 0, 0, 0, 4, 3, 2, 1, b'h', b'i']);
        let frame = cut(&out).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.channel, frame.consumed),
            (DELIVER, 7, 13)
        );
        assert_eq!(number(frame.rest), Some((0x0102_0304, &b"hi"[..])));
    }

    #[test]
    fn a_part_of_a_frame_is_none_and_a_short_body_an_error() {
        let mut out = Vec::new();
        put(&mut out, SUBSCRIBE, &[7], &[]);
        for whole in 0..out.len() {
            assert_eq!(cut(&out[..whole]), Ok(None));
        }
        assert!(cut(&[SUBSCRIBE, 2, 0, 1, 1]).is_err());
    }
}
