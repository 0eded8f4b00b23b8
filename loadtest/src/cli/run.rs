//! `conch-load run`: its arguments, and a run with them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args};
use conch_loadtest::raw::Transport;
use conch_loadtest::report::Outcome;
use conch_loadtest::run::{self, RunPlan, Target};
use conch_loadtest::scenario::{Scenario, Shares};

use super::measure::Over;
use super::say;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("node").required(true).args(["target", "spawn"])))]
pub(crate) struct RunArgs {
    /// A scenario file, or the name of a shipped one (docs/loadtest.md lists them)
    scenario: String,
    /// Load a node that is there: http://HOST:PORT or https://HOST:PORT. The people made for the run stay on it
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Start a node for the run, from the `conch` program beside this one
    #[arg(long)]
    spawn: bool,
    /// With --target: PEM file that vouches for its certificate, where the system's roots do not
    #[arg(long, value_name = "FILE", requires = "target")]
    root_certificate: Option<PathBuf>,
    /// With --target: the node's process on this machine, for its CPU time and memory
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    /// With --spawn: folder for the node's data, on the disk that is meant; kept. Without it: one that is removed at the end
    #[arg(long, value_name = "FOLDER", requires = "spawn")]
    data: Option<PathBuf>,
    /// Folder for NAME.json and NAME.html
    #[arg(long, value_name = "FOLDER", default_value = "target/load")]
    out: PathBuf,
    /// In place of the scenario's time.duration_s, in seconds
    #[arg(long, allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// In place of the scenario's transport
    #[arg(long, value_enum)]
    transport: Option<Over>,
    /// Worker processes; without it as many as are needed
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Measure without the checker; the report says so
    #[arg(long)]
    no_check: bool,
}

/// Runs a scenario; the exit code tells what it came to.
pub(crate) async fn run(args: RunArgs) -> Result<ExitCode> {
    let (name, mut scenario) = Scenario::load(&args.scenario)?;
    if let Some(seconds) = args.seconds {
        ensure!(
            (0.5..=86_400.0).contains(&seconds),
            "--seconds {seconds}: allowed: number, 0.5 to 86,400"
        );
        scenario.shorten(seconds);
    }
    if let Some(over) = args.transport {
        scenario.population.transport = Shares::only(Transport::from(over));
    }
    scenario.check &= !args.no_check;
    // Lives until the node in it is gone.
    let mut temporary = None;
    let target = match (args.target, args.data) {
        (Some(url), _) => Target::Url {
            url,
            root_certificate: args.root_certificate,
            pid: args.pid,
        },
        (None, Some(folder)) => Target::Spawn { folder },
        (None, None) => {
            let folder = tempfile::Builder::new()
                .prefix("conch-load-")
                .tempdir_in(".")
                .context("make a folder for the node here")?;
            let folder = temporary.insert(folder).path().to_owned();
            Target::Spawn { folder }
        }
    };
    let plan = RunPlan {
        name,
        scenario,
        target,
        workers: args.workers.map(usize::from),
    };
    let report = Box::pin(run::run(&plan)).await?;
    say(&report);
    let (json, html) = report.write(&args.out)?;
    say(&format_args!(
        "report: {}, {}",
        json.display(),
        html.display()
    ));
    Ok(match report.outcome() {
        Outcome::Good => ExitCode::SUCCESS,
        Outcome::Broken => ExitCode::from(1),
        Outcome::Invalid => ExitCode::from(3),
        Outcome::Interrupted => ExitCode::from(4),
    })
}
