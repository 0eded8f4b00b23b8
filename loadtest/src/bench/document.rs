//! The generated parts of a document: what stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`. All else is written by
//! hand and stays as it is.
//!
//! A block whose cases were not run keeps what it has. A block that there is no place for is an error: nothing measured is left out
//! silently.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::goals::{self, Comparison, Goal};
use super::header::Header;
use super::ledger::{Ledger, Row, shown};
use super::table::spread;

/// A block's name and its text.
pub(super) type Block = (String, String);

/// Metrics that a table of servers shows, and what its head calls them.
const SHOWN: &[(&str, &str)] = &[
    ("cpu_us_per_delivery", "CPU-µs per delivery"),
    ("messages_per_s", "messages/s"),
    ("messages_per_s_max", "most messages/s within 20 ms"),
    ("deliveries_per_s", "deliveries/s"),
    ("delivery_p50_us", "delivery p50, µs"),
    ("delivery_p99_us", "p99"),
    ("ack_p50_us", "ack p50, µs"),
    ("ack_p99_us", "p99"),
    ("fdatasync_p50_us", "fdatasync p50, µs"),
    ("fdatasync_p99_us", "p99"),
    ("wire_overhead_bytes_per_delivery", "wire B per delivery"),
    ("wire_overhead_bytes_both_legs", "both legs"),
    ("rss_bytes", "RSS, bytes"),
    ("cpu_us_per_connection", "CPU-µs per connection"),
    ("connect_p50_us", "p50, µs"),
    ("connect_p99_us", "p99"),
    ("bytes_per_connection", "bytes per connection"),
    ("delivery_p99_us_all_healthy", "p99 without, µs"),
    ("delivery_p99_us_beside_stalled", "p99 beside it"),
    ("kernel_bytes_for_stalled", "kernel bytes"),
    ("process_growth_bytes", "process growth, bytes"),
];

