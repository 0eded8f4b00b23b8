//! QUIC as a transport: a control stream, and a stream for each request that wants one.
//!
//! The certificate is made anew for each server and trusted by its hash, as at a node in development. Rules of streams and
//! datagrams are checked here; what a request stream may hold is the session's to check. [`Listener::vanish`] is a node
//! that was killed and started again: what was connected is unknown, and is told so by stateless resets.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use conch_wire::Code;
use conch_wire::frame::{frame_type, split_frame};
use conch_wire::limits::FRAME_BYTES_MAX;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::rustls;
use quinn::{
    Connection, ConnectionError, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    Incoming, RecvStream, SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Inbound, Link, Outbound, QUEUE};

const ALPN: &[u8] = b"conch/1";
/// Control and 15 requests.
const STREAMS_MAX: u32 = 16;
const CONNECTION_WINDOW_BYTES: u32 = 262_144;
const STREAM_WINDOW_BYTES: u32 = 131_072;
const DATAGRAM_BYTES: usize = 65_536;
/// How long what was said may take to arrive before the close (P-077).
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long a request stream may take to be complete.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// Where QUIC is, and whom to trust there.
#[derive(Clone, Debug)]
pub(crate) struct QuicAt {
    pub(crate) address: SocketAddr,
    /// Of the certificate's DER, in hex.
    pub(crate) certificate_sha256: String,
}

/// A QUIC server on a free port of loopback.
#[derive(Debug)]
pub(crate) struct Listener {
    at: QuicAt,
    /// The one socket, whichever endpoint has it.
    socket: UdpSocket,
    tokens: EndpointConfig,
    config: ServerConfig,
    endpoint: Mutex<Endpoint>,
    links: mpsc::WeakSender<Link>,
}

impl Listener {
    pub(super) fn start(links: mpsc::Sender<Link>, idle: Duration) -> Result<Listener> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)?;
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certificate_sha256 = hex::encode(Sha256::digest(&certificate));

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(STREAMS_MAX.into())
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
            .max_idle_timeout(Some(idle.try_into()?));
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport));

        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let at = QuicAt {
            address: socket.local_addr()?,
            certificate_sha256,
        };
        // Tokens of resets are made under the configuration's key; the usual ids would be refused by another endpoint.
        let mut tokens = EndpointConfig::default();
        tokens.cid_generator(|| Box::new(Ids));
        let endpoint = endpoint(&tokens, &config, &socket)?;
        tokio::spawn(accept(endpoint.clone(), links.clone()));
        Ok(Listener {
            at,
            socket,
            tokens,
            config,
            endpoint: Mutex::new(endpoint),
            links: links.downgrade(),
        })
    }

    pub(crate) fn at(&self) -> &QuicAt {
        &self.at
    }

    fn endpoint(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets every connection: the next packet of each is answered by a stateless reset.
    pub(crate) fn vanish(&self) -> Result<()> {
        let mut current = self.endpoint();
        // What it says from here on goes nowhere: it is not at the address that clients know.
        let nowhere = UdpSocket::bind("127.0.0.1:0")?;
        let address = nowhere.local_addr()?;
        current.rebind(nowhere)?;
        // It listens at the old address too until something comes at the new one.
        UdpSocket::bind("127.0.0.1:0")?.send_to(&[0; 32], address)?;
        let next = endpoint(&self.tokens, &self.config, &self.socket)?;
        let links = self.links.upgrade().context("the server is gone")?;
        tokio::spawn(accept(next.clone(), links));
        *current = next;
        Ok(())
    }
}

/// Connection ids that count on, whichever endpoint makes them, so that none is used twice. They need not be secret here.
struct Ids;

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        ConnectionId::new(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn endpoint(
    tokens: &EndpointConfig,
    config: &ServerConfig,
    socket: &UdpSocket,
) -> Result<Endpoint> {
    let socket = socket.try_clone()?;
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(
        tokens.clone(),
        Some(config.clone()),
        socket,
        runtime,
    )?)
}

async fn accept(endpoint: Endpoint, links: mpsc::Sender<Link>) {
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => drop(tokio::spawn(serve(incoming, links.clone()))),
                None => return,
            },
            () = links.closed() => return endpoint.close(VarInt::from_u32(0), b""),
        }
    }
}

async fn serve(incoming: Incoming, links: mpsc::Sender<Link>) {
    let Ok(connection) = incoming.await else {
        return; // a client that was killed while it connected, or does not speak conch/1
    };
    let (to_session, incoming) = mpsc::channel(QUEUE);
    let (outgoing, from_session) = mpsc::channel(QUEUE);
    if links.send(Link { incoming, outgoing }).await.is_err() {
        return;
    }
    // Only the session and the server keep the server alive.
    drop(links);
    carry(&connection, &to_session, from_session).await;
    let _ = to_session.send(Inbound::Closed).await;
}

/// Request streams whose answers are awaited, by their index.
type Answers = Arc<Mutex<HashMap<u64, SendStream>>>;

