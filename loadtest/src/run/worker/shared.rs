//! What all devices of a worker share: clock, checker, counts, and whether there is sending at all. One thread: no locks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use conch_wire::MessageKey;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::tally::Tally;
use crate::checker::Checker;
use crate::device::stamp::Stamp;
use crate::http::{Api, Login};

/// Devices that connect for the first time at once. Those that come back are not held.
const FIRST_CONNECTIONS_AT_ONCE: usize = 64;

#[derive(Debug)]
pub(super) struct Shared {
    epoch: Instant,
    pub(super) tally: RefCell<Tally>,
    /// `None`: nothing is checked.
    pub(super) checker: RefCell<Option<Checker>>,
    /// Whether closed loops go on.
    pub(super) is_sending: Cell<bool>,
    /// The worker ends: devices go.
    pub(super) is_over: Cell<bool>,
    pub(super) connected: Cell<usize>,
    pub(super) stored: Cell<u64>,
    /// Messages of open loops without an answer, over all devices.
    pub(super) unsettled: Cell<usize>,
    /// What went wrong last on the way to a connection.
    pub(super) last_failure: RefCell<Option<String>>,
    pub(super) first_connections: Semaphore,
    pub(super) api: Api,
    numbers: Cell<u64>,
    keys: Cell<u128>,
}

impl Shared {
    pub(super) fn new(api: Api, check: bool) -> Rc<Shared> {
        Rc::new(Shared {
            epoch: Instant::now(),
            tally: RefCell::default(),
            checker: RefCell::new(check.then(Checker::new)),
            is_sending: Cell::new(false),
            is_over: Cell::new(false),
            connected: Cell::new(0),
            stored: Cell::new(0),
            unsettled: Cell::new(0),
            last_failure: RefCell::default(),
            first_connections: Semaphore::new(FIRST_CONNECTIONS_AT_ONCE),
            api,
            numbers: Cell::new(0),
            keys: Cell::new(rand::random()),
        })
    }

    /// Nanoseconds on the worker's clock.
    pub(super) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The same of a moment.
    pub(super) fn stamp(&self, at: std::time::Instant) -> Stamp {
        Stamp(
            at.saturating_duration_since(self.epoch.into_std())
                .as_nanos() as u64,
        )
    }

    /// A number that no message of this worker had.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    pub(super) fn next_key(&self) -> MessageKey {
        self.keys.set(self.keys.get().wrapping_add(1));
        MessageKey(self.keys.get().to_le_bytes())
    }

    /// Fresh tokens for a device whose old ones have ended; false: it gets none.
    pub(super) async fn refresh(&self, login: &RefCell<Login>) -> bool {
        let old = login.borrow().clone();
        match self.api.refresh(&old).await {
            Ok(fresh) => {
                login.replace(fresh);
                true
            }
            Err(error) => {
                self.tally.borrow_mut().error(&format!("tokens: {error}"));
                false
            }
        }
    }
}
