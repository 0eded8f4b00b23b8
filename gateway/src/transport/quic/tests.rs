//! What one connection holds, whatever its client does: counted on a transport without a session.
#![allow(clippy::unwrap_used)] // a test ends at the first surprise

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use conch_wire::ClientFrame;
use conch_wire::frame::frame_type;
use quinn::{Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::*;
use crate::quic::endpoint::Endpoint as Port;
use crate::quic::pair::{accepted, connect, port};

const SOON: Duration = Duration::from_secs(10);

/// The node's end of the next connection.
async fn accept(port: &Port) -> Quic {
    Quic::new(accepted(port).await)
}

/// A turn of the session's task, for what `act` does in it.
fn turn<T>(
    transport: &mut Quic,
    cx: &mut Context<'_>,
    act: impl FnOnce(&mut Quic, &mut Context<'_>) -> T,
) -> T {
    transport.begin_turn(cx);
    let done = act(transport, cx);
    transport.end_turn(cx);
    done
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
    let received = poll_fn(|cx| turn(transport, cx, |transport, cx| transport.poll_recv(cx, 0)));
    timeout(SOON, received).await.expect("in time")
}

type Pair = (
    Quic,
    (Port, Endpoint),
    quinn::Connection,
    (SendStream, RecvStream),
);

/// Both ends, authenticated, with a control stream on which the client said `hello`.
async fn pair(client: TransportConfig) -> Pair {
    let (port, config) = port(client);
    let connecting = connect(port.address().unwrap(), config);
    let (mut transport, (endpoint, connection)) = tokio::join!(accept(&port), connecting);
    let mut control = connection.open_bi().await.unwrap();
    control.0.write_all(&sync(1)).await.unwrap();
    assert!(matches!(recv(&mut transport).await, Incoming::Frames(_)));
    transport.authenticated();
    (transport, (port, endpoint), connection, control)
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
                    turn(&mut transport, cx, |transport, cx| {
                        transport.send(cx, page(reference, 100)).unwrap();
                        transport.poll_flush(cx)
                    })
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
            let _ = turn(&mut transport, cx, Quic::poll_flush);
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
    let (mut transport, _port) = here.block_on(async {
        let (port, config) = port(TransportConfig::default());
        let to = port.address().unwrap();
        let accepting = here.spawn(async move { (accept(&port).await, port) });
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
        let (mut transport, port) = accepting.await.unwrap();
        assert!(matches!(recv(&mut transport).await, Incoming::Frames(_)));
        tokio::task::spawn_blocking(move || client.join().unwrap())
            .await
            .unwrap();
        (transport, port)
    });
    here.block_on(async {
        loop {
            let flushed = poll_fn(|cx| {
                turn(&mut transport, cx, |transport, cx| {
                    if transport.poll_flush(cx).is_pending() {
                        return Poll::Ready(false);
                    }
                    transport.send(cx, page(9, 16_000)).unwrap();
                    Poll::Ready(true)
                })
            });
            if !flushed.await {
                break;
            }
        }
    });
    let taken = transport.progress().sent_bytes;
    assert_eq!(taken, crate::quic::SEND_WINDOW_BYTES);
}
