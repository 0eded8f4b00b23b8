//! Tests of the model's handles: held and failed appends, held reads, refusals, the crash. What it answers is the
//! conformance suite's matter; its random comparison, run on the model itself, tests the suite.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::sync::Arc;
use std::task::Poll;

use conch_wire::{ChannelId, UserId};
use futures_util::{FutureExt, poll};

use super::{FailedBatches, MemoryStore};
use crate::conformance::Subject;
use crate::conformance::script::{Script, ScriptFold};
use crate::{AppendError, MessageStore, ReadError, Refusal};

const CHANNEL: ChannelId = ChannelId(7);
const READER: UserId = UserId(2);

fn store() -> (MemoryStore, Script) {
    (MemoryStore::new(Arc::new(ScriptFold)), Script::new())
}

async fn head(store: &MemoryStore) -> u32 {
    store
        .load_channel(CHANNEL, 0, 0)
        .await
        .unwrap()
        .map_or(0, |channel| channel.head.seq)
}

#[tokio::test]
async fn held_appends_are_undurable_and_invisible_until_released() {
    let (store, mut script) = store();
    store
        .append(vec![script.group(7, "g", &[1, 2])])
        .await
        .unwrap();
    store.hold();
    let mut first = store.append(vec![script.message(7, 1, 1, "a")]);
    let mut second = store.append(vec![script.message(7, 1, 2, "b")]);
    assert!(poll!(&mut first).is_pending());
    assert_eq!(
        (head(&store).await, store.held(), store.durable_lsn()),
        (1, 2, 1)
    );

    assert!(store.release_one());
    assert_eq!(first.await.unwrap().first, 2);
    assert!(poll!(&mut second).is_pending());
    assert_eq!(head(&store).await, 2);

    store.release();
    assert_eq!(second.await.unwrap().first, 3);
    assert_eq!(head(&store).await, 3);
    assert!(!store.release_one());
    store
        .append(vec![script.message(7, 1, 3, "c")])
        .await
        .unwrap();
    assert_eq!(store.inbox_position(READER).await.unwrap(), 4);
}

#[tokio::test]
async fn a_dropped_waiter_does_not_take_its_batch_back() {
    let (store, mut script) = store();
    store.hold();
    drop(store.append(vec![script.group(7, "g", &[1])]));
    store.release();
    assert_eq!(head(&store).await, 1);
}

#[tokio::test]
async fn failed_appends_fail_for_good_and_are_kept_or_lost() {
    for (batches, head_after) in [(FailedBatches::Lost, 1), (FailedBatches::Kept, 3)] {
        let (store, mut script) = store();
        store
            .append(vec![script.group(7, "g", &[1, 2])])
            .await
            .unwrap();
        store.hold();
        let held = store.append(vec![script.message(7, 1, 1, "a")]);
        store.fail_appends("no more disk", batches);
        let late = store.append(vec![script.message(7, 1, 2, "b")]);
        let failed = Err(AppendError::LogFailed("no more disk".into()));
        assert_eq!((held.await, late.await), (failed.clone(), failed));
        assert_eq!(head(&store).await, 1);
        assert_eq!(head(&store.reopen()).await, head_after);
    }
}

#[tokio::test]
async fn a_crash_keeps_what_is_durable_and_kills_the_old_store() {
    let (store, mut script) = store();
    store
        .append(vec![script.group(7, "g", &[1, 2])])
        .await
        .unwrap();
    store.hold();
    let held = store.append(vec![script.message(7, 1, 1, "a")]);
    let next = store.reopen();
    assert_eq!(held.await, Err(AppendError::Closed));
    assert_eq!(head(&next).await, 1);
    assert_eq!(next.log(), store.log());
    assert_eq!(next.identity().epoch, store.identity().epoch + 1);
    assert_eq!(next.identity().generation, store.identity().generation);
    assert_eq!(store.append(Vec::new()).await, Err(AppendError::Closed));
    assert_eq!(store.inbox_position(READER).await, Err(ReadError::Closed));
}

#[tokio::test]
async fn held_reads_answer_later_with_what_was_there_when_asked() {
    let (store, mut script) = store();
    store.hold_reads();
    let mut before = store.load_channel(CHANNEL, 0, 0);
    assert!(poll!(&mut before).is_pending());
    store
        .append(vec![script.group(7, "g", &[1, 2])])
        .await
        .unwrap();
    store.release_reads();
    assert_eq!(before.await, Ok(None));
    assert_eq!(head(&store).await, 1);
    assert_eq!(store.reads().channels, 2);
    assert_eq!(store.reads().calls(), 2);
}

#[tokio::test]
async fn admission_is_refused_until_told_otherwise() {
    let (store, _) = store();
    assert_eq!(store.admit(1), Ok(()));
    let refusal = Refusal::StorageFull {
        retry_after_ms: 250,
    };
    store.refuse(Some(refusal));
    assert_eq!(store.admit(1), Err(refusal));
    store.refuse(None);
    assert_eq!(store.admit(1), Ok(()));
}

#[tokio::test]
async fn closing_makes_what_was_taken_durable() {
    let (store, mut script) = store();
    store.hold();
    let held = store.append(vec![script.group(7, "g", &[1])]);
    store.close().await;
    assert!(matches!(held.now_or_never(), Some(Ok(_))));
    assert_eq!(head(&store.reopen()).await, 1);
}

#[tokio::test]
async fn a_misplaced_event_asserts_and_changes_nothing() {
    let (store, mut script) = store();
    let first = script.group(7, "g", &[1]);
    store.append(vec![first.clone()]).await.unwrap();
    let skipped = script.message(7, 1, 1, "a");
    for batch in [vec![first], vec![script.message(7, 1, 2, "b")]] {
        let append = std::panic::AssertUnwindSafe(|| drop(store.append(batch)));
        assert!(std::panic::catch_unwind(append).is_err());
    }
    let mut append = store.append(vec![skipped]);
    assert!(matches!(poll!(&mut append), Poll::Ready(Ok(_))));
}

impl Subject for MemoryStore {
    fn store(&self) -> Arc<dyn MessageStore> {
        Arc::new(self.clone())
    }

    async fn crash(self) -> MemoryStore {
        self.reopen()
    }
}

mod conformance {
    use super::{Arc, MemoryStore, ScriptFold};

    async fn open() -> MemoryStore {
        MemoryStore::new(Arc::new(ScriptFold))
    }

    crate::conformance_tests!(open);
}
