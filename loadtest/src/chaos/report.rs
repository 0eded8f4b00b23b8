//! What a kill proof comes to, in one line.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::checker::Verdict;
use crate::device::state::Tally;

/// The outcome of a run.
#[derive(Debug)]
pub struct ChaosReport {
    pub seed: u64,
    /// Kills by where they happened: a failpoint, `random`, or `starting`.
    pub killed_at: BTreeMap<&'static str, u64>,
    /// Time from spawn to ready of every completed start.
    pub starts: Vec<Duration>,
    /// Sum over all devices.
    pub tally: Tally,
    /// Events that applications on the SDK were shown.
    pub shown_by_sdk: u64,
    /// Messages that the SDK gave up, and events that it said it cannot have.
    pub sdk_failures: u64,
    pub took: Duration,
    /// `None` until judged.
    pub verdict: Option<Verdict>,
}

impl ChaosReport {
    pub(super) fn new(seed: u64) -> ChaosReport {
        ChaosReport {
            seed,
            killed_at: BTreeMap::new(),
            starts: Vec::new(),
            tally: Tally::default(),
            shown_by_sdk: 0,
            sdk_failures: 0,
            took: Duration::ZERO,
            verdict: None,
        }
    }

    pub(super) fn killed(&mut self, at: &'static str) {
        *self.killed_at.entry(at).or_default() += 1;
    }

    pub(super) fn started(&mut self, took: Duration) {
        self.starts.push(took);
    }

    pub(super) fn count(&mut self, tally: Tally) {
        self.tally.unsettled += tally.unsettled;
        self.tally.connections += tally.connections;
        self.tally.dropped += tally.dropped;
        self.tally.resolved_by_welcome += tally.resolved_by_welcome;
        self.tally.hints_lost += tally.hints_lost;
        self.tally.pages += tally.pages;
        self.tally.resyncs += tally.resyncs;
    }

    pub(super) fn count_app(&mut self, shown: u64, failures: u64) {
        self.shown_by_sdk += shown;
        self.sdk_failures += failures;
    }

    /// Kills so far.
    pub fn kills(&self) -> u64 {
        self.killed_at.values().sum()
    }

    /// Whether the promise held and no message was given up.
    pub fn is_clean(&self) -> bool {
        let given_up = self.tally.dropped + self.tally.resyncs + self.sdk_failures;
        given_up == 0 && self.verdict.as_ref().is_some_and(Verdict::is_clean)
    }
}

impl fmt::Display for ChaosReport {
    /// The verdict line (and, if the promise was broken, how).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.starts.iter().max().copied().unwrap_or_default();
        let at: Vec<_> = self
            .killed_at
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        write!(
            f,
            "chaos seed {}: {} kills ({}) in {:.0?}, slowest start {slowest:.0?}, {} connections, {} settled by WELCOME, \
             {} pages, {} hints lost, {} shown by the SDK, {} given up; ",
            self.seed,
            self.kills(),
            at.join(", "),
            self.took,
            self.tally.connections,
            self.tally.resolved_by_welcome,
            self.tally.pages,
            self.tally.hints_lost,
            self.shown_by_sdk,
            self.tally.dropped + self.tally.resyncs + self.sdk_failures,
        )?;
        match &self.verdict {
            Some(verdict) => verdict.fmt(f),
            None => f.write_str("not judged"),
        }
    }
}
