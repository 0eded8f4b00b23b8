//! `conch`: a node. Everything is in the library; here are the allocator and the exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use conch_gateway::cli::{Cli, run};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Failpoints that the environment names; without the feature this is nothing.
    let _failpoints = fail::FailScenario::setup();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody reads it any more, the code still says it.
            let _ = writeln!(std::io::stderr(), "conch: {failure}");
            // At once: nothing that is left may hold the end up, or say anything more to anybody.
            std::process::exit(i32::from(failure.code()))
        }
    }
}
