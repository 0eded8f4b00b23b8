//! Transports against a node of a few lines: which one is taken, what is learnt from it, and what a node that breaks the
//! rules gets. Real sockets, a real data folder.
#![cfg(feature = "native")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod node;

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use conch_client::core::{Config, ConnectionState, Event};
use conch_client::wire::frame::{Hello, frame_type};
use conch_client::wire::{ClientFrame, Code, ServerFrame};
use conch_client::{
    Client, ClientBuilder, EventStream, TokenFuture, TokenProvider, Transport, Transports,
};

use node::{Node, Peer, Quic, encoded, no_changes, soon};

/// Hands out numbered tokens, and counts how often a new one was asked for.
#[derive(Default)]
struct Tokens(AtomicU32);

impl TokenProvider for Tokens {
    fn token(&self, refresh: bool) -> TokenFuture {
        let number = self.0.fetch_add(u32::from(refresh), Ordering::SeqCst) + u32::from(refresh);
        Box::pin(async move { Ok(format!("token {number}")) })
    }
}

fn builder(endpoint: String, folder: &Path) -> ClientBuilder {
    let config = Config {
        reconnect_base_ms: 20,
        reconnect_cap_ms: 100,
        ..Config::default()
    };
    ClientBuilder::new(&endpoint, folder)
        .token_provider(Arc::new(Tokens::default()))
        .config(config)
}

/// What is not about the choice of a transport does not depend on who is faster.
async fn on_quic(node: &Node, folder: &Path) -> (Client, EventStream) {
    start(builder(node.endpoint(), folder).transports(Transports::QuicOnly)).await
}

async fn start(builder: ClientBuilder) -> (Client, EventStream) {
    let client = builder.open().await.unwrap();
    let events = client.events().await.unwrap();
    client.connect().await.unwrap();
    (client, events)
}

/// The next state that `wanted` holds of.
async fn state(
    events: &mut EventStream,
    wanted: impl Fn(ConnectionState) -> bool,
) -> ConnectionState {
    let heard = async {
        loop {
            if let Event::Connection(state) = events.next().await.unwrap()
                && wanted(state)
            {
                return state;
            }
        }
    };
    soon(heard).await
}

async fn online(events: &mut EventStream) {
    state(events, |it| it == ConnectionState::Online).await;
}

