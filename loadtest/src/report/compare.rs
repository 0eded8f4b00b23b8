//! Two reports beside each other, with thresholds: what got worse by too much fails.
//!
//! CPU, memory and wire bytes may grow by 10 %, p99 by 25 %, rates may fall by 10 %. What one report lacks the other must
//! lack too. Reports whose scenarios differ, or whose figures are the generator's, are not compared.

use std::fmt;

use anyhow::{Result, bail, ensure};

use super::{Ended, Figures, Report, duration, rate};

const COST_GROWS_MAX: f64 = 0.10;
const P99_GROWS_MAX: f64 = 0.25;
const RATE_FALLS_MAX: f64 = 0.10;
/// Latencies this near are the clock's and the scheduler's noise, in microseconds.
const NOISE_US: f64 = 200.0;

/// A metric of both.
#[derive(Clone, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub before: f64,
    pub after: f64,
    /// Growth allowed, as a share; negative: fall allowed.
    pub threshold: f64,
    /// Differences below it are none.
    noise: f64,
    shown: fn(f64) -> String,
}

impl Metric {
    /// Change as a share of what was.
    pub fn change(&self) -> f64 {
        if self.before == 0.0 {
            return if self.after == 0.0 {
                0.0
            } else {
                f64::INFINITY
            };
        }
        self.after / self.before - 1.0
    }

    pub fn passes(&self) -> bool {
        if (self.after - self.before).abs() <= self.noise {
            return true;
        }
        if self.threshold < 0.0 {
            self.change() >= self.threshold
        } else {
            self.change() <= self.threshold
        }
    }
}

/// The table of two reports.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub metrics: Vec<Metric>,
    /// What is said besides and fails nothing.
    pub notes: Vec<String>,
}

impl Comparison {
    pub fn passes(&self) -> bool {
        self.metrics.iter().all(Metric::passes)
    }
}

/// Compares `after` with `before`; an error when they cannot be compared.
pub fn compare(before: &Report, after: &Report) -> Result<Comparison> {
    for (which, report) in [("the first", before), ("the second", after)] {
        ensure!(
            report.ended == Ended::Complete,
            "{which} report is of a run that did not come to its end ({})",
            report.verdict_line().lines().next().unwrap_or_default()
        );
        if let Some(reason) = report.invalid.first() {
            bail!("{which} report's figures are invalid: {reason}");
        }
        let violations = report.verdict.as_ref().map_or(0, |it| it.violations_total);
        ensure!(
            violations == 0,
            "{which} report's promise was broken: {violations} violations"
        );
    }
    ensure!(
        before.scenario == after.scenario,
        "the reports are of different scenarios (\"{}\", \"{}\"), or of one that was changed between them",
        before.name,
        after.name
    );
    let metrics = metrics(&before.figures, &after.figures)?;
    let mut notes = Vec::new();
    if before.environment.cores != after.environment.cores
        || before.environment.kernel != after.environment.kernel
        || before.environment.processor != after.environment.processor
    {
        notes.push("the machines differ".to_owned());
    }
    if before.environment.node_configuration != after.environment.node_configuration {
        notes.push("the nodes were configured differently".to_owned());
    }
    Ok(Comparison { metrics, notes })
}

fn metrics(before: &Figures, after: &Figures) -> Result<Vec<Metric>> {
    let mut metrics = Vec::new();
    let mut add = |name,
                   before: Option<f64>,
                   after: Option<f64>,
                   threshold,
                   noise,
                   shown: fn(f64) -> String| {
        match (before, after) {
            (None, None) => Ok(()),
            (Some(before), Some(after)) => {
                metrics.push(Metric {
                    name,
                    before,
                    after,
                    threshold,
                    noise,
                    shown,
                });
                Ok(())
            }
            _ => bail!("only one of the reports has {name}"),
        }
    };
    let some = |of: f64| (of > 0.0).then_some(of);
    let p99 = |of: &super::Percentiles| (of.count > 0).then_some(of.p99_us as f64);
    let server = |of: &Figures, what: fn(&super::ServerFigures) -> Option<f64>| {
        of.server.as_ref().and_then(what)
    };
    add(
        "acked per second",
        some(before.acked_per_s),
        some(after.acked_per_s),
        -RATE_FALLS_MAX,
        0.0,
        per_second,
    )?;
    add(
        "delivered per second",
        some(before.delivered_per_s),
        some(after.delivered_per_s),
        -RATE_FALLS_MAX,
        0.0,
        per_second,
    )?;
    add(
        "ack p99",
        p99(&before.ack),
        p99(&after.ack),
        P99_GROWS_MAX,
        NOISE_US,
        latency,
    )?;
    add(
        "delivery p99",
        p99(&before.delivery),
        p99(&after.delivery),
        P99_GROWS_MAX,
        NOISE_US,
        latency,
    )?;
    add(
        "page p99",
        p99(&before.page),
        p99(&after.page),
        P99_GROWS_MAX,
        NOISE_US,
        latency,
    )?;
    add(
        "reconnect p99",
        p99(&before.connect),
        p99(&after.connect),
        P99_GROWS_MAX,
        NOISE_US,
        latency,
    )?;
    add(
        "catch-up p99",
        p99(&before.catch_up),
        p99(&after.catch_up),
        P99_GROWS_MAX,
        NOISE_US,
        latency,
    )?;
    add(
        "node CPU per message",
        server(before, |it| it.cpu_us_per_message),
        server(after, |it| it.cpu_us_per_message),
        COST_GROWS_MAX,
        0.0,
        cpu,
    )?;
    add(
        "node CPU per delivery",
        server(before, |it| it.cpu_us_per_delivery),
        server(after, |it| it.cpu_us_per_delivery),
        COST_GROWS_MAX,
        0.0,
        cpu,
    )?;
    add(
        "node memory",
        server(before, |it| Some(it.rss_bytes_max as f64)),
        server(after, |it| Some(it.rss_bytes_max as f64)),
        COST_GROWS_MAX,
        0.0,
        memory,
    )?;
    add(
        "frame bytes per delivery",
        before.frame_bytes_per_delivery,
        after.frame_bytes_per_delivery,
        COST_GROWS_MAX,
        0.0,
        bytes,
    )?;
    Ok(metrics)
}

fn per_second(of: f64) -> String {
    format!("{}/s", rate(of))
}

fn latency(of: f64) -> String {
    duration(of as u64)
}

fn cpu(of: f64) -> String {
    format!("{of:.1} µs")
}

fn memory(of: f64) -> String {
    format!("{:.1} MiB", of / f64::from(1 << 20))
}

fn bytes(of: f64) -> String {
    format!("{of:.1}")
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26}{:>14}{:>14}{:>10}{:>10}",
            "metric", "before", "after", "change", "allowed"
        )?;
        for metric in &self.metrics {
            writeln!(
                f,
                "{:<26}{:>14}{:>14}{:>+9.1}%{:>+9.0}%  {}",
                metric.name,
                (metric.shown)(metric.before),
                (metric.shown)(metric.after),
                metric.change() * 100.0,
                metric.threshold * 100.0,
                if metric.passes() { "pass" } else { "FAIL" },
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let failed = self.metrics.iter().filter(|it| !it.passes()).count();
        if failed == 0 {
            write!(f, "pass: all of {}", self.metrics.len())
        } else {
            write!(f, "FAIL: {failed} of {}", self.metrics.len())
        }
    }
}
