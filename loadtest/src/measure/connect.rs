//! What a connection costs the node to make: from the first packet to the first page of changes, by transport, with full and
//! with resumed handshakes.
//!
//! Lanes of one dialer each connect one after the other, so few handshakes are under way at once. Without TLS the same takes
//! what the session itself costs; the difference is the transport's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::disk::latencies;
use super::{api, fresh_node, generator_cpu, hello, sign_up};
use crate::http::Login;
use crate::node::Node;
use crate::raw::{Endpoint, FullHandshakes, RawClient, Tickets, Transport};

/// Connections under way at once.
const LANES: usize = 4;

/// Costs of connecting.
#[derive(Debug)]
pub struct ConnectFigures {
    pub rows: Vec<ConnectRow>,
}

/// One way to connect.
#[derive(Debug)]
pub struct ConnectRow {
    pub transport: Transport,
    /// Connections, and how many of them had a full handshake.
    pub connections: usize,
    pub full: u64,
    /// CPU time of the node per connection, and the generator's.
    pub node_cpu_us: f64,
    pub generator_cpu_us: f64,
    /// p50 and p99, to the first page of changes.
    pub took_us: [u64; 2],
}

impl fmt::Display for ConnectFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connect: handshake, HELLO, WELCOME, first page of changes, close; {LANES} at once:"
        )?;
        for row in &self.rows {
            let kind = match (row.transport, row.full) {
                (Transport::WebSocket, _) => "without TLS".to_owned(),
                (_, 0) => "all resumed".to_owned(),
                (_, full) if full == row.connections as u64 => "all full".to_owned(),
                (_, full) => format!("{full} full"),
            };
            write!(
                f,
                "\n  {:<4} {kind:<11} {} connections: {:.0} CPU-µs of the node each, {:.0} of the generator; p50 {} µs, p99 {} µs",
                row.transport.to_string(),
                row.connections,
                row.node_cpu_us,
                row.generator_cpu_us,
                row.took_us[0],
                row.took_us[1],
            )?;
        }
        Ok(())
    }
}

/// Measures `connections` of each way.
pub async fn connect(folder: &Path, connections: usize) -> Result<ConnectFigures> {
    let mut rows = Vec::new();
    for (transport, tickets) in [
        (Transport::WebSocket, Tickets::None),
        (Transport::Tls, Tickets::None),
        (Transport::Tls, Tickets::Kept),
        (Transport::Quic, Tickets::None),
        (Transport::Quic, Tickets::Kept),
    ] {
        let name = format!("connect-{transport}-{tickets:?}");
        let (_plan, node) = fresh_node(folder, &name, transport).await?;
        rows.push(one_way(&node, transport, tickets, connections).await?);
    }
    Ok(ConnectFigures { rows })
}

async fn one_way(
    node: &Node,
    transport: Transport,
    tickets: Tickets,
    connections: usize,
) -> Result<ConnectRow> {
    let people = sign_up(&api(node)?, LANES).await?;
    let mut lanes = Vec::new();
    for login in people {
        let endpoint = node.doors().endpoint_with(transport, tickets)?;
        // Not measured: caches, and the ticket that the next one resumes.
        connect_once(&endpoint, &login).await?;
        lanes.push((endpoint, login));
    }
    let full_before: u64 = lanes.iter().map(|(it, _)| full(it)).sum();
    let (node_before, own_before) = (node.cpu()?, generator_cpu());
    let left = Arc::new(AtomicUsize::new(connections));
    let mut running = JoinSet::new();
    for (endpoint, login) in lanes.clone() {
        running.spawn(lane(endpoint, login, Arc::clone(&left)));
    }
    let mut took = latencies();
    while let Some(lane) = running.join_next().await {
        took.add(lane??)?;
    }
    // What a close leaves to be done belongs to it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = |used: Duration| used.as_micros() as f64 / connections as f64;
    let full_after: u64 = lanes.iter().map(|(it, _)| full(it)).sum();
    let row = ConnectRow {
        transport,
        connections,
        full: full_after - full_before,
        node_cpu_us: each(node.cpu()?.saturating_sub(node_before)),
        generator_cpu_us: each(generator_cpu().saturating_sub(own_before)),
        took_us: [took.value_at_quantile(0.5), took.value_at_quantile(0.99)],
    };
    ensure!(
        tickets == Tickets::None || row.full * 20 < connections as u64,
        "{} of {connections} handshakes over {transport} were not resumed",
        row.full
    );
    Ok(row)
}

fn full(endpoint: &Endpoint) -> u64 {
    endpoint.full_handshakes().map_or(0, FullHandshakes::count)
}

async fn lane(endpoint: Endpoint, login: Login, left: Arc<AtomicUsize>) -> Result<Histogram<u64>> {
    let mut took = latencies();
    let take = |n: usize| n.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let began = Instant::now();
        connect_once(&endpoint, &login).await?;
        took.saturating_record(began.elapsed().as_micros() as u64);
    }
    Ok(took)
}

async fn connect_once(endpoint: &Endpoint, login: &Login) -> Result<()> {
    let (mut client, _) = RawClient::open_at(endpoint, hello(login)).await?;
    client.first_changes().await?;
    Ok(())
}
