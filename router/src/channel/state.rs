//! The channel: what is in its log, what is on the way there, and who waits for it.
//!
//! Two positions. **Sequenced**: the last seq given out; dedupe and membership of the next event go by it. **Committed**:
//! the last durable one; acks, answers, views and pages go by it and nothing shows what lies between. One batch is in
//! flight at a time; what is sequenced meanwhile gathers and leaves as the next one, in order.
//!
//! Driven by the shard loop: inputs through `on_*`, then [`ChannelState::take_batch`], then
//! [`ChannelState::on_committed`] when that batch is durable. Invariants, asserted: seqs are gapless from 1, times never
//! decrease, one content per seq. It does not know the store, sessions beyond their ids, or time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use conch_store::{
    ChannelMeta, ChannelSnapshot, EventEffect, EventRow, Fold, Head, MemberChange, Record,
};
use conch_wire::event::{Ack, Event, EventFlags, PendingAnswer};
use conch_wire::{ChannelId, DeviceId, MessageKey, Seq, SessionId, UserId};
use smallvec::SmallVec;

use super::outbox::{Outgoing, Routes};
use super::pending::ParkedPending;
use super::read::{ParkedRead, QueuedMark};
use super::roster::{Place, Roster};
use super::send::ParkedSend;
use super::window::{WINDOW_KEYS, Window};
use super::{Answer, Ask, Context, Effects, Known, LookupId, Rules, Ticket};
use crate::fold::ChannelFold;
use crate::refuse;
use crate::{Published, Push, Refused};

/// Rows of one batch: with 64 KiB, what one record group of the log takes well.
pub(crate) const BATCH_ROWS_MAX: usize = 256;
/// Bytes of one batch, unless its first event alone is larger.
pub(crate) const BATCH_BYTES_MAX: usize = 65_536;
/// Events sequenced behind the batch in flight; more are refused. Four batches.
pub(crate) const WAITING_EVENTS_MAX: usize = 1_024;
/// The same in bytes: one channel must not hold the memory of all.
pub(crate) const WAITING_BYTES_MAX: usize = 4 << 20;
/// Requests that wait for a commit besides those that brought an event: repeated attempts and questions.
pub(crate) const WAITERS_MAX: usize = 2_048;
/// Requests that wait for a row from the store.
pub(crate) const PARKED_MAX: usize = 256;

// The window must still hold every key that is sequenced and not committed, and the promised 1024 besides.
const _: () = assert!(WINDOW_KEYS >= WAITING_EVENTS_MAX + 1_024);

/// An event that has its seq and waits for its batch.
#[derive(Debug)]
struct Queued {
    row: EventRow,
    origin: Option<SessionId>,
    left: SmallVec<[UserId; 1]>,
    routes: Arc<Routes>,
}

/// An event to be sequenced.
pub(super) struct Draft {
    pub(super) author: UserId,
    pub(super) device: DeviceId,
    pub(super) key: MessageKey,
    pub(super) kind: u8,
    pub(super) flags: EventFlags,
    pub(super) tail: Bytes,
    pub(super) content_hash: u64,
    pub(super) origin: Option<SessionId>,
}

/// Who is answered when the log is committed up to a seq.
#[derive(Debug)]
pub(super) enum Waiter {
    Sent {
        session: SessionId,
        request: u32,
        frame_type: u8,
        acks: SmallVec<[Ack; 1]>,
    },
    View {
        ticket: Ticket,
        user: UserId,
    },
    Done {
        ticket: Ticket,
    },
    Pending {
        ticket: Ticket,
        answers: Vec<PendingAnswer>,
    },
}

/// A request that waits for rows of the store.
#[derive(Debug)]
pub(super) enum Parked {
    Send(ParkedSend),
    Pending(ParkedPending),
    Read(ParkedRead),
}

/// What went into one append; the driver keeps it until the append has settled.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Outgoing>,
    /// Records in all: the events first, then read marks.
    pub(crate) records: usize,
}

/// The pure state of one channel. A channel that does not exist yet is one without events.
#[derive(Debug)]
pub(crate) struct ChannelState {
    pub(super) id: ChannelId,
    pub(super) epoch: u32,
    pub(super) rules: Rules,
    /// As committed; `None` until the first event is.
    pub(super) meta: Option<ChannelMeta>,
    /// As sequenced.
    pub(super) meta_ahead: Option<ChannelMeta>,
    pub(super) committed: Head,
    pub(super) sequenced: Head,
    pub(super) roster: Roster,
    pub(super) window: Window,
    /// Newest committed events, gapless up to the committed seq.
    pub(super) tail: VecDeque<EventRow>,
    flying: Vec<EventRow>,
    in_flight: bool,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// Recipients of the next event.
    routes: Arc<Routes>,
    pub(super) marks: Vec<QueuedMark>,
    flying_marks: Vec<QueuedMark>,
    /// Ascending by the seq that they wait for.
    waiters: VecDeque<(Seq, Waiter)>,
    pub(super) parked: BTreeMap<u64, Parked>,
    next_park: u64,
}

