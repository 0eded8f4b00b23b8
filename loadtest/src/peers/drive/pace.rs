//! Fixed arrivals, and an alarm clock for them that epoll can wait for: its own timeouts are a millisecond coarse.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// When messages are due: the n-th at n / rate.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    rate: u64,
    next: u64,
}

impl Pace {
    pub(super) fn new(began: Instant, rate: u32) -> Pace {
        Pace {
            began,
            rate: rate.max(1).into(),
            next: 0,
        }
    }

    pub(super) fn next_due(&self) -> Instant {
        let (whole, part) = (self.next / self.rate, self.next % self.rate);
        self.began
            + Duration::from_secs(whole)
            + Duration::from_nanos(part * 1_000_000_000 / self.rate)
    }

    /// The next message and its time, if that has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let due = self.next_due();
        (due <= now).then(|| {
            self.next += 1;
            (self.next - 1, due)
        })
    }
}

/// A timer of the kernel, as a descriptor.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
}

impl Alarm {
    pub(super) fn new(poll: &Poll, token: Token) -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Alarm { timer })
    }

    /// Rings once at `at`; at once when that is past.
    pub(super) fn set(&self, at: Instant) -> io::Result<()> {
        let wait = at.saturating_duration_since(Instant::now());
        // A time of zero would disarm it.
        let wait = wait.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Takes notice of a ring.
    pub(super) fn clear(&self) {
        let mut rings = [0; 8];
        // Nothing to read: it was set again in between.
        let _ = rustix::io::read(&self.timer, &mut rings);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_fixed_times_without_drift() {
        let began = Instant::now();
        let mut pace = Pace::new(began, 3);
        assert_eq!(pace.take_due(began), Some((0, began)));
        assert_eq!(pace.take_due(began), None);
        let later = began + Duration::from_secs(2);
        let due: Vec<_> = std::iter::from_fn(|| pace.take_due(later)).collect();
        assert_eq!(due.len(), 6);
        assert_eq!(due[5], (6, later));
    }

    #[test]
    fn the_alarm_rings_within_a_fraction_of_a_millisecond_of_its_time() {
        let mut poll = Poll::new().unwrap();
        let alarm = Alarm::new(&poll, Token(3)).unwrap();
        let at = Instant::now() + Duration::from_millis(5);
        alarm.set(at).unwrap();
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(10)))
            .unwrap();
        assert!(Instant::now() >= at);
        assert_eq!(events.iter().next().map(|it| it.token()), Some(Token(3)));
    }
}
