//! `floor`: the least that a server of this kind can do, as the physical bound of every comparison.
//!
//! A relay of one thread and one epoll: a message comes with its channel, gets the channel's next seq, is appended to a file,
//! is acknowledged to its sender and goes to the channel's subscribers. Nobody logs in, nothing is looked up, encrypted, indexed or
//! remembered. `frame` is its protocol, `relay` the loop, `journal` the file, `codec` the client's half. It runs as
//! `conch-load floor`, a process of its own like every other peer.

mod codec;
mod frame;
mod journal;
mod relay;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

pub use codec::FloorCodec;
pub use journal::Syncing;
pub use relay::{Relay, RelayPlan};

use super::codec::Codec;
use super::process::Process;
use super::topology::Topology;
use super::{Class, Server};
use crate::node;

/// What the relay writes before the address that it listens at.
pub const LISTENING: &str = "floor listens at ";

/// A relay in a process of its own.
#[derive(Debug)]
pub struct Floor {
    process: Process,
    address: SocketAddr,
}

impl Floor {
    /// Starts `conch-load floor` with its file in `folder`.
    pub fn start(folder: &Path, class: Class) -> Result<Floor> {
        let mut command = Command::new(node::program("conch-load")?);
        command
            .arg("floor")
            .arg("--journal")
            .arg(folder.join("floor.journal"))
            .args((class == Class::Fsync).then_some("--fdatasync"));
        let remedy = "run `make build`";
        let mut process = Process::spawn("floor", command, folder, remedy)?;
        let address = process.until("address", |it| {
            let output = it.output();
            let rest = output.split_once(LISTENING)?.1;
            rest.split_once('\n')?.0.parse().ok()
        })?;
        Ok(Floor { process, address })
    }
}

impl Server for Floor {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.pid()]
    }

    fn codecs(&mut self, topology: Topology) -> Result<Vec<Box<dyn Codec>>> {
        let lines = topology.lines().into_iter();
        Ok(lines.map(FloorCodec::boxed).collect())
    }

    fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }
}

/// Runs the relay in this process until it fails. Says where it listens once it does.
#[allow(clippy::print_stdout)] // the process that started this one reads there
pub fn serve(plan: &RelayPlan) -> Result<()> {
    let mut relay = Relay::bind(plan, (Ipv4Addr::LOCALHOST, plan.port).into())
        .with_context(|| format!("listen at port {} of loopback", plan.port))?;
    println!("{LISTENING}{}", relay.address()?);
    relay.run().context("the relay failed")
}
