//! What a comparison was run on: machine, commit, versions, configuration.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::BenchPlan;
use crate::node;
use crate::peers::{Peer, conch, mosquitto, nats};

/// Printed with every result.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Header {
    pub(super) command: String,
    pub(super) commit: String,
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) memory_gib: u64,
    pub(super) kernel: String,
    /// Programs and what they call themselves.
    pub(super) versions: Vec<(String, String)>,
    /// Of Conch's node, for all cases.
    pub(super) configuration: String,
    pub(super) rounds: u32,
    pub(super) seconds: u64,
    pub(super) saturated_seconds: u64,
}

impl Header {
    /// Asks the machine and every server of the plan. A program that is missing is an error before anything is measured.
    pub(super) async fn collect(plan: &BenchPlan) -> Result<Header> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|rest| Some(rest.split_once(':')?.1.trim().to_owned()));
            value.unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: Option<u64> = memory
            .split_whitespace()
            .next()
            .and_then(|it| it.parse().ok());
        let mut versions = Vec::new();
        for peer in &plan.servers {
            if let Some(version) = version(*peer)?
                && !versions.contains(&version)
            {
                versions.push(version);
            }
        }
        Ok(Header {
            command: plan.command.clone(),
            commit: commit(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_kib.unwrap_or_default().div_ceil(1 << 20),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            versions,
            configuration: conch::configuration(),
            rounds: plan.rounds,
            seconds: plan.seconds,
            saturated_seconds: plan.saturated_seconds,
        })
    }
}

/// The commit that the current folder is at, with a mark when files differ from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with changes"),
    }
}

/// A program and the first line of what it says of its version. The floor is part of this program.
fn version(peer: Peer) -> Result<Option<(String, String)>> {
    let (program, argument, remedy) = match peer {
        Peer::Floor | Peer::FloorFsync => return Ok(None),
        Peer::Nats | Peer::JetStream | Peer::JetStreamAlways => {
            (nats::program(), "--version", nats::REMEDY)
        }
        Peer::Mosquitto => (mosquitto::program(), "-h", mosquitto::REMEDY),
        Peer::Conch => (node::program("conch")?, "--version", "run `make build`"),
    };
    let output = Command::new(&program)
        .arg(argument)
        .output()
        .with_context(|| {
            format!(
                "{peer} cannot be started from {}; {remedy}",
                program.display()
            )
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    ensure!(
        !line.is_empty(),
        "{} does not tell its version",
        program.display()
    );
    let name = program
        .file_name()
        .unwrap_or_default()
        .display()
        .to_string();
    Ok(Some((name, line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_named() {
        assert!(!commit().is_empty());
    }
}
