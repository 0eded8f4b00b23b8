//! The seam below a session: connections as two queues, whatever carries them.
//!
//! A transport accepts connections and hands out one [`Link`] for each: what the client sent comes in as whole frames, what
//! the session says goes out. [`listen`] opens the HTTP address that clients are given, with WebSocket behind it, or with
//! QUIC beside it: `GET /v1/node` says where, as it does at a node in development. What the transport itself forbids
//! (section 5 of `docs/protocol.md`) is found here.

mod quic;
mod websocket;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

pub(crate) use quic::{Listener as QuicListener, QuicAt};

/// Messages that wait on either side of a link.
const QUEUE: usize = 4_096;
/// Connections that wait for the server.
const CONNECTIONS: usize = 16;

/// What carries a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    #[serde(rename = "websocket")]
    WebSocket,
    Quic,
}

impl Transport {
    /// All there are.
    pub const ALL: [Transport; 2] = [Transport::WebSocket, Transport::Quic];
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::WebSocket => "websocket",
            Transport::Quic => "quic",
        })
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(name: &str) -> Result<Transport, String> {
        let named = Transport::ALL.into_iter().find(|it| it.to_string() == name);
        named.ok_or_else(|| format!("{name} is no transport: websocket, quic"))
    }
}

/// What comes from a connection.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// Whole frames: one WebSocket message, or what a piece of the control stream completed.
    Frames(Bytes),
    /// Everything that came on a request stream, which is at its end.
    Request { stream: u64, bytes: Bytes },
    /// The client broke a rule of the transport.
    Breach(String),
    /// The last word.
    Closed,
}

/// What goes to a connection.
#[derive(Debug)]
pub(crate) enum Outbound {
    Frames(Bytes),
    /// The answer on a request stream, and its end.
    Answer {
        stream: u64,
        bytes: Bytes,
    },
    /// A request stream is reset without an answer.
    Reset {
        stream: u64,
    },
    /// The server's half of the control stream ends; nothing is closed.
    Finish,
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

/// Where the server listens.
#[derive(Debug)]
pub(crate) struct Listening {
    /// HTTP and WebSocket.
    pub(crate) address: SocketAddr,
    pub(crate) quic: Option<QuicListener>,
    pub(crate) links: mpsc::Receiver<Link>,
}

/// Accepts connections of one transport on free ports of loopback. `idle`: QUIC's own idle timeout.
pub(crate) async fn listen(transport: Transport, idle: Duration) -> Result<Listening> {
    let (links, accepted) = mpsc::channel(CONNECTIONS);
    let quic = match transport {
        Transport::WebSocket => None,
        Transport::Quic => Some(QuicListener::start(links.clone(), idle)?),
    };
    let at = quic.as_ref().map(|it| it.at().clone());
    let address = websocket::listen(links, at).await?;
    Ok(Listening {
        address,
        quic,
        links: accepted,
    })
}
