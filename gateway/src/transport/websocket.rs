//! WebSocket as a transport: a binary message is a chunk of whole frames.
//!
//! Around tungstenite's sans-IO context instead of its stream, because the message limit has to rise when the client is
//! authenticated. Buffers are small: an idle connection holds 4 KiB. Breaches of RFC 6455 end the connection with the
//! status the RFC names; text messages and empty ones are not ours and end it with `bad_frame`.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use conch_wire::Code;
use conch_wire::limits::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

use super::{Closing, Gone, Incoming, Progress, Transport};

/// Read buffer of a connection.
const READ_BUFFER_BYTES: usize = 4_096;
/// Frames of the carrier are gathered up to this before they are written without being flushed.
const WRITE_BUFFER_BYTES: usize = 16_384;
/// Hard end of the write buffer: the largest chunk, a pong and a close.
const WRITE_BUFFER_MAX_BYTES: usize = 2 * FRAME_BYTES_MAX;
/// Largest message of a client that has not been authenticated: HELLO and some of what is pipelined behind it.
const EARLY_MESSAGE_BYTES: usize = 65_536;
/// Largest message after that: one frame, or several smaller ones.
const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Bytes that may arrive without completing a message: an endless continuation of tiny fragments ends here.
const UNFINISHED_BYTES_MAX: u64 = 2 * MESSAGE_BYTES_MAX as u64;

/// See the module.
#[derive(Debug)]
pub struct WebSocket<S> {
    context: WebSocketContext,
    socket: S,
    progress: Progress,
    /// `received_bytes` when the last message was complete.
    complete_at: u64,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> WebSocket<S> {
    /// Takes an upgraded connection over.
    pub fn new(socket: S) -> WebSocket<S> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
            .max_message_size(Some(EARLY_MESSAGE_BYTES))
            .max_frame_size(Some(EARLY_MESSAGE_BYTES));
        WebSocket {
            context: WebSocketContext::new(Role::Server, Some(config)),
            socket,
            progress: Progress::default(),
            complete_at: 0,
            closing: false,
        }
    }
}

/// The polled socket as a blocking one that says "would block".
struct Bridge<'a, 'b, S> {
    socket: &'a mut S,
    cx: &'a mut Context<'b>,
    progress: &'a mut Progress,
}

fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncRead + Unpin> Read for Bridge<'_, '_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        blocking(Pin::new(&mut *self.socket).poll_read(self.cx, &mut buf))?;
        let n = buf.filled().len();
        self.progress.received_bytes += n as u64;
        Ok(n)
    }
}

impl<S: AsyncWrite + Unpin> Write for Bridge<'_, '_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = blocking(Pin::new(&mut *self.socket).poll_write(self.cx, buf))?;
        self.progress.sent_bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        blocking(Pin::new(&mut *self.socket).poll_flush(self.cx))
    }
}

/// The context, and a bridge over the other fields.
macro_rules! bridged {
    ($self:ident, $cx:ident) => {
        (
            &mut $self.context,
            &mut Bridge {
                socket: &mut $self.socket,
                cx: $cx,
                progress: &mut $self.progress,
            },
        )
    };
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// What an error means for the connection.
fn incoming_of(error: Error) -> Incoming {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Incoming::Gone,
        Error::Protocol(_) => Incoming::Breach {
            status: 1002,
            what: "protocol error",
        },
        Error::Utf8(_) => Incoming::Breach {
            status: 1007,
            what: "text is not UTF-8",
        },
        Error::Capacity(CapacityError::MessageTooLong { .. }) => TOO_BIG,
        _ => Incoming::Gone,
    }
}

fn not_frames(what: &'static str) -> Incoming {
    Incoming::NotFrames {
        code: Code::BadFrame,
        what,
    }
}

const TOO_BIG: Incoming = Incoming::Breach {
    status: 1009,
    what: "message too big",
};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for WebSocket<S> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _now_ms: u64) -> Poll<Incoming> {
        let (context, bridge) = bridged!(self, cx);
        let result = context.read(bridge);
        let incoming = match result {
            Ok(Message::Binary(chunk)) if chunk.is_empty() => not_frames("empty message"),
            Ok(Message::Binary(chunk)) => Incoming::Frames(chunk),
            Ok(Message::Text(_)) => not_frames("text message"),
            Ok(Message::Ping(_) | Message::Pong(_)) => Incoming::Control,
            Ok(Message::Close(_) | Message::Frame(_)) => Incoming::Gone,
            Err(error) if would_block(&error) => {
                if self.progress.received_bytes - self.complete_at > UNFINISHED_BYTES_MAX {
                    return Poll::Ready(TOO_BIG);
                }
                return Poll::Pending;
            }
            Err(error) => incoming_of(error),
        };
        self.complete_at = self.progress.received_bytes;
        if incoming == Incoming::Gone {
            // The answer to a close frame is queued: one try to get it out.
            let (context, bridge) = bridged!(self, cx);
            let _ = context.flush(bridge);
        }
        Poll::Ready(incoming)
    }

    fn send(&mut self, cx: &mut Context<'_>, chunk: Bytes) -> Result<(), Gone> {
        let (context, bridge) = bridged!(self, cx);
        match context.write(bridge, Message::Binary(chunk)) {
            Ok(()) => Ok(()),
            Err(error) if would_block(&error) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let (context, bridge) = bridged!(self, cx);
        match context.flush(bridge) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) if would_block(&error) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Gone)),
        }
    }

    fn progress(&self) -> Progress {
        self.progress
    }

    fn authenticated(&mut self) {
        self.context.set_config(|config| {
            config.max_message_size = Some(MESSAGE_BYTES_MAX);
            config.max_frame_size = Some(MESSAGE_BYTES_MAX);
        });
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, closing: Closing) -> Poll<()> {
        if !self.closing {
            self.closing = true;
            let (status, reason) = match closing {
                Closing::Ours(ending) => match ending.code {
                    Some(code) => (code.number(), code.name()),
                    None => (1000, ""),
                },
                Closing::Breach { status, what } => (status, what),
            };
            let frame = CloseFrame {
                code: status.into(),
                reason: Utf8Bytes::from_static(reason),
            };
            let (context, bridge) = bridged!(self, cx);
            match context.close(bridge, Some(frame)) {
                Ok(()) => {}
                Err(error) if would_block(&error) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        let (context, bridge) = bridged!(self, cx);
        match context.flush(bridge) {
            Ok(()) => {}
            Err(error) if would_block(&error) => return Poll::Pending,
            Err(_) => return Poll::Ready(()),
        }
        // Reading on until the other side has closed keeps a reset from overtaking the close frame. What comes is not
        // looked at.
        if matches!(closing, Closing::Breach { .. }) {
            return self.poll_drain(cx);
        }
        loop {
            let (context, bridge) = bridged!(self, cx);
            match context.read(bridge) {
                Ok(Message::Close(_)) => {}
                Ok(_) => {}
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_)) => {
                    return self.poll_drain(cx);
                }
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Shuts the way out and reads until the other side ends: after a breach the carrier's framing means nothing.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.socket).poll_shutdown(cx).is_pending() {
            return Poll::Pending;
        }
        let mut sink = [0; 4_096];
        loop {
            let mut buf = ReadBuf::new(&mut sink);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
