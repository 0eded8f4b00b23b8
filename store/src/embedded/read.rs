//! Reads merged from the tail and the index.
//!
//! Each function takes its layers and its view of the index under one lock (so it sees one moment), and gives a
//! [`Plan`]: the answer itself when memory alone holds it, else the work for the read pool. Rows of a newer layer
//! replace those of an older one; events of the layers follow each other without a gap.
//!
//! What it does not do: threads, futures (see the parent), writing.

use std::collections::BTreeMap;
use std::sync::Arc;

use conch_wire::{ChannelId, MessageKey, Seq, UserId};

use crate::contract::{InboxPage, InboxQuery, Range, ReadLimit};
use crate::row::{ChannelSnapshot, EventRow, InboxRow, MemberRow, key_hash};
use crate::{Lsn, ReadError, metrics as names};

use super::index::write::KEY_WINDOW_MS;
use super::index::{IndexError, View};
use super::overlay::{ChannelDelta, ChannelRow, ERASED_BODY_BYTES, KeyEntry, StoredMember};
use super::page::Page;
use super::shared::Shared;
use super::tail::ChannelLayers;

type Outcome<T> = Result<T, IndexError>;

/// How a read goes on.
pub(super) enum Plan<T> {
    Ready(T),
    /// Reads the index: for the read pool.
    Blocking(Box<dyn FnOnce() -> Outcome<T> + Send>),
}

fn blocking<T>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Plan<T> {
    Plan::Blocking(Box::new(work))
}

/// One channel as of one moment.
struct ChannelRead {
    id: ChannelId,
    layers: ChannelLayers,
    view: View,
}

impl ChannelRead {
    fn new(shared: &Shared, id: ChannelId) -> Result<ChannelRead, ReadError> {
        let index = shared.index()?;
        let tail = shared.tail.layers();
        Ok(ChannelRead {
            id,
            layers: tail.channel(id),
            view: index.view(),
        })
    }

    /// Whether memory holds all of the channel: it was created after what the index holds.
    fn all_in_memory(&self) -> bool {
        self.layers.first_seq() == Some(1)
    }

    /// Last seq that only the index holds.
    fn index_last(&self) -> Seq {
        self.layers.first_seq().map_or(Seq::MAX, |first| first - 1)
    }

    fn row(&self) -> Outcome<Option<ChannelRow>> {
        match self.layers.newest() {
            Some(delta) => Ok(Some(delta.row.clone())),
            None => self.view.channel(self.id),
        }
    }

    fn member_in_memory(&self, user: UserId) -> Option<StoredMember> {
        self.layers
            .newest_first()
            .find_map(|delta| delta.members.get(&user))
            .cloned()
    }

    fn member(&self, user: UserId) -> Outcome<Option<StoredMember>> {
        match self.member_in_memory(user) {
            Some(member) => Ok(Some(member)),
            None => self.view.member(self.id, user),
        }
    }

    fn members(&self) -> Outcome<Vec<MemberRow>> {
        let mut members: BTreeMap<UserId, MemberRow> = BTreeMap::new();
        if !self.all_in_memory() {
            let stored = self.view.members(self.id)?;
            members.extend(stored.into_iter().map(|m| (m.row.user, m.row)));
        }
        for delta in [&self.layers.frozen, &self.layers.active]
            .into_iter()
            .flatten()
        {
            members.extend(delta.members.iter().map(|(user, m)| (*user, m.row.clone())));
        }
        Ok(members.into_values().collect())
    }

    /// An event as readers see it: without its content if it was erased after its layer was made.
    fn seen(&self, mut event: EventRow) -> EventRow {
        if self.layers.erased(event.seq) {
            event.body.truncate(ERASED_BODY_BYTES);
        }
        event
    }

    fn event_in_memory(&self, seq: Seq) -> Option<EventRow> {
        let found = self
            .layers
            .newest_first()
            .find_map(|delta| Some(delta.events[delta.event_at(seq)?].clone()));
        found.map(|event| self.seen(event))
    }

    /// Puts what memory holds of the range into the page, newest layer last (or first).
    fn page_memory(&self, from: Seq, to: Seq, page: &mut Page) {
        let within = |delta: &ChannelDelta| -> std::ops::Range<usize> {
            let first = delta.events.first().map_or(Seq::MAX, |event| event.seq);
            let begin = from.saturating_sub(first) as usize;
            let end = to.checked_sub(first).map_or(0, |last| last as usize + 1);
            let end = end.min(delta.events.len());
            begin.min(end)..end
        };
        let layers = self.layers.newest_first();
        if page.newest_first() {
            for delta in layers {
                for event in delta.events[within(delta)].iter().rev() {
                    if !page.push(self.seen(event.clone())) {
                        return;
                    }
                }
            }
        } else {
            let mut oldest_first: Vec<&ChannelDelta> = layers.collect();
            oldest_first.reverse();
            for delta in oldest_first {
                for event in &delta.events[within(delta)] {
                    if !page.push(self.seen(event.clone())) {
                        return;
                    }
                }
            }
        }
    }

