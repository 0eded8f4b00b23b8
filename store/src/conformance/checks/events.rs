//! Event rows, pages and erasures.

use conch_wire::{ChannelId, UserId};

use super::{Client, row};
use crate::conformance::Subject;
use crate::conformance::script::{Script, key};
use crate::contract::{Range, ReadLimit};
use crate::memory::ERASED_BODY_BYTES;
use crate::row::{EventRow, Record};

const MUCH: ReadLimit = ReadLimit {
    events: 1_000_000,
    bytes: 1 << 30,
};

fn seqs(page: &[EventRow]) -> Vec<u32> {
    page.iter().map(|event| event.seq).collect()
}

fn oldest(from: u32, to: u32) -> Range {
    Range {
        from,
        to,
        newest_first: false,
    }
}

fn newest(from: u32, to: u32) -> Range {
    Range {
        from,
        to,
        newest_first: true,
    }
}

pub async fn an_event_comes_back_whole<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let created = script.group(u64::MAX >> 1, "g", &[10]);
    script.epoch = 7;
    script.clock_ms += 86_400_000;
    let message = script.message(u64::MAX >> 1, 10, 1, "ünï𝄞\0");
    let empty = script.message(u64::MAX >> 1, 10, 2, "");
    let written = vec![created, message, empty];
    Client(subject.store()).append(written.clone()).await;
    for _ in 0..2 {
        let read = Client(subject.store()).all(u64::MAX >> 1).await;
        assert_eq!(
            read.into_iter().map(Record::Event).collect::<Vec<_>>(),
            written
        );
        subject = subject.crash().await;
    }
}

pub async fn pages_are_ascending_and_bounded<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let mut batch = vec![script.group(1, "g", &[10])];
    batch.extend((2..=20).map(|number| script.message(1, 10, number, "0123456789")));
    Client(subject.store()).append(batch).await;
    for _ in 0..2 {
        let client = Client(subject.store());
        let three = ReadLimit {
            events: 3,
            bytes: 1 << 20,
        };
        assert_eq!(
            seqs(&client.page(1, oldest(5, 9), MUCH).await),
            [5, 6, 7, 8, 9]
        );
        assert_eq!(
            seqs(&client.page(1, newest(5, 9), MUCH).await),
            [5, 6, 7, 8, 9]
        );
        assert_eq!(seqs(&client.page(1, oldest(5, 9), three).await), [5, 6, 7]);
        assert_eq!(seqs(&client.page(1, newest(5, 9), three).await), [7, 8, 9]);
        assert_eq!(
            seqs(&client.page(1, newest(0, u32::MAX), three).await),
            [18, 19, 20]
        );
        assert_eq!(seqs(&client.page(1, oldest(0, 2), MUCH).await), [1, 2]);
        assert_eq!(seqs(&client.page(1, oldest(20, 20), MUCH).await), [20]);
        assert!(client.page(1, oldest(21, 30), MUCH).await.is_empty());
        assert!(client.page(1, oldest(9, 5), MUCH).await.is_empty());
        assert!(client.page(1, newest(9, 5), MUCH).await.is_empty());
        assert!(client.page(2, oldest(0, u32::MAX), MUCH).await.is_empty());
        // Bodies of 30 bytes each: 89 hold two, 90 hold three.
        let bytes = |bytes| ReadLimit { events: 100, bytes };
        assert_eq!(
            seqs(&client.page(1, oldest(2, 20), bytes(89)).await),
            [2, 3]
        );
        assert_eq!(
            seqs(&client.page(1, oldest(2, 20), bytes(90)).await),
            [2, 3, 4]
        );
        assert_eq!(
            seqs(&client.page(1, newest(2, 20), bytes(89)).await),
            [19, 20]
        );
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn a_page_holds_at_least_one_event<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    let long = "x".repeat(5_000);
    client
        .append([script.group(1, "g", &[10]), script.message(1, 10, 1, &long)])
        .await;
    client.append([script.message(1, 10, 2, "short")]).await;
    let tight = ReadLimit {
        events: 10,
        bytes: 1,
    };
    assert_eq!(seqs(&client.page(1, oldest(2, 3), tight).await), [2]);
    assert_eq!(seqs(&client.page(1, newest(1, 2), tight).await), [2]);
}

