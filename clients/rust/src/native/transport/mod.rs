//! Transports: how bytes get to a node and back, by QUIC or by WebSocket, so that nobody above need care which.
//!
//! [`Dialer::run`] is one connection's life: a token, an endpoint, the race of both transports, then bytes both ways until
//! one side ends it. It runs as a task of its own. What it reads goes to the driver through a bounded queue, so a driver
//! that does not keep up stops the reading, and with it the server's credit. What it writes is bounded by the protocol
//! (sends and requests in flight), not by the queue.
//!
//! Nothing is written before the race is decided, so only the winner ever says HELLO: there is never a second session.
//!
//! | file | concept |
//! |---|---|
//! | `endpoints.rs` | which node is next: those of the application, those that a node named when it went away |
//! | `attempt.rs` | one attempt at one endpoint: what is known of its QUIC, what is asked for, what is learnt |
//! | `race.rs` | QUIC with a head start against WebSocket |
//! | `memory.rs` | what is remembered of each endpoint's QUIC, also by the next start |
//! | `websocket.rs` | one WebSocket connection |
//! | `quic.rs` | the client's UDP sockets, and a QUIC connection over them |
//! | `streams.rs` | frames on the streams of a QUIC connection |
//! | `framing.rs` | frames cut from a stream, and cut apart for streams |
//! | `pin.rs` | trust in one certificate, in development |

mod attempt;
mod endpoints;
mod framing;
mod memory;
mod pin;
mod quic;
mod race;
mod streams;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conch_wire::Code;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

pub(super) use attempt::Attempts;
pub(super) use endpoints::{Endpoints, parse_endpoint};
pub(super) use memory::{Memory, QuicRoute, RouteRow};
pub(super) use pin::{CertificateHash, Pinned};
pub(super) use quic::QuicDialer;

use super::http::ApiError;
use super::login::{TokenError, TokenProvider};
use crate::core::Input;

/// How long opening a transport may take, all attempts at one endpoint together; a little less than the core allows for
/// the whole handshake, so that an endpoint that swallows everything is left for the next one.
const OPEN_MAX: Duration = Duration::from_secs(12);
/// How long a close may take before the socket is dropped.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How long one write may take: a peer that takes nothing for this long is gone.
const WRITE_MAX: Duration = Duration::from_secs(45);

/// What carries a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// WebSocket, over TCP.
    WebSocket,
}

/// What may carry connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transports {
    /// QUIC where node and network let it through; else WebSocket, which is there within 3 s.
    #[default]
    Auto,
    /// Nothing but QUIC: without it there is no connection.
    QuicOnly,
    /// Nothing but WebSocket; no node is asked whether it has QUIC.
    WebSocketOnly,
}

/// What the driver has for a connection.
#[derive(Debug)]
pub(super) enum Outgoing {
    Message(Bytes),
    Close(Code),
}

/// Why there is no connection.
#[derive(Debug, Error)]
enum DialError {
    #[error("the node has no QUIC")]
    NoQuic,
    #[error("the node cannot be asked for its QUIC: {0}")]
    Discovery(#[from] ApiError),
    #[error("no answer in time")]
    TimedOut,
    #[error("the endpoint's name has no address: {0}")]
    Name(std::io::Error),
    #[error("no UDP socket: {0}")]
    Socket(std::io::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error(transparent)]
    QuicConnect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Quic(#[from] quinn::ConnectionError),
    #[error(transparent)]
    WebSocket(#[from] tokio_tungstenite::tungstenite::Error),
}

/// An open transport over which nothing was said yet.
enum Link {
    Quic(quinn::Connection),
    WebSocket(Box<websocket::Socket>),
}

impl Link {
    fn transport(&self) -> Transport {
        match self {
            Link::Quic(_) => Transport::Quic,
            Link::WebSocket(_) => Transport::WebSocket,
        }
    }

    /// Both directions until one ends. Returns the code of the end, if there was one.
    async fn pump(
        self,
        connection: u64,
        inputs: &mpsc::Sender<Input>,
        outgoing: mpsc::UnboundedReceiver<Outgoing>,
    ) -> Option<u16> {
        match self {
            Link::Quic(quic) => streams::pump(quic, connection, inputs, outgoing).await,
            Link::WebSocket(socket) => websocket::pump(*socket, connection, inputs, outgoing).await,
        }
    }
}

/// How connections are made.
#[derive(Clone)]
pub(super) struct Dialer {
    tokens: Arc<dyn TokenProvider>,
    endpoints: Arc<Endpoints>,
    attempts: Arc<Attempts>,
    /// Of the connection that was opened last.
    in_use: watch::Sender<Option<Transport>>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Dialer {
    pub(super) fn new(
        tokens: Arc<dyn TokenProvider>,
        endpoints: Arc<Endpoints>,
        attempts: Attempts,
    ) -> Dialer {
        Dialer {
            tokens,
            endpoints,
            attempts: Arc::new(attempts),
            in_use: watch::Sender::new(None),
        }
    }

    pub(super) fn tokens(&self) -> &dyn TokenProvider {
        &*self.tokens
    }

    /// What carries the connection that was opened last.
    pub(super) fn in_use(&self) -> watch::Receiver<Option<Transport>> {
        self.in_use.subscribe()
    }

    /// The network is another one: QUIC goes on from new sockets, and what was blocked may not be any more.
    pub(super) async fn network_changed(&self) {
        self.attempts.network_changed().await;
    }

    /// No further connection is made.
    pub(super) fn end(&self) {
        self.attempts.end();
    }

    /// A node goes away: the next connection goes to another endpoint.
    pub(super) fn elsewhere(&self, named: &[String]) {
        self.endpoints.leave(named);
    }

    /// Runs connection `number` to its end; says everything to `inputs`.
    pub(super) async fn run(
        self,
        number: u64,
        refresh_token: bool,
        inputs: mpsc::Sender<Input>,
        mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    ) {
        let closed = |code| Input::Closed {
            connection: number,
            code,
        };
        let opened = tokio::select! {
            opened = self.open(number, refresh_token) => opened,
            // There is nothing to write before `Connected`: the driver gave this connection up.
            _ = outgoing.recv() => Err(closed(None)),
        };
        let end = match opened {
            Ok((link, token)) => {
                self.in_use.send_replace(Some(link.transport()));
                let connected = Input::Connected {
                    connection: number,
                    token,
                };
                if inputs.send(connected).await.is_err() {
                    return;
                }
                closed(link.pump(number, &inputs, outgoing).await)
            }
            Err(end) => end,
        };
        // A driver that is gone needs no news.
        let _ = inputs.send(end).await;
    }

    async fn open(&self, number: u64, refresh_token: bool) -> Result<(Link, String), Input> {
        let closed = Input::Closed {
            connection: number,
            code: None,
        };
        let token = match self.tokens.token(refresh_token).await {
            Ok(token) => token,
            Err(TokenError::Rejected(why)) => {
                tracing::info!(%why, "no token any more");
                return Err(Input::TokenRejected { connection: number });
            }
            Err(TokenError::Unavailable(why)) => {
                tracing::debug!(%why, "no token now");
                return Err(closed);
            }
        };
        let endpoint = self.endpoints.current();
        let opening = Arc::clone(&self.attempts).open(endpoint.clone());
        let opened = tokio::time::timeout(OPEN_MAX, opening).await;
        match opened.unwrap_or(Err(DialError::TimedOut)) {
            Ok(link) => Ok((link, token)),
            Err(error) => {
                tracing::debug!(%error, %endpoint, "no connection");
                self.endpoints.failed(&endpoint);
                Err(closed)
            }
        }
    }
}
