//! Reading: views, member lists, pages and read marks, all clipped at the committed position.
//!
//! Who was never a member sees what is seen of a channel that does not exist: `not_found`. A former member sees
//! everything from where they joined up to the event that ended it, and nothing behind. Pages come from the tail in
//! memory when it covers them, else from the store, whose rows are then within a range checked here.
//!
//! A read mark is clamped to what its user may see, never moves back, is durable before it is answered, and carries the
//! ordinal at its place, so that unread counts are a subtraction.

use std::ops::RangeInclusive;

use conch_store::{Range, ReadLimit, Record};
use conch_wire::event::{ChannelKind, MemberRole};
use conch_wire::frame::ChannelHead;
use conch_wire::{Ordinal, Seq, UserId};
use smallvec::SmallVec;

use super::roster::Member;
use super::state::{ChannelState, PARKED_MAX, Parked};
use super::{Answer, Context, Effects, Known, Lookup, LookupId, PageRead, Ticket};
use crate::refuse;
use crate::{ChannelView, HistoryRequest, HistoryRows, MemberView, Refused};

/// Users whose marks wait for the batch in flight; more are refused. As many as a group may have members.
const MARKS_MAX: usize = conch_wire::limits::GROUP_MEMBERS_MAX;

/// A read mark on its way into the log; all of one user's moves while a batch flies become one.
#[derive(Debug)]
pub(super) struct QueuedMark {
    pub(super) user: UserId,
    pub(super) seq: Seq,
    pub(super) ordinal: Ordinal,
    pub(super) tickets: SmallVec<[Ticket; 1]>,
}

/// A question that waits for the ordinal of one row.
#[derive(Debug)]
pub(super) struct ParkedRead {
    pub(super) ticket: Ticket,
    user: UserId,
    what: Wanted,
    seq: Seq,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// A former member's view: the head is where they left.
    View,
    Mark,
    /// A former member's head, because a mark that does not move is answered with it.
    Head,
}

impl ChannelState {
    pub(super) fn on_view(&mut self, user: UserId, ticket: Ticket, effects: &mut Effects) {
        let Some(&member) = self.roster.committed(user) else {
            return effects.answer(ticket, Err(refuse::not_found()));
        };
        match self.ordinal_of_last(&member) {
            Ok(ordinal) => {
                let view = self.view(user, &member, ordinal).map(Answer::View);
                effects.answer(ticket, view);
            }
            Err(seq) => self.ask_ordinal(ticket, user, Wanted::View, seq, effects),
        }
    }

    fn view(
        &self,
        user: UserId,
        member: &Member,
        ordinal: Ordinal,
    ) -> Result<ChannelView, Refused> {
        let meta = self.meta.as_ref().ok_or_else(refuse::not_found)?;
        let others = self.roster.present().map(|(other, _)| other);
        Ok(ChannelView {
            head: self.head_of(member, ordinal),
            kind: meta.kind,
            title: meta.title.clone(),
            peer: match meta.kind {
                ChannelKind::Direct => others.into_iter().find(|&other| other != user),
                ChannelKind::Group | ChannelKind::SelfLog => None,
            },
            first_seq: member.visible_from,
            left_seq: member.left_seq,
            role: self.role_for(user, member),
            members: self.roster.present().count() as u32,
        })
    }

    fn role_for(&self, user: UserId, member: &Member) -> MemberRole {
        match self.meta.as_ref().map(|meta| meta.kind) {
            Some(ChannelKind::Group) => self.roster.role(user),
            _ => member.role,
        }
    }

    fn head_of(&self, member: &Member, ordinal: Ordinal) -> ChannelHead {
        ChannelHead {
            channel: self.id,
            head_seq: member.left_seq.unwrap_or(self.committed.seq),
            head_ordinal: ordinal,
            read_seq: member.read_seq,
            read_ordinal: member.read_ordinal,
            mentions: 0,
        }
    }

    /// Ordinal of the last event that a member may see; `Err`: the seq to look it up at.
    fn ordinal_of_last(&self, member: &Member) -> Result<Ordinal, Seq> {
        match member.left_seq {
            None => Ok(self.committed.ordinal),
            Some(seq) => member
                .left_ordinal
                .or_else(|| self.ordinal_at(seq))
                .ok_or(seq),
        }
    }

