//! What a QUIC client may do wrong: each closes or refuses with its code, and costs a bounded amount.

use std::sync::Arc;
use std::time::Duration;

use conch_gateway::clock::Clock;
use conch_gateway::config::Settings;
use conch_wire::frame::{FrameHeader, HEADER_BYTES, History};
use conch_wire::{ChannelId, ClientFrame, Code, ServerFrame, limits};
use quinn::{ConnectionError, ReadError, TransportConfig, VarInt};
use tokio::time::timeout;

use crate::client::{cursor, encoded, hello};
use crate::quic::world;
use crate::quic_client::{Options, QuicClient, answers, code_of, dial};
use crate::world::{Person, SOON, World, eventually, with};

fn number(code: Code) -> u64 {
    u64::from(code.number())
}

async fn manual(change: impl FnOnce(&mut Settings)) -> World {
    with(
        |s| {
            s.quic.listen = Some("127.0.0.1:0".parse().unwrap());
            change(s);
        },
        Clock::manual(1_700_000_000_000),
    )
    .await
}

fn sync(request: u32) -> ClientFrame<'static> {
    ClientFrame::Sync {
        request,
        token: Vec::new(),
        rows_max: 10,
    }
}

fn frame(frame_type: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![frame_type];
    out.extend_from_slice(&(body.len() as u32).to_le_bytes()[..3]);
    out.extend_from_slice(&7u32.to_le_bytes());
    out.extend_from_slice(body);
    out
}

#[tokio::test]
async fn p064_another_protocol_name_is_refused_in_the_handshake() {
    let world = world().await;
    let at = world.node.quic().unwrap().address;
    for alpn in ["h3", "conch/2"] {
        let options = Options {
            alpn: alpn.into(),
            ..Options::of(&world)
        };
        let refused = dial(at, options.config()).await.1.unwrap_err();
        let no_application_protocol = quinn::TransportErrorCode::crypto(120);
        assert!(
            matches!(&refused, ConnectionError::ConnectionClosed(close)
                if close.error_code == no_application_protocol),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn p065_a_client_refuses_another_certificate_and_the_node_goes_on() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let at = world.node.quic().unwrap().address;
    let foreign = Options::trusting(b"another certificate");
    let refused = dial(at, foreign.config()).await.1.unwrap_err();
    assert!(
        matches!(refused, ConnectionError::TransportError(_)),
        "{refused:?}"
    );
    let listener = world.node.quic_listener().unwrap();
    eventually(|| listener.handshakes() == 0).await;
    QuicClient::enter(&world, &ann).await.ping().await;
}

#[tokio::test]
async fn p067_a_second_stream_before_welcome_ends_the_connection() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let whole_hello = encoded(&ClientFrame::Hello(hello(&ann.token)));
    let request = encoded(&sync(3));
    for on_the_second in [&whole_hello, &request] {
        let mut client = QuicClient::connect(&world).await;
        // Not a whole one: nothing is decided yet.
        client.say_bytes(&whole_hello[..20]).await;
        client.ask_bytes(on_the_second).await;
        let code = Code::UnexpectedFrame;
        assert_eq!(client.closed().await, (number(code), Some(code)));
    }
}

#[tokio::test]
async fn p069_a_request_stream_is_one_history_or_sync_and_its_end() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let whole = encoded(&sync(3));
    let ping = encoded(&ClientFrame::Ping { nonce: 5 });
    let hello = encoded(&ClientFrame::Hello(hello(&ann.token)));
    let mut long = frame(0x0f, &[]);
    long[1..4].copy_from_slice(&2_000u32.to_le_bytes()[..3]);
    let cases: [(&str, Vec<u8>, Code); 7] = [
        ("PING", ping.to_vec(), Code::UnexpectedFrame),
        ("HELLO", hello.to_vec(), Code::UnexpectedFrame),
        ("rubbish", vec![0xff; 300], Code::UnexpectedFrame),
        ("two", [&whole[..], &whole].concat(), Code::BadFrame),
        ("cut", whole[..whole.len() - 1].to_vec(), Code::BadFrame),
        ("nothing", Vec::new(), Code::BadFrame),
        ("long", long, Code::TooLarge),
    ];
    for (name, bytes, code) in cases {
        let mut client = QuicClient::enter(&world, &ann).await;
        client.ask_bytes(&bytes).await;
        assert_eq!(client.closed().await, (number(code), Some(code)), "{name}");
    }
}

