//! The derived tables of the model, and the rule by which each record changes them.
//!
//! Pure: no lock, clock or runtime. [`Tables::apply`] is the one place that says what a record means; everything else
//! reads. [`super::MemoryStore`] calls it once per durable record, in the order of the log, and replays the same records
//! through it after a modelled crash, so replay cannot differ from the first time.
//!
//! Invariants: `last_lsn` counts the applied records; a channel's events are gapless from seq 1; each (user, channel)
//! of the inbox has exactly one place in `touched`, the lsn of its last touch; marks never move back while somebody
//! stays in a channel.
//!
//! What it does not do: nothing is packed, evicted or expired. A key that is too old is only not found.

use std::collections::{BTreeMap, BTreeSet};

use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, MessageKey, Ordinal, Seq, UserId};

use crate::contract::{InboxPage, InboxQuery, Range, ReadLimit};
use crate::row::{
    ChannelMeta, ChannelSnapshot, EventRow, Head, InboxRow, MemberRow, Record, key_hash,
};
use crate::{EventEffect, Fold, Lsn, MemberChange};

/// Keys are found for this long, measured in the channel's own time: from the message to the channel's newest event.
/// No wall clock takes part, so that the answer is the same after every replay and a clock that jumps forgets nothing.
pub const KEY_WINDOW_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// What an erasure leaves of a body: the event's header (author, seq, time, kind, flags), none of its content.
pub const ERASED_BODY_BYTES: usize = 20;

#[derive(Default)]
struct Channel {
    /// `None` until an event with `created` came: the channel is then not listed or loaded.
    meta: Option<ChannelMeta>,
    head: Head,
    events: BTreeMap<Seq, EventRow>,
    /// Seqs of messages.
    messages: BTreeSet<Seq>,
    members: BTreeMap<UserId, MemberRow>,
    keys: BTreeMap<(UserId, MessageKey), Seq>,
}

/// All derived tables, as of `last_lsn`.
#[derive(Default)]
pub(super) struct Tables {
    last_lsn: Lsn,
    channels: BTreeMap<ChannelId, Channel>,
    inbox: BTreeMap<(UserId, ChannelId), Lsn>,
    touched: BTreeMap<(UserId, Lsn), ChannelId>,
    pairs: BTreeMap<(UserId, UserId), ChannelId>,
    id_blocks: BTreeMap<u8, u64>,
}

impl Channel {
    /// Returns whose inbox the event touches: members before ∪ after.
    fn apply_event(&mut self, event: EventRow, effect: EventEffect) -> BTreeSet<UserId> {
        let mut touched = self.present();
        if let Some(kind) = effect.created
            && self.meta.is_none()
        {
            self.meta = Some(ChannelMeta {
                kind,
                title: String::new(),
            });
        }
        if let (Some(meta), Some(title)) = (&mut self.meta, effect.title) {
            meta.title = title;
        }
        for change in effect.members {
            self.apply_member_change(change, event.seq, event.ordinal);
        }
        touched.extend(self.present());

        if effect.is_message {
            self.messages.insert(event.seq);
            self.keys.insert((event.sender, event.key), event.seq);
            if let Some(author) = self.members.get_mut(&event.sender)
                && author.left_seq.is_none()
            {
                author.advance_mark(event.seq, event.ordinal);
            }
        }
        self.head = Head {
            seq: event.seq,
            ordinal: event.ordinal,
            created_ms: event.created_ms,
        };
        self.events.insert(event.seq, event);
        touched
    }

    fn apply_member_change(&mut self, change: MemberChange, seq: Seq, ordinal: Ordinal) {
        match change {
            MemberChange::Join { user, role } => match self.members.get_mut(&user) {
                Some(row) if row.left_seq.is_none() => row.role = role,
                _ => {
                    let row = MemberRow {
                        user,
                        role,
                        joined_seq: seq,
                        joined_ordinal: ordinal,
                        visible_from: seq,
                        left_seq: None,
                        read_seq: seq.saturating_sub(1),
                        read_ordinal: ordinal,
                    };
                    self.members.insert(user, row);
                }
            },
            MemberChange::Leave { user } => {
                if let Some(row) = self.members.get_mut(&user) {
                    row.left_seq.get_or_insert(seq);
                }
            }
        }
    }

