//! When the next group of the log begins. Pure: times are passed in.
//!
//! A sync costs the same for one record and for a hundred. While senders come one by one, but often enough that another is
//! likely within [`GROUP_EVERY`], groups begin at most that often: a message that follows a pause is synced at once, one
//! that follows another closely waits for company. That is right only for senders who do not wait for each other's acks;
//! where a later ack makes the next message later, waiting only costs. So the writer **tries it out**: it counts arrivals
//! for a window without waiting and for one with it, and goes on waiting only while arrivals stay as frequent.

use std::time::{Duration, Instant};

/// Groups that wait for company begin at most once in this time: what waiting may add to an ack.
pub(super) const GROUP_EVERY: Duration = Duration::from_millis(1);

/// Records that are company enough.
pub(super) const RECORDS_ENOUGH: usize = 16;

/// Arrivals are counted for this long before anything is decided.
const WINDOW: Duration = Duration::from_millis(100);

/// Windows with waiting before one without it, which shows whether it is still right.
const WINDOWS_BETWEEN_TRIALS: u32 = 16;

/// Most windows without waiting after it was wrong.
const WINDOWS_OFF_MAX: u32 = 64;

/// Arrivals that are fewer than this share of what they were: senders wait for acks.
const SHARE_KEPT: f64 = 0.8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Groups begin as soon as there is something. Waiting is not tried for this many windows.
    AtOnce { windows: u32 },
    /// Groups wait for company, for this many windows yet.
    Paced { windows: u32 },
}

