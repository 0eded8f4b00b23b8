//! What a shard reads from the store: channels to load, rows that a state asks for, pages, pairs.
//!
//! Every read is one of the bounded [`super::reads::Reads`] (a pair, which may wait for the log, is bounded by its queue)
//! and comes back as a completion. An answer for a channel that has begun another life meanwhile is dropped.

use std::collections::VecDeque;
use std::panic::catch_unwind;

use conch_store::{ChannelSnapshot, Range, ReadLimit};
use conch_wire::ChannelId;

use super::input::{Completion, PairKey};
use super::pair;
use super::reads::{Running, read};
use super::slot::{Phase, Request};
use super::task::Shard;
use crate::channel::state::ChannelState;
use crate::channel::window::WINDOW_KEYS;
use crate::channel::{Known, Lookup, LookupId, PageRead};
use crate::{HistoryRows, refuse};

impl Shard {
    pub(super) fn on_loaded(
        &mut self,
        channel: ChannelId,
        life: u64,
        snapshot: Option<Option<ChannelSnapshot>>,
    ) {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        let Phase::Loading(waiting) = &mut slot.phase else {
            return;
        };
        if slot.life != life {
            return;
        }
        let waiting = std::mem::take(waiting);
        self.waiting = self.waiting.saturating_sub(waiting.len());
        let (epoch, rules) = (self.epoch, self.rules);
        let state = snapshot.and_then(|snapshot| {
            catch_unwind(|| ChannelState::load(channel, epoch, rules, snapshot)).ok()
        });
        let Some(state) = state else {
            // The panics counted so far would be forgotten with the slot; deliveries may still wait in it.
            if slot.panics == 0 && slot.outbox.is_empty() && !slot.behind {
                self.channels.remove(&channel);
            } else {
                // The next request tries again: a store that fails must not be asked in a circle.
                slot.phase = Phase::Settling(VecDeque::new());
            }
            for request in waiting {
                let refused = refuse::unavailable("the channel could not be loaded");
                self.refuse_request(request, refused);
            }
            return;
        };
        slot.phase = Phase::Loaded(Box::new(state));
        self.touch(channel);
        let admission = self.admission(waiting.iter().map(Request::bytes).sum());
        for request in waiting {
            self.on_request(channel, request, admission);
        }
    }

    pub(super) fn on_found(
        &mut self,
        channel: ChannelId,
        life: u64,
        id: LookupId,
        found: Result<Option<Known>, ()>,
    ) {
        let Some(slot) = self.channels.get(&channel) else {
            return;
        };
        let Phase::Loaded(state) = &slot.phase else {
            return;
        };
        if slot.life != life {
            return;
        }
        let admission = self.admission(state.parked_bytes(id));
        self.with_state(channel, admission, |state, context, effects| {
            state.on_found(context, id, found, effects);
        });
    }

    pub(super) fn start_read(&mut self, read: Running) {
        if let Some(read) = self.reads.start(read) {
            self.completions.push(read);
        }
    }

    pub(super) fn on_read_ended(&mut self) {
        if let Some(next) = self.reads.ended() {
            self.completions.push(next);
        }
    }

    pub(super) fn start_load(&mut self, channel: ChannelId, life: u64) {
        let store = self.store.clone();
        let tail = self.rules.tail_events;
        let read = read(
            async move { store.load_channel(channel, tail, WINDOW_KEYS).await },
            Err(conch_store::ReadError::Closed),
            move |result| {
                if let Err(error) = &result {
                    tracing::warn!(%channel, %error, "a channel could not be loaded");
                }
                Completion::Loaded {
                    channel,
                    life,
                    result,
                }
            },
        );
        self.start_read(read);
    }

    pub(super) fn start_lookup(
        &mut self,
        channel: ChannelId,
        life: u64,
        id: LookupId,
        lookup: Lookup,
    ) {
        let store = self.store.clone();
        let find = async move {
            let row = match lookup {
                Lookup::Key { sender, key } => store.find_key(channel, sender, key).await,
                Lookup::Row(seq) => {
                    let range = Range {
                        from: seq,
                        to: seq,
                        newest_first: false,
                    };
                    let one = ReadLimit {
                        events: 1,
                        bytes: 0,
                    };
                    let rows = store.read_events(channel, range, one).await;
                    rows.map(|rows| rows.into_iter().next())
                }
            };
            row.map(|row| row.as_ref().map(Known::of)).map_err(|error| {
                tracing::warn!(%channel, %error, "a row could not be read");
            })
        };
        self.start_read(read(find, Err(()), move |result| Completion::Found {
            channel,
            life,
            id,
            result,
        }));
    }

    pub(super) fn start_page(&mut self, channel: ChannelId, page: PageRead) {
        if !self.reads.has_room() {
            let refused = refuse::overloaded("too many store reads wait");
            return self.answer(page.ticket, Err(refused));
        }
        let store = self.store.clone();
        let fetch = async move {
            let rows = store.read_events(channel, page.range, page.limit).await;
            let rows = rows.map_err(|error| {
                tracing::warn!(%channel, %error, "history could not be read");
                refuse::unavailable("the store could not be read")
            })?;
            let covered_from = rows.first().map_or(page.range.from, |row| row.seq);
            let covered_to = rows
                .last()
                .map_or(page.range.from.saturating_sub(1), |row| row.seq);
            Ok(HistoryRows {
                covered_from,
                covered_to,
                first_seq: page.first_seq,
                head_seq: page.head_seq,
                bodies: rows.into_iter().map(|row| row.body).collect(),
            })
        };
        let failed = Err(refuse::unavailable("the store could not be read"));
        let ticket = page.ticket;
        self.start_read(read(fetch, failed, move |result| Completion::Page {
            ticket,
            result,
        }));
    }

    pub(super) fn start_pair(&mut self, pair: PairKey) {
        let work = pair::find_or_make(
            self.store.clone(),
            self.ids.clone(),
            self.fatal.clone(),
            pair,
        );
        let failed = Err(refuse::unavailable("the pair could not be read"));
        let read = read(work, failed, move |result| Completion::Pair {
            pair,
            result,
        });
        // Not one of the bounded reads: it may wait for the log. Bounded by the queue, one per pair.
        self.completions.push(read);
    }
}
