//! The seam below a session: connections as two queues, whatever carries them.
//!
//! A transport accepts connections and hands out one [`Link`] for each: what the client sent comes in as whole transport
//! messages, what the session says goes out. WebSocket is the one that exists; QUIC joins by another function that fills
//! the same queues. What the transport itself forbids (P-010, P-011, P-012, P-014) is found here.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Transport messages that wait on either side of a link.
const QUEUE: usize = 4_096;
/// Connections that wait for the server.
const CONNECTIONS: usize = 16;
/// How long a client may take to answer a close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// What comes from a connection.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// One message: whole frames.
    Frames(Bytes),
    /// The client broke a rule of the transport.
    Breach(String),
    /// The last word.
    Closed,
}

/// What goes to a connection.
#[derive(Debug)]
pub(crate) enum Outbound {
    Frames(Bytes),
    /// The close with its number.
    Close(u16),
    /// The end without a word.
    Cut,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) incoming: mpsc::Receiver<Inbound>,
    pub(crate) outgoing: mpsc::Sender<Outbound>,
}

/// Accepts WebSocket connections on a free port of loopback.
pub(crate) async fn listen_websocket() -> Result<(SocketAddr, mpsc::Receiver<Link>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (links, accepted) = mpsc::channel(CONNECTIONS);
    tokio::spawn(async move {
        while !links.is_closed() {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(_) => continue,
                },
                () = links.closed() => return,
            };
            tokio::spawn(serve(stream, links.clone()));
        }
    });
    Ok((address, accepted))
}

async fn serve(stream: TcpStream, links: mpsc::Sender<Link>) {
    let (to_session, incoming) = mpsc::channel(QUEUE);
    let (outgoing, mut from_session) = mpsc::channel(QUEUE);
    let mut breaches = Vec::new();
    #[allow(
        clippy::result_large_err,
        reason = "the signature is the WebSocket crate's"
    )]
    let accept = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        breaches = breaches_of(request);
        let selected = HeaderValue::from_static("conch.1");
        response
            .headers_mut()
            .insert("sec-websocket-protocol", selected);
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, accept).await else {
        return; // a client that was killed while it connected
    };
    if links.send(Link { incoming, outgoing }).await.is_err() {
        return;
    }
    for breach in breaches {
        let _ = to_session.send(Inbound::Breach(breach)).await;
    }
    carry(&mut socket, &to_session, &mut from_session).await;
    let _ = to_session.send(Inbound::Closed).await;
}

/// What a request for a WebSocket must have and must not have.
fn breaches_of(request: &Request) -> Vec<String> {
    let mut breaches = Vec::new();
    let header = |name: &str| request.headers().get(name).and_then(|it| it.to_str().ok());
    if !header("sec-websocket-protocol")
        .is_some_and(|offered| offered.split(',').any(|it| it.trim() == "conch.1"))
    {
        breaches.push("P-010: the subprotocol conch.1 was not offered".to_owned());
    }
    if request.uri().path() != "/v1/ws" {
        breaches.push(format!("5: connected to {}", request.uri().path()));
    }
    let has_token = |text: &str| text.contains("token-");
    if request.uri().query().is_some_and(has_token)
        || request
            .headers()
            .values()
            .any(|it| it.to_str().is_ok_and(has_token))
    {
        breaches.push("P-012: the access token is in the URL or a header".to_owned());
    }
    breaches
}

/// Both directions, until either ends.
async fn carry(
    socket: &mut WebSocketStream<TcpStream>,
    to_session: &mpsc::Sender<Inbound>,
    from_session: &mut mpsc::Receiver<Outbound>,
) {
    loop {
        let inbound = tokio::select! {
            outbound = from_session.recv() => match outbound {
                Some(Outbound::Frames(bytes)) => {
                    if socket.send(Message::Binary(bytes)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Outbound::Close(code)) => {
                    let close = CloseFrame { code: code.into(), reason: "".into() };
                    let _ = socket.close(Some(close)).await;
                    // The client's answer to the close is waited for, so that the close arrives; what else comes is late.
                    let drain = async { while let Some(Ok(_)) = socket.next().await {} };
                    let _ = tokio::time::timeout(CLOSE_WAIT, drain).await;
                    return;
                }
                Some(Outbound::Cut) | None => return,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {
                    Inbound::Breach("P-011: an empty message".to_owned())
                }
                Some(Ok(Message::Binary(bytes))) => Inbound::Frames(bytes),
                Some(Ok(Message::Text(_))) => Inbound::Breach("P-011: a text message".to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_))) | None => return,
                Some(Err(Error::Protocol(error))) if !is_end(&error.to_string()) => {
                    let breach = Inbound::Breach(format!("RFC 6455: {error}"));
                    let _ = to_session.send(breach).await;
                    return;
                }
                Some(Err(_)) => return,
            },
        };
        if to_session.send(inbound).await.is_err() {
            return;
        }
    }
}

/// A connection that just ends is no breach.
fn is_end(error: &str) -> bool {
    error.contains("without closing")
}
