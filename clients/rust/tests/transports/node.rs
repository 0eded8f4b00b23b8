//! A node of a few lines with both transports: HTTP and WebSocket on one port, QUIC on another.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use conch_client::wire::event::ChannelKind;
use conch_client::wire::frame::{
    ChannelHead, ChannelOpened, Hello, Limits, SyncChanges, Welcome, split_frame,
};
use conch_client::wire::limits::FRAME_BYTES_MAX;
use conch_client::wire::{ChannelId, ClientFrame, DeviceId, ServerFrame, SessionId, UserId};
use futures_util::{SinkExt, StreamExt};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, VarInt};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::ProducesTickets;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

pub(crate) const CHANNEL: ChannelId = ChannelId(42);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits what must come soon.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.unwrap()
}

/// The HTTP and WebSocket of a node.
pub(crate) struct Node {
    address: SocketAddr,
    /// The member `quic` of `/v1/node`.
    quic: Arc<Mutex<String>>,
    /// How often `/v1/node` was asked for.
    pub(crate) asked: Arc<AtomicU32>,
    sockets: mpsc::UnboundedReceiver<TcpStream>,
}

impl Node {
    /// A node without QUIC.
    pub(crate) async fn start() -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let quic = Arc::new(Mutex::new("null".to_owned()));
        let asked = Arc::new(AtomicU32::new(0));
        let (sender, sockets) = mpsc::unbounded_channel();
        let (facts, count) = (Arc::clone(&quic), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (facts, count, sender) = (facts.clone(), count.clone(), sender.clone());
                tokio::spawn(async move {
                    let mut start = [0; 12];
                    while stream.peek(&mut start).await.unwrap_or(0) < start.len() {
                        tokio::task::yield_now().await;
                    }
                    if &start == b"GET /v1/ws H" {
                        let _ = sender.send(stream);
                        return;
                    }
                    assert_eq!(&start, b"GET /v1/node");
                    count.fetch_add(1, Ordering::SeqCst);
                    let body = format!(r#"{{"quic":{}}}"#, facts.lock().unwrap());
                    answer(stream, &body).await;
                });
            }
        });
        Node {
            address,
            quic,
            asked,
            sockets,
        }
    }

    /// A node that says that its QUIC is there.
    pub(crate) async fn with(quic: &Quic) -> Node {
        let node = Node::start().await;
        node.says(quic.address().port(), &quic.hash);
        node
    }

    pub(crate) fn says(&self, port: u16, hash: &str) {
        let text = format!(r#"{{"port":{port},"certificate_sha256":"{hash}"}}"#);
        *self.quic.lock().unwrap() = text;
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next WebSocket.
    #[allow(
        clippy::result_large_err,
        reason = "the shape of the library's callback"
    )]
    pub(crate) async fn websocket(&mut self) -> Peer {
        let stream = soon(self.sockets.recv()).await.unwrap();
        let choose = |_: &Request, mut response: Response| {
            let protocol = HeaderValue::from_static("conch.1");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let socket = accept_hdr_async(stream, choose).await.unwrap();
        Peer::new(Carrier::WebSocket(Box::new(socket)))
    }

    pub(crate) fn no_websocket(&mut self) -> bool {
        self.sockets.try_recv().is_err()
    }
}

/// Answers a GET whose head is in the stream, and ends the connection.
async fn answer(mut stream: TcpStream, body: &str) {
    let mut head = vec![0; 4_096];
    loop {
        let read = stream.peek(&mut head).await.unwrap_or(0);
        if head[..read].windows(4).any(|it| it == b"\r\n\r\n") || read == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = stream.try_read(&mut head);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Tickets of TLS, and how many were good.
#[derive(Debug)]
pub(crate) struct Tickets {
    inner: Arc<dyn ProducesTickets>,
    resumed: Arc<AtomicU32>,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.inner.decrypt(cipher)?;
        self.resumed.fetch_add(1, Ordering::SeqCst);
        Some(plain)
    }
}

/// The QUIC of a node.
pub(crate) struct Quic {
    pub(crate) endpoint: Endpoint,
    pub(crate) hash: String,
    pub(crate) resumed: Arc<AtomicU32>,
}

impl Quic {
    pub(crate) fn start() -> Quic {
        Quic::granting(16)
    }

    /// With so many streams at once.
    pub(crate) fn granting(streams: u32) -> Quic {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let der = made.cert.der().clone();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
        let hash = digest.as_ref().iter().map(|it| format!("{it:02x}"));
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der], key.into())
            .unwrap();
        tls.alpn_protocols = vec![b"conch/1".to_vec()];
        let resumed = Arc::new(AtomicU32::new(0));
        tls.ticketer = Arc::new(Tickets {
            inner: rustls::crypto::aws_lc_rs::Ticketer::new().unwrap(),
            resumed: Arc::clone(&resumed),
        });
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(streams));
        config.transport_config(Arc::new(transport));
        let address = "127.0.0.1:0".parse().unwrap();
        Quic {
            endpoint: Endpoint::server(config, address).unwrap(),
            hash: hash.collect(),
            resumed,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(crate) async fn incoming(&self) -> Incoming {
        soon(self.endpoint.accept()).await.unwrap()
    }

    /// The next connection, and its control stream.
    pub(crate) async fn accept(&self) -> Peer {
        let connection = self.incoming().await.await.unwrap();
        let (send, recv) = soon(connection.accept_bi()).await.unwrap();
        Peer::new(Carrier::Quic(connection, send, recv))
    }

    /// Accepts and welcomes.
    pub(crate) async fn welcome(&self) -> (Peer, Hello) {
        let mut peer = self.accept().await;
        let hello = peer.welcome().await;
        (peer, hello)
    }
}

