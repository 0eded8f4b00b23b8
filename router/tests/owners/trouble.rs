//! Owners in trouble: full queues, a full disk, a failing log, panics, busy neighbours, the end.

use std::sync::Arc;

use conch_router::slot::Slot;
use conch_router::{Fatal, Push, RouterConfig};
use conch_store::memory::FailedBatches;
use conch_store::{AppendError, Refusal};
use conch_wire::{AckFlags, ChannelId, Code, UserId};

use crate::world::{
    ANNA, BERT, BUSY, CARL, Send, World, by, config, eventually, memory, send_many,
};

/// Guards: the store is asked for room before a seq is given (`ChannelState::no_room`); dedupe comes before it.
#[tokio::test]
async fn a_refusal_for_want_of_room_is_certain() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let stored = by(ANNA, 1, channel, 1, "stored");
    world.say(stored).await.unwrap();
    for (request, refusal, code) in [
        (
            2,
            Refusal::Overloaded {
                retry_after_ms: 123,
            },
            Code::Overloaded,
        ),
        (
            3,
            Refusal::StorageFull {
                retry_after_ms: 123,
            },
            Code::StorageFull,
        ),
    ] {
        world.store.refuse(Some(refusal));
        let send = by(ANNA, 1, channel, request, "refused");
        let refused = world.say(send).await.unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (code, 123));
        let made = world.router.direct(ANNA, UserId(77)).await.unwrap_err();
        assert_eq!(made.code, code);
        let again = Send {
            request: request + 10,
            ..stored
        };
        assert_eq!(world.say(again).await.unwrap().flags, AckFlags::DUP);
    }
    assert_eq!(world.texts(ANNA, channel).await, ["stored"]);
    world.store.refuse(None);
    let again = Send {
        request: 20,
        ..by(ANNA, 1, channel, 2, "refused")
    };
    let ack = world.say(again).await.unwrap();
    assert_eq!((ack.seq, ack.flags), (3, AckFlags::default()));
    world.router.shutdown().await;
}

/// Guards: what waits in front of a channel is bounded (`WAITING_EVENTS_MAX`), and refused before it has a place.
#[tokio::test]
async fn a_channel_that_cannot_keep_up_refuses_and_keeps_what_it_took() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    world.store.hold();
    let count = 1_600;
    for number in 1..=count {
        let send = by(ANNA, 1, channel, number, &number.to_string()).build();
        world.router.send(send).unwrap();
    }
    world.answer(1, count).await.unwrap_err();
    world.store.release();
    let mut taken = Vec::new();
    for number in 1..=count {
        match world.answer(1, number).await {
            Ok(_) => taken.push(number.to_string()),
            Err(refused) => {
                assert_eq!(refused.code, Code::Overloaded);
                assert!(refused.retry_after_ms > 0);
            }
        }
    }
    assert!(taken.len() >= 1_024);
    assert_eq!(world.texts(ANNA, channel).await, taken);
    world.router.shutdown().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let world = World::with(
        RouterConfig {
            queue_max: 8,
            shards: 1,
            ..config()
        },
        memory(),
    );
    let channel = world.direct(ANNA, BERT).await;
    let refused = (1..=9)
        .filter_map(|number| {
            world
                .router
                .send(by(ANNA, 1, channel, number, "x").build())
                .err()
        })
        .collect::<Vec<_>>();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].code, Code::Overloaded);
    world.router.shutdown().await;
}

/// Guards: a failed append acknowledges nothing, and the program is told to end (`Shard::on_append_failed`).
#[tokio::test]
async fn after_a_failed_append_nothing_is_acknowledged() {
    let world = World::new();
    world.register(BERT, 2).await;
    let channel = world.direct(ANNA, BERT).await;
    world.event(2, channel, 1).await;
    world.store.hold();
    for number in 1..=3 {
        world
            .router
            .send(by(ANNA, 1, channel, number, "x").build())
            .unwrap();
    }
    world.until_held(1).await;
    world.store.fail_appends("no disk", FailedBatches::Kept);
    for number in 1..=3 {
        let refused = world.answer(1, number).await.unwrap_err();
        assert_eq!(refused.code, Code::OutcomeUnknown);
    }
    assert!(matches!(
        world.router.fatal().await,
        Fatal::Store(AppendError::LogFailed(_))
    ));
    let late = world.say(by(ANNA, 1, channel, 4, "late")).await;
    assert_eq!(late.unwrap_err().code, Code::Unavailable);
    assert!(world.events(2).iter().all(|event| event.seq == 1));
    world.router.shutdown().await;
}

