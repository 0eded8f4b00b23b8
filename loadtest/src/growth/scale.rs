//! The sizes of the sweeps, and how long each of them is looked at.

use std::time::Duration;

/// How far and how thoroughly sweeps go.
#[derive(Clone, Debug)]
pub struct Scale {
    /// At least 2.
    pub members: Vec<usize>,
    pub connections: Vec<usize>,
    pub channels: Vec<usize>,
    pub stored: Vec<usize>,
    pub depth: Vec<usize>,
    /// Rounds at each size.
    pub rounds: usize,
    /// A round of steady load.
    pub round: Duration,
    /// Pages of history in a round.
    pub pages: usize,
}

impl Scale {
    /// What the table is made of: below 30 minutes on two cores.
    pub fn full() -> Scale {
        Scale {
            members: vec![2, 10, 30, 100, 300, 1_000],
            connections: vec![100, 1_000, 5_000, 10_000, 15_000],
            channels: vec![1, 10, 100, 1_000, 10_000, 100_000],
            stored: vec![10_000, 100_000, 1_000_000, 5_000_000],
            depth: vec![1_000, 10_000, 100_000, 1_000_000],
            rounds: 5,
            round: Duration::from_secs(4),
            pages: 200,
        }
    }

    /// The same questions with smaller sizes: below 5 minutes.
    pub fn quick() -> Scale {
        Scale {
            members: vec![2, 20, 200],
            connections: vec![100, 1_000, 4_000],
            channels: vec![1, 100, 10_000],
            stored: vec![10_000, 100_000, 500_000],
            depth: vec![1_000, 10_000, 100_000],
            rounds: 3,
            round: Duration::from_secs(2),
            pages: 100,
        }
    }
}
