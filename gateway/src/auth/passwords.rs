//! Passwords: what is one, and hashing them without letting a storm of log-ins take the node.
//!
//! Argon2id (19 MiB, two passes) on at most one thread per core. Who finds no free thread within [`WAIT_MAX`] is told to
//! come back, and no more than [`QUEUE_MAX`] wait at once. A log-in for a handle that nobody has costs the same hash as
//! any other, so that its time tells nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use conch_store::accounts::PasswordHash;
use thiserror::Error;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::metrics;

/// Shortest password, in Unicode scalar values after NFC.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, in Unicode scalar values after NFC.
pub const PASSWORD_CHARS_MAX: usize = 256;
/// How long a hash may wait for a thread.
pub const WAIT_MAX: Duration = Duration::from_secs(2);
/// The hash of a text that nobody can type (it has a NUL): what a log-in without an account is checked against.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$e+3YjGtsTdlYwOOPn1j8rA$koj+P71lhDf7SwRb+ii2kkx+MUWwI075NoHZoYgaKUI";
/// How many hashes may wait.
const QUEUE_MAX: usize = 256;

/// A password in its normal form. Wiped from memory at its end; does not show itself.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Password {
    /// `None`: too short, too long, or with a NUL. Checked before anything is hashed.
    pub fn parse(typed: &str) -> Option<Password> {
        // Four bytes for each scalar value, and NFC never trebles a text: longer ones are refused unread.
        if typed.len() > PASSWORD_CHARS_MAX * 12 || typed.contains('\0') {
            return None;
        }
        let normal = Zeroizing::new(typed.nfc().collect::<String>());
        (PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX)
            .contains(&normal.chars().count())
            .then_some(Password(normal))
    }
}

/// Why there is no hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HashError {
    /// All threads are busy and the queue is full or slow: again in a while.
    #[error("too many log-ins at once")]
    Busy,
    #[error("hashing failed")]
    Failed,
}

/// The bounded pool.
#[derive(Clone, Debug)]
pub struct Passwords {
    threads: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::hashes_waiting(self.0.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

impl Passwords {
    /// `threads`: hashes at once; one per core.
    pub fn new(threads: usize) -> Passwords {
        Passwords {
            threads: Arc::new(Semaphore::new(threads.max(1))),
            waiting: Arc::default(),
        }
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, HashError> {
        self.run(move || hash_now(&password.0)).await?
    }

    /// Whether the password is the one of `stored`; `None`, for an account that there is not, is always false and takes as
    /// long.
    pub async fn verify(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
    ) -> Result<bool, HashError> {
        let exists = stored.is_some();
        let stored = stored.unwrap_or_else(|| PasswordHash::new(DUMMY));
        let matches = self
            .run(move || {
                phc::PasswordHash::new(stored.as_str()).is_ok_and(|hash| {
                    Argon2::default()
                        .verify_password(password.0.as_bytes(), &hash)
                        .is_ok()
                })
            })
            .await?;
        Ok(matches && exists)
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, HashError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(self.waiting.clone());
        metrics::hashes_waiting(before + 1);
        if before >= QUEUE_MAX {
            metrics::hash_refused();
            return Err(HashError::Busy);
        }
        let permit = tokio::time::timeout(WAIT_MAX, self.threads.clone().acquire_owned())
            .await
            .map_err(|_| {
                metrics::hash_refused();
                HashError::Busy
            })?
            .map_err(|_| HashError::Failed)?;
        tokio::task::spawn_blocking(move || {
            // Held by the thread: a caller that went away does not free it early.
            let _held = (permit, waiting);
            work()
        })
        .await
        .map_err(|_| HashError::Failed)
    }
}

fn hash_now(password: &str) -> Result<PasswordHash, HashError> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| PasswordHash::new(hash.to_string()))
        .map_err(|_| HashError::Failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;

    #[test]
    fn a26_lengths_count_scalar_values_after_nfc() {
        assert!(Password::parse("1234567").is_none());
        assert!(Password::parse("12345678").is_some());
        assert!(Password::parse(&"ä".repeat(256)).is_some());
        assert!(Password::parse(&"ä".repeat(257)).is_none());
        // Decomposed, each is two scalar values and becomes one.
        assert!(Password::parse(&"a\u{308}".repeat(256)).is_some());
        assert!(Password::parse(&"a\u{308}".repeat(7)).is_none());
        assert!(Password::parse(&"x".repeat(1 << 20)).is_none());
        assert!(Password::parse("with\0nul1").is_none());
    }

    #[tokio::test]
    async fn a26_composed_and_decomposed_are_one_password() {
        let passwords = Passwords::new(1);
        let composed = Password::parse("pässwörd").unwrap();
        let decomposed = Password::parse("pa\u{308}sswo\u{308}rd").unwrap();
        let stored = passwords.hash(composed).await.unwrap();
        assert!(
            passwords
                .verify(decomposed, Some(stored.clone()))
                .await
                .unwrap()
        );
        let other = Password::parse("passwords").unwrap();
        assert!(!passwords.verify(other, Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn the_dummy_costs_what_a_new_hash_costs() {
        let passwords = Passwords::new(1);
        let typed = Password::parse("whatever it is").unwrap();
        let fresh = passwords.hash(typed).await.unwrap();
        let cost = |phc: &str| {
            phc.rsplit_once('$')
                .unwrap()
                .0
                .rsplit_once('$')
                .unwrap()
                .0
                .to_owned()
        };
        assert_eq!(cost(fresh.as_str()), cost(DUMMY));
        assert!(phc::PasswordHash::new(DUMMY).is_ok());
    }

    #[tokio::test]
    async fn nobody_logs_in_without_an_account() {
        let passwords = Passwords::new(1);
        let typed = Password::parse("whatever it is").unwrap();
        assert!(!passwords.verify(typed, None).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_thread_in_time_is_told_so() {
        let passwords = Passwords::new(1);
        let _busy = passwords.threads.clone().acquire_owned().await.unwrap();
        let typed = Password::parse("whatever it is").unwrap();
        assert_eq!(passwords.hash(typed).await, Err(HashError::Busy));
    }
}
