//! How costs follow size: one sweep per dimension, each beside the word flat, falls or grows.
//!
//! Every sweep starts nodes of its own over WebSocket and enlarges one thing while everything else stays; at each size it
//! takes several rounds. What is compared is one node with itself, so the figures need no peer. [`run`] tells of each point
//! as it is there, because a full run takes long; [`report`] makes the table and `growth.json` of them.

mod channels;
mod connections;
mod depth;
mod members;
mod probe;
pub mod report;
mod scale;
mod stored;

use std::path::Path;

use anyhow::{Context, Result};

pub use report::{Row, Table};
pub use scale::Scale;

/// What is enlarged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Dimension {
    /// Members of one group, all of them online.
    Members,
    /// Connections at rest beside a steady load.
    Connections,
    /// Channels that are all in use.
    Channels,
    /// Messages stored, over 100 channels.
    Stored,
    /// Messages of one channel.
    Depth,
}

impl Dimension {
    pub const ALL: [Dimension; 5] = [
        Dimension::Members,
        Dimension::Connections,
        Dimension::Channels,
        Dimension::Stored,
        Dimension::Depth,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Dimension::Members => "members",
            Dimension::Connections => "connections",
            Dimension::Channels => "channels",
            Dimension::Stored => "stored",
            Dimension::Depth => "depth",
        }
    }
}

/// A figure at one size: one value for each round.
#[derive(Clone, PartialEq, Debug)]
pub struct Figure {
    /// Name with its unit, as in the JSON: `ack_p50_us`.
    pub metric: &'static str,
    pub rounds: Vec<f64>,
}

impl Figure {
    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        match n {
            0 => 0.0,
            _ if n % 2 == 1 => sorted[n / 2],
            _ => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }
}

/// All figures at one size.
#[derive(Clone, PartialEq, Debug)]
pub struct Point {
    pub at: u64,
    pub figures: Vec<Figure>,
}

impl Point {
    fn new(at: usize) -> Point {
        Point {
            at: at as u64,
            figures: Vec::new(),
        }
    }

    /// The generator's own figures of a round.
    fn add_generator(&mut self, round: &probe::Round) {
        self.add(report::LAG, round.lag_p99_us as f64);
        let cores = round.generator_cpu.as_secs_f64() / round.took.as_secs_f64();
        self.add("generator_cpu_percent", cores * 100.0);
    }

    /// One round's value of a figure.
    fn add(&mut self, metric: &'static str, value: f64) {
        match self.figures.iter_mut().find(|it| it.metric == metric) {
            Some(figure) => figure.rounds.push(value),
            None => self.figures.push(Figure {
                metric,
                rounds: vec![value],
            }),
        }
    }
}

/// A dimension and its points, sizes ascending.
#[derive(Clone, PartialEq, Debug)]
pub struct Sweep {
    pub dimension: Dimension,
    pub points: Vec<Point>,
}

/// Takes the sweeps one after the other, in `folder`, which must lie on the disk that is meant. `tell` hears of each point.
pub async fn run(
    folder: &Path,
    dimensions: &[Dimension],
    scale: &Scale,
    mut tell: impl FnMut(Dimension, &Point),
) -> Result<Vec<Sweep>> {
    let mut sweeps = Vec::new();
    for &dimension in dimensions {
        let mut points = Vec::new();
        let mut done = |point: Point| {
            tell(dimension, &point);
            points.push(point);
        };
        let swept = match dimension {
            Dimension::Members => members::sweep(folder, scale, &mut done).await,
            Dimension::Connections => connections::sweep(folder, scale, &mut done).await,
            Dimension::Channels => channels::sweep(folder, scale, &mut done).await,
            Dimension::Stored => stored::sweep(folder, scale, &mut done).await,
            Dimension::Depth => depth::sweep(folder, scale, &mut done).await,
        };
        swept.with_context(|| format!("sweep of {}", dimension.name()))?;
        sweeps.push(Sweep { dimension, points });
    }
    Ok(sweeps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let mut point = Point::new(3);
        for value in [5.0, 1.0, 3.0] {
            point.add("ack_p50_us", value);
        }
        assert_eq!(point.figures[0].median(), 3.0);
        point.add("ack_p50_us", 4.0);
        assert_eq!(point.figures[0].median(), 3.5);
        assert_eq!(point.figures.len(), 1);
    }
}
