//! Rows of the attack table on the QUIC port: A14 to A17 and A19.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use conch_gateway::clock::Clock;
use conch_gateway::config::Settings;
use conch_wire::{ClientFrame, Code};
use futures_util::future::join_all;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::client::{encoded, hello};
use crate::handshake::{GOOD, upgrade};
use crate::quic::world;
use crate::quic_client::{Options, QuicClient, code_of, dial};
use crate::world::{SOON, World, eventually, with};

pub(crate) async fn quic_with(change: impl FnOnce(&mut Settings)) -> World {
    with(
        |s| {
            s.quic.listen = Some("127.0.0.1:0".parse().unwrap());
            change(s);
        },
        Clock::system(),
    )
    .await
}

/// First packets of `n` connections, as clients sent them; nobody will finish their handshakes.
async fn first_packets(world: &World, n: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let to = sink.local_addr().unwrap();
    let config = Options::of(world).config();
    let mut connecting = Vec::new();
    let (mut seen, mut packets) = (HashSet::new(), Vec::new());
    let mut buffer = [0; 2_048];
    while packets.len() < n {
        let begun = endpoint.connect_with(config.clone(), to, "localhost");
        connecting.push(begun.unwrap());
        loop {
            let read = timeout(SOON, sink.recv(&mut buffer)).await.expect("sent");
            let packet = &buffer[..read.unwrap()];
            // Repeats have the same destination id.
            if seen.insert(packet[6..6 + usize::from(packet[5])].to_vec()) {
                packets.push(packet.to_vec());
                break;
            }
        }
    }
    packets
}

/// The kind of a long header: 0 Initial, 2 Handshake, 3 Retry.
fn kind(packet: &[u8]) -> u8 {
    packet[0] >> 4 & 3
}

#[tokio::test]
async fn a15_half_handshakes_are_asked_for_their_address_and_bounded() {
    let world = quic_with(|s| s.quic.retry_above = 20).await;
    let listener = world.node.quic_listener().unwrap();
    let to = listener.address().unwrap();
    let flood = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let packets = first_packets(&world, 100).await;
    let (mut retries, mut most) = (0, 0);
    let mut buffer = [0; 2_048];
    let began = Instant::now();
    for packet in packets {
        flood.send_to(&packet, to).await.unwrap();
        // Each is answered, by its handshake or by a Retry.
        let read = timeout(SOON, flood.recv(&mut buffer))
            .await
            .expect("answered");
        retries += usize::from(kind(&buffer[..read.unwrap()]) == 3);
        while let Ok(read) = flood.try_recv(&mut buffer) {
            retries += usize::from(kind(&buffer[..read]) == 3);
        }
        most = most.max(listener.handshakes());
    }
    // A half handshake is given up after 5 s: on a slow machine that makes room for another twenty in the middle.
    let begun_max = 20 * (1 + began.elapsed().as_secs() as usize / 5);
    // The last answers may be those of handshakes, repeated: a Retry is sent once for each that came above the threshold.
    let counted = timeout(SOON, async {
        while retries < 100usize.saturating_sub(begun_max) {
            let read = flood.recv(&mut buffer).await.unwrap();
            retries += usize::from(kind(&buffer[..read]) == 3);
        }
    });
    counted.await.expect("a Retry for each above the threshold");
    assert_eq!(most, 20);
    assert!(listener.open_connections() <= begun_max);
    // Others get in meanwhile: they come back with their token.
    let ann = world.sign_up("ann").await;
    let mut client = QuicClient::enter(&world, &ann).await;
    client.ping().await;
    // Those that are never finished are given up.
    eventually(|| listener.handshakes() == 0).await;
}

