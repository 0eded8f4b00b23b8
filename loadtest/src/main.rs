//! `conch-load`: proves and measures a Conch node from the outside.
//!
//! `chaos` starts a node of its own, kills it again and again under load, and ends with one verdict line. `measure` takes
//! figures, one line each. Both use the `conch` program beside this one. Exit codes: 0 the promise held (the figure was
//! taken), 1 it was broken, 2 the run could not be done.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use conch_loadtest::chaos::{self, ChaosPlan};
use conch_loadtest::measure::{self, AckPlan, SaturationPlan};
use conch_loadtest::raw::Transport;

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
    /// Datagrams lost and chunks of TCP that stall, in percent; cuts, holes and changes of address come along. 0: none of it
    #[arg(long, env = "CHAOS_LOSS", default_value_t = 5.0)]
    loss_percent: f64,
    /// All devices on WebSocket, in place of half of them
    #[arg(long)]
    no_quic: bool,
    /// The `conch` beside this program was built without failpoints: only kill from outside
    #[arg(long)]
    no_failpoints: bool,
}

#[derive(Debug, Args)]
struct MeasureArgs {
    /// Which figure
    #[arg(value_enum, default_value_t = Figure::All)]
    figure: Figure,
    /// Length of the figures that run for a time, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// `ack` and `cpu`: over what
    #[arg(long, value_enum, default_value_t = Over::Ws)]
    over: Over,
    /// `ack`: sends per second
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// `cpu`: pairs of people
    #[arg(long, default_value_t = 64)]
    pairs: usize,
    /// `cpu`: messages per SEND_MANY
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    batch: u8,
    /// `start`: stored messages
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// `idle`: connections
    #[arg(long, default_value_t = 2_000)]
    connections: usize,
    /// `connect`: connections of each kind
    #[arg(long, default_value_t = 2_000)]
    handshakes: usize,
    /// `fallback` and `resume`: times of each kind
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Folder on the disk that is meant; what is made there is removed at the end
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Figure {
    /// All of them, one after the other
    All,
    /// Durable acks at a steady rate, beside the disk's fdatasync
    Ack,
    /// CPU per message at saturation
    Cpu,
    /// Start to ready with many messages stored; memory at rest
    Start,
    /// Bytes per idle connection, on each transport
    Idle,
    /// CPU per connection made, with full and resumed handshakes
    Connect,
    /// `ack` at 1,000 sends per second and `cpu`, over TLS and over QUIC
    Transports,
    /// Time until the SDK is online, where UDP is dropped too
    Fallback,
    /// Time from a change of address to the next message
    Resume,
}

/// The transports by the names that the figures use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Over {
    Ws,
    Wss,
    Quic,
}

impl From<Over> for Transport {
    fn from(over: Over) -> Transport {
        match over {
            Over::Ws => Transport::WebSocket,
            Over::Wss => Transport::Tls,
            Over::Quic => Transport::Quic,
        }
    }
}

/// `transports`: sends per second at the steady rate.
const STEADY_RATE: u32 = 1_000;

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
        Command::Measure(args) => run_measure(args).await,
    }
}

async fn run_measure(args: MeasureArgs) -> Result<bool> {
    let temporary = tempfile::Builder::new()
        .prefix("conch-measure-")
        .tempdir_in(&args.folder)
        .with_context(|| format!("make a folder in {}", args.folder.display()))?;
    let folder = temporary.path();
    let wanted = |figure| args.figure == figure || args.figure == Figure::All;
    let ack = |transport, rate| AckPlan {
        transport,
        rate,
        seconds: args.seconds,
    };
    let saturation = |transport| SaturationPlan {
        transport,
        pairs: args.pairs,
        batch: args.batch.into(),
        seconds: args.seconds,
    };
    if wanted(Figure::Ack) {
        let plan = ack(args.over.into(), args.rate);
        say(&measure::ack(folder, plan).await?);
    }
    if wanted(Figure::Cpu) {
        say(&measure::saturate(folder, saturation(args.over.into())).await?);
    }
    if wanted(Figure::Start) {
        say(&measure::start(folder, args.messages).await?);
    }
    if wanted(Figure::Idle) {
        for transport in [Transport::WebSocket, Transport::Tls, Transport::Quic] {
            say(&measure::idle(folder, transport, args.connections).await?);
        }
    }
    if wanted(Figure::Connect) {
        say(&measure::connect(folder, args.handshakes).await?);
    }
    if wanted(Figure::Transports) {
        for transport in [Transport::Tls, Transport::Quic] {
            say(&measure::ack(folder, ack(transport, STEADY_RATE)).await?);
        }
        for transport in [Transport::Tls, Transport::Quic] {
            say(&measure::saturate(folder, saturation(transport)).await?);
        }
    }
    if wanted(Figure::Fallback) {
        say(&measure::fallback(folder, args.rounds).await?);
    }
    if wanted(Figure::Resume) {
        say(&measure::resume(folder, args.rounds).await?);
    }
    Ok(true)
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
        loss: args.loss_percent / 100.0,
        quic: !args.no_quic,
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
