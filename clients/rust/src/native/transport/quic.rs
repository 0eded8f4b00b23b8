//! The client's UDP sockets, and a QUIC connection over them.
//!
//! A client has one QUIC endpoint per address family, made when it is first needed and kept over reconnects, and one TLS
//! configuration per certificate to trust: so session tickets resume, and a change of network moves every connection to a
//! new socket at once. A new connection begins on a new socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use tokio::time::sleep;
use url::{Host, Url};

use super::DialError;
use super::memory::QuicRoute;
use super::pin::CertificateHash;
use crate::native::tls;

/// Silence of the transport itself; the heartbeat finds out sooner.
const IDLE_MAX_MS: u32 = 60_000;
/// What a node may send beyond what was read, in bytes: of the whole connection (no more than it may push by the
/// protocol's credit), and of one stream.
const CONNECTION_WINDOW_BYTES: u32 = 262_144;
const STREAM_WINDOW_BYTES: u32 = 131_072;
/// What may be written and not acknowledged, in bytes.
const SEND_WINDOW_BYTES: u64 = 262_144;
/// Assumed before anything is measured: a first packet that is lost is sent again after three times this.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Addresses of one name that are tried, each so long after the one before.
const ADDRESSES_MAX: usize = 4;
const STAGGER: Duration = Duration::from_millis(200);
/// Certificates in development that are remembered with their session tickets.
const PINS_MAX: usize = 4;

#[derive(Default)]
struct Open {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    /// By the certificate to trust; the newest last.
    configs: Vec<(Option<CertificateHash>, ClientConfig)>,
}

/// Opens QUIC connections.
pub(in crate::native) struct QuicDialer {
    roots: Arc<RootCertStore>,
    open: Mutex<Open>,
}

impl std::fmt::Debug for QuicDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicDialer").finish_non_exhaustive()
    }
}

impl Open {
    fn family(&mut self, is_v6: bool) -> &mut Option<Endpoint> {
        if is_v6 { &mut self.v6 } else { &mut self.v4 }
    }
}

impl QuicDialer {
    pub(in crate::native) fn new(roots: Arc<RootCertStore>) -> QuicDialer {
        QuicDialer {
            roots,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to whichever address of the endpoint answers first. From new sockets: where the last connection died without
    /// a word something between here and the node may have forgotten the old ones, or drop what comes from them.
    pub(super) async fn dial(&self, url: &Url, route: &QuicRoute) -> Result<Connection, DialError> {
        self.rebind();
        let config = self.config(route.certificate)?;
        let (addresses, name) = resolve(url, route.port).await?;
        let mut attempts = FuturesUnordered::new();
        for (turn, address) in (0..).zip(addresses) {
            let (config, name) = (config.clone(), name.as_str());
            attempts.push(async move {
                sleep(STAGGER * turn).await;
                let connecting = self.connect(config, address, name)?;
                Ok::<_, DialError>(connecting.await?)
            });
        }
        let mut last = DialError::Name(std::io::ErrorKind::NotFound.into());
        while let Some(ended) = attempts.next().await {
            match ended {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect(
        &self,
        config: ClientConfig,
        address: SocketAddr,
        name: &str,
    ) -> Result<quinn::Connecting, DialError> {
        let mut open = self.open();
        let place = open.family(address.is_ipv6());
        if let Some(endpoint) = place {
            match endpoint.connect_with(config.clone(), address, name) {
                // The socket broke; another one takes its place.
                Err(quinn::ConnectError::EndpointStopping) => {}
                other => return Ok(other?),
            }
        }
        let endpoint =
            Endpoint::client(unspecified(address.is_ipv6())).map_err(DialError::Socket)?;
        Ok(place.insert(endpoint).connect_with(config, address, name)?)
    }

    fn config(&self, pin: Option<CertificateHash>) -> Result<ClientConfig, DialError> {
        let mut open = self.open();
        if let Some((_, config)) = open.configs.iter().find(|(it, _)| *it == pin) {
            return Ok(config.clone());
        }
        let config = client_config(Arc::clone(&self.roots), pin)?;
        if open.configs.len() == PINS_MAX {
            open.configs.remove(0);
        }
        open.configs.push((pin, config.clone()));
        Ok(config)
    }

    /// Moves every connection to a new socket. A family that cannot have one now keeps its old one.
    pub(super) fn rebind(&self) {
        let open = self.open();
        for endpoint in [&open.v4, &open.v6].into_iter().flatten() {
            let is_v6 = endpoint.local_addr().is_ok_and(|it| it.is_ipv6());
            let rebound =
                UdpSocket::bind(unspecified(is_v6)).and_then(|socket| endpoint.rebind(socket));
            if let Err(error) = rebound {
                tracing::debug!(%error, "no new UDP socket");
            }
        }
    }
}

fn unspecified(is_v6: bool) -> SocketAddr {
    let ip: IpAddr = match is_v6 {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

fn client_config(
    roots: Arc<RootCertStore>,
    pin: Option<CertificateHash>,
) -> Result<ClientConfig, DialError> {
    let tls = tls::quic_config(roots, pin).map_err(|error| DialError::Tls(error.to_string()))?;
    let tls = QuicClientConfig::try_from(tls).map_err(|error| DialError::Tls(error.to_string()))?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MAX_MS))))
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .initial_rtt(INITIAL_RTT)
        // The node opens no streams and sends no datagrams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Addresses of the endpoint's host, families in turn, and the name to verify.
async fn resolve(url: &Url, port: u16) -> Result<(Vec<SocketAddr>, String), DialError> {
    let nameless = || DialError::Name(std::io::ErrorKind::InvalidInput.into());
    let name = match url.host().ok_or_else(nameless)? {
        Host::Ipv4(ip) => return Ok((vec![SocketAddr::new(ip.into(), port)], ip.to_string())),
        Host::Ipv6(ip) => return Ok((vec![SocketAddr::new(ip.into(), port)], ip.to_string())),
        Host::Domain(name) => name.to_owned(),
    };
    let found = tokio::net::lookup_host((name.as_str(), port))
        .await
        .map_err(DialError::Name)?;
    Ok((families_in_turn(found.collect()), name))
}

/// The resolver's order, but so that neither family waits for all of the other.
fn families_in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::new();
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    while turns.len() < ADDRESSES_MAX {
        let before = turns.len();
        turns.extend(first.next());
        turns.extend(second.next());
        if turns.len() == before {
            break;
        }
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn families_take_turns_and_a_name_with_many_addresses_is_cut() {
        let found: Vec<SocketAddr> = [
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "127.0.0.1:1",
            "[::4]:1",
            "127.0.0.2:1",
        ]
        .iter()
        .map(|it| it.parse().unwrap())
        .collect();
        let turns = families_in_turn(found.clone());
        assert_eq!(turns, [found[0], found[3], found[1], found[5]]);
        assert_eq!(families_in_turn(found[..1].to_vec()), found[..1]);
        assert!(families_in_turn(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn address_in_an_endpoint_is_taken_as_it_is() {
        for (url, address, name) in [
            ("http://127.0.0.1:8080/", "127.0.0.1:4433", "127.0.0.1"),
            ("http://[::1]:8080/", "[::1]:4433", "::1"),
        ] {
            let (addresses, found) = resolve(&Url::parse(url).unwrap(), 4433).await.unwrap();
            assert_eq!(addresses, [address.parse().unwrap()]);
            assert_eq!(found, name);
        }
    }
}
