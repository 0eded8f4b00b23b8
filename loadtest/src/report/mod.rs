//! What a load run comes to, in all forms: the JSON file with everything, the summary, the page with plots, and the
//! comparison of two.
//!
//! The model is here. `figures` is what is derived and compared; the histograms and the series beside it are what it was
//! derived from, so that nobody has to believe a percentile.

mod compare;
mod html;
mod plot;
mod summary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

pub use compare::{Comparison, compare};
pub use html::page;

use crate::run::{Judged, Latencies, PhaseCounts, PhaseLatencies};
use crate::scenario::Scenario;

/// Format of the JSON file; another one is refused.
pub const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    /// The scenario's name.
    pub name: String,
    /// RFC 3339.
    pub started_at: String,
    pub scenario: Scenario,
    pub environment: Environment,
    pub ended: Ended,
    /// Why the figures do not speak of the node; empty: they do.
    pub invalid: Vec<String>,
    pub figures: Figures,
    pub errors: BTreeMap<String, u64>,
    pub generator: Generator,
    /// `None`: nothing was checked.
    pub verdict: Option<Judged>,
    pub search: Option<SearchFound>,
    pub series: Vec<Row>,
    pub latencies: PhaseLatencies,
}

/// Where it ran.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    pub cores: usize,
    pub processor: String,
    pub memory_bytes: u64,
    pub kernel: String,
    /// Of this program.
    pub load_version: String,
    pub node_version: String,
    /// `started for this run`, or the address.
    pub node: String,
    /// What a node that was started for the run was configured with.
    pub node_configuration: Option<String>,
    /// What a run leaves on a node that was there.
    pub left_behind: Option<String>,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "how", content = "why", rename_all = "snake_case")]
pub enum Ended {
    Complete,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The node died, refused everybody or could not be reached any more.
    ServerFailed(String),
    /// A worker died or spoke nonsense, or did not answer.
    WorkerFailed(String),
}

/// What is compared and quoted. Per message and per delivery; over the measured time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    pub measured_s: f64,
    pub counts: PhaseCounts,
    pub sent_per_s: f64,
    pub acked_per_s: f64,
    pub delivered_per_s: f64,
    pub ack: Percentiles,
    pub delivery: Percentiles,
    pub page: Percentiles,
    pub connect: Percentiles,
    pub catch_up: Percentiles,
    /// Bytes of frames that came and left, per delivery; without what carries them.
    pub frame_bytes_per_delivery: Option<f64>,
    /// `None`: the node's process is not known.
    pub server: Option<ServerFigures>,
}

/// Of the node's process, from /proc.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ServerFigures {
    pub cpu_s: f64,
    /// Cores in use, on average.
    pub cores: f64,
    pub cpu_us_per_message: Option<f64>,
    pub cpu_us_per_delivery: Option<f64>,
    pub rss_bytes_max: u64,
}

/// Of a distribution, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

impl From<&Latencies> for Percentiles {
    fn from(of: &Latencies) -> Percentiles {
        Percentiles {
            count: of.count(),
            p50_us: of.at_us(0.5),
            p90_us: of.at_us(0.9),
            p99_us: of.at_us(0.99),
            p999_us: of.at_us(0.999),
            max_us: of.max_us(),
        }
    }
}

/// Of the generator itself.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    pub lag: Percentiles,
    pub workers: Vec<WorkerFigures>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerFigures {
    pub devices: usize,
    /// Of one core, 0 to 1: a worker has one thread.
    pub cpu_share: f64,
}

/// One second of the run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// Seconds from the beginning of what is measured; negative: the warm-up.
    pub at_s: f64,
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    pub errors: u64,
    pub connected: usize,
    /// `None`: nothing came.
    pub ack_p50_us: Option<u64>,
    pub ack_p99_us: Option<u64>,
    pub delivery_p50_us: Option<u64>,
    pub delivery_p99_us: Option<u64>,
    pub lag_p99_us: Option<u64>,
    /// Cores that the node used, and its memory.
    pub server_cores: Option<f64>,
    pub server_rss_bytes: Option<u64>,
    /// Cores that the generator used.
    pub generator_cores: f64,
}

/// What a search came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SearchFound {
    /// Messages per second; `None`: not even the lowest held.
    pub rate: Option<f64>,
    pub probes: Vec<Probe>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Probe {
    pub rate: f64,
    pub p99_us: u64,
    /// Why it did not hold; empty: it did.
    pub broke: Vec<String>,
}

/// In one word, for the exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Good,
    /// The promise was broken, or the run could not be played to its end.
    Broken,
    /// The figures are the generator's, not the node's.
    Invalid,
    Interrupted,
}

impl Report {
    pub fn outcome(&self) -> Outcome {
        let is_broken = self
            .verdict
            .as_ref()
            .is_some_and(|it| it.violations_total > 0);
        let failed = matches!(self.ended, Ended::ServerFailed(_) | Ended::WorkerFailed(_));
        let lacks = self.figures.counts.unanswered + self.figures.counts.missing > 0;
        if is_broken || failed || (lacks && self.ended == Ended::Complete) {
            Outcome::Broken
        } else if self.ended == Ended::Interrupted {
            Outcome::Interrupted
        } else if !self.invalid.is_empty() {
            Outcome::Invalid
        } else {
            Outcome::Good
        }
    }

    /// Reads a report's JSON file.
    pub fn read(path: &Path) -> Result<Report> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let value: serde_json::Value =
            serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))?;
        let format = value["format"].as_u64();
        ensure!(
            format == Some(FORMAT.into()),
            "{}: not a report of this format (format {FORMAT}; a file that `conch-load run` wrote)",
            path.display()
        );
        serde_json::from_value(value)
            .with_context(|| format!("{}: not a whole report", path.display()))
    }

    /// Writes the JSON file and the page beside it; gives their paths.
    pub fn write(&self, folder: &Path) -> Result<(PathBuf, PathBuf)> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let json = folder.join(format!("{}.json", self.name));
        let html = folder.join(format!("{}.html", self.name));
        let text = serde_json::to_string_pretty(self).context("write the report")?;
        std::fs::write(&json, text).with_context(|| format!("write {}", json.display()))?;
        std::fs::write(&html, page(self)).with_context(|| format!("write {}", html.display()))?;
        Ok((json, html))
    }
}

/// 950 µs, 1.25 ms, 3.1 s: three digits and a unit.
pub fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.2} s", us as f64 / 1e6),
        _ => format!("{:.0} s", us as f64 / 1e6),
    }
}

/// 12,345: a count with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 0.8, 12, 1,234: a rate as short as it may be.
pub(crate) fn rate(number: f64) -> String {
    if number < 10.0 {
        format!("{number:.1}")
    } else {
        count(number.round() as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests;
