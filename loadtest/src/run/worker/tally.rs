//! What a worker counts. One [`Tally`] for all its devices, which share one thread.
//!
//! Counts go by the moment at which something happened, latencies by the moment at which it was meant to: what was due
//! within the measured time is in the distribution, however late it came, and nothing else is.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::device::stamp::Stamp;
use crate::run::wire::{Phase, PhaseCounts, PhaseLatencies, Second};

/// Kinds of errors that are counted apart; others share one place.
const ERROR_KINDS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// On the worker's clock.
    measured: Range<u64>,
    counts: PhaseCounts,
    latencies: PhaseLatencies,
    errors: BTreeMap<String, u64>,
    second: Second,
}

impl Tally {
    /// A round begins; what lies in `measured` (nanoseconds on the worker's clock) is measured.
    pub(super) fn begin(&mut self, measured: Range<u64>) {
        *self = Tally {
            measured,
            ..Tally::default()
        };
    }

    /// The measured time ends now, before it was meant to.
    pub(super) fn cut_at(&mut self, now: u64) {
        self.measured.end = self.measured.end.min(now);
    }

    /// A message was due and its sender had it in hand.
    pub(super) fn sent(&mut self, due: Stamp, messages: usize, now: u64, is_due: bool) {
        self.second.sent += messages as u64;
        if self.measured.contains(&due.0) {
            self.counts.sent += messages as u64;
        }
        if is_due {
            let lag = us(due.0, now);
            self.second.lag_us.record(lag);
            if self.measured.contains(&due.0) {
                self.latencies.lag_us.record(lag);
            }
        }
    }

    pub(super) fn acked(&mut self, stamp: Option<Stamp>, now: u64) {
        self.second.acked += 1;
        if self.measured.contains(&now) {
            self.counts.acked += 1;
        }
        if let Some(stamp) = stamp {
            let took = us(stamp.0, now);
            self.second.ack_us.record(took);
            if self.measured.contains(&stamp.0) {
                self.latencies.ack_us.record(took);
            }
        }
    }

    /// A message was shown to a device that did not send it; `missed`: it could not be shown when it was sent.
    pub(super) fn delivered(&mut self, stamp: Stamp, missed: bool, now: u64) {
        self.second.delivered += 1;
        if self.measured.contains(&now) {
            self.counts.delivered += 1;
            self.counts.caught_up += u64::from(missed);
        }
        if !missed {
            let took = us(stamp.0, now);
            self.second.delivery_us.record(took);
            if self.measured.contains(&stamp.0) {
                self.latencies.delivery_us.record(took);
            }
        }
    }

    pub(super) fn page(&mut self, asked: u64, events: usize, now: u64) {
        if self.measured.contains(&asked) {
            self.counts.pages += 1;
            self.counts.page_events += events as u64;
            self.latencies.page_us.record(us(asked, now));
        }
    }

    pub(super) fn read_mark(&mut self, now: u64) {
        self.counts.read_marks += u64::from(self.measured.contains(&now));
    }

    pub(super) fn bytes(&mut self, came: usize, left: usize, now: u64) {
        if self.measured.contains(&now) {
            self.counts.bytes_in += came as u64;
            self.counts.bytes_out += left as u64;
        }
    }

    /// A connection stands again.
    pub(super) fn reconnected(&mut self, since: u64, now: u64) {
        self.counts.reconnects += 1;
        self.latencies.connect_us.record(us(since, now));
    }

    /// A device that came back at `since` has everything that it missed.
    pub(super) fn caught_up(&mut self, since: u64, now: u64) {
        self.latencies.catch_up_us.record(us(since, now));
    }

    pub(super) fn nobody_there(&mut self) {
        self.counts.nobody_there += 1;
    }

    pub(super) fn dropped(&mut self) {
        self.counts.dropped += 1;
    }

    /// Something that should not happen; counted whenever it does.
    pub(super) fn error(&mut self, what: &str) {
        self.second.errors += 1;
        if let Some(count) = self.errors.get_mut(what) {
            *count += 1;
        } else if self.errors.len() < ERROR_KINDS_MAX {
            self.errors.insert(what.to_owned(), 1);
        } else {
            *self.errors.entry("other".to_owned()).or_default() += 1;
        }
    }

    /// What happened since the last call.
    pub(super) fn take_second(&mut self) -> Second {
        std::mem::take(&mut self.second)
    }

    /// The round is over.
    pub(super) fn phase(&mut self, unanswered: usize, missing: u64) -> Phase {
        self.counts.unanswered = unanswered as u64;
        self.counts.missing = missing;
        Phase {
            counts: self.counts,
            latencies: self.latencies.clone(),
            errors: self.errors.clone(),
            measured_us: us(self.measured.start, self.measured.end),
            ..Phase::default()
        }
    }
}

fn us(from: u64, to: u64) -> u64 {
    to.saturating_sub(from) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn latencies_go_by_when_it_was_meant_to_happen() {
        let mut tally = Tally::default();
        tally.begin(100 * MS..200 * MS);
        // Due in the warm-up, came in the measured time: counted, not in the distribution.
        tally.acked(Some(Stamp(99 * MS)), 150 * MS);
        // Due in the measured time, came long after it: the slow one must not be lost.
        tally.acked(Some(Stamp(199 * MS)), 900 * MS);
        let phase = tally.phase(0, 0);
        assert_eq!(phase.counts.acked, 1);
        assert_eq!(phase.latencies.ack_us.count(), 1);
        assert!(phase.latencies.ack_us.max_us() >= 700_000);
    }

    #[test]
    fn what_a_device_missed_is_counted_and_not_timed() {
        let mut tally = Tally::default();
        tally.begin(0..200 * MS);
        tally.delivered(Stamp(10 * MS), true, 190 * MS);
        tally.delivered(Stamp(20 * MS), false, 21 * MS);
        let phase = tally.phase(0, 0);
        assert_eq!((phase.counts.delivered, phase.counts.caught_up), (2, 1));
        assert_eq!(phase.latencies.delivery_us.count(), 1);
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut tally = Tally::default();
        for n in 0..1_000 {
            tally.error(&format!("strange {n}"));
        }
        let errors = tally.phase(0, 0).errors;
        assert!(errors.len() <= ERROR_KINDS_MAX + 1);
        assert_eq!(errors.values().sum::<u64>(), 1_000);
    }
}
