//! The data folder: what was applied is there after opening it again, and one process at a time has it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use conch_wire::event::{ChannelKind, SendFlags};
use conch_wire::{Event, EventFlags, MemberRole, MessageKey, SessionId, UserId};

use super::*;
use crate::core::{
    ChannelRow, Listing, ListingPhase, Marks, Meta, OutboxItem, OutboxState, Preview,
};

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
