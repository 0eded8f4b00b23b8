//! The driver against a node of a few lines: real sockets, a real data folder, no HTTP.
#![cfg(feature = "native")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use conch_client::core::{ConnectionState, Content, Event};
use conch_client::wire::event::{Ack, ChannelKind, PendingAnswer, SendFlags};
use conch_client::wire::frame::{
    ChannelHead, ChannelOpened, Hello, Limits, SyncChanges, Welcome, split_frame,
};
use conch_client::wire::limits::FRAME_BYTES_MAX;
use conch_client::wire::{
    AckFlags, ChannelId, ClientFrame, Code, DeviceId, Event as Entry, EventFlags, ServerFrame,
    SessionId, UserId,
};
use conch_client::{
    Client, ClientBuilder, EventStream, SendOutcome, StoreError, TokenFuture, TokenProvider,
    Transports,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

const CHANNEL: ChannelId = ChannelId(42);
const PATIENCE: Duration = Duration::from_secs(20);

/// Hands out numbered tokens, and counts how often a new one was asked for.
#[derive(Default)]
struct Tokens(AtomicU32);

impl TokenProvider for Tokens {
    fn token(&self, refresh: bool) -> TokenFuture {
        let number = self.0.fetch_add(u32::from(refresh), Ordering::SeqCst) + u32::from(refresh);
        Box::pin(async move { Ok(format!("token {number}")) })
    }
}

/// A node's end of one connection.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    unread: Bytes,
}

struct Node(TcpListener);

impl Node {
    async fn start() -> Node {
        Node(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    #[allow(
        clippy::result_large_err,
        reason = "the shape of the library's callback"
    )]
    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(PATIENCE, self.0.accept()).await.unwrap().unwrap();
        let choose = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/ws");
            let protocol = HeaderValue::from_static("conch.1");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        Peer {
            socket: accept_hdr_async(stream, choose).await.unwrap(),
            unread: Bytes::new(),
        }
    }

    /// Accepts and welcomes; answers pending sends with `answers`.
    async fn welcome(&self, answers: Vec<PendingAnswer>) -> (Peer, Hello) {
        let mut peer = self.accept().await;
        let hello = peer.hello().await;
        peer.say(&ServerFrame::Welcome(Box::new(Welcome {
            minor: 0,
            features: 0,
            session: SessionId(1),
            user: UserId(1),
            device: DeviceId(1),
            time_ms: 0,
            generation: 1,
            inbox_position: 0,
            limits: Limits::default(),
            pending: answers,
            resumed: true,
            node: String::new(),
        })))
        .await;
        for cursor in &hello.cursors {
            peer.open(0, cursor.alias, cursor.seq).await;
        }
        peer.say(&ServerFrame::SyncChanges {
            request: 0,
            changes: SyncChanges {
                reset: false,
                rows: Vec::new(),
                more: false,
                token: Vec::new(),
            },
        })
        .await;
        (peer, hello)
    }
}

impl Peer {
    async fn say(&mut self, frame: &ServerFrame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.socket
            .send(Message::Binary(bytes.freeze()))
            .await
            .unwrap();
    }

    async fn open(&mut self, request: u32, alias: u32, head_seq: u32) {
        self.say(&ServerFrame::ChannelOpened {
            request,
            opened: ChannelOpened {
                alias,
                head: ChannelHead {
                    channel: CHANNEL,
                    head_seq,
                    head_ordinal: head_seq,
                    read_seq: 0,
                    read_ordinal: 0,
                    mentions: 0,
                },
                kind: ChannelKind::Group,
                title: "Harbour".to_owned(),
                peer: None,
                first_seq: 1,
                resync: false,
            },
        })
        .await;
    }

    async fn deliver(&mut self, alias: u32, seq: u32, text: &str) {
        self.say(&ServerFrame::Deliver {
            alias,
            event: Entry {
                author: UserId(9),
                seq,
                time_ms: 1,
                kind: 1,
                flags: EventFlags::default(),
                tail: Bytes::copy_from_slice(text.as_bytes()),
            },
        })
        .await;
    }

