//! QUIC as clients see it: chat with somebody on WebSocket, requests on streams of their own, codes of ends.

use conch_gateway::clock::Clock;
use conch_wire::frame::History;
use conch_wire::{ClientFrame, Code, ServerFrame, limits};

use crate::client::{cursor, encoded, hello};
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
