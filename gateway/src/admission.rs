//! How many connections there may be: over all ports of a node, and from one address.
//!
//! Everything that is accepted holds a [`Place`] for as long as it lives, and, where the client's address is known, an
//! [`AddressPlace`]. Addresses count by what one person controls (IPv6 by /64). An address that is only claimed, not yet
//! shown to be the client's, takes none: else whoever invents packets could use up somebody else's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::limiter::AddressKey;
use crate::metrics::{self, Refusal};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<AddressKey, usize>>>,
    per_address_max: usize,
}

/// One connection of the node's.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// One connection of an address.
#[derive(Debug)]
pub struct AddressPlace {
    by_address: Arc<Mutex<HashMap<AddressKey, usize>>>,
    key: AddressKey,
}

impl Connections {
    /// At most `max` at once, and `per_address_max` of one address.
    pub fn new(max: usize, per_address_max: usize) -> Connections {
        Connections {
            all: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            by_address: Arc::default(),
            per_address_max,
        }
    }

    /// A place for one more connection; counts the refusal.
    pub fn try_enter(&self) -> Option<Place> {
        let entered = self.all.clone().try_acquire_owned().ok().map(Place);
        if entered.is_none() {
            metrics::connection_refused(Refusal::NodeFull);
        }
        entered
    }

    /// A place among those of `address`; counts the refusal.
    pub fn try_enter_from(&self, address: IpAddr) -> Option<AddressPlace> {
        let key = AddressKey::from(address);
        let mut by_address = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let open = by_address.entry(key).or_default();
        if *open >= self.per_address_max {
            metrics::connection_refused(Refusal::AddressFull);
            return None;
        }
        *open += 1;
        Some(AddressPlace {
            by_address: self.by_address.clone(),
            key,
        })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut by_address = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_address.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&self.key);
            }
        }
        if by_address.len() * 4 < by_address.capacity() {
            by_address.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a14_an_address_has_its_share_and_others_theirs() {
        let connections = Connections::new(10, 2);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let enter = |text: &str| connections.try_enter_from(address(text));
        let first = enter("192.0.2.1").expect("room");
        let _second = enter("::ffff:192.0.2.1").expect("room");
        assert!(enter("192.0.2.1").is_none(), "its share is used up");
        let _other = enter("192.0.2.2").expect("another address has its own");
        drop(first);
        let _again = enter("192.0.2.1").expect("a place that was left is free");
        let _six = [
            enter("2001:db8:1:2::1").expect("room"),
            enter("2001:db8:1:2::2").expect("room"),
        ];
        assert!(enter("2001:db8:1:2:ffff::").is_none(), "IPv6 counts by /64");
        assert!(enter("2001:db8:1:3::1").is_some());
    }

    #[test]
    fn nothing_is_remembered_of_addresses_that_are_gone() {
        let connections = Connections::new(10, 2);
        for n in 0..=255 {
            let place = connections.try_enter_from(IpAddr::from([192, 0, 2, n]));
            drop(place.expect("room"));
        }
        assert!(connections.by_address.lock().expect("whole").is_empty());
    }

    #[test]
    fn the_node_has_its_own_cap() {
        let connections = Connections::new(1, 10);
        let place = connections.try_enter();
        assert!(place.is_some() && connections.try_enter().is_none());
        drop(place);
        assert!(connections.try_enter().is_some());
    }
}
