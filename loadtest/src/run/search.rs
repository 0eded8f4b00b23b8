//! Looks for the highest rate that holds: doubles until one does not, then halves the distance. Pure.

/// Probes at most; doubling and halving come far with them.
const PROBES_MAX: usize = 24;

/// The state of a search.
#[derive(Clone, Debug)]
pub(super) struct RateSearch {
    rate_max: f64,
    precision: f64,
    /// The highest that held; 0: none yet.
    held: f64,
    /// The lowest that did not.
    failed: Option<f64>,
    next: f64,
    probes: usize,
}

impl RateSearch {
    /// Begins at `first`, messages per second.
    pub(super) fn new(first: f64, rate_max: f64, precision: f64) -> RateSearch {
        RateSearch {
            rate_max,
            precision,
            held: 0.0,
            failed: None,
            next: first,
            probes: 0,
        }
    }

    /// The rate to try next; `None`: it is found.
    pub(super) fn next(&self) -> Option<f64> {
        let near = self
            .failed
            .is_some_and(|failed| failed - self.held <= self.precision * self.held.max(1.0));
        let at_the_top = self.failed.is_none() && self.held >= self.rate_max;
        (!near && !at_the_top && self.probes < PROBES_MAX).then_some(self.next)
    }

    /// What the probe at [`RateSearch::next`] came to.
    pub(super) fn told(&mut self, holds: bool) {
        self.probes += 1;
        if holds {
            self.held = self.next;
        } else {
            self.failed = Some(self.next);
        }
        self.next = match self.failed {
            None => (2.0 * self.held).min(self.rate_max),
            Some(failed) => (self.held + failed) / 2.0,
        };
    }

    /// The highest rate that held.
    pub(super) fn found(&self) -> Option<f64> {
        (self.held > 0.0).then_some(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::RateSearch;

    /// Searches against something that holds up to `capacity`; the rate found and the probes it took.
    fn search(first: f64, rate_max: f64, capacity: f64) -> (Option<f64>, usize) {
        let mut search = RateSearch::new(first, rate_max, 0.1);
        let mut probes = 0;
        while let Some(rate) = search.next() {
            assert!(rate <= rate_max);
            probes += 1;
            search.told(rate <= capacity);
        }
        (search.found(), probes)
    }

    #[test]
    fn the_rate_found_holds_and_is_near_the_highest() {
        for capacity in [1_001.0, 5_500.0, 77_000.0] {
            let (found, probes) = search(1_000.0, 1_000_000.0, capacity);
            let found = found.expect("1,000 holds");
            assert!(
                found <= capacity && found >= 0.9 * capacity,
                "{found} of {capacity}"
            );
            assert!(probes < 16, "{probes} probes");
        }
    }

    #[test]
    fn a_first_rate_that_is_too_high_is_halved() {
        let (found, _) = search(100_000.0, 1_000_000.0, 900.0);
        assert!(found.is_some_and(|found| (800.0..=900.0).contains(&found)));
    }

    #[test]
    fn it_ends_at_the_highest_rate_and_when_nothing_holds() {
        assert_eq!(search(100.0, 700.0, 1e9).0, Some(700.0));
        assert_eq!(search(100.0, 700.0, 0.0).0, None);
    }
}
