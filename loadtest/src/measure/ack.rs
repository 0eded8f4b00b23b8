//! How long a durable ack takes at a steady, open-loop rate, beside the disk's own fdatasync in the same run.
//!
//! Sends leave at fixed times whatever the answers do; latency counts from the intended time, so a stall is not hidden. Rounds
//! of sending and of probing the idle disk alternate. The generator's own lag is reported: when it is large the figure is
//! the generator's, not the node's.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use conch_wire::{MessageKey, ServerFrame};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;

use super::disk::{DiskProbe, latencies};
use super::{Pair, TEXT_BYTES, api, fresh_node, generator_cpu, hello, pairs};
use crate::raw::{Draft, RawClient, Transport};

const ROUNDS: u32 = 5;
const PAIRS: usize = 50;
/// Probes of the disk per round: two seconds' worth on a common disk.
const PROBES: u64 = 2_000;

/// How acks are measured.
#[derive(Clone, Copy, Debug)]
pub struct AckPlan {
    pub transport: Transport,
    /// Sends per second.
    pub rate: u32,
    pub seconds: u64,
}

/// Durable acks at a rate.
#[derive(Clone, Debug)]
pub struct AckFigures {
    pub transport: Transport,
    pub rate: u32,
    pub acks: u64,
    pub ack_us: [u64; 3],
    pub fdatasync_us: [u64; 3],
    /// p99 of how late the generator itself was.
    pub lag_p99_us: u64,
    pub refused: u64,
    /// CPU time of the node per message at this rate.
    pub node_cpu_us: f64,
    /// The same of the generator.
    pub generator_cpu_us: f64,
}

impl fmt::Display for AckFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = self.ack_us;
        let [disk50, disk99, disk_max] = self.fdatasync_us;
        write!(
            f,
            "ack: {} durable sends/s over {}, {} acked, {} refused: p50 {p50} µs, p99 {p99} µs, max {max} µs; disk fdatasync of 4 KiB in \
             the same run: p50 {disk50} µs, p99 {disk99} µs, max {disk_max} µs; ratio p50 {:.1}, p99 {:.1}; generator's own \
             lag p99 {} µs{}; node {:.1} CPU-µs per message, generator {:.1}",
            self.rate,
            self.transport,
            self.acks,
            self.refused,
            p50 as f64 / disk50.max(1) as f64,
            p99 as f64 / disk99.max(1) as f64,
            self.lag_p99_us,
            if self.lag_p99_us > p99 / 2 {
                " (too late: the figure is not the node's)"
            } else {
                ""
            },
            self.node_cpu_us,
            self.generator_cpu_us,
        )
    }
}

struct Tally {
    ack_us: Histogram<u64>,
    lag_us: Histogram<u64>,
    refused: u64,
}

type Shared = Arc<Mutex<Tally>>;

/// Measures sending at a rate.
pub async fn ack(folder: &Path, plan: AckPlan) -> Result<AckFigures> {
    let AckPlan {
        transport,
        rate,
        seconds,
    } = plan;
    let name = format!("ack-{transport}");
    let (_plan, node) = fresh_node(folder, &name, transport).await?;
    let pairs = pairs(&api(&node)?, PAIRS).await?;
    let tally: Shared = Arc::new(Mutex::new(Tally {
        ack_us: latencies(),
        lag_us: latencies(),
        refused: 0,
    }));
    let mut lanes = Vec::new();
    for pair in &pairs {
        let (lane, due) = mpsc::unbounded_channel();
        let endpoint = node.doors().endpoint(transport)?;
        let (sender, _) = RawClient::open_at(&endpoint, hello(&pair.sender)).await?;
        let (receiver, _) = RawClient::open_at(&endpoint, hello(&pair.receiver)).await?;
        tokio::spawn(drain(receiver));
        tokio::spawn(send_when_due(sender, pair.clone(), due, Arc::clone(&tally)));
        lanes.push(lane);
    }
    let mut disk = DiskProbe::new(folder)?;
    let (mut cpu, mut own_cpu) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        disk = tokio::task::spawn_blocking(move || disk.run(PROBES).map(|()| disk)).await??;
        let (before, own_before) = (node.cpu()?, generator_cpu());
        let lanes = lanes.clone();
        let count = u64::from(rate) * seconds / u64::from(ROUNDS);
        tokio::task::spawn_blocking(move || pace(&lanes, rate, count)).await?;
        // Answers that are on their way.
        tokio::time::sleep(Duration::from_millis(300)).await;
        cpu += node.cpu()?.saturating_sub(before);
        own_cpu += generator_cpu().saturating_sub(own_before);
    }
    let tally = tally.lock().expect("no lane panics while it holds this");
    let three = |h: &Histogram<u64>| [h.value_at_quantile(0.5), h.value_at_quantile(0.99), h.max()];
    let each = |used: Duration| used.as_micros() as f64 / tally.ack_us.len().max(1) as f64;
    Ok(AckFigures {
        transport,
        rate,
        acks: tally.ack_us.len(),
        ack_us: three(&tally.ack_us),
        fdatasync_us: three(&disk.took_us),
        lag_p99_us: tally.lag_us.value_at_quantile(0.99),
        refused: tally.refused,
        node_cpu_us: each(cpu),
        generator_cpu_us: each(own_cpu),
    })
}

/// Hands out `count` intended send times, `rate` per second, over the lanes in turn. A thread of its own: the runtime's
/// timers are a millisecond coarse.
fn pace(lanes: &[mpsc::UnboundedSender<Instant>], rate: u32, count: u64) {
    let began = Instant::now();
    for n in 0..count {
        let due = began + Duration::from_secs(1) * n as u32 / rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let _ = lanes[n as usize % lanes.len()].send(due);
    }
}

async fn send_when_due(
    mut client: RawClient,
    pair: Pair,
    mut due: mpsc::UnboundedReceiver<Instant>,
    tally: Shared,
) -> Result<()> {
    let alias = client.open_fresh(pair.channel, 1).await?.alias;
    let mut intended = std::collections::HashMap::new();
    loop {
        tokio::select! {
            next = due.recv() => {
                let Some(at) = next else { return Ok(()) };
                let draft = Draft::text(MessageKey(rand::random()), vec![b'x'; TEXT_BYTES]);
                let lag = at.elapsed().as_micros() as u64;
                intended.insert(client.start_send(alias, &draft).await?, at);
                let mut tally = tally.lock().expect("no lane panics while it holds this");
                tally.lag_us.saturating_record(lag);
            }
            received = client.recv() => match received?.frame {
                ServerFrame::SendAck { request, .. } => {
                    if let Some(at) = intended.remove(&request) {
                        let took = at.elapsed().as_micros() as u64;
                        let mut tally = tally.lock().expect("no lane panics while it holds this");
                        tally.ack_us.saturating_record(took);
                    }
                }
                ServerFrame::Error { .. } => {
                    tally.lock().expect("no lane panics while it holds this").refused += 1;
                }
                _ => {}
            }
        }
    }
}

/// A receiver that takes everything and grants it back.
pub(super) async fn drain(mut client: RawClient) -> Result<()> {
    let mut used = 0;
    loop {
        let received = client.recv().await?;
        if matches!(received.frame, ServerFrame::Deliver { .. }) {
            used += received.wire_bytes;
        }
        if used > conch_wire::limits::CREDIT_BYTES / 4 {
            client.grant(std::mem::take(&mut used)).await?;
        }
    }
}
