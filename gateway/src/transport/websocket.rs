//! WebSocket as a transport: a binary message is a chunk of whole frames.
//!
//! The carrier's rules are [`conch_websocket`]'s; here are the bytes. An idle connection owns no buffer: it is read into
//! one that all connections of a thread share, and what was read is copied once, to exactly as many bytes. What goes out is
//! written from where it lies. Breaches of RFC 6455 end the connection with the status the RFC names; text messages and
//! empty ones are not ours and end it with `bad_frame`. Of several pings only the newest is answered, as the RFC allows.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use conch_websocket::{
    Breach, Decoder, HEADER_BYTES_MAX, Item, Opcode, close_payload, frame_header,
};
use conch_wire::Code;
use conch_wire::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Closing, Gone, Incoming, Progress, Transport};

/// Most bytes of one read; every worker thread has a buffer of this size.
const READ_BYTES: usize = 65_536;
/// Messages up to this are copied behind their header and written as one piece: cheaper than two pieces.
const COPIED_BYTES_MAX: usize = 1_024;
/// Largest message of a client that has not been authenticated: HELLO and some of what is pipelined behind it.
const EARLY_MESSAGE_BYTES: usize = 65_536;
/// Largest message after that: one frame, or several smaller ones.
const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Bytes that may arrive without completing a message: an endless continuation of tiny fragments ends here.
const UNFINISHED_BYTES_MAX: u64 = 2 * MESSAGE_BYTES_MAX as u64;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// See the module.
#[derive(Debug)]
pub struct WebSocket<S> {
    socket: S,
    decoder: Decoder,
    /// Read and not taken yet; without memory while it is empty.
    input: BytesMut,
    /// Only while the socket takes less than there is.
    output: Option<Box<Output>>,
    closing: bool,
    progress: Progress,
    /// `received_bytes` when the last message was complete.
    complete_at: u64,
}

/// What is on its way out: the frame that is being written, and what has to follow it.
#[derive(Debug, Default)]
struct Output {
    current: Option<Written>,
    /// A message behind a frame that is not written whole yet.
    message: Option<Bytes>,
    pong: Option<Bytes>,
    close: Option<Bytes>,
}

/// A frame and how far it is written.
#[derive(Debug)]
struct Written {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    payload: Bytes,
    written: usize,
}

