//! What was measured, value by value, and the rows that it makes over the rounds.

use std::fmt;

use serde::Serialize;

use crate::peers::Class;

/// What one run gave of one server: values, or why there are none.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    /// The case, as the row calls it.
    pub(super) case: String,
    pub(super) class: Class,
    pub(super) server: String,
    pub(super) values: Vec<(&'static str, f64)>,
    /// Why the values do not count.
    pub(super) invalid: Option<String>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.server)?;
        for (metric, value) in &self.values {
            write!(f, " {metric} {}", shown(*value))?;
        }
        if let Some(why) = &self.invalid {
            write!(f, " INVALID: {why}")?;
        }
        Ok(())
    }
}

/// A value with as many digits as it deserves.
pub(super) fn shown(value: f64) -> String {
    match value.abs() {
        it if it >= 1e6 => format!("{:.2} M", value / 1e6),
        it if it >= 1e4 => format!("{:.1} k", value / 1e3),
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One row of `table.json`. `rounds` counts those that were valid; without any there is no median.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Row {
    pub(super) case: String,
    pub(super) class: &'static str,
    pub(super) server: String,
    pub(super) metric: &'static str,
    pub(super) median: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) rounds: usize,
}

/// A run that does not count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Invalid {
    pub(super) case: String,
    pub(super) server: String,
    pub(super) round: u32,
    pub(super) reason: String,
}

/// All entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<(u32, Entry)>,
}

impl Ledger {
    pub(super) fn add(&mut self, round: u32, entries: impl IntoIterator<Item = Entry>) {
        let entries = entries.into_iter().map(|entry| (round, entry));
        self.entries.extend(entries);
    }

    pub(super) fn rounds(&self) -> u32 {
        let rounds = self.entries.iter().map(|(round, _)| round + 1);
        rounds.max().unwrap_or_default()
    }

    /// A valid value.
    pub(super) fn value(&self, round: u32, case: &str, server: &str, metric: &str) -> Option<f64> {
        let (_, entry) = self.entries.iter().find(|(at, entry)| {
            *at == round && entry.case == case && entry.server == server && entry.invalid.is_none()
        })?;
        let (_, value) = entry.values.iter().find(|(name, _)| *name == metric)?;
        Some(*value)
    }

    /// One row per case, server and metric, in the order in which they were first measured. A run without values is a row all
    /// the same, called `invalid`, so that nothing that was tried is missing.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<(Row, Vec<f64>)> = Vec::new();
        for (_, entry) in &self.entries {
            let mut metrics = entry.values.clone();
            if metrics.is_empty() && !self.has_values(entry) {
                metrics.push(("invalid", f64::NAN));
            }
            for (metric, value) in metrics {
                let at = rows.iter().position(|(row, _)| {
                    row.case == entry.case && row.server == entry.server && row.metric == metric
                });
                let at = at.unwrap_or_else(|| {
                    rows.push((empty_row(entry, metric), Vec::new()));
                    rows.len() - 1
                });
                if entry.invalid.is_none() {
                    rows[at].1.push(value);
                }
            }
        }
        rows.into_iter()
            .map(|(row, values)| Row {
                median: median(&values),
                min: values.iter().copied().reduce(f64::min),
                max: values.iter().copied().reduce(f64::max),
                rounds: values.len(),
                ..row
            })
            .collect()
    }

    fn has_values(&self, of: &Entry) -> bool {
        self.entries.iter().any(|(_, entry)| {
            entry.case == of.case && entry.server == of.server && !entry.values.is_empty()
        })
    }

    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let invalid = |(round, entry): &(u32, Entry)| {
            Some(Invalid {
                case: entry.case.clone(),
                server: entry.server.clone(),
                round: round + 1,
                reason: entry.invalid.clone()?,
            })
        };
        self.entries.iter().filter_map(invalid).collect()
    }
}

fn empty_row(entry: &Entry, metric: &'static str) -> Row {
    Row {
        case: entry.case.clone(),
        class: entry.class.name(),
        server: entry.server.clone(),
        metric,
        median: None,
        min: None,
        max: None,
        rounds: 0,
    }
}

/// The middle value, or the mean of the two middle ones.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

#[cfg(test)]
pub(super) fn entry(case: &str, server: &str, values: &[(&'static str, f64)]) -> Entry {
    Entry {
        case: case.to_owned(),
        class: Class::Fsync,
        server: server.to_owned(),
        values: values.to_vec(),
        invalid: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_median_of_its_valid_rounds() {
        let mut ledger = Ledger::default();
        for (round, value) in [(0, 5.0), (1, 1.0), (2, 3.0)] {
            ledger.add(round, [entry("case", "conch", &[("cpu", value)])]);
        }
        ledger.add(
            3,
            [Entry {
                invalid: Some("2 lost".to_owned()),
                ..entry("case", "conch", &[("cpu", 0.0)])
            }],
        );
        let rows = ledger.rows();
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!(
            (row.median, row.min, row.max, row.rounds),
            (Some(3.0), Some(1.0), Some(5.0), 3)
        );
        assert_eq!(ledger.invalid()[0].reason, "2 lost");
        assert_eq!(ledger.value(3, "case", "conch", "cpu"), None);
    }

    #[test]
    fn what_was_never_valid_is_a_row_without_a_median() {
        let mut ledger = Ledger::default();
        ledger.add(
            0,
            [Entry {
                invalid: Some("does not hold it".to_owned()),
                ..entry("case", "peer", &[])
            }],
        );
        let rows = ledger.rows();
        assert_eq!(
            (rows[0].metric, rows[0].median, rows[0].rounds),
            ("invalid", None, 0)
        );
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_ones() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }
}