    /// The next frame, handed to `read` as long as that does not want it.
    async fn next<T>(&mut self, mut read: impl FnMut(ClientFrame<'_>) -> Option<T>) -> T {
        loop {
            while let Some(split) = split_frame(&self.unread, FRAME_BYTES_MAX).unwrap() {
                let wanted = read(ClientFrame::decode(split.header, split.body).unwrap());
                let consumed = split.consumed;
                self.unread = self.unread.slice(consumed..);
                if let Some(wanted) = wanted {
                    return wanted;
                }
            }
            let message = timeout(PATIENCE, self.socket.next()).await.unwrap();
            if let Message::Binary(bytes) = message.unwrap().unwrap() {
                self.unread = bytes;
            }
        }
    }

    async fn hello(&mut self) -> Hello {
        self.next(|frame| match frame {
            ClientFrame::Hello(hello) => Some(hello),
            other => panic!("{other:?} before HELLO"),
        })
        .await
    }

    /// Opens the channel when asked to, and returns the next send: its request, its text and whether it is a RETRY.
    async fn send(&mut self) -> (u32, String, bool) {
        loop {
            let next = self
                .next(|frame| match frame {
                    ClientFrame::OpenChannel { request, cursor } => {
                        Some(Err((request, cursor.alias, cursor.seq)))
                    }
                    ClientFrame::Send { request, send } => {
                        let text = String::from_utf8(send.tail.to_vec()).unwrap();
                        Some(Ok((request, text, send.flags.contains(SendFlags::RETRY))))
                    }
                    _ => None,
                })
                .await;
            match next {
                Ok(send) => return send,
                Err((request, alias, seq)) => self.open(request, alias, seq).await,
            }
        }
    }

    async fn ack(&mut self, request: u32, seq: u32) {
        let ack = Ack {
            seq,
            time_ms: 7,
            flags: AckFlags::default(),
        };
        let acks = vec![ack];
        self.say(&ServerFrame::SendAck { request, acks }).await;
    }
}

async fn client(node: &Node, folder: &Path) -> (Client, EventStream) {
    let client = ClientBuilder::new(&node.endpoint(), folder)
        .token_provider(Arc::new(Tokens::default()))
        .transports(Transports::WebSocketOnly)
        .open()
        .await
        .unwrap();
    let events = client.events().await.unwrap();
    client.connect().await.unwrap();
    (client, events)
}

async fn message(events: &mut EventStream) -> (u32, String) {
    loop {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        if let Event::Message(message) = event {
            let Content::Text { text, .. } = message.content else {
                panic!("{message:?}")
            };
            return (message.seq, text);
        }
    }
}

#[tokio::test]
async fn message_typed_without_a_node_is_sent_when_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start().await;
    let (client, _events) = client(&node, folder.path()).await;
    // The first connection is cut before it says anything.
    drop(node.accept().await);
    let sending = client.send(CHANNEL, "typed").await.unwrap();
    let (mut peer, _) = node.welcome(Vec::new()).await;
    let (request, text, retry) = peer.send().await;
    assert_eq!((text.as_str(), retry), ("typed", false));
    peer.ack(request, 1).await;
    let outcome = timeout(PATIENCE, sending).await.unwrap().unwrap();
    assert_eq!(outcome, SendOutcome::Stored { seq: 1, time_ms: 7 });
}

#[tokio::test]
async fn send_without_an_answer_is_asked_for_after_a_restart_and_shown_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start().await;
    let (first, _events) = client(&node, folder.path()).await;
    let (mut peer, _) = node.welcome(Vec::new()).await;
    let sending = first.send(CHANNEL, "one").await.unwrap();
    let key = sending.key();
    assert_eq!(peer.send().await.1, "one");
    // The node has stored it; the answer never arrives, because the program ends.
    first.close().await;
    drop((first, peer));

    let (second, mut events) = client(&node, folder.path()).await;
    let stored = PendingAnswer::Stored { seq: 1, time_ms: 7 };
    let (mut peer, hello) = node.welcome(vec![stored]).await;
    let asked: Vec<_> = hello.pending.iter().map(|it| it.key).collect();
    assert_eq!(asked, [key]);
    assert_eq!(hello.replaces, Some(SessionId(1)));
    assert_eq!(message(&mut events).await, (1, "one".to_owned()));
    let alias = hello.cursors[0].alias;
    peer.deliver(alias, 1, "one").await;
    peer.deliver(alias, 2, "two").await;
    assert_eq!(message(&mut events).await, (2, "two".to_owned()));
    assert!(second.outbox().await.unwrap().is_empty());
    let texts: Vec<_> = second.history(CHANNEL, None, 10).await.unwrap();
    assert_eq!(texts.iter().map(|it| it.seq).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn events_that_nobody_reads_hold_the_connection_back_and_are_all_there() {
    const EVENTS: u32 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start().await;
    let (client, mut events) = client(&node, folder.path()).await;
    let (mut peer, _) = node.welcome(Vec::new()).await;
    let alias = 0x8000_0001;
    peer.open(0, alias, 0).await;
    let feeding = tokio::spawn(async move {
        for seq in 1..=EVENTS {
            peer.deliver(alias, seq, "word").await;
        }
        peer
    });
    // Its own calls are served meanwhile.
    while client.channels().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    for seq in 1..=EVENTS {
        assert_eq!(message(&mut events).await.0, seq);
    }
    feeding.await.unwrap();
}

#[tokio::test]
async fn refused_token_is_refreshed() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start().await;
    let (_client, _events) = client(&node, folder.path()).await;
    let mut peer = node.accept().await;
    assert_eq!(peer.hello().await.token, "token 0");
    let close = CloseFrame {
        code: Code::TokenExpired.number().into(),
        reason: "".into(),
    };
    peer.socket.close(Some(close)).await.unwrap();
    let mut peer = node.accept().await;
    assert_eq!(peer.hello().await.token, "token 1");
}

#[tokio::test]
async fn closed_client_says_goodbye_and_lets_go_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start().await;
    let (first, mut events) = client(&node, folder.path()).await;
    let (mut peer, _) = node.welcome(Vec::new()).await;
    while !matches!(
        timeout(PATIENCE, events.next()).await.unwrap(),
        Some(Event::Connection(ConnectionState::Online))
    ) {}
    let second = ClientBuilder::new(&node.endpoint(), folder.path())
        .open()
        .await;
    assert!(matches!(
        second,
        Err(conch_client::ClientError::Store(StoreError::InUse(_)))
    ));
    let closing = tokio::spawn(async move { first.close().await });
    peer.next(|frame| matches!(frame, ClientFrame::Goodbye).then_some(()))
        .await;
    drop(peer);
    closing.await.unwrap();
    while timeout(PATIENCE, events.next()).await.unwrap().is_some() {}
    ClientBuilder::new(&node.endpoint(), folder.path())
        .open()
        .await
        .unwrap();
}
