//! How long a node with many stored messages takes from spawn to ready, after a clean stop and after kill -9; and what it
//! weighs at rest.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conch_wire::MessageKey;

use super::{Pair, TEXT_BYTES, api, fresh_node, hello, pairs};
use crate::node::Node;
use crate::raw::{Answer, Draft, RawClient, Transport};

const PAIRS: usize = 100;
const SHUTDOWN: Duration = Duration::from_secs(60);

/// Start times and memory.
#[derive(Clone, Copy, Debug)]
pub struct StartFigures {
    pub messages: u64,
    pub fresh: Duration,
    pub fresh_rss_bytes: u64,
    pub after_stop: Duration,
    pub after_stop_rss_bytes: u64,
    pub after_kill: Duration,
}

impl fmt::Display for StartFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "start: {} stored messages: ready {:.0?} after a clean stop, {:.0?} after kill -9 under load; empty node {:.0?}; \
             memory at rest: empty {:.1} MiB, with the messages {:.1} MiB",
            self.messages,
            self.after_stop,
            self.after_kill,
            self.fresh,
            mib(self.fresh_rss_bytes),
            mib(self.after_stop_rss_bytes),
        )
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Measures starts with `messages` stored.
pub async fn start(folder: &Path, messages: u64) -> Result<StartFigures> {
    let (plan, mut node) = fresh_node(folder, "start", Transport::WebSocket).await?;
    let fresh = node.started_in;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fresh_rss_bytes = node.rss_bytes()?;
    let pairs = pairs(&api(&node)?, PAIRS).await?;
    fill(&node, &pairs, messages).await?;
    node.terminate();
    let status = node.ended(SHUTDOWN).await?;
    ensure!(status.success(), "the stop was not clean: {status}");

    let node = plan.start().await?;
    let after_stop = node.started_in;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after_stop_rss_bytes = node.rss_bytes()?;
    fill(&node, &pairs, messages / 20).await?;
    node.kill();
    let node = plan.start().await?;
    let after_kill = node.started_in;
    check(&node, &pairs, messages + messages / 20).await?;
    Ok(StartFigures {
        messages,
        fresh,
        fresh_rss_bytes,
        after_stop,
        after_stop_rss_bytes,
        after_kill,
    })
}

/// How long a writer that is refused again and again asks on.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// Stores messages as fast as the node takes them.
pub(crate) async fn fill(node: &Node, pairs: &[Pair], messages: u64) -> Result<()> {
    let each = messages / pairs.len() as u64;
    let lanes: Vec<_> = pairs
        .iter()
        .map(|pair| tokio::spawn(fill_one(node.http().to_owned(), pair.clone(), each)))
        .collect();
    for lane in lanes {
        lane.await?.context("fill a channel")?;
    }
    Ok(())
}

async fn fill_one(http: String, pair: Pair, count: u64) -> Result<()> {
    let (mut client, _) = RawClient::open(&http, hello(&pair.sender)).await?;
    let alias = client.open_fresh(pair.channel, 1).await?.alias;
    let mut left = count;
    let mut progress = Instant::now();
    while left > 0 {
        let drafts: Vec<_> = (0..left.min(64))
            .map(|_| Draft::text(MessageKey(rand::random()), vec![b'x'; TEXT_BYTES]))
            .collect();
        let request = client.queue_sends(alias, &drafts);
        client.flush().await?;
        match client.sent(request).await? {
            Answer::Acked(acks) => {
                left -= acks.len() as u64;
                progress = Instant::now();
            }
            Answer::Refused(error) => {
                // What stays refused is a finding, not something to wait for.
                ensure!(
                    progress.elapsed() < REFUSED_MAX,
                    "the node takes no message for {REFUSED_MAX:?}: {error:?}"
                );
                let wait = Duration::from_millis(error.retry_after_ms.max(10).into());
                tokio::time::sleep(wait).await;
            }
        }
    }
    Ok(())
}

/// Nothing was lost on the way, or the figure is worth nothing.
async fn check(node: &Node, pairs: &[Pair], messages: u64) -> Result<()> {
    let mut found = 0;
    for pair in pairs {
        let (mut client, _) = RawClient::open(node.http(), hello(&pair.receiver)).await?;
        let rows = client.first_changes().await?.rows;
        found += rows
            .iter()
            .filter(|row| row.head.channel == pair.channel)
            .map(|row| u64::from(row.head.head_ordinal))
            .sum::<u64>();
    }
    let wanted = messages / pairs.len() as u64 * pairs.len() as u64;
    ensure!(
        found + pairs.len() as u64 >= wanted,
        "{found} of {wanted} messages are there"
    );
    Ok(())
}
