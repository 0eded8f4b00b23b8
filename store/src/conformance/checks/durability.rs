//! Durable first, in order, derived in the same instant, there after a crash.

use std::collections::BTreeSet;

use conch_wire::{ChannelId, UserId};

use super::Client;
use crate::conformance::Subject;
use crate::conformance::compare::expect_same;
use crate::conformance::script::{Script, key};
use crate::contract::{AppendError, InboxQuery, ReadError};
use crate::row::Record;

pub async fn what_an_append_resolved_is_visible<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    let batch = vec![
        script.group(1, "g", &[10, 11]),
        script.message(1, 10, 1, "hello"),
        script.mark(1, 11, 2),
        script.pair(10, 11, 1),
        Record::IdBlock { space: 3, end: 512 },
    ];
    client.append(batch.clone()).await;
    expect_same(&*client.0, &batch).await;
}

pub async fn records_have_dense_positions_from_one<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    assert_eq!(client.append([script.group(1, "g", &[10])]).await, 1);
    assert_eq!(
        client
            .append([script.mark(1, 10, 1), script.pair(10, 10, 1)])
            .await,
        2
    );
    assert_eq!(
        client.append([Record::IdBlock { space: 0, end: 1 }]).await,
        4
    );
    assert_eq!(client.append([script.erasure(1, 1)]).await, 5);
    assert_eq!(client.append([script.unknown(1, 10)]).await, 6);
}

pub async fn batches_become_durable_in_the_order_of_their_calls<S: Subject>(
    open: impl AsyncFn() -> S,
) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    let mut waiting = Vec::new();
    let mut records = Vec::new();
    for channel in 1..=40 {
        let batch = vec![
            script.group(channel, "g", &[10]),
            script.message(channel, 10, 1, "x"),
        ];
        records.extend(batch.clone());
        waiting.push(client.0.append(batch));
    }
    // Only the last is waited for: everything called before it is durable with it.
    let last = waiting.pop().unwrap().await.unwrap();
    assert_eq!(last.first, 79);
    expect_same(&*client.0, &records).await;
    for (batch, waiting) in waiting.into_iter().enumerate() {
        assert_eq!(waiting.await.unwrap().first, 1 + 2 * batch as u64);
    }
}

pub async fn a_dropped_append_is_stored_all_the_same<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    let first = script.group(1, "g", &[10]);
    drop(client.0.append(vec![first.clone()]));
    let second = script.message(1, 10, 1, "after");
    assert_eq!(client.append([second.clone()]).await, 2);
    expect_same(&*client.0, &[first, second]).await;
}

/// A little of everything, in four batches.
fn busy_day() -> Vec<Vec<Record>> {
    let mut script = Script::new();
    vec![
        vec![
            script.group(1, "g", &[10, 11, 12]),
            script.direct(2, 10, 11),
        ],
        vec![
            script.message(1, 10, 1, "one"),
            script.message(2, 11, 1, "two"),
            script.mark(1, 11, 2),
        ],
        vec![
            script.leave(1, 12),
            script.message(1, 11, 2, "three"),
            script.pair(10, 11, 2),
        ],
        vec![
            script.erasure(1, 2),
            Record::IdBlock { space: 1, end: 99 },
            script.join(1, 10, 12),
        ],
    ]
}

pub async fn a_crash_loses_nothing_acknowledged<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut records = Vec::new();
    for batch in busy_day() {
        records.extend(batch.clone());
        subject.store().append(batch).await.unwrap();
        subject = subject.crash().await;
        expect_same(&*subject.store(), &records).await;
    }
}

pub async fn a_restart_loses_nothing_acknowledged<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut records = Vec::new();
    for batch in busy_day() {
        records.extend(batch.clone());
        subject.store().append(batch).await.unwrap();
        subject = subject.restart().await;
        expect_same(&*subject.store(), &records).await;
    }
}