impl ChannelState {
    /// From what the store has; `None`: there is no such channel yet.
    pub(crate) fn load(
        id: ChannelId,
        epoch: u32,
        rules: Rules,
        snapshot: Option<ChannelSnapshot>,
    ) -> ChannelState {
        let (meta, head, members, tail, keys) = match snapshot {
            Some(found) => (
                Some(found.meta),
                found.head,
                found.members,
                found.tail,
                found.keys,
            ),
            None => (None, Head::default(), Vec::new(), Vec::new(), Vec::new()),
        };
        assert!(
            tail.last().is_none_or(|row| row.seq == head.seq),
            "a tail ends at the head"
        );
        let complete = keys.len() < WINDOW_KEYS && keys.len() >= head.ordinal as usize;
        let mut state = ChannelState {
            id,
            epoch,
            rules,
            meta_ahead: meta.clone(),
            meta,
            committed: head,
            sequenced: head,
            roster: Roster::load(members),
            window: Window::load(keys, complete),
            tail: tail.into(),
            flying: Vec::new(),
            in_flight: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            routes: Arc::default(),
            marks: Vec::new(),
            flying_marks: Vec::new(),
            waiters: VecDeque::new(),
            parked: BTreeMap::new(),
            next_park: 0,
        };
        state.routes = state.routes_to_present();
        state
    }

    /// A question or change; its answer comes by `ticket`, now or later.
    pub(crate) fn on_ask(
        &mut self,
        context: &Context<'_>,
        ask: Ask,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        match ask {
            Ask::View { user } => self.on_view(user, ticket, effects),
            Ask::Members { user } => {
                effects.answer(ticket, self.members_for(user).map(Answer::Members));
            }
            Ask::History { user, request } => self.on_history(user, request, ticket, effects),
            Ask::Read { user, seq } => self.on_read(context, user, seq, ticket, effects),
            Ask::Pending { user, keys } => self.on_pending(user, keys, ticket, effects),
            Ask::Create(creation) => self.on_create(context, creation, ticket, effects),
            Ask::Change(change) => self.on_change(context, change, ticket, effects),
        }
    }

    /// A row that was looked for; `Err`: the store could not say. Unknown ids belong to a state that was lost.
    pub(crate) fn on_found(
        &mut self,
        context: &Context<'_>,
        id: LookupId,
        found: Result<Option<Known>, ()>,
        effects: &mut Effects,
    ) {
        let Some(parked) = self.parked.remove(&id.park) else {
            return;
        };
        match parked {
            Parked::Send(send) => self.resume_send(context, id, send, found, effects),
            Parked::Pending(pending) => self.resume_pending(id, pending, found, effects),
            Parked::Read(read) => self.resume_read(context, read, found, effects),
        }
    }

    /// Bytes to ask the store for before a parked request goes on.
    pub(crate) fn parked_bytes(&self, id: LookupId) -> usize {
        match self.parked.get(&id.park) {
            Some(Parked::Send(send)) => super::send::record_bytes(&send.request),
            Some(Parked::Read(_)) => 64,
            Some(Parked::Pending(_)) | None => 0,
        }
    }

    /// Gives an event its place. The caller has checked that it may have one.
    pub(super) fn sequence(&mut self, now_ms: u64, draft: Draft) -> Seq {
        let is_message = conch_wire::EventKind::from_u8(draft.kind)
            .is_some_and(conch_wire::EventKind::is_message);
        let head = Head {
            seq: self.sequenced.seq + 1,
            ordinal: self.sequenced.ordinal + u32::from(is_message),
            created_ms: now_ms.max(self.sequenced.created_ms),
        };
        let event = Event {
            author: draft.author,
            seq: head.seq,
            time_ms: head.created_ms,
            kind: draft.kind,
            flags: draft.flags,
            tail: draft.tail,
        };
        let row = EventRow {
            channel: self.id,
            seq: head.seq,
            epoch: self.epoch,
            ordinal: head.ordinal,
            kind: draft.kind,
            sender: draft.author,
            device: draft.device,
            key: draft.key,
            created_ms: head.created_ms,
            content_hash: draft.content_hash,
            body: event.encode_body(),
        };
        self.sequenced = head;
        let mut left = SmallVec::new();
        let mut routes = self.routes.clone();
        if is_message {
            self.window
                .insert(conch_store::key_hash(row.sender, &row.key), row.seq);
        } else {
            let effect = ChannelFold.effect(&row);
            left = leavers(&effect);
            apply_meta(&mut self.meta_ahead, &effect);
            self.roster.sequence(&effect.members, place(&row));
            self.routes = self.routes_to_present();
            // Members before ∪ after: who joins is in the list after, who leaves in the one before.
            if left.is_empty() {
                routes = self.routes.clone();
            }
        }
        self.queue_bytes += row.body.len();
        self.queue.push_back(Queued {
            row,
            origin: draft.origin,
            left,
            routes,
        });
        head.seq
    }

