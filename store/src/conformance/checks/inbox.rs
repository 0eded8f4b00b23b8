//! Which channels of a user have changed, and since when.

use conch_wire::{ChannelId, UserId};

use super::{Client, row};
use crate::InboxRow;
use crate::conformance::Subject;
use crate::conformance::script::Script;
use crate::contract::InboxQuery;
use crate::row::{Head, Record};

fn channels(rows: &[InboxRow]) -> Vec<u64> {
    rows.iter().map(|row| row.channel.0).collect()
}

pub async fn an_event_touches_all_present_members<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    assert_eq!(client.append([script.group(1, "g", &[10, 11])]).await, 1);
    assert_eq!(client.append([script.join(1, 10, 12)]).await, 2);
    assert_eq!(client.append([script.message(1, 11, 1, "x")]).await, 3);
    assert_eq!(client.append([script.leave(1, 12)]).await, 4);
    assert_eq!(client.append([script.message(1, 11, 2, "x")]).await, 5);
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        for (user, position) in [(10, 5), (11, 5), (12, 4), (13, 0)] {
            assert_eq!(client.position(user).await, position, "user {user}");
        }
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn a_mark_touches_its_readers_inbox_only<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10, 11]),
            script.message(1, 10, 1, "x"),
        ])
        .await;
    assert_eq!(client.append([script.mark(1, 11, 2)]).await, 3);
    assert_eq!(client.append([script.mark(1, 11, 1)]).await, 4);
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        assert_eq!(
            (client.position(10).await, client.position(11).await),
            (2, 4)
        );
        let row = client.inbox_row(11, 1).await.unwrap();
        assert_eq!((row.position, row.member.read_seq, row.head.seq), (4, 2, 2));
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn other_records_touch_nothing<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    client
        .append([script.direct(1, 10, 11), script.message(1, 10, 1, "x")])
        .await;
    let block = Record::IdBlock { space: 0, end: 9 };
    client
        .append([script.pair(10, 11, 1), block, script.erasure(1, 2)])
        .await;
    assert_eq!(
        (client.position(10).await, client.position(11).await),
        (2, 2)
    );
}

pub async fn positions_are_those_of_the_records<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let batch = [
        script.group(1, "g", &[10, 11]),
        script.group(2, "g", &[10]),
        script.message(1, 10, 1, "x"),
        script.group(3, "g", &[10, 11]),
        script.message(2, 10, 1, "x"),
    ];
    Client(subject.store()).append(batch).await;
    for _ in 0..2 {
        let client = Client(subject.store());
        for (user, channel, position) in
            [(10, 1, 3), (10, 2, 5), (10, 3, 4), (11, 1, 3), (11, 3, 4)]
        {
            assert_eq!(
                client.inbox_row(user, channel).await.unwrap().position,
                position
            );
        }
        assert_eq!(client.inbox_row(11, 2).await, None);
        drop(client);
        subject = subject.crash().await;
    }
}

/// Channels 1..=6 of user 10, touched last in the order 5, 1, 3, 6, 2, 4 at positions 13..=18.
async fn touched_in_disorder(client: &Client) {
    let mut script = Script::new();
    let created: Vec<Record> = (1..=6)
        .map(|channel| script.group(channel, "g", &[10, 11]))
        .collect();
    client.append(created).await;
    let earlier: Vec<Record> = (1..=6)
        .map(|channel| script.message(channel, 11, 1, "x"))
        .collect();
    client.append(earlier).await;
    for channel in [5, 1, 3, 6, 2, 4] {
        client.append([script.message(channel, 11, 2, "x")]).await;
    }
}

