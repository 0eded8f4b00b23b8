//! Who may see which seqs of a channel: the stays of each user, as the channel's own events tell them.

use conch_wire::event::EventBody;
use conch_wire::{ChannelId, Event, EventKind, Seq, UserId};
use hashbrown::HashMap;

use super::verdict::Found;
use super::{Change, Violation};

/// One stay in a channel: the event that began it, and the one that ended it. Both are seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stay {
    pub(super) from: Seq,
    pub(super) until: Option<Seq>,
}

impl Stay {
    /// The last seq of it so far.
    pub(super) fn last(self) -> Seq {
        self.until.unwrap_or(Seq::MAX)
    }
}

/// Stays by user, oldest first, and the changes that made them.
#[derive(Debug, Default)]
pub(super) struct Membership {
    stays: HashMap<UserId, Vec<Stay>>,
    /// As the channel's events tell them; the first members are in no change.
    told: HashMap<UserId, Vec<Change>>,
    /// As they were asked for and confirmed from outside.
    confirmed: HashMap<UserId, Vec<Change>>,
    is_replayed: bool,
}

impl Membership {
    pub(super) fn add(&mut self, user: UserId, from: Seq) {
        let stay = Stay { from, until: None };
        let stays = self.stays.entry(user).or_default();
        // Said again: one stay all the same.
        stays.retain(|stay| stay.until.is_some());
        stays.push(stay);
    }

    pub(super) fn end(&mut self, user: UserId, seq: Seq) {
        let last = self.stays.get_mut(&user).and_then(|stays| stays.last_mut());
        if let Some(stay) = last {
            stay.until = Some(seq);
        }
    }

    pub(super) fn confirmed(&mut self, user: UserId, change: Change) {
        self.confirmed.entry(user).or_default().push(change);
    }

    /// The newest stay: what a user's devices have to be shown.
    pub(super) fn newest(&self, user: UserId) -> Option<Stay> {
        self.stays.get(&user)?.last().copied()
    }

    /// All stays, oldest first.
    pub(super) fn all(&self, user: UserId) -> impl Iterator<Item = Stay> {
        self.stays.get(&user).into_iter().flatten().copied()
    }

    /// Everybody who was ever in.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> {
        self.stays.keys().copied()
    }

    /// Bytes on the heap, changes not counted.
    pub(super) fn heap_bytes(&self) -> usize {
        let stays: usize = self.stays.values().map(Vec::capacity).sum();
        self.stays.allocation_size() + stays * size_of::<Stay>()
    }

    /// Whether the user was in from the beginning of what they see to the end of the run: nothing may be refused to them
    /// for lack of membership.
    pub(super) fn never_left(&self, user: UserId) -> bool {
        self.stays.get(&user).is_some_and(|stays| {
            matches!(
                stays[..],
                [Stay {
                    from: 1,
                    until: None
                }]
            )
        })
    }

    /// Forgets what was said of members and follows the channel's events from the first one on.
    pub(super) fn replay(&mut self, channel: ChannelId, events: &[Event], found: &mut Found) {
        self.stays.clear();
        self.told.clear();
        self.is_replayed = true;
        for event in events {
            self.follow(channel, event, found);
        }
    }

    fn follow(&mut self, channel: ChannelId, event: &Event, found: &mut Found) {
        let seq = event.seq;
        let (is_in, change) = match EventKind::from_u8(event.kind) {
            Some(EventKind::ChannelCreated) => (true, None),
            Some(EventKind::MembersAdded) => (true, Some(Change::Added)),
            Some(EventKind::MemberRemoved) => (false, Some(Change::Removed)),
            Some(EventKind::MemberLeft) => (false, Some(Change::Left)),
            _ => return,
        };
        let Ok(body) = EventBody::decode(&event.tail) else {
            found.add(Violation::Forged { channel, seq });
            return;
        };
        for member in body.members {
            let user = member.user;
            let was_in = self.newest(user).is_some_and(|stay| stay.until.is_none());
            if was_in == is_in {
                found.add(Violation::ChangeOfNothing { channel, user, seq });
            } else if is_in {
                self.add(user, seq);
            } else {
                self.end(user, seq);
            }
            if let Some(change) = change {
                self.told.entry(user).or_default().push(change);
            }
        }
    }

    /// Every confirmed change happened, once and in its order, and no other one.
    pub(super) fn judge(&self, channel: ChannelId, found: &mut Found) {
        if !self.is_replayed {
            return;
        }
        for user in self.told.keys().chain(self.confirmed.keys()) {
            let told = self.told.get(user).map_or(&[][..], Vec::as_slice);
            let confirmed = self.confirmed.get(user).map_or(&[][..], Vec::as_slice);
            if told != confirmed {
                found.add(Violation::ChangesDiffer {
                    channel,
                    user: *user,
                    confirmed: confirmed.len(),
                    found: told.len(),
                });
            }
        }
    }
}