#[tokio::test]
async fn a15_above_the_cap_nothing_is_begun_and_nothing_is_said() {
    let world = quic_with(|s| s.quic.handshakes_max = 10).await;
    let listener = world.node.quic_listener().unwrap();
    let to = listener.address().unwrap();
    let mut packets = first_packets(&world, 11).await;
    let (last, first) = (packets.pop().unwrap(), packets);
    let flood = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for packet in &first {
        flood.send_to(packet, to).await.unwrap();
    }
    eventually(|| listener.handshakes() == 10).await;
    let late = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    late.send_to(&last, to).await.unwrap();
    // A packet of another version behind it is answered by the same endpoint: the first was looked at before.
    let mut unknown = last.clone();
    unknown[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
    late.send_to(&unknown, to).await.unwrap();
    let mut buffer = [0; 2_048];
    let read = timeout(SOON, late.recv(&mut buffer))
        .await
        .expect("answered")
        .unwrap();
    assert_eq!(&buffer[1..5], &[0; 4], "version negotiation");
    assert!(read < unknown.len());
    eventually(|| listener.handshakes() < 10).await;
    assert!(late.try_recv(&mut buffer).is_err(), "nothing else was said");
}

#[tokio::test]
async fn a16_an_address_that_is_not_shown_gets_three_times_what_it_sent_at_most() {
    let world = world().await;
    let listener = world.node.quic_listener().unwrap();
    let to = listener.address().unwrap();
    let mut sockets = Vec::new();
    let packets = first_packets(&world, 4).await;
    for (i, mut packet) in packets.into_iter().enumerate() {
        // As it is; cut below the least size of a first packet; of another version; rubbish.
        match i {
            0 => {}
            1 => packet.truncate(1_100),
            2 => packet[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]),
            _ => packet.iter_mut().skip(20).for_each(|b| *b ^= 0x55),
        }
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&packet, to).await.unwrap();
        sockets.push((i, socket, packet.len()));
    }
    eventually(|| listener.handshakes() > 0).await;
    // Until the node has given up and repeats nothing any more.
    eventually(|| listener.handshakes() == 0 && listener.open_connections() == 0).await;
    let mut buffer = [0; 65_536];
    for (i, socket, sent) in sockets {
        let mut received = 0;
        while let Ok(read) = socket.try_recv(&mut buffer) {
            received += read;
        }
        assert!(received <= 3 * sent, "{i}: {received} for {sent}");
        assert_eq!(received > 0, i == 0 || i == 2, "{i}: {received}");
    }
}

#[tokio::test]
async fn a16_being_asked_for_an_address_is_shorter_than_what_asked() {
    let world = quic_with(|s| s.quic.retry_above = 0).await;
    let listener = world.node.quic_listener().unwrap();
    let to = listener.address().unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut buffer = [0; 2_048];
    for packet in first_packets(&world, 3).await {
        socket.send_to(&packet, to).await.unwrap();
        let read = timeout(SOON, socket.recv(&mut buffer)).await;
        let answer = &buffer[..read.expect("answered").unwrap()];
        assert_eq!(kind(answer), 3, "a Retry");
        assert!(answer.len() < packet.len() / 4, "{} bytes", answer.len());
    }
    assert_eq!((listener.handshakes(), listener.open_connections()), (0, 0));
    assert!(socket.try_recv(&mut buffer).is_err(), "once for each");
}

/// Versions of a package in the lock file.
fn locked(name: &str) -> Vec<(u64, u64, u64)> {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    let lock: toml::Table = lock.unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let of_name = packages.filter(|p| p["name"].as_str() == Some(name));
    of_name
        .map(|p| {
            let version = p["version"].as_str().unwrap();
            let mut parts = version.split(['.', '-', '+']).map(|n| n.parse().unwrap());
            let mut part = || parts.next().unwrap();
            (part(), part(), part())
        })
        .collect()
}

#[test]
fn a17_the_version_that_panics_on_crafted_parameters_is_not_used_and_may_not_come_back() {
    let used = locked("quinn-proto");
    assert!(!used.is_empty());
    assert!(used.iter().all(|v| *v >= (0, 11, 14)), "{used:?}");
    for banned in ["openssl", "openssl-sys", "native-tls"] {
        assert!(locked(banned).is_empty(), "{banned}");
    }
    let deny = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml"));
    let deny: toml::Table = deny.unwrap().parse().unwrap();
    let bans = deny["bans"]["deny"].as_array().unwrap();
    for banned in ["quinn-proto:<0.11.14", "ring", "openssl"] {
        assert!(
            bans.iter().any(|b| b["crate"].as_str() == Some(banned)),
            "{banned}"
        );
    }
}

