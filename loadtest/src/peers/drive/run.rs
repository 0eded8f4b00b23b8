//! One run of a drive: publishing as the load says, measuring, and waiting for what is due.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::pace::Pace;
use super::{Channel, Drive, Load, NotHeld, Outcome, SLICE, Shape};
use crate::peers::stamp::Stamp;
use crate::peers::{Running, process};

/// How long answers may take after the last message: longer is a stall.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// What is missing, when something is lost already, and has not come for so long, is lost too.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Most messages published and not answered in open loop, in seconds of the rate: behind that the server does not hold it.
const BACKLOG_S: u32 = 2;
/// A server is at rest when it used less than this of a core.
const REST: f64 = 0.01;
const REST_LOOK: Duration = Duration::from_millis(200);

impl Drive {
    /// Loads the server.
    pub fn run(&mut self, server: &mut Running, load: &Load) -> Result<Outcome> {
        let began = Instant::now();
        let mut pace = match load.shape {
            Shape::Open { rate } => Some(Pace::new(began, rate)),
            Shape::Closed { .. } => None,
        };
        let mut payload = vec![0; load.payload_bytes];
        self.dirty = (0..self.channels.len()).collect();
        self.publish_until(server, load, &mut pace, &mut payload, began + load.warm)?;
        if load.stalled {
            self.last_line().is_stalled = true;
        }
        let from = Instant::now();
        self.tally.begin(self.since_origin(from));
        let (cpu_before, own_before) = (server.cpu()?, process::own_cpu());
        let index_before = server.cpu_of_threads(is_index);
        let wire_before = self.wire();
        self.publish_until(server, load, &mut pace, &mut payload, from + load.measured)?;
        let took = from.elapsed();
        let counted = self.tally.counts();
        let own_cpu = process::own_cpu().saturating_sub(own_before);
        let cpu_loaded = server.cpu()?.saturating_sub(cpu_before);
        let rss_bytes = server.rss_bytes()?;
        let stalled_kernel_bytes = match load.stalled {
            true => Some(self.last_line().kernel_bytes()?),
            false => None,
        };
        self.settle(server)?;
        rest(server, load.rest_within)?;
        let total = self.tally.counts();
        Ok(Outcome {
            took,
            counted,
            settled: total,
            server_cpu: server.cpu()?.saturating_sub(cpu_before),
            server_cpu_loaded: cpu_loaded,
            server_index_cpu: server.cpu_of_threads(is_index).saturating_sub(index_before),
            generator_cpu: own_cpu,
            rss_bytes,
            wire: self.wire() - wire_before,
            stalled_kernel_bytes,
            ack_us: self.tally.ack_us.clone(),
            delivery_us: self.tally.delivery_us.clone(),
            lag_us: self.tally.lag_us.clone(),
            fault: self.tally.fault.take(),
        })
    }

