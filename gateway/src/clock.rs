//! Time as a value.
//!
//! Pure halves get `now_ms` passed in; drivers read it from here, so that tests turn a clock by hand. Two scales:
//! **monotonic** milliseconds since the clock was made (deadlines, buckets) and **wall** milliseconds since 1970 (token
//! expiry, WELCOME). Wall time is never used for a deadline: it may jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where drivers read the time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System {
        start: Instant,
    },
    Manual {
        monotonic_ms: Arc<AtomicU64>,
        wall_start_ms: u64,
    },
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Clock {
        Clock(Source::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands until [`Clock::advance`]; its wall time starts at `wall_start_ms`.
    pub fn manual(wall_start_ms: u64) -> Clock {
        Clock(Source::Manual {
            monotonic_ms: Arc::new(AtomicU64::new(0)),
            wall_start_ms,
        })
    }

    /// Turns a manual clock forward; the machine's clocks do not listen.
    pub fn advance(&self, by_ms: u64) {
        if let Source::Manual { monotonic_ms, .. } = &self.0 {
            monotonic_ms.fetch_add(by_ms, Ordering::SeqCst);
        }
    }

    /// Monotonic milliseconds since the clock was made.
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Source::System { start } => {
                u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            Source::Manual { monotonic_ms, .. } => monotonic_ms.load(Ordering::SeqCst),
        }
    }

    /// Milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            Source::Manual {
                monotonic_ms,
                wall_start_ms,
            } => wall_start_ms + monotonic_ms.load(Ordering::SeqCst),
        }
    }
}
