//! Own messages that are not in the log yet: on their way, or refused.
//!
//! A message is shown from the key press on. The client names it when it is safe on this device, and speaks of it by that
//! name; its word about one may overtake the answer that names it, so words about unknown names are kept for a moment.

use std::collections::VecDeque;

use conch_client::core::{Content, OutboxMessage, RefusalReason, SendState};
use conch_client::wire::{ChannelId, Code, MessageKey};

use crate::harmless;

/// Words about unknown names that are kept; each belongs to a call that is under way.
const EARLY_MAX: usize = 256;

/// How far a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Not yet safe on this device.
    Taking,
    /// Safe here; goes out as soon as it can.
    Queued,
    /// The server asked for patience.
    Delayed { code: Code, until_ms: u64 },
    /// Stored for ever; its place among the others is not shown yet.
    Stored,
    /// Given up; kept until the person sends it again or takes it back.
    Refused { reason: RefusalReason },
}

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    /// Number on this screen.
    pub(crate) ticket: u64,
    pub(crate) key: Option<MessageKey>,
    pub(crate) channel: ChannelId,
    /// As it was written.
    pub(crate) text: String,
    /// As it is shown.
    pub(crate) shown: String,
    pub(crate) created_ms: u64,
    pub(crate) stage: Stage,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    items: Vec<Sending>,
    early: VecDeque<(MessageKey, Option<RefusalReason>)>,
    last_ticket: u64,
}

impl Outbox {
    pub(crate) fn of(&self, channel: ChannelId) -> impl Iterator<Item = &Sending> {
        self.items.iter().filter(move |it| it.channel == channel)
    }

    /// Messages that are still to go out.
    pub(crate) fn waiting(&self) -> usize {
        let is_waiting = |it: &&Sending| !matches!(it.stage, Stage::Stored | Stage::Refused { .. });
        self.items.iter().filter(is_waiting).count()
    }

    /// What the client kept of an earlier run.
    pub(crate) fn load(&mut self, messages: Vec<OutboxMessage>) {
        for message in messages {
            if self.items.iter().any(|it| it.key == Some(message.key)) {
                continue;
            }
            let text = match message.content {
                Content::Text { text, .. } => text,
                _ => "[not a text]".to_owned(),
            };
            let ticket = self.begin(message.channel, text, message.created_ms);
            self.on_taken(ticket, message.key);
            if self.find(message.key).is_none() {
                continue;
            }
            match message.state {
                SendState::Waiting | SendState::Sending => {}
                SendState::Sent { .. } => self.on_stored(message.key),
                SendState::Refused { reason } => self.on_refused(message.key, reason),
            }
        }
    }

    /// A message was written. Returns its ticket.
    pub(crate) fn begin(&mut self, channel: ChannelId, text: String, now_ms: u64) -> u64 {
        self.last_ticket += 1;
        self.items.push(Sending {
            ticket: self.last_ticket,
            key: None,
            channel,
            shown: harmless::text(&text),
            text,
            created_ms: now_ms,
            stage: Stage::Taking,
        });
        self.last_ticket
    }

    /// It is safe on this device under this name.
    pub(crate) fn on_taken(&mut self, ticket: u64, key: MessageKey) {
        let early = self.early.iter().position(|(it, _)| *it == key);
        let early = early.and_then(|at| self.early.remove(at));
        let Some(item) = self.items.iter_mut().find(|it| it.ticket == ticket) else {
            return;
        };
        item.key = Some(key);
        match early {
            None => item.stage = Stage::Queued,
            Some((_, Some(reason))) => item.stage = Stage::Refused { reason },
            // Its place may be shown already.
            Some((_, None)) => self.items.retain(|it| it.ticket != ticket),
        }
    }

    /// It could not be taken. Returns its text.
    pub(crate) fn on_not_taken(&mut self, ticket: u64) -> Option<String> {
        let at = self.items.iter().position(|it| it.ticket == ticket)?;
        Some(self.items.remove(at).text)
    }

    pub(crate) fn on_stored(&mut self, key: MessageKey) {
        match self.find(key) {
            Some(item) => item.stage = Stage::Stored,
            None => self.remember(key, None),
        }
    }

    pub(crate) fn on_refused(&mut self, key: MessageKey, reason: RefusalReason) {
        if reason == RefusalReason::Cancelled {
            return self.on_placed(key);
        }
        match self.find(key) {
            Some(item) => item.stage = Stage::Refused { reason },
            None => self.remember(key, Some(reason)),
        }
    }

    /// It stands in the log.
    pub(crate) fn on_placed(&mut self, key: MessageKey) {
        match self.items.iter().position(|it| it.key == Some(key)) {
            Some(at) => drop(self.items.remove(at)),
            // What this device still had to send is on its way to us, as of a moment ago.
            None => self.remember(key, None),
        }
    }

    pub(crate) fn on_delayed(&mut self, channel: ChannelId, code: Code, until_ms: u64) {
        for item in &mut self.items {
            let waits = matches!(item.stage, Stage::Queued | Stage::Delayed { .. });
            if item.channel == channel && waits {
                item.stage = Stage::Delayed { code, until_ms };
            }
        }
    }