    fn page_index(&self, from: Seq, to: Seq, page: &mut Page) -> Outcome<()> {
        let newest_first = page.newest_first();
        let mut take = |event| page.push(self.seen(event));
        self.view
            .read_rows(self.id, from, to, newest_first, &mut take)
    }

    fn page(&self, range: Range, limit: ReadLimit) -> Outcome<Page> {
        let mut page = Page::new(limit, range.newest_first);
        let index_to = range.to.min(self.index_last());
        if range.newest_first {
            self.page_memory(range.from, range.to, &mut page);
            if !page.is_full() {
                self.page_index(range.from, index_to, &mut page)?;
            }
        } else {
            self.page_index(range.from, index_to, &mut page)?;
            if !page.is_full() {
                self.page_memory(range.from, range.to, &mut page);
            }
        }
        Ok(page)
    }

    fn keys(&self, count: usize) -> Outcome<Vec<KeyEntry>> {
        let in_memory: Vec<KeyEntry> = [&self.layers.frozen, &self.layers.active]
            .into_iter()
            .flatten()
            .flat_map(|delta| delta.keys.iter().copied())
            .collect();
        let missing = count.saturating_sub(in_memory.len());
        let mut keys = Vec::new();
        if missing > 0 && !self.all_in_memory() {
            // The index may hold the frozen layer's keys already: those are not taken twice.
            let last = self.index_last();
            keys = self.view.newest_keys(self.id, count)?;
            keys.retain(|(_, seq)| *seq <= last);
            keys.drain(..keys.len().saturating_sub(missing));
        }
        keys.extend(in_memory);
        keys.drain(..keys.len().saturating_sub(count));
        Ok(keys)
    }
}

pub(super) fn load_channel(
    shared: &Shared,
    channel: ChannelId,
    tail: usize,
    keys: usize,
) -> Result<Plan<Option<ChannelSnapshot>>, ReadError> {
    let read = ChannelRead::new(shared, channel)?;
    let ready = read.all_in_memory();
    let work = move || {
        let Some(row) = read.row()? else {
            return Ok(None);
        };
        let Some(meta) = row.meta else {
            return Ok(None);
        };
        let range = Range {
            from: 1,
            to: row.head.seq,
            newest_first: true,
        };
        let limit = ReadLimit {
            events: tail,
            bytes: usize::MAX,
        };
        Ok(Some(ChannelSnapshot {
            meta,
            head: row.head,
            members: read.members()?,
            tail: if tail == 0 {
                Vec::new()
            } else {
                read.page(range, limit)?.into_rows()
            },
            keys: read.keys(keys)?,
        }))
    };
    run_or_plan(ready, work)
}

pub(super) fn read_events(
    shared: &Shared,
    channel: ChannelId,
    range: Range,
    limit: ReadLimit,
) -> Result<Plan<Vec<EventRow>>, ReadError> {
    if range.from > range.to {
        return Ok(Plan::Ready(Vec::new()));
    }
    let read = ChannelRead::new(shared, channel)?;
    let mut ready = range.from > read.index_last() || read.all_in_memory();
    if !ready && range.newest_first {
        let mut page = Page::new(limit, true);
        read.page_memory(range.from, range.to, &mut page);
        ready = page.is_full();
    }
    run_or_plan(ready, move || Ok(read.page(range, limit)?.into_rows()))
}

pub(super) fn find_key(
    shared: &Shared,
    channel: ChannelId,
    sender: UserId,
    key: MessageKey,
) -> Result<Plan<Option<EventRow>>, ReadError> {
    let read = ChannelRead::new(shared, channel)?;
    let hash = key_hash(sender, &key);
    let is_it = move |event: &EventRow| event.sender == sender && event.key == key;
    let in_memory = read
        .layers
        .newest_first()
        .flat_map(|delta| delta.keys.iter().rev())
        .filter(|(known, _)| *known == hash)
        .filter_map(|(_, seq)| read.event_in_memory(*seq))
        .find(is_it);
    if let (Some(event), Some(newest)) = (&in_memory, read.layers.newest()) {
        let oldest_ms = newest.row.head.created_ms.saturating_sub(KEY_WINDOW_MS);
        let found = in_memory.clone().filter(|_| event.created_ms >= oldest_ms);
        return Ok(Plan::Ready(found));
    }
    let ready = read.all_in_memory();
    run_or_plan(ready, move || {
        if read.all_in_memory() {
            return Ok(None);
        }
        let Some(row) = read.row()? else {
            return Ok(None);
        };
        let oldest_ms = row.head.created_ms.saturating_sub(KEY_WINDOW_MS);
        for seq in read.view.find_hash(channel, hash, oldest_ms)? {
            if let Some(event) = read.view.row(channel, seq)?.filter(is_it) {
                let event = read.seen(event);
                return Ok(Some(event).filter(|event| event.created_ms >= oldest_ms));
            }
        }
        Ok(None)
    })
}