pub async fn changes_are_listed_ascending<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    touched_in_disorder(&Client(subject.store())).await;
    for _ in 0..2 {
        let client = Client(subject.store());
        let since = async |position| client.inbox(10, InboxQuery::After(position), 100).await;
        let all = since(0).await;
        assert_eq!(channels(&all.rows), [5, 1, 3, 6, 2, 4]);
        let positions: Vec<u64> = all.rows.iter().map(|row| row.position).collect();
        assert_eq!(positions, [13, 14, 15, 16, 17, 18]);
        assert!(!all.more);
        assert_eq!(channels(&since(12).await.rows), [5, 1, 3, 6, 2, 4]);
        assert_eq!(channels(&since(15).await.rows), [6, 2, 4]);
        assert!(since(18).await.rows.is_empty());
        assert!(since(u64::MAX).await.rows.is_empty());
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn a_listing_goes_newest_first<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    touched_in_disorder(&Client(subject.store())).await;
    for _ in 0..2 {
        let client = Client(subject.store());
        let until = async |position| {
            client
                .inbox(10, InboxQuery::AtOrBefore(position), 100)
                .await
        };
        assert_eq!(channels(&until(u64::MAX).await.rows), [4, 2, 6, 3, 1, 5]);
        assert_eq!(channels(&until(18).await.rows), [4, 2, 6, 3, 1, 5]);
        assert_eq!(
            channels(&until(15).await.rows),
            [3, 1, 5],
            "touched later: not listed"
        );
        assert!(until(12).await.rows.is_empty());
        assert!(until(0).await.rows.is_empty());
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn pages_continue_where_they_ended<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    touched_in_disorder(&client).await;
    for (rows_max, pages) in [(1, 6), (2, 3), (4, 2), (6, 1), (7, 1)] {
        let mut position = 0;
        let mut listed = Vec::new();
        for page_number in 1..=pages {
            let page = client
                .inbox(10, InboxQuery::After(position), rows_max)
                .await;
            assert_eq!(
                page.more,
                page_number < pages,
                "{rows_max} rows a page, page {page_number}"
            );
            position = page.rows.last().unwrap().position;
            listed.extend(channels(&page.rows));
        }
        assert_eq!(listed, [5, 1, 3, 6, 2, 4]);

        let mut position = u64::MAX;
        let mut listed = Vec::new();
        for page_number in 1..=pages {
            let page = client
                .inbox(10, InboxQuery::AtOrBefore(position), rows_max)
                .await;
            assert_eq!(page.more, page_number < pages);
            position = page.rows.last().unwrap().position - 1;
            listed.extend(channels(&page.rows));
        }
        assert_eq!(listed, [4, 2, 6, 3, 1, 5]);
    }
}

pub async fn rows_read_follow_the_changes<S: Subject>(open: impl AsyncFn() -> S) {
    const JOINED: u64 = 600;
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    let created: Vec<Record> = (1..=JOINED)
        .map(|channel| script.direct(channel, 10, 1_000 + channel))
        .collect();
    let position = client.append(created).await + JOINED - 1;
    for number in 0..200 {
        let busy = [3, 70, 500].map(|channel| script.message(channel, 10, number, "x"));
        client.append(busy).await;
    }
    drop(client);
    for crashed in [true, false] {
        let client = Client(subject.store());
        let page = client.inbox(10, InboxQuery::After(position), 100).await;
        assert_eq!(channels(&page.rows), [3, 70, 500]);
        assert!(page.rows_read >= 3, "what is returned was read");
        assert!(
            page.rows_read <= 2 * 3 + 2,
            "{} rows read for 3 changes",
            page.rows_read
        );
        let newest = client.inbox(10, InboxQuery::AtOrBefore(u64::MAX), 5).await;
        assert_eq!(newest.rows.len(), 5);
        assert!(
            newest.rows_read <= 2 * 5 + 2,
            "{} rows read for 5",
            newest.rows_read
        );
        drop(client);
        subject = if crashed {
            subject.crash().await
        } else {
            subject.restart().await
        };
    }
}

pub async fn leaving_is_the_last_touch_and_clips_the_head<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10, 11]),
            script.message(1, 10, 1, "x"),
        ])
        .await;
    let leave = script.leave(1, 11);
    let left_at = client.append([leave.clone()]).await;
    let later: Vec<Record> = (2..40)
        .map(|number| script.message(1, 10, number, "unseen"))
        .collect();
    client.append(later).await;
    drop(client);
    let clipped = Head {
        seq: 3,
        ordinal: 1,
        created_ms: row(&leave).created_ms,
    };
    for _ in 0..2 {
        let client = Client(subject.store());
        let gone = client.inbox_row(11, 1).await.unwrap();
        assert_eq!((gone.position, gone.head), (left_at, clipped));
        assert_eq!(gone.member.left_seq, Some(3));
        let listed = client.inbox(11, InboxQuery::After(left_at - 1), 10).await;
        assert_eq!(listed.rows, [gone]);
        assert!(
            client
                .inbox(11, InboxQuery::After(left_at), 10)
                .await
                .rows
                .is_empty()
        );
        assert_eq!(
            client.inbox_row(10, 1).await.unwrap().head.seq,
            script.head(1)
        );
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn joining_again_brings_the_channel_back<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([script.group(1, "g", &[10, 11]), script.leave(1, 11)])
        .await;
    client.append([script.message(1, 10, 1, "unseen")]).await;
    let back = client.append([script.join(1, 10, 11)]).await;
    let row = client.inbox_row(11, 1).await.unwrap();
    assert_eq!(
        (row.position, row.head.seq, row.member.left_seq),
        (back, 4, None)
    );
    let message = client.append([script.message(1, 10, 2, "seen")]).await;
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        let row = client.inbox_row(11, 1).await.unwrap();
        assert_eq!(
            (row.position, row.head.seq, row.head.ordinal),
            (message, 5, 2)
        );
        assert_eq!(row.member.read_ordinal, 1);
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn direct_channels_name_the_peer<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    Client(subject.store())
        .append([script.direct(1, 10, 11), script.group(2, "g", &[10, 11])])
        .await;
    for _ in 0..2 {
        let client = Client(subject.store());
        let peer = async |user, channel| client.inbox_row(user, channel).await.unwrap().peer;
        assert_eq!(peer(10, 1).await, Some(UserId(11)));
        assert_eq!(peer(11, 1).await, Some(UserId(10)));
        assert_eq!(peer(10, 2).await, None, "only direct channels have one");
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn the_inbox_survives_a_crash<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let client = Client(subject.store());
    touched_in_disorder(&client).await;
    client.append([Script::new().mark(5, 10, 3)]).await;
    let before = client.inbox(10, InboxQuery::After(0), 100).await.rows;
    assert_eq!(before.last().map(|row| row.channel), Some(ChannelId(5)));
    drop(client);
    for crashed in [true, false, true] {
        subject = if crashed {
            subject.crash().await
        } else {
            subject.restart().await
        };
        let client = Client(subject.store());
        assert_eq!(
            client.inbox(10, InboxQuery::After(0), 100).await.rows,
            before
        );
        assert_eq!(client.position(10).await, 19);
    }
}
