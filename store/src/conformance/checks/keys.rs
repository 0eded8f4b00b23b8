//! Finding a message again by its sender's key.

use std::sync::Arc;

use conch_wire::{ChannelId, MessageKey, UserId};

use super::{Client, row};
use crate::MessageStore;
use crate::conformance::Subject;
use crate::conformance::script::{KIND_CHANGE, KIND_UNKNOWN, Script, key};
use crate::memory::KEY_WINDOW_MS;
use crate::row::Record;

async fn found(
    store: &Arc<dyn MessageStore>,
    channel: u64,
    sender: u64,
    key: MessageKey,
) -> Option<u32> {
    let found = store
        .find_key(ChannelId(channel), UserId(sender), key)
        .await
        .unwrap();
    found.map(|event| event.seq)
}

pub async fn a_key_is_found_by_channel_and_sender<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let message = script_with_three(&mut script);
    Client(subject.store()).append(message.clone()).await;
    for _ in 0..2 {
        let store = subject.store();
        assert_eq!(found(&store, 1, 10, key(5)).await, Some(2));
        assert_eq!(
            found(&store, 1, 11, key(5)).await,
            Some(3),
            "another sender's key is another key"
        );
        assert_eq!(
            found(&store, 2, 10, key(5)).await,
            Some(2),
            "and another channel's"
        );
        assert_eq!(found(&store, 1, 10, key(6)).await, None);
        assert_eq!(found(&store, 2, 11, key(5)).await, None);
        assert_eq!(found(&store, 3, 10, key(5)).await, None);
        let whole = store
            .find_key(ChannelId(1), UserId(10), key(5))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(whole, *row(&message[1]));
        drop(store);
        subject = subject.crash().await;
    }
}

fn script_with_three(script: &mut Script) -> Vec<Record> {
    vec![
        script.group(1, "g", &[10, 11]),
        script.message(1, 10, 5, "x"),
        script.message(1, 11, 5, "y"),
        script.direct(2, 10, 11),
        script.message(2, 10, 5, "z"),
    ]
}

pub async fn only_messages_have_keys<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let store = subject.store();
    let mut script = Script::new();
    let batch = vec![
        script.group(1, "g", &[10]),
        script.event(1, KIND_CHANGE, 10, key(1), b""),
        script.event(1, KIND_UNKNOWN, 10, key(2), b""),
    ];
    store.append(batch).await.unwrap();
    for absent in [MessageKey::default(), key(1), key(2)] {
        assert_eq!(found(&store, 1, 10, absent).await, None);
    }
}

pub async fn a_key_is_known_for_seven_days<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let store = subject.store();
    store
        .append(vec![
            script.group(1, "g", &[10]),
            script.group(2, "h", &[10]),
        ])
        .await
        .unwrap();
    let start_ms = script.clock_ms;
    store
        .append(vec![script.message(1, 10, 1, "old")])
        .await
        .unwrap();
    script.clock_ms = start_ms + KEY_WINDOW_MS;
    store
        .append(vec![script.message(1, 10, 2, "seven days later")])
        .await
        .unwrap();
    // A channel's window is its own: what happens elsewhere, or to the clock, forgets nothing.
    script.clock_ms = start_ms + 10 * KEY_WINDOW_MS;
    store
        .append(vec![script.message(2, 10, 1, "much later")])
        .await
        .unwrap();
    drop(store);
    subject = subject.crash().await;
    let store = subject.store();
    assert_eq!(found(&store, 1, 10, key(1)).await, Some(2));

    script.clock_ms = start_ms + KEY_WINDOW_MS + 1;
    store.append(vec![script.unknown(1, 10)]).await.unwrap();
    drop(store);
    for _ in 0..2 {
        let store = subject.store();
        assert_eq!(found(&store, 1, 10, key(1)).await, None);
        assert_eq!(found(&store, 1, 10, key(2)).await, Some(3));
        drop(store);
        subject = subject.crash().await;
    }
}

pub async fn an_old_key_may_name_a_new_message<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let store = subject.store();
    store
        .append(vec![
            script.group(1, "g", &[10]),
            script.message(1, 10, 1, "old"),
        ])
        .await
        .unwrap();
    script.clock_ms += KEY_WINDOW_MS + 1;
    store.append(vec![script.unknown(1, 10)]).await.unwrap();
    store
        .append(vec![script.message(1, 10, 1, "new")])
        .await
        .unwrap();
    drop(store);
    for _ in 0..2 {
        let store = subject.store();
        assert_eq!(found(&store, 1, 10, key(1)).await, Some(4));
        drop(store);
        subject = subject.crash().await;
    }
}

pub async fn keys_survive_a_crash_and_a_long_channel<S: Subject>(open: impl AsyncFn() -> S) {
    const MESSAGES: u64 = 3_000;
    let mut subject = open().await;
    let mut script = Script::new();
    let mut batch = vec![script.group(1, "g", &[10, 11])];
    for number in 0..MESSAGES {
        batch.push(script.message(1, 10 + number % 2, number, "x"));
        if batch.len() >= 250 {
            subject
                .store()
                .append(std::mem::take(&mut batch))
                .await
                .unwrap();
        }
    }
    subject.store().append(batch).await.unwrap();
    for crashed in [true, false] {
        let store = subject.store();
        for number in (0..MESSAGES).step_by(97).chain([MESSAGES - 1]) {
            let seq = found(&store, 1, 10 + number % 2, key(number)).await;
            assert_eq!(seq, Some(number as u32 + 2));
            assert_eq!(found(&store, 1, 11 - number % 2, key(number)).await, None);
        }
        drop(store);
        subject = if crashed {
            subject.crash().await
        } else {
            subject.restart().await
        };
    }
}
