//! Remembered requests: replay, mismatch, unfinished ones, forgetting.

use conch_wire::UserId;

use super::Fixture;
use crate::accounts::{Memory, REQUEST_MEMORY_MS, RequestAnswer, RequestHash};

const USER: UserId = UserId(1);
const HASH: RequestHash = RequestHash([1; 32]);

fn answer(status: u16) -> RequestAnswer {
    RequestAnswer {
        status,
        body: "{\"channel\":\"5\"}".into(),
    }
}

#[tokio::test]
async fn a_finished_request_is_replayed() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let ask = |subject, now_ms| accounts.remember_request(USER, "key", HASH, subject, now_ms);
    assert_eq!(ask(5, 1_000).await.unwrap(), Memory::Fresh);
    accounts
        .complete_request(USER, "key", &answer(201))
        .await
        .unwrap();
    assert_eq!(ask(6, 2_000).await.unwrap(), Memory::Replay(answer(201)));
    accounts
        .complete_request(USER, "key", &answer(500))
        .await
        .unwrap();
    accounts.forget_request(USER, "key").await.unwrap();
    assert_eq!(
        ask(7, 3_000).await.unwrap(),
        Memory::Replay(answer(201)),
        "the first answer stays"
    );
}

#[tokio::test]
async fn an_unfinished_request_goes_on_under_its_first_subject() {
    let fixture = Fixture::new().await;
    let fresh = fixture
        .accounts
        .remember_request(USER, "key", HASH, 5, 1_000)
        .await
        .unwrap();
    assert_eq!(fresh, Memory::Fresh);
    let opened = fixture.crash().await;
    let accounts = &opened.accounts;
    let again = accounts
        .remember_request(USER, "key", HASH, 6, 2_000)
        .await
        .unwrap();
    assert_eq!(again, Memory::Unfinished { subject: 5 });
    accounts
        .complete_request(USER, "key", &answer(201))
        .await
        .unwrap();
    let last = accounts
        .remember_request(USER, "key", HASH, 7, 3_000)
        .await
        .unwrap();
    assert_eq!(last, Memory::Replay(answer(201)));
}

#[tokio::test]
async fn another_request_under_the_same_key_is_a_mismatch() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let ask = |user, hash| accounts.remember_request(user, "key", hash, 5, 1_000);
    assert_eq!(ask(USER, HASH).await.unwrap(), Memory::Fresh);
    assert_eq!(
        ask(USER, RequestHash([2; 32])).await.unwrap(),
        Memory::Mismatch
    );
    assert_eq!(
        ask(UserId(2), RequestHash([2; 32])).await.unwrap(),
        Memory::Fresh,
        "keys are a user's own"
    );
}

#[tokio::test]
async fn a_refused_request_may_be_tried_again() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let ask = |hash| accounts.remember_request(USER, "key", hash, 5, 1_000);
    assert_eq!(ask(HASH).await.unwrap(), Memory::Fresh);
    accounts.forget_request(USER, "key").await.unwrap();
    assert_eq!(ask(RequestHash([2; 32])).await.unwrap(), Memory::Fresh);
}

#[tokio::test]
async fn requests_are_forgotten_after_a_day() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let ask = |key, now_ms| accounts.remember_request(USER, key, HASH, 5, now_ms);
    assert_eq!(ask("one", 1_000).await.unwrap(), Memory::Fresh);
    assert_eq!(ask("two", 1_000).await.unwrap(), Memory::Fresh);
    let last_ms = 999 + REQUEST_MEMORY_MS;
    assert_eq!(
        ask("one", last_ms).await.unwrap(),
        Memory::Unfinished { subject: 5 }
    );
    assert_eq!(accounts.purge(last_ms).await.unwrap(), 0);
    assert_eq!(ask("one", last_ms + 1).await.unwrap(), Memory::Fresh);
    assert_eq!(accounts.purge(last_ms + 1).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_exactly_one_is_fresh_and_all_have_its_subject() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let attempts: Vec<_> = (1..=16)
        .map(|subject| {
            let accounts = accounts.clone();
            let ask = async move {
                accounts
                    .remember_request(USER, "key", HASH, subject, 1_000)
                    .await
            };
            tokio::spawn(async move { (subject, ask.await.unwrap()) })
        })
        .collect();
    let mut subjects = Vec::new();
    let mut fresh = 0;
    for attempt in attempts {
        subjects.push(match attempt.await.unwrap() {
            (subject, Memory::Fresh) => {
                fresh += 1;
                subject
            }
            (_, Memory::Unfinished { subject }) => subject,
            (_, other) => panic!("{other:?}"),
        });
    }
    subjects.dedup();
    assert_eq!((fresh, subjects.len()), (1, 1));
}
