//! The server's half of RFC 6455 after the handshake: bytes to messages, messages to bytes. No IO, no extension.
//!
//! [`Decoder`] takes what was read, from a buffer that the caller owns, and gives whole messages; it keeps nothing between
//! messages, so an idle connection costs no buffer. [`frame_header`] makes what goes in front of a message of the server.
//! The gateway's WebSocket transport is the one caller.
//!
//! Own code, because a connection that waits must not own a read buffer: that is where most of its memory went.
//!
//! Every breach of the RFC by a client is a [`Breach`] with the status that the RFC names; nothing is repaired or guessed.

mod close;
mod decode;
mod mask;

pub use close::{close_payload, may_be_sent};
pub use decode::{Breach, Decoder, Item};

/// Longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;
/// Longest header of a frame that a server sends.
pub const HEADER_BYTES_MAX: usize = 10;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// The header of a whole, unmasked message of `payload_bytes`: the array, and how many of its bytes are meant.
pub fn frame_header(opcode: Opcode, payload_bytes: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = 0x80 | opcode as u8;
    let used = match payload_bytes {
        0..=125 => {
            header[1] = payload_bytes as u8;
            2
        }
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    (header, used)
}
