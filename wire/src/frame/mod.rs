//! Frames: the 8-byte header, one Rust type per frame, and the two closed sets that either side may receive.
//!
//! ```text
//! 0     u8  type      bit 7: skip if unknown; bit 6: body compressed (reserved)
//! 1..3  u24 body_len
//! 4..7  u32 ref       channel alias, or request id (a nonce for PING and PONG); 0 otherwise
//! 8..   body          hot frames: a FlatBuffers struct, then a raw tail; all others: one FlatBuffers table root
//! ```
//!
//! Frames are concatenated freely. A receiver cuts them off with [`split_frame`] and decodes each with
//! [`ClientFrame::decode`] or [`ServerFrame::decode`]; a sender appends to one buffer with `encode`, or with [`put_event`]
//! and [`put_history_page`] from bodies that were encoded once. Decoding is strict where a second encoding would lose
//! something (padding, trailing bytes, unknown flags from clients) and never panics. Encoding is deterministic and trusts
//! its caller to stay within [`crate::limits`].

mod channels;
mod client;
mod client_codec;
pub mod frame_type;
mod hello;
mod history_page;
mod push;
mod server;
mod server_codec;
mod welcome;

use bytes::Bytes;
use thiserror::Error;

pub use client::{ClientFrame, Cursor, Hello, History, PushMode, Send};
pub use history_page::put_history_page;
pub use push::put_event;
pub use server::{
    ChannelHead, ChannelOpened, ErrorFrame, HistoryPage, Limits, ServerFrame, SyncChanges, SyncRow,
    Welcome,
};

use crate::Code;

/// Bytes of a frame header.
pub const HEADER_BYTES: usize = 8;
/// Bytes of an event body before its tail.
pub const EVENT_HEADER_BYTES: usize = 20;

/// An event body that was encoded once; see [`crate::event`].
pub type EventBytes = Bytes;

/// A decoded frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The raw type byte, both flag bits included.
    pub frame_type: u8,
    /// Bytes that follow the header.
    pub body_len: u32,
    /// Channel alias or request id; its meaning is the frame's.
    pub reference: u32,
}

/// Why bytes from outside are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{what}")]
pub struct WireError {
    /// What to close or refuse with.
    pub code: Code,
    /// What was wrong, for a log line or the detail of an ERROR.
    pub what: &'static str,
}

impl WireError {
    pub(crate) const fn new(code: Code, what: &'static str) -> WireError {
        WireError { code, what }
    }

    pub(crate) const fn bad(what: &'static str) -> WireError {
        WireError::new(Code::BadFrame, what)
    }

    pub(crate) const fn too_large(what: &'static str) -> WireError {
        WireError::new(Code::TooLarge, what)
    }
}

impl FrameHeader {
    /// Reads a header; every eight bytes are one.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> FrameHeader {
        let [frame_type, l0, l1, l2, r0, r1, r2, r3] = bytes;
        FrameHeader {
            frame_type,
            body_len: u32::from_le_bytes([l0, l1, l2, 0]),
            reference: u32::from_le_bytes([r0, r1, r2, r3]),
        }
    }

    /// Refuses a body of another length than announced, and compressed bodies.
    fn check(self, body: &[u8]) -> Result<(), WireError> {
        if self.body_len as usize != body.len() {
            return Err(WireError::bad(
                "body has another length than its header says",
            ));
        }
        if self.frame_type & frame_type::COMPRESSED != 0 {
            return Err(WireError::bad("compressed bodies are not in use"));
        }
        Ok(())
    }

    /// The reference as a request id or an alias, neither of which is 0.
    fn reference_set(self) -> Result<u32, WireError> {
        match self.reference {
            0 => Err(WireError::bad(
                "ref is 0 where it names a request or an alias",
            )),
            reference => Ok(reference),
        }
    }

    /// Refuses a reference where the frame has none.
    fn reference_unset(self) -> Result<(), WireError> {
        match self.reference {
            0 => Ok(()),
            _ => Err(WireError::bad("ref is not 0 where it names nothing")),
        }
    }

    /// What becomes of a type that is not in the set: skipped if its bit 7 says so.
    fn unknown(self) -> Result<u8, WireError> {
        if self.frame_type & frame_type::SKIP_IF_UNKNOWN != 0 {
            Ok(self.frame_type)
        } else {
            Err(WireError::new(
                Code::UnknownFrame,
                "frame type is not known",
            ))
        }
    }
}

/// One frame cut off the front of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split<'a> {
    pub header: FrameHeader,
    pub body: &'a [u8],
    /// Bytes of the input that it took.
    pub consumed: usize,
}

/// Cuts the first whole frame off `input`. `None`: more bytes are needed. A header that announces more than
/// `frame_bytes_max` (header included) is an error as soon as its eight bytes are there, before memory is taken for the
/// body.
pub fn split_frame(input: &[u8], frame_bytes_max: usize) -> Result<Option<Split<'_>>, WireError> {
    let Some((head, rest)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = FrameHeader::parse(*head);
    let body_len = header.body_len as usize;
    if HEADER_BYTES + body_len > frame_bytes_max {
        return Err(WireError::too_large("frame is longer than its limit"));
    }
    Ok(rest.get(..body_len).map(|body| Split {
        header,
        body,
        consumed: HEADER_BYTES + body_len,
    }))
}
