//! What a round of all workers came to, and whether its figures speak of the node.

use std::collections::BTreeMap;
use std::time::Duration;

use super::wire::{Phase, PhaseCounts, PhaseLatencies};
use crate::report::{Row, duration};
use crate::scenario::Scenario;

/// A generator that is later than this, and than half of what it measures, measures itself.
const LAG_US: u64 = 1_000;
/// A worker that uses more of its core is too slow for an open loop.
const WORKER_CPU_MAX: f64 = 0.9;
/// An open loop that leaves out more than this share did not play what was asked.
const LEFT_OUT_MAX: f64 = 0.01;

/// One round.
#[derive(Default)]
pub(super) struct Round {
    /// By worker.
    pub(super) phases: BTreeMap<usize, Phase>,
    pub(super) rows: Vec<Row>,
    /// CPU time of the node in the measured time, and its memory at most.
    pub(super) server: Option<(Duration, u64)>,
}

impl Round {
    /// All workers' figures in one.
    pub(super) fn sum(&self) -> (PhaseLatencies, PhaseCounts) {
        let mut latencies = PhaseLatencies::default();
        let mut counts = PhaseCounts::default();
        for phase in self.phases.values() {
            latencies.merge(&phase.latencies);
            counts.add(&phase.counts);
        }
        (latencies, counts)
    }

    /// Why a round's figures do not speak of the node.
    pub(super) fn invalid(&self, scenario: &Scenario) -> Vec<String> {
        let mut reasons = Vec::new();
        if !scenario.is_open_loop() {
            return reasons;
        }
        let (latencies, counts) = self.sum();
        let lag = latencies.lag_us.at_us(0.99);
        let measured = [&latencies.ack_us, &latencies.delivery_us];
        let measured = measured
            .iter()
            .filter_map(|it| it.at(0.99))
            .min()
            .unwrap_or(0);
        if lag > LAG_US.max(measured / 2) {
            reasons.push(format!(
                "the generator was late: lag p99 {}, of a measured p99 of {}",
                duration(lag),
                duration(measured)
            ));
        }
        for (worker, phase) in &self.phases {
            let share = phase.cpu_us as f64 / phase.measured_us.max(1) as f64;
            if share > WORKER_CPU_MAX {
                reasons.push(format!(
                    "worker {worker} used {:.0} % of its core: more workers (--workers) or a lower rate",
                    share * 100.0
                ));
            }
        }
        let left_out = counts.dropped + counts.nobody_there;
        if left_out as f64 > LEFT_OUT_MAX * (counts.sent + left_out) as f64 {
            reasons.push(format!(
                "{left_out} arrivals were left out: too much was waiting, or nobody was there to write"
            ));
        }
        reasons
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;
    use crate::scenario::SHIPPED;

    /// A round of one worker, over ten seconds.
    fn round(lag_us: u64, ack_us: u64, cpu_s: u64, left_out: u64) -> Round {
        let mut phase = Phase {
            cpu_us: cpu_s * 1_000_000,
            measured_us: 10_000_000,
            ..Phase::default()
        };
        phase.counts.sent = 1_000;
        phase.counts.nobody_there = left_out;
        phase.latencies.lag_us.record(lag_us);
        phase.latencies.ack_us.record(ack_us);
        phase.latencies.delivery_us.record(2 * ack_us);
        Round {
            phases: BTreeMap::from([(0, phase)]),
            ..Round::default()
        }
    }

    fn scenario(name: &str) -> Scenario {
        let shipped = SHIPPED.iter().find(|(known, _)| *known == name);
        Scenario::parse(name, shipped.unwrap().1).unwrap()
    }

    #[test]
    fn figures_of_a_generator_that_was_late_or_overloaded_are_invalid() {
        let open = scenario("direct");
        for (round, word) in [
            (round(300, 400, 5, 0), None),
            (round(2_000, 10_000, 5, 0), None),
            (round(1_500, 2_000, 5, 0), Some("late")),
            (round(100, 2_000, 10, 0), Some("100 % of its core")),
            (round(100, 2_000, 5, 50), Some("left out")),
        ] {
            let reasons = round.invalid(&open);
            assert_eq!(reasons.len(), usize::from(word.is_some()), "{reasons:?}");
            assert!(
                word.is_none_or(|word| reasons[0].contains(word)),
                "{reasons:?}"
            );
        }
        // A closed loop has no moment at which something was due, and may use all it can.
        let closed = scenario("hot-channel");
        assert!(round(5_000, 100, 10, 0).invalid(&closed).is_empty());
    }
}
