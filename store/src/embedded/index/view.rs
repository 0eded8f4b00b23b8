//! Reads of the index as of one moment. Blocking: callers run it on the read pool, the writer only for a channel that
//! it has not in memory.

use std::ops::RangeInclusive;

use conch_wire::{ChannelId, Seq, UserId};
use fjall::{Keyspace, Readable, Snapshot};

use crate::Lsn;
use crate::row::EventRow;

use super::super::overlay::{ChannelRow, KeyEntry, StoredMember};
use super::values::KeyBlock;
use super::{IndexError, keys, values};

/// A snapshot of the index.
pub(in crate::embedded) struct View {
    snapshot: Snapshot,
    space: Keyspace,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

type Outcome<T> = Result<T, IndexError>;

/// Iterator item: key and value.
type Pair = (fjall::UserKey, fjall::UserValue);

impl View {
    pub(super) fn new(snapshot: Snapshot, space: Keyspace) -> View {
        View { snapshot, space }
    }

    fn get<T>(
        &self,
        key: &[u8],
        table: &'static str,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Outcome<Option<T>> {
        match self.snapshot.get(&self.space, key)? {
            None => Ok(None),
            Some(value) => decode(&value)
                .map(Some)
                .ok_or(IndexError::Undecodable(table)),
        }
    }

    fn range<const N: usize>(
        &self,
        range: RangeInclusive<[u8; N]>,
    ) -> impl DoubleEndedIterator<Item = Outcome<Pair>> + use<N> {
        self.snapshot
            .range(&self.space, range)
            .map(|guard| guard.into_inner().map_err(IndexError::from))
    }

    pub(in crate::embedded) fn applied(&self) -> Outcome<Lsn> {
        Ok(self
            .get(&keys::APPLIED, "applied", values::number)?
            .unwrap_or(0))
    }

    pub(in crate::embedded) fn id_blocks(&self) -> Outcome<Vec<(u8, u64)>> {
        self.snapshot
            .prefix(&self.space, keys::ID_BLOCKS)
            .map(|guard| {
                let (key, value) = guard.into_inner()?;
                let space = key.get(1).copied();
                space
                    .zip(values::number(&value))
                    .ok_or(IndexError::Undecodable("id blocks"))
            })
            .collect()
    }

    pub(super) fn id_block(&self, space: u8) -> Outcome<u64> {
        let end = self.get(&keys::id_block(space), "id blocks", values::number)?;
        Ok(end.unwrap_or(0))
    }

    pub(in crate::embedded) fn channel(&self, channel: ChannelId) -> Outcome<Option<ChannelRow>> {
        self.get(&keys::channel(channel), "channels", values::channel)
    }

    pub(in crate::embedded) fn member(
        &self,
        channel: ChannelId,
        user: UserId,
    ) -> Outcome<Option<StoredMember>> {
        let key = keys::member(channel, user);
        self.get(&key, "members", |value| values::member(user, value))
    }

    /// All members of a channel, present and former, ascending.
    pub(in crate::embedded) fn members(&self, channel: ChannelId) -> Outcome<Vec<StoredMember>> {
        self.snapshot
            .prefix(&self.space, keys::members(channel))
            .map(|guard| {
                let (key, value) = guard.into_inner()?;
                let user = key.get(9..).and_then(|user| user.first_chunk());
                user.and_then(|user| values::member(UserId(u64::from_be_bytes(*user)), &value))
                    .ok_or(IndexError::Undecodable("members"))
            })
            .collect()
    }

    pub(in crate::embedded) fn pair(
        &self,
        low: UserId,
        high: UserId,
    ) -> Outcome<Option<ChannelId>> {
        let found = self.get(&keys::pair(low, high), "pairs", values::number)?;
        Ok(found.map(ChannelId))
    }

    /// Runs of rows that overlap `from ..= to`: the first seq and the packed value, ascending.
    fn runs(
        &self,
        channel: ChannelId,
        from: Seq,
        to: Seq,
    ) -> Outcome<impl DoubleEndedIterator<Item = Outcome<Pair>> + use<>> {
        // The run that holds `from` may begin before it.
        let begin = self
            .range(keys::rows(channel, 0)..=keys::rows(channel, from))
            .next_back()
            .transpose()?
            .map(|(key, _)| key);
        let begin = begin
            .as_deref()
            .and_then(|key| key.first_chunk().copied())
            .unwrap_or_else(|| keys::rows(channel, from));
        Ok(self.range(begin..=keys::rows(channel, to)))
    }

