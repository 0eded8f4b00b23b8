//! Who is in a channel, from where on they see it, and how far they have read.

use conch_wire::UserId;
use conch_wire::event::MemberRole;

use super::Client;
use crate::conformance::Subject;
use crate::conformance::script::{Change, Script};
use crate::row::MemberRow;

fn fresh(user: u64, role: MemberRole, seq: u32, ordinal: u32) -> MemberRow {
    MemberRow {
        user: UserId(user),
        role,
        joined_seq: seq,
        joined_ordinal: ordinal,
        visible_from: seq,
        left_seq: None,
        read_seq: seq - 1,
        read_ordinal: ordinal,
    }
}

pub async fn founders_see_everything<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    Client(subject.store())
        .append([Script::new().group(1, "g", &[10, 11])])
        .await;
    for _ in 0..2 {
        let client = Client(subject.store());
        assert_eq!(
            client.member(1, 10).await,
            Some(fresh(10, MemberRole::Owner, 1, 0))
        );
        assert_eq!(
            client.member(1, 11).await,
            Some(fresh(11, MemberRole::Member, 1, 0))
        );
        assert_eq!(client.member(1, 12).await, None);
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn joining_starts_at_its_own_event<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([script.group(1, "g", &[10]), script.message(1, 10, 1, "x")])
        .await;
    client.append([script.message(1, 10, 2, "x")]).await;
    client
        .append([script.change(1, 10, Change::new().join_as(11, MemberRole::Admin))])
        .await;
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        let row = fresh(11, MemberRole::Admin, 4, 2);
        assert_eq!(client.member(1, 11).await, Some(row.clone()));
        assert_eq!(client.channel(1).await.members[1], row);
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn leaving_keeps_the_row<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10, 11]),
            script.message(1, 11, 1, "x"),
        ])
        .await;
    let before = client.member(1, 11).await.unwrap();
    client
        .append([script.leave(1, 11), script.message(1, 10, 2, "x")])
        .await;
    drop(client);
    for _ in 0..2 {
        let left = MemberRow {
            left_seq: Some(3),
            ..before.clone()
        };
        assert_eq!(Client(subject.store()).member(1, 11).await, Some(left));
        subject = subject.crash().await;
    }
}

pub async fn joining_again_begins_anew<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10, 11]),
            script.message(1, 11, 1, "x"),
        ])
        .await;
    client
        .append([script.leave(1, 11), script.message(1, 10, 2, "unseen")])
        .await;
    client.append([script.join(1, 10, 11)]).await;
    drop(client);
    for _ in 0..2 {
        let row = fresh(11, MemberRole::Member, 5, 2);
        assert_eq!(Client(subject.store()).member(1, 11).await, Some(row));
        subject = subject.crash().await;
    }
}

pub async fn joining_twice_changes_the_role_only<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10, 11]),
            script.message(1, 11, 1, "x"),
        ])
        .await;
    let before = client.member(1, 11).await.unwrap();
    client
        .append([script.change(1, 10, Change::new().join_as(11, MemberRole::Admin))])
        .await;
    drop(client);
    for _ in 0..2 {
        let promoted = MemberRow {
            role: MemberRole::Admin,
            ..before.clone()
        };
        assert_eq!(Client(subject.store()).member(1, 11).await, Some(promoted));
        subject = subject.crash().await;
    }
}

pub async fn leaving_without_being_there_changes_nothing<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    client
        .append([script.group(1, "g", &[10, 11]), script.leave(1, 11)])
        .await;
    let position = client.position(11).await;
    client
        .append([script.leave(1, 11), script.leave(1, 12)])
        .await;
    assert_eq!(client.member(1, 11).await.unwrap().left_seq, Some(2));
    assert_eq!(client.member(1, 12).await, None);
    assert_eq!(
        (client.position(11).await, client.position(12).await),
        (position, 0)
    );
}

pub async fn changes_of_one_event_apply_in_order<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client.append([script.group(1, "g", &[10, 11, 12])]).await;
    let change = Change::new()
        .leave(11)
        .join(11)
        .join(13)
        .leave(13)
        .leave(12)
        .join(14);
    client.append([script.change(1, 10, change)]).await;
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        assert_eq!(
            client.member(1, 11).await,
            Some(fresh(11, MemberRole::Member, 2, 0))
        );
        assert_eq!(client.member(1, 13).await.unwrap().left_seq, Some(2));
        assert_eq!(client.member(1, 12).await.unwrap().left_seq, Some(2));
        assert_eq!(
            client.member(1, 14).await,
            Some(fresh(14, MemberRole::Member, 2, 0))
        );
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn a_message_moves_its_authors_mark<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10, 11]),
            script.message(1, 10, 1, "x"),
        ])
        .await;
    client
        .append([script.message(1, 11, 1, "x"), script.message(1, 10, 2, "x")])
        .await;
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        let mark = async |user| {
            let row = client.member(1, user).await.unwrap();
            (row.read_seq, row.read_ordinal)
        };
        assert_eq!((mark(10).await, mark(11).await), ((4, 3), (3, 2)));
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn only_messages_of_present_members_move_marks<S: Subject>(open: impl AsyncFn() -> S) {
    let subject = open().await;
    let client = Client(subject.store());
    let mut script = Script::new();
    client
        .append([script.group(1, "g", &[10, 11, 12]), script.leave(1, 12)])
        .await;
    client
        .append([script.unknown(1, 10), script.join(1, 10, 13)])
        .await;
    assert_eq!(client.member(1, 10).await.unwrap().read_seq, 0);
    // The router refuses both; what is in the log all the same must not make marks up.
    client
        .append([
            script.message(1, 12, 1, "left"),
            script.message(1, 99, 1, "never in"),
        ])
        .await;
    assert_eq!(client.member(1, 12).await.unwrap().read_seq, 0);
    assert_eq!(client.member(1, 99).await, None);
    assert_eq!(client.channel(1).await.head.ordinal, 2);
}

pub async fn a_mark_takes_the_maximum<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    let mut batch = vec![script.group(1, "g", &[10, 11, 12])];
    batch.extend((1..=6).map(|number| script.message(1, 10, number, "x")));
    batch.push(script.leave(1, 12));
    client.append(batch).await;
    client.append([script.mark(1, 11, 5)]).await;
    client
        .append([
            script.mark(1, 11, 3),
            script.mark(1, 10, 2),
            script.mark(1, 12, 4),
        ])
        .await;
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        let mark = async |user| {
            let row = client.member(1, user).await.unwrap();
            (row.read_seq, row.read_ordinal)
        };
        assert_eq!(mark(11).await, (5, 4), "marks never move back");
        assert_eq!(mark(10).await, (7, 6), "not below one's own message either");
        assert_eq!(
            mark(12).await,
            (4, 3),
            "a former member may still read what was theirs"
        );
        drop(client);
        subject = subject.crash().await;
    }
}

pub async fn a_mark_of_a_stranger_changes_nothing<S: Subject>(open: impl AsyncFn() -> S) {
    let mut subject = open().await;
    let mut script = Script::new();
    let client = Client(subject.store());
    client
        .append([
            script.group(1, "g", &[10]),
            script.mark(1, 99, 1),
            script.mark(7, 10, 1),
        ])
        .await;
    drop(client);
    for _ in 0..2 {
        let client = Client(subject.store());
        assert_eq!(client.member(1, 99).await, None);
        assert_eq!(
            (client.position(99).await, client.position(10).await),
            (0, 1)
        );
        assert_eq!(client.member(7, 10).await, None);
        drop(client);
        subject = subject.crash().await;
    }
}
