//! Finding out that a connection is dead: PING on a beat, and giving up after silence.

use conch_wire::limits::{HEARTBEAT_MS, SILENCE_MAX_MS};

use super::Ms;

/// What is due now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beat {
    Ping { nonce: u32 },
    Dead,
}

/// The beat of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heartbeat {
    interval_ms: Ms,
    silence_max_ms: Ms,
    last_heard: Ms,
    next_ping: Ms,
    nonce: u32,
}

impl Heartbeat {
    pub(crate) fn new(now: Ms) -> Heartbeat {
        Heartbeat {
            interval_ms: HEARTBEAT_MS.into(),
            silence_max_ms: SILENCE_MAX_MS.into(),
            last_heard: now,
            next_ping: now + Ms::from(HEARTBEAT_MS),
            nonce: 0,
        }
    }

    /// WELCOME announced the server's beat. 0 leaves ours.
    pub(crate) fn announced(&mut self, now: Ms, heartbeat_ms: u32, silence_max_ms: u32) {
        if heartbeat_ms > 0 {
            self.interval_ms = heartbeat_ms.into();
            self.next_ping = now + self.interval_ms;
        }
        if silence_max_ms > 0 {
            self.silence_max_ms = silence_max_ms.into();
        }
    }

    pub(crate) fn heard(&mut self, now: Ms) {
        self.last_heard = self.last_heard.max(now);
    }

    pub(crate) fn due(&mut self, now: Ms) -> Option<Beat> {
        if now >= self.last_heard + self.silence_max_ms {
            return Some(Beat::Dead);
        }
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + self.interval_ms;
        self.nonce = self.nonce.wrapping_add(1);
        Some(Beat::Ping { nonce: self.nonce })
    }

    pub(crate) fn next_at(&self) -> Ms {
        self.next_ping.min(self.last_heard + self.silence_max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_on_the_beat_and_gives_up_after_silence() {
        let mut beat = Heartbeat::new(0);
        assert_eq!(beat.due(24_999), None);
        assert_eq!(beat.due(25_000), Some(Beat::Ping { nonce: 1 }));
        assert_eq!(beat.next_at(), 45_000);
        assert_eq!(beat.due(45_000), Some(Beat::Dead));
    }

    #[test]
    fn any_byte_counts_as_life() {
        let mut beat = Heartbeat::new(0);
        beat.heard(30_000);
        assert_eq!(beat.due(45_000), Some(Beat::Ping { nonce: 1 }));
        assert_eq!(beat.due(75_000), Some(Beat::Dead));
    }
}