    /// Hands rows of `from ..= to` to `take`, from the lower end upwards or from the upper end downwards, until it wants
    /// no more.
    pub(in crate::embedded) fn read_rows(
        &self,
        channel: ChannelId,
        from: Seq,
        to: Seq,
        newest_first: bool,
        take: &mut dyn FnMut(EventRow) -> bool,
    ) -> Outcome<()> {
        if from > to {
            return Ok(());
        }
        let unpack = |(_, value): Pair| {
            values::rows(&value, channel, from, to).ok_or(IndexError::Undecodable("rows"))
        };
        if newest_first {
            // Downwards every run met overlaps until one begins at or below `from`.
            for pair in self
                .range(keys::rows(channel, 0)..=keys::rows(channel, to))
                .rev()
            {
                let rows = unpack(pair?)?;
                let below = rows.first().is_none_or(|row| row.seq <= from);
                if !rows.into_iter().rev().all(&mut *take) || below {
                    break;
                }
            }
        } else {
            for pair in self.runs(channel, from, to)? {
                if !unpack(pair?)?.into_iter().all(&mut *take) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// One row.
    pub(in crate::embedded) fn row(
        &self,
        channel: ChannelId,
        seq: Seq,
    ) -> Outcome<Option<EventRow>> {
        let run = self
            .range(keys::rows(channel, 0)..=keys::rows(channel, seq))
            .next_back();
        let Some(run) = run else {
            return Ok(None);
        };
        let rows = values::rows(&run?.1, channel, seq, seq);
        Ok(rows.ok_or(IndexError::Undecodable("rows"))?.pop())
    }

    /// The whole run that holds `seq`.
    pub(super) fn run_of(&self, channel: ChannelId, seq: Seq) -> Outcome<Option<Vec<EventRow>>> {
        let run = self
            .range(keys::rows(channel, 0)..=keys::rows(channel, seq))
            .next_back();
        run.map(|run| {
            values::rows(&run?.1, channel, 0, Seq::MAX).ok_or(IndexError::Undecodable("rows"))
        })
        .transpose()
    }

    /// The block of keys that holds the place `seq`.
    pub(in crate::embedded) fn keys_around(
        &self,
        channel: ChannelId,
        seq: Seq,
    ) -> Outcome<Vec<KeyEntry>> {
        let key = keys::key_block(channel, seq >> keys::BLOCK_SHIFT);
        let block = self.get(&key, "keys", values::keys)?;
        Ok(block.unwrap_or_default().keys)
    }

    /// The newest `count` keys, ascending by place.
    pub(in crate::embedded) fn newest_keys(
        &self,
        channel: ChannelId,
        count: usize,
    ) -> Outcome<Vec<KeyEntry>> {
        let mut newest = Vec::new();
        for block in self.key_blocks_down(channel) {
            if newest.len() >= count {
                break;
            }
            newest.extend(block?.1.keys.into_iter().rev());
        }
        newest.truncate(count);
        newest.reverse();
        Ok(newest)
    }

    /// Places of messages with this key hash that are not older than `oldest_ms`, newest first.
    pub(in crate::embedded) fn find_hash(
        &self,
        channel: ChannelId,
        hash: u64,
        oldest_ms: u64,
    ) -> Outcome<Vec<Seq>> {
        let mut found = Vec::new();
        for block in self.key_blocks_down(channel) {
            let (_, block) = block?;
            if block.newest_ms < oldest_ms {
                break;
            }
            found.extend(
                (block.keys.iter().rev())
                    .filter(|(known, _)| *known == hash)
                    .map(|(_, seq)| *seq),
            );
        }
        Ok(found)
    }

    fn key_blocks_down(
        &self,
        channel: ChannelId,
    ) -> impl Iterator<Item = Outcome<(u32, KeyBlock)>> + use<> {
        self.range(keys::key_block(channel, 0)..=keys::key_block(channel, u32::MAX))
            .rev()
            .map(decode_block)
    }

    /// Up to `count` oldest blocks up to block `end` whose keys are all older than `oldest_ms`.
    pub(super) fn expired_blocks(
        &self,
        channel: ChannelId,
        oldest_ms: u64,
        end: u32,
        count: usize,
    ) -> Outcome<Vec<u32>> {
        let mut expired = Vec::new();
        let blocks = self.range(keys::key_block(channel, 0)..=keys::key_block(channel, end));
        for block in blocks.take(count).map(decode_block) {
            let (number, block) = block?;
            if block.newest_ms >= oldest_ms {
                break;
            }
            expired.push(number);
        }
        Ok(expired)
    }

    /// A user's inbox positions in `from ..= to`, ascending.
    pub(in crate::embedded) fn inbox(
        &self,
        user: UserId,
        from: Lsn,
        to: Lsn,
    ) -> impl DoubleEndedIterator<Item = Outcome<(Lsn, ChannelId)>> + use<> {
        self.range(keys::inbox(user, from)..=keys::inbox(user, to))
            .map(|pair| {
                let (key, value) = pair?;
                keys::inbox_position(&key)
                    .zip(values::number(&value).map(ChannelId))
                    .ok_or(IndexError::Undecodable("inbox"))
            })
    }
}

fn decode_block(pair: Outcome<Pair>) -> Outcome<(u32, KeyBlock)> {
    let (key, value) = pair?;
    keys::key_block_number(&key)
        .zip(values::keys(&value))
        .ok_or(IndexError::Undecodable("keys"))
}
