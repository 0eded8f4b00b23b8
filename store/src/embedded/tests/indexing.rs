//! The index behind the log: rebuilt, set back, recycled past.

use std::fs;
use std::time::Duration;

use conch_wire::{ChannelId, UserId};
use tempfile::TempDir;

use crate::conformance::compare::expect_same;
use crate::conformance::script::{Script, key};
use crate::row::Record;
use crate::{Lsn, MessageStore};

use super::super::{EmbeddedOptions, EmbeddedStore, OpenError};
use super::{append, copy_folder, kill, open, options};

/// Writes rounds of a small busy world: messages, marks, joins, leaves, erasures.
struct World {
    script: Script,
    records: Vec<Record>,
    round: u64,
}

impl World {
    fn new() -> World {
        World {
            script: Script::new(),
            records: Vec::new(),
            round: 0,
        }
    }

    async fn write(&mut self, store: &EmbeddedStore, rounds: u64) {
        for _ in 0..rounds {
            self.round += 1;
            let round = self.round;
            let channel = 1 + round % 3;
            let mut batch = Vec::new();
            let script = &mut self.script;
            if script.head(channel) == 0 {
                batch.push(script.group(channel, "g", &[10, 11, 12]));
            }
            for part in 0..3 {
                let text = "t".repeat((round * 13 % 70) as usize);
                batch.push(script.message(channel, 10 + part, round * 10 + part, &text));
            }
            let head = script.head(channel);
            batch.push(match round % 7 {
                0 => script.erasure(channel, head / 2 + 1),
                1 => script.leave(channel, 12),
                2 => script.join(channel, 10, 12),
                3 => script.pair(round, round + 1, channel),
                4 => Record::IdBlock {
                    space: 1,
                    end: round * 100,
                },
                _ => script.mark(channel, 11, head),
            });
            self.records.extend(batch.clone());
            append(store, batch).await;
        }
    }
}

#[tokio::test]
async fn a_deleted_index_is_rebuilt_from_the_log() {
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path());
    options.retained_segments = 100;
    let mut world = World::new();
    let store = open(options.clone()).unwrap();
    world.write(&store, 150).await;
    store.close().await;
    drop(store);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    // Rebuilt in pieces when it is larger than what may lie in memory.
    options.apply_bytes = 20_000;
    let store = open(options).unwrap();
    assert!(store.applied_lsn() > 0);
    expect_same(&store, &world.records).await;
}

#[tokio::test]
async fn an_older_copy_of_the_index_is_brought_forward() {
    let dir = TempDir::new().unwrap();
    let old = TempDir::new().unwrap();
    let mut options = options(dir.path());
    options.retained_segments = 100;
    let mut world = World::new();
    for rounds in [20, 60] {
        let store = open(options.clone()).unwrap();
        world.write(&store, rounds).await;
        store.close().await;
        drop(store);
        if rounds == 20 {
            copy_folder(&dir.path().join("index"), &old.path().join("index"));
        }
    }
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    copy_folder(&old.path().join("index"), &dir.path().join("index"));
    let store = open(options).unwrap();
    expect_same(&store, &world.records).await;
}

fn small(dir: &TempDir) -> EmbeddedOptions {
    let mut options = options(dir.path());
    options.segment_bytes = 16 * 1024;
    options.retained_segments = 1;
    options
}

/// Writes and settles until segments have been recycled many times; returns the most files seen.
async fn write_far(store: &EmbeddedStore, world: &mut World) -> usize {
    let mut most = 0;
    for _ in 0..60 {
        world.write(store, 8).await;
        store.settle_index();
        most = most.max(store.shared.pool.files());
    }
    most
}

#[tokio::test]
async fn segments_are_recycled_behind_the_index_and_the_disk_is_bounded() {
    let dir = TempDir::new().unwrap();
    let mut world = World::new();
    let store = open(small(&dir)).unwrap();
    let most = write_far(&store, &mut world).await;
    // One retained, one current, clean ones, and those between a settle and the keeper's turn.
    assert!(most <= 8, "{most} segment files");
    let written: usize = world.records.len() * 130;
    assert!(written > 8 * 16 * 1024, "only {written} bytes written");
    expect_same(&store, &world.records).await;
    kill(store);
    let store = open(small(&dir)).unwrap();
    expect_same(&store, &world.records).await;
    world.write(&store, 50).await;
    store.close().await;
    drop(store);
    let store = open(small(&dir)).unwrap();
    expect_same(&store, &world.records).await;
}

