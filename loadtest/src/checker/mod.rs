//! The checker of the delivery promise.
//!
//! Tests and the load test tell it everything that happened on the outside of a node: each attempt to send, each answer,
//! each event that a device was shown, each page of history. It compares as it goes and, in [`Checker::verdict`], says
//! whether the promise held:
//!
//! * **I1** every acknowledged message is in history exactly once, at the seq of its ack;
//! * **I2** seqs are gapless from 1, every reader sees the same order, and what one device sent is in its order;
//! * **I3** nothing that was never sent is there, an unknown outcome at most once, a certain refusal never;
//! * **I4** every member's device has each message, once, and none from before or after the member's stay;
//! * **I5** read marks and inbox positions never go back.
//!
//! Who is a member when is told from outside ([`Checker::add_member`]) or, where it changes while the run goes on, read from
//! the channel's own events ([`Checker::members_of_history`]) and compared with the changes that were confirmed. What a
//! device missed of a stay before the newest one is not asked for: nobody can read it any more.
//!
//! A message is known by its [`Fingerprint`] (author, kind, content), because events carry no key: senders under test
//! must never send the same content twice under two keys. Memory: about 24 bytes per message, and for each channel of a
//! device what does not grow as long as everything comes in order ([`Memory`] has the sums); read long histories by
//! [`FullRead`]. No IO, no clock; a run that compared nothing does not pass.

mod channel;
mod fingerprint;
mod index;
mod membership;
mod memory;
mod message;
mod order;
mod places;
mod read;
mod seqs;
mod verdict;
mod violation;

use conch_wire::{ChannelId, DeviceId, Event, MessageKey, Seq, UserId};
use hashbrown::{HashMap, HashSet};

use channel::ChannelRecord;
pub use fingerprint::{Fingerprint, Observed};
pub use memory::Memory;
pub use read::FullRead;
use seqs::Run;
pub use verdict::{Counts, Verdict};
pub use violation::Violation;

/// What the world outside saw; see the module for how to use it.
#[derive(Debug, Default)]
pub struct Checker {
    channels: HashMap<ChannelId, ChannelRecord>,
    devices: HashMap<DeviceId, DeviceRecord>,
    /// Where each user was ever a member.
    channels_of: HashMap<UserId, HashSet<ChannelId>>,
    confirmed_reads: HashMap<(UserId, ChannelId), Seq>,
    final_reads: HashMap<(UserId, ChannelId), Seq>,
    counts: Counts,
    found: verdict::Found,
}

/// A change of somebody's membership that was confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    Added,
    Removed,
    /// By themselves.
    Left,
}

#[derive(Debug)]
struct DeviceRecord {
    user: UserId,
    read_marks: HashMap<ChannelId, Seq>,
    inbox_position: u64,
}

impl Checker {
    /// A checker that knows nothing yet.
    pub fn new() -> Checker {
        Checker::default()
    }

    /// Registers a device: from here on the verdict asks that it was shown every event that its user may see.
    pub fn add_device(&mut self, user: UserId, device: DeviceId) {
        self.devices.insert(
            device,
            DeviceRecord {
                user,
                read_marks: HashMap::new(),
                inbox_position: 0,
            },
        );
    }

    /// `user` is a member of `channel` and sees it from seq `from` on.
    pub fn add_member(&mut self, channel: ChannelId, user: UserId, from: Seq) {
        self.channels_of.entry(user).or_default().insert(channel);
        self.channel(channel).members.add(user, from);
    }

    /// `user` left `channel`, or was removed, by the event at `seq`: the last one to be seen.
    pub fn member_left(&mut self, channel: ChannelId, user: UserId, seq: Seq) {
        self.channel(channel).members.end(user, seq);
    }

    /// A change of the membership of `user` was confirmed; call it in the order of the confirmations.
    pub fn changed(&mut self, channel: ChannelId, user: UserId, change: Change) {
        self.counts.changes += 1;
        self.channel(channel).members.confirmed(user, change);
    }

    /// The members of `channel`, as its whole history tells them: all events from seq 1 on.
    pub fn members_of_history(&mut self, channel: ChannelId, events: &[Event]) {
        let record = self.channels.entry(channel).or_default();
        record.members.replay(channel, events, &mut self.found);
        for user in record.members.users() {
            self.channels_of.entry(user).or_default().insert(channel);
        }
    }

    /// A message is about to be sent (again). Call it before the bytes can reach the node.
    pub fn attempted(
        &mut self,
        channel: ChannelId,
        sender: UserId,
        device: DeviceId,
        key: MessageKey,
        print: Fingerprint,
    ) {
        self.counts.attempts += 1;
        let record = self.channel(channel);
        if record.attempted(sender, device, key, print) {
            self.counts.messages += 1;
        }
    }

