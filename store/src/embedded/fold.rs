//! What a durable record means: the one place where records become tables.
//!
//! Runs on the log's writer thread, first ([`Folder::check`]) before a batch is written, then ([`Folder::apply`]) when
//! it is durable; and at a start, for every replayed record. Needs the state of each channel it meets (head, members):
//! [`Hot`] keeps that of the channels lately written and reads the index for others. Deterministic: the same records on
//! the same state give the same tables.
//!
//! Invariants: a channel that is in an overlay is hot (so a channel that is not hot is wholly in the index, and reading
//! it there is right); a hot channel's state is that after the last folded record.
//!
//! What it does not do: locks, IO besides those index reads, clocks.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use conch_wire::{ChannelId, Ordinal, Seq, UserId};

use crate::row::{ChannelMeta, EventRow, Head, MemberRow, Record, key_hash};
use crate::{Fold, Lsn, MemberChange};

use super::idmap::IdMap;
use super::index::{Index, IndexError, keys::BLOCK_SHIFT};
use super::overlay::{
    CHANNEL_COST, ChannelDelta, ChannelRow, ERASED_BODY_BYTES, KeyEntry, Overlay, StoredMember,
    TOUCH_COST, Touch,
};

/// Estimated memory of a hot channel and of each of its members.
const HOT_CHANNEL_COST: usize = 360;
const HOT_MEMBER_COST: usize = 96;

/// An event that is not at its channel's next place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OutOfPlace {
    pub(super) channel: ChannelId,
    pub(super) seq: Seq,
    pub(super) next: Seq,
}

/// State of a channel as of the last folded record.
#[derive(Debug)]
struct HotChannel {
    row: ChannelRow,
    members: IdMap<UserId, StoredMember>,
    /// Keys of the block that holds the head.
    block_keys: Vec<KeyEntry>,
    /// Last seq given to the log; the head's, unless a batch is being written.
    reserved: Seq,
    /// When it was last used, in batches.
    used: u64,
}

impl HotChannel {
    /// What every message changes, and nothing else.
    fn apply_message(&mut self, overlay: &mut Overlay, lsn: Lsn, event: EventRow) {
        let head = Head {
            seq: event.seq,
            ordinal: event.ordinal,
            created_ms: event.created_ms,
        };
        self.move_head(head, lsn);
        let key = (key_hash(event.sender, &event.key), event.seq);
        self.block_keys.push(key);
        let author = self.members.get_mut(&event.sender);
        let author = author.filter(|author| author.row.left_seq.is_none());
        let author = author.map(|author| {
            advance_mark(&mut author.row, event.seq, event.ordinal);
            author.clone()
        });
        let delta = delta_of(overlay, event.channel, self);
        delta.row.head = head;
        delta.row.touched = lsn;
        delta.keys.push(key);
        if let Some(author) = author {
            delta.members.insert(event.sender, author);
        }
        delta.events.push(event);
    }

    fn move_head(&mut self, head: Head, lsn: Lsn) {
        if head.seq >> BLOCK_SHIFT != self.row.head.seq >> BLOCK_SHIFT {
            self.block_keys.clear();
        }
        self.row.head = head;
        self.row.touched = lsn;
        self.reserved = self.reserved.max(head.seq);
    }

    fn cost(&self) -> usize {
        HOT_CHANNEL_COST + self.members.len() * HOT_MEMBER_COST
    }

    fn position(&self, member: &StoredMember) -> Lsn {
        member.position(self.row.touched)
    }
}

/// Channels lately written.
#[derive(Debug)]
struct Hot {
    channels: IdMap<ChannelId, HotChannel>,
    bytes: usize,
    bytes_max: usize,
    /// Not tried again before it has grown past this.
    evict_above: usize,
    clock: u64,
}

/// Turns records into tables. Owned by the thread that writes the log.
pub(super) struct Folder {
    hot: Hot,
    fold: Arc<dyn Fold>,
    index: Index,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder")
            .field("hot_channels", &self.hot.channels.len())
            .field("hot_bytes", &self.hot.bytes)
            .finish_non_exhaustive()
    }
}

