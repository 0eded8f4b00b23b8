//! Members of one group, 2 to 1,000: what a delivery costs, and how long the sender's ack takes.
//!
//! All people are connected from the start, so that only the group grows. One member sends at a low, steady rate: the
//! fan-out of one message meets no other one.

use std::path::Path;

use anyhow::{Context, Result};
use conch_wire::limits;

use super::probe::Probe;
use super::{Point, Scale};
use crate::measure::{api, fresh_node_with, hello, sign_up};
use crate::raw::{RawClient, Transport};

/// Messages per second: with 1,000 members 20,000 deliveries.
const RATE: u32 = 20;

pub(super) async fn sweep(
    folder: &Path,
    scale: &Scale,
    done: &mut impl FnMut(Point),
) -> Result<()> {
    let most = scale.members.iter().copied().max().unwrap_or(2);
    let config = format!(
        "[channels]\ngroup_members_max = {}\n",
        limits::GROUP_MEMBERS_MAX
    );
    let (_plan, node) =
        fresh_node_with(folder, "growth-members", Transport::WebSocket, &config).await?;
    let api = api(&node)?;
    let people = sign_up(&api, most).await?;
    let mut probe = Probe::new();
    let endpoint = node.doors().endpoint(Transport::WebSocket)?;
    let (mut sender, _) = RawClient::open_at(&endpoint, hello(&people[0])).await?;
    sender.first_changes().await?;
    for person in &people[1..] {
        let (mut receiver, _) = RawClient::open_at(&endpoint, hello(person)).await?;
        receiver.first_changes().await?;
        probe.add_receiver(receiver);
    }
    let mut aliases = Vec::new();
    for (&members, alias) in scale.members.iter().zip(1..) {
        let others: Vec<_> = people[1..members].iter().map(|it| it.user).collect();
        let title = format!("{members} members");
        let token = &people[0].access_token;
        let channel = api.group(token, &title, &others).await;
        let channel = channel.with_context(|| format!("make a group of {members}"))?;
        // It may have one already: the group's first event was pushed.
        aliases.push(sender.open_fresh(channel, alias).await?.alias);
    }
    let lane = probe.add_sender(sender);
    for (&members, alias) in scale.members.iter().zip(aliases) {
        let receivers = members as u64 - 1;
        probe.set_targets(vec![(lane, alias)]);
        // Not measured: what every receiver is told of the channel before its first event.
        probe.round(&node, RATE, scale.round / 4, receivers).await?;
        let idle = probe.idle(&node, scale.round / 2).await?;
        let mut point = Point::new(members);
        for _ in 0..scale.rounds {
            let round = probe.round(&node, RATE, scale.round, receivers).await?;
            let cpu = round.cpu_us_per_message(idle);
            point.add("cpu_us_per_delivery", cpu / receivers as f64);
            point.add("cpu_us_per_message", cpu);
            point.add("ack_p50_us", round.ack_p50_us as f64);
            point.add_generator(&round);
        }
        done(point);
    }
    Ok(())
}