#[tokio::test]
async fn an_index_that_ends_before_the_oldest_segment_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut world = World::new();
    let store = open(small(&dir)).unwrap();
    write_far(&store, &mut world).await;
    store.close().await;
    drop(store);
    fs::rename(dir.path().join("index"), dir.path().join("away")).unwrap();
    let refused = open(small(&dir));
    let Err(OpenError::IndexBehind { applied, oldest }) = refused else {
        panic!("{refused:?}");
    };
    assert!(applied == 0 && oldest > 1);

    // Nothing was changed: with its index it opens.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    fs::rename(dir.path().join("away"), dir.path().join("index")).unwrap();
    let store = open(small(&dir)).unwrap();
    expect_same(&store, &world.records).await;
}

#[tokio::test]
async fn a_folder_copied_between_any_two_stages_opens_equal() {
    let dir = TempDir::new().unwrap();
    let options = options(dir.path());
    let mut world = World::new();
    let store = open(options.clone()).unwrap();
    for stage in 0..8 {
        if stage % 2 == 0 {
            world.write(&store, 5).await;
        } else {
            store.settle_index();
        }
        let copy = TempDir::new().unwrap();
        copy_folder(dir.path(), copy.path());
        let mut options = options.clone();
        options.dir = copy.path().to_owned();
        let copied = open(options).unwrap();
        expect_same(&copied, &world.records).await;
    }
}

#[tokio::test]
async fn the_same_key_is_found_in_memory_in_the_index_and_after_a_start() {
    let dir = TempDir::new().unwrap();
    let mut script = Script::new();
    let store = open(options(dir.path())).unwrap();
    append(&store, vec![script.group(1, "g", &[10])]).await;
    append(&store, vec![script.message(1, 10, 77, "once")]).await;
    let find = async |store: &EmbeddedStore| {
        let found = store.find_key(ChannelId(1), UserId(10), key(77)).await;
        found.unwrap().map(|event| event.seq)
    };
    assert!(store.applied_lsn() == 0);
    assert_eq!(find(&store).await, Some(2), "above what is applied");
    store.settle_index();
    assert_eq!(find(&store).await, Some(2), "in the index");
    kill(store);
    let store = open(options(dir.path())).unwrap();
    assert_eq!(find(&store).await, Some(2), "after a start");
}

#[tokio::test]
async fn expired_keys_leave_the_index() {
    let dir = TempDir::new().unwrap();
    let mut script = Script::new();
    let store = open(options(dir.path())).unwrap();
    append(&store, vec![script.group(1, "g", &[10])]).await;
    let day_ms = 24 * 3_600 * 1_000;
    for number in 0..120_u64 {
        let batch = (0..64)
            .map(|part| script.message(1, 10, number * 64 + part, "m"))
            .collect();
        append(&store, batch).await;
        store.settle_index();
        script.clock_ms += day_ms;
    }
    let view = store.shared.index().unwrap().view();
    let kept = view.newest_keys(ChannelId(1), usize::MAX).unwrap().len();
    assert!(kept < 75 * 64, "{kept} of 7680 keys are kept");
    assert!(kept >= 63 * 64, "{kept}: the owners' window must stay");
}

#[tokio::test]
async fn the_index_follows_by_itself() {
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path());
    options.apply_interval = Duration::from_millis(5);
    let store = open(options).unwrap();
    let mut world = World::new();
    world.write(&store, 3).await;
    let durable: Lsn = store.durable_lsn();
    let followed = async {
        while store.applied_lsn() < durable || store.tail_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), followed)
        .await
        .unwrap();
    expect_same(&store, &world.records).await;
}

#[tokio::test]
async fn no_segment_is_recycled_before_the_index_has_it_safely() {
    let dir = TempDir::new().unwrap();
    let mut options = small(&dir);
    options.retained_segments = 0;
    let store = open(options).unwrap();
    let mut world = World::new();
    world.write(&store, 300).await;
    let files = store.shared.pool.files();
    assert!(files > 8, "only {files} segments");
    assert!(!store.shared.pool.wants_persist(0), "nothing is applied");
    let durable = store.durable_lsn();
    assert!(store.shared.pool.wants_persist(durable));

    // Applied alone would not do: the applier syncs the index, and only then tells the pool.
    store.settle_index();
    let recycled = async {
        while store.shared.pool.files() > 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), recycled)
        .await
        .unwrap();
    expect_same(&store, &world.records).await;
}
