//! The checks, by what they are about. Every `pub async fn` is one sentence of the contract and stands in the list of
//! [`crate::for_each_store_check!`] (a test compares).

pub mod channels;
pub mod durability;
pub mod events;
pub mod inbox;
pub mod keys;
pub mod members;

use std::sync::Arc;

use conch_wire::{ChannelId, UserId};

use crate::contract::{InboxPage, InboxQuery, MessageStore, Range, ReadLimit};
use crate::row::{ChannelSnapshot, EventRow, MemberRow, Record};
use crate::{InboxRow, Lsn};

/// Short words for what checks do all the time, over any store.
struct Client(Arc<dyn MessageStore>);

impl Client {
    /// Appends one batch and waits; the lsn of its first record.
    async fn append(&self, batch: impl Into<Vec<Record>>) -> Lsn {
        self.0
            .append(batch.into())
            .await
            .expect("a healthy store appends")
            .first
    }

    async fn channel(&self, channel: u64) -> ChannelSnapshot {
        let loaded = self.0.load_channel(ChannelId(channel), 1_000, 1_000).await;
        loaded.unwrap().expect("the channel was created")
    }

    async fn page(&self, channel: u64, range: Range, limit: ReadLimit) -> Vec<EventRow> {
        self.0
            .read_events(ChannelId(channel), range, limit)
            .await
            .unwrap()
    }

    async fn all(&self, channel: u64) -> Vec<EventRow> {
        let range = Range {
            from: 0,
            to: u32::MAX,
            newest_first: false,
        };
        let limit = ReadLimit {
            events: usize::MAX,
            bytes: usize::MAX,
        };
        self.page(channel, range, limit).await
    }

    async fn member(&self, channel: u64, user: u64) -> Option<MemberRow> {
        self.0
            .member(ChannelId(channel), UserId(user))
            .await
            .unwrap()
    }

    async fn inbox(&self, user: u64, query: InboxQuery, rows_max: usize) -> InboxPage {
        self.0.inbox(UserId(user), query, rows_max).await.unwrap()
    }

    async fn inbox_row(&self, user: u64, channel: u64) -> Option<InboxRow> {
        self.0
            .inbox_row(UserId(user), ChannelId(channel))
            .await
            .unwrap()
    }

    async fn position(&self, user: u64) -> u64 {
        self.0.inbox_position(UserId(user)).await.unwrap()
    }
}

/// The event of a record.
fn row(record: &Record) -> &EventRow {
    match record {
        Record::Event(row) => row,
        _ => unreachable!("the check wrote an event"),
    }
}
