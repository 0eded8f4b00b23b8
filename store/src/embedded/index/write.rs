//! One overlay becomes one atomic batch of the index.
//!
//! Called by the applier (and by replay) with overlays in order. The batch carries `applied`, so after any crash the
//! index holds whole overlays, and the log's records above `applied` are replayed. Writing the same records again in
//! other runs gives the same tables: whatever a key held is replaced, and runs of rows never overlap because a batch is
//! there wholly or not at all.
//!
//! Items are made table by table in ascending order: bulk in order is what fjall takes cheapest.

use std::sync::Arc;

use conch_wire::{ChannelId, Seq};

use crate::row::EventRow;

use super::super::overlay::{ChannelDelta, ERASED_BODY_BYTES, KeyEntry, Overlay};
use super::view::View;
use super::{Index, IndexError, keys, values};

/// Limits of one packed run: small enough that a single row is cheap to read.
const RUN_ROWS_MAX: usize = 128;
const RUN_BYTES_MAX: usize = 32 * 1024;

/// How long keys are found, in the channel's own time (ms): from the message to the channel's newest event. No wall
/// clock takes part, so every replay gives the same answer and a clock that jumps forgets nothing.
pub(in crate::embedded) const KEY_WINDOW_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// Newest key blocks (of 64 places) that stay whatever their age: owners rebuild their dedupe window from them.
const WINDOW_BLOCKS: u32 = 64;

/// Expired key blocks removed whenever a channel begins a new block: more than one, so the expired ones run out.
const EXPIRED_REMOVED_MAX: usize = 3;

impl Index {
    /// Writes an overlay. When it returns, every new view shows it.
    pub(in crate::embedded) fn apply(&self, overlay: &Overlay) -> Result<(), IndexError> {
        if overlay.last_lsn == 0 {
            return Ok(());
        }
        let view = self.view();
        let mut channels: Vec<(ChannelId, &Arc<ChannelDelta>)> = overlay
            .channels
            .iter()
            .map(|(channel, delta)| (*channel, delta))
            .collect();
        channels.sort_unstable_by_key(|(channel, _)| *channel);

        let mut batch = self.db.batch();
        let space = &self.space;
        batch.insert(space, keys::APPLIED, values::put_number(overlay.last_lsn));
        for (id_space, end) in &overlay.id_blocks {
            let end = view.id_block(*id_space)?.max(*end);
            batch.insert(space, keys::id_block(*id_space), values::put_number(end));
        }
        for (channel, delta) in &channels {
            batch.insert(
                space,
                keys::channel(*channel),
                values::put_channel(&delta.row),
            );
        }
        for ((user, channel), touch) in &overlay.touches {
            let position = overlay.position(*channel, touch);
            if position == touch.previous {
                continue;
            }
            if touch.previous != 0 {
                batch.remove(space, keys::inbox(*user, touch.previous));
            }
            batch.insert(
                space,
                keys::inbox(*user, position),
                values::put_number(channel.0),
            );
        }
        for (channel, delta) in &channels {
            self.put_keys(&mut batch, &view, *channel, delta)?;
        }
        for (channel, delta) in &channels {
            for (user, member) in &delta.members {
                batch.insert(
                    space,
                    keys::member(*channel, *user),
                    values::put_member(member),
                );
            }
        }
        for ((low, high), channel) in &overlay.pairs {
            // The first record of a pair wins, whatever layer it lies in.
            if view.pair(*low, *high)?.is_none() {
                batch.insert(
                    space,
                    keys::pair(*low, *high),
                    values::put_number(channel.0),
                );
            }
        }
        for (channel, delta) in &channels {
            self.put_erased(&mut batch, &view, *channel, delta)?;
            for run in runs(&delta.events) {
                let first = run.first().expect("a run is never empty").seq;
                batch.insert(space, keys::rows(*channel, first), values::put_rows(run));
            }
        }
        batch.commit()?;
        Ok(())
    }

    fn put_keys(
        &self,
        batch: &mut fjall::OwnedWriteBatch,
        view: &View,
        channel: ChannelId,
        delta: &ChannelDelta,
    ) -> Result<(), IndexError> {
        let block_of = |entry: &KeyEntry| entry.1 >> keys::BLOCK_SHIFT;
        let mut carried: &[KeyEntry] = &delta.carried;
        let mut began_block = false;
        for block in delta
            .keys
            .chunk_by(|one, other| block_of(one) == block_of(other))
        {
            let number = block_of(&block[0]);
            if carried
                .first()
                .is_some_and(|entry| block_of(entry) != number)
            {
                carried = &[];
            }
            began_block |= carried.is_empty();
            let newest = block[block.len() - 1].1;
            let newest_ms = delta
                .event_at(newest)
                .map_or(delta.row.head.created_ms, |at| delta.events[at].created_ms);
            batch.insert(
                &self.space,
                keys::key_block(channel, number),
                values::put_keys(newest_ms, &[carried, block]),
            );
            carried = &[];
        }
        let oldest_ms = delta.row.head.created_ms.saturating_sub(KEY_WINDOW_MS);
        let current = delta.row.head.seq >> keys::BLOCK_SHIFT;
        if began_block && oldest_ms > 0 && current >= WINDOW_BLOCKS {
            let end = current - WINDOW_BLOCKS;
            for number in view.expired_blocks(channel, oldest_ms, end, EXPIRED_REMOVED_MAX)? {
                batch.remove(&self.space, keys::key_block(channel, number));
            }
        }
        Ok(())
    }

    /// Rewrites the runs of earlier overlays in which this one erased something.
    fn put_erased(
        &self,
        batch: &mut fjall::OwnedWriteBatch,
        view: &View,
        channel: ChannelId,
        delta: &ChannelDelta,
    ) -> Result<(), IndexError> {
        let mut next: Seq = 0;
        for seq in &delta.erased {
            if *seq < next {
                continue;
            }
            let Some(mut run) = view.run_of(channel, *seq)? else {
                continue;
            };
            let Some(last) = run.last().map(|row| row.seq) else {
                continue;
            };
            for row in &mut run {
                if delta.erased.contains(&row.seq) {
                    row.body.truncate(ERASED_BODY_BYTES);
                }
            }
            batch.insert(
                &self.space,
                keys::rows(channel, run[0].seq),
                values::put_rows(&run),
            );
            next = last + 1;
        }
        Ok(())
    }
}

/// Cuts consecutive events into packed runs: within one bucket, bounded in rows and bytes.
fn runs(mut events: &[EventRow]) -> impl Iterator<Item = &[EventRow]> {
    std::iter::from_fn(move || {
        let bucket = events.first()?.seq >> keys::BUCKET_SHIFT;
        let mut bytes = 0;
        let fits = events
            .iter()
            .take(RUN_ROWS_MAX)
            .take_while(|row| {
                let first = bytes == 0;
                bytes += row.body.len() + 1;
                row.seq >> keys::BUCKET_SHIFT == bucket && (first || bytes <= RUN_BYTES_MAX)
            })
            .count();
        let (run, rest) = events.split_at(fits);
        events = rest;
        Some(run)
    })
}
