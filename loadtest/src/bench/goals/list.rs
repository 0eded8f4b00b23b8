//! The rows of goals that a comparison can judge, with the targets of the project.

use super::{Aim, Figure, Goal, Round};
use crate::bench::Case;
use crate::bench::own::transport_case;
use crate::peers::Peer;
use crate::raw::Transport;

const CPU: &str = "cpu_us_per_delivery";
const DELIVERY_P99: &str = "delivery_p99_us";

/// The rows that a comparison can judge. Targets are those of the project's performance goals.
pub(in crate::bench) const ALL: &[Goal] = &[
    Goal {
        number: 1,
        figures: &[
            at_most("CPU-µs per delivery", 4.0, None, |it| {
                it.conch(Case::PairsSaturated, CPU)
            }),
            at_most("÷ NATS core (memory)", 3.0, Some(1.5), |it| {
                it.ratio(Case::PairsSaturated, Peer::Nats, CPU)
            }),
            at_most("÷ JetStream (page cache)", 0.25, None, |it| {
                it.ratio(Case::PairsSaturated, Peer::JetStream, CPU)
            }),
            beside("÷ JetStream synced always (fsync)", |it| {
                it.ratio(Case::PairsSaturated, Peer::JetStreamAlways, CPU)
            }),
            at_most("÷ Mosquitto QoS 1 (memory)", 1.0 / 6.0, None, |it| {
                it.ratio(Case::PairsSaturated, Peer::Mosquitto, CPU)
            }),
            beside("÷ floor (fsync)", |it| {
                it.ratio(Case::PairsSaturated, Peer::FloorFsync, CPU)
            }),
        ],
    },
    Goal {
        number: 2,
        figures: &[
            beside("CPU-µs per delivery without the index", |it| {
                it.conch(Case::PairsSaturated, "cpu_us_ack_path")
            }),
            at_most("÷ NATS core (memory)", 1.2, Some(0.8), |it| {
                let nats = it.get(Case::PairsSaturated.name(), Peer::Nats.name(), CPU)?;
                Some(it.conch(Case::PairsSaturated, "cpu_us_ack_path")? / nats)
            }),
        ],
    },
    Goal {
        number: 3,
        figures: &[
            at_most("÷ NATS core (memory)", 1.2, Some(0.8), |it| {
                it.ratio(Case::Pairs2000, Peer::Nats, CPU)
            }),
            beside("÷ floor (fsync)", |it| {
                it.ratio(Case::Pairs2000, Peer::FloorFsync, CPU)
            }),
        ],
    },
    Goal {
        number: 4,
        figures: &[
            at_most("1→100 ÷ NATS core (memory)", 0.8, Some(0.5), |it| {
                it.ratio(Case::Fan100, Peer::Nats, CPU)
            }),
            at_most("1→100 ÷ Mosquitto QoS 1 (memory)", 0.05, None, |it| {
                it.ratio(Case::Fan100, Peer::Mosquitto, CPU)
            }),
            beside("1→100 ÷ floor (fsync)", |it| {
                it.ratio(Case::Fan100, Peer::FloorFsync, CPU)
            }),
            at_most("1→1,000 ÷ NATS core (memory)", 0.8, Some(0.5), |it| {
                it.ratio(Case::Fan1000, Peer::Nats, CPU)
            }),
            at_most("1→1,000 ÷ Mosquitto QoS 1 (memory)", 0.05, None, |it| {
                it.ratio(Case::Fan1000, Peer::Mosquitto, CPU)
            }),
            beside("1→1,000 ÷ floor (fsync)", |it| {
                it.ratio(Case::Fan1000, Peer::FloorFsync, CPU)
            }),
        ],
    },
    Goal {
        number: 5,
        figures: &[
            at_most("WebSocket, bytes", 2_048.0, Some(1_229.0), |it| {
                it.get("idle-ws", Peer::Conch.name(), "bytes_per_connection")
            }),
            at_most("WebSocket + TLS, bytes", 14_336.0, Some(10_240.0), |it| {
                it.get("idle-wss", Peer::Conch.name(), "bytes_per_connection")
            }),
            at_most("QUIC, bytes", 24_576.0, Some(16_384.0), |it| {
                it.get("idle-quic", Peer::Conch.name(), "bytes_per_connection")
            }),
        ],
    },
    Goal {
        number: 6,
        figures: &[
            at_most("QUIC ÷ WebSocket + TLS, batched", 1.5, Some(1.0), |it| {
                let case = |over| transport_case(over, 16);
                it.between(&case(Transport::Quic), &case(Transport::Tls), CPU)
            }),
            at_most("QUIC ÷ WebSocket + TLS, unbatched", 2.0, Some(1.3), |it| {
                let case = |over| transport_case(over, 1);
                it.between(&case(Transport::Quic), &case(Transport::Tls), CPU)
            }),
        ],
    },
    Goal {
        number: 7,
        figures: &[
            at_most("bytes per delivery, one at a time", 32.0, None, |it| {
                it.conch(Case::Pairs2000, "wire_overhead_bytes_per_delivery")
            }),
            beside("bytes per delivery, saturated", |it| {
                it.conch(Case::PairsSaturated, "wire_overhead_bytes_per_delivery")
            }),
            beside("bytes of both legs, one at a time", |it| {
                it.conch(Case::Pairs2000, "wire_overhead_bytes_both_legs")
            }),
            beside("bytes of both legs, saturated", |it| {
                it.conch(Case::PairsSaturated, "wire_overhead_bytes_both_legs")
            }),
        ],
    },
    Goal {
        number: 8,
        figures: &[
            at_most("p99 ÷ JetStream synced always (fsync)", 0.5, None, |it| {
                it.ratio(Case::Slo, Peer::JetStreamAlways, DELIVERY_P99)
            }),
            beside("p99 ÷ JetStream (page cache)", |it| {
                it.ratio(Case::Slo, Peer::JetStream, DELIVERY_P99)
            }),
            beside("p99 ÷ NATS core (memory); stretch: 1", |it| {
                it.ratio(Case::Slo, Peer::Nats, DELIVERY_P99)
            }),
        ],
    },
    Goal {
        number: 9,
        figures: &[
            at_most("ack p99 − 2 × fdatasync p99, ms", 1.0, Some(0.3), |it| {
                let disk = it.get(Case::Pairs2000.name(), "disk", "fdatasync_p99_us")?;
                Some((it.conch(Case::Pairs2000, "ack_p99_us")? - 2.0 * disk) / 1_000.0)
            }),
            beside("ack p99, µs", |it| it.conch(Case::Pairs2000, "ack_p99_us")),
            beside("fdatasync p99, µs", |it| {
                it.get(Case::Pairs2000.name(), "disk", "fdatasync_p99_us")
            }),
        ],
    },
    Goal {
        number: 10,
        figures: &[
            at_least(
                "÷ raw group commit at the same batch",
                0.4,
                Some(0.6),
                |it| {
                    let raw = it.get(Case::PairsSaturated.name(), "disk", "messages_per_s")?;
                    Some(it.conch(Case::PairsSaturated, "messages_per_s")? / raw)
                },
            ),
            beside("records per commit", |it| {
                it.conch(Case::PairsSaturated, "records_per_commit")
            }),
        ],
    },
    Goal {
        number: 11,
        figures: &[
            at_most("QUIC full, CPU-µs", 700.0, Some(450.0), |it| {
                it.get(
                    "connect-quic-full",
                    Peer::Conch.name(),
                    "cpu_us_per_connection",
                )
            }),
            at_most("QUIC resumed, CPU-µs", 300.0, Some(150.0), |it| {
                it.get(
                    "connect-quic-resumed",
                    Peer::Conch.name(),
                    "cpu_us_per_connection",
                )
            }),
        ],
    },
    Goal {
        number: 15,
        figures: &[
            at_most(
                "held for the stalled client, KiB: process and kernel",
                256.0,
                Some(64.0),
                |it| {
                    let process = it.conch(Case::Stalled, "process_growth_bytes")?;
                    Some((it.conch(Case::Stalled, "kernel_bytes_for_stalled")? + process) / 1_024.0)
                },
            ),
            beside("of it in the kernel, KiB", |it| {
                Some(it.conch(Case::Stalled, "kernel_bytes_for_stalled")? / 1_024.0)
            }),
            at_most("p99 of the others ÷ without it", 1.1, None, |it| {
                let before = it.conch(Case::Stalled, "delivery_p99_us_all_healthy")?;
                Some(it.conch(Case::Stalled, "delivery_p99_us_beside_stalled")? / before)
            }),
        ],
    },
];

const fn at_most(
    what: &'static str,
    target: f64,
    stretch: Option<f64>,
    of_round: fn(&Round<'_>) -> Option<f64>,
) -> Figure {
    Figure {
        what,
        aim: Aim::AtMost,
        target: Some(target),
        stretch,
        of_round,
    }
}

const fn at_least(
    what: &'static str,
    target: f64,
    stretch: Option<f64>,
    of_round: fn(&Round<'_>) -> Option<f64>,
) -> Figure {
    Figure {
        what,
        aim: Aim::AtLeast,
        target: Some(target),
        stretch,
        of_round,
    }
}

const fn beside(what: &'static str, of_round: fn(&Round<'_>) -> Option<f64>) -> Figure {
    Figure {
        what,
        aim: Aim::AtMost,
        target: None,
        stretch: None,
        of_round,
    }
}
