//! A raw client of one QUIC connection: streams, datagrams and frames as a test says them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use conch_wire::event::SendFlags;
use conch_wire::frame::{Hello, Send, Welcome, split_frame};
use conch_wire::{Alias, ClientFrame, Code, Event, Seq, ServerFrame, limits};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig,
};
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::client::{encoded, hello, key};
use crate::world::{Person, SOON, World};

/// Trusts certificates by their digests, and counts how often it was asked.
#[derive(Debug)]
struct ByDigest {
    digests: Vec<String>,
    provider: Arc<CryptoProvider>,
    asked: Arc<AtomicUsize>,
}

impl ServerCertVerifier for ByDigest {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.digests.contains(&digest(end_entity)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::UnknownIssuer.into())
        }
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("QUIC is TLS 1.3")
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

fn digest(der: &[u8]) -> String {
    let digest = Sha256::digest(der);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a client is set to; the rest is ordinary.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) digests: Vec<String>,
    pub(crate) alpn: Vec<u8>,
    pub(crate) transport: Arc<TransportConfig>,
}

impl Options {
    /// Trusts the certificate that the node made.
    pub(crate) fn of(world: &World) -> Options {
        let quic = world.node.quic().unwrap();
        Options::by_digest(quic.certificate_sha256.clone().unwrap())
    }

    pub(crate) fn trusting(der: &[u8]) -> Options {
        Options::by_digest(digest(der))
    }

    fn by_digest(digest: String) -> Options {
        Options {
            digests: vec![digest],
            alpn: b"conch/1".to_vec(),
            transport: Arc::default(),
        }
    }

    pub(crate) fn trust(&mut self, der: &[u8]) {
        self.digests.push(digest(der));
    }

    /// Counts how often a certificate is looked at: not when a session is resumed.
    pub(crate) fn tls(&self, asked: Arc<AtomicUsize>) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = ByDigest {
            digests: self.digests.clone(),
            provider: provider.clone(),
            asked,
        };
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![self.alpn.clone()];
        tls
    }

    pub(crate) fn config(self) -> ClientConfig {
        let tls = self.tls(Arc::default());
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(self.transport);
        config
    }
}

pub(crate) struct QuicClient {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    recv: RecvStream,
    buffer: BytesMut,
    frames: VecDeque<ServerFrame>,
    next_request: u32,
}

pub(crate) async fn dial(
    at: SocketAddr,
    config: ClientConfig,
) -> (Endpoint, Result<Connection, ConnectionError>) {
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, at, "localhost").unwrap();
    let connected = timeout(SOON, connecting).await.expect("in time");
    (endpoint, connected)
}

impl QuicClient {
    /// Connected, with a control stream on which nothing was said.
    pub(crate) async fn connect(world: &World) -> QuicClient {
        QuicClient::with(world, Options::of(world)).await
    }

    pub(crate) async fn with(world: &World, options: Options) -> QuicClient {
        let at = world.node.quic().unwrap().address;
        let (endpoint, connection) = dial(at, options.config()).await;
        QuicClient::over(endpoint, connection.unwrap()).await
    }

    pub(crate) async fn over(endpoint: Endpoint, connection: Connection) -> QuicClient {
        QuicClient::try_over(endpoint, connection).await.unwrap()
    }

    /// The same, where the node may have closed the connection already.
    pub(crate) async fn try_over(
        endpoint: Endpoint,
        connection: Connection,
    ) -> Result<QuicClient, ConnectionError> {
        let (send, recv) = connection.open_bi().await?;
        Ok(QuicClient {
            endpoint,
            connection,
            send,
            recv,
            buffer: BytesMut::new(),
            frames: VecDeque::new(),
            next_request: 1,
        })
    }

    /// A session with nothing open.
    pub(crate) async fn enter(world: &World, person: &Person) -> QuicClient {
        let mut client = QuicClient::connect(world).await;
        client.hello(&person.token).await;
        client
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        // The node may have closed already; the test reads why.
        let _ = self.send.write_all(bytes).await;
    }

    pub(crate) async fn say(&mut self, frame: &ClientFrame<'_>) {
        self.say_bytes(&encoded(frame)).await;
    }

    pub(crate) fn request(&mut self) -> u32 {
        self.next_request += 1;
        self.next_request
    }

    pub(crate) async fn hello(&mut self, token: &str) -> Welcome {
        self.hello_with(hello(token)).await
    }

    pub(crate) async fn hello_with(&mut self, hello: Hello) -> Welcome {
        self.say(&ClientFrame::Hello(hello)).await;
        let welcome = match self.next().await {
            Ok(ServerFrame::Welcome(welcome)) => *welcome,
            other => panic!("{other:?}"),
        };
        self.until(|f| matches!(f, ServerFrame::SyncChanges { request: 0, .. }))
            .await;
        welcome
    }

    /// Frames that came and were not asked for.
    pub(crate) fn passed(&mut self) -> Vec<ServerFrame> {
        self.frames.drain(..).collect()
    }

    /// Takes nothing more of the control stream.
    pub(crate) fn stop_control(&mut self) {
        let _ = self.recv.stop(quinn::VarInt::from_u32(0));
    }

