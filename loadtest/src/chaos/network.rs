//! The bad network of a kill proof: one impairment proxy for each transport, and the weather on them.
//!
//! Both listen on an address of their own with ports that hold for the whole run. QUIC's is the node's own port, because
//! a client that was told a port combines it with the host that it knows; so the node keeps that port over its lives, as
//! nodes do. TCP is repaired by the kernel whatever is lost: its share of chunks stalls for a retransmission timeout
//! instead, and a few reset the connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use conch_impair::{Carrier, Cut, Profile, Proxy, Seen, Way};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::node::Node;
use crate::raw::{Doors, QuicDoor};

/// Where the proxies listen: loopback, and not the node's address.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// What one lost segment costs a stream: the least retransmission timeout of common kernels.
const STALL: Duration = Duration::from_millis(200);

/// The proxies of a run.
#[derive(Debug)]
pub(super) struct Network {
    tcp: Proxy,
    udp: Option<Proxy>,
}

impl Network {
    /// In front of a node that listens now.
    pub(super) async fn start(seed: u64, loss: f64, node: &Node) -> Result<Network> {
        let doors = node.doors();
        let profile = profile(loss);
        let listen = SocketAddr::new(HOST, 0);
        let tcp = Proxy::start_at(
            Carrier::Tcp,
            seed,
            listen,
            Some(doors.http.parse()?),
            profile,
        )
        .await?;
        let udp = match doors.quic {
            Some(quic) => {
                let listen = SocketAddr::new(HOST, quic.address.port());
                let target = Some(quic.address);
                let proxy = Proxy::start_at(Carrier::Udp, seed, listen, target, profile);
                Some(proxy.await.context("listen on the port of QUIC")?)
            }
            None => None,
        };
        Ok(Network { tcp, udp })
    }

    /// `http://ip:port` for everybody and for good.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}", self.tcp.address())
    }

    /// Leads to this life of the node from here on.
    pub(super) fn lead_to(&self, node: &Node) -> Result<Doors> {
        let doors = node.doors();
        self.tcp.set_target(Some(doors.http.parse()?));
        Ok(self.in_front_of(doors))
    }

    /// The node is down.
    pub(super) fn lead_nowhere(&self) {
        self.tcp.set_target(None);
    }

    fn in_front_of(&self, doors: Doors) -> Doors {
        Doors {
            http: self.tcp.address().to_string(),
            quic: doors
                .quic
                .zip(self.udp.as_ref())
                .map(|(quic, udp)| QuicDoor {
                    address: udp.address(),
                    certificate_sha256: quic.certificate_sha256,
                }),
        }
    }

    /// Nothing is swallowed any more. Loss and delay go on.
    pub(super) fn clear_up(&self) {
        for proxy in self.proxies() {
            proxy.heal();
        }
    }

    /// What the proxy of TCP and the one of UDP did.
    pub(super) fn seen(&self) -> (Seen, Option<Seen>) {
        (self.tcp.seen(), self.udp.as_ref().map(Proxy::seen))
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        std::iter::once(&self.tcp).chain(&self.udp)
    }
}

fn profile(loss: f64) -> Profile {
    if loss == 0.0 {
        return Profile::default();
    }
    Profile {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(8),
        bytes_per_s: None,
        loss,
        duplicate: loss / 2.0,
        reorder: loss / 2.0,
        reorder_by: Duration::from_millis(20),
        stall: loss,
        stall_for: STALL,
        cut: loss / 100.0,
    }
}

/// What the weather did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Storms {
    pub cuts: u64,
    pub holes: u64,
    pub half_opens: u64,
    pub rebinds: u64,
}

/// Draws what happens to the network beside loss.
pub(super) struct Weather {
    rng: StdRng,
    /// Whether connections may be left half open: a client needs the protocol's 45 s to notice, so a run must be longer.
    half_opens: bool,
}

impl Weather {
    pub(super) fn new(seed: u64, half_opens: bool) -> Weather {
        Weather {
            rng: StdRng::seed_from_u64(seed),
            half_opens,
        }
    }

    /// Storms until it is dropped; tells of each through `storms`.
    pub(super) async fn rage(
        mut self,
        network: &Network,
        storms: &tokio::sync::watch::Sender<Storms>,
    ) {
        loop {
            let pause = self.rng.random_range(300..2_500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let on_udp = self.rng.random();
            let proxy = match &network.udp {
                Some(udp) if on_udp => udp,
                _ => &network.tcp,
            };
            match self.rng.random_range(0..10) {
                0..=2 => {
                    let cut = if self.rng.random() {
                        Cut::Reset
                    } else {
                        Cut::Fin
                    };
                    proxy.cut_all(cut);
                    storms.send_modify(|it| it.cuts += 1);
                }
                3..=5 => {
                    storms.send_modify(|it| it.holes += 1);
                    let ways = [Way::ToServer, Way::ToClient];
                    let swallowed = match self.rng.random_range(0..3) {
                        0 => &ways[..1],
                        1 => &ways[1..],
                        _ => &ways[..],
                    };
                    for way in swallowed {
                        proxy.black_hole(*way);
                    }
                    let dark = self.rng.random_range(50..1_500);
                    tokio::time::sleep(Duration::from_millis(dark)).await;
                    proxy.heal();
                }
                6 if self.half_opens => {
                    storms.send_modify(|it| it.half_opens += 1);
                    proxy.half_open();
                }
                _ => {
                    if let Some(udp) = &network.udp {
                        storms.send_modify(|it| it.rebinds += 1);
                        udp.rebind();
                    }
                }
            }
        }
    }
}
