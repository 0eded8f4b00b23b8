//! Rows of the attack table on a session: A02, A07, A12, A27, A28, and what a client that stops reading costs.

use conch_gateway::clock::Clock;
use conch_wire::frame::History;
use conch_wire::{ChannelId, ClientFrame, Code, ServerFrame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{cursor, encoded, hello, key};
use crate::handshake::{GOOD, upgrade};
use crate::world::{SOON, World, with, world};

/// A WebSocket frame as a client must mask it.
fn ws_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

/// The status of the close frame that ends the connection; 0: it ended without one.
async fn close_status(stream: &mut TcpStream) -> u16 {
    let mut bytes = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut bytes))
        .await
        .expect("it ends");
    // Frames of a server are not masked; before the close there may be others.
    let mut rest = &bytes[..];
    while let [first, len, tail @ ..] = rest {
        let (skip, len) = match len {
            126 => (2, usize::from(u16::from_be_bytes([tail[0], tail[1]]))),
            n => (0, usize::from(*n)),
        };
        let payload = &tail[skip..skip + len];
        if first & 0x0f == 8 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
        rest = &tail[skip + len..];
    }
    0
}

async fn raw(world: &World, bytes: &[u8]) -> u16 {
    let (mut stream, head) = upgrade(world.node.http, "/v1/ws", GOOD).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(bytes).await.unwrap();
    close_status(&mut stream).await
}

#[tokio::test]
async fn a07_breaches_of_rfc_6455_close_with_its_status() {
    let world = world().await;
    let mut unmasked = vec![0x82, 5];
    unmasked.extend_from_slice(b"hello");
    let too_long_ping = ws_frame(0x89, &[b'p'; 126]);
    let fragment_then_new: Vec<u8> = [ws_frame(0x02, b"ab"), ws_frame(0x82, b"cd")].concat();
    for (what, bytes, expected) in [
        ("unmasked", unmasked, 1002),
        ("reserved bit 1", ws_frame(0xc2, b"x"), 1002),
        ("reserved bit 2", ws_frame(0xa2, b"x"), 1002),
        ("reserved bit 3", ws_frame(0x92, b"x"), 1002),
        ("reserved data opcode", ws_frame(0x83, b"x"), 1002),
        ("reserved control opcode", ws_frame(0x8b, b"x"), 1002),
        ("fragmented control", ws_frame(0x09, b"x"), 1002),
        ("ping above 125", too_long_ping, 1002),
        ("continuation of nothing", ws_frame(0x80, b"x"), 1002),
        ("new message in a fragmented one", fragment_then_new, 1002),
        ("close with one byte", ws_frame(0x88, b"x"), 1002),
        (
            "close with a bad status",
            ws_frame(0x88, &1005u16.to_be_bytes()),
            1002,
        ),
        (
            "text that is not UTF-8",
            ws_frame(0x81, &[0xff, 0xfe]),
            1007,
        ),
        ("text", ws_frame(0x81, b"hello"), Code::BadFrame.number()),
        (
            "empty message",
            ws_frame(0x82, b""),
            Code::BadFrame.number(),
        ),
    ] {
        assert_eq!(raw(&world, &bytes).await, expected, "{what}");
    }
}

