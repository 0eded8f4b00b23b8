//! Entry points of the fuzz targets: each takes any bytes and must return.
//!
//! `fuzz/` at the root of the repository has one cargo-fuzz target per function; the corpus in `fuzz/corpus/` is seeded
//! from the golden vectors and replayed here as an ordinary test. Beyond "no panic" they assert what holds for every
//! input: what decodes encodes again to something that decodes to the same, splitting does not depend on where the input
//! is cut, and decoding never looks behind its frame. Present only in tests and with the feature `fuzzing`.

use bytes::{Bytes, BytesMut};

use crate::event::{Event, EventBody, MessageBody, SendFlags, check_send_tail};
use crate::frame::{FrameHeader, HEADER_BYTES, split_frame};
use crate::{ClientFrame, ServerFrame, limits};

/// Splits the input into frames, whole and cut in two: both must find the same frames and the same end.
pub fn split(input: &[u8]) {
    let (whole, end) = frames(input);
    let (front, back) = input.split_at(input.len() / 2);
    let mut arrived = front.to_vec();
    let (mut pieces, _) = frames(&arrived);
    let taken: usize = pieces
        .iter()
        .map(|piece| HEADER_BYTES + piece.body_len as usize)
        .sum();
    arrived.drain(..taken);
    arrived.extend_from_slice(back);
    // An error in the front is met again, because its header stays where it is.
    let (more, end_of_pieces) = frames(&arrived);
    pieces.extend(more);
    assert_eq!((whole, end), (pieces, end_of_pieces));
}

/// The headers of the frames that lie in `input`, and whether it ends in an error.
fn frames(mut input: &[u8]) -> (Vec<FrameHeader>, bool) {
    let mut headers = Vec::new();
    loop {
        match split_frame(input, limits::FRAME_BYTES_MAX) {
            Ok(Some(frame)) => {
                assert_eq!(frame.consumed, HEADER_BYTES + frame.body.len());
                headers.push(frame.header);
                input = &input[frame.consumed..];
            }
            Ok(None) => return (headers, false),
            Err(_) => return (headers, true),
        }
    }
}

/// The first eight bytes as a header with the length set right, the rest as its body.
fn one_frame(input: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let (head, body) = input.split_first_chunk::<HEADER_BYTES>()?;
    let body = &body[..body.len().min(limits::FRAME_BYTES_MAX)];
    Some((
        FrameHeader {
            body_len: body.len() as u32,
            ..FrameHeader::parse(*head)
        },
        body,
    ))
}

/// Decodes the input as a frame from a client.
pub fn client_frame(input: &[u8]) {
    let Some((header, body)) = one_frame(input) else {
        return;
    };
    let Ok(frame) = ClientFrame::decode(header, body) else {
        return;
    };
    if let ClientFrame::Send { send, .. } = &frame {
        let _ = check_send_tail(send.kind, send.flags, send.tail);
    }
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    let (header, body) = one_frame(&out).expect("an encoded frame has a header");
    assert_eq!(ClientFrame::decode(header, body), Ok(frame));
}

/// Decodes the input as a frame from a node.
pub fn server_frame(input: &[u8]) {
    let Some((header, body)) = one_frame(input) else {
        return;
    };
    let Ok(frame) = ServerFrame::decode(header, Bytes::copy_from_slice(body)) else {
        return;
    };
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    let (header, body) = one_frame(&out).expect("an encoded frame has a header");
    assert_eq!(
        ServerFrame::decode(header, Bytes::copy_from_slice(body)),
        Ok(frame)
    );
}

/// Decodes the input as an event body, as the table of an event, as that of a message and as the tail of a SEND.
pub fn event_body(input: &[u8]) {
    if let Ok(event) = Event::decode_body(Bytes::copy_from_slice(input)) {
        let _ = (event.text(), event.message_body(), event.omitted_bytes());
        assert_eq!(Event::decode_body(event.encode_body()), Ok(event));
    }
    if let Ok(body) = EventBody::decode(input) {
        assert_eq!(EventBody::decode(&body.encode()), Ok(body));
    }
    if let Ok(body) = MessageBody::decode(input) {
        assert_eq!(MessageBody::decode(&body.encode()), Ok(body));
    }
    for (kind, flags) in [
        (1, SendFlags::default()),
        (1, SendFlags::TABLE),
        (2, SendFlags::default()),
    ] {
        let _ = check_send_tail(kind, flags, input);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::*;

    /// Runs `check` over the corpus of its target. Returns how many inputs there were.
    fn replay(target: &str, check: fn(&[u8])) -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let mut inputs = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        inputs
    }

    #[test]
    fn corpora_are_replayed() {
        assert!(replay("split", split) > 0);
        assert!(replay("client_frame", client_frame) > 0);
        assert!(replay("server_frame", server_frame) > 0);
        assert!(replay("event_body", event_body) > 0);
    }

    #[test]
    fn short_and_random_inputs_return() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut input = Vec::new();
        for _ in 0..2_000 {
            input.clear();
            let len = state as usize % 200;
            for _ in 0..len {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                input.push(state as u8);
            }
            for check in [split, client_frame, server_frame, event_body] {
                check(&input);
            }
            state = state.wrapping_add(1);
        }
    }
}
