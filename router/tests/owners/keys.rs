//! One key, one message: however often, from wherever and whenever it is sent; and what pending sends are told.

use std::time::Instant;

use conch_router::{Registration, RouterConfig};
use conch_wire::event::{PendingAnswer, PendingSend};
use conch_wire::{AckFlags, ChannelId, Code, DeviceId, MessageKey, SessionId};

use crate::world::{ANNA, BERT, CARL, DEADLINE, Send, World, by, config, eventually, memory};

fn ask(channel: ChannelId, key: u128) -> PendingSend {
    PendingSend {
        channel,
        key: MessageKey(key.to_le_bytes()),
    }
}

/// Guards: a key that has a place waits for that commit (`ChannelState::fate`, the row in flight), and is not sequenced
/// again.
#[tokio::test]
async fn a_hundred_attempts_while_not_durable_are_one_message() {
    let world = World::new();
    for session in [1, 7] {
        world.register(ANNA, session).await;
    }
    let channel = world.direct(ANNA, BERT).await;
    world.store.hold();
    let first = by(ANNA, 1, channel, 1, "once");
    for request in 1..=100 {
        let session = if request % 2 == 0 { 1 } else { 7 };
        let attempt = Send {
            session,
            request,
            retry: request > 3,
            ..first
        };
        world.router.send(attempt.build()).unwrap();
    }
    // Behind all of them in the queue: when it is answered, they have been judged.
    world.router.view(ANNA, channel).await.unwrap();
    world.until_held(1).await;
    assert!(
        world
            .pushed(1)
            .iter()
            .chain(&world.pushed(7))
            .all(|push| { matches!(push, conch_router::Push::Events(events) if events.iter().all(|event| event.seq == 1)) })
    );
    world.store.release();
    let mut fresh = 0;
    for request in 1..=100 {
        let session = if request % 2 == 0 { 1 } else { 7 };
        let ack = world.answer(session, request).await.unwrap()[0];
        assert_eq!(ack.seq, 2);
        fresh += u32::from(ack.flags == AckFlags::default());
    }
    assert_eq!(fresh, 1);
    assert_eq!(world.texts(ANNA, channel).await, ["once"]);
    world.router.shutdown().await;
}

/// Guards: content is compared before an attempt is believed to be a repetition (`ChannelState::judge`).
#[tokio::test]
async fn other_content_under_a_key_is_a_conflict_in_flight_and_stored() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let first = by(ANNA, 1, channel, 1, "this");
    let other = |request| Send {
        request,
        text: "that",
        ..first
    };
    world.store.hold();
    world.router.send(first.build()).unwrap();
    let refused = world.say(other(2)).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    world.store.release();
    world.answer(1, 1).await.unwrap();
    assert_eq!(world.say(other(3)).await.unwrap_err().code, Code::Conflict);
    // The same key of another person is another key.
    let berts = Send {
        user: BERT,
        session: 2,
        ..other(4)
    };
    assert_eq!(world.say(berts).await.unwrap().seq, 3);
    world.router.shutdown().await;
}

/// Guards: the window is rebuilt from the store (`ChannelState::load`), and RETRY asks behind it (`Lookup::Key`).
#[tokio::test]
async fn a_key_is_known_after_the_channel_was_unloaded_and_after_a_restart() {
    let world = World::with(
        RouterConfig {
            channel_idle_ms: 1,
            ..config()
        },
        memory(),
    );
    let channel = world.direct(ANNA, BERT).await;
    let first = by(ANNA, 1, channel, 1, "once");
    world.say(first).await.unwrap();
    let loads = world.store.reads().channels;
    let mut request = 1;
    // Until it was loaded again for an attempt: it was unloaded in between.
    loop {
        request += 1;
        let ack = world.say(Send { request, ..first }).await.unwrap();
        assert_eq!((ack.seq, ack.flags), (2, AckFlags::DUP));
        if world.store.reads().channels > loads + 1 {
            break;
        }
        tokio::task::yield_now().await;
    }
    world.router.shutdown().await;

    let world = World::with(config(), world.store.reopen());
    let again = Send {
        request: 1,
        retry: true,
        ..first
    };
    let ack = world.say(again).await.unwrap();
    assert_eq!((ack.seq, ack.flags), (2, AckFlags::DUP));
    assert_eq!(world.texts(ANNA, channel).await, ["once"]);
    world.router.shutdown().await;
}

