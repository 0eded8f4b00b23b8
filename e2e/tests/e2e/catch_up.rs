//! A device that was away gets what it missed, and the cost follows the channels that changed, not those joined.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use conch_e2e::{PASSWORD, Pair, Place, SOON, api, connect, enter, hello, key, message, metric};
use conch_loadtest::http::{Api, Login};
use conch_loadtest::raw::{Answer, Draft, RawClient};
use conch_wire::frame::{PushMode, SyncRow};
use conch_wire::{ChannelId, ClientFrame, ServerFrame, limits};
use futures_util::stream::{self, StreamExt, TryStreamExt};

/// Joined; `CONCH_JOINED` sets another number (5,000 takes its time to make).
const JOINED: usize = 1_000;
const CHANGED: usize = 50;
const MISSED: usize = 10_000;
/// The metric that counts rows of inboxes looked at.
const ROWS_READ: &str = "conch_store_inbox_rows_read_total";

fn joined() -> usize {
    std::env::var("CONCH_JOINED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(JOINED)
}

/// All pages of changes behind `token`, and the token to go on with.
async fn all_changes(
    client: &mut RawClient,
) -> Result<(BTreeMap<ChannelId, SyncRow>, Vec<u8>, bool)> {
    let mut page = client.first_changes().await?;
    let reset = page.reset;
    let mut rows = BTreeMap::new();
    loop {
        rows.extend(page.rows.drain(..).map(|row| (row.head.channel, row)));
        if !page.more {
            return Ok((rows, page.token, reset));
        }
        page = client
            .sync(page.token, limits::SYNC_ROWS_MAX as u16)
            .await?;
    }
}

async fn groups(api: &Api, owner: &Login, guest: &Login, count: usize) -> Result<Vec<ChannelId>> {
    stream::iter(0..count)
        .map(|index| async move {
            let title = format!("group {index}");
            api.group(&owner.access_token, &title, &[guest.user]).await
        })
        .buffered(16)
        .try_collect()
        .await
        .context("make groups")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_away_for_ten_thousand_messages_reads_only_what_changed() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let api = api(&node);
    let ann = api.sign_up("ann", PASSWORD).await?;
    let ben = api.sign_up("ben", PASSWORD).await?;
    let channels = groups(&api, &ann, &ben, joined()).await?;
    let (mut away, _) = connect(&node, &ben).await?;
    let (known, token, reset) = all_changes(&mut away).await?;
    ensure!(reset && known.len() == channels.len(), "{}", known.len());
    drop(away);

    // Fifty of them, spread over all.
    let changed: Vec<_> = channels
        .iter()
        .copied()
        .step_by(channels.len() / CHANGED)
        .take(CHANGED)
        .collect();
    let mut writer = enter(&node, &ann, changed[0], 1).await?;
    let each = MISSED / CHANGED;
    for (index, channel) in changed.iter().enumerate() {
        let mut alias = index as u32 + 1;
        if index > 0 {
            alias = writer.open_fresh(*channel, alias).await?.alias;
        }
        let drafts: Vec<_> = (0..each)
            .map(|n| Draft::text(key((index * each + n) as u64), format!("{index} {n}")))
            .collect();
        for batch in drafts.chunks(limits::SEND_MANY_ITEMS_MAX) {
            let request = writer.start_send_many(alias, batch).await?;
            let answer = writer.sent(request).await?;
            ensure!(matches!(answer, Answer::Acked(_)), "{answer:?}");
        }
    }

    let rows_before = metric(&node, ROWS_READ).await?;
    let mut back = hello(&ben);
    back.sync_token = token;
    let (mut client, welcome) = RawClient::open(node.http(), back).await?;
    ensure!(welcome.resumed);
    let (rows, token, reset) = all_changes(&mut client).await?;
    ensure!(!reset);
    let listed: Vec<_> = rows.keys().copied().collect();
    let mut wanted = changed.clone();
    wanted.sort();
    ensure!(listed == wanted, "{} rows, wanted {CHANGED}", listed.len());
    let mut missed = 0;
    for (channel, row) in &rows {
        let had = known[channel].head.head_seq;
        ensure!(row.head.head_seq == had + each as u32, "{row:?}");
        let page = client.full_history(*channel).await?;
        missed += page.events.iter().filter(|event| event.kind < 16).count();
    }
    ensure!(missed == MISSED, "{missed} messages");
    let rows_read = metric(&node, ROWS_READ).await? - rows_before;
    ensure!(
        rows_read <= 3.0 * CHANGED as f64,
        "{rows_read} inbox rows were read for {CHANGED} changed channels of {}",
        channels.len()
    );

    // Nothing new: nothing is listed.
    let mut again = hello(&ben);
    again.sync_token = token;
    let (mut client, _) = RawClient::open(node.http(), again).await?;
    let (rows, _, reset) = all_changes(&mut client).await?;
    ensure!(!reset && rows.is_empty(), "{rows:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_stays_good_over_crashes() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let (mut ben, _) = connect(&node, &pair.ben).await?;
    let (_, mut token, _) = all_changes(&mut ben).await?;
    drop(ben);
    for round in 0..4_u64 {
        let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
        let ack = ann.say(1, &message(round)).await?;
        drop(ann);
        node.kill();
        node = place.start().await?;
        let mut back = hello(&pair.ben);
        back.sync_token = token;
        let (mut ben, welcome) = RawClient::open(node.http(), back).await?;
        ensure!(welcome.resumed, "round {round}");
        let (rows, next, reset) = all_changes(&mut ben).await?;
        ensure!(!reset && rows.len() == 1, "round {round}: {rows:?}");
        ensure!(rows[&pair.channel].head.head_seq == ack.seq);
        token = next;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_is_equal_on_two_devices_after_reading_on_one() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let second = api(&node).log_in("ben", PASSWORD, "second").await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let mut seqs = Vec::new();
    for n in 0..9 {
        seqs.push(ann.say(1, &message(n)).await?.seq);
    }
    for (push, read, unread) in [(PushMode::All, seqs[3], 5), (PushMode::Opened, seqs[6], 2)] {
        let mut devices = Vec::new();
        let mut before = Vec::new();
        for login in [&pair.ben, &second] {
            let mut greeting = hello(login);
            greeting.push = push;
            let (mut client, _) = RawClient::open(node.http(), greeting).await?;
            let (rows, _, _) = all_changes(&mut client).await?;
            before.push(rows[&pair.channel].head);
            devices.push(client);
        }
        ensure!(before[0] == before[1], "{before:?}");
        devices[0]
            .send(&ClientFrame::Read {
                request: 0,
                channel: pair.channel,
                seq: read,
            })
            .await?;
        for device in &mut devices {
            let frame = device
                .wait_for("the mark", SOON, |f| {
                    matches!(f, ServerFrame::ChannelHead(_))
                })
                .await?;
            let ServerFrame::ChannelHead(head) = frame else {
                continue;
            };
            ensure!(head.read_seq == read, "{push:?}: {head:?}");
            ensure!(
                head.head_ordinal - head.read_ordinal == unread,
                "{push:?}: {head:?}"
            );
        }
    }
    Ok(())
}
