//! Tests of the accounts database on real files; what they share stands here.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod devices;
mod durability;
mod people;
mod requests;
mod tokens;

use conch_wire::{DeviceId, UserId};
use tempfile::TempDir;

use super::{Accounts, DisplayName, Handle, NewAccount, NewDevice, PasswordHash, TokenHash};

/// A database in a folder of its own.
struct Fixture {
    folder: TempDir,
    accounts: Accounts,
}

impl Fixture {
    async fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(folder.path().join("accounts.db"))
            .await
            .unwrap();
        Fixture { folder, accounts }
    }

    /// With user 1 and their devices 10 and 11, neither with a token.
    async fn with_devices() -> Fixture {
        let fixture = Fixture::new().await;
        fixture
            .accounts
            .create_account(account(1, "alice"))
            .await
            .unwrap();
        for id in [10, 11] {
            fixture
                .accounts
                .create_device(device(id, 1), 5)
                .await
                .unwrap();
        }
        fixture
    }

    /// What a kill leaves: the files as they are, without a clean close, in a folder of their own.
    async fn crash(&self) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        for name in ["accounts.db", "accounts.db-wal"] {
            let from = self.folder.path().join(name);
            if from.exists() {
                std::fs::copy(from, folder.path().join(name)).unwrap();
            }
        }
        let accounts = Accounts::open(folder.path().join("accounts.db"))
            .await
            .unwrap();
        Fixture { folder, accounts }
    }
}

fn handle(text: &str) -> Handle {
    Handle::parse(text).unwrap()
}

fn account(id: u64, name: &str) -> NewAccount {
    NewAccount {
        id: UserId(id),
        handle: handle(name),
        display_name: DisplayName::parse(&format!("{name} the {id}th")).unwrap(),
        issuer: "https://chat.example".into(),
        subject: format!("subject {id}"),
        password_hash: Some(PasswordHash::new("$argon2id$…")),
        created_ms: 1_000 + id,
    }
}

fn device(id: u64, user: u64) -> NewDevice {
    NewDevice {
        id: DeviceId(id),
        user: UserId(user),
        name: format!("phone {id}"),
        platform: "test".into(),
        created_ms: 2_000 + id,
    }
}

fn token(number: u8) -> TokenHash {
    TokenHash([number; 32])
}
