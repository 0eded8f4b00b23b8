//! Who may begin a handshake, and who is told to go away.
//!
//! The source of a first packet may be invented. So few handshakes are begun for addresses that are not shown to be the
//! client's ([`decide`]): above a threshold everybody has to come back with a token first (Retry), and nothing is counted
//! for an address before it is shown. While the node stops, who comes is refused at once; the endpoint itself closes last.
//! What becomes of a handshake that has begun is in [`super::handshake`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conch_wire::Code;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{EndpointConfig, HashedConnectionIdGenerator, ServerConfig};
use rustls::ServerConfig as TlsConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::endpoint::Endpoint;
use super::handshake::{Claimed, Handshake, UnderWay, admit_address};
use super::knock::Knock;
use super::port::INCOMING_MAX;
use crate::admission::Connections;
use crate::config::QuicSettings;
use crate::http::Api;
use crate::metrics::{self, Refusal};
use crate::tls::keys::Keys;
use crate::transport::quic::number;

/// How long an end waits until closed connections have said so.
const GOODBYES_MAX: Duration = Duration::from_secs(1);
/// What a client may send until its first packet was looked at, and all clients together.
const INCOMING_BYTES: u64 = 32_768;
const INCOMING_BYTES_ALL: u64 = 4_194_304;
/// A connection of the node's life before is told so at most this often, over all connections.
const RESET_EVERY: Duration = Duration::from_millis(1);

/// A bound UDP port with its endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Listener {
    endpoint: Endpoint,
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
        Ok(Listener {
            endpoint: Endpoint::bind(address, config, server)?,
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
        self.endpoint.address()
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
            let knock = tokio::select! {
                () = stop.cancelled() => break,
                knock = self.endpoint.knock() => knock,
            };
            let Some(knock) = knock else {
                break;
            };
            if let Some(handshake) = self.begin(knock, &api) {
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
    fn begin(&self, knock: Knock, api: &Arc<Api>) -> Option<Handshake> {
        let (address, shown) = (knock.address, knock.shown);
        let now_ms = api.edge.clock.now_ms();
        let decision = match decide(self.handshakes(), self.limits, shown) {
            Decision::Accept if !shown && !self.endpoint.port().socket.begin(address, now_ms) => {
                Decision::Retry
            }
            decision => decision,
        };
        match decision {
            Decision::Accept => {}
            Decision::Retry => {
                metrics::quic_retried();
                knock.retry();
                return None;
            }
            Decision::Refuse => {
                metrics::connection_refused(Refusal::Handshakes);
                knock.refuse();
                return None;
            }
            Decision::Ignore => {
                metrics::connection_refused(Refusal::Handshakes);
                knock.ignore();
                return None;
            }
        }
        let from = match shown.then(|| admit_address(api, &self.connections, address.ip())) {
            Some(None) => {
                knock.refuse();
                return None;
            }
            Some(from) => from,
            None => None,
        };
        let clock = &api.edge.clock;
        let claimed = (!shown).then(|| Claimed::new(address, &self.endpoint, clock));
        let Some(place) = self.connections.try_enter() else {
            knock.refuse();
            return None;
        };
        Some(Handshake {
            under_way: UnderWay::begin(&self.handshakes),
            claimed,
            knock,
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
                knock = self.endpoint.knock() => match knock {
                    Some(knock) => {
                        metrics::connection_refused(Refusal::Stopping);
                        knock.refuse();
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
        let _ = tokio::time::timeout(GOODBYES_MAX, self.endpoint.idle()).await;
    }
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
