//! `conch-load bench`: its arguments.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use conch_loadtest::bench::{self, BenchPlan, Case};
use conch_loadtest::peers::Peer;
use conch_loadtest::stop::Stop;

use super::say;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Rounds; in each, every case is run on every server
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Cases, separated by commas; all of them if left out
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    /// Servers, separated by commas; all of them if left out
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Peer>,
    /// Length of what is measured under load, in seconds
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// The same where Conch is saturated: index work and compaction belong to it
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    saturated_seconds: u64,
    /// Folder on the disk that is meant, if that is not the one of the results; what is made there is removed at the end
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Folder for `table.json` and `run.json`
    #[arg(long, default_value = "target/bench")]
    results: PathBuf,
    /// Document whose tables are written anew, between its markers
    #[arg(long)]
    document: Option<PathBuf>,
}

pub(crate) async fn run(args: BenchArgs) -> Result<bool> {
    let or_all = |chosen: Vec<Case>| match chosen.is_empty() {
        true => Case::ALL.to_vec(),
        false => chosen,
    };
    let plan = BenchPlan {
        rounds: args.rounds,
        cases: or_all(args.cases),
        servers: match args.servers.is_empty() {
            true => Peer::ALL.to_vec(),
            false => args.servers,
        },
        seconds: args.seconds,
        saturated_seconds: args.saturated_seconds,
        folder: args.folder.unwrap_or_else(|| args.results.clone()),
        results: args.results,
        document: args.document,
        command: std::env::args()
            .skip(1)
            .fold("conch-load".to_owned(), |all, it| all + " " + &it),
    };
    let report = bench::run(&plan, Stop::on_signals()?, |line| say(&line)).await?;
    say(&report);
    Ok(report.is_whole)
}
