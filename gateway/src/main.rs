//! `conch`: a node. Everything is in the library; here are the allocator and the exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use conch_gateway::cli::{Cli, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Failpoints that the environment names; without the feature this is nothing.
    let _failpoints = fail::FailScenario::setup();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody reads it any more, the code still says it.
            let _ = writeln!(std::io::stderr(), "conch: {failure}");
            ExitCode::from(&failure)
        }
    }
}