#[tokio::test]
async fn p069_a_request_that_is_not_complete_in_time_is_reset_and_nothing_else() {
    let world = manual(|_| {}).await;
    let ann = world.sign_up("ann").await;
    let mut client = QuicClient::enter(&world, &ann).await;
    // One without a byte (a later one makes it known), one with half a request.
    let (_send, mut silent) = client.connection.open_bi().await.unwrap();
    let (mut send, mut half) = client.connection.open_bi().await.unwrap();
    send.write_all(&encoded(&sync(3))[..9]).await.unwrap();
    // Both are known when a later one is answered.
    assert_eq!(client.ask(&sync(4)).await.len(), 1);
    world.clock.advance(9_000);
    client.ping().await;
    world.clock.advance(1_000);
    for recv in [&mut silent, &mut half] {
        let read = timeout(SOON, recv.read_to_end(10)).await.expect("in time");
        let idle = VarInt::from_u32(u32::from(Code::IdleTimeout.number()));
        assert!(
            matches!(
                read,
                Err(quinn::ReadToEndError::Read(ReadError::Reset(code))) if code == idle
            ),
            "{read:?}"
        );
    }
    client.ping().await;
}

#[tokio::test]
async fn p066_the_end_of_the_control_stream_ends_the_connection() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let connections = || world.node.api.edge.hub.len();
    let mut client = QuicClient::enter(&world, &ann).await;
    client.send.finish().unwrap();
    assert_eq!(client.closed().await, (0, None));
    let mut client = QuicClient::enter(&world, &ann).await;
    client.send.reset(VarInt::from_u32(0)).unwrap();
    assert_eq!(client.closed().await, (0, None));
    let mut client = QuicClient::enter(&world, &ann).await;
    client.stop_control();
    // Found out by the next thing that the node says.
    client.say(&ClientFrame::Ping { nonce: 1 }).await;
    assert_eq!(code_of(&client.ended().await), 0);
    eventually(|| connections() == 0).await;
}

#[tokio::test]
async fn p072_datagrams_hold_frames_that_may_be_skipped() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let bad: [(&[u8], Code); 4] = [
        (b"rubbish that is no frame at all", Code::BadFrame),
        (b"\x81", Code::BadFrame),
        (&frame(0x12, b""), Code::UnexpectedFrame),
        (&frame(0x01, b"hello"), Code::UnexpectedFrame),
    ];
    for (datagram, code) in bad {
        for authenticated in [false, true] {
            let mut client = QuicClient::connect(&world).await;
            if authenticated {
                client.hello(&ann.token).await;
            } else {
                // The control stream is there, so that the word before the close has a way.
                client.say_bytes(&[0x01]).await;
            }
            let datagram = datagram.to_vec().into();
            client.connection.send_datagram(datagram).unwrap();
            assert_eq!(client.closed().await.0, number(code));
        }
    }
    let mut client = QuicClient::enter(&world, &ann).await;
    for _ in 0..100 {
        let typing = [frame(0x81, b"typing"), frame(0x9f, b"")].concat();
        client.connection.send_datagram(typing.into()).unwrap();
    }
    client.ping().await;
}

#[tokio::test]
async fn p001_a_frame_above_its_limit_ends_the_connection_by_its_header_alone() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let header = |bytes: usize| {
        let mut header = frame(0x03, b"");
        header[1..4].copy_from_slice(&((bytes - HEADER_BYTES) as u32).to_le_bytes()[..3]);
        assert_eq!(
            FrameHeader::parse(*header.first_chunk().unwrap()).body_len as usize,
            bytes - HEADER_BYTES
        );
        header
    };
    let code = Code::TooLarge;
    let mut client = QuicClient::connect(&world).await;
    client.say_bytes(&header(limits::HELLO_BYTES_MAX + 1)).await;
    assert_eq!(client.closed().await, (number(code), Some(code)));
    let mut client = QuicClient::enter(&world, &ann).await;
    client.say_bytes(&header(limits::FRAME_BYTES_MAX + 1)).await;
    assert_eq!(client.closed().await, (number(code), Some(code)));
}

#[tokio::test]
async fn p016_a_connection_that_says_nothing_is_closed_after_five_seconds() {
    let world = manual(|_| {}).await;
    let silent = QuicClient::connect(&world).await;
    let mut slow = QuicClient::connect(&world).await;
    slow.say_bytes(&[0x01]).await;
    let hub = &world.node.api.edge.hub;
    eventually(|| hub.len() == 2).await;
    world.clock.advance(5_000);
    let code = Code::HelloTimeout;
    // One has never opened its control stream: there is nowhere to say it before the close.
    assert_eq!(code_of(&silent.ended().await), number(code));
    assert_eq!(slow.closed().await.0, number(code));
}

