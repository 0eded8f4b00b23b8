//! What an idle connection costs: the slope of the node's resident memory over the number of connections, and what the
//! kernel holds beside it.
//!
//! Each connection is a session that has opened all [`CHANNELS`] of its person and keeps its beats ([`Crowd`]). The people
//! are made once; for each transport the node is started again on the same data and asked for nothing else, so that what
//! signing up and refreshing tokens took (password hashing, most of all) is not in its memory: an allocator keeps some of what
//! was freed, and connections would fill that before the resident memory grows.

mod kernel;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{api, node_plan};
use crate::crowd::{Crowd, Population};
use crate::node::Node;
use crate::raw::Transport;
use crate::slope::slope;

pub use kernel::KernelMemory;

/// Channels of a person, all of them open on each connection.
const CHANNELS: usize = 20;
/// Connections (devices) of a person.
const PER_PERSON: usize = 4;
/// Connections before the first reading: they pay for what all share.
const WARM: usize = 50;
/// Readings, up to what is asked for or the node can hold.
const SIZES: [usize; 3] = [1_000, 5_000, 10_000];
/// Descriptors that a node needs for what is no connection: log, index, accounts, pipes.
const OTHER_DESCRIPTORS: usize = 600;
/// Until what the last handshakes left behind is given back.
const SETTLE: Duration = Duration::from_secs(4);
const SHUTDOWN: Duration = Duration::from_secs(60);

/// What there is at one size.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct IdlePoint {
    pub connections: usize,
    /// Resident memory of the node.
    pub resident_bytes: u64,
    pub kernel: KernelMemory,
}

/// Memory over connections.
#[derive(Clone, Debug)]
pub struct IdleFigures {
    pub transport: Transport,
    /// Ascending; the first one is the base that all share.
    pub points: Vec<IdlePoint>,
}

impl IdleFigures {
    /// Bytes of the node per connection: slope over all points but the base.
    pub fn bytes_each(&self) -> f64 {
        self.slope_of(|point| point.resident_bytes as f64)
    }

    /// Bytes of the kernel per connection, both ends of it.
    pub fn kernel_bytes_each(&self) -> f64 {
        self.slope_of(|point| point.kernel.total() as f64)
    }

    fn slope_of(&self, of: impl Fn(&IdlePoint) -> f64) -> f64 {
        // With a single size the base has to do.
        let from = usize::from(self.points.len() > 2);
        let points = self.points[from..].iter();
        let points: Vec<_> = points.map(|it| (it.connections as f64, of(it))).collect();
        slope(&points)
    }
}

impl fmt::Display for IdleFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "idle: {:.0} bytes of the node per idle connection over {} (session, {CHANNELS} open channels and beats included; slope), and \
             {:.0} of the kernel for both ends;",
            self.bytes_each(),
            self.transport,
            self.kernel_bytes_each(),
        )?;
        for point in &self.points {
            write!(
                f,
                " {}: {:.1} MiB",
                point.connections,
                point.resident_bytes as f64 / f64::from(1 << 20)
            )?;
        }
        if let [first, .., last] = &self.points[..] {
            let grown = last.kernel - first.kernel;
            write!(
                f,
                "; kernel grew by {:.1} MiB (queued data: {} KiB)",
                grown.total() as f64 / f64::from(1 << 20),
                grown.queued_bytes >> 10,
            )?;
        }
        Ok(())
    }
}

/// Measures `transports` one after the other, up to `connections_max` connections; without it up to what the node's and
/// this program's descriptors allow. `done` hears of each as soon as it is there.
pub async fn idle(
    folder: &Path,
    transports: &[Transport],
    connections_max: Option<usize>,
    mut done: impl FnMut(&IdleFigures),
) -> Result<()> {
    let folder = folder.join("idle");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let node = node_plan(&folder, Transport::WebSocket, "")?
        .start()
        .await?;
    let possible = node.descriptors_max()?.saturating_sub(OTHER_DESCRIPTORS);
    let most = connections_max.unwrap_or(possible);
    ensure!(
        (2 * WARM..=possible).contains(&most),
        "{most} connections: a node with {} descriptors is measured with {} to {possible}",
        node.descriptors_max()?,
        2 * WARM,
    );
    let mut population =
        Population::make(&api(&node)?, most.div_ceil(PER_PERSON), CHANNELS).await?;
    stop(node).await?;
    for &transport in transports {
        // A life of its own for the tokens: they must outlast what follows.
        let node = node_plan(&folder, Transport::WebSocket, "")?
            .start()
            .await?;
        population.refresh(&api(&node)?).await?;
        stop(node).await?;
        let node = node_plan(&folder, transport, "")?.start().await?;
        let figures = one_transport(&node, transport, &population, most).await;
        done(&figures.with_context(|| format!("idle connections over {transport}"))?);
        // Gone before the next: a node that says goodbye to each of them takes its time.
        node.kill();
    }
    Ok(())
}

async fn one_transport(
    node: &Node,
    transport: Transport,
    population: &Population,
    most: usize,
) -> Result<IdleFigures> {
    let mut crowd = Crowd::new(node.doors().endpoint(transport)?, population);
    let mut points = Vec::new();
    let between = SIZES.into_iter().filter(|size| *size < most);
    for connections in [WARM].into_iter().chain(between).chain([most]) {
        crowd.grow(connections).await?;
        tokio::time::sleep(SETTLE).await;
        crowd.check()?;
        points.push(IdlePoint {
            connections,
            resident_bytes: node.rss_bytes()?,
            kernel: KernelMemory::now(),
        });
    }
    Ok(IdleFigures { transport, points })
}

async fn stop(mut node: Node) -> Result<()> {
    node.terminate();
    let status = node.ended(SHUTDOWN).await?;
    ensure!(status.success(), "the stop was not clean: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_is_bytes_per_connection_without_the_base() {
        let line = |connections: usize| IdlePoint {
            connections,
            resident_bytes: 30_000_000 + connections as u64 * 2_048,
            kernel: KernelMemory {
                slab_bytes: connections as i64 * 9_000,
                socket_inode_bytes: connections as i64 * 1_600,
                queued_bytes: 0,
            },
        };
        let base = IdlePoint {
            resident_bytes: 90_000_000,
            ..line(50)
        };
        let figures = IdleFigures {
            transport: Transport::Quic,
            points: [base].into_iter().chain(SIZES.map(line)).collect(),
        };
        assert!((figures.bytes_each() - 2_048.0).abs() < 0.01);
        assert!((figures.kernel_bytes_each() - 10_600.0).abs() < 0.01);
    }
}
