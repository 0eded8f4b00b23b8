//! Token buckets by cost: what a connection and a user may ask for per second.
//!
//! Pure: `now_ms` is passed in. A request whose cost is above the burst is admitted when the bucket is full and leaves a
//! debt, so that a SEND_MANY of 64 passes a burst of 30 and pays for it afterwards. A refusal takes nothing and says how
//! long to wait.

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Cost units per second; at least 1.
    pub per_s: u32,
    /// Cost units that a full bucket holds; at least 1.
    pub burst: u32,
}

/// One bucket. Its [`Rate`] is passed with every call: thousands of buckets share one.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Thousandths of a cost unit; below zero after a debt.
    level_milli: i64,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, now_ms: u64) -> Bucket {
        Bucket {
            level_milli: i64::from(rate.burst.max(1)) * 1_000,
            at_ms: now_ms,
        }
    }

    /// When it was last asked.
    pub fn used_ms(&self) -> u64 {
        self.at_ms
    }

    /// Takes `cost`, or says after how many milliseconds (at least 1) the same call would succeed.
    pub fn take(&mut self, rate: Rate, cost: u32, now_ms: u64) -> Result<(), u32> {
        let full = i64::from(rate.burst.max(1)) * 1_000;
        let per_ms = i64::from(rate.per_s.max(1));
        let elapsed = i64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(i64::MAX);
        self.level_milli = self
            .level_milli
            .saturating_add(elapsed.saturating_mul(per_ms))
            .min(full);
        self.at_ms = self.at_ms.max(now_ms);
        let cost_milli = i64::from(cost) * 1_000;
        let needed = cost_milli.min(full);
        if self.level_milli < needed {
            let wait = (needed - self.level_milli + per_ms - 1) / per_ms;
            return Err(u32::try_from(wait.max(1)).unwrap_or(u32::MAX));
        }
        self.level_milli -= cost_milli;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate {
        per_s: 10,
        burst: 30,
    };

    #[test]
    fn a_burst_passes_and_the_next_waits_a_tenth_of_a_second() {
        let mut bucket = Bucket::full(RATE, 0);
        for _ in 0..30 {
            assert_eq!(bucket.take(RATE, 1, 0), Ok(()));
        }
        assert_eq!(bucket.take(RATE, 1, 0), Err(100));
        assert_eq!(bucket.take(RATE, 1, 100), Ok(()));
    }

    #[test]
    fn a_cost_above_the_burst_passes_a_full_bucket_and_leaves_a_debt() {
        let mut bucket = Bucket::full(RATE, 0);
        assert_eq!(bucket.take(RATE, 64, 0), Ok(()));
        assert_eq!(bucket.take(RATE, 1, 0), Err(3_500));
        assert_eq!(bucket.take(RATE, 1, 3_500), Ok(()));
    }

    proptest! {
        #[test]
        fn waiting_as_told_is_enough_and_the_rate_holds(
            per_s in 1u32..1_000, burst in 1u32..200,
            steps in prop::collection::vec((0u64..2_000, 1u32..100), 1..60),
        ) {
            let rate = Rate { per_s, burst };
            let mut bucket = Bucket::full(rate, 0);
            let (mut now, mut taken, mut largest) = (0u64, 0u64, 0u64);
            for (advance, cost) in steps {
                now += advance;
                if let Err(wait) = bucket.take(rate, cost, now) {
                    now += u64::from(wait);
                    prop_assert_eq!(bucket.take(rate, cost, now), Ok(()));
                }
                taken += u64::from(cost);
                largest = largest.max(u64::from(cost));
            }
            prop_assert!(taken * 1_000 <= u64::from(burst) * 1_000 + now * u64::from(per_s) + largest * 1_000);
        }
    }
}
