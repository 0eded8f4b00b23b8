//! A steady, open-loop load on a node, and what it costs in one round.
//!
//! Sends leave at fixed times, whatever the answers do, over targets (a sender's connection and an alias there) in turn;
//! latency counts from the intended time. A round ends when every send has its ack and every delivery came: what is refused or
//! does not come makes the sweep fail, because its figures would be of another load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conch_wire::frame::ClientFrame;
use conch_wire::{Alias, MessageKey, ServerFrame, limits};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::measure::disk::latencies;
use crate::measure::{TEXT_BYTES, generator_cpu};
use crate::node::Node;
use crate::raw::{Draft, RawClient};

/// How long answers may take that are on their way when the last send has left.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Without a delivery for this long, none is on its way.
const QUIET: Duration = Duration::from_millis(500);
/// How often it is looked whether they are there.
const LOOK: Duration = Duration::from_millis(5);

struct Due {
    at: Instant,
    alias: Alias,
}

#[derive(Debug)]
struct Tally {
    ack_us: Histogram<u64>,
    lag_us: Histogram<u64>,
    refused: u64,
    /// Code and words of the last refusal.
    refusal: String,
}

#[derive(Debug)]
struct Shared {
    tally: Mutex<Tally>,
    acked: AtomicU64,
    delivered: AtomicU64,
}

/// Senders and receivers of a node, and where the load goes. Dropping it drops their connections.
#[derive(Debug)]
pub(super) struct Probe {
    lanes: Vec<mpsc::UnboundedSender<Due>>,
    /// Index of the lane, and the channel's alias there.
    targets: Arc<Mutex<Vec<(usize, Alias)>>>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) messages: u64,
    pub(super) took: Duration,
    /// The node's.
    pub(super) cpu: Duration,
    pub(super) generator_cpu: Duration,
    pub(super) ack_p50_us: u64,
    pub(super) lag_p99_us: u64,
}

impl Round {
    /// CPU of the node per message in microseconds, without `idle`: what it uses when nobody sends, in cores.
    pub(super) fn cpu_us_per_message(&self, idle: f64) -> f64 {
        let used = self.cpu.as_secs_f64() - idle * self.took.as_secs_f64();
        used.max(0.0) * 1e6 / self.messages.max(1) as f64
    }
}

fn tally() -> Tally {
    Tally {
        ack_us: latencies(),
        lag_us: latencies(),
        refused: 0,
        refusal: String::new(),
    }
}

impl Probe {
    pub(super) fn new() -> Probe {
        Probe {
            lanes: Vec::new(),
            targets: Arc::default(),
            shared: Arc::new(Shared {
                tally: Mutex::new(tally()),
                acked: AtomicU64::new(0),
                delivered: AtomicU64::new(0),
            }),
            tasks: JoinSet::new(),
        }
    }

    /// A connection that sends to what is [targeted](Probe::target) there; gives the number of its lane.
    pub(super) fn add_sender(&mut self, client: RawClient) -> usize {
        let (lane, due) = mpsc::unbounded_channel();
        self.lanes.push(lane);
        self.tasks
            .spawn(send(client, due, Arc::clone(&self.shared)));
        self.lanes.len() - 1
    }

    /// A connection that takes what comes.
    pub(super) fn add_receiver(&mut self, client: RawClient) {
        self.tasks.spawn(receive(client, Arc::clone(&self.shared)));
    }

    /// Where sends go from here on, in turn.
    pub(super) fn set_targets(&mut self, targets: Vec<(usize, Alias)>) {
        self.targets = Arc::new(Mutex::new(targets));
    }

