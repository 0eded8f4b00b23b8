//! From what a client sent to messages.
//!
//! The caller reads into a buffer of its own and calls [`Decoder::next`] until it gives nothing. Frames are consumed only
//! whole; a header that claims more than the limit is refused before its payload is waited for, so what the caller's
//! buffer and the decoder hold together stays below the limit, one header and one read.

use bytes::{Buf, Bytes, BytesMut};

use crate::close::may_be_sent;
use crate::mask::unmask;
use crate::{CONTROL_BYTES_MAX, Opcode};

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = Opcode::Binary as u8;
const CLOSE: u8 = Opcode::Close as u8;
const PING: u8 = Opcode::Ping as u8;
const PONG: u8 = Opcode::Pong as u8;

/// Something whole that a client sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A binary message.
    Binary(Bytes),
    /// A text message, valid UTF-8. Its content is of no use here.
    Text,
    /// A ping, to be answered with the same payload.
    Ping(Bytes),
    Pong,
    /// A close frame, with the status if it had one. Nothing behind it counts.
    Close(Option<u16>),
}

/// What a client must not do. The connection has to be failed with [`Breach::status`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breach {
    /// Status 1002: the framing itself, and in which way.
    Protocol(&'static str),
    /// Status 1007: text that is not UTF-8.
    NotUtf8,
    /// Status 1009: a message above the limit.
    TooBig,
}

impl Breach {
    /// The status to close with.
    pub fn status(self) -> u16 {
        match self {
            Breach::Protocol(_) => 1002,
            Breach::NotUtf8 => 1007,
            Breach::TooBig => 1009,
        }
    }

    /// For the close frame's reason.
    pub fn what(self) -> &'static str {
        match self {
            Breach::Protocol(what) => what,
            Breach::NotUtf8 => "text is not UTF-8",
            Breach::TooBig => "message too big",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    /// Kind of the message whose fragments are being gathered.
    fragmented: Option<u8>,
    gathered: BytesMut,
}

/// A frame's header, its lengths checked.
struct Header {
    is_last: bool,
    opcode: u8,
    key: [u8; 4],
    header_bytes: usize,
    payload_bytes: usize,
}

impl Decoder {
    /// `message_bytes_max`: bytes of a message's payload, all fragments together.
    pub fn new(message_bytes_max: usize) -> Decoder {
        Decoder {
            message_bytes_max,
            fragmented: None,
            gathered: BytesMut::new(),
        }
    }

    /// Another limit from the next frame on.
    pub fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Memory kept for a message whose fragments are being gathered; nothing between messages.
    pub fn held_bytes(&self) -> usize {
        self.gathered.capacity()
    }

    /// Takes the next whole thing out of `input`; `None`: more has to be read. After a breach nothing can be taken any more.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Item>, Breach> {
        loop {
            let Some(header) = self.header(input)? else {
                return Ok(None);
            };
            if input.len() < header.header_bytes + header.payload_bytes {
                return Ok(None);
            }
            input.advance(header.header_bytes);
            let mut payload = input.split_to(header.payload_bytes);
            unmask(&mut payload, header.key);
            let item = match header.opcode {
                PING => Item::Ping(payload.freeze()),
                PONG => Item::Pong,
                CLOSE => Item::Close(close_status(&payload)?),
                _ => match self.on_data(&header, payload)? {
                    Some(item) => item,
                    None => continue,
                },
            };
            return Ok(Some(item));
        }
    }

    /// The header at the front of `input`, refused as soon as it is known to be wrong.
    fn header(&self, input: &[u8]) -> Result<Option<Header>, Breach> {
        let &[first, second, ..] = input else {
            return Ok(None);
        };
        let (is_last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(Breach::Protocol("a reserved bit is set"));
        }
        match (opcode, self.fragmented) {
            (CONTINUATION, None) => return Err(Breach::Protocol("a continuation of nothing")),
            (TEXT | BINARY, Some(_)) => {
                return Err(Breach::Protocol("a new message inside a fragmented one"));
            }
            (CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG, _) => {}
            _ => return Err(Breach::Protocol("an unknown opcode")),
        }
        if second & 0x80 == 0 {
            return Err(Breach::Protocol("a frame is not masked"));
        }
        let is_control = opcode >= CLOSE;
        let short = usize::from(second & 0x7f);
        if is_control && (!is_last || short > CONTROL_BYTES_MAX) {
            return Err(Breach::Protocol(
                "a control frame is fragmented or too long",
            ));
        }
        let (payload_bytes, length_bytes) = match short {
            126 => match input.get(2..4) {
                Some(length) => (u64::from(u16::from_be_bytes([length[0], length[1]])), 2),
                None => return Ok(None),
            },
            127 => match input.get(2..10).and_then(|length| length.try_into().ok()) {
                Some(length) => (u64::from_be_bytes(length), 8),
                None => return Ok(None),
            },
            short => (short as u64, 0),
        };
        let room = self.message_bytes_max.saturating_sub(self.gathered.len());
        if !is_control && payload_bytes > room as u64 {
            return Err(Breach::TooBig);
        }
        let key_at = 2 + length_bytes;
        let Some(key) = input
            .get(key_at..key_at + 4)
            .and_then(|key| key.try_into().ok())
        else {
            return Ok(None);
        };
        Ok(Some(Header {
            is_last,
            opcode,
            key,
            header_bytes: key_at + 4,
            payload_bytes: payload_bytes as usize,
        }))
    }

    fn on_data(&mut self, header: &Header, payload: BytesMut) -> Result<Option<Item>, Breach> {
        let opcode = self.fragmented.unwrap_or(header.opcode);
        if !header.is_last {
            self.fragmented = Some(opcode);
            self.gathered.extend_from_slice(&payload);
            return Ok(None);
        }
        let message = if self.fragmented.take().is_some() {
            let mut message = std::mem::take(&mut self.gathered);
            message.extend_from_slice(&payload);
            message
        } else {
            payload
        };
        if opcode == BINARY {
            return Ok(Some(Item::Binary(message.freeze())));
        }
        match std::str::from_utf8(&message) {
            Ok(_) => Ok(Some(Item::Text)),
            Err(_) => Err(Breach::NotUtf8),
        }
    }
}

fn close_status(payload: &[u8]) -> Result<Option<u16>, Breach> {
    let [high, low, reason @ ..] = payload else {
        return match payload {
            [] => Ok(None),
            _ => Err(Breach::Protocol("half a close status")),
        };
    };
    let status = u16::from_be_bytes([*high, *low]);
    if !may_be_sent(status) {
        return Err(Breach::Protocol("a close status that may not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(status)),
        Err(_) => Err(Breach::NotUtf8),
    }
}
