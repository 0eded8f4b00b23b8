//! What this device still has to send: every message from the moment it is written until the server has said where it lies
//! or that it never will.
//!
//! Items are stored before their first byte leaves (the caller carries out persistence first) and keep their order for
//! ever. Each channel has a **lane**: at most one SEND or SEND_MANY of it is in flight, and what gathers meanwhile goes into
//! the next, so nothing overtakes. A frame that is refused for now waits as a whole; one that is refused for good loses the
//! item that the refusal names, and the rest goes again in order. Where the outcome is not known the key stays, and the
//! same message goes again with RETRY.
//!
//! An item's *attempt* is set from the moment a frame with it may have reached the server until an answer settles it. That
//! is what is asked in HELLO, and what holds back own events in [`super::merge`].
//!
//! Two kinds of items are in no lane any more and stay on disk all the same: those that the server has and whose place is
//! not reached, and those that are given up. See `ended.rs`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use conch_wire::event::{Ack, AckFlags, PendingAnswer, PendingSend, SendFlags};
use conch_wire::limits::{
    HELLO_PENDING_MAX, SEND_MANY_BYTES_MAX, SEND_MANY_ITEMS_MAX, SENDS_IN_FLIGHT_MAX,
};
use conch_wire::{ChannelId, Code, MessageKey, Seq};

use super::Ms;
use super::advice::Advice;
use super::backoff::{ADVICE_MAX_MS, Backoff, Jitter};
use super::event::{RefusalReason, SendState};

/// Bytes that an item takes in a SEND_MANY besides its tail: its length and its header.
const ITEM_OVERHEAD_BYTES: usize = 4 + 24;
/// First and longest wait of a refused frame, in milliseconds.
const RETRY_BASE_MS: Ms = 100;
const RETRY_CAP_MS: Ms = 10_000;
/// After a refusal for rate nothing goes out for so long, in milliseconds. The server takes one such refusal a second as an
/// accident and more of them as a flood, which ends the session; and who waits finds a bucket with more in it.
const RATE_PAUSE_MS: Ms = 1_100;
/// After that, so many acks in a row allow for one more frame in flight: each of several would be refused by itself.
const ACKS_PER_FRAME_MORE: u32 = 32;
/// How many more items a lane tries in one frame after an ack.
const ITEMS_MORE: usize = 4;

/// A message on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxItem {
    /// Order of writing on this device; never reused.
    pub id: u64,
    /// Where it is to go.
    pub channel: ChannelId,
    /// Its name for the server: the same for ever.
    pub key: MessageKey,
    /// An [`conch_wire::EventKind`] that is a message.
    pub kind: u8,
    /// TABLE or nothing; RETRY is added on the way out.
    pub flags: SendFlags,
    /// Its body.
    pub tail: Bytes,
    /// When it was written, ms since 1970 by this device's clock. It is not sent any more when the server may have forgotten
    /// its key.
    pub created_ms: u64,
    /// The newest event of the channel that this device held then.
    pub after: Seq,
    /// What is known of its end.
    pub state: OutboxState,
}

/// What is known of an item's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboxState {
    /// Nothing: it is to be sent, or its answer to be had.
    Waiting,
    /// The server has it, and events before it are missing on this device. It leaves with its place.
    Stored {
        /// Its place in the channel.
        seq: Seq,
        /// ms since 1970 by the server's clock.
        time_ms: u64,
    },
    /// Given up; it leaves when the person says so.
    Refused(RefusalReason),
}

#[derive(Clone, Debug)]
struct Waiting {
    item: OutboxItem,
    attempt: Option<u64>,
    retry: bool,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Waiting>,
    /// Items of the frame in flight: the first of `waiting`.
    in_flight: usize,
    /// The attempt that this frame is.
    attempt: u64,
    not_before: Ms,
    backoff: Backoff,
    /// Halved by every refusal for rate, so that a burst above the server's bucket gets through; grows with every ack.
    items_max: usize,
}

