//! Rules for single files: pure state machines, opening docs, no marks of unfinished work.
//!
//! A file named `state.rs`, and every file in a folder named `state`, is the pure half of something: time, randomness and
//! IO come in as values. Comments and test modules may say what they like. Generated code is nobody's style.

use std::path::Path;

/// Identifiers that a pure file does not contain.
const IMPURE: &[&str] = &[
    "tokio",
    "SystemTime",
    "rand",
    "getrandom",
    "tracing",
    "async",
    "await",
];
/// Paths that a pure file does not contain.
const IMPURE_PATHS: &[&str] = &["Instant::now", "std::fs", "std::net"];
/// Marks of unfinished work, put together so that this file does not contain them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];
const UNFINISHED_CALLS: &[&str] = &[concat!("to", "do!("), concat!("unimple", "mented!(")];
/// A Rust file of more lines opens with docs.
const LINES_WITHOUT_DOCS: usize = 30;

/// Every finding in one file.
pub(super) fn check(path: &Path, text: &str) -> Vec<String> {
    let in_folder = |folder: &str| {
        path.parent()
            .is_some_and(|parent| parent.iter().any(|part| part == folder))
    };
    if in_folder("generated") {
        return Vec::new();
    }
    let rust = path.extension().is_some_and(|extension| extension == "rs");
    let pure = rust && !in_folder("tests") && (path.ends_with("state.rs") || in_folder("state"));
    let mut findings = unfinished(text);
    if pure {
        findings.extend(impurities(text));
    }
    if rust
        && !in_folder("tests")
        && text.lines().count() > LINES_WITHOUT_DOCS
        && !text.starts_with("//!")
    {
        findings.push("does not open with docs".to_owned());
    }
    findings
        .into_iter()
        .map(|finding| format!("{}: {finding}", path.display()))
        .collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn unfinished(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let marked = words(line).any(|word| UNFINISHED.contains(&word));
        if marked || UNFINISHED_CALLS.iter().any(|call| line.contains(call)) {
            findings.push(format!("line {number} marks unfinished work"));
        }
    }
    findings
}

fn impurities(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(code.lines()) {
        let line = line.split("//").next().unwrap_or_default();
        let word = words(line).find(|word| IMPURE.contains(word));
        let path = IMPURE_PATHS
            .iter()
            .copied()
            .find(|path| line.contains(path));
        if let Some(impure) = word.or(path) {
            findings.push(format!("line {number} is not pure: {impure}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(Path::new(path), text).len()
    }

    #[test]
    fn pure_files_have_no_clock_runtime_or_randomness() {
        for line in [
            "use tokio::sync::mpsc;",
            "let now = std::time::Instant::now();",
            "let now = SystemTime::now();",
            "let seed = rand::random();",
            "getrandom::fill(&mut key);",
            "use std::fs;",
            "let socket: std::net::SocketAddr;",
            "async fn run() {}",
            "handle.await;",
            "tracing::debug!(\"seen\");",
        ] {
            assert_eq!(findings("router/src/channel/state.rs", line), 1, "{line}");
            assert_eq!(
                findings("gateway/src/session/state/resume.rs", line),
                1,
                "{line}"
            );
            assert_eq!(findings("router/src/channel/task.rs", line), 0, "{line}");
        }
        for line in [
            "let random = operand + brand;",
            "// tokio drives this",
            "fn awaits_ack(now: Instant) {}",
        ] {
            assert_eq!(findings("router/src/channel/state.rs", line), 0, "{line}");
        }
        assert_eq!(
            findings(
                "router/src/user/state.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests { use rand::Rng; }"
            ),
            0
        );
    }

    #[test]
    fn long_files_open_with_docs() {
        let long = "fn f() {}\n".repeat(LINES_WITHOUT_DOCS + 1);
        assert_eq!(findings("store/src/log.rs", &long), 1);
        assert_eq!(
            findings("store/src/log.rs", &format!("//! The log.\n{long}")),
            0
        );
        assert_eq!(findings("store/src/log.rs", "fn f() {}\n"), 0);
        assert_eq!(findings("store/tests/log.rs", &long), 0);
        assert_eq!(findings("wire/src/generated/mod.rs", &long), 0);
        assert_eq!(findings("docs/protocol.md", &long), 0);
    }

    #[test]
    fn marks_of_unfinished_work_are_found() {
        for mark in UNFINISHED {
            assert_eq!(findings("README.md", &format!("fine\n{mark}: later")), 1);
            assert_eq!(findings("README.md", &format!("{mark}S are not marks")), 0);
        }
        for call in UNFINISHED_CALLS {
            assert_eq!(findings("a/src/lib.rs", &format!("{call})")), 1);
        }
    }
}
