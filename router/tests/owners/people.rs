//! Users: registration, sessions, read marks on several devices, direct channels, ids.

use std::collections::HashSet;
use std::sync::Arc;

use conch_router::{Push, Registration, SyncQuery};
use conch_store::{MessageStore, Record};
use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, Code, DeviceId, SessionId, UserId};
use futures_util::FutureExt;

use crate::world::{ANNA, BERT, CARL, World, by, config, eventually, memory};

/// Guards: registered first, then the position is read (`Shard::on_register`). The schedule: the store has taken the
/// position and not given it yet, a message is committed, the position arrives.
#[tokio::test]
async fn a_message_between_snapshot_and_registration_is_in_one_of_the_two() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    world.say(by(ANNA, 1, channel, 1, "before")).await.unwrap();
    let before = world.store.durable_lsn();
    world.store.hold_reads();
    let reads = world.store.reads().inbox_positions;
    let router = world.router.clone();
    let registered = tokio::spawn(async move {
        let registration = Registration {
            session: SessionId(2),
            user: BERT,
            device: DeviceId(2),
            replaces: None,
        };
        router.register(registration).await.unwrap().inbox_position
    });
    eventually("the position is taken", || {
        world.store.reads().inbox_positions > reads
    })
    .await;
    let ack = world.say(by(ANNA, 1, channel, 2, "between")).await.unwrap();
    let pushed = world.event(2, channel, ack.seq).await;
    world.store.release_reads();
    let position = registered.await.unwrap();
    assert!(position >= before);
    assert!(pushed.position > before);
    world.router.shutdown().await;
}

/// Guards: read marks go to all sessions of the user, and are the log's.
#[tokio::test]
async fn unread_is_equal_on_two_devices_after_a_read_on_one() {
    let world = World::new();
    for session in [2, 3] {
        world.register(BERT, session).await;
    }
    let channel = world.group(ANNA, &[BERT, CARL]).await;
    for number in 1..=5 {
        world.say(by(ANNA, 1, channel, number, "x")).await.unwrap();
    }
    world
        .router
        .add_members(ANNA, channel, vec![UserId(4004)])
        .await
        .unwrap();
    let before = world.router.view(BERT, channel).await.unwrap().head;
    assert_eq!(before.head_ordinal - before.read_ordinal, 5);
    let head = world.router.read(BERT, channel, 4).await.unwrap();
    assert_eq!((head.read_seq, head.read_ordinal), (4, 3));
    assert_eq!(head.head_ordinal - head.read_ordinal, 2);
    for session in [2, 3] {
        let seen = world
            .until(session, |pushes| {
                pushes.iter().find_map(|push| match push {
                    Push::Head(head) => Some(*head),
                    _ => None,
                })
            })
            .await;
        assert_eq!(seen, head);
    }
    // Back: nothing moves. Forward beyond the head: clamped.
    let same = world.router.read(BERT, channel, 2).await.unwrap();
    assert_eq!(same, head);
    let all = world.router.read(BERT, channel, u32::MAX).await.unwrap();
    assert_eq!((all.read_seq, all.read_ordinal), (7, 5));
    let rows = world
        .router
        .sync(BERT, SyncQuery::After(0), 9)
        .await
        .unwrap();
    assert_eq!(rows.rows[0].member.read_ordinal, 5);
    // A message moves its author's mark.
    world.say(by(BERT, 2, channel, 9, "y")).await.unwrap();
    let own = world.router.view(BERT, channel).await.unwrap().head;
    assert_eq!((own.read_seq, own.read_ordinal), (8, 6));
    world.router.shutdown().await;
}

/// Guards: a mark outside the tail gets its ordinal from the store (`Wanted::Mark`).
#[tokio::test]
async fn a_mark_below_the_tail_has_the_right_ordinal() {
    let mut small = config();
    small.tail_events = 2;
    let world = World::with(small, memory());
    let channel = world.group(ANNA, &[BERT]).await;
    for number in 1..=9 {
        world.say(by(ANNA, 1, channel, number, "x")).await.unwrap();
    }
    let head = world.router.read(BERT, channel, 4).await.unwrap();
    assert_eq!((head.read_seq, head.read_ordinal), (4, 3));
    world.router.shutdown().await;
}

