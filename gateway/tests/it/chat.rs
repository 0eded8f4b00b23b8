//! Sessions end to end: chatting, coming back, collapsing, read marks, membership.

use std::time::{Duration, Instant};

use conch_gateway::clock::Clock;
use conch_wire::event::{PendingAnswer, PendingSend};
use conch_wire::frame::{ChannelHead, Hello, History, PushMode};
use conch_wire::{ClientFrame, Code, ServerFrame, limits};
use serde_json::json;

use crate::client::{cursor, hello, key};
use crate::world::{SOON, World, with, world};

#[tokio::test]
async fn two_people_chat() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    let mut b = world.enter(&ben).await;
    let alias = a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    assert_eq!(alias, 1);
    let seq = a.send(alias, "hello").await.unwrap();
    // CHANNEL_OPENED comes before the first DELIVER of an alias that the server chose.
    let opened = b
        .until(|f| matches!(f, ServerFrame::ChannelOpened { .. }))
        .await;
    let ServerFrame::ChannelOpened { opened, request: 0 } = opened else {
        panic!("{opened:?}")
    };
    assert_eq!(opened.head.channel, channel);
    assert!(opened.alias & 0x8000_0000 != 0);
    let (alias, event) = b.message().await;
    assert_eq!((alias, event.seq), (opened.alias, seq));
    assert_eq!(event.text(), Some("hello"));
    // Opening it keeps the server's alias and says so; the one asked for is not open.
    assert_eq!(b.open(cursor(channel, 9, 0, 0)).await, Ok(alias));
    assert_eq!(b.send(9, "lost?").await, Err(Code::BadAlias));
    b.send(alias, "hello back").await.unwrap();
    assert_eq!(a.message().await.1.text(), Some("hello back"));
    // The sender got the ack in place of the event.
    a.ping().await;
    assert!(
        !a.passed()
            .iter()
            .any(|f| matches!(f, ServerFrame::Deliver { .. }))
    );
}

#[tokio::test]
async fn another_device_of_the_sender_gets_the_event() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let second = world.log_in("ann").await;
    let channel = world.direct(&ann, &ben).await;
    let mut one = world.enter(&ann).await;
    let mut two = world.enter(&second).await;
    one.open(cursor(channel, 1, 0, 0)).await.unwrap();
    one.send(1, "from the first").await.unwrap();
    assert_eq!(two.message().await.1.text(), Some("from the first"));
}

#[tokio::test]
async fn who_comes_back_gets_the_gap_and_the_changes() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let first = a.send(1, "0").await.unwrap();
    for n in 1..=10 {
        a.send(1, &n.to_string()).await.unwrap();
    }
    let generation = 1;
    let mut b = world.connect().await;
    b.say(&ClientFrame::Hello(Hello {
        cursors: vec![cursor(channel, 5, generation, first)],
        ..hello(&ben.token)
    }))
    .await;
    let Ok(ServerFrame::Welcome(welcome)) = b.next().await else {
        panic!("no WELCOME")
    };
    assert_eq!((welcome.user, welcome.device), (ben.user, ben.device));
    assert!(!welcome.resumed);
    assert_eq!(welcome.generation, generation);
    let changes = b
        .until(|f| matches!(f, ServerFrame::SyncChanges { request: 0, .. }))
        .await;
    let ServerFrame::SyncChanges { changes, .. } = changes else {
        unreachable!()
    };
    assert!(changes.reset && !changes.more);
    let row = changes
        .rows
        .iter()
        .find(|r| r.head.channel == channel)
        .unwrap();
    assert_eq!(row.peer, Some(ann.user));
    assert_eq!(row.head.head_seq, first + 10);
    let before = b.passed();
    let opened = before
        .iter()
        .position(|f| matches!(f, ServerFrame::ChannelOpened { .. }))
        .unwrap();
    let texts: Vec<_> = before[opened..]
        .iter()
        .filter_map(|f| match f {
            ServerFrame::Deliver { alias: 5, event } => event.text().map(ToOwned::to_owned),
            _ => None,
        })
        .collect();
    let expected: Vec<_> = (1..=10).map(|n| n.to_string()).collect();
    assert_eq!(texts, expected);

    // With the token: only what changed since.
    drop(b);
    let carl = world.sign_up("carl").await;
    let other = world.direct(&carl, &ben).await;
    let mut b = world.connect().await;
    b.say(&ClientFrame::Hello(Hello {
        sync_token: changes.token,
        ..hello(&ben.token)
    }))
    .await;
    let changes = b
        .until(|f| matches!(f, ServerFrame::SyncChanges { request: 0, .. }))
        .await;
    let ServerFrame::SyncChanges { changes, .. } = changes else {
        unreachable!()
    };
    assert!(!changes.reset);
    let channels: Vec<_> = changes.rows.iter().map(|r| r.head.channel).collect();
    assert_eq!(channels, [other]);
}