/// How often a client looked at a certificate: not when it resumed.
fn counting(options: &Options) -> (rustls::ClientConfig, Arc<AtomicUsize>) {
    let looked = Arc::new(AtomicUsize::new(0));
    let mut tls = options.tls(looked.clone());
    tls.enable_early_data = true;
    (tls, looked)
}

fn client_of(tls: rustls::ClientConfig) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

#[tokio::test]
async fn a_session_is_resumed_on_another_node_that_shares_the_secret() {
    let (here, there) = (world().await, world().await);
    let mut options = Options::of(&here);
    options.digests.extend(Options::of(&there).digests);
    let (tls, looked) = counting(&options);
    let config = client_of(tls);
    for (world, name) in [(&here, "ann"), (&there, "ann")] {
        let person = world.sign_up(name).await;
        let at = world.node.quic().unwrap().address;
        let (endpoint, connection) = dial(at, config.clone()).await;
        let mut client = QuicClient::over(endpoint, connection.unwrap()).await;
        client.hello(&person.token).await;
        client.ping().await;
    }
    assert_eq!(looked.load(Ordering::Relaxed), 1, "the second resumed");
}

#[tokio::test]
async fn a19_early_data_is_not_offered_and_not_accepted() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let mut options = Options::of(&world);
    // Somebody else under the node's name, who gives tickets that allow early data.
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    options.trust(made.cert.der());
    let (tls, looked) = counting(&options);
    let config = client_of(tls.clone());
    let at = world.node.quic().unwrap().address;

    let (endpoint, connection) = dial(at, config.clone()).await;
    let mut client = QuicClient::over(endpoint.clone(), connection.unwrap()).await;
    client.hello(&ann.token).await;
    client.ping().await;
    let connecting = endpoint
        .connect_with(config.clone(), at, "localhost")
        .unwrap();
    let Err(connecting) = connecting.into_0rtt() else {
        panic!("the node's tickets allow early data");
    };
    timeout(SOON, connecting).await.expect("in time").unwrap();
    assert_eq!(
        looked.load(Ordering::Relaxed),
        1,
        "resumed, without early data"
    );

    // The same, with a ticket that allows it.
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut liar = rustls::ServerConfig::builder_with_provider(tls.crypto_provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    liar.alpn_protocols = vec![b"conch/1".to_vec()];
    liar.max_early_data_size = u32::MAX;
    let liar = Arc::new(QuicServerConfig::try_from(liar).unwrap());
    let liar = Endpoint::server(
        quinn::ServerConfig::with_crypto(liar),
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    )
    .unwrap();
    let (tls, _) = counting(&options);
    let config = client_of(tls);
    let serving = tokio::spawn({
        let liar = liar.clone();
        async move {
            let connection = liar.accept().await.unwrap().await.unwrap();
            // A stream of ours: the client has the ticket when it has read it.
            let mut send = connection.open_uni().await.unwrap();
            send.write_all(b"ticket").await.unwrap();
            send.finish().unwrap();
            connection.closed().await;
        }
    });
    let (endpoint, connection) = dial(liar.local_addr().unwrap(), config.clone()).await;
    let connection = connection.unwrap();
    let mut from_liar = connection.accept_uni().await.unwrap();
    from_liar.read_to_end(64).await.unwrap();
    connection.close(0u32.into(), b"");
    serving.await.unwrap();
    let connecting = endpoint.connect_with(config, at, "localhost").unwrap();
    let Ok((early, accepted)) = connecting.into_0rtt() else {
        panic!("the client would not try");
    };
    let (mut send, _recv) = early.open_bi().await.unwrap();
    let hello = encoded(&ClientFrame::Hello(hello(&ann.token)));
    let _ = send.write_all(&hello).await;
    assert!(!timeout(SOON, accepted).await.expect("in time"));
    // What was in it was not looked at: there is no session but the first.
    let mut after = QuicClient::over(endpoint, early).await;
    after.hello(&ann.token).await;
    after.ping().await;
}

