//! The channels of one connection: aliases, and what is being opened.
//!
//! Pure. An alias is a channel's number on this connection: chosen by the client (top bit clear) in HELLO or
//! OPEN_CHANNEL, or by the server (top bit set) before it pushes the first event of a channel. None is ever used twice on
//! a connection. A channel is **opening** from then until its view (and, for a client that comes back, its gap) is
//! written; events that are pushed meanwhile are held, so that they follow CHANNEL_OPENED and the gap in order.

use std::collections::{HashMap, HashSet};

use conch_router::Published;
use conch_wire::frame::Cursor;
use conch_wire::{Alias, ChannelId, Code, Seq};
use smallvec::SmallVec;

use super::aliases::Aliases;

/// Aliases with this bit are the server's.
pub const SERVER_ALIAS: Alias = 0x8000_0000;

/// Most aliases that a client may use up on one connection: their numbers are remembered, to refuse them later.
const CLIENT_ALIASES_MAX: usize = 16_384;

/// Most events held for an opening channel; more, and the channel collapses.
const HELD_MAX: usize = 64;

/// Most times that a channel may be asked for while it is opening.
const WAITERS_MAX: usize = 8;

/// A client that asked for the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// 0 for a cursor of HELLO.
    pub request: u32,
    /// Index of the cursor in HELLO.
    pub item: u16,
    pub generation: u32,
    pub seq: Seq,
}

/// How far an opening is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Waits for its turn to ask the owner.
    Queued,
    /// The owner was asked for the view.
    View,
    /// The gap up to `to` is being read and streamed.
    Gap { to: Seq },
}

/// A channel that is being opened.
#[derive(Debug)]
pub struct Opening {
    pub stage: Stage,
    /// Empty: the server opens it by itself, for the first pushed event.
    pub waiters: SmallVec<[Waiter; 1]>,
    /// Pushed meanwhile, in order.
    pub held: Vec<Published>,
    /// What the client has been told or sent already: held events up to here are not sent again.
    pub covered: Seq,
    /// Asked by HELLO: the first SYNC_CHANGES waits for it.
    pub hello: bool,
    /// Events were dropped: a head is owed when the opening is done.
    pub overflowed: bool,
    /// The user left meanwhile: the alias is closed when the opening is done.
    pub left: bool,
}

impl Opening {
    /// Waits for its turn.
    pub fn queued() -> Opening {
        Opening {
            stage: Stage::Queued,
            waiters: SmallVec::new(),
            held: Vec::new(),
            covered: 0,
            hello: false,
            overflowed: false,
            left: false,
        }
    }