/// All streams, until the connection ends.
async fn carry(
    connection: &Connection,
    to_session: &mpsc::Sender<Inbound>,
    from_session: mpsc::Receiver<Outbound>,
) {
    let Ok((control, recv)) = connection.accept_bi().await else {
        return;
    };
    if recv.id().index() != 0 {
        let breach = "P-066: the control stream is not the first that was opened".to_owned();
        let _ = to_session.send(Inbound::Breach(breach)).await;
    }
    let answers = Answers::default();
    tokio::select! {
        () = read_control(recv, to_session) => {}
        () = read_requests(connection, &answers, to_session) => {}
        () = read_datagrams(connection, to_session) => {}
        () = write(connection, control, &answers, from_session) => {}
        error = connection.closed() => {
            if let ConnectionError::ApplicationClosed(close) = error
                && close.error_code != VarInt::from_u32(0)
            {
                let code = close.error_code;
                let breach = format!("P-077: the client closes with {code}, not with 0");
                let _ = to_session.send(Inbound::Breach(breach)).await;
            }
        }
    }
    // What else is going on is over; without effect where the close was said.
    connection.close(VarInt::from_u32(0), b"");
}

/// Until its end, which is the connection's.
async fn read_control(mut recv: RecvStream, to_session: &mpsc::Sender<Inbound>) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await {
        buffer.extend_from_slice(&chunk.bytes);
        let inbound = match whole(&mut buffer) {
            Ok(frames) if frames.is_empty() => continue,
            Ok(frames) => Inbound::Frames(frames),
            Err(error) => Inbound::Breach(format!("P-001: {error}")),
        };
        if to_session.send(inbound).await.is_err() {
            return;
        }
    }
    if !buffer.is_empty() {
        let breach = "P-066: the control stream ends within a frame".to_owned();
        let _ = to_session.send(Inbound::Breach(breach)).await;
    }
}

/// Takes the whole frames off the front.
fn whole(buffer: &mut BytesMut) -> Result<Bytes, conch_wire::WireError> {
    let mut consumed = 0;
    while let Some(split) = split_frame(&buffer[consumed..], FRAME_BYTES_MAX)? {
        consumed += split.consumed;
    }
    Ok(buffer.split_to(consumed).freeze())
}

async fn read_requests(
    connection: &Connection,
    answers: &Answers,
    to_session: &mpsc::Sender<Inbound>,
) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        tokio::spawn(read_request(
            send,
            recv,
            answers.clone(),
            to_session.clone(),
        ));
    }
}

async fn read_request(
    send: SendStream,
    mut recv: RecvStream,
    answers: Answers,
    to_session: mpsc::Sender<Inbound>,
) {
    let stream = recv.id().index();
    let inbound = match timeout(REQUEST_WAIT, recv.read_to_end(FRAME_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Inbound::Request {
            stream,
            bytes: bytes.into(),
        },
        Ok(Err(_)) => return, // reset: the client wants no answer any more
        Err(_) => Inbound::Breach("P-069: a request stream is not complete within 10 s".to_owned()),
    };
    lock(&answers).insert(stream, send);
    let _ = to_session.send(inbound).await;
}

fn lock(answers: &Answers) -> MutexGuard<'_, HashMap<u64, SendStream>> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This version has no frame that goes into a datagram; those that may be skipped are.
async fn read_datagrams(connection: &Connection, to_session: &mpsc::Sender<Inbound>) {
    while let Ok(datagram) = connection.read_datagram().await {
        let is_skipped = datagram
            .first()
            .is_some_and(|it| it & frame_type::SKIP_IF_UNKNOWN != 0);
        if !is_skipped {
            let breach = "P-072: a datagram with what is no droppable frame".to_owned();
            let _ = to_session.send(Inbound::Breach(breach)).await;
        }
    }
}

async fn write(
    connection: &Connection,
    mut control: SendStream,
    answers: &Answers,
    mut from_session: mpsc::Receiver<Outbound>,
) {
    while let Some(outbound) = from_session.recv().await {
        match outbound {
            Outbound::Frames(bytes) => {
                if control.write_chunk(bytes).await.is_err() {
                    return;
                }
            }
            Outbound::Answer { stream, bytes } => {
                let send = lock(answers).remove(&stream);
                if let Some(mut send) = send {
                    // A client that stopped the stream does not want it.
                    let _ = send.write_chunk(bytes).await;
                    let _ = send.finish();
                }
            }
            Outbound::Reset { stream } => {
                if let Some(mut send) = lock(answers).remove(&stream) {
                    let _ = send.reset(VarInt::from_u32(0));
                }
            }
            Outbound::Finish => drop(control.finish()),
            Outbound::Close(code) => {
                // The last frames arrive before the close overtakes them.
                let _ = control.finish();
                let _ = timeout(CLOSE_WAIT, control.stopped()).await;
                return close(connection, code);
            }
            Outbound::Cut => return,
        }
    }
}

/// 1000 is WebSocket's; both sides being done is 0 here.
fn close(connection: &Connection, code: u16) {
    match Code::from_u16(code) {
        Some(known) => connection.close(u32::from(code).into(), known.name().as_bytes()),
        None => connection.close(VarInt::from_u32(0), b""),
    }
}
