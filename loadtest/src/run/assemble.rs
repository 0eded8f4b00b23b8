//! Puts the report of a run together from all that was played and judged.

use std::collections::BTreeMap;

use super::conduct::RunPlan;
use super::machine;
use super::round::Round;
use super::server::{Server, Target};
use super::wire::Judged;
use crate::report::{
    Ended, Environment, FORMAT, Figures, Generator, Percentiles, Report, SearchFound,
    ServerFigures, WorkerFigures,
};

/// Everything that a run came to.
pub(super) struct Outcome<'a> {
    pub(super) plan: &'a RunPlan,
    pub(super) started_at: String,
    /// The names of the run's people begin with it.
    pub(super) prefix: &'a str,
    pub(super) server: &'a Server,
    /// Devices of each worker.
    pub(super) workers: &'a [usize],
    pub(super) ended: Ended,
    pub(super) round: Round,
    pub(super) search: Option<SearchFound>,
    /// By worker.
    pub(super) judged: &'a BTreeMap<usize, Judged>,
}

impl Outcome<'_> {
    pub(super) fn report(&self) -> Report {
        let scenario = &self.plan.scenario;
        let (latencies, counts) = self.round.sum();
        let measured_us = self.round.phases.values().map(|it| it.measured_us).max();
        let measured_s = measured_us.unwrap_or(0) as f64 / 1e6;
        let each = |count: u64| count as f64 / measured_s.max(1e-6);
        let server = self.round.server.map(|(cpu, rss_bytes_max)| {
            let us = cpu.as_micros() as f64;
            let per = |count: u64| (count > 0).then(|| us / count as f64);
            ServerFigures {
                cpu_s: cpu.as_secs_f64(),
                cores: cpu.as_secs_f64() / measured_s.max(1e-6),
                cpu_us_per_message: per(counts.acked),
                cpu_us_per_delivery: per(counts.delivered),
                rss_bytes_max,
            }
        });
        let bytes = (counts.bytes_in + counts.bytes_out) as f64;
        let mut errors = BTreeMap::new();
        for phase in self.round.phases.values() {
            for (what, times) in &phase.errors {
                *errors.entry(what.clone()).or_default() += times;
            }
        }
        Report {
            format: FORMAT,
            name: self.plan.name.clone(),
            started_at: self.started_at.clone(),
            scenario: self.plan.scenario.clone(),
            environment: self.environment(),
            ended: self.ended.clone(),
            invalid: self.round.invalid(scenario),
            figures: Figures {
                measured_s,
                counts,
                sent_per_s: each(counts.sent),
                acked_per_s: each(counts.acked),
                delivered_per_s: each(counts.delivered),
                ack: Percentiles::from(&latencies.ack_us),
                delivery: Percentiles::from(&latencies.delivery_us),
                page: Percentiles::from(&latencies.page_us),
                connect: Percentiles::from(&latencies.connect_us),
                catch_up: Percentiles::from(&latencies.catch_up_us),
                frame_bytes_per_delivery: (counts.delivered > 0)
                    .then(|| bytes / counts.delivered as f64),
                server,
            },
            errors,
            generator: Generator {
                lag: Percentiles::from(&latencies.lag_us),
                workers: self.worker_figures(),
            },
            verdict: scenario.check.then(|| self.verdict()),
            search: self.search.clone(),
            series: self.round.rows.clone(),
            latencies,
        }
    }

    fn worker_figures(&self) -> Vec<WorkerFigures> {
        let of = |(worker, devices): (usize, &usize)| WorkerFigures {
            devices: *devices,
            cpu_share: self.round.phases.get(&worker).map_or(0.0, |phase| {
                phase.cpu_us as f64 / phase.measured_us.max(1) as f64
            }),
        };
        self.workers.iter().enumerate().map(of).collect()
    }

    fn environment(&self) -> Environment {
        let (node, left_behind) = match &self.plan.target {
            Target::Spawn { .. } => ("a node started for this run".to_owned(), None),
            Target::Url { url, .. } => {
                let (prefix, people) = (self.prefix, self.plan.scenario.population.people);
                let left = format!(
                    "{people} accounts {prefix}0 to {prefix}{}, their channels and messages stay on the node",
                    people - 1
                );
                (url.clone(), Some(left))
            }
        };
        Environment {
            cores: machine::cores(),
            processor: machine::processor(),
            memory_bytes: machine::memory_bytes(),
            kernel: machine::kernel(),
            load_version: env!("CARGO_PKG_VERSION").to_owned(),
            node_version: self.server.version.clone(),
            node,
            node_configuration: self.server.configuration.clone(),
            left_behind,
        }
    }

    /// The verdicts of all workers in one.
    fn verdict(&self) -> Judged {
        let mut all = Judged {
            is_whole: self.judged.len() == self.workers.len(),
            ..Judged::default()
        };
        for judged in self.judged.values() {
            all.is_whole &= judged.is_whole;
            all.messages += judged.messages;
            all.acked_messages += judged.acked_messages;
            all.attempts += judged.attempts;
            all.refusals += judged.refusals;
            all.unknown_outcomes += judged.unknown_outcomes;
            all.shown += judged.shown;
            all.history_events += judged.history_events;
            all.full_reads += judged.full_reads;
            all.channels += judged.channels;
            all.devices += judged.devices;
            all.violations_total += judged.violations_total;
            all.violations.extend(judged.violations.iter().cloned());
        }
        all
    }
}
