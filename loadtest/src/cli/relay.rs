//! `conch-load relay`: a relay with a fault in front of a node, until it is interrupted.

use anyhow::{Context, Result, ensure};
use clap::Args;
use conch_loadtest::relay::{FAULTS, Fault, Plan, Relay};

use super::say;

#[derive(Debug, Args)]
#[command(after_help = faults())]
pub(crate) struct RelayArgs {
    /// The node, `ip:port` or `http://ip:port`
    node: String,
    /// The fault; without it everything passes as it is
    #[arg(long)]
    fault: Option<Fault>,
    /// Where: a seq of each channel, or the number of a frame with sends on each connection, by the fault
    #[arg(long, default_value_t = 5)]
    at: u32,
}

/// Relays; true when it is interrupted.
pub(crate) async fn run(args: RelayArgs) -> Result<bool> {
    let node = args.node.strip_prefix("http://").unwrap_or(&args.node);
    let node = node.trim_end_matches('/');
    ensure!(
        !node.contains('/') && node.contains(':'),
        "{:?} is no address of a node: give ip:port, or http://ip:port; there is no relay for TLS",
        args.node
    );
    let plan = Plan {
        fault: args.fault,
        at: args.at,
    };
    let relay = Relay::start(node, plan).await.context("listen")?;
    say(&relay.base_url());
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    Ok(true)
}

fn faults() -> String {
    format!("Faults: {}", FAULTS.map(|(name, _)| name).join(", "))
}
