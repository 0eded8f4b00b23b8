//! Refresh tokens: rotation, theft, lost answers, races.

use conch_wire::{DeviceId, UserId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::Row;

use super::{Fixture, device, token};
use crate::accounts::{
    Accounts, IssueError, NewDevice, Rotation, RotationTimes, SUPERSEDED_KEPT, TokenHash,
};

const ROTATED: Rotation = Rotation::Rotated {
    user: UserId(1),
    device: DeviceId(10),
};
const REUSED: Rotation = Rotation::Reused {
    user: UserId(1),
    device: DeviceId(10),
};
const GRACE_MS: u64 = 30_000;
const EXPIRES_MS: u64 = 10_000_000;

async fn fixture() -> Fixture {
    let fixture = Fixture::with_devices().await;
    fixture
        .accounts
        .issue_token(DeviceId(10), token(1), EXPIRES_MS)
        .await
        .unwrap();
    fixture
}

async fn rotate(accounts: &Accounts, old: TokenHash, new: TokenHash, now_ms: u64) -> Rotation {
    let times = RotationTimes {
        now_ms,
        expires_ms: EXPIRES_MS,
        grace_ms: GRACE_MS,
    };
    accounts.rotate_token(old, new, times).await.unwrap()
}

async fn is_active(accounts: &Accounts) -> bool {
    accounts
        .device(DeviceId(10))
        .await
        .unwrap()
        .unwrap()
        .is_active()
}

#[tokio::test]
async fn each_token_leads_to_the_next() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    for number in 1..50 {
        let now_ms = u64::from(number) * 1_000;
        assert_eq!(
            rotate(accounts, token(number), token(number + 1), now_ms).await,
            ROTATED
        );
    }
    assert!(is_active(accounts).await);
    assert_eq!(
        rotate(accounts, token(99), token(98), 1).await,
        Rotation::Unknown
    );
}

#[tokio::test]
async fn a_token_that_was_used_and_comes_again_revokes_the_device() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    assert_eq!(rotate(accounts, token(1), token(2), 1_000).await, ROTATED);
    assert_eq!(rotate(accounts, token(2), token(3), 2_000).await, ROTATED);
    // Within the grace, but its successor was used: this is a copy.
    assert_eq!(rotate(accounts, token(1), token(4), 2_001).await, REUSED);
    assert!(!is_active(accounts).await);
    for dead in [1, 2, 3, 4] {
        assert_eq!(
            rotate(accounts, token(dead), token(9), 3_000).await,
            Rotation::Unknown
        );
    }
}

#[tokio::test]
async fn a_lost_answer_may_be_asked_for_again_within_the_grace() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    assert_eq!(rotate(accounts, token(1), token(2), 1_000).await, ROTATED);
    assert_eq!(rotate(accounts, token(1), token(3), 20_000).await, ROTATED);
    // The grace is counted from the first time, not from the last.
    assert_eq!(
        rotate(accounts, token(1), token(4), 1_000 + GRACE_MS).await,
        ROTATED
    );
    assert_eq!(rotate(accounts, token(4), token(5), 40_000).await, ROTATED);
    assert!(is_active(accounts).await);
}

#[tokio::test]
async fn after_the_grace_an_old_token_is_a_copy() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    assert_eq!(rotate(accounts, token(1), token(2), 1_000).await, ROTATED);
    assert_eq!(
        rotate(accounts, token(1), token(3), 1_001 + GRACE_MS).await,
        REUSED
    );
    assert!(!is_active(accounts).await);
}

#[tokio::test]
async fn a_lost_answer_that_turns_up_after_all_is_a_copy() {
    for successor_used in [false, true] {
        let opened = fixture().await;
        let accounts = &opened.accounts;
        assert_eq!(rotate(accounts, token(1), token(2), 1_000).await, ROTATED);
        assert_eq!(rotate(accounts, token(1), token(3), 1_001).await, ROTATED);
        if successor_used {
            assert_eq!(rotate(accounts, token(3), token(4), 1_002).await, ROTATED);
        }
        assert_eq!(rotate(accounts, token(2), token(5), 1_003).await, REUSED);
        assert!(!is_active(accounts).await);
    }
}