/// Everything that the ledger has something for.
pub(super) fn blocks(header: &Header, ledger: &Ledger) -> Vec<Block> {
    let rows = ledger.rows();
    let mut blocks = vec![("run".to_owned(), header_text(header, ledger))];
    for goal in goals::ALL {
        let compared = goal.compare(ledger);
        if !compared.is_empty() {
            blocks.push((format!("row-{}", goal.number), goal_text(goal, &compared)));
        }
    }
    let mut cases: Vec<&str> = Vec::new();
    for row in &rows {
        let case = family(&row.case);
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    for case in cases {
        blocks.push((format!("case-{case}"), case_text(case, &rows)));
    }
    blocks
}

/// Cases that are shown in one table: those of `connect-…` and the like are one.
fn family(case: &str) -> &str {
    ["transports", "connect", "idle"]
        .into_iter()
        .find(|family| case.starts_with(family))
        .unwrap_or(case)
}

fn header_text(header: &Header, ledger: &Ledger) -> String {
    let versions: Vec<_> = header
        .versions
        .iter()
        .map(|(name, version)| format!("{name}: {version}"))
        .collect();
    let mut text = format!(
        "`{}` at commit {}; {} rounds, {} s measured per run ({} s where Conch is saturated).\n\
         {} cores of {}, {} GiB, {}; load and servers on this one machine. {}.\n\n\
         Conch's node in all rows:\n\n```toml\n{}\n```\n",
        header.command,
        header.commit,
        header.rounds,
        header.seconds,
        header.saturated_seconds,
        header.cores,
        header.processor,
        header.memory_gib,
        header.kernel,
        versions.join("; "),
        header.configuration.trim(),
    );
    let invalid = ledger.invalid();
    if !invalid.is_empty() {
        text.push_str("\nRuns that do not count:\n\n");
        for it in invalid {
            let _ = writeln!(
                text,
                "* {}, {}, round {}: {}",
                it.case, it.server, it.round, it.reason
            );
        }
    }
    text
}

fn goal_text(goal: &Goal, compared: &[Comparison]) -> String {
    let mut text = format!(
        "| row {} | figure (range over rounds) | target | stretch | |\n|---|---|---|---|---|\n",
        goal.number
    );
    for it in compared {
        let figure = match it.rounds {
            1 => shown(it.median),
            _ => format!("{} ({}–{})", shown(it.median), shown(it.min), shown(it.max)),
        };
        let or_nothing = |bound: &Option<String>| bound.clone().unwrap_or_default();
        let met = match it.is_met {
            Some(true) => "met",
            Some(false) => "**short**",
            None => "",
        };
        let (target, stretch) = (or_nothing(&it.target), or_nothing(&it.stretch));
        let _ = writeln!(
            text,
            "| {} | {figure} | {target} | {stretch} | {met} |",
            it.what
        );
    }
    text
}

/// One line per server, or per case of a family; one column per metric that any of them has.
fn case_text(case: &str, rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| family(&row.case) == case)
        .collect();
    let shown: Vec<_> = SHOWN
        .iter()
        .filter(|(metric, _)| rows.iter().any(|row| row.metric == *metric))
        .collect();
    let mut text = String::from("| server | class |");
    for (_, head) in &shown {
        let _ = write!(text, " {head} |");
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(shown.len()));
    text.push('\n');
    let mut lines: Vec<(&str, &str, &str)> = Vec::new();
    for row in &rows {
        let line = (&*row.case, &*row.server, row.class);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    for (of, server, class) in lines {
        let detail = of.strip_prefix(case).map(|it| it.trim_start_matches('-'));
        let name = match detail.filter(|it| !it.is_empty()) {
            Some(detail) => format!("{server}, {detail}"),
            None => server.to_owned(),
        };
        let _ = write!(text, "| {name} | {class} |");
        for (metric, _) in &shown {
            let row = rows
                .iter()
                .find(|row| row.case == of && row.server == server && row.metric == *metric);
            let cell = row.map_or_else(String::new, |row| spread(row));
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// Puts `blocks` into the document at `path`.
pub(super) fn update(path: &Path, blocks: &[Block]) -> Result<()> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
    let filled = fill(&text, blocks).with_context(|| format!("fill {shown}"))?;
    fs::write(path, filled).with_context(|| format!("write {shown}"))
}

/// The text with every block in its place.
fn fill(text: &str, blocks: &[Block]) -> Result<String> {
    let mut filled = text.to_owned();
    for (name, block) in blocks {
        let (open, close) = (
            format!("<!-- bench:{name} -->"),
            format!("<!-- /bench:{name} -->"),
        );
        ensure!(
            filled.matches(&open).count() == 1,
            "it has no place for {name}, or more than one: put {open} and {close} where its table goes"
        );
        let from = filled.find(&open).unwrap_or_default() + open.len();
        let Some(length) = filled[from..].find(&close) else {
            bail!("{open} is not followed by {close}");
        };
        ensure!(
            !filled[from..from + length].contains("<!-- bench:"),
            "{open} is not closed before the next one begins"
        );
        filled.replace_range(from..from + length, &format!("\n{}\n", block.trim_end()));
    }
    Ok(filled)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::super::ledger::entry;
    use super::*;

    const TEXT: &str = "# Speed\n\nProse.\n\n<!-- bench:a -->\nold\n<!-- /bench:a -->\n\nMore prose.\n\n<!-- bench:b -->\nkept\n<!-- /bench:b -->\nEnd.\n";

    fn block(name: &str, text: &str) -> Block {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn prose_and_blocks_that_were_not_measured_stay() {
        let filled = fill(TEXT, &[block("a", "new\n")]).unwrap();
        assert_eq!(filled, TEXT.replace("old", "new"));
        assert_eq!(fill(&filled, &[block("a", "new\n")]).unwrap(), filled);
    }

    #[test]
    fn a_block_without_a_place_and_an_open_one_are_errors() {
        assert!(
            fill(TEXT, &[block("c", "")])
                .unwrap_err()
                .to_string()
                .contains("bench:c")
        );
        let open = TEXT.replace("<!-- /bench:a -->", "");
        assert!(fill(&open, &[block("a", "")]).is_err());
        let twice = format!("{TEXT}{TEXT}");
        assert!(fill(&twice, &[block("a", "")]).is_err());
    }

    #[test]
    fn every_block_that_there_can_be_has_a_place_in_the_document() {
        let document = include_str!("../../../docs/performance.md");
        let names = goals::ALL.iter().map(|goal| format!("row-{}", goal.number));
        let cases = super::super::Case::ALL.map(|case| format!("case-{}", family(case.name())));
        for name in names.chain(cases).chain(["run".to_owned()]) {
            fill(document, &[block(&name, "x")]).unwrap();
        }
    }

    #[test]
    fn a_case_is_a_table_of_its_servers() {
        let mut ledger = Ledger::default();
        let values = [("cpu_us_per_delivery", 0.5), ("messages_per_s", 2_000.0)];
        ledger.add(0, [entry("pairs-2000", "conch", &values)]);
        ledger.add(
            0,
            [entry("pairs-2000", "disk", &[("fdatasync_p99_us", 300.0)])],
        );
        let blocks = blocks(&Header::default(), &ledger);
        let (_, text) = blocks
            .iter()
            .find(|(name, _)| name == "case-pairs-2000")
            .unwrap();
        let expected = "| server | class | CPU-µs per delivery | messages/s | p99 |\n|---|---|---|---|---|\n\
            | conch | fsync | 0.50 | 2000 |  |\n| disk | fsync |  |  | 300 |\n";
        assert_eq!(text, expected);
    }
}