/// Guards: dedupe comes before membership (`ChannelState::judge`: `fate`, then `not_allowed`).
#[tokio::test]
async fn a_stored_message_answers_its_sender_after_the_removal() {
    let world = World::new();
    let channel = world.group(ANNA, &[BERT]).await;
    let first = by(BERT, 2, channel, 1, "mine");
    world.say(first).await.unwrap();
    world
        .router
        .remove_member(ANNA, channel, BERT)
        .await
        .unwrap();
    for retry in [false, true] {
        let request = 2 + u32::from(retry);
        let again = Send {
            request,
            retry,
            ..first
        };
        let ack = world.say(again).await.unwrap();
        assert_eq!((ack.seq, ack.flags), (2, AckFlags::DUP));
    }
    let new = by(BERT, 2, channel, 9, "more");
    assert_eq!(world.say(new).await.unwrap_err().code, Code::NotFound);
    let asked = [ask(channel, first.key)];
    let answers = world.router.pending(BERT, None, &asked);
    assert!(matches!(
        answers.await[0],
        PendingAnswer::Stored { seq: 2, .. }
    ));
    world.router.shutdown().await;
}

async fn fill_the_window(world: &World, channel: ChannelId) {
    let count = 2_100;
    for number in 1..=count {
        let send = by(BERT, 2, channel, number, "filler");
        world.router.send(send.build()).unwrap();
        if number % 500 == 0 {
            world.answer(2, number).await.unwrap();
        }
    }
    world.answer(2, count).await.unwrap();
}

/// Guards: a RETRY that the window does not know is looked up, parked, and judged again when the row is there
/// (`ChannelState::resume_send`); of two attempts parked together one becomes a message.
#[tokio::test]
async fn retries_behind_the_window_find_their_message_and_parked_ones_make_one() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let old = by(ANNA, 1, channel, 1, "old");
    world.say(old).await.unwrap();
    fill_the_window(&world, channel).await;
    let again = |request, retry| Send {
        request,
        retry,
        ..old
    };
    let ack = world.say(again(2, true)).await.unwrap();
    assert_eq!((ack.seq, ack.flags), (2, AckFlags::DUP));

    world.store.hold_reads();
    let fresh = Send {
        retry: true,
        ..by(ANNA, 1, channel, 10, "fresh")
    };
    let reads = world.store.reads().keys;
    for request in 10..15 {
        world
            .router
            .send(Send { request, ..fresh }.build())
            .unwrap();
    }
    eventually("all parked", || world.store.reads().keys >= reads + 5).await;
    world.store.release_reads();
    let mut seqs = Vec::new();
    for request in 10..15 {
        seqs.push(world.answer(1, request).await.unwrap()[0].seq);
    }
    assert!(seqs.iter().all(|&seq| seq == seqs[0]), "{seqs:?}");
    let texts = world.texts(ANNA, channel).await;
    assert_eq!(texts.iter().filter(|text| *text == "fresh").count(), 1);
    world.router.shutdown().await;
}

/// Guards: a question about a message on its way waits for its commit (`ChannelState::answer_pending`).
#[tokio::test]
async fn pending_sends_are_told_what_became_of_them() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let other = world.direct(ANNA, CARL).await;
    let stored = by(ANNA, 1, channel, 1, "stored");
    world.say(stored).await.unwrap();
    world.store.hold();
    let flying = by(ANNA, 1, other, 2, "flying");
    world.router.send(flying.build()).unwrap();
    world.until_held(1).await;
    let questions = [
        ask(other, flying.key),
        ask(channel, 77),
        ask(channel, stored.key),
        ask(ChannelId(12345), stored.key),
    ];
    let asked = world.router.clone();
    let answers = tokio::spawn(async move { asked.pending(ANNA, None, &questions).await });
    tokio::task::yield_now().await;
    world.store.release();
    let answers = answers.await.unwrap();
    assert!(matches!(answers[0], PendingAnswer::Stored { seq: 2, .. }));
    assert_eq!(answers[1], PendingAnswer::Absent);
    assert!(matches!(answers[2], PendingAnswer::Stored { seq: 2, .. }));
    assert_eq!(answers[3], PendingAnswer::Absent);
    // Another person's question about the same key learns nothing.
    let asked = [ask(channel, stored.key)];
    let answers = world.router.pending(CARL, None, &asked).await;
    assert_eq!(answers, [PendingAnswer::Absent]);
    world.router.shutdown().await;
}

