//! Both ends of a connection, for tests: a port of ours and a client of quinn's.
#![allow(clippy::unwrap_used)] // a test ends at the first surprise

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig, TransportConfig};
use quinn_proto::{Dir, StreamId};
use tokio::time::timeout;

use super::connection::Connection;
use super::endpoint::Endpoint;
use crate::clock::Clock;
use crate::tls::{development, keys::Keys, tickets::Tickets};

pub(super) const SOON: Duration = Duration::from_secs(10);

/// A node's port, and the configuration of its clients.
pub(crate) fn port(client: TransportConfig) -> (Endpoint, ClientConfig) {
    port_with(super::transport_config(), client)
}

pub(super) fn port_with(
    node: Arc<TransportConfig>,
    client: TransportConfig,
) -> (Endpoint, ClientConfig) {
    let (certificate, _) = development::certificate().unwrap();
    let tickets = Tickets::for_quic(Keys::of(&vec![7; 32].into()), Clock::manual(0));
    let tls = certificate.for_quic(Arc::new(tickets)).unwrap();
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    server.transport_config(node);
    let at = (Ipv4Addr::LOCALHOST, 0).into();
    let port = Endpoint::bind(at, quinn::EndpointConfig::default(), server).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.current().cert[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"conch/1".to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(client));
    (port, config)
}

pub(crate) async fn connect(
    to: SocketAddr,
    config: ClientConfig,
) -> (quinn::Endpoint, quinn::Connection) {
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, to, "localhost").unwrap();
    (endpoint, connecting.await.unwrap())
}

/// The node's end of the next connection.
pub(crate) async fn accepted(port: &Endpoint) -> Connection {
    let mut connection = port.knock().await.unwrap().accept().unwrap();
    poll_fn(|cx| connection.poll_connected(cx)).await.unwrap();
    connection
}

/// Both ends, with a stream that the client has opened and that both have used.
pub(super) struct Pair {
    pub(super) node: Connection,
    pub(super) stream: StreamId,
    _endpoint: quinn::Endpoint,
    pub(super) client: quinn::Connection,
    pub(super) send: quinn::SendStream,
    recv: quinn::RecvStream,
}

impl Pair {
    pub(super) async fn new(port: &Endpoint, config: ClientConfig) -> Pair {
        let connecting = connect(port.address().unwrap(), config);
        let (mut node, (_endpoint, client)) = tokio::join!(accepted(port), connecting);
        let (mut send, recv) = client.open_bi().await.unwrap();
        send.write_all(b"hello").await.unwrap();
        let opened = turns(&mut node, |node| node.state().streams().accept(Dir::Bi));
        let stream = timeout(SOON, opened).await.unwrap();
        let mut pair = Pair {
            node,
            stream,
            _endpoint,
            client,
            send,
            recv,
        };
        pair.write(b"welcome");
        pair.turn().await;
        pair.expect(b"welcome").await;
        pair
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        let state = self.node.state();
        let written = state.send_stream(self.stream).write(bytes).unwrap();
        assert_eq!(written, bytes.len());
    }

    pub(super) async fn turn(&mut self) {
        poll_fn(|cx| {
            self.node.begin_turn(cx);
            self.node.end_turn(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// What the client reads while the node takes its turns.
    pub(super) async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        let reading = self.recv.read_exact(&mut read);
        tokio::select! {
            () = turns(&mut self.node, |_| None) => {}
            done = timeout(SOON, reading) => done.expect("in time").unwrap(),
        }
        assert_eq!(read, bytes);
    }
}

/// Turns until there is something.
pub(super) async fn turns<T>(
    connection: &mut Connection,
    mut look: impl FnMut(&mut Connection) -> Option<T>,
) -> T {
    poll_fn(|cx| {
        connection.begin_turn(cx);
        let found = look(connection);
        connection.end_turn(cx);
        found.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
