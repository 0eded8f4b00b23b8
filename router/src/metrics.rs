//! Every metric of the owners: name, kind, unit, help. Labels come from closed sets, never from ids.

use metrics::{Unit, describe_counter, describe_gauge};

/// Whether a metric only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
}

/// A metric as the operator's documentation lists it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident, $name:literal, $kind:ident, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*
        /// All of them.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::Count,
            help: $help,
        },)*];
    };
}

metrics! {
    QUEUE_DEPTH, "conch_router_queue_depth", Gauge, "Most requests that an owner loop found in its queue in one pass lately, by shard.";
    REFUSALS, "conch_router_refusals_total", Counter, "Refusals given by owners, by code.";
    BATCHES, "conch_router_batches_total", Counter, "Appends handed to the store by owner loops.";
    EVENTS_COMMITTED, "conch_router_events_committed_total", Counter, "Events that became durable.";
    DUPLICATES, "conch_router_duplicates_total", Counter, "Sends answered with a place that an earlier attempt had taken.";
    CHANNELS_LOADED, "conch_router_channels_loaded", Gauge, "Channels in memory, by shard.";
    USERS_LOADED, "conch_router_users_loaded", Gauge, "Users with at least one session, by shard.";
    BEHIND, "conch_router_channels_behind", Gauge, "Channels whose deliveries wait for room at a user owner, by shard.";
    PANICS, "conch_router_panics_total", Counter, "Panics caught around a channel's state.";
    QUARANTINED, "conch_router_channels_quarantined", Gauge, "Channels that refuse sends after repeated panics, by shard.";
}

/// Tells the recorder what the metrics are. Call once, after it is installed.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
        }
    }
}
