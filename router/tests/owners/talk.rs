//! The life of a message: sent, durable, acknowledged, delivered, read.

use conch_router::{Push, SyncQuery};
use conch_store::Record;
use conch_wire::event::ChannelKind;
use conch_wire::{AckFlags, Code};

use crate::world::{ANNA, BERT, CARL, World, by, config, everything, memory, send_many};

#[tokio::test]
async fn two_people_talk() {
    let world = World::new();
    world.register(ANNA, 1).await;
    world.register(BERT, 2).await;
    let channel = world.direct(ANNA, BERT).await;
    assert_eq!(world.direct(BERT, ANNA).await, channel);
    let ack = world.say(by(ANNA, 1, channel, 1, "hello")).await.unwrap();
    assert_eq!((ack.seq, ack.flags), (2, AckFlags::default()));
    let event = world.event(2, channel, 2).await;
    assert_eq!(
        (event.ordinal, event.author, event.channel_kind),
        (1, ANNA, ChannelKind::Direct)
    );
    assert_eq!(event.position, world.store.durable_lsn());
    assert_eq!(world.texts(BERT, channel).await, ["hello"]);

    let view = world.router.view(BERT, channel).await.unwrap();
    assert_eq!(view.peer, Some(ANNA));
    assert_eq!((view.head.head_ordinal, view.head.read_ordinal), (1, 0));
    let head = world.router.read(BERT, channel, 99).await.unwrap();
    assert_eq!((head.read_seq, head.read_ordinal), (2, 1));
    let pushed = world
        .until(2, |pushes| {
            pushes.iter().find_map(|push| match push {
                Push::Head(head) => Some(*head),
                _ => None,
            })
        })
        .await;
    assert_eq!(pushed, head);

    let rows = world
        .router
        .sync(BERT, SyncQuery::After(0), 10)
        .await
        .unwrap();
    assert_eq!(rows.rows.len(), 1);
    assert_eq!(rows.rows[0].member.read_seq, 2);
    world.router.shutdown().await;
}

#[tokio::test]
async fn strangers_find_what_is_found_where_nothing_is() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let nowhere = conch_wire::ChannelId(5);
    for channel in [channel, nowhere] {
        let view = world.router.view(CARL, channel).await.unwrap_err();
        let history = world
            .router
            .history(CARL, everything(channel))
            .await
            .unwrap_err();
        let read = world.router.read(CARL, channel, 1).await.unwrap_err();
        let send = world.say(by(CARL, 3, channel, channel.0 as u32, "x")).await;
        let members = world.router.members(CARL, channel).await.unwrap_err();
        let refusals = [view, history, read, send.unwrap_err(), members];
        assert!(refusals.iter().all(|refused| *refused == view));
        assert_eq!(view.code, Code::NotFound);
    }
    world.router.shutdown().await;
}

/// Guards: acks, deliveries, pages, views and heads are clipped at the committed position (`ChannelState::wait_for`,
/// `on_committed`).
#[tokio::test]
async fn nothing_shows_before_it_is_durable() {
    let world = World::new();
    world.register(ANNA, 1).await;
    world.register(BERT, 2).await;
    let channel = world.direct(ANNA, BERT).await;
    world.event(2, channel, 1).await;
    world.router.read(BERT, channel, 1).await.unwrap();
    world.store.hold();
    world
        .router
        .send(by(ANNA, 1, channel, 1, "secret").build())
        .unwrap();
    world.until_held(1).await;
    let view = world.router.view(ANNA, channel).await.unwrap();
    assert_eq!(view.head.head_seq, 1);
    assert_eq!(world.history(BERT, channel).await.head_seq, 1);
    assert_eq!(
        world.router.read(BERT, channel, 2).await.unwrap().read_seq,
        1
    );
    assert!(world.events(2).iter().all(|event| event.seq == 1));
    assert!(
        !world
            .pushed(1)
            .iter()
            .any(|push| matches!(push, Push::Acked { .. }))
    );
    world.store.release();
    assert_eq!(world.answer(1, 1).await.unwrap()[0].seq, 2);
    world.event(2, channel, 2).await;
    world.router.shutdown().await;
}

/// Guards: a SEND_MANY is judged before anything of it gets a place (`ChannelState::judge`).
#[tokio::test]
async fn send_many_is_all_or_none_and_the_refusal_names_the_item() {
    let world = World::new();
    world.register(ANNA, 1).await;
    let channel = world.direct(ANNA, BERT).await;
    let one = by(ANNA, 1, channel, 1, "one");
    world.say(one).await.unwrap();
    let second = by(ANNA, 1, channel, 2, "");
    let items = [(7, "a"), (8, "b"), (one.key, "not one")];
    world.router.send(send_many(second, &items)).unwrap();
    let refused = world.answer(1, 2).await.unwrap_err();
    assert_eq!((refused.code, refused.item), (Code::Conflict, 2));
    assert_eq!(world.texts(ANNA, channel).await, ["one"]);

    let third = by(ANNA, 1, channel, 3, "");
    let items = [(7, "a"), (one.key, "one"), (8, "b"), (7, "a")];
    world.router.send(send_many(third, &items)).unwrap();
    let acks = world.answer(1, 3).await.unwrap();
    let seen: Vec<_> = acks.iter().map(|ack| (ack.seq, ack.flags.0)).collect();
    assert_eq!(seen, [(3, 0), (2, 1), (4, 0), (3, 1)]);
    assert_eq!(world.texts(ANNA, channel).await, ["one", "a", "b"]);
    world.router.shutdown().await;
}

#[tokio::test]
async fn one_pass_is_one_append_and_batches_go_one_after_the_other() {
    let world = World::with(
        conch_router::RouterConfig {
            shards: 1,
            ..config()
        },
        memory(),
    );
    world.register(ANNA, 1).await;
    let channel = world.direct(ANNA, BERT).await;
    world.store.hold();
    for number in 1..=50 {
        world
            .router
            .send(by(ANNA, 1, channel, number, "x").build())
            .unwrap();
    }
    world.until_held(1).await;
    world.store.release();
    for number in 1..=50 {
        let ack = world.answer(1, number).await.unwrap()[0];
        assert_eq!(ack.seq, number + 1);
    }
    let log = world.store.log();
    let seqs: Vec<u32> = log
        .iter()
        .filter_map(|record| match record {
            Record::Event(row) if row.channel == channel => Some(row.seq),
            _ => None,
        })
        .collect();
    assert_eq!(seqs, (1..=51).collect::<Vec<_>>());
    world.router.shutdown().await;
}
