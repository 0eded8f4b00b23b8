//! Finding out that a connection is dead: PING on a beat, and giving up after silence. A connection that has a reason to
//! speak is doubted sooner: after a change of network at once, and when something was asked and nothing at all came back for
//! a while. Then it gets a PING, and a few seconds.

use conch_wire::limits::{HEARTBEAT_MS, SILENCE_MAX_MS};

use super::Ms;

/// How long a probed connection has to show that it is alive, in milliseconds: a round trip on a bad network and one
/// retransmission, and short enough for a person who waits.
const PROBE_MAX_MS: Ms = 4_000;
/// What is received this soon after a probe may have been on its way before, in milliseconds; only the answer to the probe
/// counts.
const PROBE_DOUBT_MS: Ms = 1_000;

/// How long something that was asked may go without one byte from the server before the connection is probed, in
/// milliseconds. A server that is only slow answers the PING.
const ANSWER_DOUBT_MS: Ms = 10_000;

/// What is due now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beat {
    Ping { nonce: u32 },
    Dead,
}

/// A question whether the connection is alive.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// Of its PING.
    nonce: u32,
    began: Ms,
}

/// The beat of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heartbeat {
    interval_ms: Ms,
    silence_max_ms: Ms,
    last_heard: Ms,
    next_ping: Ms,
    nonce: u32,
    probe: Option<Probe>,
    /// Since when something that was asked waits, and nothing was heard.
    waiting_since: Option<Ms>,
}

impl Heartbeat {
    pub(crate) fn new(now: Ms) -> Heartbeat {
        Heartbeat {
            interval_ms: HEARTBEAT_MS.into(),
            silence_max_ms: SILENCE_MAX_MS.into(),
            last_heard: now,
            next_ping: now + Ms::from(HEARTBEAT_MS),
            nonce: 0,
            probe: None,
            waiting_since: None,
        }
    }

    /// Whether anything is asked and not answered. Said after every input.
    pub(crate) fn waits(&mut self, now: Ms, waits: bool) {
        self.waiting_since = waits.then(|| self.waiting_since.unwrap_or(now));
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
        self.waiting_since = None;
        if self
            .probe
            .is_some_and(|probe| now >= probe.began + PROBE_DOUBT_MS)
        {
            self.probe = None;
        }
    }

    /// PONG is here.
    pub(crate) fn answered(&mut self, nonce: u32) {
        if self.probe.is_some_and(|probe| probe.nonce == nonce) {
            self.probe = None;
        }
    }

    /// Asks at once, and gives up soon without an answer. A probe that is running keeps its deadline: an application that
    /// reports every twitch of its network must not put off the end.
    pub(crate) fn probe(&mut self, now: Ms) {
        self.next_ping = now;
        let nonce = self.nonce.wrapping_add(1);
        let began = self.probe.map_or(now, |running| running.began);
        self.probe = Some(Probe { nonce, began });
    }

    pub(crate) fn due(&mut self, now: Ms) -> Option<Beat> {
        if now >= self.dead_at() {
            return Some(Beat::Dead);
        }
        if self.doubt_at().is_some_and(|at| now >= at) {
            self.probe(now);
        }
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + self.interval_ms;
        self.nonce = self.nonce.wrapping_add(1);
        Some(Beat::Ping { nonce: self.nonce })
    }

    fn dead_at(&self) -> Ms {
        let silence = self.last_heard + self.silence_max_ms;
        self.probe
            .map_or(silence, |probe| silence.min(probe.began + PROBE_MAX_MS))
    }

    fn doubt_at(&self) -> Option<Ms> {
        match (self.probe, self.waiting_since) {
            (None, Some(since)) => Some(since + ANSWER_DOUBT_MS),
            _ => None,
        }
    }

    pub(crate) fn next_at(&self) -> Ms {
        let beat = self.next_ping.min(self.dead_at());
        self.doubt_at().map_or(beat, |at| beat.min(at))
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

    #[test]
    fn probe_asks_at_once_and_gives_up_soon() {
        let mut beat = Heartbeat::new(0);
        beat.probe(10_000);
        assert_eq!(beat.due(10_000), Some(Beat::Ping { nonce: 1 }));
        // Under way when the network changed.
        beat.heard(10_100);
        assert_eq!(beat.next_at(), 14_000);
        // Another change neither forgets the question nor puts off the end.
        beat.probe(12_000);
        assert_eq!(beat.due(12_000), Some(Beat::Ping { nonce: 2 }));
        assert_eq!(beat.due(14_000), Some(Beat::Dead));
    }

    #[test]
    fn question_without_a_byte_in_answer_leads_to_a_probe() {
        let mut beat = Heartbeat::new(0);
        beat.waits(1_000, true);
        beat.waits(9_000, true);
        assert_eq!(beat.next_at(), 11_000);
        assert_eq!(beat.due(11_000), Some(Beat::Ping { nonce: 1 }));
        assert_eq!(beat.next_at(), 15_000);
        assert_eq!(beat.due(15_000), Some(Beat::Dead));
    }

    #[test]
    fn server_that_is_slow_but_speaks_is_not_doubted() {
        let mut beat = Heartbeat::new(0);
        beat.waits(0, true);
        beat.heard(9_000);
        beat.waits(9_000, true);
        assert_eq!(beat.next_at(), 19_000);
        // Nor one that has nothing to answer.
        beat.waits(9_000, false);
        assert_eq!(beat.next_at(), 25_000);
    }

    #[test]
    fn answered_probe_is_over_and_so_is_one_with_later_bytes() {
        let mut beat = Heartbeat::new(0);
        beat.probe(10_000);
        beat.due(10_000);
        beat.heard(10_100);
        beat.answered(1);
        assert_eq!(beat.next_at(), 35_000);
        beat.probe(20_000);
        beat.due(20_000);
        beat.answered(1);
        assert_eq!(beat.next_at(), 24_000, "an older PONG answers nothing");
        beat.heard(21_000);
        assert_eq!(beat.due(24_000), None);
    }
}
