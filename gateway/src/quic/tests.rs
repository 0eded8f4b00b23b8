//! The port and its connections against quinn's clients: sockets that take nothing, clients that are gone, turns that end.
#![allow(clippy::unwrap_used)] // a test ends at the first surprise

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use quinn::TransportConfig;
use quinn::congestion::CubicConfig;
use quinn_proto::VarInt;
use tokio::time::timeout;

use super::draining::DRAINING_MAX;
use super::pair::{Pair, SOON, accepted, connect, port, port_with, turns};

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect(what);
}

#[tokio::test]
async fn everybody_who_waits_for_the_socket_goes_on() {
    let (port, config) = port(TransportConfig::default());
    let mut pairs = [
        Pair::new(&port, config.clone()).await,
        Pair::new(&port, config).await,
    ];
    let refuses = &port.port().socket.refuses;
    refuses.send_replace(true);
    for pair in &mut pairs {
        pair.write(b"held back");
        pair.turn().await;
        assert!(pair.node.holds_unsent());
    }
    let sent = |pair: &mut Pair| pair.node.state().stats().udp_tx.datagrams;
    let before = pairs.each_mut().map(sent);
    // What is written meanwhile does not gather here: nothing more is made of it.
    for pair in &mut pairs {
        pair.write(&[1; 20_000]);
        pair.turn().await;
    }
    assert_eq!(pairs.each_mut().map(sent), before);
    let [mut one, mut two] = pairs;
    let going_on = tokio::spawn(async move {
        tokio::join!(one.expect(b"held back"), two.expect(b"held back"));
        tokio::join!(one.expect(&[1; 20_000]), two.expect(&[1; 20_000]));
        assert!(!one.node.holds_unsent() && !two.node.holds_unsent());
    });
    // Both wait by now, for nothing but the socket.
    tokio::task::yield_now().await;
    refuses.send_replace(false);
    timeout(SOON, going_on).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_close_is_told_and_leaves_nothing_behind() {
    let (port, config) = port(TransportConfig::default());
    let pair = Pair::new(&port, config).await;
    pair.node.close(VarInt::from_u32(4_007), b"told");
    let ended = timeout(SOON, pair.client.closed()).await.unwrap();
    assert!(
        matches!(&ended, quinn::ConnectionError::ApplicationClosed(close)
            if close.error_code == VarInt::from_u32(4_007) && &close.reason[..] == b"told"),
        "{ended:?}"
    );
    eventually("it is forgotten", || port.open_connections() == 0).await;
    timeout(SOON, port.idle()).await.expect("idle");
    assert_eq!(port.port().draining.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_is_gone_is_forgotten_after_the_close() {
    let (port, config) = port(TransportConfig::default());
    let at = port.address().unwrap();
    let accepting = {
        let port = port.clone();
        tokio::spawn(async move { accepted(&port).await })
    };
    // Its runtime ends without a word to anybody.
    let client = std::thread::spawn(move || {
        let there = tokio::runtime::Runtime::new().unwrap();
        let connected = there.block_on(connect(at, config));
        std::mem::forget(connected);
        there.shutdown_background();
    });
    let mut node = accepting.await.unwrap();
    tokio::task::spawn_blocking(move || client.join().unwrap())
        .await
        .unwrap();
    node.begin_turn(&mut Context::from_waker(Waker::noop()));
    assert_eq!(port.open_connections(), 1);
    drop(node);
    assert_eq!(port.port().draining.load(Ordering::Relaxed), 1);
    eventually("it is forgotten", || port.open_connections() == 0).await;
    eventually("nothing drains", || {
        port.port().draining.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn so_many_drain_and_no_more() {
    let (port, config) = port(TransportConfig::default());
    let pair = Pair::new(&port, config).await;
    port.port().draining.store(DRAINING_MAX, Ordering::Relaxed);
    drop(pair.node);
    assert_eq!(port.open_connections(), 0, "at once");
    assert_eq!(port.port().draining.load(Ordering::Relaxed), DRAINING_MAX);
}

#[tokio::test]
async fn a_knock_without_an_answer_is_refused() {
    let (port, config) = port(TransportConfig::default());
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let at = port.address().unwrap();
    let connecting = endpoint.connect_with(config, at, "localhost").unwrap();
    drop(port.knock().await.unwrap());
    let refused = timeout(SOON, connecting).await.unwrap().unwrap_err();
    assert!(
        matches!(&refused, quinn::ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED),
        "{refused:?}"
    );
    assert_eq!(port.open_connections(), 0);
}

#[tokio::test]
async fn who_is_let_in_while_the_port_closes_is_told() {
    let (port, config) = port(TransportConfig::default());
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let at = port.address().unwrap();
    let connecting = endpoint.connect_with(config, at, "localhost").unwrap();
    let knock = port.knock().await.unwrap();
    port.close(VarInt::from_u32(4_007), b"told");
    let mut node = knock.accept().unwrap();
    let connected = poll_fn(|cx| node.poll_connected(cx));
    let ended = timeout(SOON, connected).await.expect("at once");
    assert_eq!(ended, Err(quinn_proto::ConnectionError::LocallyClosed));
    drop(node);
    assert!(timeout(SOON, connecting).await.unwrap().is_err());
    timeout(SOON, port.idle()).await.expect("idle");
}

#[tokio::test]
async fn an_acknowledgement_and_what_the_session_wrote_share_a_datagram() {
    let (port, config) = port(TransportConfig::default());
    let mut pair = Pair::new(&port, config).await;
    let (mut together, mut asked) = (0, 0);
    for question in 1..=20 {
        // Several datagrams are acknowledged at once, without waiting for more.
        pair.send.write_all(&[7; 3_000]).await.unwrap();
        let (stream, whole) = (pair.stream, b"hello".len() + question * 3_000);
        let before = pair.node.state().stats();
        let answered = turns(&mut pair.node, |node| {
            while let Ok(Some(chunk)) = {
                let mut recv = node.state().recv_stream(stream);
                let mut chunks = recv.read(true).unwrap();
                chunks.next(4_000)
            } {
                asked += chunk.bytes.len();
            }
            (asked == whole).then(|| node.state().send_stream(stream).write(b"answer").unwrap())
        });
        timeout(SOON, answered).await.expect("in time");
        let after = pair.node.state().stats();
        let datagrams = after.udp_tx.datagrams - before.udp_tx.datagrams;
        if datagrams == 1 && after.frame_tx.acks > before.frame_tx.acks {
            together += 1;
        }
        pair.expect(b"answer").await;
    }
    // A question may come in two parts, of which the first is acknowledged by itself.
    assert!(together > 10, "{together}");
}

#[tokio::test]
async fn a_port_that_is_gone_ends_its_connections() {
    let (port, config) = port(TransportConfig::default());
    let mut pair = Pair::new(&port, config).await;
    drop(port);
    let lost = turns(&mut pair.node, |node| node.is_lost().then_some(()));
    timeout(SOON, lost).await.expect("told");
}

#[tokio::test]
async fn a_port_that_closes_ends_its_connections_and_takes_no_more() {
    let (port, config) = port(TransportConfig::default());
    let mut pair = Pair::new(&port, config.clone()).await;
    port.close(VarInt::from_u32(4_007), b"told");
    let lost = turns(&mut pair.node, |node| node.is_lost().then_some(()));
    timeout(SOON, lost).await.expect("told");
    drop(pair.node);
    let ended = timeout(SOON, pair.client.closed()).await.unwrap();
    assert!(matches!(
        ended,
        quinn::ConnectionError::ApplicationClosed(_)
    ));
    assert!(port.knock().await.is_none());
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let at = port.address().unwrap();
    let connecting = endpoint.connect_with(config, at, "localhost").unwrap();
    assert!(timeout(SOON, connecting).await.unwrap().is_err());
    timeout(SOON, port.idle()).await.expect("idle");
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_turn_sends_so_much_and_asks_for_another() {
    let mut cubic = CubicConfig::default();
    // So large that pacing holds nothing back, whatever the round trip was.
    cubic.initial_window(1 << 30);
    let mut node = Arc::into_inner(super::transport_config()).unwrap();
    node.congestion_controller_factory(Arc::new(cubic));
    let (port, config) = port_with(Arc::new(node), TransportConfig::default());
    let mut pair = Pair::new(&port, config).await;
    let page = vec![7; 100_000];
    pair.write(&page);
    let before = pair.node.state().stats().udp_tx.datagrams;
    let woken = Arc::new(Woken::default());
    pair.node
        .end_turn(&mut Context::from_waker(&Waker::from(woken.clone())));
    let sent = pair.node.state().stats().udp_tx.datagrams - before;
    assert!((32..48).contains(&sent), "{sent}");
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    pair.expect(&page).await;
}
