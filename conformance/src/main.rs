//! `conch-conform`: runs the conformance script against a client and says which cases failed.
//!
//! One line per case and a last line with the sums; the exit status is 0 when all passed, 1 when some failed, 2 when nothing
//! could be run. With `--trace` a failed case shows everything that was said on the wire and on the client's lines.

#![allow(clippy::print_stdout, reason = "what it prints is its product")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use conch_conformance::{
    Case, Feature, Outcome, Settings, Transport, fresh_folder, load_folder, run_all,
};

#[derive(Debug, Parser)]
#[command(
    name = "conch-conform",
    version,
    about = "Runs the conformance script against a client"
)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the cases and what each proves.
    List(Scripts),
    /// Runs them.
    Run(Run),
}

#[derive(Debug, Args)]
struct Scripts {
    /// Folder of the case files.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts"))]
    scripts: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    scripts: Scripts,
    /// The client under test: its program and arguments, separated by spaces.
    #[arg(long)]
    client: String,
    /// What to run over: websocket, quic; may be given several times.
    #[arg(long, default_value = "websocket")]
    transport: Vec<Transport>,
    /// What the client has beyond what every client has: push_opened.
    #[arg(long = "with")]
    with: Vec<Feature>,
    /// Only this case; may be given several times.
    #[arg(long)]
    case: Vec<String>,
    /// Cases that run at the same time.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    /// How long each step may wait, in milliseconds; each case says its own unless this is given.
    #[arg(long)]
    patience_ms: Option<u64>,
    /// Show the trace of failed cases.
    #[arg(long)]
    trace: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::List(scripts) => list(&scripts),
        Command::Run(run) => execute(run).await,
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            println!("conch-conform: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn list(scripts: &Scripts) -> Result<bool> {
    for case in load_folder(&scripts.scripts)? {
        println!("{:32} {}", case.name, case.about);
    }
    Ok(true)
}

async fn execute(run: Run) -> Result<bool> {
    let mut cases = load_folder(&run.scripts.scripts)?;
    if !run.case.is_empty() {
        let known = |name: &String| cases.iter().any(|case: &Case| case.name == *name);
        let unknown: Vec<_> = run.case.iter().filter(|name| !known(name)).collect();
        ensure!(unknown.is_empty(), "there is no case {unknown:?}");
        cases.retain(|case| run.case.contains(&case.name));
    }
    let settings = Settings {
        client: run.client.split_whitespace().map(str::to_owned).collect(),
        folder: fresh_folder("run"),
        jobs: run.jobs,
        patience: run.patience_ms.map(Duration::from_millis),
        transports: run.transport,
        features: run.with,
    };
    let folder = settings.folder.clone();
    let outcomes = run_all(cases, settings).await;
    for outcome in &outcomes {
        println!("{}", line(outcome));
        if run.trace && outcome.failure.is_some() {
            outcome.trace.iter().for_each(|line| println!("    {line}"));
        }
    }
    let failed = outcomes.iter().filter(|it| it.failure.is_some()).count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    if failed == 0 {
        // What stays behind is a nuisance, not a failure.
        let _ = std::fs::remove_dir_all(folder);
    }
    Ok(failed == 0)
}

fn line(outcome: &Outcome) -> String {
    let took = outcome.took.as_millis();
    let (name, over) = (&outcome.name, outcome.transport.to_string());
    match &outcome.failure {
        None => format!("ok     {name:32} {over:9} {took:>6} ms"),
        Some(why) => format!("FAILED {name:32} {over:9} {took:>6} ms  {why}"),
    }
}
