//! What a message costs the embedded store: CPU per message of the acknowledging path and of the index, and rates.
//!
//! `cargo run --release -p conch-store --example append_rate -- [folder] [messages] [channels] [writers] [apply KiB]`
//!
//! Writers append batches of one message to direct channels, each channel with one batch in flight, as owners do. CPU
//! is taken per thread from `/proc/self/task`, so that the store's threads are told from the callers'. A second start is
//! timed at the end.
#![allow(clippy::print_stdout)] // its output is what it is for

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conch_store::{
    EmbeddedOptions, EmbeddedStore, EventEffect, EventRow, Fold, MemberChange, MessageStore, Record,
};
use conch_wire::event::{ChannelKind, MemberRole};
use conch_wire::{ChannelId, DeviceId, MessageKey, UserId};

const BODY_BYTES: usize = 20 + 100;

/// Kind 16 creates a direct channel of the two users next to its id; everything else is a message.
struct BenchFold;

impl Fold for BenchFold {
    fn effect(&self, event: &EventRow) -> EventEffect {
        if event.kind != 16 {
            return EventEffect {
                is_message: true,
                ..EventEffect::default()
            };
        }
        let join = |user| MemberChange::Join {
            user: UserId(user),
            role: MemberRole::Member,
        };
        EventEffect {
            created: Some(ChannelKind::Direct),
            members: vec![join(event.channel.0 * 2), join(event.channel.0 * 2 + 1)],
            ..EventEffect::default()
        }
    }
}

fn event(channel: u64, seq: u32) -> Record {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&channel.to_le_bytes());
    key[8..12].copy_from_slice(&seq.to_le_bytes());
    Record::Event(EventRow {
        channel: ChannelId(channel),
        seq,
        epoch: 1,
        ordinal: seq - 1,
        kind: if seq == 1 { 16 } else { 1 },
        sender: UserId(channel * 2 + u64::from(seq % 2)),
        device: DeviceId(7),
        key: MessageKey(key),
        created_ms: 1_790_000_000_000 + u64::from(seq),
        content_hash: 1,
        body: Bytes::from(vec![b'm'; BODY_BYTES]),
    })
}

/// CPU time by thread name, in microseconds.
fn cpu_by_thread() -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    for task in tasks.flatten() {
        let path = task.path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let times = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let ns: u64 = times
            .split(' ')
            .next()
            .and_then(|field| field.parse().ok())
            .unwrap_or(0);
        *out.entry(name.trim().to_owned()).or_default() += ns / 1_000;
    }
    out
}

fn argument(number: usize, default: u64) -> u64 {
    std::env::args()
        .nth(number)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

async fn wait_applied(store: &EmbeddedStore) {
    while store.applied_lsn() < store.durable_lsn() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn run(store: Arc<EmbeddedStore>, messages: u64, channels: u64, writers: u64, from_seq: u32) {
    let refused = Arc::new(AtomicU64::new(0));
    let per_channel = (messages / channels).max(1) as u32;
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let store = store.clone();
        let refused = refused.clone();
        tasks.push(tokio::spawn(async move {
            for seq in from_seq..from_seq + per_channel {
                for channel in (1 + writer..=channels).step_by(writers as usize) {
                    while store.admit(BODY_BYTES + 200).is_err() {
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    store
                        .append(vec![event(channel, seq)])
                        .await
                        .expect("a healthy store appends");
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("writers do not panic");
    }
    println!("refusals met: {}", refused.load(Ordering::Relaxed));
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "append_rate.data".into());
    let messages = argument(2, 300_000);
    let channels = argument(3, 10_000);
    let writers = argument(4, 1_024);
    let mut options = EmbeddedOptions::new(&folder);
    options.apply_bytes = argument(5, options.apply_bytes as u64 >> 10) as usize * 1024;

    let began = Instant::now();
    let store = EmbeddedStore::open(options.clone(), Arc::new(BenchFold)).expect("opens");
    println!(
        "open: {:?}, {} records",
        began.elapsed(),
        store.durable_lsn()
    );
    let store = Arc::new(store);
    let loaded = store.load_channel(ChannelId(1), 0, 0).await.expect("reads");
    let mut seq = loaded.map_or(0, |channel| channel.head.seq) + 1;
    if seq == 1 {
        run(store.clone(), channels, channels, writers, 1).await;
        seq = 2;
        wait_applied(&store).await;
    }

    let cpu_before = cpu_by_thread();
    let began = Instant::now();
    run(store.clone(), messages, channels, writers, seq).await;
    let acked = began.elapsed();
    wait_applied(&store).await;
    let applied = began.elapsed();
    let count = (messages / channels).max(1) * channels;
    println!(
        "{count} messages, {channels} channels, {writers} writers: {:.0}/s acknowledged, {:.0}/s applied",
        count as f64 / acked.as_secs_f64(),
        count as f64 / applied.as_secs_f64(),
    );
    let mut total = 0.0;
    for (name, cpu) in cpu_by_thread() {
        let spent = cpu - cpu_before.get(&name).copied().unwrap_or(0);
        let each = spent as f64 / count as f64;
        total += each;
        println!("  {name:<18} {each:6.2} µs CPU per message");
    }
    println!("  {:<18} {total:6.2}", "all");

    let began = Instant::now();
    let page = store
        .load_channel(ChannelId(5), 50, 1_024)
        .await
        .expect("reads");
    let found = page.map_or(0, |channel| channel.tail.len());
    println!("load_channel: {:?} ({found} events)", began.elapsed());

    drop(store);
    let began = Instant::now();
    let store = EmbeddedStore::open(options, Arc::new(BenchFold)).expect("opens again");
    println!(
        "start after a drop: {:?}, {} records",
        began.elapsed(),
        store.durable_lsn()
    );
    let began = Instant::now();
    store.close().await;
    println!("close: {:?}", began.elapsed());
}
