//! Tests of the embedded store: the conformance suite, and what only it can do (torn tails, damage, recycling, bounds).
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod damage;
mod indexing;
mod limits;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::MessageStore;
use crate::conformance::Subject;
use crate::conformance::script::ScriptFold;
use crate::row::Record;

use super::{EmbeddedOptions, EmbeddedStore, OpenError};

/// Small segments, and an index that follows only when it is asked to.
fn options(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 64 * 1024,
        retained_segments: 4,
        apply_interval: Duration::from_secs(3600),
        index_cache_bytes: 1 << 20,
        disk_reserve_bytes: 0,
        ..EmbeddedOptions::new(dir)
    }
}

fn open(options: EmbeddedOptions) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(options, Arc::new(ScriptFold))
}

async fn append(store: &EmbeddedStore, batch: Vec<Record>) {
    store.append(batch).await.unwrap();
}

/// Ends a store as a kill would.
fn kill(store: EmbeddedStore) {
    store.kill();
    drop(store);
}

/// Copies a data folder as it is.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The store as the conformance suite handles it.
struct Embedded {
    dir: TempDir,
    options: EmbeddedOptions,
    store: Arc<EmbeddedStore>,
}

impl Embedded {
    fn create(change: impl FnOnce(&mut EmbeddedOptions)) -> Embedded {
        let dir = TempDir::new().unwrap();
        let mut options = options(dir.path());
        options.segment_bytes = 1 << 20;
        change(&mut options);
        let store = Arc::new(open(options.clone()).unwrap());
        Embedded {
            dir,
            options,
            store,
        }
    }
}

impl Subject for Embedded {
    fn store(&self) -> Arc<dyn MessageStore> {
        self.store.clone()
    }

    async fn crash(self) -> Embedded {
        let Embedded {
            dir,
            options,
            store,
        } = self;
        store.kill();
        assert_eq!(Arc::strong_count(&store), 1, "the suite holds a handle");
        drop(store);
        let store = Arc::new(open(options.clone()).unwrap());
        Embedded {
            dir,
            options,
            store,
        }
    }

    async fn settle(&self) {
        self.store.settle_index();
    }
}

/// The tail stays in memory until the suite settles it.
mod conforms {
    use super::Embedded;

    async fn create() -> Embedded {
        Embedded::create(|_| ())
    }

    crate::conformance_tests!(create);
}

/// Everything goes to the index as soon as possible, segments and the hot set are tiny: eviction and recycling all the
/// time.
mod conforms_when_all_is_tiny {
    use std::time::Duration;

    use super::Embedded;

    async fn create() -> Embedded {
        Embedded::create(|options| {
            options.apply_bytes = 1;
            options.apply_interval = Duration::from_millis(1);
            options.hot_bytes_max = 0;
            options.retained_segments = 0;
        })
    }

    crate::conformance_tests!(create);
}
