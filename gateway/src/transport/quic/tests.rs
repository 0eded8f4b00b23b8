//! What one connection holds, whatever its client does: counted on a transport without a session.
#![allow(clippy::unwrap_used)] // a test ends at the first surprise

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use conch_wire::ClientFrame;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::tls::{development, keys::Keys, tickets::Tickets};

const SOON: Duration = Duration::from_secs(10);

/// A node's endpoint, and the configuration of its clients.
fn endpoint(client: TransportConfig) -> (Endpoint, ClientConfig) {
    let (certificate, _) = development::certificate().unwrap();
    let tickets = Tickets::for_quic(Keys::of(&vec![7; 32].into()), Clock::manual(0));
    let tls = certificate.for_quic(Arc::new(tickets)).unwrap();
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    server.transport_config(crate::quic::transport_config());
    let endpoint = Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.current().cert[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"conch/1".to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(client));
    (endpoint, config)
}

async fn connect(to: SocketAddr, config: ClientConfig) -> (Endpoint, Connection) {
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, to, "localhost").unwrap();
    (endpoint, connecting.await.unwrap())
}

fn sync(request: u32) -> Bytes {
    let mut out = BytesMut::new();
    ClientFrame::Sync {
        request,
        token: Vec::new(),
        rows_max: 1,
    }
    .encode(&mut out);
    out.freeze()
}

/// A page of `bytes`, as far as a transport looks.
fn page(request: u32, bytes: usize) -> Bytes {
    let mut out = vec![frame_type::HISTORY_PAGE];
    out.extend_from_slice(&(bytes as u32).to_le_bytes()[..3]);
    out.extend_from_slice(&request.to_le_bytes());
    out.resize(HEADER_BYTES + bytes, 0);
    Bytes::from(out)
}

/// What comes in next.
async fn recv(transport: &mut Quic) -> Incoming {
    let received = poll_fn(|cx| transport.poll_recv(cx, 0));
    timeout(SOON, received).await.expect("in time")
}

/// Both ends, authenticated, with a control stream on which the client said `hello`.
async fn pair(client: TransportConfig) -> (Quic, Endpoint, Connection, (SendStream, RecvStream)) {
    let (node, config) = endpoint(client);
    let connecting = connect(node.local_addr().unwrap(), config);
    let (accepted, (endpoint, connection)) =
        tokio::join!(async { node.accept().await.unwrap().await }, connecting);
    let mut transport = Quic::new(accepted.unwrap());
    let mut control = connection.open_bi().await.unwrap();
    control.0.write_all(&sync(1)).await.unwrap();
    assert!(matches!(recv(&mut transport).await, Incoming::Frames(_)));
    transport.authenticated();
    (transport, endpoint, connection, control)
}

#[tokio::test]
async fn streams_that_come_and_go_leave_nothing_behind() {
    let (mut transport, _endpoint, connection, _control) = pair(TransportConfig::default()).await;
    let opening = tokio::spawn({
        let connection = connection.clone();
        async move {
            for i in 0..2_000u32 {
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                // In turn: given up at once, given up in the middle, asked and not waited for.
                match i % 3 {
                    0 => send.reset(VarInt::from_u32(0)).unwrap(),
                    1 => {
                        send.write_all(&sync(i)[..5]).await.unwrap();
                        send.reset(VarInt::from_u32(0)).unwrap();
                    }
                    _ => {
                        send.write_all(&sync(i)).await.unwrap();
                        send.finish().unwrap();
                    }
                }
                let _ = recv.stop(VarInt::from_u32(0));
            }
        }
    });
    let (mut most, mut asked, mut given_up) = (0, 0, 0);
    while asked + given_up < 2_000 {
        match recv(&mut transport).await {
            Incoming::Frames(frame) => {
                asked += 1;
                // The session answers.
                let reference = u32::from_le_bytes(frame[4..8].try_into().unwrap());
                let answered = poll_fn(|cx| {
                    transport.send(cx, page(reference, 100)).unwrap();
                    transport.poll_flush(cx)
                });
                timeout(SOON, answered).await.expect("in time").unwrap();
            }
            Incoming::Control => given_up += 1,
            other => panic!("{other:?}"),
        }
        most = most.max(transport.requests.open_streams());
    }
    opening.await.unwrap();
    assert!(most <= 15, "{most}");
    assert_eq!(transport.requests.held_bytes(), 0);
    let left = transport.requests.open_streams();
    assert!(left <= 15, "{left}");
}

