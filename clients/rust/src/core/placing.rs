//! Events into the order of their channel, and out to storage and application.
//!
//! Whatever an event came by, it goes through [`Core::place`]: the log says what is next, the own-author hold says what must
//! wait, and what leaves is stored and given out in the same breath.

use conch_wire::event::Ack;
use conch_wire::frame::PushMode;
use conch_wire::{ChannelId, Seq};

use super::channel::Channel;
use super::event::{Event, Message};
use super::merge::Arrived;
use super::outbox::{OutboxItem, OutboxState, Settled};
use super::persist::{MessageRow, Persist};
use super::{Core, Ms};

/// How long a hole may stay before it is fetched, when what fills it is probably on its way, in milliseconds: an ack may
/// overtake the delivery below it, and a cursor's gap is streamed.
const GAP_GRACE_MS: Ms = 400;

impl Core {
    /// Gives out what is next in a channel, as far as there is something.
    pub(super) fn place(&mut self, now: Ms, id: ChannelId) {
        let me = self.meta.user;
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let outbox = &self.outbox;
        let ready = channel.log.take_ready(|it| {
            Some(it.event.author) == me && it.key.is_none() && outbox.holds(id, it.attempts)
        });
        if !ready.is_empty() {
            self.used += 1;
            channel.used = self.used;
            channel.gap_due = None;
            self.changed.insert(id);
        }
        for arrived in ready {
            channel.on_placed(&arrived.event, me);
            let Arrived { event, key, .. } = arrived;
            let own = self.unplaced.remove(&(id, event.seq));
            let key = key.or(own.as_ref().map(|item| item.key));
            if let Some(item) = own {
                self.out.persist.push(Persist::OutboxRemoved(item.id));
                self.outbox_changed.insert(id);
            }
            self.out
                .events
                .push(Event::Message(Message::read(id, &event, key)));
            self.out.persist.push(Persist::Message(MessageRow {
                channel: id,
                event,
                key,
            }));
        }
        if !channel.shown && channel.log.held() > self.config.held_events_max.saturating_mul(2) {
            self.trim(id, self.config.held_events_max);
        }
        self.note_gap(now + GAP_GRACE_MS, id);
    }

    /// Lets go of all but the newest `keep` events of a channel; the server has them.
    pub(super) fn trim(&mut self, id: ChannelId, keep: u32) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if let Some(base) = channel.log.trim(keep) {
            self.changed.insert(id);
            self.out.persist.push(Persist::MessagesTrimmed(id, base));
        }
    }

    /// A hole that the channel may have is to be fetched at `at`.
    pub(super) fn note_gap(&mut self, at: Ms, id: ChannelId) {
        let wanted = |channel: &Channel, push| channel.shown || push == PushMode::All;
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if wanted(channel, self.config.push) {
            channel.gap_at(at);
        }
        if channel.gap_due.is_some() {
            self.gaps.insert(id);
        } else {
            self.gaps.remove(&id);
        }
    }

    /// What lies below `first` is not for us: the log goes on there.
    pub(super) fn skip_to(&mut self, id: ChannelId, first: Seq) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if let Some((from, to)) = channel.log.skip_to(first) {
            channel.marks.on_skipped(to);
            if channel.marks.uncounted {
                self.uncounted.insert(id);
            }
            self.changed.insert(id);
            self.drop_unplaced(id, first);
            self.out.persist.push(Persist::MessagesRemoved(id));
            self.out.events.push(Event::Skipped {
                channel: id,
                from,
                to,
            });
        }
    }

    /// A send has come to its end.
    pub(super) fn on_settled(&mut self, now: Ms, settled: Settled) {
        match settled {
            Settled::Stored { item, ack } => self.on_stored(now, item, ack),
            Settled::Refused { item, reason } => self.on_given_up(now, item, reason),
        }
    }

    /// The session that sent a message gets its ack in place of the event: we know the content, and put it there.
    fn on_stored(&mut self, now: Ms, mut item: OutboxItem, ack: Ack) {
        self.outbox_changed.insert(item.channel);
        self.out.events.push(Event::SendStored {
            channel: item.channel,
            key: item.key,
            seq: ack.seq,
            time_ms: ack.time_ms,
        });
        let id = item.channel;
        item.state = OutboxState::Stored {
            seq: ack.seq,
            time_ms: ack.time_ms,
        };
        if !self.await_place(&item) {
            self.out.persist.push(Persist::OutboxRemoved(item.id));
            return;
        }
        self.changed.insert(id);
        self.unplaced.insert((id, ack.seq), item);
        self.place(now, id);
        // Not yet: it is kept, so that what was shown as sent is shown after a crash, too.
        if let Some(item) = self.unplaced.get(&(id, ack.seq)) {
            self.out.persist.push(Persist::Outbox(item.clone()));
        }
    }
}