impl Lane {
    fn new() -> Lane {
        Lane {
            waiting: VecDeque::new(),
            in_flight: 0,
            attempt: 0,
            not_before: 0,
            backoff: Backoff::new(RETRY_BASE_MS, RETRY_CAP_MS),
            items_max: SEND_MANY_ITEMS_MAX,
        }
    }

    fn frame_len(&self) -> usize {
        let mut bytes = 0;
        let fitting = self
            .waiting
            .iter()
            .take(self.items_max)
            .take_while(|it| {
                bytes += ITEM_OVERHEAD_BYTES + it.item.tail.len();
                bytes <= SEND_MANY_BYTES_MAX
            })
            .count();
        // A message above the limit of SEND_MANY goes alone, as a SEND.
        fitting.max(1).min(self.waiting.len())
    }
}

/// An item and its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    Stored {
        item: OutboxItem,
        ack: Ack,
    },
    Refused {
        item: OutboxItem,
        reason: RefusalReason,
    },
}

/// What a refusal of a frame means for its lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The whole frame waits until then.
    Waits { until: Ms },
    /// One item is out; the rest goes again.
    Dropped(Settled),
    /// The alias does not hold: open the channel again, then send the same.
    Reopen,
    /// Nothing is changed until the connection is another one.
    Reconnect,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lanes: BTreeMap<ChannelId, Lane>,
    next_id: u64,
    /// Frames built so far; see [`Waiting::attempt`].
    attempts: u64,
    items: usize,
    in_flight: usize,
    /// Frames in flight, of all channels, and how many there may be: one after a refusal for rate, because the bucket is
    /// this person's and not the channel's; slowly more again.
    frames_in_flight: usize,
    frames_max: usize,
    /// Since the last refusal for rate.
    acks_in_a_row: u32,
    /// All lanes wait until then.
    rate_not_before: Ms,
    asked: Vec<PendingSend>,
    /// Where the round over the lanes goes on, so that one busy channel does not starve the others.
    turn: ChannelId,
}

