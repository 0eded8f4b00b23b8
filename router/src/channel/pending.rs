//! Pending sends: what became of messages whose answer a device did not get.
//!
//! Answered through the channel's queue, so behind every attempt that came before the question; a message on its way is
//! waited for. The session that the device replaces is fenced by the shard before the question is put, so `absent`
//! stays true. Former members are answered too: what they stored is stored. A stranger learns nothing: `absent`.

use conch_wire::event::PendingAnswer;
use conch_wire::{MessageKey, Seq, UserId};

use super::send::{Fate, Found};
use super::state::{ChannelState, PARKED_MAX, Parked, Waiter};
use super::{Answer, Effects, Known, LookupId, Ticket};

/// A question that waits for rows of the store.
#[derive(Debug)]
pub(super) struct ParkedPending {
    ticket: Ticket,
    user: UserId,
    keys: Vec<MessageKey>,
    found: Vec<Found>,
    asked_at: Seq,
}

impl ParkedPending {
    pub(super) fn give_up(self, effects: &mut Effects) {
        let unknown = vec![PendingAnswer::Unknown; self.keys.len()];
        effects.answer(self.ticket, Ok(Answer::Pending(unknown)));
    }
}

impl ChannelState {
    pub(super) fn on_pending(
        &mut self,
        user: UserId,
        keys: Vec<MessageKey>,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let question = ParkedPending {
            ticket,
            user,
            found: vec![Found::default(); keys.len()],
            keys,
            asked_at: self.sequenced.seq,
        };
        self.answer_pending(question, effects);
    }

    pub(super) fn resume_pending(
        &mut self,
        id: LookupId,
        mut question: ParkedPending,
        found: Result<Option<Known>, ()>,
        effects: &mut Effects,
    ) {
        let Ok(found) = found else {
            return question.give_up(effects);
        };
        if let Some(item) = question.found.get_mut(usize::from(id.item)) {
            item.answer(found);
        }
        if question.found.iter().any(Found::is_asking) {
            self.parked.insert(id.park, Parked::Pending(question));
            return;
        }
        if !self.window.covers_after(question.asked_at) {
            question.found.fill(Found::default());
            question.asked_at = self.sequenced.seq;
        }
        self.answer_pending(question, effects);
    }

    fn answer_pending(&mut self, mut question: ParkedPending, effects: &mut Effects) {
        let mut answers = Vec::with_capacity(question.keys.len());
        let mut lookups = Vec::new();
        let mut ready_at = 0;
        for (index, &key) in question.keys.iter().enumerate() {
            answers.push(
                match self.fate(question.user, key, true, &question.found[index]) {
                    Fate::Placed(known) => {
                        ready_at = ready_at.max(known.seq);
                        PendingAnswer::Stored {
                            seq: known.seq,
                            time_ms: known.time_ms,
                        }
                    }
                    Fate::Unknown => PendingAnswer::Absent,
                    Fate::Ask(lookup) => {
                        lookups.push((index as u16, lookup));
                        PendingAnswer::Unknown
                    }
                },
            );
        }
        if lookups.is_empty() {
            let ticket = question.ticket;
            if ready_at > self.committed.seq && !self.has_room_to_wait() {
                return question.give_up(effects);
            }
            return self.wait_for(ready_at, Waiter::Pending { ticket, answers }, effects);
        }
        if self.parked.len() >= PARKED_MAX {
            return question.give_up(effects);
        }
        for &(index, lookup) in &lookups {
            question.found[usize::from(index)].ask(lookup);
        }
        let park = self.park(Parked::Pending(question));
        let ids = lookups
            .into_iter()
            .map(|(item, lookup)| (LookupId { park, item }, lookup));
        effects.lookups.extend(ids);
    }
}
