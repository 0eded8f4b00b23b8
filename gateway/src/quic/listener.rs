//! The endpoint: who may begin a handshake, and what becomes of those that finish it.
//!
//! A handshake has 5 s, and HELLO 5 s after it. While the node stops, new connections are refused at once; the endpoint
//! itself closes last.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use conch_wire::Code;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, VarInt};
use rustls::ServerConfig as TlsConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::Api;
use crate::metrics;
use crate::session::{fresh_session_id, task};
use crate::transport::quic::Quic;

/// A handshake must be complete within this.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long an end waits until closed connections have said so.
const GOODBYES_MAX: Duration = Duration::from_secs(1);

/// A bound UDP port with its endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Listener {
    endpoint: Endpoint,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Binds; port 0 takes a free one. `connections` is what all ports of the node share.
    pub fn bind(
        address: SocketAddr,
        tls: TlsConfig,
        connections: Arc<Semaphore>,
    ) -> std::io::Result<Listener> {
        let socket = UdpSocket::bind(address)?;
        let crypto = QuicServerConfig::try_from(tls).map_err(std::io::Error::other)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(super::transport_config());
        let mut config = EndpointConfig::default();
        config.supported_versions(vec![1]);
        let runtime = Arc::new(quinn::TokioRuntime);
        Ok(Listener {
            endpoint: Endpoint::new(config, Some(server), socket, runtime)?,
            connections,
        })
    }

    /// Where it really listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Accepts until `stop`; ends when no handshake is under way any more. Sessions are not waited for.
    pub async fn run(self, api: Arc<Api>, stop: CancellationToken) {
        let handshakes = TaskTracker::new();
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else {
                break;
            };
            let Ok(permit) = self.connections.clone().try_acquire_owned() else {
                metrics::accept_error();
                incoming.refuse();
                continue;
            };
            handshakes.spawn(handshake(incoming, permit, api.clone(), stop.clone()));
        }
        handshakes.close();
        handshakes.wait().await;
    }

    /// From `stop` on, refuses who comes, until `end`.
    pub async fn refuse(self, stop: CancellationToken, end: CancellationToken) {
        stop.cancelled().await;
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => incoming.refuse(),
                    None => return,
                },
            }
        }
    }

    /// Closes what is still open, and waits a little until the clients have heard it.
    pub async fn close(&self) {
        let code = Code::GoingAway;
        self.endpoint.close(
            VarInt::from_u32(u32::from(code.number())),
            code.name().as_bytes(),
        );
        let _ = tokio::time::timeout(GOODBYES_MAX, self.endpoint.wait_idle()).await;
    }
}

/// One connection, from its first packet to its session.
async fn handshake(
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
    api: Arc<Api>,
    stop: CancellationToken,
) {
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return tracing::debug!(%error, "a QUIC connection could not begin"),
    };
    let connection = tokio::select! {
        // Dropping it tells the client.
        () = stop.cancelled() => return,
        connected = tokio::time::timeout(HANDSHAKE_MAX, connecting) => match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(%error, "a QUIC handshake failed"),
            Err(_) => return tracing::debug!("a QUIC handshake was not finished in time"),
        },
    };
    let edge = api.edge.clone();
    api.sessions.spawn(async move {
        task::run(Quic::new(connection), fresh_session_id(), edge).await;
        drop(permit);
    });
}
