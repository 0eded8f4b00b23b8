//! The table of the sweeps, and their rows in `growth.json`.
//!
//! The rows have the form of the bench's `table.json` (case, class, server, metric, median, min, max, rounds) and `at`, the
//! size. The table has a line per figure: its value at each size, the exponent over all sizes, what one more costs where
//! that means something, and the word. A row whose generator was late is marked, because the latency is then the generator's.

use std::fmt;

use serde::Serialize;

use super::{Figure, Sweep};
use crate::slope::{Verdict, exponent, slope, verdict};

/// Durability of everything that is measured here: on stable storage before the ack.
const CLASS: &str = "fsync";
const SERVER: &str = "conch";
/// The generator's own figures: in the JSON and the footnotes, not in the table.
const GENERATOR: &str = "generator_";
/// Its p99 lag in microseconds.
pub(super) const LAG: &str = "generator_lag_p99_us";

/// A figure at one size.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    pub case: String,
    pub class: &'static str,
    pub server: &'static str,
    pub metric: &'static str,
    pub at: u64,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

/// One figure over all sizes.
#[derive(Clone, PartialEq, Debug)]
pub struct Trend {
    pub metric: &'static str,
    /// (size, median).
    pub points: Vec<(f64, f64)>,
    pub exponent: f64,
    /// Of one more: linear slope.
    pub each: f64,
    pub verdict: Verdict,
}

/// All of it.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(pub &'a [Sweep]);

impl Sweep {
    /// For `growth.json`.
    pub fn rows(&self) -> Vec<Row> {
        let row = |at, figure: &Figure| Row {
            case: format!("growth-{}", self.dimension.name()),
            class: CLASS,
            server: SERVER,
            metric: figure.metric,
            at,
            median: figure.median(),
            min: figure.rounds.iter().copied().fold(f64::INFINITY, f64::min),
            max: figure.rounds.iter().copied().fold(0.0, f64::max),
            rounds: figure.rounds.len(),
        };
        self.points
            .iter()
            .flat_map(|point| {
                point
                    .figures
                    .iter()
                    .map(move |figure| row(point.at, figure))
            })
            .collect()
    }

    /// The figures of the node, each over all sizes.
    pub fn trends(&self) -> Vec<Trend> {
        let Some(first) = self.points.first() else {
            return Vec::new();
        };
        let names = first.figures.iter().map(|figure| figure.metric);
        names
            .filter(|metric| !metric.starts_with(GENERATOR))
            .map(|metric| {
                let points = self.medians(metric);
                Trend {
                    metric,
                    exponent: exponent(&points),
                    each: slope(&points),
                    verdict: verdict(&points),
                    points,
                }
            })
            .collect()
    }

    /// Sizes at which the generator was so late that latencies are not the node's.
    pub fn late(&self) -> Vec<u64> {
        let late = self.medians(LAG).into_iter();
        let acks = self.medians("ack_p50_us");
        late.zip(acks)
            .filter(|((_, lag), (_, ack))| lag > &ack.max(1_000.0))
            .map(|((at, _), _)| at as u64)
            .collect()
    }

    fn medians(&self, metric: &str) -> Vec<(f64, f64)> {
        self.points
            .iter()
            .filter_map(|point| {
                let figure = point.figures.iter().find(|it| it.metric == metric)?;
                Some((point.at as f64, figure.median()))
            })
            .collect()
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sweep in self.0 {
            let sizes: Vec<_> = sweep
                .points
                .iter()
                .map(|point| point.at.to_string())
                .collect();
            let name = sweep.dimension.name();
            writeln!(
                f,
                "| {name} | {} | exponent | of one more | |",
                sizes.join(" | ")
            )?;
            writeln!(f, "|---|{}---|---|---|", "---|".repeat(sizes.len()))?;
            for trend in sweep.trends() {
                let values: Vec<_> = trend.points.iter().map(|(_, y)| short(*y)).collect();
                writeln!(
                    f,
                    "| {} | {} | {:+.2} | {} | {} |",
                    trend.metric,
                    values.join(" | "),
                    trend.exponent,
                    short(trend.each),
                    trend.verdict,
                )?;
            }
            let late = sweep.late();
            if !late.is_empty() {
                writeln!(
                    f,
                    "(at {late:?} the generator was late: ack figures are not the node's)"
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits that say something.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.01 {
        format!("{value:.2}")
    } else {
        format!("{value:.1e}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;
    use crate::growth::{Dimension, Point};

    fn sweep(lag: f64) -> Sweep {
        let point = |(at, ack): (usize, f64)| {
            let mut point = Point::new(at);
            for noise in [0.9, 1.0, 1.1] {
                point.add("ack_p50_us", ack * noise);
                point.add("cpu_us_per_message", 200.0 * noise);
                point.add(LAG, lag);
            }
            point
        };
        let points = [(10, 100.0), (100, 200.0), (1_000, 400.0)].map(point);
        Sweep {
            dimension: Dimension::Members,
            points: points.to_vec(),
        }
    }

    #[test]
    fn rows_have_the_form_of_the_table_and_the_size() {
        let rows = sweep(50.0).rows();
        assert_eq!(rows.len(), 9);
        let json = serde_json::to_value(&rows[0]).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "case": "growth-members", "class": "fsync", "server": "conch", "metric": "ack_p50_us", "at": 10,
                "median": 100.0, "min": 90.0, "max": json["max"], "rounds": 3,
            })
        );
        assert!((rows[0].max - 110.0).abs() < 1e-9);
    }

    #[test]
    fn the_table_says_what_grows_and_what_is_flat() {
        let sweep = sweep(50.0);
        let [ack, cpu] = &sweep.trends()[..] else {
            panic!("two figures of the node");
        };
        assert_eq!((ack.verdict, cpu.verdict), (Verdict::Grows, Verdict::Flat));
        assert!((ack.exponent - 0.301).abs() < 0.001);
        let text = Table(&[sweep]).to_string();
        assert!(text.contains("| members | 10 | 100 | 1000 |"), "{text}");
        assert!(
            text.contains("| ack_p50_us | 100 | 200 | 400 | +0.30 |"),
            "{text}"
        );
        assert!(!text.contains("generator"), "{text}");
    }

    #[test]
    fn a_late_generator_is_told() {
        assert!(sweep(50.0).late().is_empty());
        assert_eq!(sweep(5_000.0).late(), [10, 100, 1_000]);
        assert!(Table(&[sweep(5_000.0)]).to_string().contains("was late"));
    }
}
