//! QUIC as clients see it: chat with somebody on WebSocket, requests on streams of their own, codes of ends.

use conch_gateway::clock::Clock;
use conch_wire::event::{PendingAnswer, PendingSend, SendFlags};
use conch_wire::frame::{Hello, History, Send};
use conch_wire::{ClientFrame, Code, ServerFrame, limits};

use crate::client::{cursor, encoded, hello, key};
use crate::quic_client::{QuicClient, answers};
use crate::world::{World, with};

pub(crate) async fn world() -> World {
    with(
        |s| s.quic.listen = Some("127.0.0.1:0".parse().unwrap()),
        Clock::system(),
    )
    .await
}

#[tokio::test]
async fn one_on_quic_and_one_on_websocket_chat() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut on_quic = QuicClient::connect(&world).await;
    let welcome = on_quic.hello(&ann.token).await;
    assert_eq!(welcome.user, ann.user);
    let mut on_websocket = world.enter(&ben).await;
    let here = on_quic.open(cursor(channel, 1, 0, 0)).await;
    let there = on_websocket.open(cursor(channel, 1, 0, 0)).await.unwrap();
    for round in 0..20 {
        let seq = on_quic.send(here, &format!("from ann {round}")).await;
        let (_, event) = on_websocket.message().await;
        assert_eq!(Ok(event.seq), seq);
        let seq = on_websocket.send(there, &format!("from ben {round}")).await;
        let (alias, event) = on_quic.message().await;
        assert_eq!((Ok(event.seq), alias), (seq, here));
    }
    on_quic.say(&ClientFrame::Goodbye).await;
    assert_eq!(on_quic.closed().await, (0, None));
}

#[tokio::test]
async fn history_and_sync_are_answered_on_the_streams_that_ask() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut client = QuicClient::enter(&world, &ann).await;
    let alias = client.open(cursor(channel, 1, 0, 0)).await;
    let mut last = 0;
    for i in 0..50 {
        last = client.send(alias, &format!("message {i}")).await.unwrap();
    }
    let ask = |request, from| ClientFrame::History {
        request,
        history: History {
            channel,
            from,
            to: last,
            items_max: 200,
            newest_first: false,
        },
    };
    let page = client.ask(&ask(7, 1)).await;
    match &page[..] {
        [ServerFrame::HistoryPage { request: 7, page }] => assert_eq!(page.covered_to, last),
        other => panic!("{other:?}"),
    }
    let sync = ClientFrame::Sync {
        request: 8,
        token: Vec::new(),
        rows_max: 10,
    };
    let changes = client.ask(&sync).await;
    assert!(matches!(
        &changes[..],
        [ServerFrame::SyncChanges { request: 8, .. }]
    ));
    // A refusal goes the same way.
    let refused = client.ask(&ask(9, last + 1)).await;
    match &refused[..] {
        [ServerFrame::Error { request: 9, error }] => assert_eq!(error.code, Code::Invalid),
        other => panic!("{other:?}"),
    }
    // Asked on the control stream, answered there.
    client.say(&ask(10, 1)).await;
    client
        .until(|f| matches!(f, ServerFrame::HistoryPage { request: 10, .. }))
        .await;
    // Several at once, and sends between them: every answer finds its stream.
    let mut streams = Vec::new();
    for request in 100..106 {
        streams.push(client.ask_bytes(&encoded(&ask(request, 1))).await);
    }
    let acked = client.send(alias, "between").await.unwrap();
    assert_eq!(acked, last + 1);
    for (request, recv) in (100..).zip(&mut streams) {
        match &answers(recv).await[..] {
            [ServerFrame::HistoryPage { request: r, .. }] => assert_eq!(*r, request),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_larger_than_every_window_goes_both_ways() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut client = QuicClient::enter(&world, &ann).await;
    let alias = client.open(cursor(channel, 1, 0, 0)).await;
    // As many bytes as a text may have.
    let text = "\u{1f41a}".repeat(limits::TEXT_CHARS_MAX);
    assert!(text.len() > 2 * 131_072);
    let seq = client.send(alias, &text).await.unwrap();
    let history = History {
        channel,
        from: seq,
        to: seq,
        items_max: 1,
        newest_first: false,
    };
    let request = 7;
    let ask = ClientFrame::History { request, history };
    match &client.ask(&ask).await[..] {
        [ServerFrame::HistoryPage { page, .. }] => {
            assert_eq!(page.events[0].text(), Some(&text[..]));
        }
        other => panic!("{} frames", other.len()),
    }
    client.say(&ask).await;
    let page = client
        .until(|f| matches!(f, ServerFrame::HistoryPage { .. }))
        .await;
    assert!(matches!(&page, ServerFrame::HistoryPage { page, .. }
        if page.events[0].text() == Some(&text[..])));
}

#[tokio::test]
async fn frames_behind_hello_are_handled_after_it() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let mut client = QuicClient::connect(&world).await;
    let hello = encoded(&ClientFrame::Hello(hello(&ann.token)));
    let ping = encoded(&ClientFrame::Ping { nonce: 9 });
    // In one write, and the last byte later: cut anywhere.
    let bytes = [&hello[..], &ping, &ping[..ping.len() - 1]].concat();
    client.say_bytes(&bytes).await;
    assert!(matches!(client.next().await, Ok(ServerFrame::Welcome(_))));
    let pong = |f: &ServerFrame| matches!(f, ServerFrame::Pong { nonce: 9, .. });
    client.until(pong).await;
    client.say_bytes(&ping[ping.len() - 1..]).await;
    client.until(pong).await;
}

