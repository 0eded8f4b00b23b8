//! Devices: the cap, revocation, signs of life.

use conch_wire::{DeviceId, UserId};

use super::{Fixture, account, device, token};
use crate::accounts::{CreateDeviceError, Device, IssueError, Rotation, RotationTimes};

#[tokio::test]
async fn devices_are_listed_oldest_first() {
    let opened = Fixture::with_devices().await;
    let accounts = &opened.accounts;
    let first = Device {
        id: DeviceId(10),
        user: UserId(1),
        name: "phone 10".into(),
        platform: "test".into(),
        created_ms: 2_010,
        seen_ms: 2_010,
        revoked_ms: None,
    };
    assert!(first.is_active());
    assert_eq!(
        accounts.device(DeviceId(10)).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(accounts.device(DeviceId(99)).await.unwrap(), None);
    let listed = accounts.devices_of(UserId(1)).await.unwrap();
    assert_eq!((listed.len(), &listed[0]), (2, &first));
    assert_eq!(accounts.devices_of(UserId(2)).await.unwrap(), []);
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_active_devices() {
    let opened = Fixture::with_devices().await;
    let accounts = &opened.accounts;
    let refused = accounts.create_device(device(12, 1), 2).await;
    assert!(matches!(refused, Err(CreateDeviceError::TooManyDevices)));
    assert!(accounts.revoke_device(DeviceId(10), 5_000).await.unwrap());
    accounts.create_device(device(12, 1), 2).await.unwrap();
    let refused = accounts.create_device(device(13, 1), 2).await;
    assert!(matches!(refused, Err(CreateDeviceError::TooManyDevices)));
    let refused = accounts.create_device(device(12, 1), 9).await;
    assert!(matches!(refused, Err(CreateDeviceError::IdTaken)));
    let refused = accounts.create_device(device(14, 2), 9).await;
    assert!(matches!(refused, Err(CreateDeviceError::NoSuchAccount)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_cap_holds_for_many_log_ins_at_once() {
    let fixture = Fixture::new().await;
    fixture
        .accounts
        .create_account(account(1, "alice"))
        .await
        .unwrap();
    let attempts: Vec<_> = (10..30)
        .map(|id| {
            let accounts = fixture.accounts.clone();
            tokio::spawn(async move { accounts.create_device(device(id, 1), 5).await.is_ok() })
        })
        .collect();
    let mut made = 0;
    for attempt in attempts {
        made += usize::from(attempt.await.unwrap());
    }
    assert_eq!(made, 5);
    assert_eq!(
        fixture.accounts.devices_of(UserId(1)).await.unwrap().len(),
        5
    );
}

#[tokio::test]
async fn a_revoked_device_stays_revoked_and_its_tokens_open_nothing() {
    let opened = Fixture::with_devices().await;
    let accounts = &opened.accounts;
    accounts
        .issue_token(DeviceId(10), token(1), 90_000)
        .await
        .unwrap();
    accounts
        .issue_token(DeviceId(11), token(2), 90_000)
        .await
        .unwrap();
    assert!(accounts.revoke_device(DeviceId(10), 5_000).await.unwrap());
    assert!(!accounts.revoke_device(DeviceId(10), 6_000).await.unwrap());
    assert!(!accounts.revoke_device(DeviceId(99), 6_000).await.unwrap());
    let revoked = accounts.device(DeviceId(10)).await.unwrap().unwrap();
    assert_eq!(
        (revoked.revoked_ms, revoked.is_active()),
        (Some(5_000), false)
    );
    let times = RotationTimes {
        now_ms: 7_000,
        expires_ms: 90_000,
        grace_ms: 0,
    };
    assert_eq!(
        accounts
            .rotate_token(token(1), token(3), times)
            .await
            .unwrap(),
        Rotation::Unknown
    );
    let other = accounts
        .rotate_token(token(2), token(4), times)
        .await
        .unwrap();
    assert_eq!(
        other,
        Rotation::Rotated {
            user: UserId(1),
            device: DeviceId(11)
        }
    );
    let refused = accounts.issue_token(DeviceId(10), token(5), 90_000).await;
    assert!(matches!(refused, Err(IssueError::NoSuchDevice)));
}

#[tokio::test]
async fn signs_of_life_never_move_back() {
    let opened = Fixture::with_devices().await;
    let accounts = &opened.accounts;
    for (seen_ms, noted_ms) in [(9_000, 9_000), (8_000, 9_000), (9_001, 9_001)] {
        accounts.touch_device(DeviceId(10), seen_ms).await.unwrap();
        assert_eq!(
            accounts
                .device(DeviceId(10))
                .await
                .unwrap()
                .unwrap()
                .seen_ms,
            noted_ms
        );
    }
    accounts.touch_device(DeviceId(99), 1).await.unwrap();
}
