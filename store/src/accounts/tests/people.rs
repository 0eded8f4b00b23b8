//! Accounts: unique handles and subjects, lookups, changes.

use conch_wire::UserId;

use super::{Fixture, account, handle};
use crate::accounts::{Account, CreateAccountError, DisplayName, NewAccount, PasswordHash};

fn stored(new: &NewAccount) -> Account {
    let new = new.clone();
    Account {
        id: new.id,
        handle: new.handle,
        display_name: new.display_name,
        issuer: new.issuer,
        subject: new.subject,
        password_hash: new.password_hash,
        created_ms: new.created_ms,
    }
}

#[tokio::test]
async fn an_account_is_found_by_handle_id_and_subject() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let new = NewAccount {
        password_hash: None,
        ..account(u64::MAX >> 1, "alice")
    };
    accounts.create_account(new.clone()).await.unwrap();
    accounts.create_account(account(2, "bob")).await.unwrap();
    let alice = Some(stored(&new));
    assert_eq!(
        accounts.account_by_handle(&handle("ALICE")).await.unwrap(),
        alice
    );
    assert_eq!(accounts.account(new.id).await.unwrap(), alice);
    assert_eq!(
        accounts
            .account_by_subject(&new.issuer, &new.subject)
            .await
            .unwrap(),
        alice
    );
    assert_eq!(
        accounts.account_by_handle(&handle("carol")).await.unwrap(),
        None
    );
    assert_eq!(accounts.account(UserId(u64::MAX)).await.unwrap(), None);
    assert_eq!(
        accounts
            .account_by_subject("elsewhere", &new.subject)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn handles_subjects_and_ids_are_unique() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    accounts.create_account(account(1, "alice")).await.unwrap();
    let taken = accounts.create_account(account(2, "Alice")).await;
    assert!(matches!(taken, Err(CreateAccountError::HandleTaken)));
    let same = accounts.create_account(account(1, "alice")).await;
    assert!(matches!(same, Err(CreateAccountError::HandleTaken)));
    let subject = account(1, "any").subject;
    let taken = accounts
        .create_account(NewAccount {
            subject: subject.clone(),
            ..account(2, "bob")
        })
        .await;
    assert!(matches!(taken, Err(CreateAccountError::SubjectTaken)));
    let taken = accounts
        .create_account(NewAccount {
            subject: "new".into(),
            ..account(1, "bob")
        })
        .await;
    assert!(matches!(taken, Err(CreateAccountError::IdTaken)));
    let other_issuer = NewAccount {
        subject,
        issuer: "https://other.example".into(),
        ..account(2, "bob")
    };
    accounts.create_account(other_issuer).await.unwrap();
    assert_eq!(
        accounts
            .accounts(&[UserId(1), UserId(2)])
            .await
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_for_one_handle_exactly_one_is_made() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let attempts: Vec<_> = (1..=24)
        .map(|id| {
            let accounts = accounts.clone();
            tokio::spawn(async move { (id, accounts.create_account(account(id, "alice")).await) })
        })
        .collect();
    let mut made = Vec::new();
    for attempt in attempts {
        match attempt.await.unwrap() {
            (id, Ok(())) => made.push(id),
            (_, Err(CreateAccountError::HandleTaken)) => {}
            (_, Err(error)) => panic!("{error:?}"),
        }
    }
    assert_eq!(made.len(), 1);
    let alice = accounts
        .account_by_handle(&handle("alice"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(alice.id, UserId(made[0]));
}

#[tokio::test]
async fn names_come_in_bulk() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    for id in 1..=12 {
        accounts
            .create_account(account(id, &format!("user-{id}")))
            .await
            .unwrap();
    }
    // More ids than one statement names, most of them nobody's, some twice.
    let asked: Vec<UserId> = (1..=1_300).rev().chain([3, 3, 5]).map(UserId).collect();
    let found = accounts.accounts(&asked).await.unwrap();
    let ids: Vec<u64> = found.iter().map(|account| account.id.0).collect();
    assert_eq!(ids, (1..=12).collect::<Vec<_>>());
    assert_eq!(accounts.accounts(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn names_and_passwords_change() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    accounts.create_account(account(1, "alice")).await.unwrap();
    let name = DisplayName::parse("'; DROP TABLE accounts; --").unwrap();
    let hash = PasswordHash::new("$argon2id$better");
    assert!(accounts.set_display_name(UserId(1), &name).await.unwrap());
    assert!(accounts.set_password_hash(UserId(1), &hash).await.unwrap());
    assert!(!accounts.set_display_name(UserId(2), &name).await.unwrap());
    assert!(!accounts.set_password_hash(UserId(2), &hash).await.unwrap());
    let alice = accounts.account(UserId(1)).await.unwrap().unwrap();
    assert_eq!(
        (alice.display_name, alice.password_hash),
        (name, Some(hash))
    );
}

#[test]
fn a_password_hash_does_not_show_itself() {
    let shown = format!("{:?}", account(1, "alice"));
    assert!(!shown.contains("argon2id"), "{shown}");
}
