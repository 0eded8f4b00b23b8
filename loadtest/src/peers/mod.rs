//! The servers that Conch is compared with, and one thin generator that can saturate each of them.
//!
//! A [`Peer`] is a name, what it promises when it acknowledges ([`Class`]), and how it is started on loopback. [`start`] gives a
//! [`Running`] one, which makes the [`codec::Codec`] of every connection that a [`topology::Topology`] asks for; the codecs know a
//! protocol and no socket, and [`drive::Drive`] knows sockets and no protocol. Called by `crate::bench` and by tests. A peer
//! whose program is missing, that does not start or whose port is taken is an error with a word about what to do, never a
//! missing figure. Dropping a [`Running`] kills its processes.

pub mod codec;
pub mod conch;
pub mod drive;
pub mod floor;
pub mod mosquitto;
pub mod nats;
pub mod process;
pub mod stamp;
pub mod topology;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use codec::Codec;
use topology::Topology;

/// What is certain about a message when its sender is told that it was taken. Figures of different classes do not compare
/// without saying so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// In the memory of the server, or nothing at all.
    Memory,
    /// Written to a file, and lost with the machine.
    PageCache,
    /// On stable storage.
    Fsync,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Memory => "memory",
            Class::PageCache => "page cache",
            Class::Fsync => "fsync",
        }
    }
}

/// A server under load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Peer {
    /// One-thread relay; appends to a file and lets the system write it.
    Floor,
    /// The same with one fdatasync per batch before acks and deliveries.
    FloorFsync,
    Nats,
    /// File storage, synced every two minutes.
    JetStream,
    /// File storage, synced before every ack.
    JetStreamAlways,
    Mosquitto,
    Conch,
}

impl Peer {
    pub const ALL: [Peer; 7] = [
        Peer::Floor,
        Peer::FloorFsync,
        Peer::Nats,
        Peer::JetStream,
        Peer::JetStreamAlways,
        Peer::Mosquitto,
        Peer::Conch,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Peer::Floor => "floor",
            Peer::FloorFsync => "floor-fsync",
            Peer::Nats => "nats",
            Peer::JetStream => "jetstream",
            Peer::JetStreamAlways => "jetstream-always",
            Peer::Mosquitto => "mosquitto",
            Peer::Conch => "conch",
        }
    }

    pub fn class(self) -> Class {
        match self {
            Peer::Nats | Peer::Mosquitto => Class::Memory,
            Peer::Floor | Peer::JetStream => Class::PageCache,
            Peer::FloorFsync | Peer::JetStreamAlways | Peer::Conch => Class::Fsync,
        }
    }

    /// Whether a sender is told that its message was taken.
    pub fn acknowledges(self) -> bool {
        self != Peer::Nats
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Peer {
    type Err = String;

    fn from_str(name: &str) -> Result<Peer, String> {
        let known = || Peer::ALL.map(Peer::name).join(", ");
        Peer::ALL
            .into_iter()
            .find(|peer| peer.name() == name)
            .ok_or_else(|| format!("no server is called {name:?}; there are {}", known()))
    }
}

/// What a running peer can be asked for.
pub trait Server: Send {
    /// Where its clients connect.
    fn address(&self) -> SocketAddr;

    /// All its processes.
    fn pids(&self) -> Vec<u32>;

    /// Makes ready what the lines of `topology` will use, and gives their codecs, in the order of its lines.
    fn codecs(&mut self, topology: Topology) -> Result<Vec<Box<dyn Codec>>>;

    /// Why it is not running any more, with the end of its output, if it ended.
    fn ended(&mut self) -> Option<String>;

    /// `ip:port` of its Prometheus metrics, if it has some that a case asks for.
    fn metrics(&self) -> Option<String> {
        None
    }
}

/// A started peer.
pub struct Running {
    pub peer: Peer,
    server: Box<dyn Server>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({} at {})", self.peer, self.server.address())
    }
}

impl Running {
    pub fn new(peer: Peer, server: impl Server + 'static) -> Running {
        let server = Box::new(server);
        Running { peer, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn codecs(&mut self, topology: Topology) -> Result<Vec<Box<dyn Codec>>> {
        let peer = self.peer;
        let codecs = self.server.codecs(topology);
        codecs.with_context(|| format!("prepare {peer} for {topology}"))
    }

    /// CPU time that its processes used so far, user and system.
    pub fn cpu(&self) -> Result<Duration> {
        self.sum(process::cpu)
    }

    /// CPU time of those of its threads whose name is wanted, as far as they run still.
    pub fn cpu_of_threads(&self, is_wanted: fn(&str) -> bool) -> Duration {
        let pids = self.server.pids().into_iter();
        pids.map(|pid| process::cpu_of_threads(pid, is_wanted))
            .sum()
    }

    /// Resident memory of its processes, in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        self.sum(process::rss_bytes)
    }

    pub fn pids(&self) -> Vec<u32> {
        self.server.pids()
    }

    pub fn ended(&mut self) -> Option<String> {
        self.server.ended()
    }

    pub fn metrics(&self) -> Option<String> {
        self.server.metrics()
    }

    fn sum<T: std::iter::Sum>(&self, of: fn(u32) -> std::io::Result<T>) -> Result<T> {
        let all: std::io::Result<T> = self.server.pids().into_iter().map(of).sum();
        all.with_context(|| format!("read what {} uses; is it running?", self.peer))
    }
}

/// Starts a peer that needs nothing but a program, with its files in `folder`. Blocking. Conch is started from a template:
/// [`conch::Template`].
pub fn start(peer: Peer, folder: &Path) -> Result<Running> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(match peer {
        Peer::Floor | Peer::FloorFsync => {
            Running::new(peer, floor::Floor::start(folder, peer.class())?)
        }
        Peer::Nats => Running::new(peer, nats::Core::start(folder)?),
        Peer::JetStream | Peer::JetStreamAlways => {
            Running::new(peer, nats::JetStream::start(folder, peer.class())?)
        }
        Peer::Mosquitto => Running::new(peer, mosquitto::Mosquitto::start(folder)?),
        Peer::Conch => anyhow::bail!("conch is started from a template of its data"),
    })
}