pub(super) fn member(
    shared: &Shared,
    channel: ChannelId,
    user: UserId,
) -> Result<Plan<Option<MemberRow>>, ReadError> {
    let read = ChannelRead::new(shared, channel)?;
    if let Some(member) = read.member_in_memory(user) {
        return Ok(Plan::Ready(Some(member.row)));
    }
    if read.all_in_memory() {
        return Ok(Plan::Ready(None));
    }
    Ok(blocking(move || {
        Ok(read.view.member(channel, user)?.map(|member| member.row))
    }))
}

pub(super) fn find_pair(
    shared: &Shared,
    one: UserId,
    other: UserId,
) -> Result<Plan<Option<ChannelId>>, ReadError> {
    let pair = (one.min(other), one.max(other));
    let index = shared.index()?;
    let tail = shared.tail.layers();
    let frozen = tail
        .frozen
        .as_ref()
        .and_then(|f| f.pairs.get(&pair).copied());
    let in_memory = frozen.or_else(|| tail.active.pairs.get(&pair).copied());
    let view = index.view();
    drop(tail);
    // The first record of a pair wins, so the oldest layer is asked first.
    Ok(blocking(move || {
        Ok(view.pair(pair.0, pair.1)?.or(in_memory))
    }))
}

pub(super) fn inbox_position(shared: &Shared, user: UserId) -> Result<Plan<u64>, ReadError> {
    let index = shared.index()?;
    let tail = shared.tail.layers();
    // Every touch in memory is later than all that the index holds.
    if let Some(newest) = tail.touched_by(user).into_iter().map(|(_, at)| at).max() {
        return Ok(Plan::Ready(newest));
    }
    let view = index.view();
    drop(tail);
    Ok(blocking(move || {
        let newest = view.inbox(user, 0, Lsn::MAX).next_back().transpose()?;
        Ok(newest.map_or(0, |(position, _)| position))
    }))
}

pub(super) fn inbox_row(
    shared: &Shared,
    user: UserId,
    channel: ChannelId,
) -> Result<Plan<Option<InboxRow>>, ReadError> {
    let read = ChannelRead::new(shared, channel)?;
    let ready = read.layers.newest().is_some()
        && (read.all_in_memory() || read.member_in_memory(user).is_some());
    run_or_plan(ready, move || joined_row(&read, user))
}

/// A user's inbox row of a channel, joined from channel and member.
fn joined_row(read: &ChannelRead, user: UserId) -> Outcome<Option<InboxRow>> {
    let Some(member) = read.member(user)? else {
        return Ok(None);
    };
    let Some(row) = read.row()? else {
        return Ok(None);
    };
    Ok(join(read.id, row, member))
}

fn join(channel: ChannelId, row: ChannelRow, member: StoredMember) -> Option<InboxRow> {
    Some(InboxRow {
        channel,
        position: member.position(row.touched),
        peer: row.peer_of(member.row.user),
        head: member.left.unwrap_or(row.head),
        member: member.row,
        meta: row.meta?,
    })
}

pub(super) fn inbox(
    shared: &Arc<Shared>,
    user: UserId,
    query: InboxQuery,
    rows_max: usize,
) -> Result<Plan<InboxPage>, ReadError> {
    let index = shared.index()?;
    let tail = shared.tail.layers();
    let mut touched = tail.touched_by(user);
    let applied = shared.applied.load(std::sync::atomic::Ordering::Relaxed);
    let index_may_hold = match query {
        InboxQuery::After(position) => position < applied,
        InboxQuery::AtOrBefore(_) => true,
    };
    let replaced: Vec<ChannelId> = {
        let mut channels: Vec<ChannelId> = touched.iter().map(|(channel, _)| *channel).collect();
        channels.sort_unstable();
        channels
    };
    match query {
        InboxQuery::After(position) => touched.retain(|(_, at)| *at > position),
        InboxQuery::AtOrBefore(position) => touched.retain(|(_, at)| *at <= position),
    }
    if touched.is_empty() && !index_may_hold {
        return Ok(Plan::Ready(InboxPage::default()));
    }
    touched.sort_unstable_by_key(|(_, at)| *at);
    // No more than a page and the proof that there is more.
    let surplus = touched.len().saturating_sub(rows_max.saturating_add(1));
    match query {
        InboxQuery::After(_) => touched.truncate(touched.len() - surplus),
        InboxQuery::AtOrBefore(_) => drop(touched.drain(..surplus)),
    }
    let layers: Vec<(ChannelId, ChannelLayers)> = touched
        .iter()
        .map(|(channel, _)| (*channel, tail.channel(*channel)))
        .collect();
    let view = index.view();
    drop(tail);
    let shared = shared.clone();
    Ok(blocking(move || {
        let listing = Listing {
            shared,
            view,
            user,
            replaced,
            in_memory: layers,
        };
        listing.page(query, rows_max)
    }))
}

