//! The end of a worker: every channel's history is read from its beginning and compared with all that was seen.
//!
//! Two members read each channel (the first and the last one), or one where it is long; their read marks are compared too.
//! Readers are devices that know nothing, on connections of their own. Everything has a deadline.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use conch_wire::frame::{Hello, History, PushMode};
use conch_wire::{ChannelId, Seq, limits};
use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;

use super::player::{Player, Seat};
use super::shared::Shared;
use crate::checker::{Checker, FullRead, Observed};
use crate::raw::{Endpoint, RawClient};
use crate::run::wire::{ChannelPlan, Judged};

/// Readers at once.
const READERS_AT_ONCE: usize = 4;
/// Above this, one member reads a channel for all.
const LONG: Seq = 20_000;
/// Longest time that one reader may take.
const READER_PATIENCE: Duration = Duration::from_secs(300);

/// Reads everything and judges.
pub(super) async fn judge(
    shared: &Rc<Shared>,
    players: &[Vec<Player>],
    endpoint: &Endpoint,
    channels: &[ChannelPlan],
) -> Result<Judged> {
    let mut to_read: BTreeMap<usize, Vec<(ChannelId, bool)>> = BTreeMap::new();
    for channel in channels {
        let (first, last) = (channel.members.first(), channel.members.last());
        let id = ChannelId(channel.id);
        if let Some(first) = first {
            to_read.entry(*first).or_default().push((id, true));
        }
        if let Some(last) = last.filter(|last| Some(*last) != first) {
            to_read.entry(*last).or_default().push((id, false));
        }
    }
    let mut readers = stream::iter(to_read)
        .map(|(person, channels)| {
            let seat = Rc::clone(&players[person][0].seat);
            let shared = Rc::clone(shared);
            async move {
                let reading = read(&shared, &seat, endpoint, &channels);
                match timeout(READER_PATIENCE, reading).await {
                    Ok(result) => result,
                    Err(_) => bail!("history was not read within {READER_PATIENCE:?}"),
                }
            }
        })
        .buffer_unordered(READERS_AT_ONCE);
    while let Some(result) = readers.next().await {
        result?;
    }
    drop(readers);
    let checker = shared.checker.borrow_mut().take();
    Ok(checker.map_or_else(Judged::default, |checker| verdict(checker, true)))
}

async fn read(
    shared: &Shared,
    seat: &Seat,
    endpoint: &Endpoint,
    channels: &[(ChannelId, bool)],
) -> Result<()> {
    // The tokens may have ended in a long run.
    let mut client = match open(seat, endpoint).await {
        Ok(client) => client,
        Err(error) if shared.refresh(&seat.login).await => {
            open(seat, endpoint).await.context(error)?
        }
        Err(error) => return Err(error),
    };
    for (channel, is_first) in channels {
        let mut reading = FullRead::new(seat.user, *channel);
        let mut from: Seq = 1;
        let head = loop {
            let page = client
                .history(History {
                    channel: *channel,
                    from,
                    to: Seq::MAX,
                    items_max: limits::HISTORY_ITEMS_MAX as u16,
                    newest_first: false,
                })
                .await
                .context("read history")?;
            if !is_first && page.head_seq > LONG {
                break None;
            }
            let events: Vec<_> = page.events.iter().map(Observed::of).collect();
            if let Some(checker) = shared.checker.borrow_mut().as_mut() {
                reading.page(checker, &events);
            }
            if page.events.is_empty() || page.covered_to >= page.head_seq {
                break Some(page.head_seq);
            }
            from = page.covered_to + 1;
        };
        if let (Some(head), Some(checker)) = (head, shared.checker.borrow_mut().as_mut()) {
            reading.end(checker, head);
        }
    }
    let mut changes = client.first_changes().await.context("read the marks")?;
    loop {
        if let Some(checker) = shared.checker.borrow_mut().as_mut() {
            for row in &changes.rows {
                checker.final_read_mark(seat.user, row.head.channel, row.head.read_seq);
            }
        }
        if !changes.more {
            return Ok(());
        }
        changes = client
            .sync(changes.token, limits::SYNC_ROWS_MAX as u16)
            .await
            .context("read the marks")?;
    }
}

async fn open(seat: &Seat, endpoint: &Endpoint) -> Result<RawClient> {
    let hello = Hello {
        token: seat.login.borrow().access_token.clone(),
        client: "conch-load history".to_owned(),
        credit_bytes: 0,
        push: PushMode::Opened,
        ..Hello::default()
    };
    let (client, _) = RawClient::open_at(endpoint, hello)
        .await
        .context("connect to read history")?;
    Ok(client)
}

/// What was found on the way, without the end: what only the end can show is not held against anybody.
pub(super) fn so_far(checker: Checker) -> Judged {
    let found = checker.violations_so_far();
    let mut judged = verdict(checker, false);
    judged.violations_total = found;
    judged.violations.truncate(found as usize);
    judged
}

fn verdict(checker: Checker, is_whole: bool) -> Judged {
    let verdict = checker.verdict();
    let counts = verdict.counts;
    Judged {
        is_whole,
        messages: counts.messages,
        acked_messages: counts.acked_messages,
        attempts: counts.attempts,
        refusals: counts.refusals,
        unknown_outcomes: counts.unknown_outcomes,
        shown: counts.deliveries,
        history_events: counts.history_events,
        full_reads: counts.full_reads,
        channels: verdict.channels,
        devices: verdict.devices,
        violations_total: verdict.violations_total,
        violations: verdict.violations.iter().map(ToString::to_string).collect(),
    }
}
