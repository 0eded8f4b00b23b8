//! What a run saw: counts, latencies, and the first thing that was wrong.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::outcome::Counts;
use crate::peers::stamp::Stamp;
use crate::peers::topology::Line;

/// Longest latency that is told apart from longer ones, in microseconds: a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Counts from the beginning of a drive; latencies from [`Tally::begin`].
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) published: u64,
    acked: u64,
    delivered: u64,
    /// What there was when measuring began.
    before: Counts,
    /// Messages that were meant earlier than this are not measured.
    from_ns: u64,
    pub(super) ack_us: Histogram<u64>,
    pub(super) delivery_us: Histogram<u64>,
    pub(super) lag_us: Histogram<u64>,
    pub(super) fault: Option<String>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            published: 0,
            acked: 0,
            delivered: 0,
            before: Counts::default(),
            from_ns: u64::MAX,
            ack_us: latencies(),
            delivery_us: latencies(),
            lag_us: latencies(),
            fault: None,
        }
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .expect("bounds and digits are constants within the range")
}

impl Tally {
    /// Measures from here on.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.before = Counts {
            published: self.published,
            acked: self.acked,
            delivered: self.delivered,
        };
        self.from_ns = now_ns;
        for latencies in [&mut self.ack_us, &mut self.delivery_us, &mut self.lag_us] {
            latencies.reset();
        }
    }

    /// Since [`Tally::begin`].
    pub(super) fn counts(&self) -> Counts {
        Counts {
            published: self.published - self.before.published,
            acked: self.acked - self.before.acked,
            delivered: self.delivered - self.before.delivered,
        }
    }

    pub(super) fn acked(&mut self, intended_ns: u64, now_ns: u64) {
        self.acked += 1;
        if intended_ns >= self.from_ns {
            let took_us = now_ns.saturating_sub(intended_ns) / 1_000;
            self.ack_us.saturating_record(took_us);
        }
    }

    /// A delivery on `line`, which is due message `next`.
    pub(super) fn delivered(&mut self, payload: &[u8], line: Line, next: &mut u64, now_ns: u64) {
        self.delivered += 1;
        let Some(stamp) = Stamp::read(payload) else {
            self.fault("a delivery with another payload than was sent");
            return;
        };
        if stamp.channel != line.channel() || line.sends() {
            let channel = stamp.channel;
            self.fault(&format!("a delivery of channel {channel} to {line:?}"));
            return;
        }
        match stamp.number.cmp(next) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => {
                let lost = stamp.number - *next;
                self.fault(&format!(
                    "{lost} deliveries of {line:?} left out before message {}",
                    stamp.number
                ));
            }
            std::cmp::Ordering::Less => {
                self.fault(&format!(
                    "message {} came to {line:?} again or late",
                    stamp.number
                ));
                return;
            }
        }
        *next = stamp.number + 1;
        if stamp.intended_ns >= self.from_ns {
            let took_us = now_ns.saturating_sub(stamp.intended_ns) / 1_000;
            self.delivery_us.saturating_record(took_us);
        }
    }

    pub(super) fn lagged(&mut self, lag: Duration) {
        self.lag_us.saturating_record(lag.as_micros() as u64);
    }

    /// The first one is kept.
    pub(super) fn fault(&mut self, what: &str) {
        self.fault.get_or_insert_with(|| what.to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    const LINE: Line = Line::Receiver { channel: 2 };

    fn after(numbers: &[u64], channel: u32, damage: bool) -> Option<String> {
        let mut tally = Tally::default();
        let mut next = 0;
        for number in numbers {
            let mut payload = [0; 100];
            let stamp = Stamp {
                channel,
                number: *number,
                intended_ns: 1_000,
            };
            stamp.write(&mut payload);
            payload[50] ^= u8::from(damage);
            tally.delivered(&payload, LINE, &mut next, 5_000);
        }
        tally.fault
    }

    #[test]
    fn what_is_lost_repeated_swapped_damaged_or_astray_is_a_fault() {
        assert_eq!(after(&[0, 1, 2], 2, false), None);
        assert!(after(&[0, 2], 2, false).unwrap().contains("left out"));
        assert!(after(&[0, 1, 1], 2, false).unwrap().contains("again"));
        assert!(after(&[1, 0], 2, false).is_some());
        assert!(after(&[0], 2, true).unwrap().contains("another payload"));
        assert!(after(&[0], 3, false).unwrap().contains("channel 3"));
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_after_the_beginning() {
        let mut tally = Tally::default();
        tally.acked(1_000, 9_000_000);
        tally.begin(2_000_000);
        tally.acked(1_000, 9_000_000);
        tally.acked(3_000_000, 9_000_000);
        assert_eq!(tally.ack_us.len(), 1);
        // A histogram knows three digits.
        assert!((6_000..6_010).contains(&tally.ack_us.max()));
        assert_eq!(tally.counts().acked, 2);
    }
}
