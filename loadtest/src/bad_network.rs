//! The impairment proxies in front of a node: one for TCP, one for UDP where it has QUIC, at one address of their own.
//!
//! Clients are told the proxies' address once and keep it over all lives of the node, as they keep a host name. QUIC's port is
//! the node's own, because a client that was told a port combines it with the host that it knows; so the proxies need
//! another address of loopback than the node, and a node that is started again must be given the same port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use conch_impair::{Carrier, Profile, Proxy, Seen};

use crate::node::Node;
use crate::raw::{Doors, QuicDoor};

/// Both proxies.
#[derive(Debug)]
pub struct BadNetwork {
    pub tcp: Proxy,
    pub udp: Option<Proxy>,
}

impl BadNetwork {
    /// At 127.0.`host`, in front of a node that listens now. Those of one node need different hosts.
    pub async fn start(
        host: [u8; 2],
        seed: u64,
        profile: Profile,
        node: &Node,
    ) -> Result<BadNetwork> {
        let host = IpAddr::V4(Ipv4Addr::new(127, 0, host[0], host[1]));
        let doors = node.doors();
        let http = Some(doors.http.parse()?);
        let listen = SocketAddr::new(host, 0);
        let tcp = Proxy::start_at(Carrier::Tcp, seed, listen, http, profile).await?;
        let udp = match doors.quic {
            Some(quic) => {
                let listen = SocketAddr::new(host, quic.address.port());
                let target = Some(quic.address);
                let proxy = Proxy::start_at(Carrier::Udp, seed, listen, target, profile);
                Some(proxy.await.context("listen on the port of QUIC")?)
            }
            None => None,
        };
        Ok(BadNetwork { tcp, udp })
    }

    /// `http://ip:port` for everybody and for good.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.tcp.address())
    }

    /// Leads to this life of the node from here on; gives where clients connect to.
    pub fn lead_to(&self, node: &Node) -> Result<Doors> {
        let doors = node.doors();
        self.tcp.set_target(Some(doors.http.parse()?));
        Ok(Doors {
            http: self.tcp.address().to_string(),
            http_certificate_sha256: doors.http_certificate_sha256,
            quic: doors
                .quic
                .zip(self.udp.as_ref())
                .map(|(quic, udp)| QuicDoor {
                    address: udp.address(),
                    certificate_sha256: quic.certificate_sha256,
                }),
        })
    }

    /// The node is down: who connects is refused.
    pub fn lead_nowhere(&self) {
        self.tcp.set_target(None);
    }

    /// Both, or the one there is.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        std::iter::once(&self.tcp).chain(&self.udp)
    }

    /// What the proxy of TCP and the one of UDP did.
    pub fn seen(&self) -> (Seen, Option<Seen>) {
        (self.tcp.seen(), self.udp.as_ref().map(Proxy::seen))
    }
}
