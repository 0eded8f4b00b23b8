//! `conch-load`: proves and measures a Conch node from the outside.
//!
//! `run` plays a scenario and writes a report, `compare` compares two; `chaos` starts a node of its own, kills it again and
//! again under load, and ends with one verdict line; `measure` takes figures, one line each; `bench` puts Conch beside its
//! peers, of which `floor` is one; `relay` has a fault that a judge of nodes must tell. Nodes that it starts are the `conch`
//! program beside this one. Exit codes: 0 the promise held (the figure was taken, nothing got worse), 1 it was broken
//! (something got worse), 2 the run could not be done, 3 the figures are the generator's, 4 interrupted. Here is only the
//! list of subcommands; each has a file in `cli`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use conch_loadtest::run::worker;

mod cli;

use cli::bench::BenchArgs;
use cli::chaos::ChaosArgs;
use cli::compare::CompareArgs;
use cli::floor::FloorArgs;
use cli::growth::GrowthArgs;
use cli::measure::MeasureArgs;
use cli::relay::RelayArgs;
use cli::run::RunArgs;

/// Proves and measures a Conch node from the outside
#[derive(Debug, Parser)]
#[command(name = "conch-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a load scenario, check every message, write a report
    Run(RunArgs),
    /// Compare two reports of `run`: what got worse by too much fails
    Compare(CompareArgs),
    /// Kill a node again and again under load, and judge what its users saw
    Chaos(ChaosArgs),
    /// Take figures of a node, each beside its floor
    Measure(MeasureArgs),
    /// Stand between clients and a node with a fault that the checker must tell
    Relay(RelayArgs),
    /// Enlarge one thing after the other, and see which costs follow
    Growth(GrowthArgs),
    /// A process of `run`: plays what it is told on its standard input
    #[command(hide = true)]
    Worker,
    /// Put Conch beside its peers, in interleaved rounds
    Bench(BenchArgs),
    /// Run the relay that bounds every comparison
    Floor(FloorArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            say_error(&error);
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Worker = cli.command {
        return worker::run().map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    runtime.block_on(async {
        let passed = match cli.command {
            Command::Run(args) => return cli::run::run(args).await,
            Command::Compare(args) => cli::compare::run(&args)?,
            Command::Chaos(args) => cli::chaos::run(args).await?,
            Command::Measure(args) => cli::measure::run(args).await?,
            Command::Relay(args) => cli::relay::run(args).await?,
            Command::Bench(args) => cli::bench::run(args).await?,
            Command::Floor(args) => cli::floor::run(args).await?,
            Command::Growth(args) => cli::growth::run(args).await?,
            Command::Worker => true,
        };
        Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    })
}

#[allow(clippy::print_stderr)] // a command-line program complains there
fn say_error(error: &anyhow::Error) {
    eprintln!("conch-load: {error:#}");
}