impl Folder {
    pub(super) fn new(fold: Arc<dyn Fold>, index: Index, hot_bytes_max: usize) -> Folder {
        let hot = Hot {
            channels: IdMap::default(),
            bytes: 0,
            bytes_max: hot_bytes_max,
            evict_above: hot_bytes_max,
            clock: 0,
        };
        Folder { hot, fold, index }
    }

    /// Brings the state of every channel of a batch into memory, and checks that its events take the next places. After
    /// `Ok(Ok)` the places are taken and folding these records cannot fail. Nothing is taken on `Ok(Err)`.
    pub(super) fn check(&mut self, batch: &[Record]) -> Result<Result<(), OutOfPlace>, IndexError> {
        self.hot.clock += 1;
        for record in batch {
            if let Some(channel) = channel_of(record) {
                self.hot.warm(channel, &self.index)?;
            }
        }
        let mut taken = 0;
        let mut wrong = None;
        for record in batch {
            if let Record::Event(event) = record {
                let hot = self.hot.channel(event.channel);
                if event.seq != hot.reserved + 1 {
                    wrong = Some(OutOfPlace {
                        channel: event.channel,
                        seq: event.seq,
                        next: hot.reserved + 1,
                    });
                    break;
                }
                hot.reserved += 1;
            }
            taken += 1;
        }
        let Some(wrong) = wrong else {
            return Ok(Ok(()));
        };
        for record in &batch[..taken] {
            if let Record::Event(event) = record {
                self.hot.channel(event.channel).reserved -= 1;
            }
        }
        Ok(Err(wrong))
    }

    /// Folds a durable record that [`Folder::check`] has seen.
    pub(super) fn apply(&mut self, overlay: &mut Overlay, lsn: Lsn, record: Record) {
        overlay.bytes += memory_bytes(&record);
        overlay.last_lsn = lsn;
        match record {
            Record::Event(event) => self.apply_event(overlay, lsn, event),
            Record::ReadMark {
                channel,
                user,
                seq,
                ordinal,
            } => self.apply_mark(overlay, lsn, channel, user, (seq, ordinal)),
            // The first record wins: readers and the index ask the older layers first.
            Record::Pair { low, high, channel } => {
                let pair = (low.min(high), low.max(high));
                overlay.pairs.entry(pair).or_insert(channel);
            }
            Record::IdBlock { space, end } => {
                let known = overlay.id_blocks.entry(space).or_default();
                *known = end.max(*known);
            }
            Record::Erasure { channel, seq } => {
                let hot = self.hot.channel(channel);
                if seq == 0 || seq > hot.row.head.seq {
                    return;
                }
                let delta = delta_of(overlay, channel, hot);
                match delta.event_at(seq) {
                    Some(at) => {
                        let body = &mut delta.events[at].body;
                        // A copy, so that the content's memory goes too.
                        *body = bytes::Bytes::copy_from_slice(
                            &body[..body.len().min(ERASED_BODY_BYTES)],
                        );
                    }
                    None => {
                        delta.erased.insert(seq);
                    }
                }
            }
        }
    }

