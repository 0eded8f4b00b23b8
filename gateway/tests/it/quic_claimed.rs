//! F39: an address that somebody claims in the middle of a session. Whoever catches a client's packets can send them on from an
//! address of his choosing; until that address has answered it gets little, and the session is the client's as before.
//!
//! Little is three times what came from there, as in a handshake, and for each caught packet the one datagram that crosses that: it
//! carries the challenge, which must be long (decision 0015).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use crate::client::cursor;
use crate::quic::world;
use crate::quic_client::{Options, QuicClient, dial};
use crate::world::eventually;

/// The longest datagram that the node sends.
const DATAGRAM_BYTES_MAX: usize = 1_200;
/// Messages of the other person meanwhile: as many as wait for a client that takes nothing.
const MESSAGES: usize = 10;

/// Somebody between client and node, who can make packets come from another address, and never answers there.
struct Between {
    address: SocketAddr,
    seen: Arc<Seen>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// Whether the client's packets come from the other address.
    claims: AtomicBool,
    packets: AtomicUsize,
    sent_bytes: AtomicUsize,
    received_bytes: AtomicUsize,
    /// The most by which what came exceeded what it may be.
    most_above: AtomicUsize,
}

impl Between {
    async fn start(node: SocketAddr) -> Between {
        let bind = async |host| UdpSocket::bind(SocketAddr::new(host, 0)).await.unwrap();
        let here = bind(Ipv4Addr::LOCALHOST.into()).await;
        let honest = bind(Ipv4Addr::LOCALHOST.into()).await;
        let claimed = bind(Ipv4Addr::new(127, 0, 0, 66).into()).await;
        honest.connect(node).await.unwrap();
        claimed.connect(node).await.unwrap();
        let address = here.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(pass(here, honest, claimed, seen.clone()));
        Between {
            address,
            seen,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn claim(&self, claims: bool) {
        self.seen.claims.store(claims, Ordering::Relaxed);
    }
}

async fn pass(here: UdpSocket, honest: UdpSocket, claimed: UdpSocket, seen: Arc<Seen>) {
    let mut client = None;
    let (mut up, mut down, mut lost) = ([0; 2_048], [0; 2_048], [0; 2_048]);
    loop {
        tokio::select! {
            Ok((bytes, from)) = here.recv_from(&mut up) => {
                client = Some(from);
                if seen.claims.load(Ordering::Relaxed) {
                    seen.packets.fetch_add(1, Ordering::Relaxed);
                    seen.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
                    claimed.send(&up[..bytes]).await.unwrap();
                } else {
                    honest.send(&up[..bytes]).await.unwrap();
                }
            }
            Ok(bytes) = honest.recv(&mut down) => {
                here.send_to(&down[..bytes], client.expect("it spoke first")).await.unwrap();
            }
            Ok(bytes) = claimed.recv(&mut lost) => {
                let received = bytes + seen.received_bytes.fetch_add(bytes, Ordering::Relaxed);
                let allowed = 3 * seen.sent_bytes.load(Ordering::Relaxed)
                    + DATAGRAM_BYTES_MAX * seen.packets.load(Ordering::Relaxed);
                seen.most_above.fetch_max(received.saturating_sub(allowed), Ordering::Relaxed);
            }
        }
    }
}

#[tokio::test]
async fn f39_an_address_that_is_claimed_in_a_session_gets_little_and_the_session_goes_on() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let between = Between::start(world.node.quic().unwrap().address).await;
    let (endpoint, connection) = dial(between.address, Options::of(&world).config()).await;
    let mut client = QuicClient::over(endpoint, connection.unwrap()).await;
    client.hello(&ann.token).await;
    client.open(cursor(channel, 1, 0, 0)).await;
    client.ping().await;
    let mut writer = world.enter(&ben).await;
    let alias = writer.open(cursor(channel, 1, 0, 0)).await.unwrap();

    between.claim(true);
    let request = client.request();
    client
        .say(&conch_wire::ClientFrame::Ping { nonce: request })
        .await;
    let seen = &between.seen;
    eventually(|| seen.received_bytes.load(Ordering::Relaxed) > 0).await;
    // The node has far more to say than it may say there.
    for n in 0..MESSAGES {
        let text = format!("{n} {}", "x".repeat(10_000));
        writer.send(alias, &text).await.unwrap();
    }
    // The client asks again and again, and nobody answers.
    let packets = seen.packets.load(Ordering::Relaxed);
    eventually(|| seen.packets.load(Ordering::Relaxed) >= packets + 3).await;
    between.claim(false);

    for n in 0..MESSAGES {
        let (_, event) = client.message().await;
        assert!(event.text().unwrap().starts_with(&format!("{n} ")));
    }
    client.ping().await;
    assert_eq!(world.node.api.edge.hub.len(), 2, "the sessions of before");
    let above = seen.most_above.load(Ordering::Relaxed);
    assert_eq!(above, 0, "bytes too many");
    let received = seen.received_bytes.load(Ordering::Relaxed);
    assert!(received < MESSAGES * 10_000 / 2, "{received} bytes at all");
}