#[tokio::test]
async fn a_long_gap_is_the_clients_to_page() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let first = a.send(1, "0").await.unwrap();
    let mut last = 0;
    for n in 0..=limits::GAP_STREAMED_MAX {
        last = a.send(1, &n.to_string()).await.unwrap();
    }
    let mut b = world.connect().await;
    b.hello_with(Hello {
        cursors: vec![cursor(channel, 5, 1, first)],
        ..hello(&ben.token)
    })
    .await;
    assert!(
        !b.passed()
            .iter()
            .any(|f| matches!(f, ServerFrame::Deliver { .. }))
    );
    let mut from = first + 1;
    let mut seen = 0;
    while from <= last {
        let request = b.request();
        b.say(&ClientFrame::History {
            request,
            history: History {
                channel,
                from,
                to: u32::MAX,
                items_max: 70,
                newest_first: false,
            },
        })
        .await;
        let page = b
            .until(|f| matches!(f, ServerFrame::HistoryPage { request: r, .. } if *r == request))
            .await;
        let ServerFrame::HistoryPage { page, .. } = page else {
            unreachable!()
        };
        assert_eq!(page.covered_from, from);
        seen += page.events.len() as u32;
        from = page.covered_to + 1;
    }
    assert_eq!(seen, limits::GAP_STREAMED_MAX + 1);
}

/// The client's share of the credit rules.
async fn flood(
    world: &World,
    chunks: usize,
) -> (crate::client::Client, conch_wire::ChannelId, u32) {
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let mut b = world.connect().await;
    b.hello_with(Hello {
        credit_bytes: 40_000,
        ..hello(&ben.token)
    })
    .await;
    let mut last = 0;
    for _ in 0..chunks {
        last = a.send(1, &"x".repeat(1_000)).await.unwrap();
    }
    (b, channel, last)
}

#[tokio::test]
async fn without_credit_events_collapse_into_one_head_and_nothing_is_lost() {
    let world = world().await;
    let (mut b, channel, last) = flood(&world, 200).await;
    b.ping().await;
    let got = b
        .passed()
        .iter()
        .filter(|f| matches!(f, ServerFrame::Deliver { .. }))
        .count();
    assert!((38..=40).contains(&got), "{got}");
    // Still without credit: asked-for pages pass.
    let request = b.request();
    b.say(&ClientFrame::History {
        request,
        history: History {
            channel,
            from: last,
            to: last,
            items_max: 1,
            newest_first: false,
        },
    })
    .await;
    b.until(|f| matches!(f, ServerFrame::HistoryPage { .. }))
        .await;
    assert!(
        !b.passed()
            .iter()
            .any(|f| matches!(f, ServerFrame::ChannelHead(_)))
    );
    b.say(&ClientFrame::Credit { bytes: 40_000 }).await;
    assert_eq!(b.head(channel).await.head_seq, last);
    b.ping().await;
    assert!(b.passed().is_empty(), "one head, and no event again");
}

#[tokio::test]
async fn in_opened_mode_channels_that_are_not_open_give_heads() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let mut b = world.connect().await;
    b.hello_with(Hello {
        push: PushMode::Opened,
        ..hello(&ben.token)
    })
    .await;
    let seq = a.send(1, "not open").await.unwrap();
    assert_eq!(b.head(channel).await.head_seq, seq);
    b.open(cursor(channel, 4, 1, seq)).await.unwrap();
    a.send(1, "open").await.unwrap();
    assert_eq!(b.message().await.1.text(), Some("open"));
    b.say(&ClientFrame::CloseChannel { alias: 4 }).await;
    b.ping().await;
    let seq = a.send(1, "closed").await.unwrap();
    assert_eq!(b.head(channel).await.head_seq, seq);
    // An alias is never used twice.
    assert_eq!(
        b.open(cursor(channel, 4, 1, seq)).await,
        Err(Code::BadAlias)
    );
}

