//! Documents in step with code: what `docs/protocol.md` and `docs/operations.md` list is what the code has, both ways.
//!
//! Compared are error codes (number and name), announced limits, the fields of the schema's tables, the rules that tests say
//! they cover, and the names of all metrics in any crate's `metrics.rs`. Tables are found by their heading and read by their
//! cells. The examples, the printed schema and the catalogue are compared by conch-wire's own test `protocol_doc`.

use std::collections::BTreeSet;

use conch_wire::{Code, limits};

use super::Source;

const PROTOCOL: &str = "docs/protocol.md";
const OPERATIONS: &str = "docs/operations.md";
const SCHEMA: &str = "wire/schema/conch.fbs";

/// Every difference between documents and code.
pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let text = |path: &str| {
        sources
            .iter()
            .find(|source| source.path.as_os_str() == path)
            .map(|source| &*source.text)
    };
    let mut findings = Vec::new();
    match (text(PROTOCOL), text(SCHEMA)) {
        (Some(protocol), Some(schema)) => {
            findings.extend(compare(
                PROTOCOL,
                "error code",
                &documented_codes(protocol),
                &codes(),
            ));
            findings.extend(compare(
                PROTOCOL,
                "limit",
                &documented_limits(protocol),
                &announced_limits(),
            ));
            findings.extend(fields(protocol, schema));
            findings.extend(rules(protocol, sources));
        }
        _ => findings.push(format!("{PROTOCOL} or {SCHEMA} is missing")),
    }
    match text(OPERATIONS) {
        Some(operations) => {
            findings.extend(compare(
                OPERATIONS,
                "metric",
                &documented_metrics(operations),
                &metrics(sources),
            ));
        }
        None => findings.push(format!("{OPERATIONS} is missing")),
    }
    findings
}

/// What only one side has.
fn compare(
    document: &str,
    what: &str,
    documented: &BTreeSet<String>,
    coded: &BTreeSet<String>,
) -> Vec<String> {
    let missing = coded
        .difference(documented)
        .map(|item| format!("{document} has no row of {what} {item}"));
    let stale = documented
        .difference(coded)
        .map(|item| format!("{document} has a row of {what} {item}; the code has none"));
    missing.chain(stale).collect()
}

/// The rows of the tables under `heading` (to the next one of its level), cells trimmed and without backticks.
fn rows<'a>(document: &'a str, heading: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
    document
        .lines()
        .skip_while(move |line| line.trim() != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(cells)
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(
        inner
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect(),
    )
}

fn codes() -> BTreeSet<String> {
    Code::ALL.iter().map(ToString::to_string).collect()
}

fn documented_codes(protocol: &str) -> BTreeSet<String> {
    rows(protocol, "## Error codes")
        .filter(|cells| cells.len() > 1 && cells[0].parse::<u16>().is_ok())
        .map(|cells| format!("{} {}", cells[0], cells[1]))
        .collect()
}

fn announced_limits() -> BTreeSet<String> {
    [
        ("text_chars_max", limits::TEXT_CHARS_MAX),
        ("payload_bytes_max", limits::PAYLOAD_BYTES_MAX),
        ("frame_bytes_max", limits::FRAME_BYTES_MAX),
        ("pushed_body_bytes_max", limits::PUSHED_BODY_BYTES_MAX),
        ("send_many_items_max", limits::SEND_MANY_ITEMS_MAX),
        ("send_many_bytes_max", limits::SEND_MANY_BYTES_MAX),
        ("sends_in_flight_max", limits::SENDS_IN_FLIGHT_MAX),
        ("requests_in_flight_max", limits::REQUESTS_IN_FLIGHT_MAX),
        ("history_items_max", limits::HISTORY_ITEMS_MAX),
        ("history_bytes_max", limits::HISTORY_BYTES_MAX),
        ("sync_rows_max", limits::SYNC_ROWS_MAX),
        ("group_members_max", limits::GROUP_MEMBERS_DEFAULT),
        ("heartbeat_ms", limits::HEARTBEAT_MS as usize),
        ("silence_max_ms", limits::SILENCE_MAX_MS as usize),
    ]
    .iter()
    .map(|(name, value)| format!("{name} = {value}"))
    .collect()
}

fn documented_limits(protocol: &str) -> BTreeSet<String> {
    rows(protocol, "## 19 Limits")
        .filter(|cells| cells.len() > 3 && cells[0].parse::<u16>().is_ok())
        .map(|cells| {
            let value = cells[3]
                .split(' ')
                .next()
                .unwrap_or_default()
                .replace(',', "");
            format!("{} = {value}", cells[1])
        })
        .collect()
}

/// Fields of the tables that the document draws (under a line that is the table's name), against the schema.
fn fields(protocol: &str, schema: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut lines = protocol.lines();
    while let Some(line) = lines.next() {
        let name = line
            .strip_prefix('`')
            .and_then(|line| line.strip_suffix("`:"));
        let Some(table) = name.and_then(|name| schema_fields(schema, name)) else {
            continue;
        };
        let documented = lines
            .by_ref()
            .skip_while(|line| line.is_empty())
            .map_while(cells)
            .filter(|cells| cells.len() > 1 && cells[0].parse::<u16>().is_ok())
            .map(|cells| format!("{line} {} {}", cells[0], cells[1]))
            .collect();
        let coded = table
            .iter()
            .map(|field| format!("{line} {field}"))
            .collect();
        findings.extend(compare(PROTOCOL, "field", &documented, &coded));
    }
    findings
}