    fn present(&self) -> BTreeSet<UserId> {
        let present = self.members.values().filter(|row| row.left_seq.is_none());
        present.map(|row| row.user).collect()
    }

    /// The head as a member may see it: the place where a former member left.
    fn head_for(&self, member: &MemberRow) -> Head {
        match member.left_seq.and_then(|seq| self.events.get(&seq)) {
            Some(last) => Head {
                seq: last.seq,
                ordinal: last.ordinal,
                created_ms: last.created_ms,
            },
            None => self.head,
        }
    }

    fn peer_of(&self, kind: ChannelKind, user: UserId) -> Option<UserId> {
        (kind == ChannelKind::Direct)
            .then(|| self.members.keys().copied().find(|other| *other != user))
            .flatten()
    }
}

impl MemberRow {
    fn advance_mark(&mut self, seq: Seq, ordinal: Ordinal) {
        if seq > self.read_seq {
            self.read_seq = seq;
            self.read_ordinal = ordinal;
        }
    }
}

impl Tables {
    /// Takes the next record of the log and returns its lsn. An event out of place is a broken caller.
    pub(super) fn apply(&mut self, record: Record, fold: &dyn Fold) -> Lsn {
        let lsn = self.last_lsn + 1;
        match record {
            Record::Event(event) => {
                let id = event.channel;
                let effect = fold.effect(&event);
                let channel = self.channels.entry(id).or_default();
                assert_eq!(event.seq, channel.head.seq + 1, "the next seq of {id:?}");
                for user in channel.apply_event(event, effect) {
                    self.touch(user, id, lsn);
                }
            }
            Record::ReadMark {
                channel,
                user,
                seq,
                ordinal,
            } => {
                let row = self
                    .channels
                    .get_mut(&channel)
                    .and_then(|c| c.members.get_mut(&user));
                if let Some(row) = row {
                    row.advance_mark(seq, ordinal);
                    self.touch(user, channel, lsn);
                }
            }
            Record::Pair { low, high, channel } => {
                self.pairs
                    .entry((low.min(high), low.max(high)))
                    .or_insert(channel);
            }
            Record::IdBlock { space, end } => {
                let known = self.id_blocks.entry(space).or_default();
                *known = end.max(*known);
            }
            Record::Erasure { channel, seq } => {
                let event = self
                    .channels
                    .get_mut(&channel)
                    .and_then(|c| c.events.get_mut(&seq));
                if let Some(event) = event {
                    event.body.truncate(ERASED_BODY_BYTES);
                }
            }
        }
        self.last_lsn = lsn;
        lsn
    }

    fn touch(&mut self, user: UserId, channel: ChannelId, lsn: Lsn) {
        if let Some(before) = self.inbox.insert((user, channel), lsn) {
            self.touched.remove(&(user, before));
        }
        self.touched.insert((user, lsn), channel);
    }

    pub(super) fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    pub(super) fn head_seq(&self, channel: ChannelId) -> Seq {
        self.channels.get(&channel).map_or(0, |c| c.head.seq)
    }

    pub(super) fn snapshot(
        &self,
        channel: ChannelId,
        tail: usize,
        keys: usize,
    ) -> Option<ChannelSnapshot> {
        let channel = self.channels.get(&channel)?;
        let meta = channel.meta.clone()?;
        let mut newest: Vec<EventRow> = channel.events.values().rev().take(tail).cloned().collect();
        newest.reverse();
        let mut hashes: Vec<(u64, Seq)> = (channel.messages.iter().rev().take(keys))
            .map(|seq| {
                let event = &channel.events[seq];
                (key_hash(event.sender, &event.key), *seq)
            })
            .collect();
        hashes.reverse();
        Some(ChannelSnapshot {
            meta,
            head: channel.head,
            members: channel.members.values().cloned().collect(),
            tail: newest,
            keys: hashes,
        })
    }