#[tokio::test]
async fn unread_is_equal_on_both_devices_after_read_on_one_in_both_push_modes() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let second = world.log_in("ben").await;
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let mut all = world.enter(&ben).await;
    let mut opened = world.connect().await;
    opened
        .hello_with(Hello {
            push: PushMode::Opened,
            ..hello(&second.token)
        })
        .await;
    let mut last = 0;
    for n in 0..5 {
        last = a.send(1, &n.to_string()).await.unwrap();
    }
    all.say(&ClientFrame::Read {
        request: 1,
        channel,
        seq: last - 1,
    })
    .await;
    let read = |head: &ChannelHead| head.read_seq == last - 1 && head.head_seq == last;
    let mut heads = Vec::new();
    for device in [&mut all, &mut opened] {
        let frame = device
            .until(|f| matches!(f, ServerFrame::ChannelHead(head) if read(head)))
            .await;
        let ServerFrame::ChannelHead(head) = frame else {
            unreachable!()
        };
        heads.push(head);
    }
    assert_eq!(heads[0], heads[1]);
    assert_eq!(heads[0].head_ordinal - heads[0].read_ordinal, 1);
}

#[tokio::test]
async fn a_removed_device_ends_without_a_ghost_channel() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.group(&ann, &[&ben]).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let mut b = world.enter(&ben).await;
    b.open(cursor(channel, 1, 0, 0)).await.unwrap();
    a.send(1, "before").await.unwrap();
    b.message().await;
    let path = format!("/v1/channels/{channel}/members/{}", ben.user);
    let (status, _) = world.call("DELETE", &path, Some(&ann.token), None).await;
    assert_eq!(status, 204);
    let removal = b.until(|f| matches!(f, ServerFrame::Event { .. })).await;
    let ServerFrame::Event { alias: 1, event } = removal else {
        panic!("{removal:?}")
    };
    a.send(1, "after").await.unwrap();
    assert_eq!(b.send(1, "still here?").await, Err(Code::BadAlias));
    b.ping().await;
    assert!(
        !b.passed()
            .iter()
            .any(|f| matches!(f, ServerFrame::Deliver { .. }))
    );
    // What was theirs to read still is; what came after is not.
    let (status, view) = world
        .call(
            "GET",
            &format!("/v1/channels/{channel}"),
            Some(&ben.token),
            None,
        )
        .await;
    assert_eq!(status, 200);
    assert_eq!(view["left_seq"], json!(event.seq));
    assert_eq!(view["head_seq"], json!(event.seq));
    let mut b = world.connect().await;
    b.say(&ClientFrame::Hello(hello(&ben.token))).await;
    let changes = b
        .until(|f| matches!(f, ServerFrame::SyncChanges { .. }))
        .await;
    let ServerFrame::SyncChanges { changes, .. } = changes else {
        unreachable!()
    };
    let row = changes
        .rows
        .iter()
        .find(|r| r.head.channel == channel)
        .unwrap();
    assert_eq!(row.left_seq, Some(event.seq));
}

#[tokio::test]
async fn welcome_waits_at_most_half_a_second_for_an_owner() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    a.send(1, "durable").await.unwrap();
    world.store.hold();
    let key = key();
    a.queue_send(1, "held", key).await;
    a.ping().await;
    let mut again = world.connect().await;
    let began = Instant::now();
    again
        .say(&ClientFrame::Hello(Hello {
            pending: vec![PendingSend { channel, key }],
            ..hello(&ann.token)
        }))
        .await;
    let Ok(ServerFrame::Welcome(welcome)) = again.next().await else {
        panic!("no WELCOME")
    };
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(welcome.pending, [PendingAnswer::Unknown]);
    world.store.release();
    let mut again = world.connect().await;
    again
        .say(&ClientFrame::Hello(Hello {
            pending: vec![
                PendingSend { channel, key },
                PendingSend {
                    channel,
                    key: crate::client::key(),
                },
            ],
            ..hello(&ann.token)
        }))
        .await;
    let Ok(ServerFrame::Welcome(welcome)) = again.next().await else {
        panic!("no WELCOME")
    };
    assert!(matches!(
        welcome.pending[..],
        [PendingAnswer::Stored { .. }, PendingAnswer::Absent]
    ));
}