/// Ids and names of a table's fields; `None` for what is no table.
fn schema_fields(schema: &str, table: &str) -> Option<Vec<String>> {
    let (_, body) = schema.split_once(&format!("\ntable {table} {{\n"))?;
    let field = |line: &str| {
        let (name, _) = line.trim().split_once(':')?;
        let id = line.split_once("(id: ")?.1.split([',', ')']).next()?;
        Some(format!("{id} {name}"))
    };
    Some(
        body.lines()
            .take_while(|line| *line != "}")
            .filter_map(field)
            .collect(),
    )
}

/// Rules that code says it covers and that the document does not have.
fn rules(protocol: &str, sources: &[Source]) -> Vec<String> {
    let documented: BTreeSet<&str> = protocol
        .split("**P-")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("**")?.0))
        .collect();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| {
        source
            .path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }) {
        for word in source
            .text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        {
            let number = word.strip_prefix("P-").filter(|rest| rest.len() == 3);
            if number.is_some_and(|rest| {
                rest.bytes().all(|b| b.is_ascii_digit()) && !documented.contains(rest)
            }) {
                findings.push(format!(
                    "{} names rule {word}, which {PROTOCOL} does not have",
                    source.path.display()
                ));
            }
        }
    }
    findings
}

/// Names of metrics: string literals in `metrics.rs` files, outside comments and tests.
fn metrics(sources: &[Source]) -> BTreeSet<String> {
    let files = sources
        .iter()
        .filter(|source| source.path.ends_with("metrics.rs"));
    files
        .flat_map(|source| metric_names(&source.text))
        .collect()
}

fn metric_names(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|literal| is_metric(literal))
        .map(str::to_owned)
        .collect()
}

fn documented_metrics(operations: &str) -> BTreeSet<String> {
    operations
        .lines()
        .filter_map(cells)
        .filter_map(|cells| cells.first().copied())
        .filter(|name| is_metric(name))
        .map(str::to_owned)
        .collect()
}

fn is_metric(name: &str) -> bool {
    name.starts_with("conch_")
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn both_directions_are_compared() {
        assert_eq!(
            compare("d", "x", &set(&["a", "b"]), &set(&["b", "a"])),
            Vec::<String>::new()
        );
        let findings = compare("d", "x", &set(&["a", "stale"]), &set(&["a", "missing"]));
        assert_eq!(
            findings,
            [
                "d has no row of x missing",
                "d has a row of x stale; the code has none"
            ]
        );
    }

    #[test]
    fn rows_are_read_under_their_heading_only() {
        let document = "| 4999 | before |\n## Error codes\n\n| code | name |\n|---|---|\n| 4100 | `rate_limited` | x |\n\
                        ## Next\n| 4998 | behind |\n";
        assert_eq!(documented_codes(document), set(&["4100 rate_limited"]));
        let document = "## 19 Limits\n| 11 | `group_members_max` | members | 500 (up to 1,000) |\n";
        assert_eq!(
            documented_limits(document),
            set(&["group_members_max = 500"])
        );
    }

    #[test]
    fn code_in_its_documented_form_is_what_the_tables_say() {
        assert!(codes().contains("4100 rate_limited"));
        assert!(announced_limits().contains("frame_bytes_max = 524288"));
    }

    #[test]
    fn fields_are_held_to_the_schema() {
        let schema = "namespace x;\ntable Hello {\n  minor:uint16 (id: 0);\n  token:string (id: 1, required);\n}\n";
        let document = |token: &str| {
            format!(
                "`Hello`:\n\n| id | field | type |\n|---|---|---|\n| 0 | `minor` | u16 |\n| 1 | `{token}` | string |\n\nprose\n"
            )
        };
        assert_eq!(fields(&document("token"), schema), Vec::<String>::new());
        assert_eq!(fields(&document("secret"), schema).len(), 2);
        assert_eq!(
            fields("`Other`:\n\n| 0 | `x` | u8 |\n", schema),
            Vec::<String>::new()
        );
    }

    #[test]
    fn rules_that_tests_name_exist() {
        let test = |text: &str| {
            [Source {
                path: "wire/tests/a.rs".into(),
                text: text.to_owned(),
            }]
        };
        let rule = concat!("P", "-001");
        let other = concat!("P", "-999");
        let protocol = format!("* **{rule}** A frame MUST be short.\n");
        assert_eq!(
            rules(&protocol, &test(&format!("// {rule}: short"))),
            Vec::<String>::new()
        );
        assert_eq!(rules(&protocol, &test(&format!("// {other}"))).len(), 1);
    }

    #[test]
    fn metrics_are_literals_of_their_form() {
        let code = "//! \"conch_of_docs\"\nconst A: &str = \"conch_sends_total\"; // \"conch_comment\"\n\
                    const B: (&str, &str) = (\"conch_queue_bytes\", \"conch is no name\");\n\
                    #[cfg(test)]\nmod tests { const C: &str = \"conch_test\"; }\n";
        assert_eq!(
            metric_names(code),
            set(&["conch_sends_total", "conch_queue_bytes"])
        );
        let document = "| metric | unit |\n|---|---|\n| `conch_sends_total` | 1 |\n| conch_queue_bytes | bytes |\nconch_prose\n";
        assert_eq!(
            documented_metrics(document),
            set(&["conch_sends_total", "conch_queue_bytes"])
        );
    }
}