    /// Waits until no delivery has come for a while: what was sent before is over.
    pub(super) async fn settle(&self) {
        let mut before = None;
        loop {
            let delivered = self.shared.delivered.load(Ordering::Relaxed);
            if before.replace(delivered) == Some(delivered) {
                return;
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    /// CPU that the node uses while nobody sends, in cores.
    pub(super) async fn idle(&self, node: &Node, for_: Duration) -> Result<f64> {
        let (began, before) = (Instant::now(), node.cpu()?);
        tokio::time::sleep(for_).await;
        let used = node.cpu()?.saturating_sub(before);
        Ok(used.as_secs_f64() / began.elapsed().as_secs_f64())
    }

    /// Sends `rate` per second for about `round`, to `receivers` connections each.
    pub(super) async fn round(
        &self,
        node: &Node,
        rate: u32,
        round: Duration,
        receivers: u64,
    ) -> Result<Round> {
        *self.lock() = tally();
        let count = (f64::from(rate) * round.as_secs_f64()).ceil() as u64;
        let acked = self.shared.acked.load(Ordering::Relaxed) + count;
        let delivered = self.shared.delivered.load(Ordering::Relaxed) + count * receivers;
        let (began, before, own) = (Instant::now(), node.cpu()?, generator_cpu());
        let (lanes, targets) = (self.lanes.clone(), Arc::clone(&self.targets));
        tokio::task::spawn_blocking(move || pace(&lanes, &targets, rate, count)).await?;
        let deadline = Instant::now() + ANSWERS_WITHIN;
        let missing = |counter: &AtomicU64, wanted: u64| {
            wanted.saturating_sub(counter.load(Ordering::Relaxed))
        };
        while missing(&self.shared.acked, acked) + missing(&self.shared.delivered, delivered) > 0 {
            {
                let tally = self.lock();
                let (refused, why) = (tally.refused, &tally.refusal);
                ensure!(
                    refused == 0,
                    "{refused} of {count} sends were refused: {why}"
                );
            }
            ensure!(
                Instant::now() < deadline,
                "{} of {count} acks and {} of {} deliveries did not come",
                missing(&self.shared.acked, acked),
                missing(&self.shared.delivered, delivered),
                count * receivers,
            );
            tokio::time::sleep(LOOK).await;
        }
        let tally = self.lock();
        Ok(Round {
            messages: count,
            took: began.elapsed(),
            cpu: node.cpu()?.saturating_sub(before),
            generator_cpu: generator_cpu().saturating_sub(own),
            ack_p50_us: tally.ack_us.value_at_quantile(0.5),
            lag_p99_us: tally.lag_us.value_at_quantile(0.99),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.shared
            .tally
            .lock()
            .expect("nobody panics while it holds this")
    }
}

/// Hands out intended send times. A thread of its own: the runtime's timers are a millisecond coarse.
fn pace(
    lanes: &[mpsc::UnboundedSender<Due>],
    targets: &Mutex<Vec<(usize, Alias)>>,
    rate: u32,
    count: u64,
) {
    let mut targets = targets.lock().expect("nobody panics while it holds this");
    let began = Instant::now();
    for n in 0..count as usize {
        let at = began + Duration::from_secs_f64(n as f64 / f64::from(rate));
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let (lane, alias) = targets[n % targets.len()];
        let _ = lanes[lane].send(Due { at, alias });
    }
    // The next round goes on where this one ended.
    let next = count as usize % targets.len();
    targets.rotate_left(next);
}

async fn send(mut client: RawClient, mut due: mpsc::UnboundedReceiver<Due>, shared: Arc<Shared>) {
    let mut intended = HashMap::new();
    let text = bytes::Bytes::from(vec![b'x'; TEXT_BYTES]);
    let lock = || {
        shared
            .tally
            .lock()
            .expect("nobody panics while it holds this")
    };
    let mut used = 0;
    let mut beats = beats();
    let run = async {
        loop {
            tokio::select! {
                next = due.recv() => {
                    let Some(Due { at, alias }) = next else { return Ok(()) };
                    let draft = Draft::text(MessageKey(rand::random()), text.clone());
                    let lag = at.elapsed().as_micros() as u64;
                    intended.insert(client.start_send(alias, &draft).await?, at);
                    lock().lag_us.saturating_record(lag);
                }
                received = client.recv() => {
                    let received = received?;
                    match received.frame {
                        ServerFrame::SendAck { request, .. } => {
                            if let Some(at) = intended.remove(&request) {
                                lock().ack_us.saturating_record(at.elapsed().as_micros() as u64);
                            }
                            shared.acked.fetch_add(1, Ordering::Relaxed);
                        }
                        ServerFrame::Error { error, .. } => {
                            let mut tally = lock();
                            tally.refused += 1;
                            tally.refusal = format!("{} {}", error.code, error.detail);
                        }
                        ServerFrame::Deliver { .. } => used += received.wire_bytes,
                        _ => {}
                    }
                    if used > limits::CREDIT_BYTES / 4 {
                        client.grant(std::mem::take(&mut used)).await?;
                    }
                }
                _ = beats.tick() => beat(&mut client).await?,
            }
        }
    };
    // A connection that ends is seen by its acks that do not come.
    let _: Result<(), crate::raw::RawError> = run.await;
}

/// A node closes who is silent, and a sweep is longer than that.
fn beats() -> Interval {
    let every = Duration::from_millis(limits::HEARTBEAT_MS.into());
    let mut beats = interval_at(tokio::time::Instant::now() + every, every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

async fn beat(client: &mut RawClient) -> Result<(), crate::raw::RawError> {
    let nonce = client.next_request();
    client.send(&ClientFrame::Ping { nonce }).await
}

async fn receive(mut client: RawClient, shared: Arc<Shared>) {
    let run = async {
        let (mut used, mut beats) = (0, beats());
        loop {
            let received = tokio::select! {
                received = client.recv() => received?,
                _ = beats.tick() => {
                    beat(&mut client).await?;
                    continue;
                }
            };
            if matches!(received.frame, ServerFrame::Deliver { .. }) {
                used += received.wire_bytes;
                shared.delivered.fetch_add(1, Ordering::Relaxed);
            }
            if used > limits::CREDIT_BYTES / 4 {
                client.grant(std::mem::take(&mut used)).await?;
            }
        }
    };
    let _: Result<(), crate::raw::RawError> = run.await;
}
