//! Finding what was missed, and fetching it.
//!
//! **SYNC** finds: the channels that changed since a token. One chain of pages runs at a time; each page's rows are
//! remembered (with their heads, so that a gap is noted even if it is filled later) in the same storage step as its token.
//! It is asked for whenever the server says so, or says an inbox position above the one that was covered.
//!
//! **HISTORY** fetches: a few gaps at a time, one page per channel, oldest first; and, when the person scrolls back, the page
//! below what this device holds.

use conch_wire::frame::{ErrorFrame, History, HistoryPage, SyncChanges, SyncRow};
use conch_wire::limits::{HISTORY_ITEMS_MAX, SYNC_ROWS_MAX};
use conch_wire::{ChannelId, ClientFrame, Code, Seq};

use super::advice::Advice;
use super::backoff::Backoff;
use super::channel::{Channel, is_message};
use super::event::{Event, Message};
use super::merge::Arrived;
use super::out::Outcome;
use super::persist::{ListingPhase, MessageRow, Persist};
use super::requests::Asked;
use super::{Core, Ms};

/// First and longest wait of a refused SYNC, in milliseconds.
const RETRY_BASE_MS: Ms = 200;
const RETRY_CAP_MS: Ms = 10_000;

/// How far this device follows the user's inbox.
#[derive(Debug)]
pub(super) struct SyncState {
    /// The highest inbox position that the server spoke of on this connection.
    seen: u64,
    /// Changes up to here are remembered.
    covered: u64,
    /// A chain of pages runs, and covers this much when it ends.
    chain: Option<u64>,
    /// The server said that there is something, without a position.
    wanted: bool,
    not_before: Ms,
    backoff: Backoff,
    /// Until when the server's own first page, and its answers to HELLO's cursors, are waited for.
    first_due: Option<Ms>,
    /// No gap is asked for before this: the last one was refused for going too fast.
    gaps_not_before: Ms,
}

impl Default for SyncState {
    fn default() -> Self {
        SyncState {
            seen: 0,
            covered: 0,
            chain: None,
            wanted: false,
            not_before: 0,
            backoff: Backoff::new(RETRY_BASE_MS, RETRY_CAP_MS),
            first_due: None,
            gaps_not_before: 0,
        }
    }
}

impl SyncState {
    /// The server sends the first page by itself.
    pub(super) fn on_welcome(&mut self, position: u64, first_due: Ms) {
        self.seen = position;
        self.chain = Some(position);
        self.first_due = Some(first_due);
    }

    pub(super) fn on_position(&mut self, position: u64) {
        self.seen = self.seen.max(position);
    }

    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    pub(super) fn on_disconnected(&mut self) {
        *self = SyncState::default();
    }

    fn begins(&mut self, now: Ms) -> bool {
        let due = self.chain.is_none() && (self.wanted || self.seen > self.covered);
        if !due || now < self.not_before {
            return false;
        }
        self.wanted = false;
        self.chain = Some(self.seen);
        true
    }

    fn ended(&mut self) {
        if let Some(position) = self.chain.take() {
            self.covered = self.covered.max(position);
        }
        self.backoff.succeeded();
    }
}

impl Core {
    pub(super) fn pump_sync(&mut self, now: Ms) {
        if self.sync.first_due.is_some_and(|due| now >= due) {
            self.sync.first_due = None;
            self.give_up_cursors(now);
            if self.sync.chain.is_some() && !self.requests.is_syncing() {
                self.sync.chain = None;
                self.sync.wanted = true;
            }
        }
        if self.sync.begins(now) {
            self.ask_sync();
        }
    }

    pub(super) fn next_sync_at(&self) -> Option<Ms> {
        let waits = self.sync.chain.is_none() && self.sync.not_before > 0 && self.sync.wanted;
        let refused = waits.then_some(self.sync.not_before);
        self.sync.first_due.into_iter().chain(refused).min()
    }

