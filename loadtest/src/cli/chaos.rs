//! `conch-load chaos`: its arguments, and a run with them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use conch_loadtest::chaos::{self, ChaosPlan};
use conch_loadtest::stop::Stop;

use super::say;

#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How long faults go on, in seconds
    #[arg(long, env = "CHAOS_S", default_value_t = 60)]
    seconds: u64,
    /// Draws the schedule of faults and words; printed in the verdict
    #[arg(long, env = "CHAOS_SEED", default_value_t = 1)]
    seed: u64,
    /// End after this many kills, even if time is left
    #[arg(long, default_value_t = u64::MAX)]
    kills: u64,
    /// People; each has two devices
    #[arg(long, default_value_t = 6)]
    people: usize,
    /// Mean pause of a device between two bursts of messages, in milliseconds
    #[arg(long, default_value_t = 60)]
    pace_ms: u64,
    /// Folder for the node's data and output; kept. Without it: a temporary one, removed at the end
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Datagrams lost and chunks of TCP that stall, in percent; cuts, holes and changes of address come along. 0: none of it
    #[arg(long, env = "CHAOS_LOSS", default_value_t = 5.0)]
    loss_percent: f64,
    /// All devices on WebSocket, in place of half of them
    #[arg(long)]
    no_quic: bool,
    /// The `conch` beside this program was built without failpoints: only kill from outside
    #[arg(long)]
    no_failpoints: bool,
}

/// Runs the kill proof; true: the promise held.
pub(crate) async fn run(args: ChaosArgs) -> Result<bool> {
    ensure!(
        (0.0..=100.0).contains(&args.loss_percent),
        "--loss-percent {}: it must be from 0 to 100",
        args.loss_percent
    );
    let temporary = tempfile::tempdir().context("make a temporary folder")?;
    let folder = args
        .folder
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let plan = ChaosPlan {
        seed: args.seed,
        faults_for: Duration::from_secs(args.seconds),
        kills_max: args.kills,
        people: args.people,
        pace: Duration::from_millis(args.pace_ms),
        folder,
        failpoints: !args.no_failpoints,
        loss: args.loss_percent / 100.0,
        quic: !args.no_quic,
    };
    // At the first Ctrl-C the faults end and what there is is judged; at the second there is no verdict.
    let stop = Stop::on_signals()?;
    let judged = stop.or_again(Box::pin(chaos::run(&plan, &stop))).await;
    let report = judged.with_context(|| {
        format!(
            "chaos seed {}: no verdict; again: {}",
            args.seed,
            again(&args)
        )
    })?;
    say(&report);
    if !report.is_clean() {
        say(&format_args!("  again: {}", again(&args)));
    }
    Ok(report.is_clean())
}

/// The command that draws the same schedule.
fn again(args: &ChaosArgs) -> String {
    let mut command = format!(
        "conch-load chaos --seed {} --seconds {} --people {} --pace-ms {} --loss-percent {}",
        args.seed, args.seconds, args.people, args.pace_ms, args.loss_percent
    );
    if args.kills != u64::MAX {
        command += &format!(" --kills {}", args.kills);
    }
    for (is_given, option) in [
        (args.no_quic, " --no-quic"),
        (args.no_failpoints, " --no-failpoints"),
    ] {
        command += if is_given { option } else { "" };
    }
    command
}
