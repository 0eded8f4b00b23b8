//! `conch-load floor`: the relay that is the bound of every comparison, as a process of its own.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use conch_loadtest::peers::floor::{self, RelayPlan, Syncing};

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Port on loopback; 0: one that the system chooses, told in the first line
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File that every message is appended to; made anew
    #[arg(long)]
    journal: PathBuf,
    /// Length of the file, in MiB: written whole at the start, begun again when it is full
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    journal_mib: u64,
    /// One fdatasync per batch, before acks and deliveries
    #[arg(long)]
    fdatasync: bool,
}

/// Relays until it is killed.
pub(crate) async fn run(args: FloorArgs) -> Result<bool> {
    let syncing = if args.fdatasync {
        Syncing::EachBatch
    } else {
        Syncing::Never
    };
    let plan = RelayPlan {
        port: args.port,
        journal: args.journal,
        journal_bytes: args.journal_mib << 20,
        syncing,
    };
    tokio::task::spawn_blocking(move || floor::serve(&plan)).await??;
    Ok(true)
}
