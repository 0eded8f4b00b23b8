//! A handshake that has begun: from a first packet to a session.
//!
//! A handshake has 5 s, and HELLO 5 s after it. It is counted while it is under way, and the address it claims is accounted
//! for until it is shown; only then it counts for that address.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conch_wire::Code;

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::knock::Knock;
use crate::admission::{AddressPlace, Connections, Place};
use crate::clock::Clock;
use crate::http::Api;
use crate::metrics::{self, Refusal};
use crate::session::{fresh_session_id, task};
use crate::transport::quic::{Quic, number};

/// A handshake must be complete within this.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Counts a handshake while it is under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    pub(super) fn begin(count: &Arc<AtomicUsize>) -> UnderWay {
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

/// What an address that is the client's may do: the rate of those who are not authenticated, and its share of connections.
pub(super) fn admit_address(
    api: &Api,
    connections: &Connections,
    address: IpAddr,
) -> Option<AddressPlace> {
    if api.limiter.early(address).is_err() {
        metrics::connection_refused(Refusal::Rate);
        return None;
    }
    connections.try_enter_from(address)
}

/// An address for which a handshake is under way without its having been shown.
pub(super) struct Claimed {
    address: SocketAddr,
    endpoint: Endpoint,
    clock: Clock,
}

impl Claimed {
    /// The account of `address` was opened.
    pub(super) fn new(address: SocketAddr, endpoint: &Endpoint, clock: &Clock) -> Claimed {
        Claimed {
            address,
            endpoint: endpoint.clone(),
            clock: clock.clone(),
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let socket = &self.endpoint.port().socket;
        socket.ended(self.address, self.clock.now_ms());
    }
}

/// One connection, from its first packet to its session.
pub(super) struct Handshake {
    pub(super) under_way: UnderWay,
    pub(super) claimed: Option<Claimed>,
    pub(super) knock: Knock,
    pub(super) place: Place,
    /// Known before only if the client had shown its address.
    pub(super) from: Option<AddressPlace>,
    pub(super) connections: Connections,
    pub(super) api: Arc<Api>,
}

impl Handshake {
    /// Until its session runs, or it came to nothing.
    pub(super) async fn finish(self) {
        let mut connection = match self.knock.accept() {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "a QUIC connection could not begin"),
        };
        let connected = poll_fn(|cx| connection.poll_connected(cx));
        match tokio::time::timeout(HANDSHAKE_MAX, connected).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return tracing::debug!(%error, "a QUIC handshake failed"),
            Err(_) => return tracing::debug!("a QUIC handshake was not finished in time"),
        }
        drop(self.under_way);
        if let Some(claimed) = self.claimed {
            claimed.endpoint.port().socket.shown(claimed.address);
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