/// Guards: the fence (`Fences::holds` in `ChannelState::judge`): what was answered `absent` stays absent.
#[tokio::test]
async fn late_frames_of_a_replaced_session_are_refused() {
    let world = World::new();
    world.register(ANNA, 1).await;
    let channel = world.direct(ANNA, BERT).await;
    let late = by(ANNA, 1, channel, 1, "late");
    let asked = [ask(channel, late.key)];
    let answers = world.router.pending(ANNA, Some(SessionId(1)), &asked).await;
    assert_eq!(answers, [PendingAnswer::Absent]);
    let refused = world.say(late).await.unwrap_err();
    assert_eq!(refused.code, Code::SessionReplaced);
    let again = Send {
        session: 5,
        retry: true,
        ..late
    };
    assert_eq!(world.say(again).await.unwrap().flags, AckFlags::default());
    assert_eq!(world.texts(ANNA, channel).await, ["late"]);
    // Nobody fences another person's session.
    let asked = [ask(channel, 1)];
    world.router.pending(BERT, Some(SessionId(5)), &asked).await;
    world
        .say(by(ANNA, 5, channel, 6, "still here"))
        .await
        .unwrap();
    world.router.shutdown().await;
}

/// Guards: the fence holds for a send that was parked before it was raised.
#[tokio::test]
async fn a_parked_send_of_a_replaced_session_does_not_come_through() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    let parked = Send {
        retry: true,
        ..by(ANNA, 1, channel, 1, "parked")
    };
    world.store.hold_reads();
    let reads = world.store.reads().keys;
    world.router.send(parked.build()).unwrap();
    eventually("parked", || world.store.reads().keys > reads).await;
    let asked = world.router.clone();
    let question = [ask(channel, parked.key)];
    let answers =
        tokio::spawn(async move { asked.pending(ANNA, Some(SessionId(1)), &question).await });
    eventually("asked", || world.store.reads().keys > reads + 1).await;
    world.store.release_reads();
    assert_eq!(answers.await.unwrap(), [PendingAnswer::Absent]);
    let refused = world.answer(1, 1).await.unwrap_err();
    assert_eq!(refused.code, Code::SessionReplaced);
    assert!(world.texts(ANNA, channel).await.is_empty());
    world.router.shutdown().await;
}

/// Guards: the deadline in `Router::pending`.
#[tokio::test]
async fn a_held_owner_is_waited_for_half_a_second_at_most() {
    let world = World::new();
    let channel = world.direct(ANNA, BERT).await;
    world.store.hold();
    let flying = by(ANNA, 1, channel, 1, "x");
    world.router.send(flying.build()).unwrap();
    let started = Instant::now();
    let asked = [ask(channel, flying.key), ask(ChannelId(9), 1)];
    let answers = world.router.pending(ANNA, None, &asked);
    let answers = tokio::time::timeout(DEADLINE, answers).await.unwrap();
    assert!(started.elapsed().as_millis() < 1_500);
    assert_eq!(answers, [PendingAnswer::Unknown, PendingAnswer::Absent]);
    world.store.release();
    world.answer(1, 1).await.unwrap();
    let answers = world.router.pending(ANNA, None, &asked[..1]).await;
    assert!(matches!(answers[0], PendingAnswer::Stored { .. }));
    world.router.shutdown().await;
}

/// Guards: the user owner closes the session that was taken over from.
#[tokio::test]
async fn the_replaced_session_is_closed() {
    let world = World::new();
    world.register(ANNA, 1).await;
    let registration = Registration {
        session: SessionId(2),
        user: ANNA,
        device: DeviceId(1),
        replaces: Some(SessionId(1)),
    };
    world.router.register(registration).await.unwrap();
    world
        .until(1, |pushes| {
            pushes.iter().find_map(|push| {
                matches!(push, conch_router::Push::Close(Code::SessionReplaced)).then_some(())
            })
        })
        .await;
    world.router.shutdown().await;
}
