//! How soon an application on the SDK is there, and there again: first connections by each transport, where UDP is blocked too;
//! and what is between a change of address and the next message.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use conch_client::core::{Config, ConnectionState, Event};
use conch_client::{Client, ClientBuilder, EventStream, Transports};
use conch_impair::{Profile, Way};
use conch_wire::{MessageKey, Seq};
use hdrhistogram::Histogram;
use tokio::time::{Instant, timeout};

use super::disk::latencies;
use super::{PASSWORD, api, fresh_node, hello, pairs};
use crate::bad_network::BadNetwork;
use crate::raw::{Draft, RawClient, Transport};

/// Nothing that is measured takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The SDK has given QUIC up by then where UDP is dropped.
const QUIC_GIVEN_UP: Duration = Duration::from_secs(5);
/// Each way on the network of changed addresses: some round trip must be there to be counted.
const DELAY: Duration = Duration::from_millis(10);

/// Times to be online.
#[derive(Debug)]
pub struct FallbackFigures {
    /// By what was allowed and what the network did.
    pub rows: Vec<(&'static str, Histogram<u64>)>,
}

impl fmt::Display for FallbackFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fallback: from connect to online, SDK with an empty data folder:")?;
        rows(f, &self.rows)
    }
}

/// Times from a change of address to the next message of somebody else.
#[derive(Debug)]
pub struct ResumeFigures {
    pub rows: Vec<(&'static str, Histogram<u64>)>,
}

impl fmt::Display for ResumeFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "resume: from a change of address (the old one is dead at once, the SDK is told) to a message that was said then, \
             {} ms there and back:",
            2 * DELAY.as_millis()
        )?;
        rows(f, &self.rows)
    }
}

fn rows(f: &mut fmt::Formatter<'_>, rows: &[(&str, Histogram<u64>)]) -> fmt::Result {
    for (name, took) in rows {
        let ms = |us: u64| us as f64 / 1_000.0;
        write!(
            f,
            "\n  {name}: {} times, p50 {:.1} ms, max {:.1} ms",
            took.len(),
            ms(took.value_at_quantile(0.5)),
            ms(took.max())
        )?;
    }
    Ok(())
}

/// Measures `rounds` first connections of each kind.
pub async fn fallback(folder: &Path, rounds: usize) -> Result<FallbackFigures> {
    let (_plan, node) = fresh_node(folder, "fallback", Transport::Quic).await?;
    pairs(&api(&node)?, 1).await?;
    let network = BadNetwork::start([0, 4], 1, Profile::default(), &node).await?;
    let mut figures = Vec::new();
    for (name, transports, is_blocked) in [
        ("QUIC alone", Transports::QuicOnly, false),
        ("WebSocket alone", Transports::WebSocketOnly, false),
        ("both, UDP passes", Transports::Auto, false),
        ("both, UDP dropped", Transports::Auto, true),
    ] {
        let udp = network.udp.as_ref().context("the node speaks QUIC")?;
        if is_blocked {
            udp.black_hole(Way::ToServer);
            udp.black_hole(Way::ToClient);
        }
        let (mut first, mut again) = (latencies(), latencies());
        for round in 0..rounds {
            let folder = folder.join(format!("fallback-{name}-{round}"));
            let (client, mut events) = open(&network, &folder, transports).await?;
            first.saturating_record(until_online(&client, &mut events).await?);
            client.disconnect().await?;
            if is_blocked {
                // It is known when the attempt beside the connection has ended.
                tokio::time::sleep(QUIC_GIVEN_UP).await;
            }
            again.saturating_record(until_online(&client, &mut events).await?);
            client.close().await;
        }
        figures.push((name, first));
        if is_blocked {
            figures.push(("both, UDP dropped and that known", again));
        }
        udp.heal();
    }
    Ok(FallbackFigures { rows: figures })
}

/// Measures `rounds` changes of address on each transport.
pub async fn resume(folder: &Path, rounds: usize) -> Result<ResumeFigures> {
    let (_plan, node) = fresh_node(folder, "resume", Transport::Quic).await?;
    let pair = pairs(&api(&node)?, 1).await?.remove(0);
    let profile = Profile {
        delay: DELAY,
        ..Profile::default()
    };
    let network = BadNetwork::start([0, 5], 1, profile, &node).await?;
    let (mut sender, _) = RawClient::open(node.http(), hello(&pair.sender)).await?;
    let alias = sender.open_fresh(pair.channel, 1).await?.alias;
    let mut figures = Vec::new();
    for (name, transports) in [
        ("QUIC, the connection moves", Transports::QuicOnly),
        ("WebSocket, connected anew", Transports::WebSocketOnly),
    ] {
        let folder = folder.join(format!("resume-{name}"));
        let (client, mut events) = open(&network, &folder, transports).await?;
        until_online(&client, &mut events).await?;
        let mut took = latencies();
        for round in 0..rounds {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // The old path is dead for good, both ways, and nobody is told but the application by its system.
            network.proxies().for_each(conch_impair::Proxy::half_open);
            let changed = Instant::now();
            client.network_changed().await?;
            let draft = Draft::text(MessageKey(rand::random()), format!("{name} {round}"));
            let ack = sender.say(alias, &draft).await?;
            until_shown(&mut events, ack.seq).await?;
            took.saturating_record(changed.elapsed().as_micros() as u64);
        }
        client.close().await;
        figures.push((name, took));
    }
    Ok(ResumeFigures { rows: figures })
}

/// The second person's application.
async fn open(
    network: &BadNetwork,
    folder: &Path,
    transports: Transports,
) -> Result<(Client, EventStream)> {
    let client = ClientBuilder::new(&network.base_url(), folder)
        .config(Config {
            client: "conch-load sdk".to_owned(),
            ..Config::default()
        })
        .transports(transports)
        .open()
        .await?;
    client.log_in("person1", PASSWORD, "sdk").await?;
    let events = client.events().await?;
    Ok((client, events))
}

/// Connects; microseconds until it is online.
async fn until_online(client: &Client, events: &mut EventStream) -> Result<u64> {
    let began = Instant::now();
    client.connect().await?;
    let online = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Connection(ConnectionState::Online)) {
                return Ok(began.elapsed().as_micros() as u64);
            }
        }
        anyhow::bail!("the client closed")
    };
    timeout(PATIENCE, online).await.context("never online")?
}

async fn until_shown(events: &mut EventStream, seq: Seq) -> Result<()> {
    let found = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Message(message) if message.seq == seq) {
                return Ok(());
            }
        }
        anyhow::bail!("the client closed")
    };
    timeout(PATIENCE, found).await.context("no message came")?
}
