//! From a pass's work to the log and from the log to the users' owners.
//!
//! A pass ends here: one append for all channels that have something to write, then the deliveries of what was committed,
//! then one push to the gateway. What the log settled comes back as [`super::input::Completion::Appended`]: a channel's
//! events get their positions and join its outbox, in order. Deliveries that another shard has no room for wait for that
//! shard; nothing overtakes them.
//!
//! A failed append is the end: everybody who waits is refused, and nothing is acknowledged any more.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use conch_store::{AppendError, Appended, Record};
use conch_wire::ChannelId;

use super::delivery::Courier;
use super::input::{Appending, Completion};
use super::slot::{ChannelSlot, Phase};
use super::task::Shard;
use crate::failpoint;
use crate::refuse;
use crate::router::Fatal;

impl Shard {
    pub(super) fn on_appended(
        &mut self,
        parts: &[Appending],
        result: Result<Appended, AppendError>,
    ) {
        self.appends_in_flight -= 1;
        let appended = match result {
            Ok(appended) if !self.failed => appended,
            Ok(_) => return,
            Err(error) => return self.on_append_failed(error),
        };
        failpoint::stage(failpoint::COMMITTED);
        for part in parts {
            let Some(slot) = self.channels.get_mut(&part.channel) else {
                continue;
            };
            let Some(mut batch) = slot.in_flight.take() else {
                continue;
            };
            slot.panics = 0;
            for (index, event) in batch.events.iter_mut().enumerate() {
                event.published.position = appended.first + (part.first + index) as u64;
            }
            self.events_committed.increment(batch.events.len() as u64);
            slot.outbox.commit(batch.events);
            if matches!(slot.phase, Phase::Settling(_)) {
                self.touch(part.channel);
                self.reload(part.channel);
            } else {
                self.with_state(part.channel, Ok(()), |state, _, effects| {
                    state.on_committed(effects);
                });
            }
        }
    }

    /// From here on this process acknowledges nothing.
    pub(super) fn on_append_failed(&mut self, error: AppendError) {
        if !self.failed {
            tracing::error!(shard = self.index, %error, "the log failed: nothing is acknowledged any more");
        }
        self.failed = true;
        self.fatal.report(Fatal::Store(error));
        self.touched.clear();
        self.behind.iter_mut().for_each(VecDeque::clear);
        self.waiting = 0;
        for (_, slot) in std::mem::take(&mut self.channels) {
            match slot.phase {
                Phase::Loaded(mut state) => state.give_up(&mut self.effects),
                Phase::Loading(waiting) | Phase::Settling(waiting) => {
                    for request in waiting {
                        let refused = refuse::unavailable("the log failed; the node restarts");
                        self.refuse_request(request, refused);
                    }
                }
            }
        }
        for (ticket, answer) in std::mem::take(&mut self.effects.answers) {
            self.answer(ticket, answer);
        }
        self.effects.heads.clear();
    }

    /// The end of a pass: one append, the deliveries of what was committed, one push.
    pub(super) fn finish_pass(&mut self) {
        let mut records = Vec::new();
        let mut parts = Vec::new();
        let touched = std::mem::take(&mut self.touched);
        for &channel in &touched {
            self.take_batch(channel, &mut records, &mut parts);
        }
        if !records.is_empty() {
            self.start_append(records, parts);
        }
        if fail::has_failpoints() {
            // A kill at this stage must find the acks with the sessions.
            self.link.push(&mut self.effects.pushes);
            if touched
                .iter()
                .any(|channel| self.channels.get(channel).is_some_and(has_deliveries))
            {
                failpoint::stage(failpoint::ACKED);
            }
        }
        for &channel in &touched {
            self.hand_over(channel);
            self.forget_absent(channel);
        }
        if self.touched.is_empty() {
            self.touched = touched;
            self.touched.clear();
        }
        if !self.effects.pushes.is_empty() {
            self.link.push(&mut self.effects.pushes);
            self.effects.pushes.clear();
        }
    }

    pub(super) fn take_batch(
        &mut self,
        channel: ChannelId,
        records: &mut Vec<Record>,
        parts: &mut Vec<Appending>,
    ) {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        slot.touched = false;
        let Phase::Loaded(state) = &mut slot.phase else {
            return;
        };
        let first = records.len();
        match catch_unwind(AssertUnwindSafe(|| state.take_batch(records))) {
            Ok(None) => {}
            Ok(Some(batch)) => {
                assert_eq!(
                    first + batch.records,
                    records.len(),
                    "a batch is counted whole"
                );
                assert!(slot.in_flight.is_none(), "one batch in flight per channel");
                slot.in_flight = Some(batch);
                parts.push(Appending { channel, first });
            }
            Err(_) => {
                records.truncate(first);
                self.on_panic(channel);
            }
        }
    }

    pub(super) fn start_append(&mut self, records: Vec<Record>, parts: Vec<Appending>) {
        failpoint::stage(failpoint::SEQUENCED);
        self.batches.increment(1);
        self.appends_in_flight += 1;
        let appended = self.store.append(records);
        self.completions.push(Box::pin(async move {
            let result = appended.await;
            Completion::Appended { parts, result }
        }));
    }

    pub(super) fn hand_over(&mut self, channel: ChannelId) {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        // On the list already: it goes on when there is room, and not before, so that order is kept.
        if slot.behind || slot.outbox.is_empty() {
            return;
        }
        let mut courier = Courier {
            here: self.index,
            users: &mut self.users,
            shards: &self.shards,
            pushes: &mut self.effects.pushes,
            link: &self.link,
        };
        if let Err(full) = slot.outbox.hand_over(&mut courier) {
            tracing::debug!(%channel, mark = slot.outbox.mark(), shard = full, "deliveries wait for room");
            slot.behind = true;
            self.behind[full].push_back(channel);
            self.ask_for_room(full);
        }
    }

    pub(super) fn ask_for_room(&mut self, shard: usize) {
        if std::mem::replace(&mut self.room_asked[shard], true) {
            return;
        }
        let queue = self.shards[shard].clone();
        self.completions.push(Box::pin(async move {
            // Room, or the shard has ended: either way whoever waits goes on. The permit itself is given back at once.
            drop(queue.reserve_owned().await);
            Completion::Room { shard }
        }));
    }

    pub(super) fn on_room(&mut self, shard: usize) {
        self.room_asked[shard] = false;
        for channel in std::mem::take(&mut self.behind[shard]) {
            if let Some(slot) = self.channels.get_mut(&channel) {
                slot.behind = false;
            }
            self.touch(channel);
        }
    }
}

fn has_deliveries(slot: &ChannelSlot) -> bool {
    !slot.outbox.is_empty()
}
