//! TLS over a socket, with no buffer of its own while nothing moves.
//!
//! rustls without its buffers (`UnbufferedServerConnection`): what is read goes into memory that all connections of a
//! thread share and is decrypted there; only the beginning of a record that has not come whole is kept. What is written is
//! encrypted into the same kind of memory and handed to the socket at once; only what the socket does not take is kept.
//! So a connection at rest is its keys and no more.
//!
//! Invariants: `incoming` never holds a whole record when a read waits; plaintext that a reader had no room for is handed
//! out before more is read; nothing is encrypted while earlier ciphertext waits, so at most one write is held.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes read at once: a few records.
const READ_BYTES: usize = 32_768;
/// Most plaintext encrypted at once: one full record.
const WRITE_BYTES: usize = 16_384;
/// What a record of that size grows by at most, in TLS 1.2 and 1.3 (header, nonce, tag, type), and room for a second one:
/// rustls may split.
const RECORDS_BYTES: usize = WRITE_BYTES + 512;

thread_local! {
    static CIPHERTEXT_IN: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
    static CIPHERTEXT_OUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORDS_BYTES].into_boxed_slice());
    static PLAINTEXT_OUT: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(WRITE_BYTES));
}

type Traffic<'a> = WriteTraffic<'a, ServerConnectionData>;

/// See the module.
pub struct TlsStream<S> {
    socket: S,
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a handshake message.
    incoming: Vec<u8>,
    plaintext: Held,
    /// Ciphertext that the socket did not take yet.
    outgoing: Held,
    /// The peer has said that nothing more comes, or the socket ended.
    ended: bool,
    /// `close_notify` is in `outgoing`, or behind it.
    closing: bool,
}

impl<S: std::fmt::Debug> std::fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither keys nor what was said.
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Bytes that wait, without memory when there are none.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    taken: usize,
}

impl Held {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.is_empty() {
            *self = Held::default();
        }
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// The handshake. The caller sets its deadline.
    pub async fn accept(socket: S, config: Arc<ServerConfig>) -> io::Result<TlsStream<S>> {
        let mut stream = TlsStream {
            socket,
            tls: UnbufferedServerConnection::new(config).map_err(broken)?,
            incoming: Vec::new(),
            plaintext: Held::default(),
            outgoing: Held::default(),
            ended: false,
            closing: false,
        };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            // As far as the socket takes it: a client may write before it reads.
            let _ = self.poll_outgoing(cx)?;
            if let Err(error) = ready!(self.poll_ciphertext(cx)) {
                // What rustls has to say to the client about it, if the socket takes it.
                let _ = self.poll_outgoing(cx);
                return Poll::Ready(Err(error));
            }
            if self.ended && self.tls.is_handshaking() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        // Tickets are not waited for either.
        let _ = self.poll_outgoing(cx)?;
        Poll::Ready(Ok(()))
    }