pub async fn positions_go_on_after_a_crash<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    subject
        .store()
        .append(vec![script.group(1, "g", &[10])])
        .await
        .unwrap();
    for lsn in 2..=5 {
        let crashed = lsn % 2 == 0;
        subject = if crashed {
            subject.crash().await
        } else {
            subject.restart().await
        };
        let client = Client(subject.store());
        assert_eq!(client.append([script.message(1, 10, lsn, "x")]).await, lsn);
        assert_eq!(client.position(10).await, lsn);
    }
}

pub async fn several_crashes_in_a_row_change_nothing<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let records = busy_day().concat();
    subject.store().append(records.clone()).await.unwrap();
    for _ in 0..4 {
        subject = subject.crash().await;
    }
    expect_same(&*subject.store(), &records).await;
}

pub async fn facts_of_the_store_survive_and_the_epoch_rises<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let first = subject.store().identity();
    assert_ne!(first.generation, 0);
    assert!(first.epoch >= 1);
    let mut epoch = first.epoch;
    for crashed in [true, false, true, true] {
        subject = if crashed {
            subject.crash().await
        } else {
            subject.restart().await
        };
        let now = subject.store().identity();
        assert!(now.epoch > epoch, "the epoch rises at every start");
        epoch = now.epoch;
        assert_eq!(
            (now.generation, now.id_key),
            (first.generation, first.id_key)
        );
        assert_eq!(now.inbox_incarnation, first.inbox_incarnation);
    }
}

pub async fn closing_settles_what_was_taken_and_takes_no_more<S: Subject>(
    open: impl AsyncFn() -> S,
) {
    let subject = open().await;
    let store = subject.store();
    let mut script = Script::new();
    let taken = vec![script.group(1, "g", &[10]), script.message(1, 10, 1, "x")];
    let waiting = store.append(taken.clone());
    store.close().await;
    assert_eq!(waiting.await.unwrap().first, 1);
    let late = store.append(vec![script.message(1, 10, 2, "late")]).await;
    assert_eq!(late, Err(AppendError::Closed));
    assert_eq!(
        store.inbox_position(UserId(10)).await,
        Err(ReadError::Closed)
    );
    drop(store);
    expect_same(&*subject.restart().await.store(), &taken).await;
}

pub async fn concurrent_writers_all_get_their_own_places<S: Subject>(open: impl AsyncFn() -> S) {
    const WRITERS: u64 = 16;
    const BATCHES: u64 = 20;
    let subject = open().await;
    let writers: Vec<_> = (1..=WRITERS)
        .map(|channel| {
            let store = subject.store();
            tokio::spawn(async move {
                let mut script = Script::new();
                let mut places = vec![
                    store
                        .append(vec![script.group(channel, "g", &[channel])])
                        .await,
                ];
                for number in 1..BATCHES {
                    let message = script.message(channel, channel, number, "x");
                    places.push(store.append(vec![message]).await);
                    let found = store
                        .find_key(ChannelId(channel), UserId(channel), key(number))
                        .await;
                    assert!(found.unwrap().is_some(), "its writer sees it at once");
                }
                places
            })
        })
        .collect();
    let mut places = BTreeSet::new();
    for writer in writers {
        let own: Vec<u64> = writer
            .await
            .unwrap()
            .into_iter()
            .map(|p| p.unwrap().first)
            .collect();
        assert!(own.is_sorted());
        places.extend(own);
    }
    assert_eq!(places, (1..=WRITERS * BATCHES).collect());
}

pub async fn an_empty_store_answers_emptily<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let subject = subject.restart().await;
    let client = Client(subject.store());
    expect_same(&*client.0, &[]).await;
    assert_eq!(client.0.load_channel(ChannelId(1), 10, 10).await, Ok(None));
    assert!(client.all(1).await.is_empty());
    assert_eq!(client.member(1, 1).await, None);
    assert_eq!(client.position(1).await, 0);
    assert_eq!(client.inbox(1, InboxQuery::After(0), 10).await.rows, []);
    assert_eq!(client.inbox_row(1, 1).await, None);
    assert_eq!(client.0.id_block_end(0), 0);
    assert_eq!(client.0.admit(1_000), Ok(()));
}
