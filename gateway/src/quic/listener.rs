//! The endpoint: who may begin a handshake, and what becomes of those that finish it.
//!
//! The source of a first packet may be invented. So few handshakes are begun for addresses that are not shown to be the
//! client's ([`decide`]): above a threshold everybody has to come back with a token first (Retry), and nothing is counted
//! for an address before it is shown. A handshake has 5 s, and HELLO 5 s after it. While the node stops, who comes is
//! refused at once; the endpoint itself closes last.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conch_wire::Code;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming, Runtime, ServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::ServerConfig as TlsConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::unshown::Socket;
use crate::admission::{AddressPlace, Connections, Place};
use crate::clock::Clock;
use crate::config::QuicSettings;
use crate::http::Api;
use crate::metrics::{self, Refusal};
use crate::session::{fresh_session_id, task};
use crate::tls::keys::Keys;
use crate::transport::quic::{Quic, number};

/// A handshake must be complete within this.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long an end waits until closed connections have said so.
const GOODBYES_MAX: Duration = Duration::from_secs(1);
/// First packets that wait to be looked at; more are refused.
const INCOMING_MAX: usize = 1_024;
/// What a client may send until its first packet was looked at, and all clients together.
const INCOMING_BYTES: u64 = 32_768;
const INCOMING_BYTES_ALL: u64 = 4_194_304;
/// A connection of the node's life before is told so at most this often, over all connections.
const RESET_EVERY: Duration = Duration::from_millis(1);
/// What the kernel may hold for all connections of the port; less if it does not allow it.
const SOCKET_BUFFER_BYTES: usize = 4_194_304;

/// A bound UDP port with its endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Listener {
    endpoint: Endpoint,
    socket: Socket,
    connections: Connections,
    /// Under way.
    handshakes: Arc<AtomicUsize>,
    limits: HandshakeLimits,
}

/// How many handshakes may be under way at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandshakeLimits {
    pub max: usize,
    /// Above this, addresses are asked to show that they are the client's.
    pub retry_above: usize,
}

/// What a first packet gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Decision {
    Accept,
    /// Come back with a token.
    Retry,
    /// An answer that says so.
    Refuse,
    /// Nothing: there may be nobody at that address.
    Ignore,
}

/// `shown`: the address was shown to be the client's.
fn decide(under_way: usize, limits: HandshakeLimits, shown: bool) -> Decision {
    match (under_way < limits.max, shown) {
        (false, true) => Decision::Refuse,
        (false, false) => Decision::Ignore,
        (true, false) if under_way >= limits.retry_above => Decision::Retry,
        (true, _) => Decision::Accept,
    }
}

/// Counts a handshake while it is under way.
#[derive(Debug)]
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(count: &Arc<AtomicUsize>) -> UnderWay {
        count.fetch_add(1, Ordering::Relaxed);
        metrics::quic_handshake_began();
        UnderWay(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::quic_handshake_ended();
    }
}

