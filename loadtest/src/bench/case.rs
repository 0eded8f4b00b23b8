//! The kinds of load, and which servers each is for.

use std::fmt;
use std::time::Duration;

use super::BenchPlan;
use super::loaded::LoadedPlan;
use crate::peers::Peer;
use crate::peers::drive::{Load, Shape};
use crate::peers::topology::Topology;

/// Bytes of a message.
pub(super) const PAYLOAD_BYTES: usize = 100;
/// Channels of one sender and one receiver.
pub(super) const PAIRS: Topology = Topology::Pairs(64);
/// Messages in flight per pair when saturated: 2,560 over all.
const PAIR_WINDOW: u32 = 40;
/// The same in a fan-out, by its size: so much that no receiver falls behind by more than a few KiB.
const FAN_WINDOWS: [(u32, u32); 2] = [(100, 64), (1_000, 32)];
/// Messages per second of the steady open loop.
const STEADY_RATE: u32 = 2_000;
/// Not measured at the beginning of a run.
const WARM: Duration = Duration::from_millis(500);
/// Longest wait for deferred work, which is counted.
const REST_WITHIN: Duration = Duration::from_secs(8);

/// A kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// 1:1, all that the server can do.
    PairsSaturated,
    /// 1:1, 2,000 messages per second at fixed times.
    Pairs2000,
    Fan100,
    Fan1000,
    /// 1:1 at 70 % of the highest rate that keeps the objective.
    Slo,
    /// One client that does not read among healthy ones.
    Stalled,
    /// WebSocket with TLS and QUIC, batched and unbatched; Conch alone.
    Transports,
    /// Full and resumed handshakes; Conch alone.
    Connect,
    /// Memory per idle connection.
    Idle,
}

impl Case {
    pub const ALL: [Case; 9] = [
        Case::PairsSaturated,
        Case::Pairs2000,
        Case::Fan100,
        Case::Fan1000,
        Case::Slo,
        Case::Stalled,
        Case::Transports,
        Case::Connect,
        Case::Idle,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Case::PairsSaturated => "pairs-saturated",
            Case::Pairs2000 => "pairs-2000",
            Case::Fan100 => "fan-100",
            Case::Fan1000 => "fan-1000",
            Case::Slo => "slo-70",
            Case::Stalled => "stalled",
            Case::Transports => "transports",
            Case::Connect => "connect",
            Case::Idle => "idle",
        }
    }

    /// The servers that it is for, in the order of a round. Conch comes before those whose rate follows from its own.
    pub(super) fn peers(self) -> &'static [Peer] {
        match self {
            Case::PairsSaturated | Case::Pairs2000 | Case::Fan100 => &[
                Peer::Floor,
                Peer::FloorFsync,
                Peer::Nats,
                Peer::JetStream,
                Peer::JetStreamAlways,
                Peer::Mosquitto,
                Peer::Conch,
            ],
            // A thousand consumers of one stream are not what JetStream is for.
            Case::Fan1000 => &[
                Peer::Floor,
                Peer::FloorFsync,
                Peer::Nats,
                Peer::Mosquitto,
                Peer::Conch,
            ],
            Case::Slo => &[
                Peer::Conch,
                Peer::FloorFsync,
                Peer::Nats,
                Peer::JetStream,
                Peer::JetStreamAlways,
            ],
            Case::Stalled => &[Peer::Conch, Peer::Nats, Peer::Mosquitto],
            Case::Idle => &[Peer::Floor, Peer::Nats, Peer::Mosquitto, Peer::Conch],
            Case::Transports | Case::Connect => &[Peer::Conch],
        }
    }

    /// Whether one round is enough: bytes do not vary as times do.
    pub(super) fn is_taken_once(self) -> bool {
        self == Case::Idle
    }

    /// The shape of its connections, where a drive makes them.
    pub(super) fn topology(self) -> Option<Topology> {
        match self {
            Case::PairsSaturated | Case::Pairs2000 | Case::Slo => Some(PAIRS),
            Case::Fan100 => Some(Topology::Fan(100)),
            Case::Fan1000 => Some(Topology::Fan(1_000)),
            Case::Stalled => Some(super::stalled::TOPOLOGY),
            Case::Transports | Case::Connect | Case::Idle => None,
        }
    }

    /// How a server is loaded in the cases that measure one load.
    pub(super) fn loaded(self, peer: Peer, plan: &BenchPlan) -> LoadedPlan {
        let topology = self.topology().unwrap_or(PAIRS);
        let shape = match (self, topology) {
            (Case::Pairs2000, _) => Shape::Open { rate: STEADY_RATE },
            (_, Topology::Fan(receivers)) => Shape::Closed {
                window: FAN_WINDOWS
                    .iter()
                    .find(|(size, _)| *size == receivers)
                    .map_or(1, |(_, window)| *window),
            },
            (_, Topology::Pairs(_)) => Shape::Closed {
                window: PAIR_WINDOW,
            },
        };
        let seconds = match (self, peer) {
            (Case::PairsSaturated, Peer::Conch) => plan.saturated_seconds,
            _ => plan.seconds,
        };
        LoadedPlan {
            case: self,
            topology,
            load: steady(shape, Duration::from_secs(seconds)),
            probes_disk: self == Case::Pairs2000,
            compares_commits: self == Case::PairsSaturated,
        }
    }
}

/// A load that warms up, is measured, and is waited for.
pub(super) fn steady(shape: Shape, measured: Duration) -> Load {
    Load {
        shape,
        payload_bytes: PAYLOAD_BYTES,
        warm: WARM,
        measured,
        stalled: false,
        rest_within: REST_WITHIN,
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> Result<Case, String> {
        let known = || Case::ALL.map(Case::name).join(", ");
        Case::ALL
            .into_iter()
            .find(|case| case.name() == name)
            .ok_or_else(|| format!("no case is called {name:?}; there are {}", known()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn every_fan_out_has_a_window() {
        for case in Case::ALL {
            if let Some(Topology::Fan(receivers)) = case.topology()
                && case != Case::Stalled
            {
                assert!(
                    FAN_WINDOWS.iter().any(|(size, _)| *size == receivers),
                    "{case}"
                );
            }
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for case in Case::ALL {
            assert_eq!(case.name().parse(), Ok(case));
        }
        assert!("pairs".parse::<Case>().unwrap_err().contains("pairs-2000"));
    }
}