/// How the client ended a connection: its code, if it closed it.
async fn ended(peer: &Peer) -> Option<u64> {
    match soon(peer.connection().closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

/// A UDP port that swallows everything. Every attempt begins on a socket of its own; one that was given up says so once
/// more, from where it was.
struct BlackHole {
    socket: UdpSocket,
    sources: HashSet<SocketAddr>,
}

impl BlackHole {
    fn new() -> BlackHole {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let sources = HashSet::new();
        BlackHole { socket, sources }
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// Whether somebody tried since this was asked last.
    fn was_tried(&mut self) -> bool {
        let before = self.sources.len();
        let mut datagram = [0; 2_048];
        while let Ok((_, source)) = self.socket.recv_from(&mut datagram) {
            self.sources.insert(source);
        }
        self.sources.len() > before
    }

    /// Waits until somebody tries.
    async fn tried(&mut self) {
        let tried = async {
            while !self.was_tried() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        soon(tried).await;
    }
}

#[tokio::test]
async fn quic_is_found_by_asking_the_node_and_remembered_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let mut node = Node::with(&quic).await;
    for _ in 0..2 {
        let (client, mut events) = start(builder(node.endpoint(), folder.path())).await;
        let (_peer, hello) = quic.welcome().await;
        assert_eq!(hello.token, "token 0");
        online(&mut events).await;
        assert_eq!(client.transport(), Some(Transport::Quic));
        client.close().await;
        assert_eq!(client.transport(), None);
    }
    assert_eq!(node.asked.load(Ordering::SeqCst), 1);
    assert!(node.no_websocket());
}

#[tokio::test]
async fn node_without_quic_is_asked_once_and_gets_a_websocket_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start().await;
    let (client, mut events) = start(builder(node.endpoint(), folder.path())).await;
    for _ in 0..3 {
        let mut peer = node.websocket().await;
        peer.welcome().await;
        online(&mut events).await;
        assert_eq!(client.transport(), Some(Transport::WebSocket));
    }
    assert_eq!(node.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn blocked_quic_gives_way_to_websocket_and_is_left_alone_until_the_network_changes() {
    let folder = tempfile::tempdir().unwrap();
    let mut hole = BlackHole::new();
    let mut node = Node::start().await;
    node.says(hole.port(), &"00".repeat(32));
    let (client, mut events) = start(builder(node.endpoint(), folder.path())).await;
    hole.tried().await;
    let mut peer = node.websocket().await;
    peer.welcome().await;
    online(&mut events).await;
    // That QUIC is blocked, and not only slow, shows beside the connection.
    let left_alone = async {
        loop {
            drop(peer);
            hole.was_tried();
            peer = node.websocket().await;
            peer.welcome().await;
            online(&mut events).await;
            if !hole.was_tried() {
                return peer;
            }
        }
    };
    let peer = soon(left_alone).await;
    client.close().await;
    drop((client, peer));

    let (client, mut events) = start(builder(node.endpoint(), folder.path())).await;
    let mut peer = node.websocket().await;
    peer.welcome().await;
    online(&mut events).await;
    assert!(
        !hole.was_tried(),
        "a restart paid for the blocked QUIC again"
    );

    client.network_changed().await.unwrap();
    let nonce = peer.next(|frame| match frame {
        ClientFrame::Ping { nonce } => Some(nonce),
        _ => None,
    });
    assert!(nonce.await > 0);
    drop(peer);
    hole.tried().await;
}

#[tokio::test]
async fn quic_that_comes_late_says_nothing_and_is_not_held_against_it() {
    // A handshake waits 3 s. On a machine that is later than that, QUIC was rightly given up, and it is done once more.
    let late_and_taken = async { while !quic_comes_late().await {} };
    soon(late_and_taken).await;
}

/// Whether QUIC came after WebSocket, but before it was given up; if so, all that is to follow has followed.
async fn quic_comes_late() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let mut node = Node::with(&quic).await;
    let (_client, mut events) = start(builder(node.endpoint(), folder.path())).await;
    let late = quic.incoming().await;
    let mut peer = node.websocket().await;
    peer.welcome().await;
    online(&mut events).await;
    let Ok(connection) = late.await else {
        return false;
    };
    let closed = soon(connection.closed()).await;
    assert!(
        matches!(&closed, quinn::ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == 0),
        "{closed:?}"
    );
    drop(peer);
    let (_peer, _) = quic.welcome().await;
    online(&mut events).await;
    true
}

#[tokio::test]
async fn certificate_of_another_gets_no_word() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let mut node = Node::start().await;
    node.says(quic.address().port(), &"5a".repeat(32));
    let (client, mut events) = start(builder(node.endpoint(), folder.path())).await;
    assert!(quic.incoming().await.await.is_err());
    let mut peer = node.websocket().await;
    peer.welcome().await;
    online(&mut events).await;
    assert_eq!(client.transport(), Some(Transport::WebSocket));
}

#[tokio::test]
async fn what_is_remembered_is_asked_for_again_when_it_does_not_lead_there() {
    let folder = tempfile::tempdir().unwrap();
    let old = Quic::start();
    let mut node = Node::with(&old).await;
    let (_client, mut events) = start(builder(node.endpoint(), folder.path())).await;
    let (peer, _) = old.welcome().await;
    online(&mut events).await;
    // The node starts again, with another port and another certificate; somebody else has the old port.
    let new = Quic::start();
    node.says(new.address().port(), &new.hash);
    drop(peer);
    old.incoming().await.refuse();
    let (_peer, _) = new.welcome().await;
    online(&mut events).await;
    assert!(node.no_websocket());
}

#[tokio::test]
async fn sessions_of_tls_are_resumed_when_connecting_again() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (_client, mut events) = on_quic(&node, folder.path()).await;
    for connection in 0..3 {
        let (peer, _) = quic.welcome().await;
        online(&mut events).await;
        assert_eq!(quic.resumed.load(Ordering::SeqCst), connection);
        let code = u32::from(Code::InternalError.number());
        peer.connection().close(code.into(), b"");
    }
}

#[tokio::test]
async fn requests_go_on_streams_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (_client, mut events) = on_quic(&node, folder.path()).await;
    let (mut peer, _) = quic.welcome().await;
    online(&mut events).await;
    peer.say(&ServerFrame::SyncNow).await;
    let (mut send, _, first) = peer.request().await;
    // Answered in pieces, like everything on a network.
    for byte in encoded(&no_changes(first)).chunks(7) {
        send.write_all(byte).await.unwrap();
    }
    send.finish().unwrap();
    // The answer arrived: only then there is a next one.
    peer.say(&ServerFrame::SyncNow).await;
    let (_, _, second) = peer.request().await;
    assert_ne!(first, second);
}