#[tokio::test]
async fn a07_messages_without_end_are_too_big() {
    let world = world().await;
    // Continuations that grow, before HELLO.
    let mut bytes = ws_frame(0x02, &[0; 1_000]);
    for _ in 0..100 {
        bytes.extend(ws_frame(0x00, &[0; 1_000]));
    }
    assert_eq!(raw(&world, &bytes).await, 1009);
    // A length that is only claimed: refused before memory is taken for it.
    let mut claimed = vec![0x82, 0x80 | 127];
    claimed.extend_from_slice(&(1u64 << 40).to_be_bytes());
    claimed.extend_from_slice(&[1, 2, 3, 4]);
    assert_eq!(raw(&world, &claimed).await, 1009);
    // Fragments of nothing, for ever.
    let (mut stream, _) = upgrade(world.node.http, "/v1/ws", GOOD).await;
    stream.write_all(&ws_frame(0x02, b"")).await.unwrap();
    let empty: Vec<u8> = std::iter::repeat_n(ws_frame(0x00, b""), 4_096)
        .flatten()
        .collect();
    let (mut reading, mut writing) = stream.split();
    let flood = async {
        while writing.write_all(&empty).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let ended = async {
        let mut bytes = Vec::new();
        let _ = reading.read_to_end(&mut bytes).await;
        bytes
    };
    let bytes = tokio::select! {
        () = flood => unreachable!(),
        bytes = timeout(SOON, ended) => bytes.expect("it ends"),
    };
    // The close frame, unless the reset of the flooded socket came first.
    assert!(
        bytes.is_empty() || bytes[2..4] == 1009u16.to_be_bytes(),
        "{bytes:?}"
    );
}

#[tokio::test]
async fn a02_bytes_that_are_no_frame_close_with_bad_frame() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    for bytes in [
        vec![0x03],
        vec![0x03, 200, 0, 0, 0, 0, 0, 0, 1],
        vec![0x03, 2, 0, 0, 0, 0, 0, 0, 1, 1],
        vec![0x43, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut client = world.enter(&ann).await;
        client.say_bytes(bytes.clone().into()).await;
        let code = Code::BadFrame;
        assert_eq!(
            client.closed().await,
            (code.number(), Some(code)),
            "{bytes:?}"
        );
    }
    // An unknown type ends the connection, one that says it may be skipped does not.
    let mut client = world.enter(&ann).await;
    client
        .say_bytes(vec![0x9f, 0, 0, 0, 0, 0, 0, 0].into())
        .await;
    client.ping().await;
    client
        .say_bytes(vec![0x1f, 0, 0, 0, 0, 0, 0, 0].into())
        .await;
    assert_eq!(client.closed().await.0, Code::UnknownFrame.number());
}

fn tight(settings: &mut conch_gateway::config::Settings) {
    settings.limits.frames_per_connection = conch_gateway::bucket::Rate {
        per_s: 5,
        burst: 20,
    };
    settings.limits.sends_per_user = conch_gateway::bucket::Rate { per_s: 1, burst: 3 };
}

#[tokio::test]
async fn a12_a_ping_flood_is_refused_with_advice_and_then_closed() {
    let world = with(tight, Clock::system()).await;
    let ann = world.sign_up("ann").await;
    let mut client = world.enter(&ann).await;
    for nonce in 1..=200 {
        if client
            .socket_say(encoded(&ClientFrame::Ping { nonce }))
            .await
            .is_err()
        {
            break;
        }
    }
    let mut advised = 0;
    let status = loop {
        match client.next().await {
            Ok(ServerFrame::Error { error, .. }) if error.code == Code::RateLimited => {
                assert!(error.retry_after_ms > 0);
                advised += 1;
            }
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert!(advised >= 50, "{advised}");
    assert_eq!(status, Code::Flooding.number());
}

#[tokio::test]
async fn a12_a_flood_of_websocket_pings_is_closed() {
    let world = with(tight, Clock::system()).await;
    let ann = world.sign_up("ann").await;
    let (mut stream, _) = upgrade(world.node.http, "/v1/ws", GOOD).await;
    let hello = encoded(&ClientFrame::Hello(hello(&ann.token)));
    stream.write_all(&ws_frame(0x82, &hello)).await.unwrap();
    let pings: Vec<u8> = std::iter::repeat_n(ws_frame(0x89, b"x"), 500)
        .flatten()
        .collect();
    let _ = stream.write_all(&pings).await;
    let status = close_status(&mut stream).await;
    assert!(status == Code::Flooding.number() || status == 0, "{status}");
}

#[tokio::test]
async fn sends_above_the_users_rate_are_refused_with_advice_and_stored_later() {
    let world = with(
        |s| {
            s.limits.sends_per_user = conch_gateway::bucket::Rate {
                per_s: 10,
                burst: 3,
            }
        },
        Clock::system(),
    )
    .await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut one = world.enter(&ann).await;
    let mut two = world.enter(&ann).await;
    one.open(cursor(channel, 1, 0, 0)).await.unwrap();
    two.open(cursor(channel, 1, 0, 0)).await.unwrap();
    for n in 0..3 {
        // The rate is the user's, whatever the connection.
        let client = if n % 2 == 0 { &mut one } else { &mut two };
        client.send(1, "fine").await.unwrap();
    }
    let request = two.queue_send(1, "too fast", key()).await;
    let answer = two
        .until(|f| matches!(f, ServerFrame::Error { request: r, .. } | ServerFrame::SendAck { request: r, .. } if *r == request))
        .await;
    let ServerFrame::Error { error, .. } = answer else {
        // A slow machine filled the bucket again in between.
        return;
    };
    assert_eq!(error.code, Code::RateLimited);
    tokio::time::sleep(std::time::Duration::from_millis(u64::from(
        error.retry_after_ms,
    )))
    .await;
    two.send(1, "later").await.unwrap();
}

#[tokio::test]
async fn a27_a28_channels_that_are_not_mine_answer_like_ones_that_are_not() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let eve = world.sign_up("eve").await;
    let channel = world.direct(&ann, &ben).await;
    let absent = ChannelId(channel.0 ^ 1);
    let mut client = world.enter(&eve).await;
    let mut answers = Vec::new();
    for (n, channel) in [(1, channel), (2, absent)] {
        let open = client.open(cursor(channel, n, 0, 0)).await;
        let request = client.request();
        client
            .say(&ClientFrame::History {
                request,
                history: History {
                    channel,
                    from: 1,
                    to: 10,
                    items_max: 10,
                    newest_first: false,
                },
            })
            .await;
        let history = client.error_of(request).await;
        let request = client.request();
        client
            .say(&ClientFrame::Read {
                request,
                channel,
                seq: 1,
            })
            .await;
        let read = client.error_of(request).await;
        // A send pipelined behind an open that fails is refused for certain.
        let alias = n + 100;
        let request = client.request();
        client
            .say(&ClientFrame::OpenChannel {
                request,
                cursor: cursor(channel, alias, 0, 0),
            })
            .await;
        let sent = client.send(alias, "let me in").await;
        assert!(
            matches!(sent, Err(Code::NotFound | Code::BadAlias)),
            "{sent:?}"
        );
        let (view, _) = world
            .call(
                "GET",
                &format!("/v1/channels/{channel}"),
                Some(&eve.token),
                None,
            )
            .await;
        let (members, _) = world
            .call(
                "GET",
                &format!("/v1/channels/{channel}/members"),
                Some(&eve.token),
                None,
            )
            .await;
        answers.push((open, history, read, view, members));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(
        answers[0],
        (
            Err(Code::NotFound),
            Code::NotFound,
            Code::NotFound,
            404,
            404
        )
    );
}

#[tokio::test]
async fn a28_who_was_just_removed_cannot_send() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.group(&ann, &[&ben]).await;
    let mut client = world.enter(&ben).await;
    client.open(cursor(channel, 1, 0, 0)).await.unwrap();
    client.send(1, "in").await.unwrap();
    let path = format!("/v1/channels/{channel}/members/{}", ben.user);
    assert_eq!(
        world.call("DELETE", &path, Some(&ann.token), None).await.0,
        204
    );
    let refused = client.send(1, "out").await;
    assert!(
        matches!(refused, Err(Code::NotFound | Code::BadAlias)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up_after_thirty_seconds_and_loses_nothing() {
    let clock = Clock::manual(1_800_000_000_000);
    let world = with(|_| {}, clock.clone()).await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let first = a.send(1, "first").await.unwrap();
    // Small receive buffer, and never read again: asked-for pages fill what is between.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(world.node.http).await.unwrap();
    let mut stalled = crate::client::Client::over(stream, world.node.http).await;
    stalled.hello(&ben.token).await;
    for _ in 0..100 {
        a.send(1, &"x".repeat(10_000)).await.unwrap();
    }
    for request in 1_000..1_008 {
        let history = History {
            channel,
            from: first,
            to: u32::MAX,
            items_max: 200,
            newest_first: false,
        };
        stalled
            .say(&ClientFrame::History { request, history })
            .await;
    }
    a.ping().await;
    clock.advance(31_000);
    let deadline = std::time::Instant::now() + SOON;
    while world.node.api.edge.hub.len() > 1 {
        assert!(std::time::Instant::now() < deadline, "it is still held");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The next connection finds everything.
    let mut b = world.enter(&ben).await;
    let (from, mut seen) = (first, 0);
    let mut next = from;
    while seen < 101 {
        let request = b.request();
        let history = History {
            channel,
            from: next,
            to: u32::MAX,
            items_max: 200,
            newest_first: false,
        };
        b.say(&ClientFrame::History { request, history }).await;
        let page = b
            .until(|f| matches!(f, ServerFrame::HistoryPage { .. }))
            .await;
        let ServerFrame::HistoryPage { page, .. } = page else {
            unreachable!()
        };
        seen += page.events.len();
        next = page.covered_to + 1;
    }
}