    /// Ordinal at a committed seq, if memory has it.
    fn ordinal_at(&self, seq: Seq) -> Option<Ordinal> {
        if seq == self.committed.seq {
            return Some(self.committed.ordinal);
        }
        self.row(seq).map(|row| row.ordinal)
    }

    pub(super) fn members_for(&self, user: UserId) -> Result<Vec<MemberView>, Refused> {
        if !self.roster.committed(user).is_some_and(Member::is_present) {
            return Err(refuse::not_found());
        }
        let mut members: Vec<MemberView> = self
            .roster
            .present()
            .map(|(user, member)| MemberView {
                user,
                role: member.role,
                joined_seq: member.joined_seq,
            })
            .collect();
        members.sort_unstable_by_key(|member| (member.joined_seq, member.user));
        if self.meta.as_ref().map(|meta| meta.kind) == Some(ChannelKind::Group)
            && !members
                .iter()
                .any(|member| member.role == MemberRole::Owner)
        {
            for member in &mut members {
                member.role = self.roster.role(member.user);
            }
        }
        Ok(members)
    }

    pub(super) fn on_history(
        &mut self,
        user: UserId,
        request: HistoryRequest,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let Some(member) = self.roster.committed(user) else {
            return effects.answer(ticket, Err(refuse::not_found()));
        };
        let first_seq = member.visible_from;
        let head_seq = member.left_seq.unwrap_or(self.committed.seq);
        let from = request.from.max(first_seq);
        let to = request.to.min(head_seq);
        let limit = ReadLimit {
            events: request.items_max.max(1),
            bytes: request.bytes_max,
        };
        if from > to {
            let nothing = HistoryRows {
                covered_from: from,
                covered_to: from.saturating_sub(1),
                first_seq,
                head_seq,
                bodies: Vec::new(),
            };
            return effects.answer(ticket, Ok(Answer::History(nothing)));
        }
        if let Some(found) = self.page_in_tail(from..=to, request.newest_first, limit) {
            let rows = HistoryRows {
                covered_from: *found.start(),
                covered_to: *found.end(),
                first_seq,
                head_seq,
                bodies: found
                    .filter_map(|seq| self.row(seq))
                    .map(|row| row.body.clone())
                    .collect(),
            };
            return effects.answer(ticket, Ok(Answer::History(rows)));
        }
        effects.pages.push(PageRead {
            ticket,
            range: Range {
                from,
                to,
                newest_first: request.newest_first,
            },
            limit,
            first_seq,
            head_seq,
        });
    }

    /// The part of a range that a page takes, if the tail alone can tell.
    fn page_in_tail(
        &self,
        range: RangeInclusive<Seq>,
        newest_first: bool,
        limit: ReadLimit,
    ) -> Option<RangeInclusive<Seq>> {
        let (from, to) = (*range.start(), *range.end());
        let oldest = self.tail.front()?.seq;
        if to < oldest || (!newest_first && from < oldest) {
            return None;
        }
        let mut seqs: Box<dyn Iterator<Item = Seq>> = if newest_first {
            Box::new(range.rev())
        } else {
            Box::new(range)
        };
        let first = seqs.next()?;
        let (mut last, mut events, mut bytes) = (first, 1, self.row(first)?.body.len());
        for seq in seqs {
            if events >= limit.events {
                break;
            }
            // Below the tail with room left in the page: the store must tell.
            let size = self.row(seq)?.body.len();
            if bytes + size > limit.bytes {
                break;
            }
            (last, events, bytes) = (seq, events + 1, bytes + size);
        }
        Some(first.min(last)..=first.max(last))
    }