    fn ask_sync(&mut self) {
        let request = self.requests.ask(Asked::Sync);
        let token = self.meta.sync_token.clone();
        self.put(&ClientFrame::Sync {
            request,
            token,
            rows_max: SYNC_ROWS_MAX as u16,
        });
    }

    pub(super) fn on_sync_changes(&mut self, now: Ms, request: u32, changes: &SyncChanges) {
        match self.requests.answered(request) {
            Some(Asked::Sync) => {}
            None if request == 0 => {}
            _ => return self.distrust(now, "SYNC_CHANGES that answers nothing"),
        }
        if changes.reset {
            self.meta.listing.round = self.meta.listing.round.wrapping_add(1);
            self.meta.listing.phase = ListingPhase::Pages;
        }
        if changes.reset || self.meta.sync_token.is_empty() {
            self.first_sights = self.config.first_sight_channels;
        }
        for row in &changes.rows {
            self.on_row(now, row);
        }
        if !changes.token.is_empty() {
            self.meta.sync_token.clone_from(&changes.token);
        }
        if changes.more {
            self.sync.chain = self.sync.chain.or(Some(0));
            self.ask_sync();
        } else {
            self.sync.ended();
            self.on_listing_end();
        }
        self.save_meta();
    }

    fn on_row(&mut self, now: Ms, row: &SyncRow) {
        let id = row.head.channel;
        if !self.channels.contains_key(&id) {
            if row.left_seq.is_some() {
                return; // never seen here, and not ours any more
            }
            let channel = self.first_sight(row);
            self.channels.insert(id, channel);
        }
        let round = self.meta.listing.round;
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.on_row(row);
        channel.listed = round;
        self.changed.insert(id);
        if row.left_seq.is_none() && row.head.head_seq >= row.first_seq {
            self.skip_to(id, row.first_seq);
        }
        self.place(now, id);
        if self.aliases.open(id).is_some() || !self.aliases.is_opening(id) {
            self.note_gap(now, id);
        }
    }

    fn first_sight(&mut self, row: &SyncRow) -> Channel {
        let is_listing =
            self.meta.listing.phase == ListingPhase::Pages || self.meta.sync_token.is_empty();
        let window = if !is_listing {
            self.config.first_sight_events
        } else if self.first_sights > 0 {
            self.first_sights -= 1;
            self.config.first_sight_events
        } else {
            0
        };
        let mut channel = Channel::new(
            row.head.channel,
            row.kind,
            row.first_seq,
            row.head.head_seq,
            window,
        );
        channel.shown = self.shown.contains(&channel.id);
        channel
    }

    /// After the last page of a chain: a listing is checked by one more, then what it did not mention is gone.
    fn on_listing_end(&mut self) {
        match self.meta.listing.phase {
            ListingPhase::None => {}
            ListingPhase::Pages => {
                self.meta.listing.phase = ListingPhase::Check;
                self.sync.want();
            }
            ListingPhase::Check => {
                self.meta.listing.phase = ListingPhase::None;
                let round = self.meta.listing.round;
                let gone: Vec<_> = self
                    .channels
                    .values()
                    .filter(|it| it.listed != round && !self.requests.is_opening(it.id))
                    .map(|it| it.id)
                    .collect();
                gone.into_iter().for_each(|id| self.remove_channel(id));
            }
        }
    }

    fn remove_channel(&mut self, id: ChannelId) {
        self.channels.remove(&id);
        self.changed.remove(&id);
        self.gaps.remove(&id);
        self.marks_due.remove(&id);
        self.drop_unplaced(id, Seq::MAX);
        self.out.persist.push(Persist::ChannelRemoved(id));
        self.out.events.push(Event::ChannelRemoved { channel: id });
    }