#[tokio::test]
async fn p075_packets_without_frames_do_not_keep_a_connection() {
    let world = manual(|_| {}).await;
    let ann = world.sign_up("ann").await;
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(20)));
    let options = Options {
        transport: Arc::new(transport),
        ..Options::of(&world)
    };
    let mut client = QuicClient::with(&world, options).await;
    client.hello(&ann.token).await;
    let sent = client.connection.stats().frame_tx.ping;
    eventually(|| client.connection.stats().frame_tx.ping > sent).await;
    world.clock.advance(u64::from(limits::SILENCE_MAX_MS));
    let code = Code::IdleTimeout;
    assert_eq!(client.closed().await, (number(code), Some(code)));
}

#[tokio::test]
async fn p071_sixteen_streams_at_once_and_ended_ones_make_room() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let client = QuicClient::enter(&world, &ann).await;
    let mut open = Vec::new();
    for _ in 0..15 {
        let opened = timeout(SOON, client.connection.open_bi()).await;
        let (mut send, recv) = opened.expect("allowed").unwrap();
        send.write_all(&encoded(&sync(3))[..9]).await.unwrap();
        open.push((send, recv));
    }
    let opening = client.connection.open_bi();
    tokio::pin!(opening);
    assert!(
        timeout(Duration::from_millis(200), &mut opening)
            .await
            .is_err(),
        "the seventeenth has to wait"
    );
    let unidirectional = client.connection.open_uni();
    assert!(
        timeout(Duration::from_millis(50), unidirectional)
            .await
            .is_err()
    );
    // The room is announced for a few at once.
    for (mut send, mut recv) in open.drain(..4) {
        send.write_all(&encoded(&sync(3))[9..]).await.unwrap();
        send.finish().unwrap();
        assert_eq!(answers(&mut recv).await.len(), 1);
    }
    timeout(SOON, opening).await.expect("room").unwrap();
}

#[tokio::test]
async fn ten_thousand_streams_one_after_the_other_are_a_flood() {
    let world = manual(|s| {
        s.limits.frames_per_connection = Settings::default().limits.frames_per_connection
    })
    .await;
    let ann = world.sign_up("ann").await;
    let mut client = QuicClient::enter(&world, &ann).await;
    let mut opened = 0;
    for _ in 0..10_000 {
        let Ok((mut send, _recv)) = client.connection.open_bi().await else {
            break;
        };
        opened += 1;
        let _ = send.write_all(b"\x0f").await;
        let _ = send.reset(VarInt::from_u32(0));
    }
    // A burst of 300, then 50 refusals, then 15 that were under way.
    assert!(opened <= 300 + 51 + 16 + 15, "{opened}");
    let code = Code::Flooding;
    assert_eq!(client.closed().await, (number(code), Some(code)));
}

#[tokio::test]
async fn thousands_of_requests_within_the_rate_are_answered() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let mut client = QuicClient::enter(&world, &ann).await;
    let mut answered = 0;
    for request in 10..2_010 {
        let [answer] = &client.ask(&sync(request)).await[..] else {
            panic!("one answer");
        };
        answered += usize::from(matches!(answer, ServerFrame::SyncChanges { .. }));
    }
    assert_eq!(answered, 2_000);
    client.ping().await;
}

/// A client whose machine grants `stream` bytes for each stream and `all` over all of them.
fn narrow(world: &World, stream: u32, all: u32) -> Options {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(stream))
        .receive_window(VarInt::from_u32(all));
    Options {
        transport: Arc::new(transport),
        ..Options::of(world)
    }
}

async fn filled(world: &World, ann: &Person, messages: usize) -> (ChannelId, u32) {
    let ben = world.sign_up("ben").await;
    let channel = world.direct(ann, &ben).await;
    let mut writer = world.enter(&ben).await;
    let alias = writer.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let mut last = 0;
    for _ in 0..messages {
        last = writer.send(alias, &"x".repeat(10_000)).await.unwrap();
    }
    (channel, last)
}

fn history(request: u32, channel: ChannelId, last: u32) -> ClientFrame<'static> {
    ClientFrame::History {
        request,
        history: History {
            channel,
            from: 1,
            to: last,
            items_max: 200,
            newest_first: true,
        },
    }
}

