//! What a load run's processes say to each other: a plan and orders on a worker's standard input, one line of JSON each,
//! and what it has to tell on its standard output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::latency::Latencies;
use crate::scenario::Scenario;

/// What a worker plays. The first line on its input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerPlan {
    pub(crate) scenario: Scenario,
    pub(crate) worker: usize,
    pub(crate) doors: DoorsPlan,
    pub(crate) people: Vec<PersonPlan>,
    pub(crate) channels: Vec<ChannelPlan>,
    /// Channels of each set in all workers: what a rate is divided by.
    pub(crate) channels_of_all: BTreeMap<String, usize>,
}

/// Where the node is and whom to trust there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DoorsPlan {
    /// `http://host:port` or `https://host:port`.
    pub(crate) base_url: String,
    /// `host:port`.
    pub(crate) http: String,
    /// The name that certificates must show.
    pub(crate) name: String,
    /// Trust over TLS; `None`: HTTP is plain.
    pub(crate) tls: Option<TrustPlan>,
    pub(crate) quic: Option<(String, TrustPlan)>,
    /// PEM for the HTTP API, where the system's roots do not vouch.
    pub(crate) root_pem: Option<String>,
}

/// Whom to trust.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum TrustPlan {
    /// The certificate of this SHA-256 (hex of the DER).
    Certificate(String),
    /// Who these roots (PEM) vouch for.
    Roots(String),
    /// Who the system's roots vouch for.
    System,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PersonPlan {
    pub(crate) user: u64,
    pub(crate) devices: Vec<DevicePlan>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DevicePlan {
    pub(crate) device: u64,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    /// Its number among all devices of the run: decides its transport.
    pub(crate) number: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ChannelPlan {
    pub(crate) id: u64,
    pub(crate) set: String,
    /// Indices into the plan's people.
    pub(crate) members: Vec<usize>,
    pub(crate) stored: usize,
}

/// An order to a worker: a line after the plan.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Play the activities, with the rates of open loops multiplied.
    Go {
        warm_up_s: f64,
        duration_s: f64,
        rate_factor: f64,
    },
    /// Read everything, judge, end.
    Finish,
    /// End what is going on, say what was seen so far, end.
    Stop,
}

/// What a worker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub(crate) enum Said {
    /// On the way to being ready.
    Setup {
        connected: usize,
        stored: u64,
    },
    Ready,
    Second(Box<Second>),
    /// A round of Go is over.
    Phase(Box<Phase>),
    Final(Box<Judged>),
    /// It cannot go on; a word for people.
    Failed {
        problem: String,
    },
}

/// One second of a round. Latencies are of what arrived in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    /// From the beginning of the warm-up.
    pub(crate) second: u64,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) errors: u64,
    pub(crate) connected: usize,
    pub(crate) ack_us: Latencies,
    pub(crate) delivery_us: Latencies,
    pub(crate) lag_us: Latencies,
    /// CPU time of the worker.
    pub(crate) cpu_us: u64,
}

/// What is measured in a round: counts by the moment at which it happened, latencies of what was meant to leave within
/// the measured time, however late it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) counts: PhaseCounts,
    pub(crate) latencies: PhaseLatencies,
    /// By what they were.
    pub(crate) errors: BTreeMap<String, u64>,
    /// CPU time of the worker in the measured time.
    pub(crate) cpu_us: u64,
    /// Length of the measured time.
    pub(crate) measured_us: u64,
    /// Why it ended before its time.
    pub(crate) cut_short: Option<String>,
}

/// Counts of the measured time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PhaseCounts {
    /// Messages that were meant to leave, and did.
    pub sent: u64,
    pub acked: u64,
    /// Messages shown to devices that did not send them.
    pub delivered: u64,
    /// Of these, such as a device had missed while it was away, stalled or reconnecting: not in the latencies.
    pub caught_up: u64,
    pub pages: u64,
    pub page_events: u64,
    pub read_marks: u64,
    /// Connections made, the first ones not counted.
    pub reconnects: u64,
    /// Bytes of frames in both directions; what carries them is not in it.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Arrivals that found nobody of the channel's senders there.
    pub nobody_there: u64,
    /// Arrivals that were dropped because too much was waiting already.
    pub dropped: u64,
    /// At the end of the drain: messages without an answer, and events that devices still lacked.
    pub unanswered: u64,
    pub missing: u64,
}

impl PhaseCounts {
    pub(crate) fn add(&mut self, other: &PhaseCounts) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.caught_up += other.caught_up;
        self.pages += other.pages;
        self.page_events += other.page_events;
        self.read_marks += other.read_marks;
        self.reconnects += other.reconnects;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.nobody_there += other.nobody_there;
        self.dropped += other.dropped;
        self.unanswered += other.unanswered;
        self.missing += other.missing;
    }
}

/// Latencies of a round, in microseconds, each from the moment at which it was meant to begin.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseLatencies {
    pub ack_us: Latencies,
    pub delivery_us: Latencies,
    /// From asking to the page.
    pub page_us: Latencies,
    /// How late the generator itself was.
    pub lag_us: Latencies,
    /// From the attempt to connect to WELCOME, reconnects only.
    pub connect_us: Latencies,
    /// From coming back to having everything that was missed.
    pub catch_up_us: Latencies,
}

impl PhaseLatencies {
    pub(crate) fn merge(&mut self, other: &PhaseLatencies) {
        self.ack_us.merge(&other.ack_us);
        self.delivery_us.merge(&other.delivery_us);
        self.page_us.merge(&other.page_us);
        self.lag_us.merge(&other.lag_us);
        self.connect_us.merge(&other.connect_us);
        self.catch_up_us.merge(&other.catch_up_us);
    }
}

/// What a worker's checker found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Judged {
    /// Everything was read at the end and compared. Else only what happened on the way was.
    pub is_whole: bool,
    pub messages: u64,
    pub acked_messages: u64,
    pub attempts: u64,
    pub refusals: u64,
    pub unknown_outcomes: u64,
    pub shown: u64,
    pub history_events: u64,
    pub full_reads: u64,
    pub channels: usize,
    pub devices: usize,
    pub violations_total: u64,
    /// The first ones, in words.
    pub violations: Vec<String>,
}
