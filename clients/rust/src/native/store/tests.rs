//! The data folder: what was applied is there after opening it again, and one process at a time has it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use conch_wire::event::{ChannelKind, EventBody, EventMember, SendFlags};
use conch_wire::{
    Code, DeviceId, Event, EventFlags, EventKind, MemberRole, MessageKey, SessionId, UserId,
};

use super::*;
use crate::core::{
    ChannelRow, Listing, ListingPhase, Marks, Meta, OutboxItem, OutboxState, Preview, RefusalReason,
};
use crate::native::http::Member;
use crate::native::login::Account;

fn channel_row(have: Seq) -> ChannelRow {
    ChannelRow {
        channel: ChannelId((1 << 63) - 1),
        kind: ChannelKind::Group,
        title: "Harbour".to_owned(),
        peer: None,
        role: MemberRole::Admin,
        first_seq: 1,
        left_seq: Some(u32::MAX - 1),
        base: 2,
        have,
        head: 9,
        marks: Marks {
            head_seq: 9,
            head_ordinal: 8,
            read_seq: 7,
            read_ordinal: 6,
            mentions: 1,
            wanted: 8,
            uncounted: true,
        },
        last: Some(Preview {
            seq: 8,
            author: UserId(3),
            time_ms: 1_795_255_200_123,
            kind: 1,
            text: "grüß dich".to_owned(),
        }),
        informed_seq: 5,
        listed: 3,
        used: 77,
    }
}

fn message(seq: Seq) -> MessageRow {
    MessageRow {
        channel: ChannelId((1 << 63) - 1),
        event: Event {
            author: UserId(3),
            seq,
            time_ms: 1_795_255_200_123,
            kind: 1,
            flags: EventFlags::default(),
            tail: Bytes::from_static("grüß dich".as_bytes()),
        },
        key: Some(MessageKey([7; 16])),
    }
}

fn item(id: u64) -> OutboxItem {
    OutboxItem {
        id,
        channel: ChannelId(4),
        key: MessageKey([id as u8; 16]),
        kind: 1,
        flags: SendFlags::TABLE,
        tail: Bytes::from_static(b"tail"),
        created_ms: 5,
        after: Seq::MAX,
        state: OutboxState::Waiting,
    }
}

async fn open(folder: &Path) -> Store {
    let opened = Store::open(folder).await.unwrap();
    assert_eq!(opened.rebuilt, None);
    opened.store
}

#[tokio::test]
async fn what_was_applied_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let meta = Meta {
        user: Some(UserId(1)),
        generation: 7,
        session: Some(SessionId(u64::MAX >> 1)),
        sync_token: vec![1, 2, 3],
        listing: Listing {
            round: 2,
            phase: ListingPhase::Check,
        },
    };
    let store = open(folder.path()).await;
    assert_eq!(store.load().await.unwrap(), Loaded::default());
    let steps = [
        Persist::Meta(meta.clone()),
        Persist::Channel(Box::new(channel_row(4))),
        Persist::Message(message(3)),
        Persist::Message(message(4)),
        Persist::Outbox(item(2)),
        Persist::Outbox(item(1)),
        Persist::Outbox(item(3)),
        Persist::OutboxRemoved(3),
    ];
    store.apply(&steps).await.unwrap();
    store.close().await;
    drop(store);

    let store = open(folder.path()).await;
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.meta, meta);
    assert_eq!(loaded.channels, [channel_row(4)]);
    assert_eq!(loaded.outbox, [item(1), item(2)]);
    let channel = channel_row(4).channel;
    assert_eq!(
        store.newest(channel, 0, Seq::MAX, 10).await.unwrap(),
        [message(3), message(4)]
    );
    assert_eq!(store.newest(channel, 0, 3, 10).await.unwrap(), [message(3)]);
    assert_eq!(store.newest(channel, 0, 8, 1).await.unwrap(), [message(4)]);
}

#[tokio::test]
async fn forgetting_keeps_what_is_still_to_be_sent() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let steps = [
        Persist::Channel(Box::new(channel_row(3))),
        Persist::Message(message(3)),
        Persist::Outbox(item(1)),
        Persist::Forget,
    ];
    store.apply(&steps).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.channels.len(), loaded.outbox.len()), (0, 1));
}