impl Written {
    fn new(opcode: Opcode, payload: Bytes) -> Written {
        let (header, header_bytes) = frame_header(opcode, payload.len());
        Written {
            header,
            header_bytes,
            payload,
            written: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.written == self.header_bytes + self.payload.len()
    }

    /// Writes some of what is left.
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<io::Result<usize>> {
        let header = &self.header[self.written.min(self.header_bytes)..self.header_bytes];
        let payload = &self.payload[self.written.saturating_sub(self.header_bytes)..];
        let socket = Pin::new(socket);
        let n = if header.is_empty() {
            ready!(socket.poll_write(cx, payload))?
        } else if payload.len() <= COPIED_BYTES_MAX {
            let mut whole = [0; HEADER_BYTES_MAX + COPIED_BYTES_MAX];
            let used = header.len() + payload.len();
            whole[..header.len()].copy_from_slice(header);
            whole[header.len()..used].copy_from_slice(payload);
            ready!(socket.poll_write(cx, &whole[..used]))?
        } else {
            let pieces = [IoSlice::new(header), IoSlice::new(payload)];
            ready!(socket.poll_write_vectored(cx, &pieces))?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += n;
        Poll::Ready(Ok(n))
    }
}

impl Output {
    fn next(&mut self) -> Option<Written> {
        if let Some(payload) = self.message.take() {
            return Some(Written::new(Opcode::Binary, payload));
        }
        if let Some(payload) = self.pong.take() {
            return Some(Written::new(Opcode::Pong, payload));
        }
        let payload = self.close.take()?;
        Some(Written::new(Opcode::Close, payload))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> WebSocket<S> {
    /// Takes an upgraded connection over, and what was read from it behind the upgrade.
    pub fn new(socket: S, read: Bytes) -> WebSocket<S> {
        let progress = Progress {
            received_bytes: read.len() as u64,
            sent_bytes: 0,
        };
        WebSocket {
            socket,
            decoder: Decoder::new(EARLY_MESSAGE_BYTES),
            // A copy: what was read is a small part of the buffer that it lies in.
            input: BytesMut::from(&read[..]),
            output: None,
            closing: false,
            progress,
            complete_at: 0,
        }
    }

    /// The next whole thing; reads while there is none. `None`: the connection is over.
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Breach>>> {
        loop {
            match self.decoder.next(&mut self.input) {
                Ok(None) => {}
                Ok(Some(item)) => {
                    self.complete_at = self.progress.received_bytes;
                    return Poll::Ready(Some(Ok(item)));
                }
                Err(breach) => return Poll::Ready(Some(Err(breach))),
            }
            if self.progress.received_bytes - self.complete_at > UNFINISHED_BYTES_MAX {
                return Poll::Ready(Some(Err(Breach::TooBig)));
            }
            if self.input.is_empty() {
                // Messages handed out may still share it; an idle connection must not.
                self.input = BytesMut::new();
            }
            if ready!(self.poll_read(cx)).is_err() {
                return Poll::Ready(None);
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer));
            let bytes = buffer.filled();
            if read.is_err() || bytes.is_empty() {
                return Poll::Ready(Err(Gone));
            }
            self.progress.received_bytes += bytes.len() as u64;
            self.input.extend_from_slice(bytes);
            Poll::Ready(Ok(()))
        })
    }

    /// Writes a frame as far as the socket takes it. Ready: all of it.
    fn poll_frame(&mut self, cx: &mut Context<'_>, frame: &mut Written) -> Poll<Result<(), Gone>> {
        while !frame.is_done() {
            match ready!(frame.poll_write(cx, &mut self.socket)) {
                Ok(n) => self.progress.sent_bytes += n as u64,
                Err(_) => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when everything is with the operating system.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if let Some(mut output) = self.output.take() {
            while let Some(mut frame) = output.current.take().or_else(|| output.next()) {
                if self.poll_frame(cx, &mut frame)?.is_pending() {
                    output.current = Some(frame);
                    self.output = Some(output);
                    return Poll::Pending;
                }
            }
        }
        Pin::new(&mut self.socket).poll_flush(cx).map_err(|_| Gone)
    }

    fn waiting(&mut self) -> &mut Output {
        self.output.get_or_insert_default()
    }

    /// Closes once; nothing goes out behind it.
    fn put_close(&mut self, status: u16, reason: &str) {
        if !self.closing {
            self.closing = true;
            self.waiting().close = Some(close_payload(status, reason).into());
        }
    }

    /// Shuts the way out and reads until the other side ends: after a breach the carrier's framing means nothing.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.socket).poll_shutdown(cx).is_pending() {
            return Poll::Pending;
        }
        loop {
            self.input.clear();
            if ready!(self.poll_read(cx)).is_err() {
                return Poll::Ready(());
            }
        }
    }
}

fn not_frames(what: &'static str) -> Incoming {
    Incoming::NotFrames {
        code: Code::BadFrame,
        what,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for WebSocket<S> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _now_ms: u64) -> Poll<Incoming> {
        if self.output.is_some() {
            // A pong may wait for room; whoever waits for more than that is woken all the same.
            let _ = self.poll_output(cx);
        }
        let incoming = match ready!(self.poll_item(cx)) {
            Some(Ok(Item::Binary(chunk))) if chunk.is_empty() => not_frames("empty message"),
            Some(Ok(Item::Binary(chunk))) => Incoming::Frames(chunk),
            Some(Ok(Item::Text)) => not_frames("text message"),
            Some(Ok(Item::Ping(payload))) => {
                self.waiting().pong = Some(payload);
                let _ = self.poll_output(cx);
                Incoming::Control
            }
            Some(Ok(Item::Pong)) => Incoming::Control,
            Some(Ok(Item::Close(status))) => {
                // One try to get the answer out: the other side does not wait for anything else.
                self.put_close(status.unwrap_or(1000), "");
                let _ = self.poll_output(cx);
                Incoming::Gone
            }
            Some(Err(breach)) => Incoming::Breach {
                status: breach.status(),
                what: breach.what(),
            },
            None => Incoming::Gone,
        };
        Poll::Ready(incoming)
    }

    fn send(&mut self, cx: &mut Context<'_>, chunk: Bytes) -> Result<(), Gone> {
        if let Some(output) = &mut self.output {
            debug_assert!(output.message.is_none(), "the last flush was ready");
            output.message = Some(chunk);
            return match self.poll_output(cx) {
                Poll::Ready(Err(gone)) => Err(gone),
                _ => Ok(()),
            };
        }
        let mut frame = Written::new(Opcode::Binary, chunk);
        if self.poll_frame(cx, &mut frame)?.is_pending() {
            self.waiting().current = Some(frame);
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_output(cx)
    }

    fn progress(&self) -> Progress {
        self.progress
    }

    fn authenticated(&mut self) {
        self.decoder.set_message_bytes_max(MESSAGE_BYTES_MAX);
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, closing: Closing) -> Poll<()> {
        let (status, reason) = match closing {
            Closing::Ours(ending) => match ending.code {
                Some(code) => (code.number(), code.name()),
                None => (1000, ""),
            },
            Closing::Breach { status, what } => (status, what),
        };
        self.put_close(status, reason);
        if ready!(self.poll_output(cx)).is_err() {
            return Poll::Ready(());
        }
        // Reading on until the other side has closed keeps a reset from overtaking the close frame. What comes is not
        // looked at.
        if matches!(closing, Closing::Breach { .. }) {
            return self.poll_drain(cx);
        }
        loop {
            match ready!(self.poll_item(cx)) {
                Some(Ok(Item::Close(_))) | None => return Poll::Ready(()),
                Some(Ok(_)) => {}
                Some(Err(_)) => return self.poll_drain(cx),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use std::future::poll_fn;

    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::session::effect::Ending;

    /// A connection whose pipe holds `room` bytes.
    async fn connection(room: usize) -> (WebSocket<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (here, there) = duplex(room);
        let client = WebSocketStream::from_raw_socket(there, Role::Client, None).await;
        (WebSocket::new(here, Bytes::new()), client)
    }

    #[tokio::test]
    async fn a_connection_owns_no_buffer_when_everything_was_taken() {
        let (mut server, mut client) = connection(100_000).await;
        for size in [1, 900, 40_000] {
            let sent = Bytes::from(vec![5; size]);
            client.send(Message::Binary(sent.clone())).await.unwrap();
            let incoming = poll_fn(|cx| server.poll_recv(cx, 0)).await;
            assert_eq!(incoming, Incoming::Frames(sent));
            let more = poll_fn(|cx| Poll::Ready(server.poll_recv(cx, 0))).await;
            assert_eq!(more, Poll::Pending);
            assert_eq!(server.input.capacity(), 0, "after {size} bytes");
            assert_eq!(server.decoder.held_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn pings_in_the_middle_of_a_message_wait_for_its_end_and_the_newest_is_answered() {
        let (mut server, mut client) = connection(64).await;
        let sent = Bytes::from((0..10_000).map(|n| n as u8).collect::<Vec<_>>());
        poll_fn(|cx| Poll::Ready(server.send(cx, sent.clone())))
            .await
            .unwrap();
        for payload in ["first", "second"] {
            let ping = Message::Ping(payload.into());
            let pinged = tokio::join!(client.send(ping), poll_fn(|cx| server.poll_recv(cx, 0)));
            assert_eq!(pinged.1, Incoming::Control);
        }
        let flushed = poll_fn(|cx| server.poll_flush(cx));
        let read = async { [client.next().await, client.next().await] };
        let (flushed, read) = tokio::join!(flushed, read);
        flushed.unwrap();
        let [message, pong] = read.map(|message| message.unwrap().unwrap());
        assert_eq!(message, Message::Binary(sent));
        assert_eq!(pong, Message::Pong("second".into()));
    }

    #[tokio::test]
    async fn a_close_comes_behind_what_was_sent_and_ends_when_the_other_side_closes() {
        let (mut server, mut client) = connection(64).await;
        let sent = Bytes::from(vec![1; 5_000]);
        poll_fn(|cx| Poll::Ready(server.send(cx, sent.clone())))
            .await
            .unwrap();
        let ending = Ending {
            code: Some(Code::GoingAway),
            detail: "",
        };
        let closed = async move {
            poll_fn(|cx| server.poll_close(cx, Closing::Ours(ending))).await;
        };
        let read = async {
            let read = [client.next().await, client.next().await];
            // The answer to the close goes out here.
            assert!(client.next().await.is_none());
            read
        };
        let ((), read) = tokio::join!(closed, read);
        let [message, close] = read.map(|message| message.unwrap().unwrap());
        assert_eq!(message, Message::Binary(sent));
        let Message::Close(Some(frame)) = close else {
            panic!("{close:?}");
        };
        assert_eq!(u16::from(frame.code), Code::GoingAway.number());
    }
}
