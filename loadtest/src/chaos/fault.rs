//! The ways in which a node dies, and how often each is drawn.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::node::NodePlan;

/// Failpoints on the way of a message, in its order, with the most passes before the kill: points that are passed once per
/// batch get small numbers, so that they are reached within a life.
const ON_THE_WAY: &[(&str, u32)] = &[
    ("gateway.received", 60),
    ("owner.sequenced", 60),
    ("log.before_write", 40),
    ("log.written", 40),
    ("log.synced", 40),
    ("owner.committed", 40),
    ("owner.acked", 40),
    ("gateway.before_ack", 60),
    ("owner.fanned_out", 40),
    ("index.before_apply", 1),
    ("index.applied", 1),
];

/// Passed once per record that a start finds above the index.
const RECOVERY: &str = "recovery.record";

/// How one life ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not made to end.
    None,
    /// Killed from outside, so long after its start.
    Random { after: Duration },
    /// Kills itself at a failpoint, after so many passes.
    Failpoint { name: &'static str, passes: u32 },
    /// Dies several times while it starts, before it lives until a random kill.
    Starting { times: u32, then: Duration },
}

impl Fault {
    pub(super) fn draw(rng: &mut StdRng, failpoints: bool) -> Fault {
        let after = Duration::from_millis(rng.random_range(30..1_500));
        match rng.random_range(0..10) {
            0..=2 => Fault::Random { after },
            3 => Fault::Starting {
                times: rng.random_range(1..=4),
                then: after,
            },
            _ if !failpoints => Fault::Random { after },
            _ => {
                let (name, most) = ON_THE_WAY[rng.random_range(0..ON_THE_WAY.len())];
                Fault::Failpoint {
                    name,
                    passes: rng.random_range(0..most),
                }
            }
        }
    }

    /// The plan with this fault armed.
    pub(super) fn arm(&self, plan: NodePlan) -> NodePlan {
        match self {
            Fault::Failpoint { name, passes } => {
                plan.env("FAILPOINTS", &format!("{name}={passes}*off->return"))
            }
            _ => plan,
        }
    }

    /// Deaths that come before the node is ready, last one first.
    pub(super) fn deaths_at_start(&self, rng: &mut StdRng) -> Vec<Fault> {
        let Fault::Starting { times, .. } = self else {
            return Vec::new();
        };
        (0..*times)
            .map(|_| {
                if rng.random() {
                    Fault::Random {
                        after: Duration::from_millis(rng.random_range(0..120)),
                    }
                } else {
                    Fault::Failpoint {
                        name: RECOVERY,
                        passes: rng.random_range(0..30),
                    }
                }
            })
            .collect()
    }

    /// The failpoint that kills, if one does.
    pub(super) fn failpoint(&self) -> Option<&'static str> {
        match self {
            Fault::Failpoint { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether a life under this fault goes on until it is killed from outside.
    pub(super) fn is_harmless(&self) -> bool {
        self.failpoint().is_none()
    }

    /// For the report.
    pub(super) fn name(&self) -> &'static str {
        self.failpoint().unwrap_or("random")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails

    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::{Fault, ON_THE_WAY};

    #[test]
    fn same_seed_draws_the_same_faults() {
        let draw = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..50)
                .map(|_| Fault::draw(&mut rng, true))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn hundred_faults_visit_every_failpoint_and_kill_starts() {
        let mut rng = StdRng::seed_from_u64(7);
        let faults: Vec<_> = (0..200).map(|_| Fault::draw(&mut rng, true)).collect();
        let names: HashSet<_> = faults.iter().filter_map(Fault::failpoint).collect();
        assert_eq!(names.len(), ON_THE_WAY.len());
        assert!(faults.iter().any(|f| matches!(f, Fault::Starting { .. })));
        assert!(faults.iter().any(|f| matches!(f, Fault::Random { .. })));
    }
}
