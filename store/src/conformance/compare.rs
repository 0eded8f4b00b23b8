//! Compares everything that a store can be asked with what the memory model answers for the same records.
//!
//! The questions are taken from the records themselves (each channel, user, sender and key in them) and a few strangers.
//! What is not compared: `rows_read` and the store's identity.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use conch_wire::{ChannelId, MessageKey, UserId};

use crate::conformance::script::ScriptFold;
use crate::contract::{InboxQuery, MessageStore, Range, ReadLimit};
use crate::memory::MemoryStore;
use crate::row::Record;
use crate::{Fold, MemberChange};

/// Everything that the records name.
#[derive(Debug, Default)]
struct Universe {
    channels: BTreeSet<ChannelId>,
    users: BTreeSet<UserId>,
    keys: BTreeSet<(ChannelId, UserId, MessageKey)>,
    pairs: BTreeSet<(UserId, UserId)>,
    spaces: BTreeSet<u8>,
}

impl Universe {
    fn of(records: &[Record]) -> Universe {
        let mut all = Universe::default();
        all.channels.insert(ChannelId(999_999));
        all.users.insert(UserId(999_999));
        all.spaces.insert(254);
        all.pairs.insert((UserId(999_998), UserId(999_999)));
        for record in records {
            all.add(record);
        }
        all
    }

    fn add(&mut self, record: &Record) {
        match record {
            Record::Event(event) => {
                self.channels.insert(event.channel);
                self.users.insert(event.sender);
                self.keys.insert((event.channel, event.sender, event.key));
                for change in ScriptFold.effect(event).members {
                    let (MemberChange::Join { user, .. } | MemberChange::Leave { user }) = change;
                    self.users.insert(user);
                }
            }
            Record::ReadMark { channel, user, .. } => {
                self.channels.insert(*channel);
                self.users.insert(*user);
            }
            Record::Pair { low, high, .. } => {
                self.pairs.extend([(*low, *high), (*high, *low)]);
            }
            Record::IdBlock { space, .. } => {
                self.spaces.insert(*space);
            }
            Record::Erasure { channel, .. } => {
                self.channels.insert(*channel);
            }
        }
    }
}

/// A model that holds exactly these records.
pub fn model_of(records: &[Record]) -> MemoryStore {
    let fold: Arc<dyn Fold> = Arc::new(ScriptFold);
    let identity = MemoryStore::new(fold.clone()).identity();
    MemoryStore::replayed(fold, identity, records.to_vec())
}

/// Panics unless the store answers every question as a model with these records does.
pub async fn expect_same(store: &dyn MessageStore, records: &[Record]) {
    if let Err(difference) = compare(store, records).await {
        panic!("after {} records: {difference}", records.len());
    }
}

fn same<T: PartialEq + Debug>(question: impl Debug, store: T, model: T) -> Result<(), String> {
    if store == model {
        return Ok(());
    }
    Err(format!(
        "{question:?}\n  the store says {store:?}\n  the model says {model:?}"
    ))
}

/// The first question that the store answers otherwise than a model with these records.
pub async fn compare(store: &dyn MessageStore, records: &[Record]) -> Result<(), String> {
    let model = model_of(records);
    let all = Universe::of(records);
    for channel in &all.channels {
        compare_channel(store, &model, *channel).await?;
        for user in &all.users {
            let answers = (
                store.member(*channel, *user).await,
                model.member(*channel, *user).await,
            );
            same(("member", channel, user), answers.0, answers.1)?;
            let answers = (
                store.inbox_row(*user, *channel).await,
                model.inbox_row(*user, *channel).await,
            );
            same(("inbox_row", user, channel), answers.0, answers.1)?;
        }
    }
    for user in &all.users {
        compare_inbox(store, &model, *user, records.len() as u64).await?;
    }
    for (channel, sender, key) in &all.keys {
        let answers = (
            store.find_key(*channel, *sender, *key).await,
            model.find_key(*channel, *sender, *key).await,
        );
        same(("find_key", channel, sender, key), answers.0, answers.1)?;
    }
    for (one, other) in &all.pairs {
        let answers = (
            store.find_pair(*one, *other).await,
            model.find_pair(*one, *other).await,
        );
        same(("find_pair", one, other), answers.0, answers.1)?;
    }
    for space in &all.spaces {
        same(
            ("id_block_end", space),
            store.id_block_end(*space),
            model.id_block_end(*space),
        )?;
    }
    Ok(())
}

async fn compare_channel(
    store: &dyn MessageStore,
    model: &MemoryStore,
    channel: ChannelId,
) -> Result<(), String> {
    let mut head = 0;
    for (tail, keys) in [(0, 0), (3, 5), (10_000, 10_000)] {
        let mut loaded = store.load_channel(channel, tail, keys).await;
        let expected = model.load_channel(channel, tail, keys).await;
        if let Ok(Some(snapshot)) = &mut loaded {
            // The order of members is nobody's promise.
            snapshot.members.sort_by_key(|member| member.user);
            head = snapshot.head.seq;
        }
        same(("load_channel", channel, tail, keys), loaded, expected)?;
    }
    let middle = head / 2;
    let ranges = [
        (0, u32::MAX),
        (1, middle),
        (middle, head),
        (head, head),
        (head + 1, u32::MAX),
    ];
    let limits = [
        (usize::MAX, usize::MAX),
        (3, usize::MAX),
        (usize::MAX, 100),
        (1, 1),
    ];
    for (from, to) in ranges {
        for newest_first in [false, true] {
            for (events, bytes) in limits {
                let range = Range {
                    from,
                    to,
                    newest_first,
                };
                let limit = ReadLimit { events, bytes };
                let answers = (
                    store.read_events(channel, range, limit).await,
                    model.read_events(channel, range, limit).await,
                );
                same(("read_events", channel, range, limit), answers.0, answers.1)?;
            }
        }
    }
    Ok(())
}

async fn compare_inbox(
    store: &dyn MessageStore,
    model: &MemoryStore,
    user: UserId,
    last: u64,
) -> Result<(), String> {
    let answers = (
        store.inbox_position(user).await,
        model.inbox_position(user).await,
    );
    same(("inbox_position", user), answers.0, answers.1)?;
    for position in [
        0,
        last / 3,
        last / 2,
        last.saturating_sub(1),
        last,
        u64::MAX,
    ] {
        for query in [
            InboxQuery::After(position),
            InboxQuery::AtOrBefore(position),
        ] {
            for rows_max in [1, 3, 10_000] {
                let stored = store.inbox(user, query, rows_max).await;
                let expected = model.inbox(user, query, rows_max).await;
                let stored = stored.map(|page| (page.rows, page.more));
                let expected = expected.map(|page| (page.rows, page.more));
                same(("inbox", user, query, rows_max), stored, expected)?;
            }
        }
    }
    Ok(())
}
