//! Which alias means which channel, both ways, in as few bytes as a session at rest should cost.
//!
//! Pure. A device has a few dozen channels open: up to [`FEW_MAX`] of them lie in one list that is searched from its
//! beginning, 16 bytes each (two hash tables of the same take four times that, and are no quicker to ask). More than that
//! and there are two hash tables, until all of them are closed. A channel has at most one alias and an alias at most one channel.

use std::collections::HashMap;

use conch_wire::{Alias, ChannelId};

/// Longest list that is searched: 1 KiB, sixteen lines of a cache.
const FEW_MAX: usize = 64;
/// How many places a list gains at once: what is not used is paid for by every session.
const STEP: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Aliases(Table);

#[derive(Debug)]
enum Table {
    Few(Vec<(ChannelId, Alias)>),
    Many(Box<Tables>),
}

#[derive(Debug, Default)]
struct Tables {
    by_channel: HashMap<ChannelId, Alias>,
    by_alias: HashMap<Alias, ChannelId>,
}

impl Default for Aliases {
    fn default() -> Aliases {
        Aliases(Table::Few(Vec::new()))
    }
}

impl Aliases {
    pub fn alias_of(&self, channel: ChannelId) -> Option<Alias> {
        match &self.0 {
            Table::Few(list) => {
                let found = list.iter().find(|(other, _)| *other == channel);
                found.map(|(_, alias)| *alias)
            }
            Table::Many(tables) => tables.by_channel.get(&channel).copied(),
        }
    }

    pub fn channel_of(&self, alias: Alias) -> Option<ChannelId> {
        match &self.0 {
            Table::Few(list) => {
                let found = list.iter().find(|(_, other)| *other == alias);
                found.map(|(channel, _)| *channel)
            }
            Table::Many(tables) => tables.by_alias.get(&alias).copied(),
        }
    }

    /// Neither of the two is in it yet.
    pub fn insert(&mut self, channel: ChannelId, alias: Alias) {
        debug_assert!(self.alias_of(channel).is_none() && self.channel_of(alias).is_none());
        if let Table::Few(list) = &mut self.0 {
            if list.len() < FEW_MAX {
                if list.len() == list.capacity() {
                    list.reserve_exact(STEP);
                }
                return list.push((channel, alias));
            }
            let by_alias = list.iter().map(|&(channel, alias)| (alias, channel));
            let tables = Tables {
                by_alias: by_alias.collect(),
                by_channel: list.iter().copied().collect(),
            };
            self.0 = Table::Many(Box::new(tables));
        }
        if let Table::Many(tables) = &mut self.0 {
            tables.by_channel.insert(channel, alias);
            tables.by_alias.insert(alias, channel);
        }
    }

    /// Gives the alias that the channel had.
    pub fn remove(&mut self, channel: ChannelId) -> Option<Alias> {
        let (alias, empty) = match &mut self.0 {
            Table::Few(list) => {
                let place = list.iter().position(|(other, _)| *other == channel)?;
                let (_, alias) = list.swap_remove(place);
                (alias, list.is_empty())
            }
            Table::Many(tables) => {
                let alias = tables.by_channel.remove(&channel)?;
                tables.by_alias.remove(&alias);
                (alias, tables.by_channel.is_empty())
            }
        };
        if empty {
            *self = Aliases::default();
        }
        Some(alias)
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Table::Few(list) => list.len(),
            Table::Many(tables) => tables.by_channel.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_or_many_they_mean_the_same(
            steps in prop::collection::vec((1u64..200, any::<bool>()), 0..600),
        ) {
            let mut aliases = Aliases::default();
            let mut model: BTreeMap<u64, Alias> = BTreeMap::new();
            let mut next = 0;
            for (channel, add) in steps {
                if add && !model.contains_key(&channel) {
                    next += 1;
                    aliases.insert(ChannelId(channel), next);
                    model.insert(channel, next);
                } else {
                    prop_assert_eq!(aliases.remove(ChannelId(channel)), model.remove(&channel));
                }
                prop_assert_eq!(aliases.len(), model.len());
                prop_assert_eq!(aliases.alias_of(ChannelId(channel)), model.get(&channel).copied());
                prop_assert_eq!(aliases.channel_of(next).map(|it| it.0),
                    model.iter().find(|(_, alias)| **alias == next).map(|(channel, _)| *channel));
            }
        }
    }

    #[test]
    fn the_largest_list_and_the_step_beyond_it() {
        let mut aliases = Aliases::default();
        for n in 1..=FEW_MAX as u32 + 1 {
            assert!(matches!(aliases.0, Table::Few(_)), "{n}");
            aliases.insert(ChannelId(n.into()), n + 1_000);
        }
        assert!(matches!(aliases.0, Table::Many(_)));
        for n in 1..=FEW_MAX as u32 + 1 {
            assert_eq!(aliases.channel_of(n + 1_000), Some(ChannelId(n.into())));
            assert_eq!(aliases.remove(ChannelId(n.into())), Some(n + 1_000));
        }
        assert!(aliases.is_empty() && matches!(aliases.0, Table::Few(_)));
    }

    #[test]
    fn twenty_channels_take_less_than_400_bytes() {
        let mut aliases = Aliases::default();
        for n in 1..=20 {
            aliases.insert(ChannelId(n), n as Alias);
        }
        let Table::Few(list) = &aliases.0 else {
            panic!("a short list");
        };
        assert!(list.capacity() * size_of::<(ChannelId, Alias)>() < 400);
    }
}