fn poison() {
    fail::cfg("owner.poison", "return(poison)").unwrap();
}

/// Guards: `catch_unwind` around a state; the batch in the log's hands settles before the reload, and is delivered.
#[tokio::test]
async fn a_panic_stays_in_its_channel_and_loses_nothing_durable() {
    poison();
    let world = World::new();
    world.register(BERT, 2).await;
    let channel = world.direct(ANNA, BERT).await;
    let other = world.direct(ANNA, CARL).await;
    world.store.hold();
    let flying = by(ANNA, 1, channel, 1, "flying");
    let gathering = by(ANNA, 1, channel, 2, "gathering");
    world.router.send(flying.build()).unwrap();
    world.until_held(1).await;
    world.router.send(gathering.build()).unwrap();
    let loads = world.store.reads().channels;
    let poison = by(ANNA, 1, channel, 3, "poison");
    world.router.send(poison.build()).unwrap();
    for request in 1..=3 {
        let refused = world.answer(1, request).await.unwrap_err();
        assert_eq!(refused.code, Code::OutcomeUnknown, "{request}");
    }
    // It is not loaded again before the log has settled what it has of it.
    world
        .router
        .send(by(ANNA, 1, channel, 4, "patient").build())
        .unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.store.reads().channels, loads);
    world.store.release();
    world.say(by(ANNA, 1, other, 50, "fine")).await.unwrap();
    assert_eq!(world.answer(1, 4).await.unwrap()[0].seq, 3);
    world.event(2, channel, 2).await;
    world.event(2, channel, 3).await;
    for (number, send, flags) in [(11, flying, AckFlags::DUP), (12, gathering, AckFlags(0))] {
        let again = Send {
            request: number,
            retry: true,
            ..send
        };
        assert_eq!(world.say(again).await.unwrap().flags, flags);
    }
    assert_eq!(
        world.texts(BERT, channel).await,
        ["flying", "patient", "gathering"]
    );
    world.router.shutdown().await;
}

/// Guards: `PANICS_MAX` in a row; a commit in between starts the count afresh (`slot.panics = 0`).
#[tokio::test]
async fn a_channel_that_panics_three_times_in_a_row_can_only_be_read() {
    poison();
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let other = world.direct(ANNA, CARL).await;
    let mut number = 0;
    let mut send = |text| {
        number += 1;
        world.say(by(ANNA, 1, channel, number, text))
    };
    for _ in 0..2 {
        for _ in 0..2 {
            let refused = send("poison").await.unwrap_err();
            assert_eq!(refused.code, Code::OutcomeUnknown);
        }
        send("healthy").await.unwrap();
    }
    for _ in 0..3 {
        let refused = send("poison").await.unwrap_err();
        assert_eq!(refused.code, Code::OutcomeUnknown);
    }
    assert_eq!(send("healthy").await.unwrap_err().code, Code::Quarantined);
    assert_eq!(world.texts(BERT, channel).await, ["healthy", "healthy"]);
    world.router.view(BERT, channel).await.unwrap();
    world.say(by(ANNA, 1, other, 50, "fine")).await.unwrap();
    world.router.shutdown().await;
}

/// Guards: all or none, and refusals that are certain: a client with one frame in flight ends in order, whatever is
/// refused, lost to a reload, or asked again from another session.
#[tokio::test]
async fn a_burst_of_fifty_ends_in_order() {
    poison();
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let texts: Vec<String> = (1..=50).map(|number| format!("{number}")).collect();
    let mut request = 0;
    let mut tries = 0;
    for chunk in texts.chunks(10) {
        let items: Vec<(u128, &str)> = chunk
            .iter()
            .map(|text| (text.parse().unwrap(), text.as_str()))
            .collect();
        for attempt in 0.. {
            tries += 1;
            request += 1;
            let refusal = (tries % 3 == 0).then_some(Refusal::Overloaded { retry_after_ms: 5 });
            world.store.refuse(refusal);
            // Every other attempt comes over another connection.
            let session = 1 + u64::from(attempt % 2 == 1);
            let send = Send {
                request,
                retry: attempt > 0,
                ..by(ANNA, session, channel, request, "")
            };
            world.router.send(send_many(send, &items)).unwrap();
            if tries % 4 == 0 {
                let poison = by(BERT, 9, channel, request, "poison");
                world.router.send(poison.build()).unwrap();
            }
            if world.answer(session, request).await.is_ok() {
                break;
            }
        }
    }
    assert!(tries > 6, "something was refused");
    assert_eq!(world.texts(BERT, channel).await, texts);
    world.router.shutdown().await;
}