    /// Keeps a pushed event until the opening is done.
    pub fn hold(&mut self, event: Published) {
        if self.overflowed || self.held.len() >= HELD_MAX {
            self.overflowed = true;
        } else {
            self.held.push(event);
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Channels {
    aliases: Aliases,
    /// Channels with an alias that are being opened; without memory while there are none.
    openings: HashMap<ChannelId, Box<Opening>>,
    /// Client aliases that were closed.
    used_up: HashSet<Alias>,
    server_aliases: u32,
}

/// What became of a client's wish to open a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenOutcome {
    /// A new opening: ask the owner.
    Started,
    /// It has an alias and is opening: answered with it.
    Joined,
}

impl Channels {
    pub fn channel_of(&self, alias: Alias) -> Option<ChannelId> {
        self.aliases.channel_of(alias)
    }

    pub fn alias_of(&self, channel: ChannelId) -> Option<Alias> {
        self.aliases.alias_of(channel)
    }

    /// The opening that is under way.
    pub fn opening_mut(&mut self, channel: ChannelId) -> Option<&mut Opening> {
        if self.openings.is_empty() {
            return None;
        }
        self.openings.get_mut(&channel).map(Box::as_mut)
    }

    /// The opening is done.
    pub fn take_opening(&mut self, channel: ChannelId) -> Option<Box<Opening>> {
        let opening = self.openings.remove(&channel)?;
        if self.openings.is_empty() {
            self.openings = HashMap::new();
        }
        Some(opening)
    }

    /// A channel with an alias is opened again.
    pub fn open_again(&mut self, channel: ChannelId, opening: Opening) {
        self.openings.insert(channel, Box::new(opening));
    }

    /// A client opens a channel under an alias of its own, or asks again for one that has an alias already, which then
    /// holds and is told. `Err`: the alias may not be used; nothing changed.
    pub fn open(&mut self, cursor: &Cursor, request: u32, item: u16) -> Result<OpenOutcome, Code> {
        let waiter = Waiter {
            request,
            item,
            generation: cursor.generation,
            seq: cursor.seq,
        };
        if self.aliases.alias_of(cursor.channel).is_some() {
            let fresh = !self.openings.contains_key(&cursor.channel);
            let opening = self
                .openings
                .entry(cursor.channel)
                .or_insert_with(|| Box::new(Opening::queued()));
            if opening.waiters.len() >= WAITERS_MAX {
                return Err(Code::RateLimited);
            }
            opening.waiters.push(waiter);
            return Ok(if fresh {
                OpenOutcome::Started
            } else {
                OpenOutcome::Joined
            });
        }
        let alias = cursor.alias;
        if alias == 0
            || alias & SERVER_ALIAS != 0
            || self.aliases.channel_of(alias).is_some()
            || self.used_up.contains(&alias)
        {
            return Err(Code::BadAlias);
        }
        if self.aliases.len() + self.used_up.len() >= CLIENT_ALIASES_MAX {
            return Err(Code::LimitReached);
        }
        let mut opening = Opening::queued();
        opening.waiters.push(waiter);
        self.insert(cursor.channel, alias, opening);
        Ok(OpenOutcome::Started)
    }

    /// The server opens a channel for a pushed event.
    pub fn open_for_push(&mut self, event: Published, left: bool) {
        self.server_aliases += 1;
        let alias = SERVER_ALIAS | self.server_aliases;
        let mut opening = Opening::queued();
        opening.left = left;
        let channel = event.channel;
        opening.hold(event);
        self.insert(channel, alias, opening);
    }

    fn insert(&mut self, channel: ChannelId, alias: Alias, opening: Opening) {
        self.aliases.insert(channel, alias);
        self.openings.insert(channel, Box::new(opening));
    }

    /// The alias ends; its number is never used again. The opening that was under way, if any, is handed back.
    pub fn close(&mut self, channel: ChannelId) -> Option<Box<Opening>> {
        let alias = self.aliases.remove(channel)?;
        if alias & SERVER_ALIAS == 0 {
            self.used_up.insert(alias);
        }
        self.take_opening(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor(channel: u64, alias: Alias) -> Cursor {
        Cursor {
            channel: ChannelId(channel),
            generation: 0,
            seq: 0,
            alias,
        }
    }

    proptest! {
        #[test]
        fn an_alias_means_one_channel_for_the_whole_connection(
            steps in prop::collection::vec((1u64..6, 0u32..8, 0u8..3), 0..200),
        ) {
            let mut channels = Channels::default();
            let mut ever: HashMap<Alias, ChannelId> = HashMap::new();
            for (channel, alias, step) in steps {
                match step {
                    0 => {
                        let before = channels.alias_of(ChannelId(channel)).is_some();
                        let outcome = channels.open(&cursor(channel, alias), 1, 0);
                        if !before {
                            prop_assert_eq!(outcome.is_ok(), alias != 0 && !ever.contains_key(&alias));
                        }
                    }
                    _ => {
                        channels.close(ChannelId(channel));
                    }
                }
                for channel in (1..6).map(ChannelId) {
                    let Some(alias) = channels.alias_of(channel) else {
                        prop_assert!(channels.opening_mut(channel).is_none());
                        continue;
                    };
                    prop_assert_eq!(channels.channel_of(alias), Some(channel));
                    prop_assert_eq!(*ever.entry(alias).or_insert(channel), channel);
                }
            }
        }
    }

    #[test]
    fn a_server_alias_is_kept_when_the_client_opens_the_channel() {
        let mut channels = Channels::default();
        channels
            .open(&cursor(1, SERVER_ALIAS | 1), 1, 0)
            .expect_err("the top bit is the server's");
        channels.insert(ChannelId(1), SERVER_ALIAS | 1, Opening::queued());
        assert_eq!(channels.open(&cursor(1, 5), 1, 0), Ok(OpenOutcome::Joined));
        assert_eq!(channels.channel_of(5), None);
        assert_eq!(channels.channel_of(SERVER_ALIAS | 1), Some(ChannelId(1)));
    }
}
