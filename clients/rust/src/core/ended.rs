//! Own messages whose end is known and that stay all the same: those that the server has and whose place is not reached
//! yet, and those that are given up.
//!
//! A message that was acknowledged ahead of its place (events before it are missing here) keeps its row, with its seq, until
//! it is placed: its row goes in the same transaction in which its event comes. So at no moment, whatever is killed when, is
//! a message that was shown as sent neither in the outbox nor in the log.
//!
//! A message that is given up keeps its row until the person retries or cancels it. It is given up by the server's word, or
//! because it is older than the server's promise to know its key again.

use conch_wire::{ChannelId, Code, Event as Entry, EventFlags, MessageKey, Seq, UserId};

use super::event::{Content, Event, OutboxMessage, RefusalReason, SendState};
use super::merge::Arrived;
use super::outbox::{OutboxItem, OutboxState};
use super::persist::Persist;
use super::{Core, Ms};

/// The node knows a key for 7 days, counted from when it stored the message, which is not before it was written. An hour
/// is left for the last attempt to get there.
const AGE_MAX_MS: u64 = (7 * 24 - 1) * 3_600_000;

impl Core {
    /// Puts a message that the server has into its channel's log. False: its place is passed or not to be had.
    pub(super) fn await_place(&mut self, item: &OutboxItem) -> bool {
        let OutboxState::Stored { seq, time_ms } = item.state else {
            return false;
        };
        let (Some(me), Some(channel)) = (self.meta.user, self.channels.get_mut(&item.channel))
        else {
            return false;
        };
        if seq <= channel.log.have() {
            return false;
        }
        channel.log.arrive(Arrived {
            event: as_event(item, me, seq, time_ms),
            key: Some(item.key),
            attempts: 0,
        });
        true
    }

    /// The places of own messages below `below` will not be reached.
    pub(super) fn drop_unplaced(&mut self, id: ChannelId, below: Seq) {
        let gone: Vec<_> = self
            .unplaced
            .range((id, 0)..(id, below))
            .map(|(place, _)| *place)
            .collect();
        for place in gone {
            if let Some(item) = self.unplaced.remove(&place) {
                self.out.persist.push(Persist::OutboxRemoved(item.id));
                self.outbox_changed.insert(id);
            }
        }
    }

    /// A message is given up, and kept for the person.
    pub(super) fn on_given_up(&mut self, now: Ms, mut item: OutboxItem, reason: RefusalReason) {
        let id = item.channel;
        self.out.events.push(Event::SendRefused {
            channel: id,
            key: item.key,
            reason,
        });
        self.outbox_changed.insert(id);
        item.state = OutboxState::Refused(reason);
        self.out.persist.push(Persist::Outbox(item.clone()));
        self.refused.insert(item.id, item);
        self.place(now, id);
    }

    /// Gives up what the server may not know again any more.
    pub(super) fn on_expire(&mut self, now: Ms, wall_ms: u64) {
        let before_ms = wall_ms.saturating_sub(AGE_MAX_MS);
        for item in self.outbox.expire(before_ms) {
            self.on_given_up(now, item, RefusalReason::Expired);
        }
    }

    fn given_up(&self, key: MessageKey) -> Option<&OutboxItem> {
        self.refused.values().find(|item| item.key == key)
    }

    /// The key under which [`super::Command::Retry`] with the same arguments will send; `None`: no message of this key is given up.
    /// It is the old one, so that there is one message whatever became of earlier attempts, unless that key cannot be used.
    pub fn retry_key(
        &self,
        key: MessageKey,
        fresh_key: MessageKey,
        wall_ms: u64,
    ) -> Option<MessageKey> {
        let item = self.given_up(key)?;
        let is_spent = matches!(
            item.state,
            OutboxState::Refused(RefusalReason::Expired | RefusalReason::Server(Code::Conflict))
        );
        let is_old = item.created_ms < wall_ms.saturating_sub(AGE_MAX_MS);
        Some(if is_spent || is_old { fresh_key } else { key })
    }

    pub(super) fn on_retry(&mut self, key: MessageKey, fresh_key: MessageKey, wall_ms: u64) {
        let Some(used_key) = self.retry_key(key, fresh_key, wall_ms) else {
            return;
        };
        let Some(id) = self.given_up(key).map(|item| item.id) else {
            return;
        };
        let Some(mut item) = self.refused.remove(&id) else {
            return;
        };
        self.out.persist.push(Persist::OutboxRemoved(id));
        item.id = self.outbox.next_id();
        item.state = OutboxState::Waiting;
        item.after = self.newest_held(item.channel);
        if used_key == key {
            self.out.persist.push(Persist::Outbox(item.clone()));
            self.outbox_changed.insert(item.channel);
            self.outbox.push_again(item);
        } else {
            item.key = used_key;
            item.created_ms = wall_ms;
            self.on_send(item);
        }
    }

    /// Whether [`super::Command::Cancel`] will take the message out: it is given up, or has never left.
    pub fn can_cancel(&self, key: MessageKey) -> bool {
        self.given_up(key).is_some() || self.outbox.has_not_left(key)
    }

    pub(super) fn on_cancel(&mut self, key: MessageKey) {
        let given_up = self.given_up(key).map(|item| item.id);
        let item = match given_up {
            Some(id) => self.refused.remove(&id),
            None => self.outbox.take_back(key),
        };
        let Some(item) = item else { return };
        self.out.persist.push(Persist::OutboxRemoved(item.id));
        self.outbox_changed.insert(item.channel);
        if given_up.is_none() {
            self.out.events.push(Event::SendRefused {
                channel: item.channel,
                key,
                reason: RefusalReason::Cancelled,
            });
        }
    }

    /// Behind what a message of this moment stands; behind everything in a channel that is not known.
    pub(super) fn newest_held(&self, channel: ChannelId) -> Seq {
        let known = self.channels.get(&channel);
        known.map_or(Seq::MAX, |it| it.log.have())
    }

    /// Own messages that are not in the log, in the order in which they were written.
    pub fn outbox(&self) -> Vec<OutboxMessage> {
        let kept = self.unplaced.values().chain(self.refused.values());
        let kept = kept.map(|item| {
            let state = match item.state {
                OutboxState::Stored { seq, time_ms } => SendState::Sent { seq, time_ms },
                OutboxState::Refused(reason) => SendState::Refused { reason },
                OutboxState::Waiting => SendState::Waiting,
            };
            (item, state)
        });
        let mut all: Vec<_> = self.outbox.items().chain(kept).collect();
        all.sort_unstable_by_key(|(item, _)| item.id);
        all.into_iter()
            .map(|(item, state)| OutboxMessage {
                channel: item.channel,
                key: item.key,
                content: Content::read(&as_event(item, UserId::default(), 0, 0)),
                created_ms: item.created_ms,
                after: item.after,
                state,
            })
            .collect()
    }
}

/// A message as it stands, or will stand, in the log.
fn as_event(item: &OutboxItem, author: UserId, seq: Seq, time_ms: u64) -> Entry {
    Entry {
        author,
        seq,
        time_ms,
        kind: item.kind,
        flags: EventFlags(item.flags.0 & EventFlags::TABLE.0),
        tail: item.tail.clone(),
    }
}