#[tokio::test]
async fn one_process_at_a_time_has_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert!(matches!(
        Store::open(folder.path()).await,
        Err(StoreError::InUse(_))
    ));
    drop(store);
    open(folder.path()).await;
}

#[tokio::test]
async fn ends_of_messages_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let states = [
        OutboxState::Waiting,
        OutboxState::Stored {
            seq: 9,
            time_ms: 1_795_255_200_123,
        },
        OutboxState::Refused(RefusalReason::Server(Code::Forbidden)),
        OutboxState::Refused(RefusalReason::Expired),
    ];
    let items = states.map(|state| OutboxItem {
        state,
        ..item(matches!(state, OutboxState::Stored { .. }).into())
    });
    let items: Vec<_> = (1..)
        .zip(items)
        .map(|(id, it)| OutboxItem { id, ..it })
        .collect();
    let store = open(folder.path()).await;
    let steps: Vec<_> = items.iter().cloned().map(Persist::Outbox).collect();
    store.apply(&steps).await.unwrap();
    assert_eq!(store.load().await.unwrap().outbox, items);
}

#[tokio::test]
async fn trimmed_messages_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let channel = channel_row(4).channel;
    let steps = [
        Persist::Channel(Box::new(channel_row(4))),
        Persist::Message(message(2)),
        Persist::Message(message(3)),
        Persist::Message(message(4)),
        Persist::MessagesTrimmed(channel, 4),
    ];
    store.apply(&steps).await.unwrap();
    let held = store.oldest(channel, 0, Seq::MAX, 10).await.unwrap();
    assert_eq!(held, [message(4)]);
}

fn member(user: u64, role: MemberRole, joined_seq: Seq) -> Member {
    Member {
        person: Person {
            user: UserId(user),
            handle: String::new(),
            display_name: String::new(),
        },
        role,
        joined_seq,
    }
}

/// An event that changes members.
fn change(seq: Seq, kind: EventKind, users: &[u64]) -> Persist {
    let body = EventBody {
        members: users
            .iter()
            .map(|user| EventMember {
                user: UserId(*user),
                role: MemberRole::Member,
            })
            .collect(),
        ..EventBody::default()
    };
    let mut row = message(seq);
    row.event.kind = kind as u8;
    row.event.tail = body.encode().into();
    Persist::Message(row)
}

fn users(members: &[Member]) -> Vec<u64> {
    members.iter().map(|it| it.person.user.0).collect()
}

#[tokio::test]
async fn members_are_known_from_the_first_event_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let channel = channel_row(4).channel;
    let steps = [
        change(1, EventKind::ChannelCreated, &[1, 2]),
        change(2, EventKind::MembersAdded, &[3, 4]),
        change(3, EventKind::MemberRemoved, &[2]),
        change(4, EventKind::MemberLeft, &[3]),
    ];
    store.apply(&steps).await.unwrap();
    assert_eq!(users(&store.members(channel).await.unwrap()), [1, 4]);
}

#[tokio::test]
async fn list_from_the_server_is_moved_on_by_later_events_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let channel = channel_row(4).channel;
    store
        .apply(&[change(5, EventKind::MembersAdded, &[8])])
        .await
        .unwrap();
    assert!(
        store.members(channel).await.unwrap().is_empty(),
        "not a whole list"
    );
    let list = [
        member(1, MemberRole::Owner, 1),
        member(2, MemberRole::Member, 5),
    ];
    store.save_members(channel, 5, &list).await.unwrap();
    let later = [
        // Loaded late, from before the list.
        change(1, EventKind::ChannelCreated, &[1, 9]),
        change(4, EventKind::MemberLeft, &[2]),
        change(6, EventKind::MembersAdded, &[7]),
    ];
    store.apply(&later).await.unwrap();
    let members = store.members(channel).await.unwrap();
    assert_eq!(members[..2], list);
    assert_eq!(users(&members), [1, 2, 7]);
    store.apply(&[Persist::Forget]).await.unwrap();
    assert!(store.members(channel).await.unwrap().is_empty());
}

