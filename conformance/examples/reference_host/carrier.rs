//! What carries frames for the reference client: WebSocket or QUIC, the same to its loop.
//!
//! Over QUIC each HISTORY and SYNC goes on a stream of its own once WELCOME has come (P-068). A stream that the server
//! resets is told to the client as the ERROR that it amounts to.

use std::time::Duration;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use conch_conformance::host;
use conch_wire::frame::{ErrorFrame, frame_type, split_frame};
use conch_wire::limits::FRAME_BYTES_MAX;
use conch_wire::{Code, ServerFrame};
use futures_util::{SinkExt, StreamExt};
use quinn::{Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::pinned;

/// How long connecting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long the close may come after the end of the control stream (P-077).
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Answers that wait to be looked at.
const ANSWERS: usize = 64;

/// How to connect, again and again.
pub(crate) struct Dialer {
    url: String,
    quic: Option<(Endpoint, host::Quic)>,
    wrong: Option<String>,
}

/// One connection.
pub(crate) enum Carrier {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Quic(Box<Quic>),
}

/// What came.
pub(crate) enum Received {
    /// Whole frames.
    Frames(Bytes),
    /// The end, with its number if there was one.
    Closed(Option<u16>),
}

impl Dialer {
    pub(crate) fn new(
        url: String,
        quic: Option<host::Quic>,
        wrong: Option<String>,
    ) -> Result<Dialer> {
        let quic = match quic {
            Some(at) => Some((pinned::endpoint(&at.certificate_sha256)?, at)),
            None => None,
        };
        Ok(Dialer { url, quic, wrong })
    }

    pub(crate) async fn connect(&self) -> Result<Carrier> {
        timeout(CONNECT_WAIT, self.connect_now()).await?
    }

    async fn connect_now(&self) -> Result<Carrier> {
        if let Some((endpoint, at)) = &self.quic {
            let connection = endpoint.connect(at.address.parse()?, "localhost")?.await?;
            let (send, recv) = connection.open_bi().await?;
            let (answers, answered) = mpsc::channel(ANSWERS);
            return Ok(Carrier::Quic(Box::new(Quic {
                connection,
                send,
                recv,
                buffer: BytesMut::new(),
                welcomed: self.wrong.as_deref() == Some("early-stream"),
                wrong: self.wrong.clone(),
                answers,
                answered,
            })));
        }
        let mut request = self.url.as_str().into_client_request()?;
        let offered = HeaderValue::from_static("conch.1");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", offered);
        Ok(Carrier::WebSocket(Box::new(
            connect_async(request).await?.0,
        )))
    }
}

impl Carrier {
    /// A connection that breaks here says so when it is read.
    pub(crate) async fn send(&mut self, frames: Bytes) {
        match self {
            Carrier::WebSocket(socket) => drop(socket.send(Message::Binary(frames)).await),
            Carrier::Quic(quic) => drop(quic.send(frames).await),
        }
    }

    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Received {
        match self {
            Carrier::WebSocket(socket) => loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(frames))) => return Received::Frames(frames),
                    Some(Ok(Message::Close(close))) => {
                        let code = close.map(|CloseFrame { code, .. }| code.into());
                        return Received::Closed(code);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Received::Closed(None),
                }
            },
            Carrier::Quic(quic) => quic.next().await,
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Carrier::WebSocket(mut socket) => drop(WebSocketStream::close(&mut socket, None).await),
            Carrier::Quic(mut quic) => {
                let _ = quic.send.finish();
                let _ = timeout(CLOSE_WAIT, quic.send.stopped()).await;
                quic.connection.close(0_u32.into(), b"");
            }
        }
    }
}

pub(crate) struct Quic {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    buffer: BytesMut,
    welcomed: bool,
    wrong: Option<String>,
    answers: mpsc::Sender<Bytes>,
    answered: mpsc::Receiver<Bytes>,
}

impl Drop for Quic {
    fn drop(&mut self) {
        // Without effect where the server has closed.
        self.connection.close(0_u32.into(), b"");
    }
}

impl Quic {
    fn is_wrong(&self, name: &str) -> bool {
        self.wrong.as_deref() == Some(name)
    }

    async fn send(&mut self, mut frames: Bytes) -> Result<()> {
        while let Some(split) = split_frame(&frames, FRAME_BYTES_MAX)? {
            let (kind, request) = (split.header.frame_type, split.header.reference);
            let consumed = split.consumed;
            let frame = frames.split_to(consumed);
            let is_own = matches!(kind, frame_type::HISTORY | frame_type::SYNC)
                || (kind == frame_type::READ && self.is_wrong("reads-on-a-stream"));
            if !is_own || !self.welcomed {
                if self.is_wrong("early-stream") {
                    let (mut send, _) = self.connection.open_bi().await?;
                    send.write_all(&[0x12, 0, 0, 0, 1, 0, 0, 0]).await?;
                    send.finish()?;
                }
                self.send.write_chunk(frame).await?;
                continue;
            }
            let (mut send, recv) = self.connection.open_bi().await?;
            let twice = self.is_wrong("two-on-a-stream");
            send.write_chunk(frame.clone()).await?;
            if twice {
                send.write_chunk(frame).await?;
            }
            send.finish()?;
            let forgets = self.is_wrong("forgets-resets");
            tokio::spawn(answer(recv, kind, request, forgets, self.answers.clone()));
        }
        Ok(())
    }

    async fn next(&mut self) -> Received {
        loop {
            let chunk = tokio::select! {
                Some(answer) = self.answered.recv() => return Received::Frames(answer),
                chunk = self.recv.read_chunk(usize::MAX, true) => chunk,
            };
            match chunk {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Err(ReadError::ConnectionLost(error)) => return Received::Closed(code_of(&error)),
                Ok(None) | Err(_) if self.is_wrong("ignores-the-end") => {
                    let error = self.connection.closed().await;
                    return Received::Closed(code_of(&error));
                }
                Ok(None) | Err(_) => {
                    let closed = timeout(CLOSE_WAIT, self.connection.closed()).await;
                    return Received::Closed(closed.ok().as_ref().and_then(code_of));
                }
            }
            let mut whole = 0;
            while let Ok(Some(split)) = split_frame(&self.buffer[whole..], FRAME_BYTES_MAX) {
                self.welcomed |= split.header.frame_type == frame_type::WELCOME;
                whole += split.consumed;
            }
            if whole > 0 {
                return Received::Frames(self.buffer.split_to(whole).freeze());
            }
        }
    }
}

/// The number of a close; 0 and the ends that QUIC itself makes have none.
fn code_of(error: &ConnectionError) -> Option<u16> {
    match error {
        ConnectionError::ApplicationClosed(close) => u16::try_from(close.error_code.into_inner())
            .ok()
            .filter(|it| *it != 0),
        _ => None,
    }
}

async fn answer(
    mut recv: RecvStream,
    refused_type: u8,
    request: u32,
    forgets: bool,
    answers: mpsc::Sender<Bytes>,
) {
    let bytes = match recv.read_to_end(FRAME_BYTES_MAX).await {
        Ok(bytes) => bytes.into(),
        Err(_) if forgets => return,
        Err(_) => {
            let error = ErrorFrame {
                code: Code::Unavailable,
                retry_after_ms: 0,
                refused_type,
                item: 0,
                detail: "the stream was reset".to_owned(),
            };
            let mut bytes = BytesMut::new();
            ServerFrame::Error { request, error }.encode(&mut bytes);
            bytes.freeze()
        }
    };
    // A connection that is over wants no answer.
    let _ = answers.send(bytes).await;
}