    /// The next frame of the control stream, or how the connection ended.
    pub(crate) async fn next(&mut self) -> Result<ServerFrame, ConnectionError> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            let read = timeout(SOON, self.recv.read_chunk(65_536, true)).await;
            match read.expect("in time") {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                _ => return Err(self.ended().await),
            }
            split(&mut self.buffer, &mut self.frames);
        }
    }

    /// How the connection ended.
    pub(crate) async fn ended(&self) -> ConnectionError {
        timeout(SOON, self.connection.closed())
            .await
            .expect("in time")
    }

    /// The code of the close, and the last ERROR about the connection before it.
    pub(crate) async fn closed(&mut self) -> (u64, Option<Code>) {
        let mut last = None;
        loop {
            match self.next().await {
                Ok(ServerFrame::Error { request: 0, error }) => last = Some(error.code),
                Ok(_) => {}
                Err(error) => return (code_of(&error), last),
            }
        }
    }

    pub(crate) async fn until(
        &mut self,
        mut wanted: impl FnMut(&ServerFrame) -> bool,
    ) -> ServerFrame {
        let mut passed = VecDeque::new();
        loop {
            let frame = match self.next().await {
                Ok(frame) => frame,
                Err(error) => panic!("closed with {error} after {passed:?}"),
            };
            if wanted(&frame) {
                passed.append(&mut self.frames);
                self.frames = passed;
                return frame;
            }
            passed.push_back(frame);
        }
    }

    /// The alias under which the channel opened.
    pub(crate) async fn open(&mut self, cursor: conch_wire::frame::Cursor) -> Alias {
        let request = self.request();
        self.say(&ClientFrame::OpenChannel { request, cursor })
            .await;
        let answer = self
            .until(|f| matches!(f, ServerFrame::ChannelOpened { request: r, .. } if *r == request))
            .await;
        match answer {
            ServerFrame::ChannelOpened { opened, .. } => opened.alias,
            _ => unreachable!(),
        }
    }

    pub(crate) async fn queue_send(&mut self, alias: Alias, text: &str) -> u32 {
        let request = self.request();
        let send = Send {
            key: key(),
            alias,
            kind: 1,
            flags: SendFlags::default(),
            tail: text.as_bytes(),
        };
        self.say(&ClientFrame::Send { request, send }).await;
        request
    }

    pub(crate) async fn answer_of(&mut self, request: u32) -> Result<Seq, Code> {
        let answer = self
            .until(|f| match f {
                ServerFrame::SendAck { request: r, .. } | ServerFrame::Error { request: r, .. } => {
                    *r == request
                }
                _ => false,
            })
            .await;
        match answer {
            ServerFrame::SendAck { acks, .. } => Ok(acks[0].seq),
            ServerFrame::Error { error, .. } => Err(error.code),
            _ => unreachable!(),
        }
    }

    pub(crate) async fn send(&mut self, alias: Alias, text: &str) -> Result<Seq, Code> {
        let request = self.queue_send(alias, text).await;
        self.answer_of(request).await
    }

    pub(crate) async fn message(&mut self) -> (Alias, Event) {
        match self
            .until(|f| matches!(f, ServerFrame::Deliver { .. }))
            .await
        {
            ServerFrame::Deliver { alias, event } => (alias, event),
            _ => unreachable!(),
        }
    }

    /// Asks and waits for the answer: everything before it has been handled.
    pub(crate) async fn ping(&mut self) -> u64 {
        let nonce = self.request();
        self.say(&ClientFrame::Ping { nonce }).await;
        match self
            .until(|f| matches!(f, ServerFrame::Pong { nonce: n, .. } if *n == nonce))
            .await
        {
            ServerFrame::Pong { inbox_position, .. } => inbox_position,
            _ => unreachable!(),
        }
    }

    /// Says these bytes on a stream of their own.
    pub(crate) async fn ask_bytes(&self, bytes: &[u8]) -> RecvStream {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        recv
    }

    /// Asks on a stream of its own; everything that comes back on it.
    pub(crate) async fn ask(&self, frame: &ClientFrame<'_>) -> Vec<ServerFrame> {
        let mut recv = self.ask_bytes(&encoded(frame)).await;
        answers(&mut recv).await
    }
}

/// Everything that comes on a stream until its end.
pub(crate) async fn answers(recv: &mut RecvStream) -> Vec<ServerFrame> {
    let bytes = timeout(SOON, recv.read_to_end(1 << 20))
        .await
        .expect("in time")
        .unwrap();
    let mut frames = VecDeque::new();
    let mut buffer = BytesMut::from(&bytes[..]);
    split(&mut buffer, &mut frames);
    assert!(buffer.is_empty(), "whole frames");
    frames.into()
}

/// Our code, or 0 for an end without one.
pub(crate) fn code_of(error: &ConnectionError) -> u64 {
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other:?}"),
    }
}

fn split(buffer: &mut BytesMut, frames: &mut VecDeque<ServerFrame>) {
    while let Some(split) = split_frame(buffer, limits::FRAME_BYTES_MAX).unwrap() {
        let body = Bytes::copy_from_slice(split.body);
        frames.push_back(ServerFrame::decode(split.header, body).unwrap());
        let consumed = split.consumed;
        buffer.advance(consumed);
    }
}
