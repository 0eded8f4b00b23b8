//! `conch-load`: proves and measures a Conch node from the outside.
//!
//! `chaos` starts a node of its own, kills it again and again under load, and ends with one verdict line. Exit codes:
//! 0 the promise held, 1 it was broken, 2 the run could not be done.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use conch_loadtest::chaos::{self, ChaosPlan};

/// Proves and measures a Conch node from the outside
#[derive(Debug, Parser)]
#[command(name = "conch-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill a node again and again under load, and judge what its users saw
    Chaos(ChaosArgs),
}

#[derive(Debug, Args)]
struct ChaosArgs {
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
    /// The `conch` beside this program was built without failpoints: only kill from outside
    #[arg(long)]
    no_failpoints: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            say_error(&error);
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn run(cli: Cli) -> Result<bool> {
    match cli.command {
        Command::Chaos(args) => run_chaos(args).await,
    }
}

async fn run_chaos(args: ChaosArgs) -> Result<bool> {
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
    };
    let report = chaos::run(&plan)
        .await
        .with_context(|| format!("chaos seed {}: no verdict", args.seed))?;
    say(&report);
    Ok(report.is_clean())
}

/// The program's result goes to the standard output.
#[allow(clippy::print_stdout)] // a command-line program answers there
fn say(result: &impl std::fmt::Display) {
    println!("{result}");
}

#[allow(clippy::print_stderr)] // a command-line program complains there
fn say_error(error: &anyhow::Error) {
    eprintln!("conch-load: {error:#}");
}
