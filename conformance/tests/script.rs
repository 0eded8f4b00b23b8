//! The conformance script itself: the smallest client and the Rust SDK pass every case, and a client that breaks a rule on
//! purpose is found by the cases that are about it.
//!
//! Clients are this package's examples, which `cargo test` builds.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use conch_conformance::{
    Case, Feature, Outcome, Settings, Transport, fresh_folder, load_folder, run_all,
};

/// What the clients of this package have.
const FEATURES: &[Feature] = &[Feature::PushOpened];

fn cases() -> Vec<Case> {
    load_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).unwrap()
}

#[test]
fn cases_name_rules_that_exist() {
    let protocol = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let protocol = std::fs::read_to_string(protocol).unwrap();
    for case in cases() {
        assert!(!case.rules.is_empty(), "{} names no rule", case.name);
        for rule in case.rules {
            assert!(
                protocol.contains(&format!("**{rule}**")),
                "{}: {rule}",
                case.name
            );
        }
    }
}

/// The program of an example, beside the folder of this test's own.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        program.exists(),
        "{} is not built: cargo build --examples",
        program.display()
    );
    program
}

async fn outcomes(
    client: &[&str],
    cases: Vec<Case>,
    patience: Option<Duration>,
    transport: Transport,
) -> Vec<Outcome> {
    let mut command = vec![example(client[0]).display().to_string()];
    command.extend(client[1..].iter().map(|it| (*it).to_owned()));
    let name = format!("{}-{transport}", client.join("-").replace('/', "-"));
    let folder = fresh_folder(&name);
    let settings = Settings {
        client: command,
        folder: folder.clone(),
        jobs: 8,
        patience,
        transports: vec![transport],
        features: FEATURES.to_vec(),
    };
    let outcomes = run_all(cases, settings).await;
    let _ = std::fs::remove_dir_all(folder);
    outcomes
}

async fn passes(client: &str, transport: Transport) {
    let outcomes = outcomes(&[client], cases(), None, transport).await;
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|it| {
            let why = it.failure.as_ref()?;
            Some(format!("{}: {why}\n{}\n", it.name, it.trace.join("\n")))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_client_passes() {
    passes("reference_host", Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_client_passes_over_quic() {
    passes("reference_host", Transport::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_sdk_passes() {
    passes("rust_host", Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_sdk_passes_over_quic() {
    passes("rust_host", Transport::Quic).await;
}

/// Runs one case by the program itself, called from `folder`.
fn run_from(folder: &Path, client: &str) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_conch-conform"))
        .args(["run", "--case", "kill-before-ack", "--client", client])
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn client_is_found_from_the_callers_folder() {
    let program = example("reference_host");
    let folder = program.parent().unwrap().parent().unwrap();
    let said = run_from(folder, "examples/reference_host");
    assert!(said.contains("1 passed, 0 failed"), "{said}");
}

#[test]
fn file_among_the_clients_arguments_is_found_from_the_callers_folder() {
    let folder = fresh_folder("relative");
    std::fs::create_dir_all(&folder).unwrap();
    let host = format!("exec '{}'\n", example("reference_host").display());
    std::fs::write(folder.join("host.sh"), host).unwrap();
    let said = run_from(&folder, "sh host.sh");
    assert!(said.contains("1 passed, 0 failed"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// What a client does wrong, a case about it, and what the case must find.
type Wrong = (&'static str, &'static str, &'static str);

const WRONG: &[Wrong] = &[
    ("no-retry", "kill-before-ack", "P-030"),
    ("no-retry", "outcome-unknown", "P-030"),
    ("new-key", "cut-before-store", "P-029"),
    ("overtakes", "burst-rate-limited", "P-035"),
    ("overtakes", "outcome-unknown", "P-035"),
    ("two-in-flight", "ack-late", "P-035"),
    ("shows-repeats", "repeats", "P-038"),
    ("ignores-gap", "skipped-seq", "P-039"),
    ("ignores-gap", "collapse", "P-039"),
    ("shows-by-arrival", "ack-before-delivery", "P-039"),
    ("shows-own-early", "own-author-hold", "waited"),
    ("forgets-pending", "kill-after-store", "pending sends"),
    ("claims-too-much", "cut-with-a-gap", "P-038"),
    ("grants-nothing", "credit-at-the-edge", "waited"),
    ("hurries", "burst-rate-limited", "retry_after_ms"),
    ("hurries", "goaway", "P-057"),
    ("no-ping", "heartbeat", "waited"),
    ("endures-silence", "silence", "waited"),
    ("ignores-generation", "resync-by-generation", ""),
    ("ignores-sync-now", "sync-now", "waited"),
    ("skips-everything", "unknown-fatal-frame", "waited"),
    ("refuses-large", "large-message", "HELLO"),
    ("refuses-large", "largest-body", "waited"),
    ("one-page", "sync-in-pages", "waited"),
    ("drops-opened", "sync-reset-in-pages", "P-044"),
    ("drops-early", "sync-reset-in-pages", "P-044"),
    ("stays-out", "added-again", "waited"),
    ("shows-tables", "mentions", "shows seq"),
    ("no-backoff", "backoff-grows", "P-057"),
    ("drops-unknown", "unknown-kinds-in-history", "waited"),
    ("ignores-heads", "push-opened", "waited"),
];

/// The same over QUIC; most rules do not know what carries them.
const WRONG_OVER_QUIC: &[Wrong] = &[
    ("forgets-resets", "quic-stream-reset", "waited"),
    ("early-stream", "hello-refused", "P-067"),
    ("two-on-a-stream", "quic-stream-reset", "P-069"),
    ("reads-on-a-stream", "read-marks", "P-069"),
    ("ignores-the-end", "quic-end-of-control", "waited"),
    ("forgets-pending", "quic-node-killed", "pending sends"),
    ("shows-repeats", "repeats", "P-038"),
];

async fn finds(wrongs: &[Wrong], transport: Transport) {
    let cases = cases();
    let mut missed = Vec::new();
    for (wrong, case, finding) in wrongs {
        let only = cases
            .iter()
            .filter(|it| it.name == *case)
            .cloned()
            .collect();
        let client = ["reference_host", "--wrong", wrong];
        // A finding comes by itself, on a busy machine later; only what is awaited in vain need not be awaited long.
        let patience = match *finding {
            "waited" | "" => Some(Duration::from_secs(2)),
            _ => None,
        };
        let outcomes = outcomes(&client, only, patience, transport).await;
        match outcomes.first().and_then(|it| it.failure.as_ref()) {
            Some(why) if why.contains(finding) => {}
            other => missed.push(format!("{wrong} in {case}: {other:?}")),
        }
    }
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_a_rule_is_found() {
    finds(WRONG, Transport::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_a_rule_of_quic_is_found() {
    finds(WRONG_OVER_QUIC, Transport::Quic).await;
}

/// A program that says nothing ends by the deadline, with a word about what was awaited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_ends_by_the_deadline() {
    let folder = fresh_folder("hangs");
    let settings = Settings {
        client: vec!["sleep".into(), "60".into()],
        folder: folder.clone(),
        jobs: 1,
        patience: Some(Duration::from_millis(300)),
        transports: vec![Transport::WebSocket],
        features: FEATURES.to_vec(),
    };
    let only = cases()
        .into_iter()
        .filter(|it| it.name == "ack-late")
        .collect();
    let outcomes = run_all(only, settings).await;
    let _ = std::fs::remove_dir_all(folder);
    let why = outcomes[0].failure.clone().unwrap();
    assert!(
        why.contains("waited 300 ms in vain for state online"),
        "{why}"
    );
}