#[tokio::test]
async fn a_clock_set_back_revokes_nobody() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    assert_eq!(rotate(accounts, token(1), token(2), 100_000).await, ROTATED);
    assert_eq!(rotate(accounts, token(1), token(3), 50_000).await, ROTATED);
    assert_eq!(rotate(accounts, token(3), token(4), 40_000).await, ROTATED);
}

#[tokio::test]
async fn an_expired_token_is_expired_and_no_alarm() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    assert_eq!(
        rotate(accounts, token(1), token(2), EXPIRES_MS - 1).await,
        ROTATED
    );
    assert_eq!(
        rotate(accounts, token(2), token(3), EXPIRES_MS).await,
        Rotation::Expired
    );
    assert_eq!(
        rotate(accounts, token(1), token(3), EXPIRES_MS).await,
        Rotation::Expired
    );
    assert!(is_active(accounts).await);
}

#[tokio::test]
async fn a_new_log_in_ends_the_family() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    assert_eq!(rotate(accounts, token(1), token(2), 1_000).await, ROTATED);
    accounts
        .issue_token(DeviceId(10), token(7), EXPIRES_MS)
        .await
        .unwrap();
    for dead in [1, 2] {
        assert_eq!(
            rotate(accounts, token(dead), token(9), 1_001).await,
            Rotation::Unknown
        );
    }
    assert_eq!(rotate(accounts, token(7), token(8), 1_002).await, ROTATED);
    let nobody = accounts
        .issue_token(DeviceId(99), token(50), EXPIRES_MS)
        .await;
    assert!(matches!(nobody, Err(IssueError::NoSuchDevice)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_rotations_at_once_the_device_keeps_one() {
    for round in 0..10 {
        let opened = fixture().await;
        let accounts = &opened.accounts;
        let both = [token(2), token(3)].map(|new| {
            let accounts = accounts.clone();
            tokio::spawn(async move { rotate(&accounts, token(1), new, 1_000 + round).await })
        });
        for rotation in both {
            assert_eq!(
                rotation.await.unwrap(),
                ROTATED,
                "both are within the grace"
            );
        }
        let current = sqlx::query("SELECT hash FROM refresh_tokens WHERE state = 'current'")
            .fetch_all(&accounts.readers)
            .await
            .unwrap();
        assert_eq!(current.len(), 1, "one of them is current");
        let kept = if current[0].get::<String, _>("hash") == hex::encode(token(2).0) {
            2
        } else {
            3
        };
        assert_eq!(
            rotate(accounts, token(kept), token(4), 2_000).await,
            ROTATED
        );
        assert_eq!(
            rotate(accounts, token(5 - kept), token(5), 2_001).await,
            REUSED
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_grace_a_race_is_theft() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    let attempts: Vec<_> = (2..10)
        .map(|new| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                // Each a millisecond later than the one before: none within the grace of zero.
                let times = RotationTimes {
                    now_ms: u64::from(new) * 1_000,
                    expires_ms: EXPIRES_MS,
                    grace_ms: 0,
                };
                (
                    times.now_ms,
                    accounts
                        .rotate_token(token(1), token(new), times)
                        .await
                        .unwrap(),
                )
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await.unwrap());
    }
    let first = outcomes
        .iter()
        .filter(|(_, rotation)| *rotation == ROTATED)
        .count();
    assert!(first >= 1);
    let alarms = outcomes
        .iter()
        .filter(|(_, rotation)| *rotation == REUSED)
        .count();
    assert!(alarms <= 1, "the family is revoked once: {outcomes:?}");
}

#[tokio::test]
async fn only_hashes_are_stored_and_a_family_stays_small() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    let hash = |number: u64| {
        let mut bytes = [0xEE; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        TokenHash(bytes)
    };
    assert_eq!(rotate(accounts, token(1), hash(2), 1_000).await, ROTATED);
    for number in 2..SUPERSEDED_KEPT + 20 {
        assert_eq!(
            rotate(accounts, hash(number), hash(number + 1), number).await,
            ROTATED
        );
    }
    let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM refresh_tokens")
        .fetch_one(&accounts.readers)
        .await
        .unwrap();
    assert_eq!(kept as u64, SUPERSEDED_KEPT + 1);
    assert_eq!(
        rotate(accounts, hash(3), hash(999), 9_000).await,
        Rotation::Unknown
    );
    assert_eq!(rotate(accounts, hash(60), hash(999), 9_000).await, REUSED);
}

#[tokio::test]
async fn expired_tokens_are_purged() {
    let opened = fixture().await;
    let accounts = &opened.accounts;
    accounts
        .issue_token(DeviceId(11), token(9), EXPIRES_MS + 1)
        .await
        .unwrap();
    assert_eq!(accounts.purge(EXPIRES_MS - 1).await.unwrap(), 0);
    assert_eq!(accounts.purge(EXPIRES_MS).await.unwrap(), 1);
    assert_eq!(
        rotate(accounts, token(1), token(2), 1).await,
        Rotation::Unknown
    );
}

/// A device with its newest token, or somebody who copied it.
struct Holder {
    token: TokenHash,
    rotations: u32,
}

struct Family {
    random: StdRng,
    next: u64,
    now_ms: u64,
}

impl Family {
    fn new(seed: u64) -> Family {
        Family {
            random: StdRng::seed_from_u64(seed),
            next: 0,
            now_ms: 1_000,
        }
    }

    fn fresh_token(&mut self) -> TokenHash {
        self.next += 1;
        let mut bytes = [0x77; 32];
        bytes[..8].copy_from_slice(&self.next.to_le_bytes());
        TokenHash(bytes)
    }

    async fn log_in(&mut self, accounts: &Accounts, device: DeviceId) -> Holder {
        let token = self.fresh_token();
        accounts
            .issue_token(device, token, EXPIRES_MS)
            .await
            .unwrap();
        Holder {
            token,
            rotations: 0,
        }
    }

    async fn rotate(&mut self, accounts: &Accounts, holder: &mut Holder, lost: bool) -> Rotation {
        self.now_ms += self.random.random_range(0..GRACE_MS / 8);
        let new = self.fresh_token();
        let rotation = rotate(accounts, holder.token, new, self.now_ms).await;
        holder.rotations += 1;
        if matches!(rotation, Rotation::Rotated { .. }) && !lost {
            holder.token = new;
        }
        rotation
    }
}

#[tokio::test]
async fn lost_answers_never_revoke_an_honest_device() {
    let opened = fixture().await;
    let mut family = Family::new(1);
    let mut device = family.log_in(&opened.accounts, DeviceId(10)).await;
    let mut lost_in_a_row = 0;
    for _ in 0..400 {
        // Within the grace of the first answer that was lost: at most an eighth of it passes between two attempts.
        let lost = lost_in_a_row < 7 && family.random.random_bool(0.5);
        lost_in_a_row = if lost { lost_in_a_row + 1 } else { 0 };
        assert_eq!(
            family.rotate(&opened.accounts, &mut device, lost).await,
            ROTATED
        );
    }
}

#[tokio::test]
async fn a_thief_and_the_owner_never_both_go_on() {
    let opened = Fixture::with_devices().await;
    let accounts = &opened.accounts;
    for seed in 0..60 {
        let id = DeviceId(100 + seed);
        let new = NewDevice { id, ..device(0, 1) };
        accounts.create_device(new, 1_000).await.unwrap();
        let mut family = Family::new(seed);
        family.next = seed * 1_000;
        let mut owner = family.log_in(accounts, id).await;
        for _ in 0..family.random.random_range(0..4) {
            family.rotate(accounts, &mut owner, false).await;
        }
        owner.rotations = 0;
        let mut thief = Holder {
            token: owner.token,
            rotations: 0,
        };
        // When both have tried twice, the copy has shown.
        while owner.rotations < 2 || thief.rotations < 2 {
            let holder = if family.random.random_bool(0.5) {
                &mut owner
            } else {
                &mut thief
            };
            family.rotate(accounts, holder, false).await;
        }
        let stored = accounts.device(id).await.unwrap().unwrap();
        assert!(!stored.is_active(), "seed {seed}");
        for mut holder in [owner, thief] {
            let last = family.rotate(accounts, &mut holder, false).await;
            assert_eq!(last, Rotation::Unknown);
        }
    }
}