#[tokio::test]
async fn without_room_for_another_stream_requests_go_on_the_control_stream() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::granting(1);
    let node = Node::with(&quic).await;
    let (_client, mut events) = on_quic(&node, folder.path()).await;
    let (mut peer, _) = quic.welcome().await;
    online(&mut events).await;
    peer.say(&ServerFrame::SyncNow).await;
    peer.next(|frame| matches!(frame, ClientFrame::Sync { .. }).then_some(()))
        .await;
}

#[tokio::test]
async fn request_whose_stream_is_reset_is_made_again_on_the_same_connection() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (_client, mut events) = on_quic(&node, folder.path()).await;
    let (mut peer, _) = quic.welcome().await;
    online(&mut events).await;
    peer.say(&ServerFrame::SyncNow).await;
    let (mut send, _, first) = peer.request().await;
    send.reset(u32::from(Code::IdleTimeout.number()).into())
        .unwrap();
    let (mut send, _, second) = peer.request().await;
    // Ended without a word: the same.
    send.finish().unwrap();
    let (_, _, third) = peer.request().await;
    assert!(first < second && second < third);
}

#[tokio::test]
async fn nonsense_ends_the_connection_as_bad_frame_and_another_one_follows() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (_client, mut events) = on_quic(&node, folder.path()).await;
    let too_long = [frame_type::DELIVER, 0xff, 0xff, 0xff, 1, 0, 0, 0];
    let unknown = [0x3f, 0, 0, 0, 0, 0, 0, 0];
    for rubbish in [&too_long[..], &unknown] {
        let (mut peer, _) = quic.welcome().await;
        online(&mut events).await;
        peer.say_bytes(rubbish).await;
        assert_eq!(ended(&peer).await, Some(0));
    }
    let (mut peer, _) = quic.welcome().await;
    online(&mut events).await;
    peer.say(&ServerFrame::SyncNow).await;
    let (mut send, _, request) = peer.request().await;
    send.write_all(&encoded(&no_changes(request + 1)))
        .await
        .unwrap();
    send.finish().unwrap();
    assert_eq!(ended(&peer).await, Some(0));
    let said = Some(Code::BadFrame.number());
    state(
        &mut events,
        |it| matches!(it, ConnectionState::Offline { code, .. } if code == said),
    )
    .await;
    quic.welcome().await;
}

#[tokio::test]
async fn streams_of_the_node_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (_client, mut events) = on_quic(&node, folder.path()).await;
    let (peer, _) = quic.welcome().await;
    online(&mut events).await;
    let connection = peer.connection();
    let opened = async {
        tokio::select! {
            _ = connection.open_bi() => "bidirectional",
            _ = connection.open_uni() => "unidirectional",
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => "none",
        }
    };
    assert_eq!(opened.await, "none");
    assert_eq!(connection.max_datagram_size(), None);
}

