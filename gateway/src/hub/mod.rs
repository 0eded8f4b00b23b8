//! The hub: the gateway's registry of sessions, and the link that owners push through.
//!
//! One entry per connection, from its accept to its end, keyed by session id (63 random bits; unregistering by it can
//! never remove a successor). Owners push batches from their own threads; nothing here waits. One task turns the time
//! wheel for all sessions.

pub mod mailbox;
pub mod wheel;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use conch_router::{Link, Push};
use conch_wire::{SessionId, UserId};
use tokio_util::sync::CancellationToken;

use crate::bucket::{Bucket, Rate};
use crate::clock::Clock;
use mailbox::Mailbox;
use wheel::{SLOT_MS, Wheel};

/// Parts of the registry, so that owners on several cores do not meet on one lock.
const SHARDS: usize = 16;

/// How long a user's budget outlives the last session.
const BUDGET_KEPT_MS: u64 = 60_000;

/// Session ids are random already.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("ids hash as one u64")
    }
    fn write_u64(&mut self, id: u64) {
        // Multiplied, because the low bits already chose the shard.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Sessions = HashMap<SessionId, Arc<Mailbox>, BuildHasherDefault<IdHasher>>;

/// What a user's sessions on this gateway share: the budget of sends.
pub type UserBudget = Arc<Mutex<Bucket>>;

/// See the module. Cheap to share by `Arc`.
#[derive(Debug)]
pub struct Hub {
    shards: [RwLock<Sessions>; SHARDS],
    wheel: Mutex<Wheel>,
    budgets: Mutex<HashMap<UserId, (UserBudget, usize)>>,
    clock: Clock,
}

impl Hub {
    pub fn new(clock: Clock) -> Arc<Hub> {
        Arc::new(Hub {
            shards: std::array::from_fn(|_| RwLock::default()),
            wheel: Mutex::new(Wheel::new(clock.now_ms())),
            budgets: Mutex::default(),
            clock,
        })
    }

    fn shard(&self, session: SessionId) -> &RwLock<Sessions> {
        &self.shards[session.0 as usize % SHARDS]
    }

    /// A mailbox for a new connection.
    pub fn insert(&self, session: SessionId) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(session));
        self.shard(session)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session, mailbox.clone());
        mailbox
    }

    /// The connection has ended.
    pub fn remove(&self, session: SessionId) {
        let mut sessions = self
            .shard(session)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&session);
        if sessions.len() * 4 < sessions.capacity() {
            sessions.shrink_to_fit();
        }
    }

    /// Connections that there are, authenticated or not.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|s| s.read().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session wants to look at its deadlines at `at_ms`.
    pub fn arm(&self, session: SessionId, at_ms: u64) {
        self.wheel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .arm(session, at_ms);
    }

    /// The budget of a user's sends, shared by the user's sessions here. Give it back by [`Hub::drop_budget`].
    pub fn budget(&self, user: UserId, rate: Rate) -> UserBudget {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let (budget, sessions) = budgets.entry(user).or_insert_with(|| {
            (
                Arc::new(Mutex::new(Bucket::full(rate, self.clock.now_ms()))),
                0,
            )
        });
        *sessions += 1;
        budget.clone()
    }

    /// One session of the user has ended. The budget stays for a while: reconnecting does not refill it.
    pub fn drop_budget(&self, user: UserId) {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sessions)) = budgets.get_mut(&user) {
            *sessions -= 1;
        }
    }

    /// Forgets budgets without a session that nobody used for [`BUDGET_KEPT_MS`].
    fn sweep_budgets(&self, now_ms: u64) {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.retain(|_, (budget, sessions)| {
            let used_ms = budget
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .used_ms();
            *sessions > 0 || now_ms < used_ms + BUDGET_KEPT_MS
        });
        if budgets.len() * 4 < budgets.capacity() {
            budgets.shrink_to_fit();
        }
    }

    /// Calls `each` for every mailbox.
    pub fn for_each(&self, mut each: impl FnMut(&Arc<Mailbox>)) {
        for shard in &self.shards {
            let mailboxes: Vec<_> = shard
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .cloned()
                .collect();
            mailboxes.iter().for_each(&mut each);
        }
    }

    /// Turns the wheel until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut turn = tokio::time::interval(Duration::from_millis(SLOT_MS));
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut fired = Vec::new();
        let mut turns = 0u64;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = turn.tick() => {}
            }
            self.wheel
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .advance(self.clock.now_ms(), &mut fired);
            for session in fired.drain(..) {
                if let Some(mailbox) = self.find(session) {
                    mailbox.signal(|s| s.tick = true);
                }
            }
            fired.shrink_to(1_024);
            turns += 1;
            if turns.is_multiple_of(40) {
                self.sweep_budgets(self.clock.now_ms());
            }
        }
    }

    fn find(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        self.shard(session)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&session)
            .cloned()
    }
}

impl Link for Hub {
    fn push(&self, batch: &mut Vec<(SessionId, Push)>) {
        for (session, push) in batch.drain(..) {
            let sessions = self
                .shard(session)
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(mailbox) = sessions.get(&session) {
                mailbox.push(push);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conch_wire::Code;

    #[test]
    fn a_push_to_a_session_that_is_gone_is_skipped() {
        let hub = Hub::new(Clock::manual(0));
        let mailbox = hub.insert(SessionId(17));
        hub.insert(SessionId(33));
        hub.remove(SessionId(33));
        hub.push(&mut vec![
            (SessionId(33), Push::Close(Code::GoingAway)),
            (SessionId(17), Push::Close(Code::GoingAway)),
        ]);
        assert_eq!(mailbox.take_signals().close, Some(Code::GoingAway));
        assert_eq!(hub.len(), 1);
    }

    #[test]
    fn a_budget_is_shared_by_a_users_sessions_and_outlives_them_a_while() {
        let rate = Rate { per_s: 1, burst: 1 };
        let hub = Hub::new(Clock::manual(0));
        let first = hub.budget(UserId(1), rate);
        let second = hub.budget(UserId(1), rate);
        assert!(Arc::ptr_eq(&first, &second));
        hub.drop_budget(UserId(1));
        hub.sweep_budgets(BUDGET_KEPT_MS);
        assert_eq!(hub.budgets.lock().expect("not poisoned").len(), 1);
        hub.drop_budget(UserId(1));
        hub.sweep_budgets(BUDGET_KEPT_MS - 1);
        assert!(Arc::ptr_eq(&first, &hub.budget(UserId(1), rate)));
        hub.drop_budget(UserId(1));
        hub.sweep_budgets(BUDGET_KEPT_MS);
        assert!(!Arc::ptr_eq(&first, &hub.budget(UserId(1), rate)));
    }
}