/// What happened in a window.
#[derive(Clone, Copy, Default, Debug)]
struct Window {
    groups: u64,
    batches: u64,
    records: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    mode: Mode,
    window: Window,
    window_began: Instant,
    last_group: Instant,
    /// Batches per second in the last window of the other mode.
    other_rate: f64,
    /// For how many windows waiting is left out when it is found wrong next.
    penalty: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace {
            mode: Mode::AtOnce { windows: 0 },
            window: Window::default(),
            window_began: now,
            last_group: now,
            other_rate: 0.0,
            penalty: 1,
        }
    }

    /// When the next group may begin; `None`: as soon as there is something for it.
    pub(super) fn begins_at(&self) -> Option<Instant> {
        match self.mode {
            Mode::AtOnce { .. } => None,
            Mode::Paced { .. } => Some(self.last_group + GROUP_EVERY),
        }
    }

    /// A group begins.
    pub(super) fn on_group(&mut self, now: Instant, batches: usize, records: usize) {
        if now - self.last_group > WINDOW {
            // A pause: what was known is out of date.
            *self = Pace::new(now);
        }
        self.last_group = now;
        self.window.groups += 1;
        self.window.batches += batches as u64;
        self.window.records += records as u64;
        let took = now - self.window_began;
        if took >= WINDOW {
            self.decide(self.window.batches as f64 / took.as_secs_f64());
            self.window = Window::default();
            self.window_began = now;
        }
    }

    fn decide(&mut self, rate: f64) {
        let is_company_likely = rate * GROUP_EVERY.as_secs_f64() >= 1.0;
        let is_company_there = self.window.records >= self.window.groups * RECORDS_ENOUGH as u64;
        match &mut self.mode {
            Mode::AtOnce { windows: 0 } if is_company_likely && !is_company_there => {
                if self.other_rate > 0.0 && self.other_rate < rate * SHARE_KEPT {
                    return self.leave_out();
                }
                self.other_rate = rate;
                self.mode = Mode::Paced {
                    windows: WINDOWS_BETWEEN_TRIALS,
                };
            }
            Mode::AtOnce { windows } => *windows = windows.saturating_sub(1),
            Mode::Paced { .. } if rate < self.other_rate * SHARE_KEPT => self.leave_out(),
            Mode::Paced { windows: 0 } => {
                self.penalty = 1;
                self.other_rate = rate;
                self.mode = Mode::AtOnce { windows: 0 };
            }
            Mode::Paced { windows } => *windows -= 1,
        }
    }

    /// Waiting was wrong: it is tried again ever more seldom.
    fn leave_out(&mut self) {
        self.mode = Mode::AtOnce {
            windows: self.penalty,
        };
        self.other_rate = 0.0;
        self.penalty = (self.penalty * 4).min(WINDOWS_OFF_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a sync takes here.
    const SYNC: Duration = Duration::from_micros(300);

    /// Messages and groups of a time, under senders of whom each says when its next message comes.
    struct Run {
        messages: u32,
        groups: u32,
    }

    /// Senders that send `every` time, whatever the acks do.
    fn open_loop(every: Duration, long: Duration) -> Run {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut now, mut sent) = (start, 0u32);
        let mut groups = 0;
        while now < start + long {
            let next = start + every * sent;
            let begins = pace.begins_at().unwrap_or(now).max(now).max(next);
            let mut batches = 0;
            while start + every * sent <= begins {
                sent += 1;
                batches += 1;
            }
            pace.on_group(begins, batches, batches);
            groups += 1;
            now = begins + SYNC;
        }
        Run {
            messages: sent,
            groups,
        }
    }

    /// Senders that each send as soon as they have the ack of what they sent before.
    fn closed_loop(senders: usize, records: usize, long: Duration) -> Run {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        let mut groups = 0;
        while now < start + long {
            let begins = pace.begins_at().unwrap_or(now).max(now);
            pace.on_group(begins, senders, senders * records);
            groups += 1;
            now = begins + SYNC;
        }
        Run {
            messages: groups * senders as u32,
            groups,
        }
    }

    #[test]
    fn frequent_messages_that_wait_for_nobody_share_a_sync() {
        for every_us in [100, 250, 500] {
            let every = Duration::from_micros(every_us);
            let run = open_loop(every, Duration::from_secs(10));
            let each = f64::from(run.messages) / f64::from(run.groups);
            let wanted = GROUP_EVERY.as_secs_f64() / every.as_secs_f64();
            assert!(
                each > wanted * 0.85,
                "{each} messages per sync, {wanted} wanted"
            );
        }
    }

    #[test]
    fn seldom_messages_never_wait() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for n in 0..5_000 {
            let at = start + Duration::from_millis(2) * n;
            assert!(pace.begins_at().is_none_or(|begins| begins <= at));
            pace.on_group(at, 1, 1);
        }
    }

    #[test]
    fn senders_who_wait_for_acks_lose_next_to_nothing() {
        let long = Duration::from_secs(60);
        for (senders, records) in [(1, 1), (2, 1), (8, 1), (1, 16), (64, 16)] {
            let run = closed_loop(senders, records, long);
            let unpaced = long.as_secs_f64() / SYNC.as_secs_f64() * senders as f64;
            let kept = f64::from(run.messages) / unpaced;
            assert!(kept > 0.97, "{senders} senders keep {kept} of their rate");
        }
    }

    #[test]
    fn senders_who_begin_to_wait_for_acks_are_found_out() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        // Company is likely, and waiting changes nothing: every millisecond two.
        while now < start + Duration::from_secs(1) {
            now = pace
                .begins_at()
                .unwrap_or(now + GROUP_EVERY / 2)
                .max(now + SYNC);
            let batches = ((now - pace.last_group).as_micros() / 500) as usize;
            pace.on_group(now, batches.max(1), batches.max(1));
        }
        assert!(pace.begins_at().is_some());
        // From here on one sender, who waits for each ack.
        let mut waited = 0;
        let end = now + Duration::from_secs(60);
        let mut groups = 0;
        while now < end {
            let begins = pace.begins_at().unwrap_or(now).max(now);
            waited += u32::from(begins > now);
            pace.on_group(begins, 1, 1);
            groups += 1;
            now = begins + SYNC;
        }
        assert!(waited * 20 < groups, "{waited} of {groups} waited");
    }
}
