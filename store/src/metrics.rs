//! Every metric of this crate: name, unit, help. `docs/operations.md` lists the same names.
//!
//! [`describe`] is called once by the program after it has installed its recorder. No labels: a node has one store.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// One metric as the documentation lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        unit,
        help,
    }
}

pub const APPENDED_RECORDS: Metric = metric(
    "conch_store_appended_records_total",
    Kind::Counter,
    Unit::Count,
    "Records made durable in the log.",
);
pub const APPENDED_BYTES: Metric = metric(
    "conch_store_appended_bytes_total",
    Kind::Counter,
    Unit::Bytes,
    "Bytes made durable in the log, record headers included.",
);
pub const GROUP_RECORDS: Metric = metric(
    "conch_store_group_records",
    Kind::Histogram,
    Unit::Count,
    "Records in one group: written at once, synced at once.",
);
pub const SYNC_SECONDS: Metric = metric(
    "conch_store_log_fdatasync_seconds",
    Kind::Histogram,
    Unit::Seconds,
    "Time of the log's fdatasync.",
);
pub const TAIL_BYTES: Metric = metric(
    "conch_store_tail_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Memory in front of the index: queued and durable records that the index does not hold yet.",
);
pub const APPLIED_LAG: Metric = metric(
    "conch_store_applied_lag_records",
    Kind::Gauge,
    Unit::Count,
    "Durable records that the index does not hold yet.",
);
pub const APPLY_SECONDS: Metric = metric(
    "conch_store_index_apply_seconds",
    Kind::Histogram,
    Unit::Seconds,
    "Time to write one frozen tail into the index.",
);
pub const REFUSED_OVERLOADED: Metric = metric(
    "conch_store_refused_overloaded_total",
    Kind::Counter,
    Unit::Count,
    "Batches refused because the memory in front of the index was full.",
);
pub const REFUSED_STORAGE_FULL: Metric = metric(
    "conch_store_refused_storage_full_total",
    Kind::Counter,
    Unit::Count,
    "Batches refused because the disk's reserve was reached.",
);
pub const INBOX_ROWS_READ: Metric = metric(
    "conch_store_inbox_rows_read_total",
    Kind::Counter,
    Unit::Count,
    "Rows of inboxes looked at to answer SYNC: follows the channels changed, never those joined.",
);
pub const LOG_SEGMENTS: Metric = metric(
    "conch_store_log_segments",
    Kind::Gauge,
    Unit::Count,
    "Segment files of the log: live, kept and spare.",
);
pub const DISK_FREE_BYTES: Metric = metric(
    "conch_store_disk_free_bytes",
    Kind::Gauge,
    Unit::Bytes,
    "Free space of the data folder's file system.",
);

/// All metrics of the crate.
pub const ALL: &[Metric] = &[
    APPENDED_RECORDS,
    APPENDED_BYTES,
    GROUP_RECORDS,
    SYNC_SECONDS,
    TAIL_BYTES,
    APPLIED_LAG,
    APPLY_SECONDS,
    REFUSED_OVERLOADED,
    REFUSED_STORAGE_FULL,
    INBOX_ROWS_READ,
    LOG_SEGMENTS,
    DISK_FREE_BYTES,
];

/// Tells the installed recorder unit and help of every metric.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}
