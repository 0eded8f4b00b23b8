//! A relay between clients and a node that can have a fault, to show that the checker finds it.
//!
//! It listens on loopback and understands the frames on a WebSocket: each is decoded, bent as the [`Plan`] says ([`plot`], by
//! the table at [`Fault`]), and encoded again. Any other connection, the HTTP API's, is passed on byte for byte. Without a
//! fault it changes nothing that a client can tell. Each connection has the fault anew. Messages of a WebSocket are cut as the
//! node cut them or as several came at once; TLS and QUIC it does not speak.

mod fault;
mod plot;

use std::io::Cursor;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

pub use fault::{FAULTS, Fault, UnknownFault};
use plot::Plot;

use crate::raw::{Doors, RawClient, RawError, SUBPROTOCOL};

/// Most that a request's head may take.
const HEAD_MAX: usize = 16 << 10;

/// How a relay behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// `None`: as a relay should.
    pub fault: Option<Fault>,
    /// Where: a seq or the number of a send, by the fault.
    pub at: u32,
}

/// A running relay; it and its connections end when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on loopback, in front of the node at `node` (`ip:port`, without TLS).
    pub async fn start(node: impl Into<String>, plan: Plan) -> std::io::Result<Relay> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(run(listener, node.into(), plan));
        Ok(Relay { address, task })
    }

    /// Where clients connect in place of the node.
    pub fn doors(&self) -> Doors {
        Doors {
            http: self.address.to_string(),
            http_certificate_sha256: None,
            quic: None,
        }
    }

    /// `http://ip:port`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, node: String, plan: Plan) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else {
                    // Descriptors may be used up for a moment; the client tries again.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                connections.spawn(serve(client, node.clone(), plan));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, to its end. Whatever breaks on one side ends the other.
async fn serve(mut client: TcpStream, node: String, plan: Plan) {
    let _ = client.set_nodelay(true);
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read_buf(&mut head).await {
            Ok(read) if read > 0 && head.len() <= HEAD_MAX => {}
            _ => return,
        }
    }
    let is_socket = head.starts_with(b"GET /v1/ws");
    let (rest, answers) = client.into_split();
    let mut client = tokio::io::join(Cursor::new(head).chain(rest), answers);
    if is_socket {
        let _ = relay(client, &node, plan).await;
    } else if let Ok(mut node) = TcpStream::connect(node).await {
        let _ = copy_bidirectional(&mut client, &mut node).await;
    }
}

async fn relay<S>(client: S, node: &str, plan: Plan) -> Result<(), RawError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut node = RawClient::connect(node).await?;
    let mut client = accept_hdr_async(client, name_protocol)
        .await
        .map_err(Box::new)?;
    let mut plot = Plot::new(plan);
    let ended = loop {
        tokio::select! {
            message = client.next() => match message {
                Some(Ok(Message::Binary(bytes))) => plot.on_client(&bytes)?,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => {}
            },
            received = node.recv() => match received {
                Ok(first) => {
                    plot.on_node(first.frame);
                    while let Some(next) = node.try_recv() {
                        plot.on_node(next.frame);
                    }
                }
                Err(ended) => break ended,
            },
        }
        if !plot.to_node.is_empty() {
            let frames = plot.to_node.split().freeze();
            if let Err(ended) = node.send_bytes(frames).await {
                break ended;
            }
        }
        pass_on(&mut client, plot.to_client.split().freeze()).await?;
    };
    if let RawError::Closed { status, .. } = &ended {
        let status = status.map(|code| CloseFrame {
            code: code.into(),
            reason: "".into(),
        });
        client.close(status).await.map_err(Box::new)?;
    }
    Ok(())
}

async fn pass_on<S>(client: &mut WebSocketStream<S>, frames: Bytes) -> Result<(), RawError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !frames.is_empty() {
        client
            .send(Message::Binary(frames))
            .await
            .map_err(Box::new)?;
    }
    Ok(())
}

#[allow(clippy::result_large_err)] // the WebSocket library's signature
fn name_protocol(_request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert(
        "Sec-WebSocket-Protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(response)
}