#[tokio::test]
async fn answers_that_nobody_takes_are_held_up_to_a_bound() {
    let mut narrow = TransportConfig::default();
    narrow.stream_receive_window(VarInt::from_u32(1_000));
    let (mut transport, _endpoint, connection, _control) = pair(narrow).await;
    let mut unread = Vec::new();
    for request in 10..25 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&sync(request)).await.unwrap();
        send.finish().unwrap();
        unread.push(recv);
    }
    for _ in 10..25 {
        assert!(matches!(recv(&mut transport).await, Incoming::Frames(_)));
    }
    let mut given = 0;
    for request in 10..25 {
        let ready = poll_fn(|cx| {
            transport.send(cx, page(request, 40_000)).unwrap();
            Poll::Ready(transport.poll_flush(cx))
        });
        given += 1;
        if ready.await.is_pending() {
            break;
        }
    }
    // Two pages are over the bound; the session would give nothing more.
    assert_eq!(given, 2);
    assert!(transport.requests.held_bytes() <= 2 * 40_008);
    // A client that reads after all gets them whole.
    for recv in unread.iter_mut().take(2) {
        let whole = recv.read_to_end(50_000);
        tokio::pin!(whole);
        let read = poll_fn(|cx| {
            let _ = transport.poll_flush(cx);
            whole.as_mut().poll(cx)
        });
        let read = timeout(SOON, read).await.expect("in time").unwrap();
        assert_eq!(read.len(), 40_008);
    }
    assert_eq!(transport.requests.held_bytes(), 0);
}

/// A client whose machine is gone: nothing is acknowledged any more.
#[test]
fn what_a_silent_client_costs_is_the_send_window() {
    let here = Runtime::new().unwrap();
    let there = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut transport = here.block_on(async {
        let (node, config) = endpoint(TransportConfig::default());
        let to = node.local_addr().unwrap();
        let accepting = here.spawn(async move { node.accept().await.unwrap().await.unwrap() });
        let client = std::thread::spawn(move || {
            let connected = there.block_on(async {
                let (endpoint, connection) = connect(to, config).await;
                let mut control = connection.open_bi().await.unwrap();
                control.0.write_all(&sync(1)).await.unwrap();
                // Long enough for the packets to leave; from here on nobody turns this runtime.
                tokio::time::sleep(Duration::from_millis(200)).await;
                (endpoint, connection, control)
            });
            std::mem::forget((connected, there));
        });
        let mut transport = Quic::new(accepting.await.unwrap());
        assert!(matches!(recv(&mut transport).await, Incoming::Frames(_)));
        tokio::task::spawn_blocking(move || client.join().unwrap())
            .await
            .unwrap();
        transport
    });
    here.block_on(async {
        loop {
            let flushed = poll_fn(|cx| {
                if transport.poll_flush(cx).is_pending() {
                    return Poll::Ready(false);
                }
                transport.send(cx, page(9, 16_000)).unwrap();
                Poll::Ready(true)
            });
            if !flushed.await {
                break;
            }
        }
    });
    let taken = transport.progress().sent_bytes;
    assert_eq!(taken, crate::quic::SEND_WINDOW_BYTES);
}

#[test]
fn a_datagram_holds_frames_that_may_be_skipped() {
    let frame = |frame_type: u8, body: &[u8]| {
        let mut out = vec![frame_type, body.len() as u8, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(body);
        out
    };
    let code = |datagram: &[u8]| check_datagram(datagram).err().map(|(code, _)| code);
    assert_eq!(code(&frame(0x81, b"typing")), None);
    assert_eq!(
        code(&[frame(0x81, b"one"), frame(0x9f, b"")].concat()),
        None
    );
    assert_eq!(code(b""), Some(Code::BadFrame));
    assert_eq!(code(b"rubbish"), Some(Code::BadFrame));
    assert_eq!(code(&frame(0x81, b"cut")[..9]), Some(Code::BadFrame));
    assert_eq!(code(&frame(0xc1, b"")), Some(Code::BadFrame));
    assert_eq!(
        code(&frame(frame_type::PING, b"")),
        Some(Code::UnexpectedFrame)
    );
    assert_eq!(code(&frame(0x1e, b"")), Some(Code::UnexpectedFrame));
}
