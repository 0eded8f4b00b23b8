//! WebSocket as a transport, and the little HTTP that a client asks for before it connects.
//!
//! When the case runs over QUIC, upgrades are refused with 503, as by a node that takes none: the client is there to use QUIC.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use conch_wire::limits;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::{Inbound, Link, Outbound, QUEUE, QuicAt};

/// How long a client may take to answer a close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a request that are looked at, and how long they may take.
const HEAD_BYTES: usize = 4_096;
const HEAD_WAIT: Duration = Duration::from_secs(5);

/// Serves HTTP on a free port of loopback, and WebSocket unless QUIC is to be used.
pub(super) async fn listen(links: mpsc::Sender<Link>, quic: Option<QuicAt>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while !links.is_closed() {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(_) => continue,
                },
                () = links.closed() => return,
            };
            tokio::spawn(answer(stream, links.clone(), quic.clone()));
        }
    });
    Ok(address)
}

async fn answer(mut stream: TcpStream, links: mpsc::Sender<Link>, quic: Option<QuicAt>) {
    let Some(head) = head(&stream).await else {
        return; // a client that was killed while it connected
    };
    let is_node = head.starts_with("GET /v1/node ");
    if !is_node && quic.is_none() {
        return serve(stream, links).await;
    }
    let (status, body) = match is_node {
        true => ("200 OK", node(quic.as_ref())),
        false => ("503 Service Unavailable", "{}".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // The request is read, so that the close that follows resets nothing.
    let mut request = vec![0; head.len()];
    if stream.read_exact(&mut request).await.is_ok() {
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// The head of a request, left to be read.
async fn head(stream: &TcpStream) -> Option<String> {
    let mut bytes = [0; HEAD_BYTES];
    let whole = async {
        loop {
            let count = stream.peek(&mut bytes).await.ok().filter(|it| *it > 0)?;
            let text = String::from_utf8_lossy(&bytes[..count]);
            if let Some(end) = text.find("\r\n\r\n") {
                return Some(text[..end + 4].to_owned());
            }
            if count == HEAD_BYTES {
                return None;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(HEAD_WAIT, whole).await.ok().flatten()
}

/// What `GET /v1/node` says; the same as a node in development.
fn node(quic: Option<&QuicAt>) -> String {
    let mut node = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": "scripted",
        "ws_path": "/v1/ws",
        "subprotocol": "conch.1",
        "sign_up": "closed",
        "limits": {
            "text_chars_max": limits::TEXT_CHARS_MAX,
            "payload_bytes_max": limits::PAYLOAD_BYTES_MAX,
            "frame_bytes_max": limits::FRAME_BYTES_MAX,
            "group_members_max": limits::GROUP_MEMBERS_DEFAULT,
            "title_chars_max": 100,
            "heartbeat_ms": limits::HEARTBEAT_MS,
        },
    });
    if let Some(at) = quic {
        node["quic"] = json!({
            "port": at.address.port(),
            "certificate_sha256": at.certificate_sha256,
        });
    }
    node.to_string()
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
                // There are no streams.
                Some(Outbound::Answer { .. } | Outbound::Reset { .. } | Outbound::Finish) => continue,
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
