//! What a message costs the node when it has all it can do: 1:1, durable, everything that hangs on a message included.
//!
//! Closed loop: every sender keeps one SEND_MANY in flight (the protocol's order rule), many pairs at once; receivers take
//! every event. The node's CPU time is split by thread name: what the index's threads use is the cost that comes after the ack.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use conch_wire::{Alias, MessageKey, ServerFrame};
use tokio::time::Instant;

use super::threads::{ByThread, is_index};
use super::{Pair, TEXT_BYTES, api, fresh_node, generator_cpu, hello, pairs};
use crate::raw::{Draft, Endpoint, RawClient, Transport};

/// How the load is made.
#[derive(Clone, Copy, Debug)]
pub struct SaturationPlan {
    pub transport: Transport,
    pub pairs: usize,
    /// Messages per SEND_MANY.
    pub batch: usize,
    pub seconds: u64,
}

/// Costs at saturation.
#[derive(Clone, Debug)]
pub struct SaturationFigures {
    pub plan: SaturationPlan,
    pub acked: u64,
    pub delivered: u64,
    pub took: Duration,
    pub generator_cpu: Duration,
    pub node_cpu: Duration,
    pub by_thread: ByThread,
    pub rss_bytes: u64,
}

impl SaturationFigures {
    /// CPU time of the node per message, index work included.
    pub fn cpu_us(&self) -> f64 {
        self.node_cpu.as_micros() as f64 / self.delivered.max(1) as f64
    }

    /// CPU time per message of all threads but the index's.
    pub fn ack_path_cpu_us(&self) -> f64 {
        let index = self.by_thread.of(is_index);
        self.node_cpu.saturating_sub(index).as_micros() as f64 / self.delivered.max(1) as f64
    }
}

impl fmt::Display for SaturationFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cpu: 1:1 saturated over {}, {} pairs, {} messages per SEND_MANY, {:.0} s, fsync before ack: {:.1} CPU-µs per message with \
             index work, {:.1} without; {:.0} messages/s acked, {:.0}/s delivered; node used {:.2} cores, generator {:.2}; {} MiB; by thread:",
            self.plan.transport,
            self.plan.pairs,
            self.plan.batch,
            self.took.as_secs_f64(),
            self.cpu_us(),
            self.ack_path_cpu_us(),
            self.acked as f64 / self.took.as_secs_f64(),
            self.delivered as f64 / self.took.as_secs_f64(),
            self.node_cpu.as_secs_f64() / self.took.as_secs_f64(),
            self.generator_cpu.as_secs_f64() / self.took.as_secs_f64(),
            self.rss_bytes >> 20,
        )?;
        self.by_thread.write_each(f, self.delivered)
    }
}

#[derive(Default)]
struct Counters {
    acked: AtomicU64,
    delivered: AtomicU64,
    stop: AtomicBool,
}

/// Measures saturation.
pub async fn saturate(folder: &Path, plan: SaturationPlan) -> Result<SaturationFigures> {
    let name = format!("cpu-{}", plan.transport);
    let (_plan, node) = fresh_node(folder, &name, plan.transport).await?;
    let pairs = pairs(&api(&node)?, plan.pairs).await?;
    let counters = Arc::new(Counters::default());
    for pair in &pairs {
        let endpoint = node.doors().endpoint(plan.transport)?;
        spawn_pair(&endpoint, pair, plan.batch, &counters).await?;
    }
    // Not measured: caches, first segments.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    let own_before = generator_cpu();
    let before = (
        node.cpu()?,
        ByThread::now(node.pid()),
        counters.acked.load(Ordering::Relaxed),
        counters.delivered.load(Ordering::Relaxed),
    );
    tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
    let took = began.elapsed();
    let node_cpu = node.cpu()?.saturating_sub(before.0);
    let by_thread = ByThread::now(node.pid()).since(&before.1);
    let figures = SaturationFigures {
        plan,
        acked: counters.acked.load(Ordering::Relaxed) - before.2,
        delivered: counters.delivered.load(Ordering::Relaxed) - before.3,
        took,
        generator_cpu: generator_cpu().saturating_sub(own_before),
        node_cpu,
        by_thread,
        rss_bytes: node.rss_bytes()?,
    };
    counters.stop.store(true, Ordering::Relaxed);
    Ok(figures)
}

async fn spawn_pair(
    endpoint: &Endpoint,
    pair: &Pair,
    batch: usize,
    counters: &Arc<Counters>,
) -> Result<()> {
    let (mut sender, _) = RawClient::open_at(endpoint, hello(&pair.sender)).await?;
    let (receiver, _) = RawClient::open_at(endpoint, hello(&pair.receiver)).await?;
    let alias = sender.open_fresh(pair.channel, 1).await?.alias;
    tokio::spawn(receive(receiver, Arc::clone(counters)));
    tokio::spawn(send(sender, alias, batch, Arc::clone(counters)));
    Ok(())
}

async fn send(
    mut client: RawClient,
    alias: Alias,
    batch: usize,
    counters: Arc<Counters>,
) -> Result<()> {
    let text = bytes::Bytes::from(vec![b'x'; TEXT_BYTES]);
    let mut drafts: Vec<_> = (0..batch)
        .map(|_| Draft::text(MessageKey::default(), text.clone()))
        .collect();
    let mut key: u128 = rand::random();
    while !counters.stop.load(Ordering::Relaxed) {
        for draft in &mut drafts {
            key = key.wrapping_add(1);
            draft.key = MessageKey(key.to_le_bytes());
        }
        let request = client.queue_sends(alias, &drafts);
        client.flush().await?;
        loop {
            match client.recv().await?.frame {
                ServerFrame::SendAck { acks, .. } => {
                    let acked = acks.len() as u64;
                    counters.acked.fetch_add(acked, Ordering::Relaxed);
                    break;
                }
                ServerFrame::Error { request: r, error } if r == request => {
                    let wait = error.retry_after_ms.max(10);
                    tokio::time::sleep(Duration::from_millis(wait.into())).await;
                    break;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

async fn receive(mut client: RawClient, counters: Arc<Counters>) -> Result<()> {
    let mut used = 0;
    let mut delivered = 0;
    while !counters.stop.load(Ordering::Relaxed) {
        let mut next = Some(client.recv().await?);
        while let Some(received) = next {
            if matches!(received.frame, ServerFrame::Deliver { .. }) {
                used += received.wire_bytes;
                delivered += 1;
            }
            next = client.try_recv();
        }
        counters
            .delivered
            .fetch_add(std::mem::take(&mut delivered), Ordering::Relaxed);
        if used > conch_wire::limits::CREDIT_BYTES / 4 {
            client.grant(std::mem::take(&mut used)).await?;
        }
    }
    Ok(())
}