#[tokio::test]
async fn the_same_key_over_quic_and_then_over_websocket_is_one_message() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut reader = world.enter(&ben).await;
    let mut on_quic = QuicClient::connect(&world).await;
    let session = on_quic.hello(&ann.token).await.session;
    let alias = on_quic.open(cursor(channel, 1, 0, 0)).await;
    let send = Send {
        key: key(),
        alias,
        kind: 1,
        flags: SendFlags::default(),
        tail: b"once",
    };
    on_quic.say(&ClientFrame::Send { request: 5, send }).await;
    let first = on_quic.answer_of(5).await.unwrap();
    // As if the ack had been lost: the device comes back another way and does not know.
    let mut on_websocket = world.connect().await;
    let came_back = Hello {
        replaces: Some(session),
        pending: vec![PendingSend {
            channel,
            key: send.key,
        }],
        ..hello(&ann.token)
    };
    let welcome = on_websocket.hello_with(came_back).await;
    assert!(
        matches!(welcome.pending[..], [PendingAnswer::Stored { seq, .. }] if seq == first),
        "{:?}",
        welcome.pending
    );
    let code = Code::SessionReplaced;
    assert_eq!(on_quic.closed().await.0, u64::from(code.number()));
    let alias = on_websocket.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let again = Send {
        alias,
        flags: SendFlags::RETRY,
        ..send
    };
    let request = 6;
    let frame = ClientFrame::Send {
        request,
        send: again,
    };
    on_websocket.say(&frame).await;
    assert_eq!(on_websocket.answer_of(request).await, Ok(first));
    on_websocket.send(alias, "the next").await.unwrap();
    let texts = [reader.message().await.1, reader.message().await.1];
    assert_eq!(
        texts.each_ref().map(|event| event.text()),
        [Some("once"), Some("the next")]
    );
}

#[tokio::test]
async fn a_refused_hello_closes_with_its_code_and_says_it_before() {
    let world = world().await;
    let mut client = QuicClient::connect(&world).await;
    client.say(&ClientFrame::Hello(hello("no token"))).await;
    let code = Code::Unauthenticated;
    assert_eq!(
        client.closed().await,
        (u64::from(code.number()), Some(code))
    );
}

#[tokio::test]
async fn the_node_says_where_quic_is() {
    let world = world().await;
    let facts = world.call("GET", "/v1/node", None, None).await.1;
    let quic = world.node.quic().unwrap();
    assert_eq!(facts["quic"]["port"], quic.address.port());
    let digest = quic.certificate_sha256.clone().unwrap();
    assert_eq!(facts["quic"]["certificate_sha256"], digest);
    assert_eq!(world.node.ready().quic, Some(quic.address));
    let without = crate::world::world().await;
    let facts = without.call("GET", "/v1/node", None, None).await.1;
    assert!(facts.get("quic").is_none());
}
