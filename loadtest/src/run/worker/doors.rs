//! Where the devices of a worker connect to: dialers made from the plan, few enough UDP sockets and enough of them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::lookup_host;

use crate::raw::{Endpoint, QuicDialer, Tickets, TlsDialer, Transport, Trust, Windows};
use crate::run::wire::{DoorsPlan, TrustPlan};

/// Connections that share a UDP socket: its receive buffer is theirs together.
const QUIC_CONNECTIONS_PER_SOCKET: usize = 50;

/// Dialers of a worker. Every handshake is a full one: what a node pays at worst.
pub(super) struct Doors {
    plan: DoorsPlan,
    quic_address: Option<SocketAddr>,
    quic: Vec<(Endpoint, usize)>,
    tls: Option<Endpoint>,
}

impl Doors {
    pub(super) async fn new(plan: DoorsPlan) -> Result<Doors> {
        let quic_address = match &plan.quic {
            Some((address, _)) => {
                let mut found = lookup_host(address.as_str())
                    .await
                    .with_context(|| format!("look up {address}"))?;
                Some(found.next().context("the node's name has no address")?)
            }
            None => None,
        };
        let tls = match &plan.tls {
            Some(of) => {
                let dialer =
                    TlsDialer::trusting(&plan.http, &plan.name, &trust(of)?, Tickets::None)?;
                Some(Endpoint::Tls(dialer))
            }
            None => None,
        };
        Ok(Doors {
            plan,
            quic_address,
            quic: Vec::new(),
            tls,
        })
    }

    pub(super) fn endpoint(&mut self, transport: Transport) -> Result<Endpoint> {
        match transport {
            Transport::WebSocket => Ok(Endpoint::WebSocket(self.plan.http.clone())),
            Transport::Tls => self.tls.clone().context("the node does not serve wss"),
            Transport::Quic => {
                let has_room =
                    |(_, used): &&mut (Endpoint, usize)| *used < QUIC_CONNECTIONS_PER_SOCKET;
                if let Some((endpoint, used)) = self.quic.last_mut().filter(has_room) {
                    *used += 1;
                    return Ok(endpoint.clone());
                }
                let (_, of) = self
                    .plan
                    .quic
                    .as_ref()
                    .context("the node does not serve QUIC")?;
                let address = self.quic_address.context("the node does not serve QUIC")?;
                let windows = Windows::default();
                let dialer = QuicDialer::trusting(
                    address,
                    &self.plan.name,
                    &trust(of)?,
                    Tickets::None,
                    windows,
                )?;
                let endpoint = Endpoint::Quic(dialer);
                self.quic.push((endpoint.clone(), 1));
                Ok(endpoint)
            }
        }
    }
}

fn trust(plan: &TrustPlan) -> Result<Trust> {
    Ok(match plan {
        TrustPlan::Certificate(sha256) => Trust::Certificate(sha256.clone()),
        TrustPlan::Roots(pem) => Trust::roots(pem)?,
        TrustPlan::System => Trust::system(),
    })
}
