//! Mosquitto with MQTT 3.1.1 at QoS 1, as Debian packages it; everything stays in memory.
//!
//! Its limits are lifted by ordinary configuration, as Conch's are: windows and queues without a bound, no delay of small packets.
//! It cannot choose a port itself, so free ones are tried until one holds.

mod codec;
mod packet;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Server;
use super::codec::Codec;
use super::process::Process;
use super::topology::Topology;

/// What to do when the program is missing.
pub const REMEDY: &str = "run `make setup-bench`, or set MOSQUITTO to the program";
/// Ports tried: each was free a moment ago.
const TRIES: usize = 5;

/// The program: `MOSQUITTO`, else Debian's.
pub fn program() -> PathBuf {
    let named = std::env::var_os("MOSQUITTO").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from("/usr/sbin/mosquitto"))
}

/// A broker.
#[derive(Debug)]
pub struct Mosquitto {
    process: Process,
    address: SocketAddr,
}

impl Mosquitto {
    pub fn start(folder: &Path) -> Result<Mosquitto> {
        let mut tried = Mosquitto::try_start(folder);
        for _ in 1..TRIES {
            if tried.is_ok() {
                break;
            }
            tried = Mosquitto::try_start(folder);
        }
        tried
    }

    fn try_start(folder: &Path) -> Result<Mosquitto> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        let address = free.local_addr()?;
        drop(free);
        let configuration = folder.join("mosquitto.conf");
        let port = address.port();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
             max_inflight_messages 0\nmax_queued_messages 0\nlog_dest stderr\n"
        );
        fs::write(&configuration, text)
            .with_context(|| format!("write {}", configuration.display()))?;
        let mut command = Command::new(program());
        command.arg("-c").arg(configuration);
        let mut process = Process::spawn("mosquitto", command, folder, REMEDY)?;
        process.until("listener", |it| {
            let says_so = it.output().contains(" running");
            (says_so && TcpStream::connect(address).is_ok()).then_some(())
        })?;
        Ok(Mosquitto { process, address })
    }
}

impl Server for Mosquitto {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.pid()]
    }

    fn codecs(&mut self, topology: Topology) -> Result<Vec<Box<dyn Codec>>> {
        let lines = topology.lines().into_iter().enumerate();
        Ok(lines
            .map(|(at, line)| codec::MqttCodec::boxed(at, line))
            .collect())
    }

    fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }
}