    /// An attempt was acknowledged.
    pub fn acked(&mut self, channel: ChannelId, print: Fingerprint, seq: Seq) {
        self.counts.acks += 1;
        let record = self.channels.entry(channel).or_default();
        if record.acked(channel, print, seq, &mut self.found) {
            self.counts.acked_messages += 1;
        }
    }

    /// An attempt was refused for certain. The message must not appear, unless another attempt at it brought it there.
    pub fn refused(&mut self, channel: ChannelId, print: Fingerprint) {
        self.counts.refusals += 1;
        self.channel(channel).refused(print);
    }

    /// The sender was told that its message will never be there, and gave it up: right only for someone who was out of the
    /// channel at some time.
    pub fn given_up(&mut self, channel: ChannelId, print: Fingerprint) {
        self.counts.given_up += 1;
        let record = self.channels.entry(channel).or_default();
        record.given_up(channel, print, &mut self.found);
    }

    /// An attempt ended without an answer, or with `outcome_unknown`.
    pub fn unknown(&mut self, _channel: ChannelId, _print: Fingerprint) {
        self.counts.unknown_outcomes += 1;
    }

    /// The application on `device` was shown an event (an own message counts when its ack tells the seq).
    pub fn delivered(&mut self, device: DeviceId, channel: ChannelId, event: Observed) {
        self.counts.deliveries += 1;
        let record = self.channels.entry(channel).or_default();
        let fits = record.observed(channel, event, &mut self.found);
        if let Some(shown) = record.shown_mut(device) {
            if !shown.insert(event.seq) && fits {
                self.found.add(Violation::ShownTwice {
                    device,
                    channel,
                    seq: event.seq,
                });
            }
        } else if self.devices.contains_key(&device) {
            record.show_first(device, event.seq);
        } else {
            self.found.add(Violation::UnknownDevice { device, channel });
        }
    }

    /// A page of history, read at any time: its events must be consecutive and where everybody else saw them.
    pub fn page(&mut self, reader: UserId, channel: ChannelId, events: &[Observed]) {
        self.counts.history_events += events.len() as u64;
        let record = self.channels.entry(channel).or_default();
        for pair in events.windows(2) {
            if pair[0].seq.checked_add(1) != Some(pair[1].seq) {
                self.found.add(Violation::Gap {
                    reader,
                    channel,
                    expected: pair[0].seq.saturating_add(1),
                    found: pair[1].seq,
                });
            }
        }
        for event in events {
            record.observed(channel, *event, &mut self.found);
        }
    }

    /// The whole history as `reader` may see it, read after the last send was answered. `head`: the newest seq that the
    /// node says there is for this reader.
    pub fn full_history(
        &mut self,
        reader: UserId,
        channel: ChannelId,
        events: &[Observed],
        head: Seq,
    ) {
        let mut read = FullRead::new(reader, channel);
        read.page(self, events);
        read.end(self, head);
    }

    /// Notes a full read; gives the seq that it had to begin at.
    fn ended_read(&mut self, reader: UserId, channel: ChannelId, head: Seq) -> Seq {
        self.counts.full_reads += 1;
        let record = self.channels.entry(channel).or_default();
        record.read_until = Some(record.read_until.unwrap_or(0).max(head));
        record.members.newest(reader).map_or(1, |stay| stay.from)
    }

    /// At the end `user` is told of a channel that nobody made, or made once and has twice.
    pub fn channel_of_nobody(&mut self, channel: ChannelId, user: UserId) {
        self.found.add(Violation::ChannelOfNobody { channel, user });
    }

    /// `device` was told the user's read mark in `channel` by an answer that it asked for now: it must not be below any
    /// that this device was told before.
    pub fn read_mark(&mut self, device: DeviceId, channel: ChannelId, seq: Seq) {
        let Some(state) = self.devices.get_mut(&device) else {
            self.found.add(Violation::UnknownDevice { device, channel });
            return;
        };
        let mark = state.read_marks.entry(channel).or_default();
        if seq < *mark {
            self.found.add(Violation::ReadMarkBack {
                device,
                channel,
                from: *mark,
                to: seq,
            });
        }
        self.read_confirmed(device, channel, seq);
    }

