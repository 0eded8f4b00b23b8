//! When the things of an open loop are due: a thread that sleeps until each moment, because a runtime's timers are a
//! millisecond coarse, and hands it over with the moment at which it was meant.
//!
//! The moments do not depend on any answer. If the devices' thread is busy the queue between fills and the moments stay
//! what they were: the lateness shows as the generator's lag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use crate::scenario::Arrivals;

/// Moments handed over and not looked at; above it the thread waits.
const WAITING_MAX: usize = 65_536;
/// Longest sleep at once, so that an early end is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A train of moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    pub(super) from: Instant,
    pub(super) until: Instant,
    /// Per second.
    pub(super) rate: f64,
    pub(super) arrivals: Arrivals,
    pub(super) seed: u64,
}

/// A running train; dropping it ends it.
#[derive(Debug)]
pub(super) struct Pacer {
    due: mpsc::Receiver<Instant>,
    stop: Arc<AtomicBool>,
}

impl Pacer {
    pub(super) fn start(train: Train) -> std::io::Result<Pacer> {
        let (out, due) = mpsc::channel(WAITING_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || pace(train, &out, &stopped))?;
        Ok(Pacer { due, stop })
    }

    /// The next moments, as many as are due; empty: the train is over.
    pub(super) async fn next(&mut self, into: &mut Vec<Instant>) {
        self.due.recv_many(into, 256).await;
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn pace(train: Train, out: &mpsc::Sender<Instant>, stop: &AtomicBool) {
    for due in Moments::new(train) {
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            std::thread::sleep(wait.min(SLEEP_MAX));
        }
        if out.blocking_send(due).is_err() {
            return;
        }
    }
}

/// The moments of a train, without waiting for them.
struct Moments {
    train: Train,
    rng: StdRng,
    /// Seconds after `from`.
    at: f64,
    count: u64,
}

impl Moments {
    fn new(train: Train) -> Moments {
        Moments {
            rng: StdRng::seed_from_u64(train.seed),
            train,
            at: 0.0,
            count: 0,
        }
    }
}

impl Iterator for Moments {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        self.count += 1;
        self.at = match self.train.arrivals {
            Arrivals::Fixed => (self.count - 1) as f64 / self.train.rate,
            // Exponential distances, by inversion.
            Arrivals::Poisson => self.at - (1.0 - self.rng.random::<f64>()).ln() / self.train.rate,
        };
        let due = self.train.from + Duration::from_secs_f64(self.at);
        (due < self.train.until).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(arrivals: Arrivals, seed: u64) -> Vec<f64> {
        let from = Instant::now();
        let train = Train {
            from,
            until: from + Duration::from_secs(20),
            rate: 500.0,
            arrivals,
            seed,
        };
        Moments::new(train)
            .map(|due| (due - from).as_secs_f64())
            .collect()
    }

    #[test]
    fn fixed_arrivals_have_equal_distances() {
        let moments = moments(Arrivals::Fixed, 1);
        assert_eq!(moments.len(), 10_000);
        assert!(
            moments
                .windows(2)
                .all(|two| (two[1] - two[0] - 0.002).abs() < 1e-6)
        );
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_spread_as_they_should() {
        let moments = moments(Arrivals::Poisson, 7);
        // Mean 10,000, deviation 100: five of them.
        assert!(
            (9_500..10_500).contains(&moments.len()),
            "{}",
            moments.len()
        );
        let gaps: Vec<f64> = moments.windows(2).map(|two| two[1] - two[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution deviates by its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.1);
    }

    #[test]
    fn a_seed_repeats_its_moments() {
        let differ = |a: &[f64], b: &[f64]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-6);
        let first = moments(Arrivals::Poisson, 7);
        assert!(!differ(&first, &moments(Arrivals::Poisson, 7)));
        assert!(differ(&first, &moments(Arrivals::Poisson, 8)));
    }
}
