//! What carries frames of a plain client: a WebSocket, plain or over TLS, or the control stream of a QUIC connection.

use bytes::{Bytes, BytesMut};
use conch_wire::frame::split_frame;
use conch_wire::limits;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use quinn::ConnectionError;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::RawError;

/// Bytes taken from QUIC at once.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) enum Carrier {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Tls(Box<WebSocketStream<TlsStream<TcpStream>>>),
    Quic(Box<ControlStream>),
}

/// Why nothing more comes or goes.
#[derive(Debug)]
pub(super) enum Broken {
    /// The node ended it, with this status if it said one.
    Closed(Option<u16>),
    Failed(RawError),
}

impl Carrier {
    /// Sends whole frames: one WebSocket message, or that much of the stream.
    pub(super) async fn send(&mut self, frames: Bytes) -> Result<(), Broken> {
        match self {
            Carrier::WebSocket(socket) => put(socket.as_mut(), Message::Binary(frames)).await,
            Carrier::Tls(socket) => put(socket.as_mut(), Message::Binary(frames)).await,
            Carrier::Quic(stream) => stream.send(frames).await,
        }
    }

    /// Sends any WebSocket message; there is none on QUIC.
    pub(super) async fn send_message(&mut self, message: Message) -> Result<(), Broken> {
        match self {
            Carrier::WebSocket(socket) => put(socket.as_mut(), message).await,
            Carrier::Tls(socket) => put(socket.as_mut(), message).await,
            Carrier::Quic(_) => Err(Broken::Failed(RawError::NoWebSocket)),
        }
    }

    /// The next bytes, which hold whole frames if the node keeps to the protocol. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Bytes, Broken> {
        match self {
            Carrier::WebSocket(socket) => take(socket.as_mut()).await,
            Carrier::Tls(socket) => take(socket.as_mut()).await,
            Carrier::Quic(stream) => stream.next().await,
        }
    }

    pub(super) fn quic(&self) -> Option<&quinn::Connection> {
        match self {
            Carrier::Quic(stream) => Some(&stream.connection),
            _ => None,
        }
    }
}

async fn put<S>(socket: &mut S, message: Message) -> Result<(), Broken>
where
    S: Sink<Message, Error = tungstenite::Error> + Unpin,
{
    socket.send(message).await.map_err(failed)
}

async fn take<S>(socket: &mut S) -> Result<Bytes, Broken>
where
    S: Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
{
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
            Some(Ok(Message::Close(close))) => {
                return Err(Broken::Closed(close.map(|close| close.code.into())));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(failed(error)),
            None => return Err(Broken::Closed(None)),
        }
    }
}

fn failed(error: tungstenite::Error) -> Broken {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            Broken::Closed(None)
        }
        other => Broken::Failed(Box::new(other).into()),
    }
}

/// The control stream, and what of the last frame has come.
#[derive(Debug)]
pub(super) struct ControlStream {
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    unread: BytesMut,
}

impl ControlStream {
    pub(super) async fn open(connection: quinn::Connection) -> Result<ControlStream, RawError> {
        let (send, receive) = connection.open_bi().await.map_err(Box::new)?;
        Ok(ControlStream {
            connection,
            send,
            receive,
            unread: BytesMut::new(),
        })
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Broken> {
        self.send.write_chunk(bytes).await.map_err(|error| {
            if let quinn::WriteError::ConnectionLost(error) = error {
                lost(error)
            } else {
                Broken::Closed(None)
            }
        })
    }

    async fn next(&mut self) -> Result<Bytes, Broken> {
        loop {
            let whole = whole_frames(&self.unread)?;
            if whole > 0 {
                return Ok(self.unread.split_to(whole).freeze());
            }
            match self.receive.read_chunk(CHUNK_BYTES, true).await {
                Ok(Some(chunk)) => self.unread.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(Broken::Closed(None)),
                Err(quinn::ReadError::ConnectionLost(error)) => return Err(lost(error)),
                Err(_) => return Err(Broken::Closed(None)),
            }
        }
    }
}

impl Drop for ControlStream {
    fn drop(&mut self) {
        // As a WebSocket that is dropped: the node is told that this side is gone.
        self.connection.close(0_u32.into(), b"");
    }
}

/// Bytes at the front of `input` that are whole frames.
fn whole_frames(input: &[u8]) -> Result<usize, Broken> {
    let mut whole = 0;
    while let Some(split) = split_frame(&input[whole..], limits::FRAME_BYTES_MAX)
        .map_err(|error| Broken::Failed(error.into()))?
    {
        whole += split.consumed;
    }
    Ok(whole)
}

fn lost(error: ConnectionError) -> Broken {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u16::try_from(close.error_code.into_inner()).ok();
            Broken::Closed(code.filter(|code| *code != 0))
        }
        ConnectionError::LocallyClosed => Broken::Closed(None),
        other => Broken::Failed(Box::new(other).into()),
    }
}