    /// `device` was told by a push that its user has read `channel` up to `seq`: durable from here on. Pushes may overtake
    /// each other, so a lower mark than before is no fault.
    pub fn read_confirmed(&mut self, device: DeviceId, channel: ChannelId, seq: Seq) {
        if let Some(state) = self.devices.get_mut(&device) {
            let mark = state.read_marks.entry(channel).or_default();
            *mark = (*mark).max(seq);
            let user = (state.user, channel);
            let confirmed = self.confirmed_reads.entry(user).or_default();
            *confirmed = (*confirmed).max(seq);
        }
    }

    /// The user's read mark as the node tells it at the end of the run.
    pub fn final_read_mark(&mut self, user: UserId, channel: ChannelId, seq: Seq) {
        self.final_reads.insert((user, channel), seq);
    }

    /// `device` was told its user's inbox position.
    pub fn inbox_position(&mut self, device: DeviceId, position: u64) {
        if let Some(state) = self.devices.get_mut(&device) {
            if position < state.inbox_position {
                self.found.add(Violation::InboxPositionBack {
                    device,
                    from: state.inbox_position,
                    to: position,
                });
            }
            state.inbox_position = state.inbox_position.max(position);
        }
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Violations found so far; 0 says nothing about what only the end can show.
    pub fn violations_so_far(&self) -> u64 {
        self.found.total()
    }

    /// How far `device` is behind: events that somebody saw in channels of its user and it was not shown. The condition
    /// to wait for before [`Checker::verdict`].
    pub fn missing_at(&self, device: DeviceId) -> u64 {
        let Some(state) = self.devices.get(&device) else {
            return 0;
        };
        let missing = self.channels_of(state.user).flat_map(|(_, record)| {
            let missing = record.missing(state.user, device, Seq::MAX);
            missing.into_iter().map(Run::len)
        });
        missing.sum()
    }

    /// Judges the whole run. Full histories must have been read before.
    pub fn verdict(mut self) -> Verdict {
        let mut found = std::mem::take(&mut self.found);
        for (channel, record) in &self.channels {
            record.judge(*channel, &mut found);
        }
        for (device, state) in &self.devices {
            let device = *device;
            for (channel, record) in self.channels_of(state.user) {
                // What the full reads did not find is lost for all, and said once.
                let last = record.read_until.unwrap_or(Seq::MAX);
                for missing in record.missing(state.user, device, last) {
                    found.add_all(missing, |seq| Violation::NotShown {
                        device,
                        channel,
                        seq,
                    });
                }
            }
        }
        for (channel, record) in &self.channels {
            for device in record.devices() {
                let Some(state) = self.devices.get(&device) else {
                    continue;
                };
                for run in record.not_theirs(state.user, device) {
                    found.add_all(run, |seq| Violation::ShownToOutsider {
                        device,
                        channel: *channel,
                        seq,
                    });
                }
            }
        }
        for ((user, channel), confirmed) in &self.confirmed_reads {
            match self.final_reads.get(&(*user, *channel)) {
                Some(seq) if seq < confirmed => found.add(Violation::ReadLost {
                    user: *user,
                    channel: *channel,
                    confirmed: *confirmed,
                    found: *seq,
                }),
                _ => {}
            }
        }
        if self.counts.acks == 0 || self.counts.full_reads == 0 {
            found.add(Violation::NothingCompared);
        }
        Verdict::new(self.counts, self.channels.len(), self.devices.len(), found)
    }

    fn channel(&mut self, channel: ChannelId) -> &mut ChannelRecord {
        self.channels.entry(channel).or_default()
    }

    /// Where `user` is a member, or was.
    fn channels_of(&self, user: UserId) -> impl Iterator<Item = (ChannelId, &ChannelRecord)> {
        let channels = self.channels_of.get(&user).into_iter().flatten();
        channels.filter_map(|channel| Some((*channel, self.channels.get(channel)?)))
    }

    /// What all this takes.
    pub fn memory(&self) -> Memory {
        let marks = self
            .devices
            .values()
            .map(|it| it.read_marks.allocation_size());
        let reads = [&self.confirmed_reads, &self.final_reads].map(HashMap::allocation_size);
        let channels_of = self.channels_of.values().map(HashSet::allocation_size);
        let devices = self.devices.allocation_size() + marks.sum::<usize>();
        let users = self.channels_of.allocation_size() + channels_of.sum::<usize>();
        let mut memory = Memory {
            device_bytes: (devices + users + reads.iter().sum::<usize>()) as u64,
            channel_bytes: self.channels.allocation_size() as u64,
            ..Memory::default()
        };
        for record in self.channels.values() {
            record.weigh(&mut memory);
        }
        memory
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod membership_tests;

#[cfg(test)]
mod history_tests;