    pub(super) fn on_sync_refused(&mut self, now: Ms, error: &ErrorFrame) {
        self.sync.chain = None;
        self.sync.wanted = true;
        let delay = self
            .sync
            .backoff
            .failed(error.retry_after_ms.into(), &mut self.jitter);
        self.sync.not_before = now + delay;
    }

    /// The server could not read what HELLO's sync token asks for: its first page does not come.
    pub(super) fn on_first_sync_refused(&mut self, now: Ms, error: &ErrorFrame) {
        if self.sync.chain.is_some() && !self.requests.is_syncing() {
            self.on_sync_refused(now, error);
        }
    }

    pub(super) fn next_gap_at(&self) -> Option<Ms> {
        if !self.requests.has_gap_room() {
            return None;
        }
        let gaps = self.gaps.iter().filter_map(|id| {
            let channel = self.channels.get(id)?;
            (!channel.fetching).then_some(channel.gap_due?)
        });
        Some(gaps.min()?.max(self.sync.gaps_not_before))
    }

    pub(super) fn pump_gaps(&mut self, now: Ms) {
        if now < self.sync.gaps_not_before {
            return;
        }
        let due: Vec<_> = self
            .gaps
            .iter()
            .copied()
            .filter(|id| self.channels.get(id).is_some_and(|it| is_due(it, now)))
            .collect();
        let (shown, others): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|id| self.shown.contains(id));
        for id in shown.into_iter().chain(others) {
            if !self.requests.has_gap_room() {
                return;
            }
            self.fetch_gap(id);
        }
    }

    fn fetch_gap(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.gap_due = None;
        let Some((from, to)) = channel.missing() else {
            self.gaps.remove(&id);
            return;
        };
        channel.fetching = true;
        let request = self.requests.ask(Asked::Gap(id));
        self.put(&ClientFrame::History {
            request,
            history: History {
                channel: id,
                from,
                to,
                items_max: HISTORY_ITEMS_MAX as u16,
                newest_first: false,
            },
        });
    }

    pub(super) fn on_history_page(&mut self, now: Ms, request: u32, page: HistoryPage) {
        let asked = self.requests.answered(request);
        if !is_sound(&page) {
            return self.distrust(now, "a page with holes");
        }
        match asked {
            Some(Asked::Gap(id)) if id == page.channel => self.on_gap_page(now, page),
            Some(Asked::Older {
                channel,
                ticket,
                to,
            }) if channel == page.channel => self.on_older_page(ticket, to, page),
            Some(Asked::Range { channel, ticket }) if channel == page.channel => {
                let read = |event| Message::read(channel, event, None);
                let events = page.events.iter().map(read).collect();
                self.answer(ticket, Outcome::Page(events));
            }
            _ => self.distrust(now, "a page that answers nothing"),
        }
    }

    fn on_gap_page(&mut self, now: Ms, page: HistoryPage) {
        let id = page.channel;
        let attempts = self.outbox.attempts();
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.fetching = false;
        channel.fetch_backoff.succeeded();
        self.requests.on_gap_page();
        let before = channel.log.have();
        channel
            .log
            .note_head(page.head_seq.min(channel.left_seq.unwrap_or(Seq::MAX)));
        // An empty range with `first_seq` above it: nothing of the hole is left for us.
        if page.head_seq >= page.first_seq {
            self.skip_to(id, page.first_seq);
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let brought = !page.events.is_empty();
        for event in page.events {
            channel.log.arrive(Arrived {
                event,
                key: None,
                attempts,
            });
        }
        let moved = channel.log.have() != before || brought;
        self.place(now, id);
        if moved {
            self.note_gap(now, id);
        } else if let Some(channel) = self.channels.get_mut(&id) {
            // The server has nothing for this hole now; the next hint asks again.
            channel.gap_due = None;
            self.gaps.remove(&id);
        }
    }

    pub(super) fn on_gap_refused(&mut self, now: Ms, id: ChannelId, error: &ErrorFrame) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.fetching = false;
        if Advice::of(error.code.number()) == Advice::RetryHere {
            let delay = channel
                .fetch_backoff
                .failed(error.retry_after_ms.into(), &mut self.jitter);
            self.requests.on_gap_refused();
            if error.code == Code::RateLimited {
                self.sync.gaps_not_before = now + delay;
            }
            self.note_gap(now + delay, id);
        } else {
            self.gaps.remove(&id);
        }
    }

    pub(super) fn on_load_older(&mut self, ticket: u64, id: ChannelId, items: u16) {
        let Some(channel) = self.channels.get(&id) else {
            return self.answer(ticket, Outcome::AtStart);
        };
        let (first, to) = (channel.first_seq.max(1), channel.log.base() - 1);
        if to < first {
            return self.answer(ticket, Outcome::AtStart);
        }
        if !self.link.is_online() || !self.requests.has_page_room() {
            return self.answer(ticket, Outcome::Offline);
        }
        let request = self.requests.ask(Asked::Older {
            channel: id,
            ticket,
            to,
        });
        self.put(&ClientFrame::History {
            request,
            history: History {
                channel: id,
                from: first,
                to,
                items_max: items.clamp(1, HISTORY_ITEMS_MAX as u16),
                newest_first: true,
            },
        });
    }

    /// Events of a range, which need not touch what this device holds.
    pub(super) fn on_load_range(
        &mut self,
        ticket: u64,
        id: ChannelId,
        from: Seq,
        to: Seq,
        items: u16,
    ) {
        if from > to {
            return self.answer(ticket, Outcome::Page(Vec::new()));
        }
        if !self.link.is_online() || !self.requests.has_page_room() {
            return self.answer(ticket, Outcome::Offline);
        }
        let request = self.requests.ask(Asked::Range {
            channel: id,
            ticket,
        });
        self.put(&ClientFrame::History {
            request,
            history: History {
                channel: id,
                from,
                to,
                items_max: items.clamp(1, HISTORY_ITEMS_MAX as u16),
                newest_first: false,
            },
        });
    }

    fn on_older_page(&mut self, ticket: u64, to: Seq, page: HistoryPage) {
        let id = page.channel;
        let Some(channel) = self.channels.get_mut(&id) else {
            return self.answer(ticket, Outcome::AtStart);
        };
        if page.events.is_empty() {
            channel.first_seq = channel.first_seq.max(page.first_seq);
            self.changed.insert(id);
            return self.answer(ticket, Outcome::AtStart);
        }
        let base = channel.log.base();
        // The run may have started again elsewhere since this was asked.
        if page.covered_to == to && base == to + 1 {
            channel.log.extend_down(page.covered_from);
            channel.first_seq = channel.first_seq.max(page.first_seq);
            self.changed.insert(id);
            let is_message = |event: &&conch_wire::Event| is_message(event);
            if let Some(newest) = page.events.iter().rev().find(is_message) {
                channel.saw_message(newest);
            }
            let rows = page.events.into_iter().map(|event| {
                Persist::Message(MessageRow {
                    channel: id,
                    event,
                    key: None,
                })
            });
            self.out.persist.extend(rows);
        }
        self.answer(ticket, Outcome::Loaded);
    }

    pub(super) fn on_page_refused(&mut self, ticket: u64, error: &ErrorFrame) {
        self.answer(ticket, Outcome::Refused(error.code));
    }
}

fn is_due(channel: &Channel, now: Ms) -> bool {
    !channel.fetching && channel.gap_due.is_some_and(|at| at <= now)
}

/// A page holds every event that it says it covers, in order.
fn is_sound(page: &HistoryPage) -> bool {
    if page.covered_to < page.covered_from {
        return page.events.is_empty();
    }
    let covered = page.covered_from..=page.covered_to;
    (page.covered_to - page.covered_from) as usize + 1 == page.events.len()
        && covered
            .zip(&page.events)
            .all(|(seq, event)| event.seq == seq)
}