impl Outbox {
    /// What was on disk, in order. Each of them may have been sent. Ids go on at `next_id`.
    pub(crate) fn load(items: Vec<OutboxItem>, next_id: u64) -> Outbox {
        let mut outbox = Outbox {
            next_id,
            frames_max: SENDS_IN_FLIGHT_MAX,
            ..Outbox::default()
        };
        for item in items {
            outbox.put(Waiting {
                item,
                attempt: Some(0),
                retry: true,
            });
        }
        outbox
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    pub(crate) fn push(&mut self, item: OutboxItem) {
        self.put(Waiting {
            item,
            attempt: None,
            retry: false,
        });
    }

    /// An item that was given up, under the key that it had.
    pub(crate) fn push_again(&mut self, item: OutboxItem) {
        self.put(Waiting {
            item,
            attempt: None,
            retry: true,
        });
    }

    fn put(&mut self, waiting: Waiting) {
        self.items += 1;
        self.lanes
            .entry(waiting.item.channel)
            .or_insert_with(Lane::new)
            .waiting
            .push_back(waiting);
    }

    pub(crate) fn len(&self) -> usize {
        self.items
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Whether a send that was attempted when the outbox had made `attempts` attempts is unresolved in the channel.
    pub(crate) fn holds(&self, channel: ChannelId, attempts: u64) -> bool {
        self.lanes.get(&channel).is_some_and(|lane| {
            lane.waiting
                .iter()
                .any(|it| it.attempt.is_some_and(|attempt| attempt <= attempts))
        })
    }

    /// All items and how far each is, in order within each channel.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&OutboxItem, SendState)> {
        self.lanes.values().flat_map(|lane| {
            lane.waiting.iter().enumerate().map(|(at, it)| {
                let state = if at < lane.in_flight {
                    SendState::Sending
                } else {
                    SendState::Waiting
                };
                (&it.item, state)
            })
        })
    }

    /// Takes out what was written before `before_ms`, unless an answer for it is awaited.
    pub(crate) fn expire(&mut self, before_ms: u64) -> Vec<OutboxItem> {
        let asked = &self.asked;
        let mut expired = Vec::new();
        self.lanes.retain(|channel, lane| {
            let old: Vec<_> = (lane.in_flight..lane.waiting.len())
                .filter(|at| {
                    let item = &lane.waiting[*at].item;
                    let is_asked = |it: &PendingSend| it.channel == *channel && it.key == item.key;
                    item.created_ms < before_ms && !asked.iter().any(is_asked)
                })
                .collect();
            for at in old.into_iter().rev() {
                expired.extend(lane.waiting.remove(at).map(|it| it.item));
            }
            !lane.waiting.is_empty()
        });
        self.items -= expired.len();
        expired.sort_unstable_by_key(|item| item.id);
        expired
    }

    /// Whether this item has never left, so that it can be taken back for certain.
    pub(crate) fn has_not_left(&self, key: MessageKey) -> bool {
        let mut all = self.lanes.values().flat_map(|lane| lane.waiting.iter());
        all.any(|it| it.item.key == key && it.attempt.is_none() && !it.retry)
    }

    /// Takes out an item that has not left.
    pub(crate) fn take_back(&mut self, key: MessageKey) -> Option<OutboxItem> {
        if !self.has_not_left(key) {
            return None;
        }
        let is_it = |(channel, lane): (&ChannelId, &Lane)| {
            let holds = lane.waiting.iter().any(|it| it.item.key == key);
            holds.then_some(*channel)
        };
        let channel = self.lanes.iter().find_map(is_it)?;
        self.take(channel, key)
    }

    /// The pending sends to ask about in HELLO: the oldest of those that may have arrived.
    pub(crate) fn ask(&mut self) -> Vec<PendingSend> {
        let mut attempted: Vec<_> = self
            .lanes
            .values()
            .flat_map(|lane| lane.waiting.iter())
            .filter(|it| it.attempt.is_some())
            .map(|it| (it.item.id, it.item.channel, it.item.key))
            .collect();
        attempted.sort_unstable_by_key(|(id, ..)| *id);
        attempted.truncate(HELLO_PENDING_MAX);
        self.asked = attempted
            .into_iter()
            .map(|(_, channel, key)| PendingSend { channel, key })
            .collect();
        self.asked.clone()
    }

    /// WELCOME's answers, by index. One without an answer stays unknown.
    pub(crate) fn on_answers(&mut self, answers: &[PendingAnswer]) -> Vec<Settled> {
        let asked = std::mem::take(&mut self.asked);
        let mut settled = Vec::new();
        for (question, answer) in asked.iter().zip(answers) {
            match *answer {
                PendingAnswer::Stored { seq, time_ms } => {
                    let ack = Ack {
                        seq,
                        time_ms,
                        flags: AckFlags::DUP,
                    };
                    if let Some(item) = self.take(question.channel, question.key) {
                        settled.push(Settled::Stored { item, ack });
                    }
                }
                PendingAnswer::Absent => {
                    if let Some(waiting) = self.find(question.channel, question.key) {
                        waiting.attempt = None;
                    }
                }
                PendingAnswer::Unknown => {}
            }
        }
        settled
    }

    fn find(&mut self, channel: ChannelId, key: MessageKey) -> Option<&mut Waiting> {
        let lane = self.lanes.get_mut(&channel)?;
        lane.waiting.iter_mut().find(|it| it.item.key == key)
    }

    fn take(&mut self, channel: ChannelId, key: MessageKey) -> Option<OutboxItem> {
        let lane = self.lanes.get_mut(&channel)?;
        let at = lane.waiting.iter().position(|it| it.item.key == key)?;
        let waiting = lane.waiting.remove(at)?;
        if lane.waiting.is_empty() {
            self.lanes.remove(&channel);
        }
        self.items -= 1;
        Some(waiting.item)
    }

    /// Channels that have something to send now, in turn. Waits that are over are forgotten.
    pub(crate) fn ready(&mut self, now: Ms) -> Vec<ChannelId> {
        if now < self.rate_not_before {
            return Vec::new();
        }
        self.rate_not_before = 0;
        for lane in self.lanes.values_mut() {
            if lane.not_before <= now {
                lane.not_before = 0;
            }
        }
        let is_ready = |(channel, lane): (&ChannelId, &Lane)| {
            (lane.in_flight == 0 && lane.not_before == 0).then_some(*channel)
        };
        let after = self.lanes.range(self.turn..).filter_map(is_ready);
        let before = self.lanes.range(..self.turn).filter_map(is_ready);
        after.chain(before).collect()
    }

    /// Makes the channel's next frame: its items, in order, with the flags that go out. `None` when the connection's share
    /// is used up. From here on the items may have arrived.
    pub(crate) fn next_frame(
        &mut self,
        channel: ChannelId,
    ) -> Option<Vec<(OutboxItem, SendFlags)>> {
        let lane = self.lanes.get_mut(&channel)?;
        debug_assert_eq!(lane.in_flight, 0, "one frame in flight per channel");
        let count = lane.frame_len().min(SENDS_IN_FLIGHT_MAX - self.in_flight);
        if count == 0 || self.frames_in_flight >= self.frames_max {
            return None;
        }
        self.attempts += 1;
        let mut frame = Vec::with_capacity(count);
        for waiting in lane.waiting.iter_mut().take(count) {
            let retry = if waiting.retry { SendFlags::RETRY.0 } else { 0 };
            frame.push((
                waiting.item.clone(),
                SendFlags(waiting.item.flags.0 | retry),
            ));
            waiting.attempt.get_or_insert(self.attempts);
            waiting.retry = true;
        }
        lane.in_flight = count;
        lane.attempt = self.attempts;
        self.in_flight += count;
        self.frames_in_flight += 1;
        self.turn = ChannelId(channel.0.wrapping_add(1));
        Some(frame)
    }

    /// SEND_ACK for the channel's frame. `None`: it does not answer what is in flight.
    pub(crate) fn on_ack(&mut self, channel: ChannelId, acks: &[Ack]) -> Option<Vec<Settled>> {
        let lane = self.lanes.get_mut(&channel)?;
        if lane.in_flight != acks.len() {
            return None;
        }
        self.in_flight -= lane.in_flight;
        self.items -= lane.in_flight;
        self.frames_in_flight -= 1;
        self.acks_in_a_row = self.acks_in_a_row.wrapping_add(1);
        if self.acks_in_a_row.is_multiple_of(ACKS_PER_FRAME_MORE) {
            self.frames_max = (self.frames_max + 1).min(SENDS_IN_FLIGHT_MAX);
        }
        let acked = lane.waiting.drain(..std::mem::take(&mut lane.in_flight));
        let settled = acked
            .zip(acks)
            .map(|(waiting, ack)| Settled::Stored {
                item: waiting.item,
                ack: *ack,
            })
            .collect();
        lane.backoff.succeeded();
        lane.items_max = (lane.items_max + ITEMS_MORE).min(SEND_MANY_ITEMS_MAX);
        if lane.waiting.is_empty() {
            self.lanes.remove(&channel);
        }
        Some(settled)
    }

    /// ERROR for the channel's frame.
    pub(crate) fn on_refused(
        &mut self,
        channel: ChannelId,
        code: Code,
        item: u16,
        retry_after_ms: u32,
        now: Ms,
        jitter: &mut Jitter,
    ) -> Option<Refusal> {
        let lane = self.lanes.get_mut(&channel)?;
        let count = std::mem::take(&mut lane.in_flight);
        if count == 0 {
            return None;
        }
        self.in_flight -= count;
        self.frames_in_flight -= 1;
        let certain = match Advice::of(code.number()) {
            Advice::RetryHere => code != Code::OutcomeUnknown,
            Advice::FixRequest | Advice::Stop => true,
            Advice::Resume | Advice::Afresh | Advice::Authenticate => {
                // The session is about to end; HELLO asks what became of them.
                lane.not_before = Ms::MAX;
                return Some(Refusal::Reconnect);
            }
        };
        if certain {
            // Certain for this attempt: what an earlier one may have stored is as unknown as before.
            for waiting in lane.waiting.iter_mut().take(count) {
                waiting.attempt = waiting.attempt.filter(|first| *first != lane.attempt);
            }
        }
        if code == Code::BadAlias {
            return Some(Refusal::Reopen);
        }
        if Advice::of(code.number()) == Advice::RetryHere {
            if code == Code::RateLimited {
                lane.items_max = (count / 2).max(1);
                self.frames_max = 1;
                self.acks_in_a_row = 0;
                self.rate_not_before =
                    now + Ms::from(retry_after_ms).clamp(RATE_PAUSE_MS, ADVICE_MAX_MS);
            }
            lane.not_before = now + lane.backoff.failed(retry_after_ms.into(), jitter);
            return Some(Refusal::Waits {
                until: lane.not_before.max(self.rate_not_before),
            });
        }
        let at = usize::from(item).min(count - 1);
        let refused = lane.waiting.remove(at)?;
        if lane.waiting.is_empty() {
            self.lanes.remove(&channel);
        }
        self.items -= 1;
        Some(Refusal::Dropped(Settled::Refused {
            item: refused.item,
            reason: RefusalReason::Server(code),
        }))
    }

    /// The channel cannot be opened, for good: nothing of it can be sent. What was never attempted, or is known not to have
    /// arrived, is refused; returns also whether something is left whose fate only the next HELLO can tell.
    pub(crate) fn on_open_refused(
        &mut self,
        channel: ChannelId,
        code: Code,
    ) -> (Vec<Settled>, bool) {
        let Some(lane) = self.lanes.get_mut(&channel) else {
            return (Vec::new(), false);
        };
        let (unknown, refused): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut lane.waiting)
            .into_iter()
            .partition(|it| it.attempt.is_some());
        lane.waiting = unknown;
        self.items -= refused.len();
        let left = !lane.waiting.is_empty();
        if !left {
            self.lanes.remove(&channel);
        }
        let settled = refused
            .into_iter()
            .map(|it| Settled::Refused {
                item: it.item,
                reason: RefusalReason::Server(code),
            })
            .collect();
        (settled, left)
    }

    /// The channel cannot be opened now.
    pub(crate) fn delay(
        &mut self,
        channel: ChannelId,
        retry_after_ms: u32,
        now: Ms,
        jitter: &mut Jitter,
    ) {
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.not_before = now + lane.backoff.failed(retry_after_ms.into(), jitter);
        }
    }

    /// The connection is gone: what was in flight, in the channels returned, may have arrived.
    pub(crate) fn on_disconnected(&mut self) -> Vec<ChannelId> {
        self.in_flight = 0;
        self.frames_in_flight = 0;
        self.rate_not_before = 0;
        self.asked.clear();
        let mut cut = Vec::new();
        for (channel, lane) in &mut self.lanes {
            if std::mem::take(&mut lane.in_flight) > 0 {
                cut.push(*channel);
            }
            lane.not_before = 0;
        }
        cut
    }

    /// When the next lane that waits for a time may go on.
    pub(crate) fn next_at(&self) -> Option<Ms> {
        self.lanes
            .values()
            .filter(|lane| lane.not_before > 0 || lane.in_flight == 0)
            .map(|lane| lane.not_before.max(self.rate_not_before))
            .filter(|at| (1..Ms::MAX).contains(at))
            .min()
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
