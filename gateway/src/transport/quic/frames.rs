//! Whole frames out of a byte stream.
//!
//! A stream gives bytes as they arrive, cut anywhere; a session takes chunks of whole frames. Bytes that hold whole frames
//! pass through without a copy; only the beginning of an incomplete frame is gathered, and it grows with what arrives, not
//! with what its header announces. A header above the limit ends the stream before any of its body is kept. The first
//! frame is HELLO and is held to HELLO's limit.

use bytes::{Bytes, BytesMut};
use conch_wire::frame::{FrameHeader, HEADER_BYTES};
use conch_wire::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};

/// See the module. [`Reassembler::take`] is asked until it has nothing before [`Reassembler::push`] is called again.
#[derive(Debug, Default)]
pub struct Reassembler {
    /// The beginning of a frame; its header was checked if it is there.
    partial: BytesMut,
    /// A frame that came in pieces.
    completed: Bytes,
    /// Frames that came whole, behind it.
    whole: Bytes,
    any: bool,
    too_large: bool,
}

impl Reassembler {
    /// Takes what arrived.
    pub fn push(&mut self, mut bytes: Bytes) {
        debug_assert!(self.completed.is_empty() && self.whole.is_empty());
        if self.too_large || !self.complete(&mut bytes) {
            return;
        }
        let mut end = 0;
        while let Some(frame_bytes) = self.frame_bytes(&bytes[end..]) {
            if frame_bytes > bytes.len() - end {
                break;
            }
            end += frame_bytes;
            self.any = true;
        }
        self.whole = bytes.split_to(end);
        if !self.too_large && !bytes.is_empty() {
            self.partial.extend_from_slice(&bytes);
        }
    }

    /// Whole frames, if there are any.
    pub fn take(&mut self) -> Option<Bytes> {
        [&mut self.completed, &mut self.whole]
            .into_iter()
            .find(|frames| !frames.is_empty())
            .map(std::mem::take)
    }

    /// A header announced more than the limit; nothing more is taken.
    pub fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// Bytes of an incomplete frame.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Continues the frame that had begun. False: it is still incomplete, or too large.
    fn complete(&mut self, bytes: &mut Bytes) -> bool {
        if self.partial.is_empty() {
            return true;
        }
        self.gather(bytes, HEADER_BYTES);
        let header = std::mem::take(&mut self.partial);
        let frame_bytes = self.frame_bytes(&header);
        self.partial = header;
        let Some(frame_bytes) = frame_bytes else {
            return false;
        };
        self.gather(bytes, frame_bytes);
        if self.partial.len() < frame_bytes {
            return false;
        }
        self.any = true;
        self.completed = std::mem::take(&mut self.partial).freeze();
        true
    }

    /// Moves bytes over until `partial` has `len` of them.
    fn gather(&mut self, bytes: &mut Bytes, len: usize) {
        let missing = len.saturating_sub(self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes.split_to(missing));
    }

    /// Bytes of the frame that `input` begins with, header included. `None`: the header is incomplete, or announces too
    /// much.
    fn frame_bytes(&mut self, input: &[u8]) -> Option<usize> {
        let header = FrameHeader::parse(*input.first_chunk::<HEADER_BYTES>()?);
        let frame_bytes = HEADER_BYTES + header.body_len as usize;
        let max = if self.any {
            FRAME_BYTES_MAX
        } else {
            HELLO_BYTES_MAX
        };
        self.too_large |= frame_bytes > max;
        (frame_bytes <= max).then_some(frame_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(frame_type: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![frame_type];
        out.extend_from_slice(&(body.len() as u32).to_le_bytes()[..3]);
        out.extend_from_slice(&7u32.to_le_bytes());
        out.extend_from_slice(body);
        out
    }

    /// Everything that comes out for these pieces; each is whole frames.
    fn run(pieces: impl IntoIterator<Item = Vec<u8>>) -> (Vec<u8>, Reassembler) {
        let mut reassembler = Reassembler::default();
        let mut out = Vec::new();
        for piece in pieces {
            reassembler.push(Bytes::from(piece));
            while let Some(chunk) = reassembler.take() {
                let mut rest = &chunk[..];
                while !rest.is_empty() {
                    let split = conch_wire::frame::split_frame(rest, FRAME_BYTES_MAX)
                        .expect("within the limit")
                        .expect("whole");
                    rest = &rest[split.consumed..];
                }
                out.extend_from_slice(&chunk);
            }
        }
        (out, reassembler)
    }

    #[test]
    fn the_first_frame_is_held_to_the_limit_of_hello() {
        let largest = frame(1, &vec![0; HELLO_BYTES_MAX - HEADER_BYTES]);
        let (out, reassembler) = run([largest.clone()]);
        assert_eq!(out, largest);
        assert!(!reassembler.is_too_large());
        let larger = frame(1, &vec![0; HELLO_BYTES_MAX - HEADER_BYTES + 1]);
        let (out, reassembler) = run([larger[..HEADER_BYTES].to_vec()]);
        assert!(out.is_empty());
        assert!(reassembler.is_too_large(), "as soon as its header is there");
        // The second one may be larger.
        let (out, _) = run([frame(1, b"hello"), larger.clone()]);
        assert_eq!(out, [frame(1, b"hello"), larger].concat());
    }

    #[test]
    fn frames_before_one_that_is_too_large_are_handed_out() {
        let mut huge = frame(3, b"");
        huge[1..4].copy_from_slice(&[0xff; 3]);
        let (out, reassembler) = run([[frame(1, b"hello"), frame(2, b"x"), huge].concat()]);
        assert_eq!(out, [frame(1, b"hello"), frame(2, b"x")].concat());
        assert!(reassembler.is_too_large());
        assert_eq!(reassembler.held_bytes(), 0);
    }

    #[test]
    fn an_announced_body_costs_nothing_before_it_arrives() {
        let mut begun = frame(3, b"");
        begun[1..4].copy_from_slice(&500_000u32.to_le_bytes()[..3]);
        let (_, reassembler) = run([frame(1, b"hello"), begun, vec![0; 100]]);
        assert_eq!(reassembler.held_bytes(), HEADER_BYTES + 100);
        assert!(reassembler.partial.capacity() < 1_024);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(1, body)).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let pieces: Vec<Vec<u8>> = at.windows(2).map(|w| stream[w[0]..w[1]].to_vec()).collect();
            let (out, reassembler) = run(pieces);
            prop_assert_eq!(out, stream);
            prop_assert_eq!(reassembler.held_bytes(), 0);
        }

        #[test]
        fn garbage_holds_no_more_than_arrived_and_no_more_than_a_frame(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..60),
        ) {
            let arrived: usize = pieces.iter().map(Vec::len).sum();
            let (out, reassembler) = run(pieces);
            prop_assert!(out.len() + reassembler.held_bytes() <= arrived);
            prop_assert!(reassembler.held_bytes() < FRAME_BYTES_MAX);
            if !reassembler.is_too_large() {
                prop_assert_eq!(out.len() + reassembler.held_bytes(), arrived);
            }
        }
    }
}