enum Carrier {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Quic(Connection, SendStream, RecvStream),
}

/// A node's end of one connection.
pub(crate) struct Peer {
    carrier: Carrier,
    unread: BytesMut,
}

pub(crate) fn encoded(frame: &ServerFrame) -> Bytes {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes.freeze()
}

/// An answer to SYNC that says nothing new.
pub(crate) fn no_changes(request: u32) -> ServerFrame {
    ServerFrame::SyncChanges {
        request,
        changes: SyncChanges {
            reset: false,
            rows: Vec::new(),
            more: false,
            token: Vec::new(),
        },
    }
}

impl Peer {
    fn new(carrier: Carrier) -> Peer {
        Peer {
            carrier,
            unread: BytesMut::new(),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        match &self.carrier {
            Carrier::Quic(connection, ..) => connection,
            Carrier::WebSocket(_) => panic!("a WebSocket"),
        }
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        match &mut self.carrier {
            Carrier::WebSocket(socket) => {
                let message = Message::Binary(Bytes::copy_from_slice(bytes));
                socket.send(message).await.unwrap();
            }
            Carrier::Quic(_, send, _) => send.write_all(bytes).await.unwrap(),
        }
    }

    pub(crate) async fn say(&mut self, frame: &ServerFrame) {
        self.say_bytes(&encoded(frame)).await;
    }

    /// Ends the node's half of the control stream.
    pub(crate) async fn end(&mut self) {
        match &mut self.carrier {
            Carrier::WebSocket(socket) => (**socket).close(None).await.unwrap(),
            Carrier::Quic(_, send, _) => {
                send.finish().unwrap();
                soon(send.stopped()).await.unwrap();
            }
        }
    }

    /// Takes HELLO and says WELCOME, with nothing to follow.
    pub(crate) async fn welcome(&mut self) -> Hello {
        let hello = self.hello().await;
        let welcome = ServerFrame::Welcome(Box::new(Welcome {
            minor: 0,
            features: 0,
            session: SessionId(1),
            user: UserId(1),
            device: DeviceId(1),
            time_ms: 0,
            generation: 1,
            inbox_position: 0,
            limits: Limits::default(),
            pending: Vec::new(),
            resumed: true,
            node: String::new(),
        }));
        self.say(&welcome).await;
        for cursor in &hello.cursors {
            self.open(0, cursor.alias, cursor.seq).await;
        }
        self.say(&no_changes(0)).await;
        hello
    }

    pub(crate) async fn open(&mut self, request: u32, alias: u32, head_seq: u32) {
        let head = ChannelHead {
            channel: CHANNEL,
            head_seq,
            head_ordinal: head_seq,
            read_seq: 0,
            read_ordinal: 0,
            mentions: 0,
        };
        self.say(&ServerFrame::ChannelOpened {
            request,
            opened: ChannelOpened {
                alias,
                head,
                kind: ChannelKind::Group,
                title: "Harbour".to_owned(),
                peer: None,
                first_seq: 1,
                resync: false,
            },
        })
        .await;
    }

    /// The next frame, handed to `read` as long as that does not want it; `None` when the client ends.
    pub(crate) async fn maybe_next<T>(
        &mut self,
        mut read: impl FnMut(ClientFrame<'_>) -> Option<T>,
    ) -> Option<T> {
        loop {
            while let Some(split) = split_frame(&self.unread, FRAME_BYTES_MAX).unwrap() {
                let wanted = read(ClientFrame::decode(split.header, split.body).unwrap());
                let consumed = split.consumed;
                let _ = self.unread.split_to(consumed);
                if wanted.is_some() {
                    return wanted;
                }
            }
            match &mut self.carrier {
                Carrier::WebSocket(socket) => match soon(socket.next()).await? {
                    Ok(Message::Binary(bytes)) => self.unread.extend_from_slice(&bytes),
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => {}
                },
                Carrier::Quic(_, _, recv) => match soon(recv.read_chunk(65_536, true)).await {
                    Ok(Some(chunk)) => self.unread.extend_from_slice(&chunk.bytes),
                    Ok(None) | Err(_) => return None,
                },
            }
        }
    }

    pub(crate) async fn next<T>(&mut self, read: impl FnMut(ClientFrame<'_>) -> Option<T>) -> T {
        self.maybe_next(read).await.unwrap()
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        self.next(|frame| match frame {
            ClientFrame::Hello(hello) => Some(hello),
            other => panic!("{other:?} before HELLO"),
        })
        .await
    }

    /// The next stream with a request of its own: its halves, the request's id, and the frame.
    pub(crate) async fn request(&self) -> (SendStream, RecvStream, u32) {
        let (send, mut recv) = soon(self.connection().accept_bi()).await.unwrap();
        let bytes = soon(recv.read_to_end(FRAME_BYTES_MAX)).await.unwrap();
        let split = split_frame(&bytes, FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(split.consumed, bytes.len(), "one frame and no more");
        match ClientFrame::decode(split.header, split.body).unwrap() {
            ClientFrame::Sync { request, .. } => (send, recv, request),
            other => panic!("{other:?}"),
        }
    }
}
