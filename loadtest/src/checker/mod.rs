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
//! must never send the same content twice under two keys. Memory: about 60 bytes per message, one bit per device and
//! message. No IO, no clock; a run that compared nothing does not pass.

mod bits;
mod channel;
mod fingerprint;
mod membership;
mod verdict;
mod violation;

use std::collections::HashMap;

use conch_wire::{ChannelId, DeviceId, Event, MessageKey, Seq, UserId};

use bits::SeqSet;
use channel::ChannelRecord;
pub use fingerprint::{Fingerprint, Observed};
use membership::Stay;
pub use verdict::{Counts, Verdict};
pub use violation::Violation;

/// What the world outside saw; see the module for how to use it.
#[derive(Debug, Default)]
pub struct Checker {
    channels: HashMap<ChannelId, ChannelRecord>,
    devices: HashMap<DeviceId, DeviceRecord>,
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
    shown: HashMap<ChannelId, SeqSet>,
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
                shown: HashMap::new(),
                read_marks: HashMap::new(),
                inbox_position: 0,
            },
        );
    }

    /// `user` is a member of `channel` and sees it from seq `from` on.
    pub fn add_member(&mut self, channel: ChannelId, user: UserId, from: Seq) {
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
        self.channel(channel).given_up(print);
    }

    /// An attempt ended without an answer, or with `outcome_unknown`.
    pub fn unknown(&mut self, _channel: ChannelId, _print: Fingerprint) {
        self.counts.unknown_outcomes += 1;
    }

    /// The application on `device` was shown an event (an own message counts when its ack tells the seq).
    pub fn delivered(&mut self, device: DeviceId, channel: ChannelId, event: Observed) {
        self.counts.deliveries += 1;
        let record = self.channels.entry(channel).or_default();
        record.observed(channel, event, &mut self.found);
        let Some(state) = self.devices.get_mut(&device) else {
            self.found.add(Violation::UnknownDevice { device, channel });
            return;
        };
        if !state.shown.entry(channel).or_default().insert(event.seq) {
            self.found.add(Violation::ShownTwice {
                device,
                channel,
                seq: event.seq,
            });
        }
    }

    /// A page of history, read at any time: its events must be consecutive and where everybody else saw them.
    pub fn page(&mut self, reader: UserId, channel: ChannelId, events: &[Observed]) {
        self.counts.history_events += events.len() as u64;
        let record = self.channels.entry(channel).or_default();
        for pair in events.windows(2) {
            if pair[1].seq != pair[0].seq + 1 {
                self.found.add(Violation::Gap {
                    reader,
                    channel,
                    expected: pair[0].seq + 1,
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
        self.page(reader, channel, events);
        self.counts.full_reads += 1;
        let record = self.channels.entry(channel).or_default();
        let from = record.members.newest(reader).map_or(1, |stay| stay.from);
        let first = events.first().map_or(head + 1, |event| event.seq);
        let last = events.last().map_or(0, |event| event.seq);
        if first != from && !(events.is_empty() && head < from) {
            self.found.add(Violation::Gap {
                reader,
                channel,
                expected: from,
                found: first,
            });
        }
        if last != head && !events.is_empty() {
            self.found.add(Violation::Gap {
                reader,
                channel,
                expected: head,
                found: last,
            });
        }
        record.read_until = Some(record.read_until.unwrap_or(0).max(head));
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
        self.owed_to(state)
            .map(|(channel, record, stay)| {
                record
                    .places_in(stay.from, stay.until)
                    .filter(|seq| !state.has(channel, *seq))
                    .count() as u64
            })
            .sum()
    }

    /// Judges the whole run. Full histories must have been read before.
    pub fn verdict(mut self) -> Verdict {
        let mut found = std::mem::take(&mut self.found);
        for (channel, record) in &self.channels {
            record.judge(*channel, &mut found);
        }
        for (device, state) in &self.devices {
            for (channel, record, stay) in self.owed_to(state) {
                for seq in record.places_in(stay.from, stay.until) {
                    if !state.has(channel, seq) {
                        found.add(Violation::NotShown {
                            device: *device,
                            channel,
                            seq,
                        });
                    }
                }
            }
        }
        for (device, state) in &self.devices {
            for (channel, shown) in &state.shown {
                let members = self.channels.get(channel).map(|record| &record.members);
                let may_see = |seq: &Seq| members.is_some_and(|it| it.may_see(state.user, *seq));
                for seq in shown.iter().filter(|seq| !may_see(seq)) {
                    found.add(Violation::ShownToOutsider {
                        device: *device,
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

    /// What a device must have been shown: the newest stay of its user in each channel. Of a stay that is over, only if it was
    /// shown some of it: a device that was away for the whole of it need not care any more.
    fn owed_to(
        &self,
        state: &DeviceRecord,
    ) -> impl Iterator<Item = (ChannelId, &ChannelRecord, Stay)> {
        self.channels.iter().filter_map(move |(channel, record)| {
            let stay = record.members.newest(state.user)?;
            let is_owed = match stay.until {
                None => true,
                Some(_) => record
                    .places_in(stay.from, stay.until)
                    .any(|seq| state.has(*channel, seq)),
            };
            is_owed.then_some((*channel, record, stay))
        })
    }
}

impl DeviceRecord {
    fn has(&self, channel: ChannelId, seq: Seq) -> bool {
        self.shown
            .get(&channel)
            .is_some_and(|shown| shown.contains(seq))
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod membership_tests;
