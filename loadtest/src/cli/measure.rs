//! `conch-load measure`: its arguments, and the figures they ask for.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use conch_loadtest::measure::{self, AckPlan, FanOutPlan, IdleFigures, SaturationPlan};
use conch_loadtest::raw::Transport;

use super::say;

#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Which figure
    #[arg(value_enum, default_value_t = Figure::All)]
    figure: Figure,
    /// Length of the figures that run for a time, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// `ack`, `cpu` and `fanout`: over what
    #[arg(long, value_enum, default_value_t = Over::Ws)]
    over: Over,
    /// `ack`: sends per second
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// `cpu`: pairs of people
    #[arg(long, default_value_t = 64)]
    pairs: usize,
    /// `fanout`: people in the group, senders included
    #[arg(long, default_value_t = 101)]
    members: usize,
    /// `fanout`: how many of them write
    #[arg(long, default_value_t = 1)]
    senders: usize,
    /// `cpu` and `fanout`: messages per SEND_MANY
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    batch: u8,
    /// `start`: stored messages
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// `idle`: most connections; without it as many as the node's descriptors allow
    #[arg(long)]
    connections: Option<usize>,
    /// `connect`: connections of each kind
    #[arg(long, default_value_t = 2_000)]
    handshakes: usize,
    /// `fallback` and `resume`: times of each kind
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// `checker`: messages in each shape of run
    #[arg(long, default_value_t = 10_000_000)]
    checked: u64,
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
    /// CPU per delivery when one message goes to a whole group
    Fanout,
    /// Start to ready with many messages stored; memory at rest
    Start,
    /// Bytes per idle connection, on each transport, at growing numbers of them
    Idle,
    /// CPU per connection made, with full and resumed handshakes
    Connect,
    /// `ack` at 1,000 sends per second and `cpu`, over TLS and over QUIC
    Transports,
    /// Time until the SDK is online, where UDP is dropped too
    Fallback,
    /// Time from a change of address to the next message
    Resume,
    /// What the checker costs who runs it: time per call, bytes per message
    Checker,
}

/// The transports by the names that the figures use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Over {
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

/// Takes the figures; true: all were taken.
pub(crate) async fn run(args: MeasureArgs) -> Result<bool> {
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
    if wanted(Figure::Fanout) {
        let plan = FanOutPlan {
            transport: args.over.into(),
            members: args.members,
            senders: args.senders,
            batch: args.batch.into(),
            seconds: args.seconds,
        };
        say(&measure::fanout(folder, plan).await?);
    }
    if wanted(Figure::Start) {
        say(&measure::start(folder, args.messages).await?);
    }
    if wanted(Figure::Idle) {
        let transports = [Transport::WebSocket, Transport::Tls, Transport::Quic];
        measure::idle(folder, &transports, args.connections, say_idle).await?;
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
    if wanted(Figure::Checker) {
        say(&measure::checking(args.checked)?);
    }
    Ok(true)
}

fn say_idle(figures: &IdleFigures) {
    say(figures);
}
