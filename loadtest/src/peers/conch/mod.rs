//! Conch under the same load: a node of its own per run, on a copy of a folder that was filled once.
//!
//! Signing a thousand people up costs their passwords' hashes, so a [`Template`] does it once per comparison: people, a direct
//! channel per pair, a group per fan-out. Every run starts a fresh node on a copy, with one configuration for all cases
//! ([`CONFIGURATION`]), and gets fresh access tokens. `codec` speaks the protocol through the wire crate, `websocket` carries it.

mod codec;
mod websocket;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conch_wire::ChannelId;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use codec::ConchCodec;

use super::codec::Codec;
use super::topology::{Line, Topology};
use super::{Peer, Running, Server};
use crate::http::{Api, Login};
use crate::node::{LIFTED_LIMITS, Node, NodePlan};
use crate::patience::patiently;

/// Exists only inside the comparison's own nodes.
const PASSWORD: &str = "correct horse battery";
/// Calls to the HTTP API in flight.
const CALLS_AT_ONCE: usize = 16;
/// How long a node may take to stop when the template is whole.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The one configuration of all cases: rate limits lifted, groups up to the protocol's limit; all else as it comes.
pub fn configuration() -> String {
    format!("{LIFTED_LIMITS}\n[channels]\ngroup_members_max = 1_000\n")
}

/// A data folder with people and channels for some topologies.
#[derive(Debug)]
pub struct Template {
    folder: PathBuf,
    people: Vec<Login>,
    channels: BTreeMap<(bool, u32), Vec<ChannelId>>,
}

/// Which channels a topology uses: a key that two topologies never share.
fn key(topology: Topology) -> (bool, u32) {
    match topology {
        Topology::Pairs(pairs) => (false, pairs),
        Topology::Fan(receivers) => (true, receivers),
    }
}

/// The person behind a line: in a fan-out the last receiver is the sender's second session, so that a group of 1,000 members
/// has 1,000 deliveries per message.
fn person(topology: Topology, at: usize) -> usize {
    match topology {
        Topology::Fan(receivers) if at == receivers as usize => 0,
        _ => at,
    }
}

impl Template {
    /// Starts a node in `folder` and makes what `topologies` need.
    pub async fn make(folder: &Path, topologies: &[Topology]) -> Result<Template> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let mut node = NodePlan::new(folder)?
            .config(&configuration())?
            .start()
            .await
            .context("start the node that the others are copies of")?;
        let api = Api::new(node.base_url());
        let most = topologies.iter().map(|it| it.lines().len()).max();
        let people: Vec<Login> = stream::iter(0..most.unwrap_or_default())
            .map(|index| {
                let api = api.clone();
                async move {
                    let handle = format!("person{index}");
                    patiently(|| api.sign_up(&handle, PASSWORD)).await
                }
            })
            .buffered(CALLS_AT_ONCE)
            .try_collect()
            .await
            .context("sign people up")?;
        let mut channels = BTreeMap::new();
        for topology in topologies {
            let made = make_channels(&api, &people, *topology).await?;
            channels.insert(key(*topology), made);
        }
        node.terminate();
        let status = node.ended(STOP_WITHIN).await?;
        ensure!(status.success(), "the template's node ended: {status}");
        Ok(Template {
            folder: folder.to_owned(),
            people,
            channels,
        })
    }

    /// Starts a node on a copy in `folder`.
    pub async fn start(&self, folder: &Path) -> Result<Running> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let plan = NodePlan::new(folder)?.config(&configuration())?;
        let copied = Command::new("cp")
            .args(["-r", "--sparse=never"])
            .arg(self.folder.join("data"))
            .arg(plan.data())
            .status()
            .context("run cp")?;
        ensure!(
            copied.success(),
            "the template could not be copied to {}",
            folder.display()
        );
        let node = plan.start().await.context("start the node")?;
        Ok(Running::new(
            Peer::Conch,
            Conch {
                node,
                people: self.people.clone(),
                channels: self.channels.clone(),
                runtime: Handle::current(),
            },
        ))
    }
}

async fn make_channels(api: &Api, people: &[Login], topology: Topology) -> Result<Vec<ChannelId>> {
    let line_people: Vec<&Login> = (0..topology.lines().len())
        .map(|at| &people[person(topology, at)])
        .collect();
    let mut channels = Vec::new();
    match topology {
        Topology::Pairs(_) => {
            for two in line_people.chunks_exact(2) {
                channels.push(api.direct(&two[0].access_token, two[1].user).await?);
            }
        }
        Topology::Fan(_) => {
            let owner = line_people[0];
            let others: Vec<_> = line_people[1..]
                .iter()
                .map(|it| it.user)
                .filter(|user| *user != owner.user)
                .collect();
            let made = api.group(&owner.access_token, "fan-out", &others).await;
            channels.push(made.with_context(|| format!("make a group for {topology}"))?);
        }
    }
    Ok(channels)
}

/// A running node with the people of its template.
struct Conch {
    node: Node,
    people: Vec<Login>,
    channels: BTreeMap<(bool, u32), Vec<ChannelId>>,
    runtime: Handle,
}

impl Server for Conch {
    fn address(&self) -> SocketAddr {
        let listening = self.node.http().parse();
        listening.expect("a ready file holds an address")
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.node.pid()]
    }

    /// Must be called outside of the runtime's own threads: it waits for the HTTP API.
    fn codecs(&mut self, topology: Topology) -> Result<Vec<Box<dyn Codec>>> {
        let Some(channels) = self.channels.get(&key(topology)) else {
            bail!("the template was made without {topology}");
        };
        let api = Api::new(self.node.base_url());
        let lines = topology.lines();
        // Tokens end after 15 minutes; a comparison may take longer.
        let logins = stream::iter(0..lines.len())
            .filter(|at| std::future::ready(person(topology, *at) == *at))
            .map(|at| {
                let (api, login) = (api.clone(), self.people[at].clone());
                async move { api.refresh(&login).await }
            })
            .buffered(CALLS_AT_ONCE)
            .try_collect::<Vec<Login>>();
        let logins = self.runtime.block_on(logins).context("refresh tokens")?;
        let host = self.node.http();
        let codec = |(at, line): (usize, Line)| {
            let login = &logins[person(topology, at)];
            let channel = channels[line.channel() as usize];
            ConchCodec::boxed(host, &login.access_token, channel, line)
        };
        Ok(lines.into_iter().enumerate().map(codec).collect())
    }

    fn ended(&mut self) -> Option<String> {
        let status = self.node.try_ended()?;
        Some(format!("conch ended: {status}\n{}", self.node.output()))
    }

    fn metrics(&self) -> Option<String> {
        self.node.ready().metrics.clone()
    }
}