#[tokio::test]
async fn first_event_that_comes_late_begins_no_list() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let steps = [
        change(2, EventKind::MemberLeft, &[2]),
        change(1, EventKind::ChannelCreated, &[1, 2]),
    ];
    store.apply(&steps).await.unwrap();
    assert!(
        store
            .members(channel_row(4).channel)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn folder_of_the_first_version_opens() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join(DATABASE);
    let mut old = SqliteConnection::connect_with(&options(&database))
        .await
        .unwrap();
    sqlx::raw_sql(SCHEMA_STEPS[0])
        .execute(&mut old)
        .await
        .unwrap();
    let rows = "PRAGMA user_version = 1;
        INSERT INTO outbox VALUES (1, 4, x'01010101010101010101010101010101', 1, 1, x'7461696c', 5);
        INSERT INTO channels VALUES (7, 2, 'Harbour', NULL, 1, 1, NULL, 1, 4, 4, 4, 4, 0, 0, 0, 0, 0, 4, 0, 1)";
    sqlx::raw_sql(rows).execute(&mut old).await.unwrap();
    old.close().await.unwrap();

    let opened = Store::open(folder.path()).await.unwrap();
    assert_eq!(opened.rebuilt, None);
    let kept = OutboxItem {
        after: 0,
        ..item(1)
    };
    assert_eq!(opened.loaded.outbox, [kept]);
    assert_eq!(opened.loaded.channels[0].title, "Harbour");
    assert_eq!(opened.loaded.channels[0].last, None);
}

fn login() -> StoredLogin {
    StoredLogin {
        account: Account {
            user: UserId(1),
            device: DeviceId(2),
            handle: "ada".to_owned(),
            display_name: "Ada".to_owned(),
        },
        access_token: "access".to_owned(),
        expires_ms: 9,
        refresh_token: "refresh".to_owned(),
    }
}

/// A folder with a login, three unsent messages, one that only waits for its place, and many events.
async fn fill(folder: &Path) {
    let store = open(folder).await;
    store.save_login(Some(&login())).await.unwrap();
    let stored = OutboxState::Stored { seq: 9, time_ms: 9 };
    let mut steps = vec![
        Persist::Meta(Meta {
            user: Some(UserId(1)),
            generation: 7,
            session: Some(SessionId(5)),
            sync_token: vec![1],
            listing: Listing::default(),
        }),
        Persist::Outbox(item(1)),
        Persist::Outbox(item(2)),
        Persist::Outbox(OutboxItem {
            state: OutboxState::Refused(RefusalReason::Expired),
            ..item(3)
        }),
        Persist::Outbox(OutboxItem {
            state: stored,
            ..item(4)
        }),
    ];
    steps.extend((1..2_000).map(|seq| Persist::Message(message(seq))));
    store.apply(&steps).await.unwrap();
    store.close().await;
}

/// What is carried over into another database.
fn assert_carried_over(opened: &Opened) {
    let ids: Vec<_> = opened.loaded.outbox.iter().map(|item| item.id).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(opened.login.as_ref().unwrap().refresh_token, "refresh");
    let meta = &opened.loaded.meta;
    assert_eq!(
        (meta.user, meta.session),
        (Some(UserId(1)), Some(SessionId(5)))
    );
    assert!(meta.generation == 0 && meta.sync_token.is_empty());
}

#[tokio::test]
async fn damage_among_the_messages_costs_neither_login_nor_outbox() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path()).await;
    let database = folder.path().join(DATABASE);
    let mut bytes = std::fs::read(&database).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0x5a);
    std::fs::write(&database, &bytes).unwrap();

    let opened = Store::open(folder.path()).await.unwrap();
    let rebuilt = opened.rebuilt.clone().unwrap();
    assert_eq!(rebuilt.reason, RebuiltReason::Damaged);
    assert!(rebuilt.outbox_is_whole && rebuilt.login_kept && rebuilt.outbox_kept == 3);
    assert!(std::fs::read(rebuilt.set_aside.unwrap()).unwrap() == bytes);
    assert_carried_over(&opened);
}