    fn apply_event(&mut self, overlay: &mut Overlay, lsn: Lsn, event: EventRow) {
        let effect = self.fold.effect(&event);
        let channel = event.channel;
        let hot = self.hot.channel(channel);
        let before = hot.cost();
        assert_eq!(
            event.seq,
            hot.row.head.seq + 1,
            "an event of {channel:?} was written out of its place"
        );

        if delta_of(overlay, channel, hot).events.is_empty() {
            follow(overlay, channel, hot);
        }
        if effect.is_message {
            debug_assert!(effect.members.is_empty(), "a message changes nothing else");
            hot.apply_message(overlay, lsn, event);
            return;
        }
        if let Some(kind) = effect.created
            && hot.row.meta.is_none()
        {
            hot.row.meta = Some(ChannelMeta {
                kind,
                title: String::new(),
            });
        }
        if let (Some(meta), Some(title)) = (&mut hot.row.meta, effect.title) {
            meta.title = title;
        }
        let head = Head {
            seq: event.seq,
            ordinal: event.ordinal,
            created_ms: event.created_ms,
        };
        let mut changed: Vec<StoredMember> = Vec::new();
        // Who came in by this event, and where they stood in the inbox before it.
        let mut came: Vec<(UserId, Lsn)> = Vec::new();
        for change in effect.members {
            let user = match change {
                MemberChange::Join { user, role } => {
                    let (seq, ordinal) = (event.seq, event.ordinal);
                    let before = join(overlay, hot, channel, lsn, (seq, ordinal), user, role);
                    came.extend(before.map(|before| (user, before)));
                    user
                }
                MemberChange::Leave { user } => {
                    leave(overlay, hot, channel, lsn, head, user);
                    // In and out by one event is no touch: they are neither before it nor after it.
                    let known = came.iter().position(|(joined, _)| *joined == user);
                    if let Some((_, before)) = known.map(|at| came.swap_remove(at)) {
                        untouch(overlay, hot, channel, user, before);
                    }
                    user
                }
            };
            changed.extend(hot.members.get(&user).cloned());
        }
        hot.move_head(head, lsn);
        let after = hot.cost();

        let delta = delta_of(overlay, channel, hot);
        delta.row.clone_from(&hot.row);
        for member in changed {
            delta.members.insert(member.row.user, member);
        }
        delta.events.push(event);
        self.hot.bytes = self.hot.bytes + after - before;
    }

    fn apply_mark(
        &mut self,
        overlay: &mut Overlay,
        lsn: Lsn,
        channel: ChannelId,
        user: UserId,
        (seq, ordinal): (Seq, Ordinal),
    ) {
        let hot = self.hot.channel(channel);
        let touched = hot.row.touched;
        let Some(member) = hot.members.get_mut(&user) else {
            return;
        };
        let previous = member.position(touched);
        advance_mark(&mut member.row, seq, ordinal);
        member.own = lsn;
        let member = member.clone();
        touch(overlay, user, channel, previous).own = lsn;
        delta_of(overlay, channel, hot).members.insert(user, member);
        overlay.bytes += TOUCH_COST;
    }

    /// Forgets channels when too many are hot; never one that an overlay still holds (`held`).
    pub(super) fn trim(&mut self, held: impl Fn(ChannelId) -> bool) {
        let hot = &mut self.hot;
        if hot.bytes <= hot.evict_above {
            return;
        }
        let mut ages: Vec<u64> = hot.channels.values().map(|channel| channel.used).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let median = *median;
        let mut bytes = 0;
        hot.channels.retain(|id, channel| {
            let keep = channel.used > median || held(*id);
            bytes += if keep { channel.cost() } else { 0 };
            keep
        });
        hot.bytes = bytes;
        hot.evict_above = hot.bytes_max.max(bytes + bytes / 4);
    }
}

impl Hot {
    fn channel(&mut self, channel: ChannelId) -> &mut HotChannel {
        self.channels
            .get_mut(&channel)
            .expect("brought into memory before its record was written")
    }

    fn warm(&mut self, channel: ChannelId, index: &Index) -> Result<(), IndexError> {
        let clock = self.clock;
        match self.channels.entry(channel) {
            Entry::Occupied(mut known) => known.get_mut().used = clock,
            Entry::Vacant(place) => {
                let view = index.view();
                let hot = match view.channel(channel)? {
                    None => HotChannel {
                        row: ChannelRow::default(),
                        members: IdMap::default(),
                        block_keys: Vec::new(),
                        reserved: 0,
                        used: clock,
                    },
                    Some(row) => HotChannel {
                        reserved: row.head.seq,
                        block_keys: view.keys_around(channel, row.head.seq)?,
                        members: view
                            .members(channel)?
                            .into_iter()
                            .map(|member| (member.row.user, member))
                            .collect(),
                        row,
                        used: clock,
                    },
                };
                self.bytes += hot.cost();
                place.insert(hot);
            }
        }
        Ok(())
    }
}

/// The channel's delta in the overlay, made from the hot state if this run has not met the channel yet.
fn delta_of<'a>(
    overlay: &'a mut Overlay,
    channel: ChannelId,
    hot: &HotChannel,
) -> &'a mut ChannelDelta {
    let bytes = &mut overlay.bytes;
    let delta = overlay.channels.entry(channel).or_insert_with(|| {
        *bytes += CHANNEL_COST;
        let carried = hot.block_keys.clone();
        Arc::new(ChannelDelta::new(hot.row.clone(), carried))
    });
    Arc::make_mut(delta)
}