#[tokio::test]
async fn code_of_a_close_is_heard_even_behind_the_end_of_the_control_stream() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (_client, _events) = on_quic(&node, folder.path()).await;
    let mut peer = quic.accept().await;
    assert_eq!(peer.hello().await.token, "token 0");
    peer.end().await;
    let code = u32::from(Code::TokenExpired.number());
    peer.connection().close(code.into(), b"token_expired");
    let mut peer = quic.accept().await;
    assert_eq!(peer.hello().await.token, "token 1");
}

#[tokio::test]
async fn closed_client_says_goodbye_before_it_closes() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (client, mut events) = on_quic(&node, folder.path()).await;
    let (mut peer, _) = quic.welcome().await;
    online(&mut events).await;
    let closing = tokio::spawn(async move { client.close().await });
    peer.next(|frame| matches!(frame, ClientFrame::Goodbye).then_some(()))
        .await;
    assert!(peer.maybe_next(|_| Some(())).await.is_none());
    soon(closing).await.unwrap();
}

#[tokio::test]
async fn change_of_network_moves_the_connection_and_asks_it() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let (client, mut events) = on_quic(&node, folder.path()).await;
    let (mut peer, _) = quic.welcome().await;
    online(&mut events).await;
    for _ in 0..3 {
        let before = peer.connection().remote_address();
        client.network_changed().await.unwrap();
        let nonce = peer
            .next(|frame| match frame {
                ClientFrame::Ping { nonce } => Some(nonce),
                _ => None,
            })
            .await;
        peer.say(&ServerFrame::Pong {
            nonce,
            inbox_position: 0,
        })
        .await;
        assert_ne!(peer.connection().remote_address(), before);
    }
    assert_eq!(client.connection(), ConnectionState::Online);
}

#[tokio::test]
async fn endpoint_that_is_dead_gives_way_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let quic = Quic::start();
    let node = Node::with(&quic).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let builder = builder(dead.clone(), folder.path())
        .endpoints(vec![dead, node.endpoint()])
        .transports(Transports::QuicOnly);
    let (_client, mut events) = start(builder).await;
    let (_peer, _) = quic.welcome().await;
    online(&mut events).await;
}

#[tokio::test]
async fn node_that_goes_away_is_left_for_the_one_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Quic::start(), Quic::start());
    let (one, two) = (Node::with(&first).await, Node::with(&second).await);
    let (_client, mut events) = on_quic(&one, folder.path()).await;
    let (mut peer, _) = first.welcome().await;
    online(&mut events).await;
    peer.say(&ServerFrame::Goaway {
        code: Code::GoingAway,
        delay_min_ms: 0,
        delay_max_ms: 10,
        endpoints: vec![two.endpoint()],
    })
    .await;
    let (_peer, hello): (Peer, Hello) = second.welcome().await;
    assert!(hello.replaces.is_some());
    online(&mut events).await;
}

#[tokio::test]
async fn only_what_may_carry_connections_is_tried() {
    let quic = Quic::start();
    let mut node = Node::with(&quic).await;
    let folder = tempfile::tempdir().unwrap();
    let only = builder(node.endpoint(), folder.path()).transports(Transports::WebSocketOnly);
    let (client, mut events) = start(only).await;
    let mut peer = node.websocket().await;
    peer.welcome().await;
    online(&mut events).await;
    assert_eq!(node.asked.load(Ordering::SeqCst), 0);
    assert_eq!(client.transport(), Some(Transport::WebSocket));

    let folder = tempfile::tempdir().unwrap();
    let only = builder(node.endpoint(), folder.path()).transports(Transports::QuicOnly);
    let (client, mut events) = start(only).await;
    let (_peer, _) = quic.welcome().await;
    online(&mut events).await;
    assert_eq!(client.transport(), Some(Transport::Quic));
    assert!(node.no_websocket());
}
