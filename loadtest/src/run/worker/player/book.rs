//! What a device does with orders and with what its state tells: sends, pages, counts, and the checker's notes.

use std::rc::Rc;

use conch_wire::ChannelId;

use super::{Do, Driver};
use crate::device::note_down;
use crate::device::stamp::Stamp;
use crate::device::state::Note;

/// Pages that may wait for room in front of one device; more are not asked for.
const PAGES_WAITING_MAX: usize = 64;

impl Driver {
    pub(super) fn obey_all(&mut self, first: Do) {
        let mut next = Some(first);
        while let Some(order) = next {
            self.obey(order);
            next = self.inbox.try_recv().ok();
        }
    }

    pub(super) fn obey(&mut self, order: Do) {
        match order {
            Do::Say {
                channel,
                due,
                batch,
                payload_bytes,
            } => {
                let now = self.shared.now();
                self.shared.tally.borrow_mut().sent(due, batch, now, true);
                self.say(channel, due, batch, payload_bytes);
            }
            Do::Keep { channel, window } => {
                self.windows.insert(channel, window);
                self.refill(channel);
            }
            Do::Page { channel, items } => {
                if self.pages.waiting.len() < PAGES_WAITING_MAX {
                    let now = self.shared.now();
                    self.pages.waiting.push_back((channel, items, now));
                    self.ask_pages();
                } else {
                    self.shared.tally.borrow_mut().dropped();
                }
            }
            Do::Read { channel } => {
                self.state.read(channel);
                let now = self.shared.now();
                self.shared.tally.borrow_mut().read_mark(now);
            }
            Do::Vanish(away) => self.vanish = Some(away),
            Do::Stall(time) => self.stall = Some(time),
        }
    }

    fn say(&mut self, channel: ChannelId, stamp: Stamp, count: usize, bytes: usize) {
        let shared = Rc::clone(&self.shared);
        let messages = (0..count).map(|_| {
            let text = stamp.write(shared.next_number(), bytes);
            (shared.next_key(), text)
        });
        let now = self.now_ms();
        self.state.say_many(channel, messages, now);
    }

    /// A closed loop sends as much as its window lets it.
    fn refill(&mut self, channel: ChannelId) {
        loop {
            let Some(window) = self.windows.get_mut(&channel) else {
                return;
            };
            let batch = window.batch.min(window.left.unwrap_or(usize::MAX));
            let goes_on = window.left.is_some() || self.shared.is_sending.get();
            if batch == 0 || !goes_on || window.open + batch > window.size {
                if window.open == 0 && (batch == 0 || !goes_on) {
                    self.windows.remove(&channel);
                }
                return;
            }
            window.open += batch;
            let bytes = window.payload_bytes;
            if let Some(left) = &mut window.left {
                *left -= batch;
                self.shared
                    .stored
                    .set(self.shared.stored.get() + batch as u64);
            }
            let now = self.shared.now();
            self.shared
                .tally
                .borrow_mut()
                .sent(Stamp(now), batch, now, false);
            self.say(channel, Stamp(now), batch, bytes);
        }
    }

    fn ask_pages(&mut self) {
        while let Some((channel, items, wanted)) = self.pages.waiting.pop_front() {
            let newest = self.state.have(channel).max(1);
            let to = self.pages.next_to.get(&channel).copied().unwrap_or(newest);
            let Some(request) = self.state.page_back(channel, to, items) else {
                self.pages.waiting.push_front((channel, items, wanted));
                return;
            };
            self.pages.asked.insert(request, wanted);
        }
    }

    /// Tells checker and tally what happened until nothing more follows from it. Comes before bytes leave.
    pub(super) fn settle(&mut self) {
        loop {
            let notes = self.state.take_notes();
            if notes.is_empty() {
                break;
            }
            let now = self.shared.now();
            let mut answered = Vec::new();
            for note in notes {
                self.count(&note, now, &mut answered);
                if let Some(checker) = self.shared.checker.borrow_mut().as_mut() {
                    note_down(checker, &self.seat.login.borrow(), note);
                }
            }
            answered.dedup();
            for channel in answered {
                self.refill(channel);
            }
            if !self.pages.waiting.is_empty() {
                self.ask_pages();
            }
        }
        let unsettled = self.state.tally().unsettled;
        let others = self.shared.unsettled.get() - self.seat.unsettled.get();
        self.shared.unsettled.set(others + unsettled);
        self.seat.unsettled.set(unsettled);
        let is_current = !self.asks_what_it_missed && self.state.is_current();
        self.seat.is_current.set(is_current);
        if let Some(since) = self.back_since.filter(|_| is_current) {
            self.back_since = None;
            self.is_excused = false;
            let now = self.shared.now();
            self.shared.tally.borrow_mut().caught_up(since, now);
        }
    }

    fn count(&mut self, note: &Note, now: u64, answered: &mut Vec<ChannelId>) {
        let mut tally = self.shared.tally.borrow_mut();
        // Late because it was told to be: it says nothing of the node. A connection that the node lost does.
        let is_excused = |stamp: Stamp| self.is_excused || stamp < self.present_from;
        match note {
            Note::Acked { channel, stamp, .. } => {
                tally.acked(stamp.filter(|stamp| !is_excused(*stamp)), now);
                if let Some(window) = self.windows.get_mut(channel) {
                    window.open = window.open.saturating_sub(1);
                    answered.push(*channel);
                }
            }
            Note::GivenUp { channel, .. } => {
                tally.error("a message was refused for good");
                if let Some(window) = self.windows.get_mut(channel) {
                    window.open = window.open.saturating_sub(1);
                    answered.push(*channel);
                }
            }
            Note::Shown {
                stamp: Some(stamp), ..
            } => tally.delivered(*stamp, is_excused(*stamp), now),
            Note::Page {
                channel,
                request,
                events,
            } => {
                if let Some(wanted) = self.pages.asked.remove(request) {
                    tally.page(wanted, events.len(), now);
                }
                match events.first().map(|event| event.seq) {
                    Some(oldest) if oldest > 1 => self.pages.next_to.insert(*channel, oldest - 1),
                    // At the beginning: from the newest again.
                    _ => self.pages.next_to.remove(channel),
                };
            }
            _ => {}
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.shared.now() / 1_000_000
    }
}