fn of_shard(shard: usize, from: u64) -> UserId {
    (from..)
        .map(UserId)
        .find(|&user| Slot::of_user(user).shard(2) == shard)
        .unwrap()
}

/// Guards: a full queue of a user owner keeps the mark behind, and room in it, not the next message, brings the rest
/// (`Shard::ask_for_room`, `on_room`).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deliveries_that_found_no_room_arrive_without_another_message() {
    let world = Arc::new(World::with(
        RouterConfig {
            queue_max: 4,
            channel_idle_ms: 1,
            ..config()
        },
        memory(),
    ));
    let (author, busy, reader) = (of_shard(0, 100), of_shard(1, 200), of_shard(1, 300));
    world.register(busy, BUSY.0).await;
    world.register(reader, 5).await;
    let channel = loop {
        let channel = world.router.next_channel_id().await.unwrap();
        if Slot::of_channel(channel).shard(2) == 0 {
            break channel;
        }
    };
    let made = world
        .router
        .create_group(channel, author, "far".into(), vec![busy, reader])
        .await;
    made.unwrap();
    world.event(5, channel, 1).await;
    // Held by a thread of its own until it is told to let go.
    let (let_go, told) = std::sync::mpsc::channel::<()>();
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let link = world.link.clone();
    let holder = std::thread::spawn(move || {
        let _gate = link.gate.lock().unwrap();
        locked.send(()).unwrap();
        told.recv().unwrap();
    });
    is_locked.await.unwrap();
    let count = 20;
    for number in 1..=count {
        let ack = world.say(by(author, 1, channel, number, "x")).await;
        ack.unwrap();
    }
    assert!(world.events(5).len() < 8, "the other shard is held up");
    let_go.send(()).unwrap();
    holder.join().unwrap();
    world.event(5, channel, count + 1).await;
    let seqs: Vec<u32> = world.events(5).iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=count + 1).collect::<Vec<_>>());
    world.router.shutdown().await;
}

/// Guards: shutdown commits and answers what has a place, and refuses for certain what has none.
#[tokio::test]
async fn shutdown_answers_everybody() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    world.store.hold();
    for number in 1..=300 {
        world
            .router
            .send(by(ANNA, 1, channel, number, "x").build())
            .unwrap();
    }
    world.until_held(1).await;
    world.router.view(ANNA, channel).await.unwrap();
    world.store.hold_reads();
    let reads = world.store.reads();
    let parked = Send {
        retry: true,
        ..by(ANNA, 1, channel, 400, "parked")
    };
    world.router.send(parked.build()).unwrap();
    world
        .router
        .send(by(ANNA, 1, ChannelId(3), 401, "loading").build())
        .unwrap();
    eventually("both wait for the store", || {
        let now = world.store.reads();
        now.keys > reads.keys && now.channels > reads.channels
    })
    .await;
    let router = world.router.clone();
    let down = tokio::spawn(async move { router.shutdown().await });
    for number in [400, 401] {
        let refused = world.answer(1, number).await.unwrap_err();
        assert_eq!(refused.code, Code::GoingAway);
    }
    let refused = world.router.send(by(ANNA, 1, channel, 500, "x").build());
    assert_eq!(refused.unwrap_err().code, Code::GoingAway);
    assert!(!down.is_finished());
    world.store.release();
    down.await.unwrap();
    for number in 1..=300 {
        assert_eq!(world.answer(1, number).await.unwrap()[0].seq, number + 1);
    }
    world.router.shutdown().await;
    let view = world.router.view(ANNA, channel).await.unwrap_err();
    assert_eq!(view.code, Code::GoingAway);
}

/// Guards: ids that name no channel do not stay in memory, and a person who is not there costs nothing.
#[tokio::test]
async fn asking_for_nothing_leaves_nothing_behind() {
    let world = World::new();
    for id in 1..200 {
        world.router.view(ANNA, ChannelId(id)).await.unwrap_err();
    }
    let loads = world.store.reads().channels;
    world.router.view(ANNA, ChannelId(1)).await.unwrap_err();
    assert_eq!(world.store.reads().channels, loads + 1);
    assert!(
        !world
            .pushed(1)
            .iter()
            .any(|push| matches!(push, Push::Events(_)))
    );
    world.router.shutdown().await;
}
