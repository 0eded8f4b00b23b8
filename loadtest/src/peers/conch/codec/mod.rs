//! A device of Conch's as a benchmark needs it: HELLO, a channel opened to send to, sends in batches as the protocol orders them, credit
//! granted back for what was consumed.
//!
//! At most one SEND or SEND_MANY is in flight (P-035): what is published meanwhile gathers and goes when the answer has come.

use bytes::{Buf, Bytes, BytesMut};
use conch_wire::event::SendFlags;
use conch_wire::frame::{Cursor, Hello, PushMode, Send, split_frame};
use conch_wire::limits::{self, CREDIT_BYTES, SEND_MANY_BYTES_MAX, SEND_MANY_ITEMS_MAX};
use conch_wire::{Alias, ChannelId, ClientFrame, EventKind, MessageKey, ServerFrame};

use super::websocket::MemoryWebSocket;
use crate::peers::codec::{Breach, Codec, Happening};
use crate::peers::topology::Line;

/// The alias that a sender opens its channel under.
const ALIAS: Alias = 1;
/// The request of OPEN_CHANNEL; those of sends follow.
const OPENING: u32 = 1;
/// Bytes of an item in SEND_MANY beside its payload: length and header.
const ITEM_BYTES: usize = 28;

/// One session.
pub(super) struct ConchCodec {
    host: String,
    token: String,
    channel: ChannelId,
    line: Line,
    socket: Option<MemoryWebSocket>,
    has_said_hello: bool,
    /// Payloads that wait for the answer to what is in flight, behind each other, and the length of each.
    gathered: BytesMut,
    lengths: std::collections::VecDeque<usize>,
    /// Request and number of messages of what is in flight.
    in_flight: Option<(u32, usize)>,
    last_request: u32,
    next_key: u128,
    consumed_bytes: u32,
    messages: Vec<Bytes>,
    frames: BytesMut,
    failed: Option<Breach>,
}

impl ConchCodec {
    pub(super) fn boxed(host: &str, token: &str, channel: ChannelId, line: Line) -> Box<dyn Codec> {
        Box::new(ConchCodec {
            host: host.to_owned(),
            token: token.to_owned(),
            channel,
            line,
            socket: None,
            has_said_hello: false,
            gathered: BytesMut::new(),
            lengths: std::collections::VecDeque::new(),
            in_flight: None,
            last_request: OPENING,
            next_key: rand::random(),
            consumed_bytes: 0,
            messages: Vec::new(),
            frames: BytesMut::new(),
            failed: None,
        })
    }

    fn hello(&self) -> Hello {
        Hello {
            token: self.token.clone(),
            client: "conch-load bench".to_owned(),
            credit_bytes: CREDIT_BYTES,
            push: PushMode::All,
            ..Hello::default()
        }
    }

