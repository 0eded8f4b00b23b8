//! The short numbers of channels on one connection.
//!
//! A channel is *opening* from our HELLO or OPEN_CHANNEL until CHANNEL_OPENED says which alias holds; only then may a SEND
//! use it, because the server keeps an alias of its own if it chose one first, and refuses sends on one that did not open.
//! Aliases are never reused on a connection, so events still on their way when a channel is closed find their channel.

use std::collections::BTreeMap;

use conch_wire::{Alias, ChannelId};

/// Highest alias that a client may choose; the server's have the top bit set.
const CLIENT_ALIAS_MAX: Alias = 0x7fff_ffff;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Opening,
    Open(Alias),
}

/// The book of one connection; a new connection starts an empty one.
#[derive(Debug, Default)]
pub(crate) struct AliasBook {
    last: Alias,
    channels: BTreeMap<ChannelId, State>,
    by_alias: BTreeMap<Alias, ChannelId>,
}

impl AliasBook {
    /// Chooses an alias for a channel that is about to be opened. `None` when the connection has used them all up.
    pub(crate) fn choose(&mut self, channel: ChannelId) -> Option<Alias> {
        let alias = self.spare()?;
        self.channels.insert(channel, State::Opening);
        self.by_alias.insert(alias, channel);
        Some(alias)
    }

    /// An alias for asking again about a channel that is open: the one that it has goes on to hold.
    pub(crate) fn spare(&mut self) -> Option<Alias> {
        if self.last == CLIENT_ALIAS_MAX {
            return None;
        }
        self.last += 1;
        Some(self.last)
    }

    /// CHANNEL_OPENED: this alias holds from here on.
    pub(crate) fn opened(&mut self, channel: ChannelId, alias: Alias) {
        self.channels.insert(channel, State::Open(alias));
        self.by_alias.insert(alias, channel);
    }

    /// The channel did not open, was closed, or its alias turned out not to hold. Returns the alias that was open.
    pub(crate) fn forget(&mut self, channel: ChannelId) -> Option<Alias> {
        match self.channels.remove(&channel) {
            Some(State::Open(alias)) => Some(alias),
            _ => None,
        }
    }

    /// The alias that sends may use.
    pub(crate) fn open(&self, channel: ChannelId) -> Option<Alias> {
        match self.channels.get(&channel) {
            Some(State::Open(alias)) => Some(*alias),
            _ => None,
        }
    }

    pub(crate) fn is_opening(&self, channel: ChannelId) -> bool {
        self.channels.get(&channel) == Some(&State::Opening)
    }

    /// Whose events carry this alias, also after the channel was closed.
    pub(crate) fn channel(&self, alias: Alias) -> Option<ChannelId> {
        self.by_alias.get(&alias).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId(9);

    #[test]
    fn sends_wait_until_the_server_says_which_alias_holds() {
        let mut book = AliasBook::default();
        assert_eq!(book.choose(CHANNEL), Some(1));
        assert_eq!(book.open(CHANNEL), None);
        book.opened(CHANNEL, 0x8000_0001);
        assert_eq!(book.open(CHANNEL), Some(0x8000_0001));
    }

    #[test]
    fn events_on_their_way_find_a_closed_channel_and_aliases_are_not_reused() {
        let mut book = AliasBook::default();
        book.choose(CHANNEL);
        book.opened(CHANNEL, 1);
        assert_eq!(book.forget(CHANNEL), Some(1));
        assert_eq!(book.channel(1), Some(CHANNEL));
        assert_eq!(book.choose(CHANNEL), Some(2));
    }
}
