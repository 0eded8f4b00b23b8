//! Channel snapshots, titles, kinds nobody knows, pairs and id blocks.

use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, MessageKey, UserId};

use super::{Client, row};
use crate::conformance::Subject;
use crate::conformance::script::{Change, Script, key};
use crate::row::{ChannelMeta, Head, Record, key_hash};

pub async fn a_snapshot_holds_what_was_asked_for<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let mut batch = vec![script.group(1, "title", &[10, 11, 12])];
    batch.extend((2..=9).map(|number| script.message(1, 10, number, "x")));
    batch.push(script.leave(1, 12));
    Client(subject.store()).append(batch.clone()).await;
    let last = row(&batch[9]);
    for _ in 0..2 {
        let store = subject.store();
        for (tail, keys) in [(0, 0), (1, 0), (0, 1), (4, 3), (10, 8), (500, 500)] {
            let loaded = store
                .load_channel(ChannelId(1), tail, keys)
                .await
                .unwrap()
                .unwrap();
            let meta = ChannelMeta {
                kind: ChannelKind::Group,
                title: "title".into(),
            };
            assert_eq!(loaded.meta, meta);
            let head = Head {
                seq: 10,
                ordinal: 8,
                created_ms: last.created_ms,
            };
            assert_eq!(loaded.head, head);
            let users: Vec<u64> = loaded.members.iter().map(|member| member.user.0).collect();
            assert_eq!(users, [10, 11, 12], "former members too, by id");
            assert!(
                loaded
                    .tail
                    .iter()
                    .eq(batch.iter().map(row).skip(10 - tail.min(10)))
            );
            assert_eq!(loaded.keys.len(), keys.min(8));
        }
        assert_eq!(store.load_channel(ChannelId(2), 5, 5).await, Ok(None));
        drop(store);
        subject = subject.crash().await;
    }
}

pub async fn the_window_of_keys_holds_messages_only<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let batch = [
        script.group(1, "g", &[10, 11]),
        script.message(1, 10, 5, "x"),
        script.join(1, 10, 12),
        script.message(1, 11, 5, "x"),
        script.unknown(1, 10),
        script.message(1, 12, 6, "x"),
    ];
    Client(subject.store()).append(batch).await;
    let hash = |user, number| key_hash(UserId(user), &key(number));
    let all = [(hash(10, 5), 2), (hash(11, 5), 4), (hash(12, 6), 6)];
    for _ in 0..2 {
        let keys = async |count| {
            let loaded = subject.store().load_channel(ChannelId(1), 0, count).await;
            loaded.unwrap().unwrap().keys
        };
        assert_eq!(keys(9).await, all);
        assert_eq!(keys(2).await, all[1..], "the newest, ascending by seq");
        subject = subject.crash().await;
    }
}

pub async fn a_rename_shows_everywhere<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client.append([script.group(1, "old", &[10, 11])]).await;
    client
        .append([script.change(1, 10, Change::new().title("néw"))])
        .await;
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        assert_eq!(client.channel(1).await.meta.title, "néw");
        assert_eq!(client.inbox_row(11, 1).await.unwrap().meta.title, "néw");
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn unknown_kinds_change_nothing_else<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    client
        .append([
            script.group(1, "g", &[10, 11]),
            script.message(1, 10, 1, "x"),
        ])
        .await;
    let before = client.channel(1).await;
    let lsn = client.append([script.unknown(1, 10)]).await;
    let after = client.channel(1).await;
    assert_eq!(
        (&after.meta, &after.members, &after.keys),
        (&before.meta, &before.members, &before.keys)
    );
    assert_eq!((after.head.seq, after.head.ordinal), (3, 1));
    assert_eq!(after.tail.len(), 3);
    assert_eq!(client.position(11).await, lsn, "it still is a touch");
    let nobody = client
        .0
        .find_key(ChannelId(1), UserId(10), MessageKey::default())
        .await;
    assert_eq!(nobody, Ok(None));
}

pub async fn pairs_belong_to_the_first<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let script = Script::new();
    let client = Client(subject.store());
    client
        .append([script.pair(11, 10, 1), script.pair(10, 11, 2)])
        .await;
    client
        .append([
            script.pair(10, 11, 3),
            script.pair(12, 12, 4),
            script.pair(12, 12, 5),
        ])
        .await;
    drop(client);
    for _ in 0..2 {
        let store = subject.store();
        let pair = async |one, other| store.find_pair(UserId(one), UserId(other)).await.unwrap();
        assert_eq!(pair(10, 11).await, Some(ChannelId(1)));
        assert_eq!(pair(11, 10).await, Some(ChannelId(1)));
        assert_eq!(pair(12, 12).await, Some(ChannelId(4)));
        assert_eq!(pair(10, 12).await, None);
        assert_eq!(pair(10, 10).await, None);
        drop(store);
        subject = subject.crash().await;
    }
}

pub async fn id_blocks_take_the_maximum<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let block = |space, end| Record::IdBlock { space, end };
    let client = Client(subject.store());
    client
        .append([block(1, 100), block(2, 7), block(1, 50)])
        .await;
    assert_eq!(client.0.id_block_end(1), 100);
    client.append([block(1, 164)]).await;
    client.append([block(255, u64::MAX)]).await;
    drop(client);
    for _ in 0..2 {
        let store = subject.store();
        let ends = [0, 1, 2, 255].map(|space| store.id_block_end(space));
        assert_eq!(ends, [0, 164, 7, u64::MAX]);
        drop(store);
        subject = subject.crash().await;
    }
}