/// Connects and says HELLO: whether anything was answered, else the code of the close.
async fn welcome_or_code(world: &World, token: &str) -> Result<(), u64> {
    let at = world.node.quic().unwrap().address;
    let (endpoint, connection) = dial(at, Options::of(world).config()).await;
    let entering = QuicClient::try_over(endpoint, connection.unwrap()).await;
    let mut client = entering.map_err(|error| code_of(&error))?;
    client.say(&ClientFrame::Hello(hello(token))).await;
    let first = client.next().await;
    first.map(|_| ()).map_err(|error| code_of(&error))
}

#[tokio::test]
async fn a14_an_address_has_its_share_of_connections_on_both_ports() {
    let world = quic_with(|s| s.limits.connections_per_address_max = 3).await;
    // Signing up takes one, kept alive by the HTTP client.
    let ann = world.sign_up("ann").await;
    let mut first = QuicClient::enter(&world, &ann).await;
    let second = world.enter(&ann).await;
    let limited = u64::from(Code::RateLimited.number());
    assert_eq!(welcome_or_code(&world, &ann.token).await, Err(limited));
    drop(second);
    let entered = async { while welcome_or_code(&world, &ann.token).await.is_err() {} };
    timeout(SOON, entered).await.expect("a place came free");
    first.ping().await;
}

#[tokio::test]
async fn a14_behind_a_proxy_websockets_count_by_the_address_that_it_names() {
    let world = quic_with(|s| {
        s.limits.connections_per_address_max = 2;
        s.http.behind_proxy = true;
    })
    .await;
    let upgraded = async |address: &str| {
        let headers = [GOOD, &[("X-Forwarded-For", address)]].concat();
        upgrade(world.node.http, "/v1/ws", &headers).await
    };
    let mut open = Vec::new();
    for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        let (stream, head) = upgraded(address).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{address}: {head}");
        open.push(stream);
    }
    let (_, head) = upgraded("192.0.2.1").await;
    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
    open.remove(0);
    let entered = async { while !upgraded("192.0.2.1").await.1.starts_with("HTTP/1.1 101") {} };
    timeout(SOON, entered).await.expect("a place came free");
}

#[tokio::test]
async fn the_cap_of_connections_counts_both_ports() {
    let world = quic_with(|s| s.limits.connections_max = 2).await;
    let ann = world.sign_up("ann").await;
    let _first = QuicClient::enter(&world, &ann).await;
    let at = world.node.quic().unwrap().address;
    let (_, refused) = dial(at, Options::of(&world).config()).await;
    // Refused by QUIC itself, before a handshake.
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, quinn::ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED),
        "{refused:?}"
    );
}

#[tokio::test]
async fn connections_of_an_address_are_limited_in_time_before_they_are_authenticated() {
    const AT_ONCE: usize = 30;
    let world = quic_with(|s| {
        s.limits.early_per_address = conch_gateway::bucket::Rate { per_s: 1, burst: 3 };
    })
    .await;
    let began = Instant::now();
    let outcomes = join_all((0..AT_ONCE).map(|_| welcome_or_code(&world, "no token"))).await;
    // Whoever gets in hears that the token is none.
    let code = u64::from(Code::RateLimited.number());
    let limited = outcomes.iter().filter(|it| **it == Err(code)).count();
    let refilled = 1 + began.elapsed().as_secs() as usize;
    assert!(limited <= AT_ONCE - 3, "{limited} of {AT_ONCE}");
    assert!(
        limited + 3 + refilled >= AT_ONCE,
        "{limited} of {AT_ONCE}, {refilled} more had room"
    );
    assert_eq!(
        outcomes.iter().filter(|it| it.is_ok()).count(),
        AT_ONCE - limited
    );
}