    pub(super) fn on_read(
        &mut self,
        context: &Context<'_>,
        user: UserId,
        seq: Seq,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let Some(&member) = self.roster.committed(user) else {
            return effects.answer(ticket, Err(refuse::not_found()));
        };
        let target = seq.min(member.left_seq.unwrap_or(self.committed.seq));
        if target <= member.read_seq {
            return self.answer_head(user, ticket, effects);
        }
        match self.ordinal_at(target) {
            Some(ordinal) => self.queue_mark(context, user, target, ordinal, ticket, effects),
            None => self.ask_ordinal(ticket, user, Wanted::Mark, target, effects),
        }
    }

    fn queue_mark(
        &mut self,
        context: &Context<'_>,
        user: UserId,
        seq: Seq,
        ordinal: Ordinal,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        if let Err(refusal) = context.admission {
            return effects.answer(ticket, Err(refuse::not_admitted(refusal)));
        }
        if let Some(mark) = self.marks.iter_mut().find(|mark| mark.user == user) {
            if seq > mark.seq {
                (mark.seq, mark.ordinal) = (seq, ordinal);
            }
            mark.tickets.push(ticket);
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            let refused = refuse::overloaded("too many read marks wait");
            return effects.answer(ticket, Err(refused));
        }
        self.marks.push(QueuedMark {
            user,
            seq,
            ordinal,
            tickets: SmallVec::from_elem(ticket, 1),
        });
    }

    /// A mark is durable: whoever asked is answered, and all devices of the user are told.
    pub(super) fn commit_mark(&mut self, mark: QueuedMark, effects: &mut Effects) {
        self.roster.mark_read(mark.user, mark.seq, mark.ordinal);
        if let Some(member) = self.roster.committed(mark.user)
            && let Ok(ordinal) = self.ordinal_of_last(member)
        {
            effects
                .heads
                .push((mark.user, self.head_of(member, ordinal)));
        }
        for ticket in mark.tickets {
            self.answer_head(mark.user, ticket, effects);
        }
    }

    fn answer_head(&mut self, user: UserId, ticket: Ticket, effects: &mut Effects) {
        let Some(&member) = self.roster.committed(user) else {
            return effects.answer(ticket, Err(refuse::not_found()));
        };
        match self.ordinal_of_last(&member) {
            Ok(ordinal) => {
                let head = self.head_of(&member, ordinal);
                effects.answer(ticket, Ok(Answer::Head(head)));
            }
            Err(seq) => self.ask_ordinal(ticket, user, Wanted::Head, seq, effects),
        }
    }

    fn ask_ordinal(
        &mut self,
        ticket: Ticket,
        user: UserId,
        what: Wanted,
        seq: Seq,
        effects: &mut Effects,
    ) {
        if self.parked.len() >= PARKED_MAX {
            let refused = refuse::overloaded("too many questions wait for the store");
            return effects.answer(ticket, Err(refused));
        }
        let park = self.park(Parked::Read(ParkedRead {
            ticket,
            user,
            what,
            seq,
        }));
        let id = LookupId { park, item: 0 };
        effects.lookups.push((id, Lookup::Row(seq)));
    }

    pub(super) fn resume_read(
        &mut self,
        context: &Context<'_>,
        read: ParkedRead,
        found: Result<Option<Known>, ()>,
        effects: &mut Effects,
    ) {
        let Ok(Some(row)) = found else {
            let refused = refuse::unavailable("the store could not be read");
            return effects.answer(read.ticket, Err(refused));
        };
        let ParkedRead {
            ticket, user, seq, ..
        } = read;
        match read.what {
            Wanted::View => {
                self.roster.note_left_ordinal(user, seq, row.ordinal);
                self.on_view(user, ticket, effects);
            }
            Wanted::Head => {
                self.roster.note_left_ordinal(user, seq, row.ordinal);
                self.answer_head(user, ticket, effects);
            }
            Wanted::Mark => {
                // They may have read further meanwhile; the mark in the log is a maximum either way.
                self.queue_mark(context, user, seq, row.ordinal, ticket, effects);
            }
        }
    }
}

/// What a durable mark looks like in the log.
pub(super) fn mark_record(channel: conch_wire::ChannelId, mark: &QueuedMark) -> Record {
    Record::ReadMark {
        channel,
        user: mark.user,
        seq: mark.seq,
        ordinal: mark.ordinal,
    }
}
