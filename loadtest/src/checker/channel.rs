//! What the checker knows of one channel: which message lies at which seq, and what became of every message sent.

use std::collections::HashMap;

use conch_wire::{ChannelId, DeviceId, MessageKey, Seq, UserId};

use super::membership::Membership;
use super::verdict::Found;
use super::{Fingerprint, Observed, Violation};

/// One channel. `places[seq - 1]` is the fingerprint seen there by the first observer, 0 where nobody saw anything yet.
#[derive(Debug, Default)]
pub(super) struct ChannelRecord {
    pub(super) members: Membership,
    /// Highest head that a full history was read up to.
    pub(super) read_until: Option<Seq>,
    places: Vec<u64>,
    messages: HashMap<u64, MessageRecord>,
}

#[derive(Debug)]
struct MessageRecord {
    sender: UserId,
    key: MessageKey,
    /// The device that attempted it first, and the how-manieth message of this channel that was first attempted then.
    device: DeviceId,
    nth: u32,
    /// Another device attempted it too: then it lies where the quicker one brought it, and says nothing of the order.
    shared: bool,
    /// Attempts without an answer: each may still have brought the message in.
    open: u32,
    /// Seq of the first ack; 0: none.
    acked: Seq,
    /// Where it was seen first; 0: nowhere.
    seen: Seq,
    /// The sender was told that it will never be there.
    given_up: bool,
}

impl ChannelRecord {
    /// Notes an attempt; true if it is the first one at this message.
    pub(super) fn attempted(
        &mut self,
        sender: UserId,
        device: DeviceId,
        key: MessageKey,
        print: Fingerprint,
    ) -> bool {
        let mut fresh = false;
        let nth = self.messages.len() as u32;
        let message = self.messages.entry(print.0).or_insert_with(|| {
            fresh = true;
            MessageRecord {
                sender,
                key,
                device,
                nth,
                shared: false,
                open: 0,
                acked: 0,
                seen: 0,
                given_up: false,
            }
        });
        message.shared |= message.device != device;
        message.open += 1;
        fresh
    }

    /// Notes an ack; true if it is the first one of this message.
    pub(super) fn acked(
        &mut self,
        channel: ChannelId,
        print: Fingerprint,
        seq: Seq,
        found: &mut Found,
    ) -> bool {
        let Some(message) = self.messages.get_mut(&print.0) else {
            found.add(Violation::AckOfNothing { channel, seq });
            return false;
        };
        let first = message.acked == 0;
        if first {
            message.acked = seq;
        } else if message.acked != seq {
            found.add(Violation::AckMoved {
                channel,
                first: message.acked,
                second: seq,
            });
        }
        self.place(channel, seq, print, found);
        first
    }

    pub(super) fn refused(&mut self, print: Fingerprint) {
        if let Some(message) = self.messages.get_mut(&print.0) {
            message.open = message.open.saturating_sub(1);
        }
    }

    pub(super) fn given_up(&mut self, print: Fingerprint) {
        if let Some(message) = self.messages.get_mut(&print.0) {
            message.given_up = true;
        }
    }

    /// Notes that somebody saw `event`.
    pub(super) fn observed(&mut self, channel: ChannelId, event: Observed, found: &mut Found) {
        let seq = event.seq;
        let Some(print) = event.print else {
            // Whatever the bytes: where a message lies nothing else can be seen.
            let index = (seq as usize).wrapping_sub(1);
            let there = self.places.get(index);
            if there.is_some_and(|print| self.messages.contains_key(print)) {
                found.add(Violation::SeqTwice { channel, seq });
            }
            return;
        };
        if event.is_message && !self.messages.contains_key(&print.0) {
            found.add(Violation::Forged { channel, seq });
        }
        self.place(channel, seq, print, found);
    }

    fn place(&mut self, channel: ChannelId, seq: Seq, print: Fingerprint, found: &mut Found) {
        if seq == 0 {
            found.add(Violation::SeqZero { channel });
            return;
        }
        let index = seq as usize - 1;
        if index >= self.places.len() {
            self.places.resize(index + 1, 0);
        }
        if self.places[index] == 0 {
            self.places[index] = print.0;
        } else if self.places[index] != print.0 {
            found.add(Violation::SeqTwice { channel, seq });
        }
        if let Some(message) = self.messages.get_mut(&print.0) {
            if message.seen == 0 {
                message.seen = seq;
            } else if message.seen != seq {
                found.add(Violation::Duplicate {
                    channel,
                    first: message.seen,
                    second: seq,
                });
            }
        }
    }

    /// Seqs of `from ..= until` at which somebody saw something.
    pub(super) fn places_in(&self, from: Seq, until: Option<Seq>) -> impl Iterator<Item = Seq> {
        let last = until.map_or(self.places.len(), |seq| {
            (seq as usize).min(self.places.len())
        });
        let first = (from.max(1) as usize - 1).min(last);
        self.places[first..last]
            .iter()
            .enumerate()
            .filter(|(_, print)| **print != 0)
            .map(move |(offset, _)| (first + offset + 1) as Seq)
    }

    /// What only the end of a run can show.
    pub(super) fn judge(&self, channel: ChannelId, found: &mut Found) {
        let Some(read_until) = self.read_until else {
            found.add(Violation::NotRead { channel });
            return;
        };
        for (index, print) in self.places.iter().enumerate() {
            let seq = (index + 1) as Seq;
            if *print == 0 {
                found.add(Violation::Hole { channel, seq });
            }
            // Seen by a device or an ack, and beyond what the full reads found.
            if seq > read_until && *print != 0 {
                found.add(Violation::Lost { channel, seq });
            }
        }
        self.judge_order(channel, found);
        self.members.judge(channel, found);
        for message in self.messages.values().filter(|message| message.given_up) {
            if self.members.never_left(message.sender) {
                found.add(Violation::GivenUp {
                    channel,
                    user: message.sender,
                });
            }
        }
        let mut keys: HashMap<(UserId, MessageKey), Seq> = HashMap::new();
        for message in self.messages.values().filter(|message| message.seen != 0) {
            if message.acked == 0 && message.open == 0 {
                found.add(Violation::RefusedButPresent {
                    channel,
                    seq: message.seen,
                });
            }
            if let Some(other) = keys.insert((message.sender, message.key), message.seen) {
                found.add(Violation::KeyTwice {
                    channel,
                    first: other.min(message.seen),
                    second: other.max(message.seen),
                });
            }
        }
    }

    /// What one device sent lies in the order in which it was first attempted.
    fn judge_order(&self, channel: ChannelId, found: &mut Found) {
        let mut sent: Vec<_> = self
            .messages
            .values()
            .filter(|message| message.seen != 0 && !message.shared)
            .map(|message| (message.device, message.nth, message.seen))
            .collect();
        sent.sort_unstable();
        for pair in sent.windows(2) {
            let ((device, _, earlier), (other, _, later)) = (pair[0], pair[1]);
            if device == other && earlier > later {
                found.add(Violation::Overtaken {
                    channel,
                    device,
                    first: earlier,
                    second: later,
                });
            }
        }
    }
}