#[tokio::test]
async fn a_session_that_is_replaced_is_closed() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let mut old = world.connect().await;
    let welcome = old.hello(&ann.token).await;
    let mut new = world.connect().await;
    new.hello_with(Hello {
        replaces: Some(welcome.session),
        ..hello(&ann.token)
    })
    .await;
    assert_eq!(old.closed().await.0, Code::SessionReplaced.number());
    new.ping().await;
}

#[tokio::test]
async fn a_token_is_announced_refreshed_and_runs_out() {
    let clock = Clock::manual(1_800_000_000_000);
    let world = with(|_| {}, clock.clone()).await;
    let ann = world.sign_up("ann").await;
    let ben = world.sign_up("ben").await;
    let mut a = world.enter(&ann).await;
    // 14 minutes in steps shorter than the idle limit.
    for _ in 0..28 {
        clock.advance(30_000);
        a.ping().await;
    }
    a.until(|f| matches!(f, ServerFrame::AuthExpiring { .. }))
        .await;
    let body = json!({"refresh_token": ann.refresh_token});
    let (status, fresh) = world
        .call("POST", "/v1/tokens/refresh", None, Some(body))
        .await;
    assert_eq!(status, 200, "{fresh}");
    for (token, outcome) in [
        (ben.token.clone(), Err(Code::Unauthenticated)),
        ("nonsense".to_owned(), Err(Code::Unauthenticated)),
        (crate::world::person(&fresh).token, Ok(())),
    ] {
        let request = a.request();
        a.say(&ClientFrame::AuthRefresh { request, token }).await;
        let answer = a
            .until(|f| match f {
                ServerFrame::AuthRefreshed { request: r, .. }
                | ServerFrame::Error { request: r, .. } => *r == request,
                _ => false,
            })
            .await;
        match (answer, outcome) {
            (ServerFrame::AuthRefreshed { expires_in_ms, .. }, Ok(())) => {
                assert!(expires_in_ms > 800_000);
            }
            (ServerFrame::Error { error, .. }, Err(code)) => assert_eq!(error.code, code),
            (answer, _) => panic!("{answer:?}"),
        }
    }
    for _ in 0..32 {
        clock.advance(30_000);
        if a.socket_is_open().await {
            continue;
        }
        break;
    }
    assert_eq!(a.closed().await.0, Code::TokenExpired.number());
    // And it opens nothing any more.
    let mut late = world.connect().await;
    late.say(&ClientFrame::Hello(hello(&ann.token))).await;
    assert_eq!(late.closed().await.0, Code::TokenExpired.number());
}

#[tokio::test]
async fn logging_out_closes_the_devices_connections_only() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let second = world.log_in("ann").await;
    let mut one = world.enter(&ann).await;
    let mut two = world.enter(&second).await;
    let (status, _) = world
        .call("POST", "/v1/sessions/logout", Some(&ann.token), None)
        .await;
    assert_eq!(status, 204);
    assert_eq!(one.closed().await.0, Code::DeviceRevoked.number());
    two.ping().await;
    let mut late = world.connect().await;
    late.say(&ClientFrame::Hello(hello(&ann.token))).await;
    assert_eq!(late.closed().await.0, Code::DeviceRevoked.number());
}

#[tokio::test]
async fn a_clean_stop_says_goaway_and_finishes_what_was_sent() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    a.send(1, "first").await.unwrap();
    world.store.hold();
    let held = a.queue_send(1, "in flight", key()).await;
    a.ping().await;
    let store = world.store.clone();
    let stopping = tokio::spawn(world.node.shut_down(Default::default()));
    a.until(|f| matches!(f, ServerFrame::Goaway { .. })).await;
    store.release();
    a.answer_of(held)
        .await
        .expect("acknowledged before the end");
    assert_eq!(a.closed().await.0, Code::GoingAway.number());
    tokio::time::timeout(SOON, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn goodbye_closes_normally() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let mut a = world.enter(&ann).await;
    a.say(&ClientFrame::Goodbye).await;
    assert_eq!(a.closed().await, (1000, None));
}
