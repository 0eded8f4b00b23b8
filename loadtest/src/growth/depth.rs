//! Messages of one channel, 1,000 to 1,000,000: a page of history at its end and in its middle, an ack, and the start.
//!
//! As in [`super::stored`] the node is started again for every round. The end of a channel is in its owner's memory, its
//! middle in the index.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::probe::Probe;
use super::stored::{PAGE, again, open_pair, page};
use super::{Point, Scale};
use crate::measure::disk::latencies;
use crate::measure::{Pair, api, fill, fresh_node, hello, sign_up};
use crate::raw::{RawClient, Transport};

/// Members who fill the channel at once.
const WRITERS: usize = 8;
/// Messages per second while acks are measured.
const RATE: u32 = 200;

pub(super) async fn sweep(
    folder: &Path,
    scale: &Scale,
    done: &mut impl FnMut(Point),
) -> Result<()> {
    let (plan, mut node) = fresh_node(folder, "growth-depth", Transport::WebSocket).await?;
    let mut people = sign_up(&api(&node)?, WRITERS).await?;
    let others: Vec<_> = people[1..].iter().map(|it| it.user).collect();
    let channel = api(&node)?
        .group(&people[0].access_token, "a long one", &others)
        .await?;
    let mut stored = 0;
    for &messages in &scale.depth {
        let writers: Vec<_> = people
            .iter()
            .map(|login| Pair {
                sender: login.clone(),
                receiver: login.clone(),
                channel,
            })
            .collect();
        fill(&node, &writers, (messages - stored) as u64).await?;
        stored = messages;
        let mut point = Point::new(messages);
        for _ in 0..scale.rounds {
            node = again(&plan, node, &mut point).await?;
            for login in &mut people {
                *login = api(&node)?.refresh(login).await?;
            }
            let (mut reader, _) = RawClient::open(node.http(), hello(&people[1])).await?;
            reader.first_changes().await?;
            // Not measured: the channel is loaded.
            let head = page(&mut reader, channel, 1).await?;
            let end = head.saturating_sub(PAGE.into()).max(1);
            let (mut ends, mut middles) = (latencies(), latencies());
            for _ in 0..scale.pages {
                let began = Instant::now();
                page(&mut reader, channel, end).await?;
                ends.saturating_record(began.elapsed().as_micros() as u64);
                let middle = rand::random_range(head / 4..=head / 4 * 3).max(1);
                let began = Instant::now();
                page(&mut reader, channel, middle).await?;
                middles.saturating_record(began.elapsed().as_micros() as u64);
            }
            point.add("history_end_p50_us", ends.value_at_quantile(0.5) as f64);
            point.add(
                "history_middle_p50_us",
                middles.value_at_quantile(0.5) as f64,
            );
            drop(reader);
            let mut probe = Probe::new();
            let target = open_pair(&node, &mut probe, &people[0], &people[1], channel).await?;
            probe.set_targets(vec![target]);
            probe.round(&node, RATE, scale.round / 4, 1).await?;
            let idle = probe.idle(&node, scale.round / 4).await?;
            let round = probe.round(&node, RATE, scale.round, 1).await?;
            point.add("cpu_us_per_message", round.cpu_us_per_message(idle));
            point.add("ack_p50_us", round.ack_p50_us as f64);
            point.add(
                "resident_mib",
                node.rss_bytes()? as f64 / f64::from(1 << 20),
            );
            point.add_generator(&round);
        }
        done(point);
    }
    Ok(())
}
