//! Frames and byte streams: whole frames cut from what a stream brings, and a message of the core cut apart for streams.
//!
//! A stream may break off anywhere, so the beginning of a frame waits here for its rest. The limit is checked as soon as
//! a header is there; memory is taken for bytes that came, never for bytes that were announced.

use bytes::{Bytes, BytesMut};
use conch_wire::frame::{FrameHeader, WireError, frame_type, split_frame};

/// Gathers a stream into whole frames.
#[derive(Debug)]
pub(super) struct Framer {
    partial: BytesMut,
    frame_bytes_max: usize,
}

impl Framer {
    pub(super) fn new(frame_bytes_max: usize) -> Framer {
        Framer {
            partial: BytesMut::new(),
            frame_bytes_max,
        }
    }

    /// The next bytes of the stream; returns the frames that are whole now. After an error the stream is of no use.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Bytes>, WireError> {
        self.partial.extend_from_slice(bytes);
        let mut whole = 0;
        while let Some(split) = split_frame(&self.partial[whole..], self.frame_bytes_max)? {
            whole += split.consumed;
        }
        Ok((whole > 0).then(|| self.partial.split_to(whole).freeze()))
    }
}

/// A piece of a message of the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Frames for the control stream.
    Control(Bytes),
    /// One HISTORY or SYNC, which may go on a stream of its own.
    Request { header: FrameHeader, frame: Bytes },
}

/// Cuts a message of the core apart. What is no whole frame (the core makes none) goes out as it is.
pub(super) fn parts(mut message: Bytes) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut control = 0;
    loop {
        let split = split_frame(&message[control..], usize::MAX);
        let Ok(Some(split)) = split else {
            if !message.is_empty() {
                parts.push(Part::Control(message));
            }
            return parts;
        };
        let (header, consumed) = (split.header, split.consumed);
        if !matches!(header.frame_type, frame_type::HISTORY | frame_type::SYNC) {
            control += consumed;
            continue;
        }
        let before = message.split_to(control);
        if !before.is_empty() {
            parts.push(Part::Control(before));
        }
        let frame = message.split_to(consumed);
        parts.push(Part::Request { header, frame });
        control = 0;
    }
}

/// Whether these bytes are what answers `request` on its own stream: one frame, whole, with the request's id.
pub(super) fn is_answer(bytes: &[u8], request: FrameHeader, frame_bytes_max: usize) -> bool {
    let Ok(Some(split)) = split_frame(bytes, frame_bytes_max) else {
        return false;
    };
    let wanted = match request.frame_type {
        frame_type::HISTORY => frame_type::HISTORY_PAGE,
        _ => frame_type::SYNC_CHANGES,
    };
    split.consumed == bytes.len()
        && split.header.reference == request.reference
        && (split.header.frame_type == wanted || split.header.frame_type == frame_type::ERROR)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use conch_wire::ClientFrame;
    use conch_wire::frame::HEADER_BYTES;
    use conch_wire::limits::FRAME_BYTES_MAX;

    use super::*;

    fn frame(frame_type: u8, reference: u32, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![frame_type];
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes()[..3]);
        frame.extend_from_slice(&reference.to_le_bytes());
        frame.extend_from_slice(body);
        frame
    }

    #[test]
    fn frames_come_whole_however_the_stream_breaks() {
        let frames = [
            frame(frame_type::PONG, 1, &[0; 8]),
            frame(frame_type::SYNC_NOW, 0, &[]),
            frame(frame_type::DELIVER, 3, &[7; 3_000]),
        ];
        let stream = frames.concat();
        for step in [1, 2, 7, 8, 9, 100, stream.len()] {
            let mut framer = Framer::new(FRAME_BYTES_MAX);
            let mut came = Vec::new();
            for bytes in stream.chunks(step) {
                let whole = framer.push(bytes).unwrap().unwrap_or_default();
                let mut rest = &whole[..];
                while !rest.is_empty() {
                    let consumed = split_frame(rest, FRAME_BYTES_MAX)
                        .unwrap()
                        .unwrap()
                        .consumed;
                    rest = &rest[consumed..];
                }
                came.extend_from_slice(&whole);
            }
            assert_eq!(came, stream, "in steps of {step}");
            assert!(framer.partial.is_empty());
        }
    }

    #[test]
    fn frame_beyond_the_limit_is_refused_by_its_header() {
        let mut framer = Framer::new(FRAME_BYTES_MAX);
        let mut header = frame(frame_type::DELIVER, 1, &[]);
        header[1..4].copy_from_slice(&[0xff; 3]);
        assert_eq!(framer.push(&header[..HEADER_BYTES - 1]), Ok(None));
        assert!(framer.push(&header[HEADER_BYTES - 1..]).is_err());
        assert!(framer.partial.capacity() < 1_024);
    }

    #[test]
    fn requests_are_cut_out_and_the_rest_keeps_its_order() {
        let ping = frame(frame_type::PING, 1, &[]);
        let history = frame(frame_type::HISTORY, 2, &[0; 20]);
        let sync = frame(frame_type::SYNC, 3, &[0; 12]);
        let message = [&ping[..], &ping, &history, &sync, &ping].concat();
        let cut = parts(message.into());
        let [
            Part::Control(first),
            Part::Request { header, frame },
            Part::Request { header: other, .. },
            Part::Control(last),
        ] = &cut[..]
        else {
            panic!("{cut:?}")
        };
        assert_eq!(first[..], [&ping[..], &ping].concat());
        assert_eq!((header.reference, &frame[..]), (2, &history[..]));
        assert_eq!(other.reference, 3);
        assert_eq!(last[..], ping);
    }

    #[test]
    fn message_without_requests_is_one_part() {
        let mut message = BytesMut::new();
        ClientFrame::Ping { nonce: 1 }.encode(&mut message);
        ClientFrame::Goodbye.encode(&mut message);
        let message = message.freeze();
        assert_eq!(parts(message.clone()), [Part::Control(message)]);
        assert!(parts(Bytes::new()).is_empty());
    }

    #[test]
    fn only_one_whole_frame_of_the_right_kind_is_an_answer() {
        let request = FrameHeader {
            frame_type: frame_type::HISTORY,
            body_len: 20,
            reference: 9,
        };
        let answers = |bytes: &[u8]| is_answer(bytes, request, FRAME_BYTES_MAX);
        let page = frame(frame_type::HISTORY_PAGE, 9, &[0; 32]);
        assert!(answers(&page));
        assert!(answers(&frame(frame_type::ERROR, 9, &[0; 12])));
        assert!(!answers(&frame(frame_type::HISTORY_PAGE, 8, &[0; 32])));
        assert!(!answers(&frame(frame_type::SYNC_CHANGES, 9, &[0; 32])));
        assert!(!answers(&frame(frame_type::DELIVER, 9, &[0; 20])));
        assert!(!answers(&[&page[..], &page].concat()));
        assert!(!answers(&page[..page.len() - 1]));
        assert!(!answers(&[]));
    }
}
