//! QUIC connections that outlast a change: of the client's address, of the certificate, of the node's mind.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use conch_gateway::admission::Connections;
use conch_gateway::bucket::Rate;
use conch_gateway::clock::Clock;
use conch_gateway::config::Settings;
use conch_gateway::exit::Failure;
use conch_gateway::quic::listener::Listener;
use conch_gateway::tls::development;
use conch_gateway::tls::keys::Keys;
use conch_gateway::tls::tickets::Tickets;
use conch_wire::{Code, ServerFrame};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::cursor;
use crate::quic::world;
use crate::quic_client::{Options, QuicClient, dial};
use crate::world::{SOON, World, eventually, try_with, with};

async fn with_quic_at(at: std::net::SocketAddr) -> Result<World, Failure> {
    try_with(|s| s.quic.listen = Some(at), Clock::system()).await
}

fn another_socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

#[tokio::test]
async fn a_client_that_moves_in_the_middle_of_sends_goes_on_with_its_session() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut reader = world.enter(&ben).await;
    let mut client = QuicClient::connect(&world).await;
    let session = client.hello(&ann.token).await.session;
    let alias = client.open(cursor(channel, 1, 0, 0)).await;
    let mut requests = Vec::new();
    for i in 0..120 {
        if i % 30 == 29 {
            client.endpoint.rebind(another_socket()).unwrap();
        }
        requests.push(client.queue_send(alias, &format!("message {i}")).await);
        if i % 10 == 9 {
            // At most 64 may be without an answer.
            for request in requests.drain(..) {
                client.answer_of(request).await.unwrap();
            }
        }
    }
    let mut last = 0;
    for i in 0..120 {
        let (_, event) = reader.message().await;
        assert_eq!(event.text().unwrap(), format!("message {i}"));
        assert!(last == 0 || event.seq == last + 1, "once, in order");
        last = event.seq;
    }
    // One session, never authenticated again: ann's one and ben's one.
    assert_eq!(world.node.api.edge.hub.len(), 2);
    client.ping().await;
    assert_ne!(session.0, 0);
}

#[tokio::test]
async fn a_client_that_only_listens_is_found_when_it_says_something() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut listener = QuicClient::enter(&world, &ann).await;
    let mut writer = world.enter(&ben).await;
    let alias = writer.open(cursor(channel, 1, 0, 0)).await.unwrap();
    listener.endpoint.rebind(another_socket()).unwrap();
    listener.ping().await;
    writer.send(alias, "found").await.unwrap();
    assert_eq!(listener.message().await.1.text(), Some("found"));
}

#[tokio::test]
async fn moving_does_not_refill_a_users_limits() {
    let world = with(
        |s| {
            s.quic.listen = Some("127.0.0.1:0".parse().unwrap());
            s.limits.sends_per_user = Rate { per_s: 1, burst: 5 };
        },
        Clock::manual(1_700_000_000_000),
    )
    .await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut client = QuicClient::enter(&world, &ann).await;
    let alias = client.open(cursor(channel, 1, 0, 0)).await;
    for i in 0..5 {
        client.send(alias, &format!("{i}")).await.unwrap();
    }
    client.endpoint.rebind(another_socket()).unwrap();
    assert_eq!(
        client.send(alias, "one too many").await,
        Err(Code::RateLimited)
    );
}

#[tokio::test]
async fn the_certificate_changes_under_open_connections() {
    let folder = tempfile::tempdir().unwrap();
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(
            folder.path().join("key.pem"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        Options::trusting(made.cert.der())
    };
    let first = write();
    let path = |name: &str| Some(folder.path().join(name));
    let world = with(
        |s| {
            s.quic.listen = Some("127.0.0.1:0".parse().unwrap());
            // A pair of its own: HTTP stays plain, as behind a proxy.
            s.quic.tls_cert = path("cert.pem");
            s.quic.tls_key = path("key.pem");
        },
        Clock::system(),
    )
    .await;
    assert_eq!(world.node.quic().unwrap().certificate_sha256, None);
    let ann = world.sign_up("ann").await;
    let mut open = QuicClient::with(&world, first.clone()).await;
    open.hello(&ann.token).await;
    let second = write();
    world.node.reload();
    let at = world.node.quic().unwrap().address;
    let changed = async {
        while dial(at, second.clone().config()).await.1.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, changed).await.expect("the new one is used");
    assert!(dial(at, first.config()).await.1.is_err());
    open.ping().await;
}

#[tokio::test]
async fn a_node_that_stops_tells_its_clients_and_refuses_others() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let options = Options::of(&world);
    let mut client = QuicClient::enter(&world, &ann).await;
    let quic = world.node.quic_listener().unwrap().clone();
    let at = quic.address().unwrap();
    let stopping = tokio::spawn(world.node.shut_down(Default::default()));
    client
        .until(|f| matches!(f, ServerFrame::Goaway { .. }))
        .await;
    let code = Code::GoingAway;
    assert_eq!(
        client.closed().await,
        (u64::from(code.number()), Some(code))
    );
    timeout(SOON, stopping).await.expect("in time").unwrap();
    eventually(|| quic.open_connections() == 0).await;
    // Its endpoint is closed: nobody gets in any more.
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut config = options.config();
    let mut impatient = quinn::TransportConfig::default();
    impatient.max_idle_timeout(Some(quinn::VarInt::from_u32(500).into()));
    config.transport_config(Arc::new(impatient));
    let connecting = endpoint.connect_with(config, at, "localhost").unwrap();
    assert!(connecting.await.is_err());
}

#[tokio::test]
async fn a_node_that_was_killed_says_so_to_connections_of_its_life_before() {
    // A runtime of its own, which ends without a word to anybody.
    let first_life = tokio::runtime::Runtime::new().unwrap();
    let (node, at) = first_life
        .spawn(async {
            let node = world().await;
            let at = node.node.quic().unwrap().address;
            (node, at)
        })
        .await
        .unwrap();
    let ann = node.sign_up("ann").await;
    let mut client = QuicClient::enter(&node, &ann).await;
    first_life.shutdown_background();
    drop(node);
    // The same port, as soon as it is free; the same name, store and secret.
    let again = async {
        loop {
            let started = with_quic_at(at).await;
            match started {
                Ok(node) => return node,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    let _node = timeout(SOON, again).await.expect("the port is free");
    client
        .say(&conch_wire::ClientFrame::Ping { nonce: 1 })
        .await;
    let ended = client.ended().await;
    assert!(
        matches!(ended, quinn::ConnectionError::Reset),
        "at once, not by silence: {ended:?}"
    );
}

#[tokio::test]
async fn a_port_that_is_stopping_refuses_at_once() {
    // As in the time between "no more" and the end, which nobody can hold open from outside.
    let keys = Keys::of(&vec![7; 32].into());
    let (certificate, _) = development::certificate().unwrap();
    let tickets = Tickets::for_quic(keys.clone(), Clock::system());
    let tls = certificate.for_quic(Arc::new(tickets)).unwrap();
    let listener = Listener::bind(
        "127.0.0.1:0".parse().unwrap(),
        &Settings::dev().quic,
        tls,
        &keys,
        "test",
        Connections::new(10, 10),
    )
    .unwrap();
    let at = listener.address().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::spawn(listener.refuse(stop, CancellationToken::new()));
    let options = Options::trusting(&certificate.current().cert[0]);
    let refused = dial(at, options.config()).await.1.unwrap_err();
    assert!(
        matches!(&refused, quinn::ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED),
        "{refused:?}"
    );
}
