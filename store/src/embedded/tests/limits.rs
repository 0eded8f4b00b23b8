//! Failures and bounds: what is refused, what ends the store, what comes back by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use conch_wire::ChannelId;
use tempfile::TempDir;

use crate::conformance::compare::{compare, expect_same};
use crate::conformance::script::{Script, ScriptFold};
use crate::row::{EventRow, Record};
use crate::{AppendError, EventEffect, Fold, MessageStore, ReadError, Refusal};

use super::super::applier::note_free;
use super::super::folder::{RESTORE_ID_SKIP, new_generation};
use super::super::{EmbeddedStore, Fatal, OpenError};
use super::{append, kill, open, options};

#[derive(Clone, Copy, Debug)]
enum Fault {
    Write,
    Sync,
}

async fn nothing_is_acknowledged_after(fault: Fault) {
    let dir = TempDir::new().unwrap();
    let store = open(options(dir.path())).unwrap();
    let mut script = Script::new();
    let mut records = vec![script.group(1, "g", &[10])];
    append(&store, records.clone()).await;

    let faults = store.shared.pool.faults();
    let flag = match fault {
        Fault::Write => &faults.fail_write,
        Fault::Sync => &faults.fail_sync,
    };
    flag.store(true, Ordering::SeqCst);
    let lost = script.message(1, 10, 1, "never acknowledged");
    let failed = store.append(vec![lost.clone()]).await;
    assert!(
        matches!(failed, Err(AppendError::LogFailed(_))),
        "{failed:?}"
    );
    let fatal = store.fatal();
    assert!(matches!(*fatal.borrow(), Some(Fatal::Log(_))), "{fault:?}");

    // The disk is well again, the process is not: what was not synced may be anything.
    flag.store(false, Ordering::SeqCst);
    let later = store.append(vec![lost.clone()]).await;
    assert!(matches!(later, Err(AppendError::LogFailed(_))), "{later:?}");
    expect_same(&store, &records).await;
    store.close().await;
    drop(store);

    // After a start the message is there once or not at all.
    let store = open(options(dir.path())).unwrap();
    records.push(lost);
    if compare(&store, &records).await.is_err() {
        records.pop();
        expect_same(&store, &records).await;
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_sync() {
    nothing_is_acknowledged_after(Fault::Sync).await;
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_write() {
    nothing_is_acknowledged_after(Fault::Write).await;
}

#[tokio::test]
async fn an_event_out_of_place_panics_its_caller_and_nobody_else() {
    let dir = TempDir::new().unwrap();
    let store = open(options(dir.path())).unwrap();
    let mut script = Script::new();
    let mut records = vec![script.group(1, "g", &[10])];
    append(&store, records.clone()).await;
    let skipped = script.message(1, 10, 1, "its place");
    let ahead = script.message(1, 10, 2, "too early");
    let broken = store.append(vec![ahead]);
    let outcome = tokio::spawn(broken).await;
    assert!(outcome.is_err_and(|error| error.is_panic()));
    append(&store, vec![skipped.clone()]).await;
    records.push(skipped);
    expect_same(&store, &records).await;
}

/// Cannot read one message.
struct Choking;

impl Fold for Choking {
    fn effect(&self, event: &EventRow) -> EventEffect {
        assert!(!event.body.ends_with(b"poison"), "a fold that chokes");
        ScriptFold.effect(event)
    }
}

#[tokio::test]
async fn a_fold_that_panics_ends_the_store_and_nothing_is_acknowledged() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(options(dir.path()), Arc::new(Choking)).unwrap();
    let mut script = Script::new();
    append(&store, vec![script.group(1, "g", &[10])]).await;
    let outcome = store.append(vec![script.message(1, 10, 1, "poison")]).await;
    assert!(
        matches!(outcome, Err(AppendError::LogFailed(_))),
        "{outcome:?}"
    );
    let mut fatal = store.fatal();
    let told = fatal.wait_for(Option::is_some);
    tokio::time::timeout(std::time::Duration::from_secs(20), told)
        .await
        .unwrap()
        .unwrap();
    let later = store.append(vec![script.message(1, 10, 2, "fine")]).await;
    assert!(matches!(later, Err(AppendError::LogFailed(_))), "{later:?}");
}

#[tokio::test]
async fn memory_in_front_of_the_index_is_bounded_and_recovers() {
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path());
    options.tail_bytes_max = 200_000;
    options.apply_bytes = 200_000;
    let store = open(options).unwrap();
    let mut script = Script::new();
    let mut records = vec![script.group(1, "g", &[10])];
    append(&store, records.clone()).await;
    let mut number = 0;
    let refusal = loop {
        let message = script.clone().message(1, 10, number, &"x".repeat(500));
        if let Err(refusal) = store.admit(700) {
            break refusal;
        }
        number += 1;
        let _ = script.message(1, 10, number - 1, &"x".repeat(500));
        append(&store, vec![message.clone()]).await;
        records.push(message);
        assert!(number < 1_000, "nothing was ever refused");
    };
    assert!(matches!(refusal, Refusal::Overloaded { retry_after_ms } if retry_after_ms > 0));
    assert!(store.tail_bytes() <= 200_000 + 2_000);
    store.settle_index();
    store.admit(700).unwrap();
    assert_eq!(store.tail_bytes(), 0);
    expect_same(&store, &records).await;
}

#[tokio::test]
async fn at_the_disks_reserve_sends_are_refused_and_come_back_by_themselves() {
    let dir = TempDir::new().unwrap();
    let mut options = options(dir.path());
    options.disk_reserve_bytes = 1;
    let store = open(options.clone()).unwrap();
    let mut script = Script::new();
    let records = vec![script.group(1, "g", &[10])];
    append(&store, records.clone()).await;
    note_free(&store.shared, 0);
    assert!(matches!(store.admit(1), Err(Refusal::StorageFull { .. })));
    expect_same(&store, &records).await;
    note_free(&store.shared, 1);
    store.admit(1).unwrap();
    kill(store);

    // The real space is looked at before anything is admitted, and again all the time.
    options.disk_reserve_bytes = u64::MAX;
    let store = open(options).unwrap();
    let refused = async {
        while store.admit(1).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), refused)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_closed_store_answers_closed() {
    let dir = TempDir::new().unwrap();
    let store = open(options(dir.path())).unwrap();
    store.close().await;
    store.close().await;
    let block = Record::IdBlock { space: 1, end: 1 };
    assert_eq!(store.append(vec![block]).await, Err(AppendError::Closed));
    let read = store.load_channel(ChannelId(1), 1, 1).await;
    assert_eq!(read, Err(ReadError::Closed));
}

#[tokio::test]
async fn a_second_store_on_the_same_folder_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(options(dir.path())).unwrap();
    let second = open(options(dir.path()));
    assert!(matches!(second, Err(OpenError::Locked(_))), "{second:?}");
    let offline = new_generation(dir.path());
    assert!(matches!(offline, Err(OpenError::Locked(_))), "{offline:?}");
    drop(store);
}

#[tokio::test]
async fn a_new_generation_voids_cursors_and_skips_ids_ahead_once() {
    let dir = TempDir::new().unwrap();
    let store = open(options(dir.path())).unwrap();
    let before = store.identity();
    append(&store, vec![Record::IdBlock { space: 3, end: 500 }]).await;
    store.close().await;
    drop(store);

    let minted = new_generation(dir.path()).unwrap();
    assert_ne!(minted.generation, before.generation);
    assert_ne!(minted.generation, 0);
    for _ in 0..2 {
        let store = open(options(dir.path())).unwrap();
        let after = store.identity();
        assert_eq!(after.generation, minted.generation);
        assert_ne!(after.inbox_incarnation, before.inbox_incarnation);
        assert_eq!(after.id_key, before.id_key);
        assert!(after.epoch > before.epoch);
        assert_eq!(store.id_block_end(3), 500 + RESTORE_ID_SKIP);
        kill(store);
    }
}

#[tokio::test]
async fn a_folder_without_a_store_gets_no_new_generation() {
    let dir = TempDir::new().unwrap();
    let refused = new_generation(dir.path());
    assert!(matches!(refused, Err(OpenError::Format(..))), "{refused:?}");
}
