//! The files of a comparison: `table.json`, one object per case, server and metric; `run.json`, what it was run on and what did
//! not count; and the table that is printed.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::goals::{self, Comparison};
use super::header::Header;
use super::ledger::{Ledger, Row, shown};

/// Writes both files into `folder`.
pub(super) fn write(folder: &Path, header: &Header, ledger: &Ledger) -> Result<()> {
    let put = |name: &str, value: &serde_json::Value| {
        let path = folder.join(name);
        let text = serde_json::to_string_pretty(value)?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))
    };
    put("table.json", &serde_json::to_value(ledger.rows())?)?;
    let comparisons: Vec<Comparison> = goals::ALL
        .iter()
        .flat_map(|goal| goal.compare(ledger))
        .collect();
    let run = json!({
        "header": header,
        "invalid": ledger.invalid(),
        "goals": comparisons,
    });
    put("run.json", &run)
}

/// The rows as they are printed: one line per case and server.
pub(super) fn text(ledger: &Ledger) -> String {
    let mut text = String::new();
    let mut last: Option<(String, String)> = None;
    for row in ledger.rows() {
        let of = (row.case.clone(), row.server.clone());
        if last.as_ref() != Some(&of) {
            let (case, server, class) = (&row.case, &row.server, row.class);
            write!(text, "\n{case:<22} {server:<17} {class:<10}")
                .expect("a String takes every write");
            last = Some(of);
        }
        write!(text, " {} {};", row.metric, spread(&row)).expect("a String takes every write");
    }
    for invalid in ledger.invalid() {
        let (case, server, round) = (invalid.case, invalid.server, invalid.round);
        write!(
            text,
            "\ninvalid: {case} {server} round {round}: {}",
            invalid.reason
        )
        .expect("a String takes every write");
    }
    text.trim_start().to_owned()
}

/// Median and range.
pub(super) fn spread(row: &Row) -> String {
    match (row.median, row.min, row.max) {
        (Some(median), Some(min), Some(max)) if row.rounds > 1 => {
            format!("{} ({}–{})", shown(median), shown(min), shown(max))
        }
        (Some(median), ..) => shown(median),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::super::ledger::entry;
    use super::*;

    #[test]
    fn the_table_is_one_object_per_case_server_and_metric() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        for round in 0..2 {
            let values = [("cpu_us_per_delivery", 1.5), ("messages_per_s", 10.0)];
            ledger.add(round, [entry("pairs-saturated", "conch", &values)]);
        }
        write(folder.path(), &Header::default(), &ledger).unwrap();
        let table = fs::read_to_string(folder.path().join("table.json")).unwrap();
        let table: serde_json::Value = serde_json::from_str(&table).unwrap();
        let rows = table.as_array().unwrap();
        assert_eq!(rows.len(), 2);
        let mut keys: Vec<_> = rows[0].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        let expected = [
            "case", "class", "max", "median", "metric", "min", "rounds", "server",
        ];
        assert_eq!(keys, expected);
        assert_eq!(rows[0]["class"], "fsync");
        assert_eq!(rows[0]["rounds"], 2);
        let run = fs::read_to_string(folder.path().join("run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_str(&run).unwrap();
        assert!(run["header"]["commit"].is_string());
    }
}
