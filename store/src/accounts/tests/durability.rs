//! What was answered is on disk: settings of the connections, crashes, restarts.

use std::os::unix::fs::PermissionsExt;

use conch_wire::{DeviceId, UserId};

use super::{Fixture, account, device, handle, token};
use crate::accounts::{Accounts, DatabaseError, Memory, RequestHash, Rotation, RotationTimes};

#[tokio::test]
async fn every_writing_connection_syncs_and_checks_references() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let pragma = async |sql: &'static str| -> String {
        let mut connection = accounts.writer.acquire().await.unwrap();
        let value = sqlx::query(sql).fetch_one(&mut *connection).await.unwrap();
        let number = sqlx::Row::try_get::<i64, _>(&value, 0);
        number.map_or_else(|_| sqlx::Row::get(&value, 0), |number| number.to_string())
    };
    assert_eq!(pragma("PRAGMA journal_mode").await, "wal");
    assert_eq!(pragma("PRAGMA synchronous").await, "2", "FULL");
    assert_eq!(pragma("PRAGMA foreign_keys").await, "1");
    assert_eq!(pragma("PRAGMA busy_timeout").await, "5000");
}

#[tokio::test]
async fn a_reading_connection_cannot_write() {
    let opened = Fixture::new().await;
    let accounts = &opened.accounts;
    let refused = sqlx::query("DELETE FROM accounts")
        .execute(&accounts.readers)
        .await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_crash_loses_nothing_answered() {
    let fixture = Fixture::with_devices().await;
    fixture
        .accounts
        .issue_token(DeviceId(10), token(1), 90_000)
        .await
        .unwrap();
    let times = RotationTimes {
        now_ms: 1_000,
        expires_ms: 90_000,
        grace_ms: 30_000,
    };
    fixture
        .accounts
        .rotate_token(token(1), token(2), times)
        .await
        .unwrap();
    fixture
        .accounts
        .revoke_device(DeviceId(11), 3_000)
        .await
        .unwrap();

    let crashed = fixture.crash().await;
    let opened = &crashed;
    let accounts = &opened.accounts;
    let alice = accounts
        .account_by_handle(&handle("alice"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(alice.id, UserId(1));
    let active: Vec<bool> = (accounts.devices_of(UserId(1)).await.unwrap().iter())
        .map(|device| device.is_active())
        .collect();
    assert_eq!(active, [true, false]);
    // The answer to the rotation was lost with the node: the device still has the first token, and is let in.
    let again = accounts.rotate_token(
        token(1),
        token(3),
        RotationTimes {
            now_ms: 4_000,
            ..times
        },
    );
    let rotated = Rotation::Rotated {
        user: UserId(1),
        device: DeviceId(10),
    };
    assert_eq!(again.await.unwrap(), rotated);
}

#[tokio::test]
async fn a_transaction_that_was_cut_off_leaves_nothing() {
    let fixture = Fixture::with_devices().await;
    let mut tx = fixture.accounts.write().await.unwrap();
    sqlx::query("UPDATE accounts SET display_name = 'half'")
        .execute(&mut *tx)
        .await
        .unwrap();
    let crashed = fixture.crash().await;
    let alice = crashed.accounts.account(UserId(1)).await.unwrap().unwrap();
    assert_eq!(alice.display_name.as_str(), "alice the 1th");
    drop(tx);
    // The abandoned transaction is rolled back before the connection serves the next writer.
    fixture
        .accounts
        .create_account(account(2, "bob"))
        .await
        .unwrap();
    let alice = fixture.accounts.account(UserId(1)).await.unwrap().unwrap();
    assert_eq!(alice.display_name.as_str(), "alice the 1th");
}

#[tokio::test]
async fn a_restart_finds_everything_and_migrates_nothing_twice() {
    let fixture = Fixture::with_devices().await;
    let path = fixture.folder.path().join("accounts.db");
    let hash = RequestHash([7; 32]);
    fixture
        .accounts
        .remember_request(UserId(1), "key", hash, 5, 1_000)
        .await
        .unwrap();
    fixture.accounts.close().await;
    let closed = fixture.accounts.account(UserId(1)).await;
    assert!(matches!(
        closed,
        Err(DatabaseError::Sql(sqlx::Error::PoolClosed))
    ));
    for _ in 0..2 {
        let accounts = Accounts::open(&path).await.unwrap();
        assert_eq!(accounts.devices_of(UserId(1)).await.unwrap().len(), 2);
        let known = accounts
            .remember_request(UserId(1), "key", hash, 6, 1_001)
            .await
            .unwrap();
        assert_eq!(known, Memory::Unfinished { subject: 5 });
        accounts.close().await;
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let fixture = Fixture::new().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&fixture.accounts.writer)
    .await
    .unwrap();
    fixture.accounts.close().await;
    let refused = Accounts::open(fixture.folder.path().join("accounts.db")).await;
    assert!(matches!(refused, Err(DatabaseError::Migration(_))));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.db");
    std::fs::write(
        &path,
        "not a database at all, but long enough to be read as one".repeat(100),
    )
    .unwrap();
    assert!(matches!(
        Accounts::open(&path).await,
        Err(DatabaseError::Sql(_))
    ));
    let missing = Accounts::open(folder.path().join("no folder/accounts.db")).await;
    assert!(matches!(missing, Err(DatabaseError::File(_))));
}

#[tokio::test]
async fn the_files_are_their_owners_only() {
    let fixture = Fixture::with_devices().await;
    fixture
        .accounts
        .create_device(device(12, 1), 9)
        .await
        .unwrap();
    for name in ["accounts.db", "accounts.db-wal"] {
        let mode = std::fs::metadata(fixture.folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}