    /// Patience that is over; returns whether anything changed.
    pub(crate) fn on_time(&mut self, now_ms: u64) -> bool {
        let mut changed = false;
        for item in &mut self.items {
            if matches!(item.stage, Stage::Delayed { until_ms, .. } if until_ms <= now_ms) {
                item.stage = Stage::Queued;
                changed = true;
            }
        }
        changed
    }

    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        let until = self.items.iter().filter_map(|it| match it.stage {
            Stage::Delayed { until_ms, .. } => Some(until_ms),
            _ => None,
        });
        until.min()
    }

    /// Takes the newest refused message of a channel out, to write it anew: its text and its name.
    pub(crate) fn take_refused(&mut self, channel: ChannelId) -> Option<(String, MessageKey)> {
        let at = self.newest_refused(channel)?;
        let item = self.items.remove(at);
        Some((item.text, item.key?))
    }

    /// The newest refused message of a channel is tried again: its ticket and its name.
    pub(crate) fn begin_again(&mut self, channel: ChannelId) -> Option<(u64, MessageKey)> {
        let at = self.newest_refused(channel)?;
        // It goes out behind what was written since.
        let mut item = self.items.remove(at);
        item.stage = Stage::Taking;
        let again = item.key.map(|key| (item.ticket, key));
        self.items.push(item);
        again
    }

    fn newest_refused(&self, channel: ChannelId) -> Option<usize> {
        let is_refused = |it: &Sending| matches!(it.stage, Stage::Refused { .. });
        let mut items = self.items.iter();
        items.rposition(|it| it.channel == channel && it.key.is_some() && is_refused(it))
    }

    fn find(&mut self, key: MessageKey) -> Option<&mut Sending> {
        self.items.iter_mut().find(|it| it.key == Some(key))
    }

    fn remember(&mut self, key: MessageKey, reason: Option<RefusalReason>) {
        self.early.retain(|(it, _)| *it != key);
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back((key, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ChannelId = ChannelId(7);
    const KEY: MessageKey = MessageKey([3; 16]);
    const NO: RefusalReason = RefusalReason::Server(Code::Forbidden);

    fn stages(outbox: &Outbox) -> Vec<Stage> {
        outbox.of(HERE).map(|it| it.stage).collect()
    }

    #[test]
    fn word_that_overtakes_the_name_is_not_lost() {
        let mut outbox = Outbox::default();
        let ticket = outbox.begin(HERE, "hi".to_owned(), 0);
        outbox.on_stored(KEY);
        outbox.on_placed(KEY);
        outbox.on_taken(ticket, KEY);
        assert_eq!(stages(&outbox), []);
        let ticket = outbox.begin(HERE, "hi".to_owned(), 0);
        outbox.on_refused(KEY, NO);
        outbox.on_taken(ticket, KEY);
        assert_eq!(stages(&outbox), [Stage::Refused { reason: NO }]);
    }

    #[test]
    fn list_of_a_moment_ago_brings_nothing_back() {
        let mut outbox = Outbox::default();
        outbox.on_stored(KEY);
        outbox.on_placed(KEY);
        outbox.load(vec![OutboxMessage {
            channel: HERE,
            key: KEY,
            content: Content::Text {
                text: "hi".to_owned(),
                mentions: Vec::new(),
            },
            created_ms: 0,
            after: 0,
            state: SendState::Sending,
        }]);
        assert_eq!(stages(&outbox), []);
    }

    #[test]
    fn message_waits_is_delayed_and_placed() {
        let mut outbox = Outbox::default();
        let ticket = outbox.begin(HERE, "hi".to_owned(), 0);
        outbox.on_taken(ticket, KEY);
        outbox.on_delayed(HERE, Code::RateLimited, 50);
        assert_eq!(outbox.wake_at_ms(), Some(50));
        assert!(!outbox.on_time(49) && outbox.on_time(50));
        assert_eq!(
            (stages(&outbox), outbox.waiting()),
            (vec![Stage::Queued], 1)
        );
        outbox.on_stored(KEY);
        assert_eq!(outbox.waiting(), 0);
        outbox.on_placed(KEY);
        assert_eq!(stages(&outbox), []);
    }

    #[test]
    fn refused_message_can_be_sent_again_or_written_anew() {
        let mut outbox = Outbox::default();
        let ticket = outbox.begin(HERE, "hi".to_owned(), 0);
        outbox.on_taken(ticket, KEY);
        outbox.on_refused(KEY, NO);
        assert_eq!(outbox.begin_again(HERE), Some((ticket, KEY)));
        assert_eq!(outbox.begin_again(HERE), None);
        outbox.on_taken(ticket, KEY);
        assert_eq!(stages(&outbox), [Stage::Queued]);
        outbox.on_refused(KEY, NO);
        assert_eq!(outbox.take_refused(HERE), Some(("hi".to_owned(), KEY)));
        assert_eq!(outbox.take_refused(HERE), None);
    }
}
