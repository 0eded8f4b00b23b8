//! What the checker itself costs the program that runs it: time per call, and bytes per message.
//!
//! No node and no socket: runs of three shapes are made up and told to a [`Checker`] in batches, as a generator tells them
//! when everything goes well. `pairs` is the shape of the saturated figure, `hot` is one channel with all messages, `group`
//! one channel whose every message goes to a thousand devices. Each ends with full reads of history and must be judged clean.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conch_wire::{ChannelId, DeviceId, EventKind, MessageKey, Seq, UserId};

use super::TEXT_BYTES;
use crate::checker::{Checker, FullRead, Memory, Observed};

/// Messages that one device has under way.
const BATCH: usize = 16;
/// Events in a page of history.
const PAGE: Seq = 256;

/// One made-up run.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    channels: u64,
    /// Members of each channel, with one device each. Two of them write.
    members: u64,
    /// In all channels together.
    messages: u64,
}

/// What the shapes cost.
#[derive(Clone, Debug)]
pub struct CheckingFigures(Vec<ShapeFigures>);

#[derive(Clone, Debug)]
struct ShapeFigures {
    shape: Shape,
    fingerprint: Clock,
    attempt: Clock,
    delivery: Clock,
    ack: Clock,
    read: Clock,
    verdict: Duration,
    memory: Memory,
    /// Growth of the process, before and at its highest, the verdict included.
    rss_bytes: u64,
    peak_bytes: u64,
}

/// Time that calls of one kind took.
#[derive(Clone, Copy, Default, Debug)]
struct Clock {
    calls: u64,
    took: Duration,
    /// The longest batch: what a generator stands still for.
    longest: Duration,
}

impl Clock {
    fn time(&mut self, calls: u64, mut work: impl FnMut()) {
        let began = Instant::now();
        work();
        let took = began.elapsed();
        self.calls += calls;
        self.took += took;
        self.longest = self.longest.max(took);
    }

    fn each_ns(&self) -> f64 {
        self.took.as_nanos() as f64 / self.calls.max(1) as f64
    }
}

impl fmt::Display for CheckingFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, it) in self.0.iter().enumerate() {
            let shape = it.shape;
            let each = |bytes: u64| bytes as f64 / shape.messages as f64;
            if index > 0 {
                writeln!(f)?;
            }
            write!(
                f,
                "checker: {}, {} channels of {} devices, {} messages: fingerprint {:.0} ns, attempt {:.0}, delivery {:.0}, ack {:.0}, \
                 event of history {:.0}, verdict {:.2} s; longest batch {:.2?}; {} bytes per message by its own account, {:.1} by the \
                 process, {:.1} at the peak; {}",
                shape.name,
                shape.channels,
                shape.members,
                shape.messages,
                it.fingerprint.each_ns(),
                it.attempt.each_ns(),
                it.delivery.each_ns(),
                it.ack.each_ns(),
                it.read.each_ns(),
                it.verdict.as_secs_f64(),
                it.attempt
                    .longest
                    .max(it.ack.longest)
                    .max(it.delivery.longest),
                format_args!("{:.1}", each(it.memory.messages())),
                each(it.rss_bytes),
                each(it.peak_bytes),
                it.memory,
            )?;
        }
        Ok(())
    }
}

/// Measures the checker with so many messages in each shape; deliveries in the group are as many as messages elsewhere.
pub fn checking(messages: u64) -> Result<CheckingFigures> {
    let shape = |name, channels, members, messages| Shape {
        name,
        channels,
        members,
        messages,
    };
    let shapes = [
        shape("pairs", 64, 2, messages),
        shape("hot", 1, 2, messages),
        shape("group", 1, 1_000, messages.div_ceil(1_000)),
    ];
    let figures = shapes.into_iter().map(run).collect::<Result<_>>()?;
    Ok(CheckingFigures(figures))
}