    /// What is to be appended next, unless a batch is in flight. Records go to the end of `records`.
    pub(crate) fn take_batch(&mut self, records: &mut Vec<Record>) -> Option<Batch> {
        if self.in_flight || (self.queue.is_empty() && self.marks.is_empty()) {
            return None;
        }
        let before = records.len();
        let mut bytes = 0;
        let mut events = Vec::with_capacity(self.queue.len().min(BATCH_ROWS_MAX));
        while let Some(next) = self.queue.front() {
            let size = next.row.body.len();
            if !events.is_empty()
                && (events.len() >= BATCH_ROWS_MAX || bytes + size > BATCH_BYTES_MAX)
            {
                break;
            }
            let Some(queued) = self.queue.pop_front() else {
                break;
            };
            bytes += size;
            records.push(Record::Event(queued.row.clone()));
            events.push(self.fly(queued));
        }
        self.queue_bytes -= bytes;
        self.flying_marks = std::mem::take(&mut self.marks);
        records.extend(
            self.flying_marks
                .iter()
                .map(|mark| super::read::mark_record(self.id, mark)),
        );
        self.in_flight = true;
        Some(Batch {
            events,
            records: records.len() - before,
        })
    }

    fn fly(&mut self, queued: Queued) -> Outgoing {
        let row = queued.row;
        let kind = self
            .meta_ahead
            .as_ref()
            .expect("a channel with an event has a kind: its first event sets it")
            .kind;
        let published = Published {
            channel: self.id,
            channel_kind: kind,
            seq: row.seq,
            ordinal: row.ordinal,
            position: 0,
            kind: row.kind,
            author: row.sender,
            origin: queued.origin,
            left: queued.left,
            body: row.body.clone(),
        };
        self.flying.push(row);
        Outgoing {
            published,
            routes: queued.routes,
        }
    }

    /// The batch in flight is durable: only now is anything of it shown.
    pub(crate) fn on_committed(&mut self, effects: &mut Effects) {
        assert!(self.in_flight, "only what is in flight can be committed");
        self.in_flight = false;
        for row in std::mem::take(&mut self.flying) {
            self.commit_row(row);
        }
        for mark in std::mem::take(&mut self.flying_marks) {
            self.commit_mark(mark, effects);
        }
        while self
            .waiters
            .front()
            .is_some_and(|(seq, _)| *seq <= self.committed.seq)
        {
            if let Some((_, waiter)) = self.waiters.pop_front() {
                self.satisfy(waiter, effects);
            }
        }
    }

    fn commit_row(&mut self, row: EventRow) {
        assert_eq!(row.seq, self.committed.seq + 1, "seqs are gapless");
        self.committed = Head {
            seq: row.seq,
            ordinal: row.ordinal,
            created_ms: row.created_ms,
        };
        let effect = ChannelFold.effect(&row);
        if effect.is_message {
            self.roster.mark_read(row.sender, row.seq, row.ordinal);
        } else {
            apply_meta(&mut self.meta, &effect);
            self.roster.commit(&effect.members, place(&row));
        }
        self.tail.push_back(row);
        while self.tail.len() > self.rules.tail_events.max(1) {
            self.tail.pop_front();
        }
    }

    fn satisfy(&mut self, waiter: Waiter, effects: &mut Effects) {
        match waiter {
            Waiter::Sent {
                session,
                request,
                acks,
                ..
            } => effects
                .pushes
                .push((session, Push::Acked { request, acks })),
            Waiter::View { ticket, user } => self.on_view(user, ticket, effects),
            Waiter::Done { ticket } => effects.answer(ticket, Ok(Answer::Done)),
            Waiter::Pending { ticket, answers } => {
                effects.answer(ticket, Ok(Answer::Pending(answers)));
            }
        }
    }

    /// Answers when the log is committed up to `seq`: at once if it is.
    pub(super) fn wait_for(&mut self, seq: Seq, waiter: Waiter, effects: &mut Effects) {
        if seq <= self.committed.seq {
            return self.satisfy(waiter, effects);
        }
        let place = self.waiters.partition_point(|(other, _)| *other <= seq);
        self.waiters.insert(place, (seq, waiter));
    }

