//! HELLO and WELCOME: coming back without losing or repeating anything.
//!
//! HELLO carries the sync token, the cursors of the channels used last (so that their gaps are streamed and sends need no
//! further question), the pending sends, and the session that this one replaces, whose late frames the owners then refuse.
//! Nothing is sent before WELCOME has answered for the pending sends; then everything unresolved goes again, first in its
//! channel and under its old key.

use std::cmp::Reverse;

use conch_wire::frame::{Cursor, Hello, PushMode, Welcome};
use conch_wire::limits::HELLO_CURSORS_MAX;
use conch_wire::{ClientFrame, Code};

use super::channel::Channel;
use super::event::StopReason;
use super::{Core, Ms};

/// Minor version that this client was written for.
const MINOR: u16 = 0;
/// After this long without an answer a cursor of HELLO is taken for refused, in milliseconds.
const CURSORS_WAIT_MS: Ms = 5_000;

impl Core {
    pub(super) fn say_hello(&mut self, token: String) {
        let hello = Hello {
            minor: MINOR,
            features: 0,
            token,
            client: self.config.client.clone(),
            sync_token: self.meta.sync_token.clone(),
            cursors: self.cursors(),
            // Without the session of the last attempts *absent* would not hold. They go again under their keys.
            pending: match self.meta.session {
                Some(_) => self.outbox.ask(),
                None => Vec::new(),
            },
            replaces: self.meta.session,
            credit_bytes: self.config.credit_bytes,
            push: self.config.push,
        };
        self.put(&ClientFrame::Hello(hello));
    }

    fn cursors(&mut self) -> Vec<Cursor> {
        let generation = self.meta.generation;
        let mut recent: Vec<&Channel> = self
            .channels
            .values()
            .filter(|it| it.left_seq.is_none())
            .filter(|it| it.shown || self.config.push == PushMode::All)
            .collect();
        recent.sort_unstable_by_key(|it| (Reverse(it.shown), Reverse(it.used)));
        recent.truncate(HELLO_CURSORS_MAX);
        let cursors: Vec<_> = recent
            .into_iter()
            .filter_map(|channel| {
                Some(Cursor {
                    channel: channel.id,
                    generation,
                    seq: channel.log.have(),
                    alias: self.aliases.choose(channel.id)?,
                })
            })
            .collect();
        self.cursors = cursors.iter().map(|cursor| cursor.channel).collect();
        cursors
    }

    /// A cursor of HELLO did not open. Its channel is opened by OPEN_CHANNEL when it is needed.
    pub(super) fn on_cursor_refused(&mut self, now: Ms, index: u16) {
        if let Some(channel) = self.cursors.get(usize::from(index)).copied() {
            self.aliases.forget(channel);
            self.note_gap(now, channel);
        }
    }

    pub(super) fn on_welcome(&mut self, now: Ms, welcome: Welcome) {
        if self.meta.user.is_some_and(|user| user != welcome.user) {
            return self.stop(Code::GoingAway, StopReason::WrongAccount);
        }
        if self.meta.generation != 0 && self.meta.generation != welcome.generation {
            self.forget();
        }
        self.meta.user = Some(welcome.user);
        self.meta.generation = welcome.generation;
        self.meta.session = Some(welcome.session);
        self.save_meta();
        self.on_online(now, welcome.limits);
        for settled in self.outbox.on_answers(&welcome.pending) {
            self.on_settled(now, settled);
        }
        self.release_all(now);
        self.sync
            .on_welcome(welcome.inbox_position, now + CURSORS_WAIT_MS);
        self.reopen_shown();
        self.note_gaps_without_cursor(now);
    }

    /// An event that was held may be free now that the pending sends are settled.
    fn release_all(&mut self, now: Ms) {
        let channels: Vec<_> = self.channels.keys().copied().collect();
        for channel in channels {
            self.place(now, channel);
        }
    }

    /// Shown channels that did not fit into HELLO, or are not known yet.
    fn reopen_shown(&mut self) {
        let shown: Vec<_> = self
            .channels
            .values()
            .filter(|it| it.shown && it.left_seq.is_none())
            .map(|it| it.id)
            .collect();
        for channel in shown {
            self.open_if_needed(channel);
        }
    }

    /// The server streams the gaps of cursors, or says CHANNEL_HEAD; all others are ours to fetch.
    fn note_gaps_without_cursor(&mut self, now: Ms) {
        let without: Vec<_> = self
            .channels
            .keys()
            .copied()
            .filter(|id| !self.aliases.is_opening(*id))
            .collect();
        for channel in without {
            self.note_gap(now, channel);
        }
    }

    /// Cursors that were not answered in time.
    pub(super) fn give_up_cursors(&mut self, now: Ms) {
        let silent: Vec<_> = self
            .channels
            .keys()
            .copied()
            .filter(|id| self.aliases.is_opening(*id) && !self.requests.is_opening(*id))
            .collect();
        for channel in silent {
            self.aliases.forget(channel);
            self.note_gap(now, channel);
        }
    }
}
