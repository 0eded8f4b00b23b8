//! The figures of one run of a drive.

use std::ops::Sub;
use std::time::Duration;

use hdrhistogram::Histogram;

/// A generator that used more of its core than this may be what was measured.
const GENERATOR_BUSY: f64 = 0.97;
/// A server that used more cores than this had enough to do all the same.
const SERVER_BUSY: f64 = 0.8;
/// Lag below this is never held against a run, in microseconds.
const LAG_US_ALLOWED: u64 = 500;

/// Messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub published: u64,
    pub acked: u64,
    pub delivered: u64,
}

/// Bytes on the sockets, without the headers of TCP and IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WireBytes {
    pub sender_sent: u64,
    pub sender_received: u64,
    pub receiver_sent: u64,
    pub receiver_received: u64,
}

impl Sub for WireBytes {
    type Output = WireBytes;

    fn sub(self, earlier: WireBytes) -> WireBytes {
        WireBytes {
            sender_sent: self.sender_sent - earlier.sender_sent,
            sender_received: self.sender_received - earlier.sender_received,
            receiver_sent: self.receiver_sent - earlier.receiver_sent,
            receiver_received: self.receiver_received - earlier.receiver_received,
        }
    }
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Time that was measured.
    pub took: Duration,
    /// Within that time.
    pub counted: Counts,
    /// With what was answered after it.
    pub settled: Counts,
    /// CPU time of the server from the beginning of that time until it was at rest: for all of `settled`.
    pub server_cpu: Duration,
    /// CPU time of the server within the time.
    pub server_cpu_loaded: Duration,
    /// Of `server_cpu`, what Conch's index used: what comes after the ack.
    pub server_index_cpu: Duration,
    /// CPU time of the generator's thread within the time.
    pub generator_cpu: Duration,
    /// Resident memory of the server at the end of that time.
    pub rss_bytes: u64,
    /// For all of `settled`.
    pub wire: WireBytes,
    /// What the kernel held for the line that did not read.
    pub stalled_kernel_bytes: Option<u64>,
    pub ack_us: Histogram<u64>,
    pub delivery_us: Histogram<u64>,
    /// How late the generator itself was; open loop only.
    pub lag_us: Histogram<u64>,
    /// What was wrong with the deliveries or acks.
    pub fault: Option<String>,
}

impl Outcome {
    /// CPU time of the server per delivery, in microseconds, deferred work included.
    pub fn cpu_us(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.settled.delivered.max(1) as f64
    }

    /// Of it, what Conch's index used.
    pub fn index_cpu_us(&self) -> f64 {
        self.server_index_cpu.as_secs_f64() * 1e6 / self.settled.delivered.max(1) as f64
    }

    /// Messages taken per second: acknowledged, or published where nothing is acknowledged.
    pub fn rate_per_s(&self) -> f64 {
        let taken = match self.counted.acked {
            0 => self.counted.published,
            acked => acked,
        };
        taken as f64 / self.took.as_secs_f64()
    }

    /// Deliveries per second.
    pub fn deliveries_per_s(&self) -> f64 {
        self.counted.delivered as f64 / self.took.as_secs_f64()
    }

    /// Cores that the generator's thread used, at most 1.
    pub fn generator_cores(&self) -> f64 {
        self.generator_cpu.as_secs_f64() / self.took.as_secs_f64()
    }

    /// Cores that the server used while it was loaded.
    pub fn server_cores(&self) -> f64 {
        self.server_cpu_loaded.as_secs_f64() / self.took.as_secs_f64()
    }

    /// Bytes on the wire beside the payload that one delivery costs its receiver's connection, both ways.
    pub fn overhead_per_delivery(&self, payload_bytes: usize) -> f64 {
        let bytes = self.wire.receiver_received + self.wire.receiver_sent;
        per(bytes, self.settled.delivered) - payload_bytes as f64
    }

    /// Bytes on the wire beside the payload of a message on its way in and out: send, ack, delivery and what answers it.
    pub fn overhead_both_legs(&self, payload_bytes: usize) -> f64 {
        let sending = per(self.wire.sender_sent, self.settled.published) - payload_bytes as f64;
        let acks = per(self.wire.sender_received, self.settled.acked);
        sending + acks + self.overhead_per_delivery(payload_bytes)
    }

    /// Why this run is not a figure of the server, if it is not one.
    pub fn invalid(&self) -> Option<String> {
        if let Some(fault) = &self.fault {
            return Some(fault.clone());
        }
        if self.counted.delivered == 0 {
            return Some("nothing was delivered while it was measured".to_owned());
        }
        let lag_us = self.lag_us.value_at_quantile(0.99);
        let delivery_us = self.delivery_us.value_at_quantile(0.99);
        if lag_us > LAG_US_ALLOWED && lag_us > delivery_us / 2 {
            return Some(format!(
                "the generator was {lag_us} µs late (p99) where deliveries took {delivery_us} µs"
            ));
        }
        let (own, server) = (self.generator_cores(), self.server_cores());
        if own > GENERATOR_BUSY && server < SERVER_BUSY {
            return Some(format!(
                "the generator used {own:.2} cores and the server {server:.2}: it was not saturated"
            ));
        }
        None
    }
}

/// Bytes per message; of no message, none.
fn per(bytes: u64, messages: u64) -> f64 {
    if messages == 0 {
        return 0.0;
    }
    bytes as f64 / messages as f64
}
