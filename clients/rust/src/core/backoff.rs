//! How long to wait before trying again: exponential backoff with full jitter.
//!
//! Randomness comes from a [`Jitter`] that is seeded from outside, so that a test replays a run and ten thousand clients of
//! one dead node do not come back together. Used for connections and for every refused request.

use super::Ms;

/// Nothing is tried again sooner than this, in milliseconds: a loop of instant refusals must not spin.
const DELAY_MIN_MS: Ms = 20;
/// A server that advises longer than this is heard, but not believed, in milliseconds.
pub(crate) const ADVICE_MAX_MS: Ms = 600_000;

/// A small generator (SplitMix64). Spreads load; never used where an adversary must not guess.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `low ..= high`; `low` when the range is empty.
    pub(crate) fn between(&mut self, low: Ms, high: Ms) -> Ms {
        match high.saturating_sub(low).checked_add(1) {
            Some(span) => low + self.next() % span,
            None => self.next(),
        }
    }
}

/// The growing ceiling of one thing's delays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    base_ms: Ms,
    cap_ms: Ms,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(base_ms: Ms, cap_ms: Ms) -> Backoff {
        Backoff {
            base_ms,
            cap_ms,
            failures: 0,
        }
    }

    /// One more failure: the delay before the next attempt, uniform below a ceiling that doubles, and at least what the
    /// other side advised. Advice is spread too, so that those refused together do not return together.
    pub(crate) fn failed(&mut self, advised_ms: Ms, jitter: &mut Jitter) -> Ms {
        let ceiling = self
            .base_ms
            .saturating_mul(1 << self.failures.min(20))
            .min(self.cap_ms);
        self.failures = self.failures.saturating_add(1);
        advised_ms.min(ADVICE_MAX_MS) + jitter.between(DELAY_MIN_MS.min(ceiling), ceiling)
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceiling_doubles_up_to_its_cap_and_starts_again() {
        let mut jitter = Jitter::new(7);
        let mut backoff = Backoff::new(100, 1_000);
        for ceiling in [100, 200, 400, 800, 1_000, 1_000] {
            let delay = backoff.failed(0, &mut jitter);
            assert!((DELAY_MIN_MS..=ceiling).contains(&delay), "{delay}");
        }
        backoff.succeeded();
        assert!(backoff.failed(0, &mut jitter) <= 100);
    }

    #[test]
    fn jitter_is_full() {
        let mut jitter = Jitter::new(1);
        let (mut low, mut high) = (0, 0);
        for _ in 0..1_000 {
            let mut backoff = Backoff::new(1_000, 1_000);
            match backoff.failed(0, &mut jitter) {
                ..=250 => low += 1,
                750.. => high += 1,
                _ => {}
            }
        }
        assert!(low > 150 && high > 150, "{low} {high}");
    }

    #[test]
    fn advice_is_a_lower_bound() {
        let mut backoff = Backoff::new(100, 1_000);
        assert!(backoff.failed(5_000, &mut Jitter::new(3)) >= 5_000);
    }
}
