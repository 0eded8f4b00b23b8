//! What an idle connection costs the node: the slope of its resident memory over the number of connections.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use conch_wire::limits;
use tokio::time::Instant;

use super::{api, fresh_node, hello, sign_up};
use crate::raw::{RawClient, Transport};

/// Connections of one person, each a session of its own: what a node allows.
const PER_PERSON: usize = 20;
/// Connections opened before the first reading: they pay for what all share.
const WARM: usize = 50;

/// Memory over connections.
#[derive(Clone, Debug)]
pub struct IdleFigures {
    pub transport: Transport,
    /// (connections, resident bytes).
    pub points: Vec<(usize, u64)>,
}

impl IdleFigures {
    /// Bytes per connection: least-squares slope over the points but the first: it still has what hashing the passwords of
    /// those who signed up took, and the allocator gives that back only while it is used.
    pub fn bytes_each(&self) -> f64 {
        let points = self.points.get(1..).unwrap_or_default();
        let n = points.len() as f64;
        let mean_x = points.iter().map(|(x, _)| *x as f64).sum::<f64>() / n;
        let mean_y = points.iter().map(|(_, y)| *y as f64).sum::<f64>() / n;
        let (mut over, mut under) = (0.0, 0.0);
        for (x, y) in points {
            over += (*x as f64 - mean_x) * (*y as f64 - mean_y);
            under += (*x as f64 - mean_x).powi(2);
        }
        over / under.max(1.0)
    }
}

impl fmt::Display for IdleFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "idle: {:.0} bytes of the node per idle connection over {} (session included; slope);",
            self.bytes_each(),
            self.transport
        )?;
        for (connections, bytes) in &self.points {
            write!(
                f,
                " {connections}: {:.1} MiB",
                *bytes as f64 / f64::from(1 << 20)
            )?;
        }
        Ok(())
    }
}

/// Opens `connections` in four steps.
pub async fn idle(folder: &Path, transport: Transport, connections: usize) -> Result<IdleFigures> {
    let name = format!("idle-{transport}");
    let (_plan, node) = fresh_node(folder, &name, transport).await?;
    let endpoint = node.doors().endpoint(transport)?;
    let people = sign_up(&api(&node)?, (WARM + connections).div_ceil(PER_PERSON)).await?;
    let mut open = Vec::with_capacity(WARM + connections);
    let mut points = Vec::new();
    let began = Instant::now();
    for step in 0..=4 {
        let wanted = WARM + connections * step / 4;
        while open.len() < wanted {
            let login = &people[open.len() % people.len()];
            let (mut client, _) = RawClient::open_at(&endpoint, hello(login)).await?;
            client.first_changes().await?;
            open.push(client);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        points.push((open.len(), node.rss_bytes()?));
    }
    // Nobody pings: later the node would have closed the first ones.
    let silence = Duration::from_millis(limits::SILENCE_MAX_MS.into());
    ensure!(
        began.elapsed() < silence,
        "{:?} is too long for {connections} connections",
        began.elapsed()
    );
    Ok(IdleFigures { transport, points })
}

#[cfg(test)]
mod tests {
    use super::{IdleFigures, Transport};

    #[test]
    fn slope_is_bytes_per_connection_without_the_base() {
        let line = |n: usize| (n * 500, 30_000_000 + n as u64 * 500 * 2_048);
        let points = std::iter::once((0, 90_000_000)).chain((1..5).map(line));
        let figures = IdleFigures {
            transport: Transport::Quic,
            points: points.collect(),
        };
        assert!((figures.bytes_each() - 2_048.0).abs() < 0.01);
    }
}