/// A user's inbox as of one moment.
struct Listing {
    shared: Arc<Shared>,
    view: View,
    user: UserId,
    /// Channels whose place in the index is void: memory knows a later one. Sorted.
    replaced: Vec<ChannelId>,
    /// Channels whose newest place lies in memory and in the range asked for, ascending by position.
    in_memory: Vec<(ChannelId, ChannelLayers)>,
}

/// A listed channel; `None`: the index alone knows it.
type Listed = (ChannelId, Option<ChannelLayers>);

impl Listing {
    fn page(self, query: InboxQuery, rows_max: usize) -> Outcome<InboxPage> {
        let wanted = rows_max.saturating_add(1);
        let mut rows_read = 0;
        let mut listed: Vec<Listed> = Vec::new();
        // Every position in memory is later than all of the index.
        match query {
            InboxQuery::After(position) => {
                if let Some(from) = position.checked_add(1) {
                    let stored = self.view.inbox(self.user, from, Lsn::MAX);
                    rows_read += self.list_stored(stored, wanted, &mut listed)?;
                }
                let room = wanted - listed.len();
                let newer = self.in_memory.iter().take(room).cloned();
                listed.extend(newer.map(|(channel, layers)| (channel, Some(layers))));
            }
            InboxQuery::AtOrBefore(position) => {
                let newer = self.in_memory.iter().rev().take(wanted).cloned();
                listed.extend(newer.map(|(channel, layers)| (channel, Some(layers))));
                if listed.len() < wanted {
                    let stored = self.view.inbox(self.user, 0, position).rev();
                    rows_read += self.list_stored(stored, wanted, &mut listed)?;
                }
            }
        }
        rows_read += listed.iter().filter(|(_, layers)| layers.is_some()).count() as u64;
        metrics::counter!(names::INBOX_ROWS_READ.name).increment(rows_read);
        let more = listed.len() > rows_max;
        listed.truncate(rows_max);
        let mut rows = Vec::with_capacity(listed.len());
        for (channel, layers) in listed {
            rows.extend(self.row(channel, layers)?);
        }
        Ok(InboxPage {
            rows,
            more,
            rows_read,
        })
    }

    /// Lists what the index holds until `wanted` are listed; returns how many rows were looked at.
    fn list_stored(
        &self,
        stored: impl Iterator<Item = Outcome<(Lsn, ChannelId)>>,
        wanted: usize,
        listed: &mut Vec<Listed>,
    ) -> Outcome<u64> {
        let mut looked_at = 0;
        for row in stored {
            if listed.len() >= wanted {
                break;
            }
            let (_, channel) = row?;
            looked_at += 1;
            if self.replaced.binary_search(&channel).is_err() {
                listed.push((channel, None));
            }
        }
        Ok(looked_at)
    }

    fn row(&self, channel: ChannelId, layers: Option<ChannelLayers>) -> Outcome<Option<InboxRow>> {
        let layers = layers.unwrap_or_default();
        let newest = |user| {
            layers
                .newest_first()
                .find_map(|delta| delta.members.get(user))
                .cloned()
        };
        let member = match newest(&self.user) {
            Some(member) => Some(member),
            None => self.view.member(channel, self.user)?,
        };
        let row = match layers.newest() {
            Some(delta) => Some(delta.row.clone()),
            None => self.view.channel(channel)?,
        };
        let (Some(member), Some(mut row)) = (member, row) else {
            return Ok(None);
        };
        if member.left.is_some() && layers.newest().is_none() {
            // What happens in a channel no longer touches a former member, but title and peer are shown as they are now.
            if let Some(delta) = self.shared.tail.layers().channel(channel).newest() {
                row.clone_from(&delta.row);
            }
        }
        Ok(join(channel, row, member))
    }
}

fn run_or_plan<T>(
    ready: bool,
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Result<Plan<T>, ReadError> {
    if ready {
        // Memory holds it all: the index is not touched.
        Ok(Plan::Ready(work()?))
    } else {
        Ok(blocking(work))
    }
}
