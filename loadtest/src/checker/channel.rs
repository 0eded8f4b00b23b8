//! What the checker knows of one channel: which message lies at which seq, what became of every message sent, and what each
//! device was shown.

use conch_wire::{ChannelId, DeviceId, MessageKey, Seq, UserId};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::fingerprint::KeyPrint;
use super::index::Index;
use super::membership::Membership;
use super::memory::Memory;
use super::message::MessageRecord;
use super::order::{Order, Overtaken};
use super::places::Places;
use super::seqs::{Run, SeqSet, without};
use super::verdict::Found;
use super::{Fingerprint, Observed, Violation};

/// Keys that are compared at once in the end: 16 MiB.
const KEYS_AT_ONCE: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct ChannelRecord {
    pub(super) members: Membership,
    /// Highest head that a full history was read up to.
    pub(super) read_until: Option<Seq>,
    places: Places,
    /// The seqs of `places` where somebody saw something.
    seen: SeqSet,
    /// Where somebody saw a message that nobody sent; no part of `places`.
    forged: SeqSet,
    /// Settled messages. Each lies at its place and is in nothing else.
    settled: Index,
    /// All other messages.
    unsettled: HashMap<Fingerprint, MessageRecord>,
    /// By the device that attempted first.
    orders: HashMap<DeviceId, Order>,
    shown: HashMap<DeviceId, SeqSet>,
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
        if let Some(message) = self.unsettled.get_mut(&print) {
            message.shared |= message.device != device;
            message.open += 1;
            return false;
        }
        let settled = self.settled_at(print);
        if let Some(seq) = settled {
            self.settled.remove(print, seq);
        }
        let seq = settled.unwrap_or(0);
        let message = MessageRecord {
            sender,
            key: KeyPrint::of(sender, key),
            device,
            // What was settled had its place in the order compared already.
            nth: match settled {
                None => self.orders.entry(device).or_default().attempt(),
                Some(_) => 0,
            },
            shared: settled.is_some(),
            given_up: false,
            open: 1,
            acked: seq,
            seen: seq,
        };
        self.unsettled.insert(print, message);
        settled.is_none()
    }

    /// Notes an ack; true if it is the first one of this message.
    pub(super) fn acked(
        &mut self,
        channel: ChannelId,
        print: Fingerprint,
        seq: Seq,
        found: &mut Found,
    ) -> bool {
        let Some(message) = self.unsettled.get_mut(&print) else {
            match self.settled_at(print) {
                Some(first) if first == seq => {}
                Some(first) => found.add(Violation::AckMoved {
                    channel,
                    first,
                    second: seq,
                }),
                None => found.add(Violation::AckOfNothing { channel, seq }),
            }
            return false;
        };
        if message.acked != 0 {
            if message.acked != seq {
                found.add(Violation::AckMoved {
                    channel,
                    first: message.acked,
                    second: seq,
                });
            }
            return false;
        }
        message.acked = seq;
        if seq == 0 || message.seen != seq {
            self.place(channel, seq, print, found);
        }
        self.settle(print);
        true
    }

    pub(super) fn refused(&mut self, print: Fingerprint) {
        if let Some(message) = self.unsettled.get_mut(&print) {
            message.open = message.open.saturating_sub(1);
        }
    }

    pub(super) fn given_up(&mut self, channel: ChannelId, print: Fingerprint, found: &mut Found) {
        if let Some(message) = self.unsettled.get_mut(&print) {
            message.given_up = true;
        } else if let Some(seq) = self.settled_at(print) {
            // Nobody attempted it again: the one device was told both.
            found.add(Violation::AckTakenBack { channel, seq });
        }
    }

    /// Notes that somebody saw `event`; false if that cannot be what lies there.
    pub(super) fn observed(
        &mut self,
        channel: ChannelId,
        event: Observed,
        found: &mut Found,
    ) -> bool {
        let seq = event.seq;
        let there = self.places.at(seq);
        let Some(print) = event.print else {
            // Whatever the bytes: where a message lies nothing else can be seen.
            if there.key.is_some() {
                found.add(Violation::SeqTwice { channel, seq });
            }
            return there.key.is_none();
        };
        if there.print == Some(print) {
            return true;
        }
        if event.is_message && !self.is_known(print) {
            found.add(Violation::Forged { channel, seq });
            self.forged.insert(seq);
            return false;
        }
        self.place(channel, seq, print, found)
    }

    /// What `device` was shown, if anything.
    pub(super) fn shown_mut(&mut self, device: DeviceId) -> Option<&mut SeqSet> {
        self.shown.get_mut(&device)
    }

    /// `device` is shown the first event of this channel.
    pub(super) fn show_first(&mut self, device: DeviceId, seq: Seq) {
        self.shown.entry(device).or_default().insert(seq);
    }

    fn is_known(&self, print: Fingerprint) -> bool {
        self.unsettled.contains_key(&print) || self.settled_at(print).is_some()
    }

    /// Puts a message, or an event that the node made, where it was seen; false if something else lies there.
    fn place(
        &mut self,
        channel: ChannelId,
        seq: Seq,
        print: Fingerprint,
        found: &mut Found,
    ) -> bool {
        if seq == 0 {
            found.add(Violation::SeqZero { channel });
            return false;
        }
        let is_free = self.seen.insert(seq);
        let mut place = self.places.at_mut(seq);
        if is_free && let Some(place) = &mut place {
            place.print = Some(print);
        }
        if !is_free && place.as_ref().is_some_and(|it| it.print != Some(print)) {
            found.add(Violation::SeqTwice { channel, seq });
            return false;
        }
        let first = match self.unsettled.get_mut(&print) {
            None => self.settled_at(print),
            Some(message) if message.seen != 0 => Some(message.seen),
            Some(message) => {
                message.seen = seq;
                if let Some(place) = place {
                    place.key = Some(message.key);
                }
                if !message.shared
                    && let Some(order) = self.orders.get_mut(&message.device)
                    && let Some(Overtaken { first, second }) = order.place(message.nth, seq)
                {
                    found.add(Violation::Overtaken {
                        channel,
                        device: message.device,
                        first,
                        second,
                    });
                }
                None
            }
        };
        if let Some(first) = first.filter(|first| *first != seq) {
            found.add(Violation::Duplicate {
                channel,
                first,
                second: seq,
            });
        }
        true
    }

    /// Gives up the record of a message that is settled.
    fn settle(&mut self, print: Fingerprint) {
        let Entry::Occupied(message) = self.unsettled.entry(print) else {
            return;
        };
        let seq = message.get().seen;
        if message.get().is_settled() && self.places.at(seq).print == Some(print) {
            message.remove();
            let places = &self.places;
            self.settled.insert(print, seq, |seq| print_at(places, seq));
        }
    }

    fn settled_at(&self, print: Fingerprint) -> Option<Seq> {
        self.settled.find(print, |seq| print_at(&self.places, seq))
    }

    /// What `device` was not shown and had to be: all that somebody saw of the newest stay of its user, up to `last`. Of a stay
    /// that is over, only if it was shown some of it: a device that was away for the whole of it need not care any more.
    pub(super) fn missing(&self, user: UserId, device: DeviceId, last: Seq) -> Vec<Run> {
        let Some(stay) = self.members.newest(user) else {
            return Vec::new();
        };
        let Some(bounds) = Run::new(stay.from, stay.last().min(last)) else {
            return Vec::new();
        };
        let owed = || self.seen.runs_within(bounds);
        let missing: Vec<_> = without(owed(), self.shown_to(device)).collect();
        let all = |runs: &mut dyn Iterator<Item = Run>| runs.map(Run::len).sum::<u64>();
        if stay.until.is_some() && all(&mut owed()) == all(&mut missing.iter().copied()) {
            return Vec::new();
        }
        missing
    }

    /// What `device` was shown and its user may not see.
    pub(super) fn not_theirs(&self, user: UserId, device: DeviceId) -> impl Iterator<Item = Run> {
        let stays = self.members.all(user);
        let stays = stays.filter_map(|stay| Run::new(stay.from, stay.last()));
        without(self.shown_to(device), stays)
    }

    fn shown_to(&self, device: DeviceId) -> impl Iterator<Item = Run> {
        self.shown.get(&device).into_iter().flat_map(SeqSet::runs)
    }

    /// Every device that was shown something.
    pub(super) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.shown.keys().copied()
    }

    /// What only the end of a run can show.
    pub(super) fn judge(&self, channel: ChannelId, found: &mut Found) {
        let Some(read_until) = self.read_until else {
            found.add(Violation::NotRead { channel });
            return;
        };
        let up_to_last = Run::new(1, self.seen.last()).into_iter();
        let never_seen = without(up_to_last, self.seen.runs());
        for hole in without(never_seen, self.forged.runs()) {
            found.add_all(hole, |seq| Violation::Hole { channel, seq });
        }
        // Seen by a device or an ack, and beyond what the full reads found.
        let behind = Run::new(read_until.saturating_add(1), Seq::MAX);
        for lost in behind.into_iter().flat_map(|it| self.seen.runs_within(it)) {
            found.add_all(lost, |seq| Violation::Lost { channel, seq });
        }
        self.members.judge(channel, found);
        for message in self.unsettled.values() {
            if message.given_up && self.members.never_left(message.sender) {
                found.add(Violation::GivenUp {
                    channel,
                    user: message.sender,
                });
            }
            if message.seen != 0 && message.acked == 0 && message.open == 0 {
                found.add(Violation::RefusedButPresent {
                    channel,
                    seq: message.seen,
                });
            }
        }
        self.judge_keys(channel, found);
    }

    /// No key of one sender stands for two messages that are there. The keys are compared in parts.
    fn judge_keys(&self, channel: ChannelId, found: &mut Found) {
        let stored = || {
            let places = self.places.seen();
            places.filter_map(|(seq, place)| Some((place.key?, seq)))
        };
        let parts = stored().count() as u64 / KEYS_AT_ONCE + 1;
        let mut keys: Vec<(KeyPrint, Seq)> = Vec::new();
        for part in 0..parts {
            keys.clear();
            keys.extend(stored().filter(|(key, _)| key.part(parts) == part));
            keys.sort_unstable();
            for pair in keys.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                found.add(Violation::KeyTwice {
                    channel,
                    first: pair[0].1,
                    second: pair[1].1,
                });
            }
        }
    }

    /// Adds what this channel takes to `memory`.
    pub(super) fn weigh(&self, memory: &mut Memory) {
        memory.channels += 1;
        memory.pairs += self.shown.len() as u64;
        memory.unsettled += self.unsettled.len() as u64;
        memory.place_bytes += self.places.heap_bytes() as u64;
        memory.index_bytes += self.settled.heap_bytes() as u64;
        memory.unsettled_bytes += self.unsettled.allocation_size() as u64;
        let orders: usize = self.orders.values().map(Order::heap_bytes).sum();
        let shown: usize = self.shown.values().map(SeqSet::heap_bytes).sum();
        memory.pair_bytes += (self.orders.allocation_size() + orders) as u64;
        memory.pair_bytes += (self.shown.allocation_size() + shown) as u64;
        memory.channel_bytes += (self.seen.heap_bytes() + self.members.heap_bytes()) as u64;
    }
}

/// What lies where a message settled.
fn print_at(places: &Places, seq: Seq) -> Fingerprint {
    let print = places.at(seq).print;
    print.expect("what settled was put there, and nothing leaves its place")
}
