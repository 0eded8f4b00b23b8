//! A client that stops reading among healthy ones: what it costs the others, the server's memory and the kernel's.

use std::time::Duration;

use anyhow::Result;

use super::Case;
use super::case::steady;
use super::ledger::Entry;
use crate::peers::Running;
use crate::peers::drive::{Drive, Shape};
use crate::peers::topology::Topology;
use crate::stop::Stop;

pub(super) const TOPOLOGY: Topology = Topology::Fan(20);
/// Messages per second, 100 bytes each: the stalled client would get more than 1 MB.
const RATE: u32 = 2_000;

/// The same load without and with the stalled client, one after the other on the same connections. Blocking.
pub(super) fn measure(mut server: Running, seconds: u64, stop: &Stop) -> Result<Vec<Entry>> {
    let mut drive = Drive::connect(&mut server, TOPOLOGY, stop)?;
    let mut load = steady(Shape::Open { rate: RATE }, Duration::from_secs(seconds));
    load.rest_within = Duration::ZERO;
    let rss_before = server.rss_bytes()?;
    let healthy = drive.run(&mut server, &load)?;
    load.stalled = true;
    let beside = drive.run(&mut server, &load)?;
    // A log and an index grow with every message: only what the stalled client adds to that is its own.
    let grown_healthy = healthy.rss_bytes.saturating_sub(rss_before);
    let grown_beside = beside.rss_bytes.saturating_sub(healthy.rss_bytes);
    let p99 = |of: &crate::peers::drive::Outcome| of.delivery_us.value_at_quantile(0.99) as f64;
    let kernel = beside.stalled_kernel_bytes.unwrap_or_default() as f64;
    let process = grown_beside.saturating_sub(grown_healthy) as f64;
    Ok(vec![Entry {
        case: Case::Stalled.name().to_owned(),
        class: server.peer.class(),
        server: server.peer.to_string(),
        values: vec![
            ("delivery_p99_us_all_healthy", p99(&healthy)),
            ("delivery_p99_us_beside_stalled", p99(&beside)),
            ("kernel_bytes_for_stalled", kernel),
            ("process_growth_bytes", process),
        ],
        invalid: healthy.invalid().or_else(|| beside.invalid()),
    }])
}