fn run(shape: Shape) -> Result<ShapeFigures> {
    let before = resident("VmRSS:")?;
    // Memory that an earlier shape gave back may be used again unseen: the peak is reset to now.
    fs::write("/proc/self/clear_refs", "5").context("reset the peak of this process")?;
    let mut checker = Checker::new();
    let user = |channel: u64, member: u64| UserId(channel * shape.members + member + 1);
    let device = |channel: u64, member: u64| DeviceId(user(channel, member).0 << 8 | 1);
    for channel in 0..shape.channels {
        for member in 0..shape.members {
            checker.add_device(user(channel, member), device(channel, member));
            checker.add_member(ChannelId(channel + 1), user(channel, member), 1);
        }
    }
    let clock = Clock::default();
    let [
        mut fingerprint,
        mut attempt,
        mut delivery,
        mut ack,
        mut read,
    ] = [clock; 5];
    let mut batch = Vec::new();
    let rounds = shape.messages.div_ceil(BATCH as u64 * shape.channels);
    for round in 0..rounds {
        for at in 0..shape.channels {
            let channel = ChannelId(at + 1);
            let sender = user(at, round % 2);
            let first = (round * BATCH as u64) as Seq + 1;
            let numbered = |index: usize| (first + index as Seq, at);
            let count = BATCH as u64;
            fingerprint.time(count, || {
                batch = (0..BATCH)
                    .map(|index| seen(sender, numbered(index)))
                    .collect();
            });
            let print = |event: &Observed| event.print.expect("made from a text");
            attempt.time(count, || {
                for event in &batch {
                    let key = MessageKey(print(event).key_bytes());
                    checker.attempted(channel, sender, device(at, round % 2), key, print(event));
                }
            });
            for member in (0..shape.members).filter(|member| *member != round % 2) {
                delivery.time(count, || {
                    for event in &batch {
                        checker.delivered(device(at, member), channel, *event);
                    }
                });
            }
            ack.time(count, || {
                for event in &batch {
                    checker.acked(channel, print(event), event.seq);
                }
            });
            delivery.time(count, || {
                for event in &batch {
                    checker.delivered(device(at, round % 2), channel, *event);
                }
            });
        }
    }
    for at in 0..shape.channels {
        let head = (rounds * BATCH as u64) as Seq;
        for member in 0..2 {
            read_all(&mut checker, &mut read, at, user(at, member), head, |seq| {
                let round = u64::from(seq - 1) / BATCH as u64;
                seen(user(at, round % 2), (seq, at))
            });
        }
    }
    let memory = checker.memory();
    let rss_bytes = resident("VmRSS:")?.saturating_sub(before);
    let began = Instant::now();
    let verdict = checker.verdict();
    ensure!(
        verdict.is_clean(),
        "the made-up run is not clean: {verdict}"
    );
    Ok(ShapeFigures {
        shape,
        fingerprint,
        attempt,
        delivery,
        ack,
        read,
        verdict: began.elapsed(),
        memory,
        rss_bytes,
        peak_bytes: resident("VmHWM:")?.saturating_sub(before),
    })
}

fn read_all(
    checker: &mut Checker,
    clock: &mut Clock,
    at: u64,
    reader: UserId,
    head: Seq,
    event: impl Fn(Seq) -> Observed,
) {
    let mut reading = FullRead::new(reader, ChannelId(at + 1));
    let mut from = 1;
    while from <= head {
        let to = head.min(from + PAGE - 1);
        let page: Vec<_> = (from..=to).map(&event).collect();
        clock.time(page.len() as u64, || reading.page(checker, &page));
        from = to + 1;
    }
    reading.end(checker, head);
}

/// The message at `seq` of the channel `at`.
fn seen(author: UserId, (seq, at): (Seq, u64)) -> Observed {
    let mut text = [b'x'; TEXT_BYTES];
    text[..8].copy_from_slice(&at.to_le_bytes());
    text[8..12].copy_from_slice(&seq.to_le_bytes());
    Observed::parts(seq, author, EventKind::Text as u8, &text)
}

/// A value of /proc/self/status, in bytes.
fn resident(name: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.context("a number of KiB in /proc/self/status")? * 1_024)
}