    /// Whether a waiter that brings no event of its own finds room.
    pub(super) fn has_room_to_wait(&self) -> bool {
        self.waiters.len() < WAITERS_MAX
    }

    /// Why `events` more of `bytes` cannot be sequenced now, if so.
    pub(super) fn no_room(&self, context: &Context<'_>, events: usize) -> Option<Refused> {
        if let Err(refusal) = context.admission {
            return Some(refuse::not_admitted(refusal));
        }
        if self.queue.len() + events > WAITING_EVENTS_MAX || self.queue_bytes > WAITING_BYTES_MAX {
            return Some(refuse::overloaded(
                "too much waits in front of this channel",
            ));
        }
        if context.behind > super::outbox::OUTBOX_MAX {
            return Some(refuse::overloaded("deliveries of this channel are behind"));
        }
        if (conch_wire::limits::SEQ_MAX - self.sequenced.seq) < events as u32 {
            return Some(refuse::refused(
                conch_wire::Code::ChannelFull,
                "the channel has used up its sequence numbers",
            ));
        }
        None
    }

    pub(super) fn park(&mut self, parked: Parked) -> u64 {
        self.next_park += 1;
        self.parked.insert(self.next_park, parked);
        self.next_park
    }

    /// A row by its seq, if it is in memory: sequenced, in flight or in the tail.
    pub(super) fn row(&self, seq: Seq) -> Option<&EventRow> {
        if seq > self.committed.seq {
            let index = (seq - self.committed.seq - 1) as usize;
            return match self.flying.get(index) {
                Some(row) => Some(row),
                None => self
                    .queue
                    .get(index - self.flying.len())
                    .map(|queued| &queued.row),
            };
        }
        let oldest = self.tail.front()?.seq;
        self.tail.get(seq.checked_sub(oldest)? as usize)
    }

    fn routes_to_present(&self) -> Arc<Routes> {
        Routes::to(
            self.roster.present_sequenced().map(|(user, _)| user),
            self.rules.shards,
        )
    }

    /// Whether nothing waits in it and nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.in_flight
            && self.queue.is_empty()
            && self.marks.is_empty()
            && self.waiters.is_empty()
            && self.parked.is_empty()
    }

    /// Whether there is no such channel, nor will there be by what is on its way.
    pub(crate) fn is_absent(&self) -> bool {
        self.sequenced.seq == 0
    }

    /// The channel stops: those who wait for the store are told `parked` (certain: nothing of them has a place).
    pub(crate) fn give_up_parked(&mut self, refused: Refused, effects: &mut Effects) {
        for parked in std::mem::take(&mut self.parked).into_values() {
            match parked {
                Parked::Send(send) => send.refuse(refused, effects),
                Parked::Pending(pending) => pending.give_up(effects),
                Parked::Read(read) => effects.answer(read.ticket, Err(refused)),
            }
        }
    }

    /// The state is lost: everyone who waits is told that the outcome is not known.
    pub(crate) fn give_up(&mut self, effects: &mut Effects) {
        let refused = refuse::unknown("the channel failed inside and is loaded again");
        self.give_up_parked(refused, effects);
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            match waiter {
                Waiter::Sent {
                    session,
                    request,
                    frame_type,
                    ..
                } => effects.pushes.push((
                    session,
                    Push::Refused {
                        request,
                        frame_type,
                        refused,
                    },
                )),
                Waiter::View { ticket, .. } | Waiter::Done { ticket } => {
                    effects.answer(ticket, Err(refused));
                }
                Waiter::Pending { ticket, answers } => {
                    let unknown = vec![PendingAnswer::Unknown; answers.len()];
                    effects.answer(ticket, Ok(Answer::Pending(unknown)));
                }
            }
        }
        let marks = std::mem::take(&mut self.marks);
        let flying = std::mem::take(&mut self.flying_marks);
        for ticket in marks
            .into_iter()
            .chain(flying)
            .flat_map(|mark| mark.tickets)
        {
            effects.answer(ticket, Err(refused));
        }
    }
}

fn place(row: &EventRow) -> Place {
    Place {
        seq: row.seq,
        ordinal: row.ordinal,
    }
}

fn leavers(effect: &EventEffect) -> SmallVec<[UserId; 1]> {
    effect
        .members
        .iter()
        .filter_map(|change| match change {
            MemberChange::Leave { user } => Some(*user),
            MemberChange::Join { .. } => None,
        })
        .collect()
}

fn apply_meta(meta: &mut Option<ChannelMeta>, effect: &EventEffect) {
    if let (None, Some(kind)) = (&meta, effect.created) {
        *meta = Some(ChannelMeta {
            kind,
            title: String::new(),
        });
    }
    if let (Some(meta), Some(title)) = (meta, &effect.title) {
        meta.title.clone_from(title);
    }
}