pub async fn pages_cross_buckets<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    Client(subject.store())
        .append([script.group(1, "g", &[10])])
        .await;
    let mut number = 1;
    while number < 2_100 {
        let batch: Vec<Record> = (number..number + 70)
            .map(|n| script.message(1, 10, n, "m"))
            .collect();
        number += 70;
        Client(subject.store()).append(batch).await;
    }
    let last = script.head(1);
    for _ in 0..2 {
        let client = Client(subject.store());
        assert_eq!(seqs(&client.all(1).await), (1..=last).collect::<Vec<_>>());
        for edge in [1_024, 2_048] {
            let around = client.page(1, oldest(edge - 3, edge + 3), MUCH).await;
            assert_eq!(seqs(&around), (edge - 3..=edge + 3).collect::<Vec<_>>());
            let few = ReadLimit {
                events: 4,
                bytes: 1 << 20,
            };
            let before = client.page(1, newest(1, edge + 1), few).await;
            assert_eq!(seqs(&before), [edge - 2, edge - 1, edge, edge + 1]);
        }
        let tail = client
            .0
            .load_channel(ChannelId(1), 1_500, 0)
            .await
            .unwrap()
            .unwrap()
            .tail;
        assert_eq!(seqs(&tail), (last - 1_499..=last).collect::<Vec<_>>());
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn large_bodies_come_back<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let texts = [
        "a".repeat(16_384),
        "b".repeat(100_000),
        "c".repeat(400_000),
        "d".into(),
    ];
    let mut batch = vec![script.group(1, "g", &[10])];
    for (number, text) in texts.iter().enumerate() {
        batch.push(script.message(1, 10, number as u64, text));
    }
    Client(subject.store()).append(batch.clone()).await;
    for _ in 0..2 {
        let read = Client(subject.store()).all(1).await;
        assert!(
            read.into_iter()
                .map(Record::Event)
                .eq(batch.iter().cloned())
        );
        subject = subject.crash().await;
    }
}

pub async fn channels_do_not_mix<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    // Ids that share high or low bytes, so that a careless key order shows.
    let channels = [1, 2, 256, 257, 65_536, (1 << 62) + 1, 1 << 32];
    let mut batch = Vec::new();
    for channel in channels {
        batch.push(script.group(channel, "g", &[10]));
    }
    for number in 0..5 {
        for channel in channels {
            batch.push(script.message(channel, 10, number, &format!("{channel}/{number}")));
        }
    }
    Client(subject.store()).append(batch.clone()).await;
    for _ in 0..2 {
        for channel in channels {
            let own = batch
                .iter()
                .map(row)
                .filter(|event| event.channel.0 == channel)
                .cloned();
            assert_eq!(
                Client(subject.store()).all(channel).await,
                own.collect::<Vec<_>>()
            );
        }
        subject = subject.crash().await;
    }
}

pub async fn an_erasure_leaves_the_header_for_good<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10]),
            script.message(1, 10, 1, "a secret"),
        ])
        .await;
    let written = client.all(1).await.remove(1);
    let erased = EventRow {
        body: written.body.slice(..ERASED_BODY_BYTES),
        ..written
    };
    client.append([script.erasure(1, 2)]).await;
    // Twice, and beside the message of the same batch: the first says it all.
    client
        .append([
            script.erasure(1, 2),
            script.message(1, 10, 2, "x"),
            script.erasure(1, 3),
        ])
        .await;
    drop(client);
    for _ in 0..3 {
        let client = Client(subject.store());
        assert_eq!(client.all(1).await[1], erased);
        assert_eq!(client.channel(1).await.tail[1], erased);
        let found = client.0.find_key(ChannelId(1), UserId(10), key(1)).await;
        assert_eq!(found, Ok(Some(erased.clone())));
        assert_eq!(client.all(1).await[2].body.len(), ERASED_BODY_BYTES);
        let member = client.member(1, 10).await.unwrap();
        assert_eq!(
            (member.read_seq, client.channel(1).await.head.ordinal),
            (3, 2)
        );
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn an_erasure_of_nothing_changes_nothing<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    let created = script.group(1, "g", &[10]);
    client.append([created.clone()]).await;
    client
        .append([script.erasure(1, 2), script.erasure(5, 1)])
        .await;
    let message = script.message(1, 10, 1, "written after the erasure of its place");
    client.append([message.clone()]).await;
    drop(client);
    for _ in 0..2 {
        let read = Client(subject.store()).all(1).await;
        assert_eq!(read, [row(&created).clone(), row(&message).clone()]);
        subject = subject.crash().await;
    }
}
