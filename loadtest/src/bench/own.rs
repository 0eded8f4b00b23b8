//! Cases that have no peer: Conch's transports against each other, its handshakes, its idle sessions. Figures of `crate::measure`.

use std::path::Path;

use anyhow::Result;

use super::Case;
use super::ledger::Entry;
use crate::measure::{self, SaturationPlan};
use crate::peers::Peer;
use crate::raw::Transport;

const PAIRS: usize = 64;
/// Messages per SEND_MANY: batched, and each on its own.
const BATCHES: [usize; 2] = [16, 1];
const HANDSHAKES: usize = 1_000;
const IDLE_CONNECTIONS: usize = 1_000;

fn entry(case: String, values: Vec<(&'static str, f64)>) -> Entry {
    Entry {
        case,
        class: Peer::Conch.class(),
        server: Peer::Conch.to_string(),
        values,
        invalid: None,
    }
}

/// CPU per message over WebSocket with TLS and over QUIC.
pub(super) async fn transports(folder: &Path, seconds: u64) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for batch in BATCHES {
        for transport in [Transport::Tls, Transport::Quic] {
            let folder = folder.join(format!("{transport}-{batch}"));
            let plan = SaturationPlan {
                transport,
                pairs: PAIRS,
                batch,
                seconds,
            };
            let figures = measure::saturate(&folder, plan).await?;
            let per_s = figures.delivered as f64 / figures.took.as_secs_f64();
            let values = vec![
                ("cpu_us_per_delivery", figures.cpu_us()),
                ("deliveries_per_s", per_s),
            ];
            entries.push(entry(transport_case(transport, batch), values));
        }
    }
    Ok(entries)
}

pub(super) fn transport_case(transport: Transport, batch: usize) -> String {
    format!("{}-{transport}-by-{batch}", Case::Transports)
}

/// CPU per connection made.
pub(super) async fn connect(folder: &Path) -> Result<Vec<Entry>> {
    let figures = measure::connect(folder, HANDSHAKES).await?;
    let row = |row: measure::ConnectRow| {
        let kind = match (row.transport, row.full) {
            (Transport::WebSocket, _) => "plain",
            (_, full) if full == row.connections as u64 => "full",
            _ => "resumed",
        };
        let values = vec![
            ("cpu_us_per_connection", row.node_cpu_us),
            ("connect_p50_us", row.took_us[0] as f64),
            ("connect_p99_us", row.took_us[1] as f64),
        ];
        entry(
            format!("{}-{}-{kind}", Case::Connect, row.transport),
            values,
        )
    };
    Ok(figures.rows.into_iter().map(row).collect())
}

/// Memory per idle session.
pub(super) async fn idle(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let transports = [Transport::WebSocket, Transport::Tls, Transport::Quic];
    let done = |figures: &measure::IdleFigures| {
        let values = vec![
            ("bytes_per_connection", figures.bytes_each()),
            ("kernel_bytes_per_connection", figures.kernel_bytes_each()),
        ];
        let case = format!("{}-{}", Case::Idle, figures.transport);
        entries.push(entry(case, values));
    };
    measure::idle(folder, &transports, Some(IDLE_CONNECTIONS), done).await?;
    Ok(entries)
}