/// The first event of a run: from here on the channel's last touch is that of everybody present.
fn follow(overlay: &mut Overlay, channel: ChannelId, hot: &HotChannel) {
    let mut touched = 0;
    for member in hot.members.values() {
        if member.row.left_seq.is_none() {
            let previous = hot.position(member);
            touch(overlay, member.row.user, channel, previous).follows = true;
            touched += 1;
        }
    }
    overlay.bytes += touched * TOUCH_COST;
}

/// The touch of (user, channel), made with the position that the layer below knows if there is none yet.
fn touch(overlay: &mut Overlay, user: UserId, channel: ChannelId, previous: Lsn) -> &mut Touch {
    let fresh = Touch {
        previous,
        own: 0,
        follows: false,
    };
    overlay.touches.entry((user, channel)).or_insert(fresh)
}

/// Lets somebody in; returns their position in the inbox before, unless they were there already.
fn join(
    overlay: &mut Overlay,
    hot: &mut HotChannel,
    channel: ChannelId,
    lsn: Lsn,
    (seq, ordinal): (Seq, Ordinal),
    user: UserId,
    role: conch_wire::MemberRole,
) -> Option<Lsn> {
    let known = hot.members.get_mut(&user);
    let previous = match known {
        Some(member) if member.row.left_seq.is_none() => {
            member.row.role = role;
            return None;
        }
        Some(member) => member.own,
        None => 0,
    };
    let mut known: Vec<UserId> = hot.row.pair.into_iter().flatten().collect();
    known.push(user);
    known.sort_unstable();
    known.dedup();
    hot.row.pair = [known.first().copied(), known.get(1).copied()];
    hot.members.insert(
        user,
        StoredMember {
            row: MemberRow {
                user,
                role,
                joined_seq: seq,
                joined_ordinal: ordinal,
                visible_from: seq,
                left_seq: None,
                read_seq: seq.saturating_sub(1),
                read_ordinal: ordinal,
            },
            own: lsn,
            left: None,
        },
    );
    let touch = touch(overlay, user, channel, previous);
    touch.own = lsn;
    touch.follows = true;
    overlay.bytes += TOUCH_COST;
    Some(previous)
}

/// Takes a touch back: the position is `before` again.
fn untouch(
    overlay: &mut Overlay,
    hot: &mut HotChannel,
    channel: ChannelId,
    user: UserId,
    before: Lsn,
) {
    if let Some(member) = hot.members.get_mut(&user) {
        member.own = before;
    }
    if before == 0 {
        overlay.touches.remove(&(user, channel));
    } else {
        touch(overlay, user, channel, before).own = before;
    }
}

fn leave(
    overlay: &mut Overlay,
    hot: &mut HotChannel,
    channel: ChannelId,
    lsn: Lsn,
    head: Head,
    user: UserId,
) {
    let touched = hot.row.touched;
    let Some(member) = hot.members.get_mut(&user) else {
        return;
    };
    if member.row.left_seq.is_some() {
        return;
    }
    let previous = member.position(touched);
    member.row.left_seq = Some(head.seq);
    member.left = Some(head);
    member.own = lsn;
    let touch = touch(overlay, user, channel, previous);
    touch.own = lsn;
    touch.follows = false;
}

fn advance_mark(row: &mut MemberRow, seq: Seq, ordinal: Ordinal) {
    if seq > row.read_seq {
        row.read_seq = seq;
        row.read_ordinal = ordinal;
    }
}

fn channel_of(record: &Record) -> Option<ChannelId> {
    match record {
        Record::Event(event) => Some(event.channel),
        Record::ReadMark { channel, .. } | Record::Erasure { channel, .. } => Some(*channel),
        Record::Pair { .. } | Record::IdBlock { .. } => None,
    }
}

/// Estimated memory of a record in front of the index, besides what it adds to shared tables.
pub(super) fn memory_bytes(record: &Record) -> usize {
    match record {
        Record::Event(event) => 200 + event.body.len(),
        _ => 64,
    }
}
