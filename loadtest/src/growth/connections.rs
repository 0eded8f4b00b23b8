//! Connections at rest, 100 to 15,000, beside the same steady load of 50 pairs: what a message costs, how long its ack
//! takes, and what memory the node has.

use std::path::Path;

use anyhow::Result;

use super::probe::Probe;
use super::{Point, Scale};
use crate::crowd::{Crowd, Population};
use crate::measure::{api, fresh_node, hello, pairs};
use crate::raw::{RawClient, Transport};

const PAIRS: usize = 50;
/// Messages per second.
const RATE: u32 = 500;
/// Resting connections of one person: what a node allows. Here the connection is what counts, not the person.
const PER_PERSON: usize = 20;
const CHANNELS: usize = 5;

pub(super) async fn sweep(
    folder: &Path,
    scale: &Scale,
    done: &mut impl FnMut(Point),
) -> Result<()> {
    let most = scale.connections.iter().copied().max().unwrap_or(0);
    let (_plan, node) = fresh_node(folder, "growth-connections", Transport::WebSocket).await?;
    let api = api(&node)?;
    let population = Population::make(&api, most.div_ceil(PER_PERSON), CHANNELS).await?;
    let endpoint = node.doors().endpoint(Transport::WebSocket)?;
    let mut probe = Probe::new();
    let mut targets = Vec::new();
    for pair in pairs(&api, PAIRS).await? {
        let (mut sender, _) = RawClient::open_at(&endpoint, hello(&pair.sender)).await?;
        let (receiver, _) = RawClient::open_at(&endpoint, hello(&pair.receiver)).await?;
        let alias = sender.open_fresh(pair.channel, 1).await?.alias;
        targets.push((probe.add_sender(sender), alias));
        probe.add_receiver(receiver);
    }
    probe.set_targets(targets);
    let mut crowd = Crowd::new(endpoint, &population);
    for &connections in &scale.connections {
        // The load's own are connections too.
        crowd.grow(connections.saturating_sub(2 * PAIRS)).await?;
        probe.round(&node, RATE, scale.round / 2, 1).await?;
        let mut point = Point::new(connections);
        for _ in 0..scale.rounds {
            let idle = probe.idle(&node, scale.round / 2).await?;
            let round = probe.round(&node, RATE, scale.round, 1).await?;
            point.add("cpu_us_per_message", round.cpu_us_per_message(idle));
            point.add("ack_p50_us", round.ack_p50_us as f64);
            point.add("idle_cpu_percent", idle * 100.0);
            point.add(
                "resident_mib",
                node.rss_bytes()? as f64 / f64::from(1 << 20),
            );
            point.add_generator(&round);
        }
        crowd.check()?;
        done(point);
    }
    Ok(())
}
