//! `conch-load`: proves and measures a Conch node from the outside.
//!
//! `chaos` starts a node of its own, kills it again and again under load, and ends with one verdict line. `measure` takes
//! figures, one line each. Both use the `conch` program beside this one. Exit codes: 0 the promise held (the figure was
//! taken), 1 it was broken, 2 the run could not be done. Here is only the list of subcommands; each has a file in `cli`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod cli;

use cli::chaos::ChaosArgs;
use cli::measure::MeasureArgs;

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
    /// Take figures of a node, each beside its floor
    Measure(MeasureArgs),
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
        Command::Chaos(args) => cli::chaos::run(args).await,
        Command::Measure(args) => cli::measure::run(args).await,
    }
}

#[allow(clippy::print_stderr)] // a command-line program complains there
fn say_error(error: &anyhow::Error) {
    eprintln!("conch-load: {error:#}");
}
