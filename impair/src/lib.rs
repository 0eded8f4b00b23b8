//! A bad network between a client and a node, from a seed: TCP connections and UDP datagrams through a proxy that delays,
//! loses, repeats, reorders, starves, cuts and forgets them.
//!
//! [`Proxy::start`] listens on a free port of loopback and forwards to a target; a [`Profile`] says what happens to each
//! chunk or datagram, and the proxy's methods do what a profile cannot: cut everything now, swallow one direction, leave
//! connections half open, change the port that the node sees, follow a node that comes back elsewhere. Decisions are drawn per connection and direction from the
//! seed, so the n-th datagram of the n-th flow has the same fate in every run; which bytes share a chunk of TCP, and what
//! time it is then, are the scheduler's.
//!
//! TCP is impaired as a stream: what a black hole swallows is kept and delivered when it heals, as retransmission would.
//! Datagrams in a black hole are gone.

mod fate;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What is proxied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    Tcp,
    Udp,
}

/// What happens to every chunk (TCP) or datagram (UDP), each way. The default does nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Profile {
    /// Added one way.
    pub delay: Duration,
    /// Up to so much more, drawn evenly. Does not reorder a stream; does reorder datagrams.
    pub jitter: Duration,
    /// Bytes per second of one direction of one connection.
    pub bytes_per_s: Option<u64>,
    /// Datagrams lost, 0 to 1.
    pub loss: f64,
    /// Datagrams that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Datagrams held back by `reorder_by`, so that later ones overtake them, 0 to 1.
    pub reorder: f64,
    pub reorder_by: Duration,
    /// Chunks of a stream that stop it for `stall_for`, 0 to 1.
    pub stall: f64,
    pub stall_for: Duration,
    /// Chunks of a stream at which its connection is reset, 0 to 1.
    pub cut: f64,
}

/// One way or the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    ToServer,
    ToClient,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// RST, both ends.
    Reset,
    /// FIN, both ends.
    Fin,
}

/// What holds now; watched by all connections.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Where to; `None` while nobody listens there.
    target: Option<SocketAddr>,
    profile: Profile,
    hole_to_server: bool,
    hole_to_client: bool,
    /// Connections with a lower number are forwarded no more, for ever.
    dead_below: u64,
    /// Connections with a lower number are cut.
    cut_below: u64,
    cut: Cut,
    /// How often the address that the server sees was changed.
    rebinds: u64,
    /// Where flows of UDP come from, as the server sees them.
    source: IpAddr,
}

impl Settings {
    fn swallows(&self, number: u64, way: Way) -> bool {
        number < self.dead_below
            || match way {
                Way::ToServer => self.hole_to_server,
                Way::ToClient => self.hole_to_client,
            }
    }
}

/// What happened so far.
#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    forwarded: AtomicU64,
    dropped: AtomicU64,
    duplicated: AtomicU64,
    cuts: AtomicU64,
}

/// What happened so far; chunks of TCP or datagrams of UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Connections, or flows by the client's address.
    pub connections: u64,
    pub forwarded: u64,
    pub dropped: u64,
    pub duplicated: u64,
    /// Connections that were cut, by [`Proxy::cut_all`] or the profile.
    pub cuts: u64,
}

/// What the connections of one proxy share.
#[derive(Debug)]
struct Shared {
    seed: u64,
    settings: watch::Sender<Settings>,
    counters: Counters,
}

/// A proxy; everything through it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `target`.
    pub async fn start(
        carrier: Carrier,
        seed: u64,
        target: SocketAddr,
        profile: Profile,
    ) -> io::Result<Proxy> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Proxy::start_at(carrier, seed, listen, Some(target), profile).await
    }

    /// Listens on `listen` and forwards to `target`, once there is one.
    pub async fn start_at(
        carrier: Carrier,
        seed: u64,
        listen: SocketAddr,
        target: Option<SocketAddr>,
        profile: Profile,
    ) -> io::Result<Proxy> {
        let settings = Settings {
            target,
            profile,
            hole_to_server: false,
            hole_to_client: false,
            dead_below: 0,
            cut_below: 0,
            cut: Cut::Reset,
            rebinds: 0,
            source: Ipv4Addr::LOCALHOST.into(),
        };
        let shared = Arc::new(Shared {
            seed,
            settings: watch::Sender::new(settings),
            counters: Counters::default(),
        });
        let (address, task) = match carrier {
            Carrier::Tcp => {
                let listener = TcpListener::bind(listen).await?;
                let address = listener.local_addr()?;
                (address, tokio::spawn(tcp::listen(listener, shared.clone())))
            }
            Carrier::Udp => {
                let socket = UdpSocket::bind(listen).await?;
                let address = socket.local_addr()?;
                (address, tokio::spawn(udp::listen(socket, shared.clone())))
            }
        };
        Ok(Proxy {
            address,
            shared,
            listening: task.abort_handle(),
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards to another place from here on; with `None` to nowhere: connections are refused, datagrams lost. What is
    /// connected by TCP stays with the old target; datagrams go to the new one.
    pub fn set_target(&self, target: Option<SocketAddr>) {
        self.change(|it| it.target = target);
    }

    /// Another profile from here on, for what is connected too.
    pub fn set_profile(&self, profile: Profile) {
        self.change(|it| it.profile = profile);
    }

    /// Nothing passes this way until [`Proxy::heal`]. Call it for both ways for a whole black hole.
    pub fn black_hole(&self, way: Way) {
        self.change(|it| match way {
            Way::ToServer => it.hole_to_server = true,
            Way::ToClient => it.hole_to_client = true,
        });
    }

    /// No black hole any more. Connections that were left half open stay so.
    pub fn heal(&self) {
        self.change(|it| (it.hole_to_server, it.hole_to_client) = (false, false));
    }

    /// What is connected now is never forwarded again, and neither end is told. New connections work.
    pub fn half_open(&self) {
        let numbered = self.seen().connections;
        self.change(|it| it.dead_below = numbered);
    }

    /// Ends everything that is connected now. A flow of datagrams is forgotten.
    pub fn cut_all(&self, cut: Cut) {
        let numbered = self.seen().connections;
        self.change(|it| (it.cut_below, it.cut) = (numbered, cut));
    }

    /// UDP: from here on the server sees every flow from another port, as after a change of address or a NAT that forgot.
    /// What it still sends to the old one is lost.
    pub fn rebind(&self) {
        self.change(|it| it.rebinds += 1);
    }

    /// UDP: as [`Proxy::rebind`], and from another address of this machine, for flows to come, too.
    pub fn rebind_to(&self, source: IpAddr) {
        self.change(|it| {
            it.source = source;
            it.rebinds += 1;
        });
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        let it = &self.shared.counters;
        Seen {
            connections: it.connections.load(Ordering::Relaxed),
            forwarded: it.forwarded.load(Ordering::Relaxed),
            dropped: it.dropped.load(Ordering::Relaxed),
            duplicated: it.duplicated.load(Ordering::Relaxed),
            cuts: it.cuts.load(Ordering::Relaxed),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        self.shared.settings.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        // Connections run as tasks of their own; this ends them.
        self.change(|it| (it.cut_below, it.cut) = (u64::MAX, Cut::Reset));
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}
