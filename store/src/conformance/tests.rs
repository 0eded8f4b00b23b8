//! Tests of the suite itself: every check stands in the list, and stores that err at a crash are found out.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::Subject;
use super::random::{Shape, run_schedule};
use super::script::ScriptFold;
use crate::MessageStore;
use crate::memory::MemoryStore;
use crate::row::Record;

#[test]
fn no_check_is_forgotten() {
    let files = [
        ("channels", include_str!("checks/channels.rs")),
        ("durability", include_str!("checks/durability.rs")),
        ("events", include_str!("checks/events.rs")),
        ("inbox", include_str!("checks/inbox.rs")),
        ("keys", include_str!("checks/keys.rs")),
        ("members", include_str!("checks/members.rs")),
    ];
    let list = include_str!("mod.rs");
    for (file, source) in files {
        let written = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub async fn "));
        for check in written.filter_map(|rest| rest.split('<').next()) {
            assert!(
                list.contains(&format!("{file}::{check},")),
                "{file}::{check} never runs"
            );
        }
    }
}

/// What a crash does to the log.
type Mishap = fn(&mut Vec<Record>);

/// The model, but its crashes have mishaps.
struct Unlucky {
    store: MemoryStore,
    mishap: Mishap,
}

impl Subject for Unlucky {
    fn store(&self) -> Arc<dyn MessageStore> {
        Arc::new(self.store.clone())
    }

    async fn crash(self) -> Unlucky {
        let next = self.store.reopen();
        let mut log = next.log();
        (self.mishap)(&mut log);
        let store = MemoryStore::replayed(Arc::new(ScriptFold), next.identity(), log);
        Unlucky {
            store,
            mishap: self.mishap,
        }
    }
}

/// Leaves the places of these records, but nothing of what they did.
fn forget(log: &mut [Record], which: impl Fn(&Record) -> bool) {
    for record in log.iter_mut().filter(|record| which(record)) {
        *record = Record::IdBlock { space: 0, end: 0 };
    }
}

async fn is_found_out(mishap: Mishap) -> bool {
    let open = async move || Unlucky {
        store: MemoryStore::new(Arc::new(ScriptFold)),
        mishap,
    };
    let shape = Shape {
        seed: 7,
        rounds: 50,
        users: 6,
        channels: 5,
        batch_max: 6,
    };
    AssertUnwindSafe(run_schedule(&open, shape))
        .catch_unwind()
        .await
        .is_err()
}

#[tokio::test]
async fn a_store_that_errs_at_a_crash_is_found_out() {
    let mishaps: [(&str, Mishap); 7] = [
        ("the last record is lost", |log| {
            log.pop();
        }),
        ("all positions are one further", |log| {
            log.insert(0, Record::IdBlock { space: 0, end: 0 });
        }),
        ("erased bodies are back", |log| {
            forget(log, |record| matches!(record, Record::Erasure { .. }));
        }),
        ("read marks are gone", |log| {
            forget(log, |record| matches!(record, Record::ReadMark { .. }));
        }),
        ("pairs are gone", |log| {
            forget(log, |record| matches!(record, Record::Pair { .. }));
        }),
        ("id blocks are gone", |log| {
            forget(log, |record| matches!(record, Record::IdBlock { .. }));
        }),
        ("keys are mixed up", |log| {
            for record in log {
                if let Record::Event(event) = record {
                    event.key.0[0] ^= 1;
                }
            }
        }),
    ];
    for (what, mishap) in mishaps {
        assert!(is_found_out(mishap).await, "{what}, and nobody noticed");
    }
    assert!(
        !is_found_out(|_| ()).await,
        "a store that does not err passes"
    );
}