impl Listener {
    /// Binds; port 0 takes a free one. `node` is what this node and no other is called, the same at each start.
    pub fn bind(
        address: SocketAddr,
        settings: &QuicSettings,
        tls: TlsConfig,
        keys: &Keys,
        node: &str,
        connections: Connections,
    ) -> std::io::Result<Listener> {
        let socket = UdpSocket::bind(address)?;
        // What the kernel does not give is not worth refusing to start for.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let crypto = QuicServerConfig::try_from(tls).map_err(std::io::Error::other)?;
        let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(keys.address_tokens()));
        server
            .transport_config(super::transport_config())
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES_ALL)
            .migration(true);
        let mut config = EndpointConfig::new(Arc::new(keys.stateless_resets(node)));
        let ids = keys.connection_ids(node);
        config
            .supported_versions(vec![1])
            .min_reset_interval(RESET_EVERY)
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket = Socket::new(runtime.wrap_udp_socket(socket)?);
        let endpoint = Endpoint::new_with_abstract_socket(
            config,
            Some(server),
            Arc::new(socket.clone()),
            runtime,
        )?;
        Ok(Listener {
            endpoint,
            socket,
            connections,
            handshakes: Arc::default(),
            limits: HandshakeLimits {
                max: settings.handshakes_max,
                retry_above: settings.retry_above,
            },
        })
    }

    /// Where it really listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Handshakes under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Connections that the endpoint holds, those whose handshake is under way and those that just closed included.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
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
            if let Some(handshake) = self.begin(incoming, &api) {
                let stop = stop.clone();
                handshakes.spawn(async move {
                    tokio::select! {
                        // Dropping it tells the client.
                        () = stop.cancelled() => {}
                        () = handshake.finish() => {}
                    }
                });
            }
        }
        handshakes.close();
        handshakes.wait().await;
    }

    /// Answers a first packet; `Some`: its handshake begins.
    fn begin(&self, incoming: Incoming, api: &Arc<Api>) -> Option<Handshake> {
        let shown = incoming.remote_address_validated();
        let address = incoming.remote_address();
        let now_ms = api.edge.clock.now_ms();
        let decision = match decide(self.handshakes(), self.limits, shown) {
            Decision::Accept if !shown && !self.socket.begin(address, now_ms) => Decision::Retry,
            decision => decision,
        };
        match decision {
            Decision::Accept => {}
            Decision::Retry => {
                metrics::quic_retried();
                // Only a client that has a token already cannot be asked for one, and its address is shown.
                let _ = incoming.retry();
                return None;
            }
            Decision::Refuse => {
                metrics::connection_refused(Refusal::Handshakes);
                incoming.refuse();
                return None;
            }
            Decision::Ignore => {
                metrics::connection_refused(Refusal::Handshakes);
                incoming.ignore();
                return None;
            }
        }
        let from = match shown.then(|| admit_address(api, &self.connections, address.ip())) {
            Some(None) => {
                incoming.refuse();
                return None;
            }
            Some(from) => from,
            None => None,
        };
        let claimed = (!shown).then(|| Claimed {
            address,
            socket: self.socket.clone(),
            clock: api.edge.clock.clone(),
        });
        let Some(place) = self.connections.try_enter() else {
            incoming.refuse();
            return None;
        };
        Some(Handshake {
            under_way: UnderWay::begin(&self.handshakes),
            claimed,
            incoming,
            place,
            from,
            connections: self.connections.clone(),
            api: api.clone(),
        })
    }

    /// From `stop` on, refuses who comes, until `end`.
    pub async fn refuse(self, stop: CancellationToken, end: CancellationToken) {
        stop.cancelled().await;
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => {
                        metrics::connection_refused(Refusal::Stopping);
                        incoming.refuse();
                    }
                    None => return,
                },
            }
        }
    }

    /// Closes what is still open, and waits a little until the clients have heard it.
    pub async fn close(&self) {
        let code = Code::GoingAway;
        self.endpoint.close(number(code), code.name().as_bytes());
        let _ = tokio::time::timeout(GOODBYES_MAX, self.endpoint.wait_idle()).await;
    }
}

/// What an address that is the client's may do: the rate of those who are not authenticated, and its share of connections.
fn admit_address(api: &Api, connections: &Connections, address: IpAddr) -> Option<AddressPlace> {
    if api.limiter.early(address).is_err() {
        metrics::connection_refused(Refusal::Rate);
        return None;
    }
    connections.try_enter_from(address)
}

/// An address for which a handshake is under way without its having been shown.
struct Claimed {
    address: SocketAddr,
    socket: Socket,
    clock: Clock,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.socket.ended(self.address, self.clock.now_ms());
    }
}

/// One connection, from its first packet to its session.
struct Handshake {
    under_way: UnderWay,
    claimed: Option<Claimed>,
    incoming: Incoming,
    place: Place,
    /// Known before only if the client had shown its address.
    from: Option<AddressPlace>,
    connections: Connections,
    api: Arc<Api>,
}

impl Handshake {
    async fn finish(self) {
        let connecting = match self.incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return tracing::debug!(%error, "a QUIC connection could not begin"),
        };
        let connection = match tokio::time::timeout(HANDSHAKE_MAX, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(%error, "a QUIC handshake failed"),
            Err(_) => return tracing::debug!("a QUIC handshake was not finished in time"),
        };
        drop(self.under_way);
        if let Some(claimed) = self.claimed {
            claimed.socket.shown(claimed.address);
        }
        let address = connection.remote_address().ip();
        let from = self
            .from
            .or_else(|| admit_address(&self.api, &self.connections, address));
        let Some(from) = from else {
            let code = Code::RateLimited;
            return connection.close(number(code), code.name().as_bytes());
        };
        let edge = self.api.edge.clone();
        self.api
            .sessions
            .spawn(serve(connection, edge, (self.place, from)));
    }
}

async fn serve(connection: Connection, edge: Arc<task::Edge>, places: (Place, AddressPlace)) {
    let _live = metrics::LiveQuic::new();
    task::run(Quic::new(connection), fresh_session_id(), edge).await;
    drop(places);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a15_many_handshakes_ask_for_addresses_and_too_many_are_not_begun() {
        let limits = HandshakeLimits {
            max: 10,
            retry_above: 3,
        };
        let decided = |under_way| [false, true].map(|shown| decide(under_way, limits, shown));
        assert_eq!(decided(2), [Decision::Accept, Decision::Accept]);
        assert_eq!(decided(3), [Decision::Retry, Decision::Accept]);
        assert_eq!(decided(9), [Decision::Retry, Decision::Accept]);
        assert_eq!(decided(10), [Decision::Ignore, Decision::Refuse]);
    }
}