    fn publish_until(
        &mut self,
        server: &mut Running,
        load: &Load,
        pace: &mut Option<Pace>,
        payload: &mut [u8],
        until: Instant,
    ) -> Result<()> {
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            if now > looked + Duration::from_secs(1) {
                looked = now;
                self.check_alive(server, load)?;
            }
            match (load.shape, &mut *pace) {
                (Shape::Closed { window }, _) => self.refill(window, payload),
                (Shape::Open { .. }, Some(pace)) => self.publish_due(pace, payload),
                (Shape::Open { .. }, None) => unreachable!("an open shape has a pace"),
            }
            self.flush()?;
            let wait = until.saturating_duration_since(Instant::now()).min(SLICE);
            if let Some(pace) = pace {
                self.alarm.set(pace.next_due()).context("set the timer")?;
            }
            self.turn(wait)?;
        }
    }

    /// A server that ended, or that is so far behind that it does not hold the rate.
    fn check_alive(&mut self, server: &mut Running, load: &Load) -> Result<()> {
        self.stop.check()?;
        if let Some(why) = server.ended() {
            bail!("{why}");
        }
        let Shape::Open { rate } = load.shape else {
            return Ok(());
        };
        let behind: u64 = self.channels.iter().map(|it| self.in_flight(it)).sum();
        let most = u64::from(rate) * u64::from(BACKLOG_S);
        if behind > most {
            // What is under way belongs to this run, not to the next.
            self.settle(server)?;
            return Err(NotHeld { rate, behind }.into());
        }
        Ok(())
    }

    /// Messages of a channel that are not acknowledged, or not delivered to everybody.
    fn in_flight(&self, channel: &Channel) -> u64 {
        let subscribers = u64::from(self.topology.subscribers());
        let delivered = channel.delivered / subscribers;
        let answered = if self.acknowledges {
            delivered.min(channel.acked)
        } else {
            delivered
        };
        channel.published.saturating_sub(answered)
    }

    /// Closed loop: fills every window of which half is free.
    fn refill(&mut self, window: u32, payload: &mut [u8]) {
        let now_ns = self.since_origin(Instant::now());
        for at in std::mem::take(&mut self.dirty) {
            let channel = &mut self.channels[at];
            channel.is_dirty = false;
            let free = u64::from(window).saturating_sub(self.in_flight(&self.channels[at]));
            if free >= u64::from(window.div_ceil(2)) {
                for _ in 0..free {
                    self.publish(at, now_ns, payload);
                }
            }
        }
    }

    /// Open loop: what is due by now.
    fn publish_due(&mut self, pace: &mut Pace, payload: &mut [u8]) {
        self.forget_dirty();
        let now = Instant::now();
        while let Some((number, due)) = pace.take_due(now) {
            let lag = now.saturating_duration_since(due);
            self.tally.lagged(lag);
            let at = (number % self.channels.len() as u64) as usize;
            self.publish(at, self.since_origin(due), payload);
        }
    }

    fn publish(&mut self, at: usize, intended_ns: u64, payload: &mut [u8]) {
        let channel = &mut self.channels[at];
        let stamp = Stamp {
            channel: at as u32,
            number: channel.published,
            intended_ns,
        };
        stamp.write(payload);
        channel.published += 1;
        if self.acknowledges {
            channel.unacked_ns.push_back(intended_ns);
        }
        self.tally.published += 1;
        self.lines[channel.sender].publish(payload);
    }

    /// Waits until everything that was published is acknowledged and delivered. When something is known to be lost it is written
    /// off, so that the next run on these connections begins without debts; when nothing is, a stall is an error.
    fn settle(&mut self, server: &mut Running) -> Result<()> {
        let began = Instant::now();
        let (mut least, mut progressed) = (u64::MAX, began);
        loop {
            self.forget_dirty();
            let missing: u64 = self.channels.iter().map(|it| self.unsettled(it)).sum();
            if missing == 0 {
                return Ok(());
            }
            if missing < least {
                (least, progressed) = (missing, Instant::now());
            }
            self.stop.check()?;
            if let Some(why) = server.ended() {
                bail!("{why}");
            }
            if self.tally.fault.is_some() && progressed.elapsed() > LOST_AFTER {
                self.write_off();
                return Ok(());
            }
            ensure!(
                began.elapsed() < SETTLED_WITHIN,
                "the run stalled: {missing} acks or deliveries did not come within {SETTLED_WITHIN:?} of the last message"
            );
            self.flush()?;
            self.turn(SLICE)?;
        }
    }

    fn write_off(&mut self) {
        let subscribers = u64::from(self.topology.subscribers());
        for channel in &mut self.channels {
            channel.acked = channel.published;
            channel.delivered = channel.published * subscribers;
            channel.unacked_ns.clear();
        }
        for line in &mut self.lines {
            if !line.line.sends() {
                line.next_number = self.channels[line.line.channel() as usize].published;
            }
        }
    }

    /// In open loop nobody asks which windows have room.
    fn forget_dirty(&mut self) {
        self.dirty.clear();
        self.channels.iter_mut().for_each(|it| it.is_dirty = false);
    }

    /// Acks and deliveries that are due; those of a line that was told to stall are not.
    fn unsettled(&self, channel: &Channel) -> u64 {
        let stalled = self.lines.iter().filter(|line| line.is_stalled).count() as u64;
        let subscribers = u64::from(self.topology.subscribers()) - stalled;
        let of_lines = if stalled == 0 {
            channel.delivered
        } else {
            let reading = self.lines.iter().filter(|it| !it.is_stalled);
            reading.map(|it| it.next_number).sum()
        };
        let acks = if self.acknowledges {
            channel.published.saturating_sub(channel.acked)
        } else {
            0
        };
        acks + (channel.published * subscribers).saturating_sub(of_lines)
    }
}

/// Threads of Conch that work behind the ack: the index and what it runs on.
fn is_index(name: &str) -> bool {
    crate::measure::is_index(name)
}

/// Waits until the server does nothing any more.
fn rest(server: &Running, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        let before = server.cpu()?;
        std::thread::sleep(REST_LOOK);
        let used = server.cpu()?.saturating_sub(before);
        if used.as_secs_f64() < REST * REST_LOOK.as_secs_f64() {
            break;
        }
    }
    Ok(())
}