    /// Sends the frames that were put together as one message.
    fn send_frames(&mut self, out: &mut Vec<u8>) -> Result<(), Breach> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let message = self.frames.split().freeze();
        let socket = self.socket.as_mut();
        socket
            .expect("frames follow the handshake")
            .send(message, out)
    }

    /// One batch of what has gathered, if nothing is in flight.
    fn put_sends(&mut self) {
        if self.in_flight.is_some() || self.lengths.is_empty() {
            return;
        }
        let (mut items, mut bytes, mut text_bytes) = (0, 0, 0);
        for length in self.lengths.iter().take(SEND_MANY_ITEMS_MAX) {
            bytes += ITEM_BYTES + length;
            if items > 0 && bytes > SEND_MANY_BYTES_MAX {
                break;
            }
            items += 1;
            text_bytes += length;
        }
        let texts = self.gathered.split_to(text_bytes);
        let mut rest = &texts[..];
        let mut sends = Vec::with_capacity(items);
        for length in self.lengths.drain(..items) {
            let (tail, behind) = rest.split_at(length);
            rest = behind;
            self.next_key = self.next_key.wrapping_add(1);
            sends.push(Send {
                key: MessageKey(self.next_key.to_le_bytes()),
                alias: ALIAS,
                kind: EventKind::Text as u8,
                flags: SendFlags::default(),
                tail,
            });
        }
        // 0 is no request.
        self.last_request = self.last_request.checked_add(1).unwrap_or(OPENING + 1);
        let request = self.last_request;
        let frame = match sends[..] {
            [send] => ClientFrame::Send { request, send },
            _ => ClientFrame::SendMany { request, sends },
        };
        frame.encode(&mut self.frames);
        self.in_flight = Some((request, items));
    }

    fn on_message(
        &mut self,
        mut message: Bytes,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), Breach> {
        while !message.is_empty() {
            let split = split_frame(&message, limits::FRAME_BYTES_MAX)
                .map_err(|error| Breach(error.to_string()))?
                .ok_or_else(|| Breach::new("a message ends inside a frame"))?;
            let (header, consumed) = (split.header, split.consumed);
            let body = message.slice(consumed - split.body.len()..consumed);
            message.advance(consumed);
            let frame =
                ServerFrame::decode(header, body).map_err(|error| Breach(error.to_string()))?;
            self.on_frame(frame, consumed as u32, seen)?;
        }
        Ok(())
    }

    fn on_frame(
        &mut self,
        frame: ServerFrame,
        wire_bytes: u32,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), Breach> {
        match frame {
            ServerFrame::Deliver { event, .. } => {
                self.consumed_bytes += wire_bytes;
                seen(Happening::Delivered {
                    payload: &event.tail,
                });
            }
            ServerFrame::Event { .. } => self.consumed_bytes += wire_bytes,
            ServerFrame::SendAck { request, acks } => {
                let due = self.in_flight.take();
                if due != Some((request, acks.len())) {
                    let count = acks.len();
                    return Err(Breach(format!(
                        "{count} acks for request {request} where {due:?} is due"
                    )));
                }
                seen(Happening::Acked {
                    count: acks.len() as u32,
                });
                self.put_sends();
            }
            ServerFrame::Welcome(_) if self.line.sends() => {
                let cursor = Cursor {
                    channel: self.channel,
                    generation: 0,
                    seq: 0,
                    alias: ALIAS,
                };
                ClientFrame::OpenChannel {
                    request: OPENING,
                    cursor,
                }
                .encode(&mut self.frames);
            }
            ServerFrame::Welcome(_) => seen(Happening::Ready),
            ServerFrame::ChannelOpened {
                request: OPENING,
                opened,
            } => {
                if opened.alias != ALIAS {
                    return Err(Breach(format!(
                        "alias {} where {ALIAS} was asked for",
                        opened.alias
                    )));
                }
                seen(Happening::Ready);
            }
            ServerFrame::Error { error, .. } => {
                return Err(Breach(format!("refused: {} {}", error.code, error.detail)));
            }
            ServerFrame::SyncNow | ServerFrame::Goaway { .. } => {
                return Err(Breach(format!("not for a client that keeps up: {frame:?}")));
            }
            // The listing after WELCOME, heads, aliases that the node chose, pongs.
            _ => {}
        }
        Ok(())
    }

    fn take_all(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<(), Breach> {
        let socket = self.socket.as_mut().expect("start comes before take");
        let mut messages = std::mem::take(&mut self.messages);
        let is_open = socket.take(input, &mut messages, out)?;
        if is_open && !self.has_said_hello {
            self.has_said_hello = true;
            ClientFrame::Hello(self.hello()).encode(&mut self.frames);
        }
        for message in messages.drain(..) {
            self.on_message(message, seen)?;
        }
        self.messages = messages;
        if self.consumed_bytes > CREDIT_BYTES / 4 {
            let bytes = std::mem::take(&mut self.consumed_bytes);
            ClientFrame::Credit { bytes }.encode(&mut self.frames);
        }
        self.send_frames(out)
    }
}

impl Codec for ConchCodec {
    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Breach> {
        self.socket = Some(MemoryWebSocket::start(&self.host, out)?);
        Ok(())
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<usize, Breach> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        self.take_all(input, out, seen)?;
        Ok(input.len())
    }

    fn publish(&mut self, payload: &[u8], _out: &mut Vec<u8>) {
        self.gathered.extend_from_slice(payload);
        self.lengths.push_back(payload.len());
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        self.put_sends();
        if let Err(breach) = self.send_frames(out) {
            self.failed = Some(breach);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests;
