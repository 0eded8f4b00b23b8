//! Limits by address, account and user, before and after authentication.
//!
//! Addresses count by what one person controls: an IPv4 address, an IPv6 /64. Kept in memory and swept; a node that
//! starts again starts with full buckets.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use conch_wire::{Code, UserId};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::Problem;
use crate::bucket::Rate;
use crate::config::LimitSettings;

/// What one person controls of the address space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AddressKey(IpAddr);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> AddressKey {
        AddressKey(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

/// All limits of the HTTP side.
#[derive(Debug)]
pub struct Limiter {
    early: Keyed<AddressKey>,
    log_ins_address: Keyed<AddressKey>,
    log_ins_account: Keyed<String>,
    users: Keyed<u64>,
}

#[derive(Debug)]
struct Keyed<K: Hash + Eq + Clone>(DefaultKeyedRateLimiter<K>);

fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn per_second(rate: Rate) -> Self {
        let quota =
            Quota::per_second(at_least_one(rate.per_s)).allow_burst(at_least_one(rate.burst));
        Keyed(RateLimiter::keyed(quota))
    }

    fn per_minute(n: u32) -> Self {
        Keyed(RateLimiter::keyed(Quota::per_minute(at_least_one(n))))
    }

    fn take(&self, key: &K) -> Result<(), Problem> {
        self.0.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
            Problem::wire(Code::RateLimited, "too many requests").retry_after(ms)
        })
    }

    fn sweep(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}

impl Limiter {
    pub fn new(limits: &LimitSettings) -> Limiter {
        Limiter {
            early: Keyed::per_second(limits.early_per_address),
            log_ins_address: Keyed::per_minute(limits.log_ins_per_min_address),
            log_ins_account: Keyed::per_minute(limits.log_ins_per_min_account),
            users: Keyed::per_second(limits.http_per_user),
        }
    }

    /// A request that nobody has been authenticated for.
    pub fn early(&self, address: IpAddr) -> Result<(), Problem> {
        self.early.take(&address.into())
    }

    /// An attempt to log in, counted whether the account exists or not.
    pub fn log_in(&self, address: IpAddr, handle: &str) -> Result<(), Problem> {
        self.log_ins_address.take(&address.into())?;
        self.log_ins_account.take(&handle.to_owned())
    }

    /// A request of a user.
    pub fn user(&self, user: UserId) -> Result<(), Problem> {
        self.users.take(&user.0)
    }

    /// Forgets who has not asked lately.
    pub fn sweep(&self) {
        self.early.sweep();
        self.log_ins_address.sweep();
        self.log_ins_account.sweep();
        self.users.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_counts_by_64_and_mapped_ipv4_as_ipv4() {
        let key = |text: &str| AddressKey::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(key("2001:db8:1:2:3::4"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }

    #[test]
    fn log_ins_are_limited_on_both_axes() {
        let limits = LimitSettings {
            log_ins_per_min_account: 2,
            log_ins_per_min_address: 3,
            ..LimitSettings::default()
        };
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let limiter = Limiter::new(&limits);
        assert!(limiter.log_in(address(1), "ann").is_ok());
        assert!(limiter.log_in(address(2), "ann").is_ok());
        assert!(
            limiter.log_in(address(3), "ann").is_err(),
            "one account, many addresses"
        );
        assert!(limiter.log_in(address(1), "ben").is_ok());
        assert!(limiter.log_in(address(1), "cem").is_ok());
        assert!(
            limiter.log_in(address(1), "dee").is_err(),
            "one address, many accounts"
        );
    }
}