#[tokio::test]
async fn rows_that_make_no_sense_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path()).await;
    let store = open(folder.path()).await;
    sqlx::raw_sql("UPDATE outbox SET message_key = x'00' WHERE id = 2")
        .execute(&store.pool)
        .await
        .unwrap();
    store.close().await;
    let opened = Store::open(folder.path()).await.unwrap();
    let rebuilt = opened.rebuilt.unwrap();
    assert!(!rebuilt.outbox_is_whole);
    assert_eq!(rebuilt.outbox_kept, 1, "what lies before it");
}

#[tokio::test]
async fn setting_aside_is_finished_by_the_next_program() {
    for old_is_renamed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path()).await;
        let (database, new) = (
            folder.path().join(DATABASE),
            folder.path().join("client.db.new"),
        );
        // A whole new database is there; the old one's name was, or was not, taken from it.
        let other = tempfile::tempdir().unwrap();
        fill(other.path()).await;
        std::fs::copy(other.path().join(DATABASE), &new).unwrap();
        if old_is_renamed {
            std::fs::rename(&database, folder.path().join("client.db.aside-1")).unwrap();
        } else {
            std::fs::write(&database, [0x5a; 5_000]).unwrap();
        }
        let opened = Store::open(folder.path()).await.unwrap();
        let rebuilt = opened.rebuilt.unwrap();
        assert!(
            rebuilt.login_kept && rebuilt.outbox_kept == 3,
            "{rebuilt:?}"
        );
        assert!(!new.exists());
    }
}

#[tokio::test]
async fn new_database_that_was_not_finished_is_none() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path()).await;
    std::fs::write(folder.path().join("client.db.new"), [0x5a; 5_000]).unwrap();
    let opened = Store::open(folder.path()).await.unwrap();
    assert_eq!(opened.rebuilt, None);
    assert_eq!(opened.loaded.outbox.len(), 4);
    assert!(!folder.path().join("client.db.new").exists());
}

#[tokio::test]
async fn database_that_became_empty_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path()).await;
    std::fs::write(folder.path().join(DATABASE), []).unwrap();
    let rebuilt = Store::open(folder.path()).await.unwrap().rebuilt.unwrap();
    assert_eq!(rebuilt.reason, RebuiltReason::Missing);
}

#[tokio::test]
async fn message_of_last_month_is_given_up_when_the_folder_opens() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.apply(&[Persist::Outbox(item(1))]).await.unwrap();
    store.close().await;

    let client = crate::ClientBuilder::new("http://127.0.0.1:1", folder.path());
    let client = client.open().await.unwrap();
    let outbox = client.outbox().await.unwrap();
    let expired = crate::SendState::Refused {
        reason: RefusalReason::Expired,
    };
    assert_eq!(
        outbox.iter().map(|it| it.state).collect::<Vec<_>>(),
        [expired]
    );
    client.close().await;
    let kept = open(folder.path()).await.load().await.unwrap().outbox;
    assert_eq!(kept[0].state, OutboxState::Refused(RefusalReason::Expired));
}

#[tokio::test]
async fn database_without_room_says_so_each_time_and_goes_on_when_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Store::open(folder.path()).await.unwrap();
    opened.store.pool.close().await;
    let pool = async |pages: &str| {
        let options = options(&folder.path().join(DATABASE));
        let options = options.pragma("max_page_count", pages.to_owned());
        let pool = SqlitePoolOptions::new().max_connections(1);
        pool.connect_with(options).await.unwrap()
    };
    let lock = Arc::clone(&opened.store.lock);
    let store = Store {
        pool: pool("30").await,
        lock: Arc::clone(&lock),
    };
    let large = || {
        let tail = Bytes::from(vec![b'x'; 200_000]);
        [Persist::Outbox(OutboxItem { tail, ..item(1) })]
    };
    for _ in 0..3 {
        let error = store.apply(&large()).await.unwrap_err();
        assert!(matches!(error, StoreError::Full), "{error}");
    }
    store.apply(&[Persist::Outbox(item(2))]).await.unwrap();
    store.pool.close().await;
    let store = Store {
        pool: pool("3000").await,
        lock,
    };
    store.apply(&large()).await.unwrap();
    let ids: Vec<_> = store
        .load()
        .await
        .unwrap()
        .outbox
        .iter()
        .map(|it| it.id)
        .collect();
    assert_eq!(ids, [1, 2]);
}