#[tokio::test]
async fn p070_a_page_that_nobody_reads_delays_nothing_and_many_end_the_connection() {
    let world = manual(|_| {}).await;
    let ann = world.sign_up("ann").await;
    let (channel, last) = filled(&world, &ann, 8).await;
    let mut client = QuicClient::with(&world, narrow(&world, 2_000, 1 << 20)).await;
    client.hello(&ann.token).await;
    let mut unread = Vec::new();
    let ask = encoded(&history(100, channel, last));
    unread.push(client.ask_bytes(&ask).await);
    for _ in 0..3 {
        client.ping().await;
    }
    // One that is read after all is whole.
    assert_eq!(answers(&mut unread[0]).await.len(), 1);
    unread.clear();
    for request in 200..208 {
        let ask = encoded(&history(request, channel, last));
        unread.push(client.ask_bytes(&ask).await);
    }
    // Nothing moves any more; the node's clock says for how long.
    let ended = async {
        loop {
            world.clock.advance(5_000);
            client.say(&ClientFrame::Ping { nonce: 9 }).await;
            let closed = client.connection.closed();
            if let Ok(error) = timeout(Duration::from_millis(300), closed).await {
                return error;
            }
        }
    };
    let error = timeout(SOON, ended).await.expect("in time");
    assert_eq!(code_of(&error), number(Code::SlowConsumer));
}

#[tokio::test]
async fn p070_stopping_a_stream_is_as_good_as_reading_it() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let (channel, last) = filled(&world, &ann, 8).await;
    let mut client = QuicClient::with(&world, narrow(&world, 2_000, 1 << 20)).await;
    client.hello(&ann.token).await;
    for request in 100..160 {
        let ask = encoded(&history(request, channel, last));
        let mut recv = client.ask_bytes(&ask).await;
        let first = timeout(SOON, recv.read_chunk(100, true)).await;
        first.expect("an answer").unwrap().unwrap();
        recv.stop(VarInt::from_u32(0)).unwrap();
    }
    client.ping().await;
}

#[tokio::test]
async fn a_client_that_never_grants_is_given_up_after_thirty_seconds() {
    let world = manual(|_| {}).await;
    let ann = world.sign_up("ann").await;
    let ben = world.sign_up("ben").await;
    let channel = world.direct(&ann, &ben).await;
    let mut client = QuicClient::with(&world, narrow(&world, 4_000, 4_000)).await;
    client.hello(&ann.token).await;
    let mut writer = world.enter(&ben).await;
    let alias = writer.open(cursor(channel, 1, 0, 0)).await.unwrap();
    for _ in 0..40 {
        writer.send(alias, &"x".repeat(10_000)).await.unwrap();
    }
    let ended = async {
        loop {
            world.clock.advance(5_000);
            writer.ping().await;
            let closed = client.connection.closed();
            if let Ok(error) = timeout(Duration::from_millis(300), closed).await {
                return error;
            }
        }
    };
    let error = timeout(SOON, ended).await.expect("in time");
    assert_eq!(code_of(&error), number(Code::SlowConsumer));
    // Nothing is lost: it is in the log.
    let mut again = QuicClient::enter(&world, &ann).await;
    let page = again.ask(&history(3, channel, 41)).await;
    assert!(matches!(&page[..], [ServerFrame::HistoryPage { .. }]));
    again.ping().await;
}

#[tokio::test]
async fn p049_without_credit_of_ours_events_collapse_on_quic_too() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let ben = world.sign_up("ben").await;
    let channel = world.direct(&ann, &ben).await;
    let mut client = QuicClient::connect(&world).await;
    client
        .hello_with(conch_wire::frame::Hello {
            credit_bytes: 20_000,
            ..hello(&ann.token)
        })
        .await;
    let mut writer = world.enter(&ben).await;
    let alias = writer.open(cursor(channel, 1, 0, 0)).await.unwrap();
    for _ in 0..10 {
        writer.send(alias, &"x".repeat(10_000)).await.unwrap();
    }
    client.ping().await;
    let delivered = client
        .passed()
        .into_iter()
        .filter(|f| matches!(f, ServerFrame::Deliver { .. }))
        .count();
    assert!((1..=3).contains(&delivered), "{delivered}");
    client.say(&ClientFrame::Credit { bytes: 20_000 }).await;
    client
        .until(|f| matches!(f, ServerFrame::ChannelHead(head) if head.channel == channel))
        .await;
}
