//! Datagrams that clients send beside the streams: they hold whole frames that may be dropped, of which this version knows
//! none. What may not be dropped may not come so.

use conch_wire::Code;
use conch_wire::frame::{frame_type, split_frame};

/// Refuses what may not come as a datagram.
pub(super) fn check_datagram(datagram: &[u8]) -> Result<(), (Code, &'static str)> {
    if datagram.is_empty() {
        return Err((Code::BadFrame, "an empty datagram"));
    }
    let mut rest = datagram;
    while !rest.is_empty() {
        // A datagram is far below the limit of frames: one that announces more is cut, like any other.
        let Ok(Some(split)) = split_frame(rest, usize::MAX) else {
            return Err((Code::BadFrame, "a datagram ends inside a frame"));
        };
        let frame_type = split.header.frame_type;
        if frame_type & frame_type::COMPRESSED != 0 {
            return Err((Code::BadFrame, "compressed bodies are not in use"));
        }
        if frame_type & frame_type::SKIP_IF_UNKNOWN == 0 {
            return Err((
                Code::UnexpectedFrame,
                "frames of this type do not come as datagrams",
            ));
        }
        rest = &rest[split.consumed..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_holds_frames_that_may_be_skipped() {
        let frame = |frame_type: u8, body: &[u8]| {
            let mut out = vec![frame_type, body.len() as u8, 0, 0, 0, 0, 0, 0];
            out.extend_from_slice(body);
            out
        };
        let code = |datagram: &[u8]| check_datagram(datagram).err().map(|(code, _)| code);
        assert_eq!(code(&frame(0x81, b"typing")), None);
        assert_eq!(
            code(&[frame(0x81, b"one"), frame(0x9f, b"")].concat()),
            None
        );
        assert_eq!(code(b""), Some(Code::BadFrame));
        assert_eq!(code(b"rubbish"), Some(Code::BadFrame));
        assert_eq!(code(&frame(0x81, b"cut")[..9]), Some(Code::BadFrame));
        assert_eq!(code(&frame(0xc1, b"")), Some(Code::BadFrame));
        assert_eq!(
            code(&frame(frame_type::PING, b"")),
            Some(Code::UnexpectedFrame)
        );
        assert_eq!(code(&frame(0x1e, b"")), Some(Code::UnexpectedFrame));
    }
}
