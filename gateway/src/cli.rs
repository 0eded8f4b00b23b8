//! The command line of `conch`.
//!
//! ```text
//! conch serve [--config FILE] [--data DIR] [--http ADDR] [--metrics ADDR] [--dev] [--ready-file PATH]
//!             [--quic ADDR] [--behind-proxy] [--tls-cert FILE --tls-key FILE]
//! conch config print|check [the same flags]
//! conch data new-generation --data DIR
//! ```

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Flags, LogFormat, Settings};
use crate::exit::Failure;
use crate::node::{Node, Parts};

/// A node of Conch, the chat system.
#[derive(Debug, Parser)]
#[command(name = "conch", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until it is told to stop (SIGTERM, SIGINT; SIGHUP reads the certificate again).
    Serve {
        #[command(flatten)]
        options: Options,
        /// Write a JSON file with the real addresses when the node takes requests.
        #[arg(long, value_name = "PATH")]
        ready_file: Option<PathBuf>,
    },
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Care for a data folder while no node uses it.
    Data {
        #[command(subcommand)]
        command: DataCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the configuration as it is after file, environment and flags; a valid file, without secrets.
    Print(Options),
    /// Check it as `serve` would, without starting; silent when it is fine.
    Check(Options),
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// After restoring a folder from a copy: tell clients that what they know of it may be void.
    NewGeneration {
        /// The data folder.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of HTTP and WebSocket; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// UDP address of QUIC; without it QUIC is off. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    quic: Option<SocketAddr>,
    /// Address of /metrics, on loopback; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Try things out: loopback, plain HTTP, open sign-up, generous limits.
    #[arg(long)]
    dev: bool,
    /// A proxy on this machine speaks TLS.
    #[arg(long)]
    behind_proxy: bool,
    /// Certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl Options {
    fn settings(self) -> Result<Settings, Failure> {
        let flags = Flags {
            dev: self.dev,
            config: self.config,
            data: self.data,
            http: self.http,
            quic: self.quic,
            metrics: self.metrics,
            behind_proxy: self.behind_proxy,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
        };
        // A variable that is not UTF-8 is none of ours.
        let env = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Ok(Settings::load(&flags, env)?)
    }
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve {
            options,
            ready_file,
        } => {
            let dev = options.dev;
            let settings = options.settings()?;
            settings.check(dev)?;
            serve(settings, dev, ready_file)
        }
        Command::Config { command } => match command {
            ConfigCommand::Print(options) => {
                let text = toml::to_string_pretty(&options.settings()?)
                    .map_err(|e| Failure::Other(e.to_string()))?;
                std::io::stdout()
                    .write_all(text.as_bytes())
                    .map_err(Failure::io("printing"))
            }
            ConfigCommand::Check(options) => {
                let dev = options.dev;
                Ok(options.settings()?.check(dev)?)
            }
        },
        Command::Data { command } => match command {
            DataCommand::NewGeneration { data } => {
                let identity = conch_store::embedded::new_generation(&data)?;
                writeln!(std::io::stdout(), "generation {}", identity.generation)
                    .map_err(Failure::io("printing"))
            }
        },
    }
}

fn serve(settings: Settings, dev: bool, ready_file: Option<PathBuf>) -> Result<(), Failure> {
    start_logs(&settings);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.node.workers())
        .enable_all()
        .build()
        .map_err(Failure::io("the runtime"))?;
    let result = runtime.block_on(run_node(settings, dev, ready_file));
    // After a failure nothing is waited for; after a clean stop nothing is left.
    runtime.shutdown_background();
    result
}

async fn run_node(
    settings: Settings,
    dev: bool,
    ready_file: Option<PathBuf>,
) -> Result<(), Failure> {
    // Before the long part of the start, so that a stop during recovery is a stop.
    let on = |kind| signal(kind).map_err(Failure::io("signals"));
    let (mut terminate, mut interrupt, mut hang_up) = (
        on(SignalKind::terminate())?,
        on(SignalKind::interrupt())?,
        on(SignalKind::hangup())?,
    );
    let start = async {
        let parts = Parts::open(&settings, dev).await?;
        Node::start(settings.clone(), parts).await
    };
    let node = tokio::select! {
        node = start => node?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some(path) = &ready_file {
        node.write_ready(path)?;
    }
    tracing::info!(
        node = node.api.settings.node.name,
        http = %node.http,
        metrics = %node.metrics,
        quic = node.quic().map(|quic| tracing::field::display(quic.address)),
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    let signal = loop {
        tokio::select! {
            failure = node.failed() => {
                tracing::error!(error = %failure, "the node cannot go on");
                return Err(failure);
            }
            _ = hang_up.recv() => node.reload(),
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
        }
    };
    tracing::info!(signal, "stopping");
    let hurry = CancellationToken::new();
    let router = node.api.edge.router.clone();
    let stopping = node.shut_down(hurry.clone());
    tokio::pin!(stopping);
    let ended = loop {
        tokio::select! {
            () = &mut stopping => break Ok(()),
            fatal = router.fatal() => break Err(Failure::Log(fatal.to_string())),
            _ = terminate.recv() => hurry.cancel(),
            _ = interrupt.recv() => hurry.cancel(),
        }
    };
    if let Some(path) = &ready_file {
        // It may be gone already; nobody is served wrong by it.
        let _ = std::fs::remove_file(path);
    }
    ended?;
    tracing::info!("stopped");
    Ok(())
}

fn start_logs(settings: &Settings) {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    // Checked with the configuration.
    let filter: Targets = settings.log.filter.parse().unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.log.format {
        LogFormat::Text => registry.with(layer.with_target(false)).init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
}

/// A connection is a descriptor: as many as the system allows without asking.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("the limit of open files could not be raised");
    }
}