    pub(super) fn events(
        &self,
        channel: ChannelId,
        range: Range,
        limit: ReadLimit,
    ) -> Vec<EventRow> {
        let Some(channel) = self.channels.get(&channel) else {
            return Vec::new();
        };
        if range.from > range.to {
            return Vec::new();
        }
        let mut within: Vec<&EventRow> = channel
            .events
            .range(range.from..=range.to)
            .map(|(_, event)| event)
            .collect();
        if range.newest_first {
            within.reverse();
        }
        let mut page: Vec<EventRow> = Vec::new();
        let mut bytes = 0;
        for event in within {
            bytes += event.body.len();
            if !page.is_empty() && (page.len() >= limit.events || bytes > limit.bytes) {
                break;
            }
            page.push(event.clone());
        }
        if range.newest_first {
            page.reverse();
        }
        page
    }

    pub(super) fn by_key(
        &self,
        channel: ChannelId,
        sender: UserId,
        key: MessageKey,
    ) -> Option<EventRow> {
        let channel = self.channels.get(&channel)?;
        let seq = channel.keys.get(&(sender, key))?;
        let event = &channel.events[seq];
        let age_ms = channel.head.created_ms.saturating_sub(event.created_ms);
        (age_ms <= KEY_WINDOW_MS).then(|| event.clone())
    }

    pub(super) fn member(&self, channel: ChannelId, user: UserId) -> Option<MemberRow> {
        self.channels.get(&channel)?.members.get(&user).cloned()
    }

    pub(super) fn pair(&self, one: UserId, other: UserId) -> Option<ChannelId> {
        self.pairs.get(&(one.min(other), one.max(other))).copied()
    }

    pub(super) fn id_block_end(&self, space: u8) -> u64 {
        self.id_blocks.get(&space).copied().unwrap_or(0)
    }

    pub(super) fn inbox_position(&self, user: UserId) -> Lsn {
        self.touched
            .range((user, 0)..=(user, Lsn::MAX))
            .next_back()
            .map_or(0, |((_, lsn), _)| *lsn)
    }

    pub(super) fn inbox_row(&self, user: UserId, channel: ChannelId) -> Option<InboxRow> {
        let position = *self.inbox.get(&(user, channel))?;
        let stored = self.channels.get(&channel)?;
        let meta = stored.meta.clone()?;
        let member = stored.members.get(&user)?.clone();
        Some(InboxRow {
            channel,
            position,
            head: stored.head_for(&member),
            peer: stored.peer_of(meta.kind, user),
            member,
            meta,
        })
    }

    pub(super) fn inbox(&self, user: UserId, query: InboxQuery, rows_max: usize) -> InboxPage {
        let listed: Vec<ChannelId> = match query {
            InboxQuery::After(Lsn::MAX) => Vec::new(),
            InboxQuery::After(position) => {
                let behind = self.touched.range((user, position + 1)..=(user, Lsn::MAX));
                behind
                    .map(|(_, channel)| *channel)
                    .take(rows_max.saturating_add(1))
                    .collect()
            }
            InboxQuery::AtOrBefore(position) => {
                let before = self.touched.range((user, 0)..=(user, position)).rev();
                before
                    .map(|(_, channel)| *channel)
                    .take(rows_max.saturating_add(1))
                    .collect()
            }
        };
        let rows: Vec<InboxRow> = (listed.iter().take(rows_max))
            .filter_map(|channel| self.inbox_row(user, *channel))
            .collect();
        InboxPage {
            rows,
            more: listed.len() > rows_max,
            rows_read: listed.len() as u64,
        }
    }
}