    /// Reads what the socket has and works through it. At the end of the socket `ended` is set.
    fn poll_ciphertext(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        CIPHERTEXT_IN.with_borrow_mut(|memory| {
            let mut buffer = ReadBuf::new(memory);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            let read = buffer.filled_mut();
            if read.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            if self.incoming.is_empty() {
                let used = self.work(read)?;
                self.incoming.extend_from_slice(&read[used..]);
            } else {
                let mut incoming = std::mem::take(&mut self.incoming);
                incoming.extend_from_slice(read);
                let used = self.work(&mut incoming)?;
                incoming.drain(..used);
                if !incoming.is_empty() {
                    self.incoming = incoming;
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Works through ciphertext; gives how much of it is done with. Plaintext and answers are kept.
    fn work(&mut self, input: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.tls.process_tls_records(&mut input[used..]);
            let mut more = 0;
            let mut done = false;
            match state {
                Err(error) => {
                    self.say_alert();
                    return Err(broken(error));
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        self.plaintext.push(record.payload);
                        more += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, |room| data.encode(room))?;
                }
                // It is in `outgoing`, and nothing overtakes that.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                // Early data is off, so none is read; what waits for input or output is asked again later.
                Ok(_) => done = true,
            }
            used += discard + more;
            if done {
                return Ok(used);
            }
        }
    }

    /// After a breach: what rustls wants to tell the peer.
    fn say_alert(&mut self) {
        loop {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if encode(&mut self.outgoing, |room| data.encode(room)).is_err() {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return,
            }
        }
    }

    /// Ready when the socket has all ciphertext.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let socket = Pin::new(&mut self.socket);
            let written = ready!(socket.poll_write(cx, self.outgoing.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.take(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts and hands to the socket; gives how much plaintext was taken. Nothing else waits to go out.
    fn encrypt(&mut self, cx: &mut Context<'_>, plaintext: &[u8]) -> io::Result<usize> {
        let plaintext = &plaintext[..plaintext.len().min(WRITE_BYTES)];
        CIPHERTEXT_OUT.with_borrow_mut(|memory| {
            let count = self.with_keys(|mut traffic| traffic.encrypt(plaintext, memory))?;
            let ciphertext = &memory[..count];
            let mut written = 0;
            if self.outgoing.is_empty()
                && let Poll::Ready(taken) = Pin::new(&mut self.socket).poll_write(cx, ciphertext)
            {
                written = taken?;
            }
            self.outgoing.push(&ciphertext[written..]);
            Ok(plaintext.len())
        })
    }

    /// Calls `put` with the keys for what goes out, behind a ticket or a change of keys that is due.
    fn with_keys(
        &mut self,
        put: impl FnOnce(Traffic<'_>) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        loop {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    return put(traffic).map_err(io::Error::other);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, |room| data.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(broken(error)),
            }
        }
    }
}

/// Lets `put` write into new room at the end of `held`, as much as it asks for.
fn encode(
    held: &mut Held,
    mut put: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let before = held.bytes.len();
    let mut room = 0;
    loop {
        held.bytes.resize(before + room, 0);
        match put(&mut held.bytes[before..]) {
            Ok(written) => {
                held.bytes.truncate(before + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.plaintext.is_empty() && !this.ended {
            // Tickets, and answers to a change of keys: as far as the socket takes them now.
            let _ = this.poll_outgoing(cx)?;
            ready!(this.poll_ciphertext(cx))?;
        }
        let _ = this.poll_outgoing(cx)?;
        let rest = this.plaintext.rest();
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        this.plaintext.take(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        plaintext: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(cx))?;
        Poll::Ready(self.encrypt(cx, plaintext))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(cx))?;
        // One record for all of them: a header in a record of its own would cost as much as what follows it.
        let written = PLAINTEXT_OUT.with_borrow_mut(|plaintext| {
            plaintext.clear();
            for piece in pieces {
                let room = WRITE_BYTES - plaintext.len();
                plaintext.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            self.encrypt(cx, plaintext)
        });
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outgoing(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.closing {
            this.closing = true;
            // Without keys, or after a breach, there is nothing to say it with.
            CIPHERTEXT_OUT.with_borrow_mut(|memory| {
                if let Ok(count) = this.with_keys(|mut keys| keys.queue_close_notify(memory)) {
                    this.outgoing.push(&memory[..count]);
                }
            });
        }
        ready!(this.poll_outgoing(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as ClientStream;

    use super::*;
    use crate::clock::Clock;
    use crate::tls::{Certificate, development, keys, tickets};

    fn configs(
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (ServerConfig, ClientConfig) {
        let certificate: Certificate = development::certificate().unwrap().0;
        let keys = keys::Keys::of(&vec![7; 32].into());
        let tickets = Arc::new(tickets::Tickets::for_https(keys, Clock::manual(0)));
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate.current().end_entity_cert().unwrap().clone())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (certificate.for_https(tickets).unwrap(), client)
    }

    /// A connection whose pipe holds `room` bytes each way.
    async fn connected(
        versions: &[&'static rustls::SupportedProtocolVersion],
        room: usize,
    ) -> (TlsStream<DuplexStream>, ClientStream<DuplexStream>) {
        let (here, there) = duplex(room);
        let (server, client) = configs(versions);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let (server, client) = tokio::join!(
            TlsStream::accept(here, Arc::new(server)),
            connector.connect(name, there)
        );
        (server.unwrap(), client.unwrap())
    }

    fn holds_nothing(stream: &TlsStream<DuplexStream>) -> bool {
        stream.incoming.capacity()
            + stream.plaintext.bytes.capacity()
            + stream.outgoing.bytes.capacity()
            == 0
    }

    const BOTH: [&rustls::SupportedProtocolVersion; 2] =
        [&rustls::version::TLS13, &rustls::version::TLS12];

    #[tokio::test]
    async fn what_is_said_arrives_whole_however_it_is_cut() {
        for version in BOTH {
            for room in [1, 37, 5_000, 200_000] {
                let (here, there) = duplex(room);
                let (server, client) = configs(&[version]);
                let said: Vec<u8> = (0..70_000_u32).map(|n| (n / 3) as u8).collect();
                let (mut heard, mut back) = (vec![0; said.len()], vec![0; said.len()]);
                let there = async {
                    let name = ServerName::try_from("localhost").unwrap();
                    let connector = TlsConnector::from(Arc::new(client));
                    let mut client = connector.connect(name, there).await.unwrap();
                    client.write_all(&said).await.unwrap();
                    client.flush().await.unwrap();
                    client.read_exact(&mut back).await.unwrap();
                };
                let here = async {
                    let mut server = TlsStream::accept(here, Arc::new(server)).await.unwrap();
                    server.read_exact(&mut heard).await.unwrap();
                    server.write_all(&heard).await.unwrap();
                    server.flush().await.unwrap();
                };
                tokio::join!(there, here);
                assert!(
                    heard == said && back == said,
                    "{version:?}, {room} bytes of room"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_connection_at_rest_holds_no_buffer() {
        let (mut server, mut client) = connected(&BOTH, 100_000).await;
        for size in [1, 900, 40_000] {
            client.write_all(&vec![5; size]).await.unwrap();
            client.flush().await.unwrap();
            server.read_exact(&mut vec![0; size]).await.unwrap();
            let waits = std::future::poll_fn(|cx| {
                let mut byte = [0];
                let read = Pin::new(&mut server).poll_read(cx, &mut ReadBuf::new(&mut byte));
                Poll::Ready(read.is_pending())
            });
            assert!(waits.await);
            server.write_all(&vec![6; size]).await.unwrap();
            server.flush().await.unwrap();
            assert!(holds_nothing(&server), "after {size} bytes");
            client.read_exact(&mut vec![0; size]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn pieces_go_out_as_one_record() {
        let (mut server, mut client) = connected(&BOTH, 100_000).await;
        let pieces = [IoSlice::new(b"header"), IoSlice::new(b" and what follows")];
        let written = server.write_vectored(&pieces).await.unwrap();
        assert_eq!(written, 23);
        let mut heard = [0; 64];
        let count = client.read(&mut heard).await.unwrap();
        assert_eq!(&heard[..count], b"header and what follows");
    }

    #[tokio::test]
    async fn a_close_is_heard_on_both_sides() {
        let (mut server, mut client) = connected(&BOTH, 100_000).await;
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        server.write_all(b"goodbye").await.unwrap();
        server.shutdown().await.unwrap();
        // A socket that ends without the word that it ends would be an error here.
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"goodbye");
    }

    #[tokio::test]
    async fn a_change_of_the_clients_keys_is_followed() {
        let (mut server, mut client) = connected(&[&rustls::version::TLS13], 100_000).await;
        for round in 0..3_u8 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(&[round; 100]).await.unwrap();
            client.flush().await.unwrap();
            let mut heard = [9; 100];
            server.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, [round; 100]);
            server.write_all(&[round; 50]).await.unwrap();
            let mut heard = [9; 50];
            client.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, [round; 50]);
        }
    }

    #[tokio::test]
    async fn what_is_no_tls_is_answered_by_an_alert_and_ends() {
        let (here, mut there) = duplex(100_000);
        let (server, _) = configs(&BOTH);
        there.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let accepted = TlsStream::accept(here, Arc::new(server)).await;
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut answer = Vec::new();
        there.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.first(), Some(&21), "an alert record");
    }

    #[tokio::test]
    async fn a_half_handshake_ends_with_its_socket() {
        let (here, mut there) = duplex(100_000);
        let (server, _) = configs(&BOTH);
        there.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
        drop(there);
        let accepted = TlsStream::accept(here, Arc::new(server)).await;
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
