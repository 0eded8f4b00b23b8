//! At most three bytes out for each byte in, while an address is only claimed.
//!
//! The source of a first packet may be somebody else's address; what is answered there is sent at somebody who asked for
//! nothing. RFC 9000 (section 8.1) allows three times what came from there until the address is shown. quinn-proto keeps this
//! but for the last datagram, which it gives out whole as long as anything is left. [`Unshown`] keeps it to the byte:
//! datagrams beyond it are not sent, which to the connection is a loss like any other, and a client that is really there
//! asks again and so brings more room.
//!
//! This is the pure half; [`super::socket`] asks it. The bytes that the endpoint answers without a handshake (Retry, version
//! negotiation, refusals) are fewer than those that asked for them.

use std::collections::HashMap;
use std::net::SocketAddr;

/// Bytes out for each byte in.
const FACTOR: u64 = 3;
/// The least that a first packet has.
const FIRST_BYTES: u64 = 1_200;
/// Addresses that are remembered; above it clients must show theirs first.
const ADDRESSES_MAX: usize = 4_096;
/// How long an address stays remembered after its last handshake failed: the failure is still being told.
const KEPT_MS: u64 = 10_000;
/// How often those that may be forgotten are looked for.
const SWEEP_MS: u64 = 1_000;

/// What addresses that are not shown have sent and been sent.
#[derive(Debug, Default)]
pub struct Unshown {
    by_address: HashMap<SocketAddr, Account>,
    swept_ms: u64,
}

#[derive(Debug)]
struct Account {
    received_bytes: u64,
    sent_bytes: u64,
    handshakes: usize,
    ended_ms: u64,
}

impl Unshown {
    /// A handshake begins for `address`, whose first packet is in. False: too many are remembered.
    #[must_use]
    pub fn begin(&mut self, address: SocketAddr, now_ms: u64) -> bool {
        if now_ms >= self.swept_ms + SWEEP_MS {
            self.swept_ms = now_ms;
            self.by_address
                .retain(|_, a| a.handshakes > 0 || now_ms < a.ended_ms + KEPT_MS);
        }
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&address) {
            return false;
        }
        let account = self.by_address.entry(address).or_insert(Account {
            received_bytes: 0,
            sent_bytes: 0,
            handshakes: 0,
            ended_ms: now_ms,
        });
        account.received_bytes += FIRST_BYTES;
        account.handshakes += 1;
        true
    }

    /// Nothing is remembered: everything may be sent.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// A handshake was finished: somebody is there.
    pub fn shown(&mut self, address: SocketAddr) {
        self.by_address.remove(&address);
    }

    /// A handshake was given up.
    pub fn ended(&mut self, address: SocketAddr, now_ms: u64) {
        if let Some(account) = self.by_address.get_mut(&address) {
            account.handshakes = account.handshakes.saturating_sub(1);
            account.ended_ms = now_ms;
        }
    }

    /// More came from `address`.
    pub fn received(&mut self, address: SocketAddr, bytes: usize) {
        if let Some(account) = self.by_address.get_mut(&address) {
            account.received_bytes += bytes as u64;
        }
    }

    /// How many of `bytes`, in datagrams of `datagram_bytes`, may go to `address`; they count as sent.
    pub fn allow(&mut self, address: SocketAddr, bytes: usize, datagram_bytes: usize) -> usize {
        let Some(account) = self.by_address.get_mut(&address) else {
            return bytes;
        };
        let room = (FACTOR * account.received_bytes).saturating_sub(account.sent_bytes);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let allowed = if bytes <= room {
            bytes
        } else {
            room - room % datagram_bytes.max(1)
        };
        account.sent_bytes += allowed as u64;
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn what_is_beyond_is_cut_at_a_datagram_and_an_answer_makes_room() {
        let mut unshown = Unshown::default();
        assert!(unshown.begin(address(1), 0));
        assert_eq!(unshown.allow(address(1), 1_338, 1_200), 1_338);
        // 2,262 are left: one of two datagrams.
        assert_eq!(unshown.allow(address(1), 2_400, 1_200), 1_200);
        assert_eq!(unshown.allow(address(1), 1_200, 1_200), 0);
        assert_eq!(unshown.allow(address(1), 62, 62), 62);
        assert_eq!(unshown.allow(address(2), 9_999, 1_200), 9_999, "no claim");
        unshown.received(address(1), 1_200);
        assert_eq!(unshown.allow(address(1), 2_400, 1_200), 2_400);
        unshown.shown(address(1));
        assert_eq!(unshown.allow(address(1), 99_999, 1_200), 99_999);
    }

    #[test]
    fn an_address_is_remembered_until_its_failure_was_told() {
        let mut unshown = Unshown::default();
        assert!(unshown.begin(address(1), 0));
        unshown.ended(address(1), 5_000);
        assert!(unshown.begin(address(2), 14_999));
        assert!(unshown.by_address.contains_key(&address(1)));
        assert!(unshown.begin(address(2), 16_000));
        assert!(!unshown.by_address.contains_key(&address(1)));
    }

    #[test]
    fn so_many_addresses_are_remembered_and_no_more() {
        let mut unshown = Unshown::default();
        for port in 0..ADDRESSES_MAX as u16 {
            assert!(unshown.begin(address(port), 0));
        }
        assert!(!unshown.begin(address(u16::MAX), 0));
        assert!(unshown.begin(address(7), 0), "one that is remembered");
        assert_eq!(unshown.by_address.len(), ADDRESSES_MAX);
    }

    proptest! {
        #[test]
        fn never_more_than_three_times(
            steps in prop::collection::vec((any::<bool>(), 1usize..5_000, 1usize..1_500), 0..60),
        ) {
            let mut unshown = Unshown::default();
            prop_assert!(unshown.begin(address(1), 0));
            let (mut sent, mut received) = (0, 1_200);
            for (send, bytes, datagram_bytes) in steps {
                if send {
                    let allowed = unshown.allow(address(1), bytes, datagram_bytes);
                    prop_assert!(allowed == bytes || allowed % datagram_bytes == 0);
                    sent += allowed;
                } else {
                    unshown.received(address(1), bytes);
                    received += bytes;
                }
                prop_assert!(sent <= 3 * received);
            }
        }
    }
}