/// Guards: sessions are told apart by their id (`UserState::on_unregister`).
#[tokio::test]
async fn a_late_goodbye_does_not_remove_the_successor() {
    let world = World::new();
    world.register(BERT, 1).await;
    world.register(BERT, 2).await;
    world.router.unregister(BERT, SessionId(1));
    world.router.unregister(BERT, SessionId(1));
    let channel = world.direct(ANNA, BERT).await;
    world.event(2, channel, 1).await;
    assert!(world.events(1).is_empty());
    world
        .router
        .close_device(BERT, DeviceId(2), Code::DeviceRevoked);
    world
        .until(2, |pushes| {
            pushes
                .iter()
                .find(|push| matches!(push, Push::Close(Code::DeviceRevoked)))
                .map(|_| ())
        })
        .await;
    world.say(by(ANNA, 9, channel, 1, "gone")).await.unwrap();
    world.register(BERT, 4).await;
    assert!(world.events(2).iter().all(|event| event.seq == 1));
    world.router.shutdown().await;
}

#[tokio::test]
async fn a_person_has_at_most_twenty_sessions() {
    let world = World::new();
    for session in 1..=20 {
        world.register(ANNA, session).await;
    }
    let one_more = |replaces| Registration {
        session: SessionId(21),
        user: ANNA,
        device: DeviceId(21),
        replaces,
    };
    let refused = world.router.register(one_more(None)).await.unwrap_err();
    assert_eq!(refused.code, Code::LimitReached);
    world
        .router
        .register(one_more(Some(SessionId(3))))
        .await
        .unwrap();
    world.router.shutdown().await;
}

/// Guards: one look-up per pair at a time, by the pair's owner (`Pairs::wait`), and the idempotent first event.
#[tokio::test]
async fn both_sides_opening_at_once_meet_in_one_channel() {
    let world = World::new();
    world.store.hold();
    let opened: Vec<_> = (0..20)
        .map(|i| {
            let router = world.router.clone();
            let (by, other) = if i % 2 == 0 {
                (ANNA, BERT)
            } else {
                (BERT, ANNA)
            };
            tokio::spawn(async move { router.direct(by, other).await.unwrap() })
        })
        .collect();
    world.until_held(1).await;
    world.store.release();
    let mut channels = HashSet::new();
    for view in opened {
        channels.insert(view.await.unwrap().head.channel);
    }
    assert_eq!(channels.len(), 1);
    let log = world.store.log();
    let pairs = |record: &&Record| matches!(record, Record::Pair { .. });
    let events = |record: &&Record| matches!(record, Record::Event(_));
    assert_eq!(log.iter().filter(pairs).count(), 1);
    assert_eq!(log.iter().filter(events).count(), 1);
    world.router.shutdown().await;
}

/// Guards: the pair's record first, the channel idempotently from it: a crash between the two.
#[tokio::test]
async fn a_pair_whose_channel_was_not_made_yet_gets_it() {
    let store = memory();
    let channel = ChannelId(4711);
    let pair = Record::Pair {
        low: ANNA,
        high: BERT,
        channel,
    };
    store.append(vec![pair]).await.unwrap();
    let world = World::with(config(), store);
    assert_eq!(world.direct(BERT, ANNA).await, channel);
    assert_eq!(
        world.router.view(ANNA, channel).await.unwrap().peer,
        Some(BERT)
    );
    world.router.shutdown().await;
}

#[tokio::test]
async fn a_direct_channel_with_oneself_is_ones_own_log() {
    let world = World::new();
    let view = world.router.direct(ANNA, ANNA).await.unwrap();
    assert_eq!(
        (view.kind, view.members, view.peer),
        (ChannelKind::SelfLog, 1, None)
    );
    let channel = view.head.channel;
    world.say(by(ANNA, 1, channel, 1, "note")).await.unwrap();
    for refused in [
        world
            .router
            .add_members(ANNA, channel, vec![BERT])
            .await
            .map(drop),
        world.router.leave(ANNA, channel).await,
        world.router.rename(ANNA, channel, "x".into()).await,
    ] {
        assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    }
    world.router.shutdown().await;
}

/// Guards: a block is durable before its first id is given out (`Ids::next`).
#[tokio::test]
async fn ids_are_never_given_out_twice_not_even_by_the_next_life() {
    let world = World::new();
    let mut ids = HashSet::new();
    let router = world.router.clone();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..100 {
                    mine.push(router.next_channel_id().await.unwrap().0);
                }
                mine
            })
        })
        .collect();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    assert_eq!(ids.len(), 5_000);
    let store = world.store.reopen();
    let world = World::with(config(), store);
    for _ in 0..100 {
        assert!(ids.insert(world.router.next_channel_id().await.unwrap().0));
    }
    let waiting = Arc::new(world.store.clone());
    waiting.hold();
    let user = tokio::spawn({
        let router = world.router.clone();
        async move { router.next_user_id().await }
    });
    world.until_held(1).await;
    assert!(!user.is_finished());
    // Whoever comes while the block is on its way gets nothing of it either.
    assert!(world.router.next_user_id().now_or_never().is_none());
    waiting.release();
    user.await.unwrap().unwrap();
    world.router.shutdown().await;
}
