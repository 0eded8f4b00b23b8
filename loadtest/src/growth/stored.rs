//! Messages stored over 100 channels, 10,000 to 5,000,000: start-up, ack, a page of history from anywhere, and the disk.
//!
//! At each size the node is stopped cleanly and started for every round, so nothing is measured while the index still works
//! on what was just stored, and pages come from the index and not from what is in memory by chance.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conch_wire::frame::History;
use conch_wire::{Alias, ChannelId};

use super::probe::Probe;
use super::{Point, Scale};
use crate::http::Login;
use crate::measure::disk::latencies;
use crate::measure::{Pair, api, fill, fresh_node, hello, pairs};
use crate::node::{Node, NodePlan};
use crate::raw::{RawClient, Transport};

const PAIRS: usize = 100;
/// Messages per second while acks are measured.
const RATE: u32 = 500;
/// Events of a page: what a screen shows, and some.
pub(super) const PAGE: u16 = 50;
const SHUTDOWN: Duration = Duration::from_secs(60);

pub(super) async fn sweep(
    folder: &Path,
    scale: &Scale,
    done: &mut impl FnMut(Point),
) -> Result<()> {
    let (plan, mut node) = fresh_node(folder, "growth-stored", Transport::WebSocket).await?;
    let mut pairs = pairs(&api(&node)?, PAIRS).await?;
    let mut stored = 0;
    for &messages in &scale.stored {
        fill(&node, &pairs, (messages - stored) as u64).await?;
        stored = messages;
        let mut point = Point::new(messages);
        for _ in 0..scale.rounds {
            node = again(&plan, node, &mut point).await?;
            refresh(&node, &mut pairs).await?;
            one_round(&node, &pairs, scale, messages, &mut point).await?;
        }
        // The log is bounded by the segments that are kept; what follows the messages is the index.
        let index = folder_bytes(&plan.data().join("index"))?;
        point.add("index_bytes_per_message", index as f64 / messages as f64);
        let log = folder_bytes(&plan.data().join("log"))?;
        point.add("log_mib", log as f64 / f64::from(1 << 20));
        done(point);
    }
    Ok(())
}

/// Stops the node cleanly and starts it again, timed.
pub(super) async fn again(plan: &NodePlan, mut node: Node, point: &mut Point) -> Result<Node> {
    node.terminate();
    let status = node.ended(SHUTDOWN).await?;
    ensure!(status.success(), "the stop was not clean: {status}");
    let node = plan.start().await?;
    point.add("start_ms", node.started_in.as_secs_f64() * 1e3);
    Ok(node)
}

async fn refresh(node: &Node, pairs: &mut [Pair]) -> Result<()> {
    let api = api(node)?;
    for pair in pairs {
        pair.sender = api.refresh(&pair.sender).await?;
        pair.receiver = api.refresh(&pair.receiver).await?;
    }
    Ok(())
}

async fn one_round(
    node: &Node,
    pairs: &[Pair],
    scale: &Scale,
    messages: usize,
    point: &mut Point,
) -> Result<()> {
    let depth = (messages / pairs.len()) as u32;
    let places = (0..scale.pages).map(|index| {
        let pair = &pairs[index % pairs.len()];
        (pair, rand::random_range(1..=depth.max(2) - 1))
    });
    let mut took = latencies();
    for (pair, from) in places {
        let (mut reader, _) = RawClient::open(node.http(), hello(&pair.receiver)).await?;
        reader.first_changes().await?;
        let began = Instant::now();
        page(&mut reader, pair.channel, from).await?;
        took.saturating_record(began.elapsed().as_micros() as u64);
    }
    point.add("history_p50_us", took.value_at_quantile(0.5) as f64);
    let mut probe = Probe::new();
    let mut targets = Vec::new();
    for pair in pairs {
        targets
            .push(open_pair(node, &mut probe, &pair.sender, &pair.receiver, pair.channel).await?);
    }
    probe.set_targets(targets);
    probe.round(node, RATE, scale.round / 4, 1).await?;
    let idle = probe.idle(node, scale.round / 4).await?;
    let round = probe.round(node, RATE, scale.round, 1).await?;
    point.add("cpu_us_per_message", round.cpu_us_per_message(idle));
    point.add("ack_p50_us", round.ack_p50_us as f64);
    point.add(
        "resident_mib",
        node.rss_bytes()? as f64 / f64::from(1 << 20),
    );
    point.add_generator(&round);
    Ok(())
}

/// Adds a sender that has opened the channel, and a receiver; gives where the load can go.
pub(super) async fn open_pair(
    node: &Node,
    probe: &mut Probe,
    sender: &Login,
    receiver: &Login,
    channel: ChannelId,
) -> Result<(usize, Alias)> {
    let (mut sender, _) = RawClient::open(node.http(), hello(sender)).await?;
    let alias = sender.open_fresh(channel, 1).await?.alias;
    let (mut receiver, _) = RawClient::open(node.http(), hello(receiver)).await?;
    receiver.first_changes().await?;
    probe.add_receiver(receiver);
    Ok((probe.add_sender(sender), alias))
}

/// A page of [`PAGE`] events from `from` on; it must not be empty.
pub(super) async fn page(reader: &mut RawClient, channel: ChannelId, from: u32) -> Result<u32> {
    let page = reader
        .history(History {
            channel,
            from,
            to: u32::MAX - 1,
            items_max: PAGE,
            newest_first: false,
        })
        .await?;
    ensure!(!page.events.is_empty(), "no page from {from} on");
    Ok(page.head_seq)
}

/// Bytes that the files of a folder take on the disk, sub-folders included.
fn folder_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    /// stat(2) counts blocks of 512 bytes.
    const BLOCK: u64 = 512;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            about.blocks() * BLOCK
        };
    }
    Ok(bytes)
}
