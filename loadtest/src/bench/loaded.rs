//! One load on one server, and everything that is read off it.

use std::path::Path;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::Case;
use super::case::PAYLOAD_BYTES;
use super::ledger::Entry;
use super::raw_commit::{self, CommitCounts};
use crate::measure::disk::DiskProbe;
use crate::peers::drive::{Drive, Load, NotHeld, Outcome};
use crate::peers::topology::Topology;
use crate::peers::{Class, Peer, Running};
use crate::stop::Stop;

/// Probes of the disk before and after a run.
const PROBES: u64 = 1_000;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadedPlan {
    pub(super) case: Case,
    pub(super) topology: Topology,
    pub(super) load: Load,
    /// Put the disk's own fdatasync beside Conch's acks.
    pub(super) probes_disk: bool,
    /// Put raw group commit at the same batch beside Conch's throughput.
    pub(super) compares_commits: bool,
}

/// Runs it. Blocking. The server is killed at the end.
pub(super) fn measure(
    mut server: Running,
    plan: &LoadedPlan,
    folder: &Path,
    stop: &Stop,
) -> Result<Vec<Entry>> {
    let case_name = plan.case.name();
    let is_conch = server.peer == Peer::Conch;
    let mut disk = (is_conch && plan.probes_disk)
        .then(|| DiskProbe::new(folder))
        .transpose()?;
    if let Some(disk) = &mut disk {
        disk.run(PROBES)?;
    }
    let mut drive = Drive::connect(&mut server, plan.topology, stop)?;
    let commits_before = commits(&server, plan)?;
    let outcome = match drive.run(&mut server, &plan.load) {
        Ok(outcome) => outcome,
        Err(error) => match error.downcast::<NotHeld>() {
            Ok(it) => return Ok(vec![without_values(&server, case_name, it.to_string())]),
            Err(error) => return Err(error),
        },
    };
    let mut entry = entry(server.peer, case_name, &outcome);
    let mut entries = Vec::new();
    if let Some(disk) = &mut disk {
        disk.run(PROBES)?;
        let p = |quantile| disk.took_us.value_at_quantile(quantile) as f64;
        let values = vec![("fdatasync_p50_us", p(0.5)), ("fdatasync_p99_us", p(0.99))];
        entries.push(of_disk(case_name, values));
    }
    if let (Some(before), Some(after)) = (commits_before, commits(&server, plan)?) {
        let made = after - before;
        entry
            .values
            .push(("records_per_commit", made.records_each()));
        entry
            .values
            .push(("log_bytes_per_record", made.bytes_per_record()));
        let raw = raw_commit::records_per_s(folder, made)?;
        entries.push(of_disk(case_name, vec![("messages_per_s", raw)]));
    }
    entries.insert(0, entry);
    Ok(entries)
}

fn commits(server: &Running, plan: &LoadedPlan) -> Result<Option<CommitCounts>> {
    match server.metrics() {
        Some(address) if plan.compares_commits => CommitCounts::read(&address).map(Some),
        _ => Ok(None),
    }
}

fn of_disk(case: &str, values: Vec<(&'static str, f64)>) -> Entry {
    Entry {
        case: case.to_owned(),
        class: Class::Fsync,
        server: "disk".to_owned(),
        values,
        invalid: None,
    }
}

/// The row of a run that gave no figure.
pub(super) fn without_values(server: &Running, case: &str, why: String) -> Entry {
    Entry {
        case: case.to_owned(),
        class: server.peer.class(),
        server: server.peer.to_string(),
        values: Vec::new(),
        invalid: Some(why),
    }
}

/// The row of an outcome.
pub(super) fn entry(peer: Peer, case: &str, outcome: &Outcome) -> Entry {
    let mut values = vec![
        ("cpu_us_per_delivery", outcome.cpu_us()),
        ("messages_per_s", outcome.rate_per_s()),
        ("deliveries_per_s", outcome.deliveries_per_s()),
    ];
    let mut latencies = |names: [&'static str; 2], of: &Histogram<u64>| {
        if !of.is_empty() {
            values.push((names[0], of.value_at_quantile(0.5) as f64));
            values.push((names[1], of.value_at_quantile(0.99) as f64));
        }
    };
    latencies(["delivery_p50_us", "delivery_p99_us"], &outcome.delivery_us);
    latencies(["ack_p50_us", "ack_p99_us"], &outcome.ack_us);
    latencies(
        ["generator_lag_p50_us", "generator_lag_p99_us"],
        &outcome.lag_us,
    );
    if peer == Peer::Conch {
        values.push(("cpu_us_ack_path", outcome.cpu_us() - outcome.index_cpu_us()));
    }
    values.extend([
        (
            "wire_overhead_bytes_per_delivery",
            outcome.overhead_per_delivery(PAYLOAD_BYTES),
        ),
        (
            "wire_overhead_bytes_both_legs",
            outcome.overhead_both_legs(PAYLOAD_BYTES),
        ),
        ("rss_bytes", outcome.rss_bytes as f64),
        ("server_cores", outcome.server_cores()),
        ("generator_cores", outcome.generator_cores()),
    ]);
    Entry {
        case: case.to_owned(),
        class: peer.class(),
        server: peer.to_string(),
        values,
        invalid: outcome.invalid(),
    }
}
