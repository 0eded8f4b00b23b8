//! The goals of performance work, as ratios of one run: taken within each round, then the median over the rounds.

mod list;

use serde::Serialize;

use super::Case;
use super::ledger::{Ledger, median};
pub(super) use list::ALL;

use crate::peers::Peer;

/// Which side of the target is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Aim {
    AtMost,
    AtLeast,
}

/// One figure that a goal asks for.
struct Figure {
    what: &'static str,
    aim: Aim,
    /// None: shown beside the others, without a target.
    target: Option<f64>,
    stretch: Option<f64>,
    of_round: fn(&Round<'_>) -> Option<f64>,
}

/// A row of goals: `number` is that of the section in the document.
pub(super) struct Goal {
    pub(super) number: u8,
    figures: &'static [Figure],
}

/// A figure as it came out.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) goal: u8,
    pub(super) what: &'static str,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) rounds: usize,
    /// With its sign, as it is shown.
    pub(super) target: Option<String>,
    pub(super) stretch: Option<String>,
    pub(super) is_met: Option<bool>,
}

/// One round's values.
struct Round<'a> {
    ledger: &'a Ledger,
    round: u32,
}

impl Round<'_> {
    fn get(&self, case: &str, server: &str, metric: &str) -> Option<f64> {
        self.ledger.value(self.round, case, server, metric)
    }

    fn conch(&self, case: Case, metric: &str) -> Option<f64> {
        self.get(case.name(), Peer::Conch.name(), metric)
    }

    /// Conch's value over the same of another server.
    fn ratio(&self, case: Case, other: Peer, metric: &str) -> Option<f64> {
        Some(self.conch(case, metric)? / self.get(case.name(), other.name(), metric)?)
    }

    /// Of two cases of Conch's own.
    fn between(&self, case: &str, other: &str, metric: &str) -> Option<f64> {
        let conch = Peer::Conch.name();
        Some(self.get(case, conch, metric)? / self.get(other, conch, metric)?)
    }
}

impl Goal {
    /// Its figures, as far as the ledger has what they are made of.
    pub(super) fn compare(&self, ledger: &Ledger) -> Vec<Comparison> {
        let figures = self.figures.iter();
        figures
            .filter_map(|it| self.compare_one(it, ledger))
            .collect()
    }

    fn compare_one(&self, figure: &Figure, ledger: &Ledger) -> Option<Comparison> {
        let rounds = (0..ledger.rounds()).map(|round| Round { ledger, round });
        let values: Vec<f64> = rounds
            .filter_map(|round| (figure.of_round)(&round))
            .collect();
        let middle = median(&values)?;
        let (sign, is_met): (_, fn(f64, f64) -> bool) = match figure.aim {
            Aim::AtMost => ("≤", |value, bound| value <= bound),
            Aim::AtLeast => ("≥", |value, bound| value >= bound),
        };
        let bound = |it: Option<f64>| it.map(|it| format!("{sign} {}", bound_text(it)));
        Some(Comparison {
            goal: self.number,
            what: figure.what,
            median: middle,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            rounds: values.len(),
            target: bound(figure.target),
            stretch: bound(figure.stretch),
            is_met: figure.target.map(|target| is_met(middle, target)),
        })
    }
}

fn bound_text(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::super::ledger::entry;
    use super::*;

    const CPU: &str = "cpu_us_per_delivery";

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let mut ledger = Ledger::default();
        for (round, conch, nats) in [(0, 2.0, 1.0), (1, 30.0, 10.0), (2, 5.0, 5.0)] {
            let case = Case::PairsSaturated.name();
            ledger.add(
                round,
                [
                    entry(case, "conch", &[(CPU, conch)]),
                    entry(case, "nats", &[(CPU, nats)]),
                ],
            );
        }
        let compared = ALL[0].compare(&ledger);
        let nats = compared.iter().find(|it| it.what.contains("NATS")).unwrap();
        assert!((nats.median - 2.0).abs() < 1e-9);
        assert_eq!((nats.rounds, nats.is_met), (3, Some(true)));
        assert_eq!(nats.target.as_deref(), Some("≤ 3"));
        assert!(!compared.iter().any(|it| it.what.contains("Mosquitto")));
    }

    #[test]
    fn goals_are_numbered_once_and_ascending() {
        assert!(ALL.windows(2).all(|two| two[0].number < two[1].number));
    }
}
