//! Channels that are all in use, 1 to 100,000, under the same steady rate: what a message costs, how long its ack takes, and
//! what a channel weighs.
//!
//! Groups of two, over a few pairs of people; every channel had a message and is in its owner's memory when it counts. The
//! weight includes what the sender's session knows of a channel (its alias) and the receiver's.

use std::path::Path;

use anyhow::{Context, Result, bail};
use conch_wire::frame::Cursor;
use conch_wire::{Alias, ChannelId, ClientFrame, MessageKey, ServerFrame};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::probe::Probe;
use super::{Point, Scale};
use crate::http::Login;
use crate::measure::{TEXT_BYTES, api, fresh_node, hello, sign_up};
use crate::raw::{Draft, Endpoint, RawClient, Transport};

/// Messages per second.
const RATE: u32 = 500;
/// Pairs that share the channels: a connection may know 16,384.
const PAIRS: usize = 10;
/// Calls to the HTTP API in flight.
const AT_ONCE: usize = 32;
/// Frames of one connection in flight: below what the protocol allows.
const IN_FLIGHT: usize = 32;

pub(super) async fn sweep(
    folder: &Path,
    scale: &Scale,
    done: &mut impl FnMut(Point),
) -> Result<()> {
    let (_plan, node) = fresh_node(folder, "growth-channels", Transport::WebSocket).await?;
    let api = api(&node)?;
    let people = sign_up(&api, 2 * PAIRS).await?;
    let pairs: Vec<&[Login]> = people.chunks_exact(2).collect();
    let endpoint = node.doors().endpoint(Transport::WebSocket)?;
    let mut made = vec![Vec::new(); PAIRS];
    for &channels in &scale.channels {
        let have: usize = made.iter().map(Vec::len).sum();
        let new: Vec<(usize, ChannelId)> = stream::iter(have..channels)
            .map(|index| {
                let (api, pair) = (&api, pairs[index % PAIRS]);
                async move {
                    let channel = api
                        .group(&pair[0].access_token, "two of them", &[pair[1].user])
                        .await?;
                    anyhow::Ok((index % PAIRS, channel))
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .context("make channels")?;
        for (pair, channel) in new {
            made[pair].push(channel);
        }
        done(one_size(&node, &endpoint, &pairs, &made, scale, channels).await?);
    }
    Ok(())
}

async fn one_size(
    node: &crate::node::Node,
    endpoint: &Endpoint,
    pairs: &[&[Login]],
    made: &[Vec<ChannelId>],
    scale: &Scale,
    channels: usize,
) -> Result<Point> {
    let mut probe = Probe::new();
    let mut targets = Vec::new();
    let mut opening = tokio::task::JoinSet::new();
    for (pair, channels) in pairs.iter().zip(made).filter(|(_, it)| !it.is_empty()) {
        let (sender, _) = RawClient::open_at(endpoint, hello(&pair[0])).await?;
        let (receiver, _) = RawClient::open_at(endpoint, hello(&pair[1])).await?;
        probe.add_receiver(receiver);
        let channels = channels.clone();
        opening.spawn(async move { open_and_use(sender, channels).await });
    }
    while let Some(opened) = opening.join_next().await {
        let (sender, aliases) = opened??;
        let lane = probe.add_sender(sender);
        targets.extend(aliases.into_iter().map(|alias| (lane, alias)));
    }
    probe.set_targets(targets);
    probe.settle().await;
    probe.round(node, RATE, scale.round / 2, 1).await?;
    let mut point = Point::new(channels);
    for _ in 0..scale.rounds {
        let idle = probe.idle(node, scale.round / 4).await?;
        let round = probe.round(node, RATE, scale.round, 1).await?;
        point.add("cpu_us_per_message", round.cpu_us_per_message(idle));
        point.add("ack_p50_us", round.ack_p50_us as f64);
        point.add(
            "resident_mib",
            node.rss_bytes()? as f64 / f64::from(1 << 20),
        );
        point.add_generator(&round);
    }
    Ok(point)
}

/// Opens every channel and sends one message to each; gives their aliases.
async fn open_and_use(
    mut client: RawClient,
    channels: Vec<ChannelId>,
) -> Result<(RawClient, Vec<Alias>)> {
    let mut alias = 0;
    let mut aliases = Vec::with_capacity(channels.len());
    for some in channels.chunks(IN_FLIGHT) {
        for &channel in some {
            alias += 1;
            let request = client.next_request();
            let cursor = Cursor {
                channel,
                generation: 0,
                seq: 0,
                alias,
            };
            client.queue(&ClientFrame::OpenChannel { request, cursor });
        }
        client.flush().await?;
        answered(&mut client, some.len(), &mut aliases).await?;
    }
    let text = bytes::Bytes::from(vec![b'x'; TEXT_BYTES]);
    for some in aliases.clone().chunks(IN_FLIGHT) {
        for &alias in some {
            let draft = Draft::text(MessageKey(rand::random()), text.clone());
            client.queue_sends(alias, &[draft]);
        }
        client.flush().await?;
        answered(&mut client, some.len(), &mut aliases).await?;
    }
    Ok((client, aliases))
}

/// Waits for so many answers; the aliases that hold (a channel may have had one already) go to `aliases`.
async fn answered(client: &mut RawClient, count: usize, aliases: &mut Vec<Alias>) -> Result<()> {
    let mut left = count;
    while left > 0 {
        match client.recv().await?.frame {
            ServerFrame::ChannelOpened { request, opened } if request != 0 => {
                aliases.push(opened.alias);
                left -= 1;
            }
            ServerFrame::SendAck { .. } => left -= 1,
            ServerFrame::Error { error, .. } => bail!("refused: {} {}", error.code, error.detail),
            _ => {}
        }
    }
    Ok(())
}
