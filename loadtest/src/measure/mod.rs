//! Figures of one node, each beside the physical floor or with the sum that it is made of.
//!
//! Every figure starts a node of its own from the `conch` program beside this one (build it for release), with rate limits
//! lifted by ordinary configuration, on a folder that must lie on the disk that is meant. Node and generator share the
//! machine; CPU time of the node, from /proc, is the steadiest number. Messages carry 100 bytes unless said.

mod ack;
mod checking;
mod connect;
pub(crate) mod disk;
mod fanout;
mod idle;
mod reach;
mod saturate;
mod start;
mod threads;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use conch_wire::frame::{Hello, PushMode};
use conch_wire::{ChannelId, limits};
use futures_util::stream::{self, StreamExt, TryStreamExt};

pub use ack::{AckFigures, AckPlan, ack};
pub use checking::{CheckingFigures, checking};
pub use connect::{ConnectFigures, ConnectRow, connect};
pub use fanout::{FanOutFigures, FanOutPlan, fanout};
pub use idle::{IdleFigures, IdlePoint, KernelMemory, idle};
pub use reach::{FallbackFigures, ResumeFigures, fallback, resume};
pub use saturate::{SaturationFigures, SaturationPlan, saturate};
pub(crate) use start::fill;
pub use start::{StartFigures, start};
pub use threads::ByThread;
pub(crate) use threads::is_index;

use crate::http::{Api, Login};
use crate::node::{LIFTED_LIMITS, Node, NodePlan};
use crate::patience::patiently;
use crate::raw::Transport;

/// Bytes of text in a message.
pub(crate) const TEXT_BYTES: usize = 100;
/// Exists only inside the run's own node.
const PASSWORD: &str = "correct horse battery";
/// Calls to the HTTP API in flight while people are made; password hashing bounds it, not this.
const CALLS_AT_ONCE: usize = 8;

/// A node with nothing in it, in a new folder inside `folder`.
///
/// With a certificate where the transport is TLS over TCP, and with QUIC beside plain HTTP where it is that.
pub(crate) async fn fresh_node(
    folder: &Path,
    name: &str,
    transport: Transport,
) -> Result<(NodePlan, Node)> {
    fresh_node_with(folder, name, transport, "").await
}

/// The same with more of a configuration than lifted limits.
pub(crate) async fn fresh_node_with(
    folder: &Path,
    name: &str,
    transport: Transport,
    config: &str,
) -> Result<(NodePlan, Node)> {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let plan = node_plan(&folder, transport, config)?;
    let node = plan.start().await.context("start the node")?;
    Ok((plan, node))
}

/// The plan of a node that is measured, with its data in `folder`.
fn node_plan(folder: &Path, transport: Transport, config: &str) -> Result<NodePlan> {
    let plan = NodePlan::new(folder)?.config(&format!("{LIFTED_LIMITS}{config}"))?;
    Ok(match transport {
        Transport::WebSocket => plan,
        Transport::Tls => plan.with_tls()?,
        Transport::Quic => plan.with_quic(),
    })
}

/// The HTTP API of a node.
pub(crate) fn api(node: &Node) -> Result<Api> {
    Ok(match node.certificate() {
        Some(certificate) => Api::trusting(node.base_url(), &certificate.pem)?,
        None => Api::new(node.base_url()),
    })
}

/// CPU time that this program used so far.
pub(crate) fn generator_cpu() -> Duration {
    // SAFETY: getrusage fills the struct that it is given; all its fields are plain numbers, for which zero is valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |it: libc::timeval| {
        Duration::from_secs(it.tv_sec as u64) + Duration::from_micros(it.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Signs people up, in the order of their numbers.
pub(crate) async fn sign_up(api: &Api, count: usize) -> Result<Vec<Login>> {
    stream::iter(0..count)
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
        .context("sign people up")
}

/// Two people who write to each other, or one to the other.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) sender: Login,
    pub(crate) receiver: Login,
    pub(crate) channel: ChannelId,
}

pub(crate) async fn pairs(api: &Api, count: usize) -> Result<Vec<Pair>> {
    let people = sign_up(api, 2 * count).await?;
    let mut pairs = Vec::with_capacity(count);
    for two in people.chunks_exact(2) {
        let channel = api.direct(&two[0].access_token, two[1].user).await?;
        pairs.push(Pair {
            sender: two[0].clone(),
            receiver: two[1].clone(),
            channel,
        });
    }
    Ok(pairs)
}

pub(crate) fn hello(login: &Login) -> Hello {
    Hello {
        token: login.access_token.clone(),
        client: "conch-load".to_owned(),
        credit_bytes: limits::CREDIT_BYTES,
        push: PushMode::All,
        ..Hello::default()
    }
}
