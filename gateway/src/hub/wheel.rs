//! One time wheel for all sessions: who must look at its deadlines now.
//!
//! Pure. Slots of [`SLOT_MS`]; a deadline beyond the horizon is put at the horizon and comes back early, which is allowed:
//! firing only means "look at your deadlines", and a session that is not due arms itself again. So a session costs one
//! entry however often bytes move its idle deadline, and there is no timer per connection.

use conch_wire::SessionId;

/// Resolution, in milliseconds: a deadline fires up to this much late.
pub const SLOT_MS: u64 = 250;
/// 64 s ahead: more than the idle timeout, so that most entries are placed once.
const SLOTS: u64 = 256;

/// See the module.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<SessionId>>,
    /// The next slot to fire, counted from time 0.
    next: u64,
}

impl Wheel {
    pub fn new(now_ms: u64) -> Wheel {
        Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            next: now_ms / SLOT_MS,
        }
    }

    /// Fires `session` at `at_ms` rounded up to a slot, or at the horizon if that is earlier.
    pub fn arm(&mut self, session: SessionId, at_ms: u64) {
        let slot = at_ms
            .div_ceil(SLOT_MS)
            .clamp(self.next, self.next + SLOTS - 1);
        self.slots[(slot % SLOTS) as usize].push(session);
    }

    /// Everything that is due at `now_ms`, appended to `fired`.
    pub fn advance(&mut self, now_ms: u64, fired: &mut Vec<SessionId>) {
        let last = now_ms / SLOT_MS;
        // A clock that jumped by more than the horizon fires each slot once.
        let stop = last.min(self.next.saturating_add(SLOTS - 1));
        while self.next <= stop {
            let slot = &mut self.slots[(self.next % SLOTS) as usize];
            fired.append(slot);
            slot.shrink_to(64);
            self.next += 1;
        }
        self.next = self.next.max(last + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_deadline_fires_once_in_time_and_never_more_than_a_slot_late(
            deadlines in prop::collection::vec(0u64..60_000, 1..100), step in 1u64..400,
        ) {
            let mut wheel = Wheel::new(0);
            for (i, at) in deadlines.iter().enumerate() {
                wheel.arm(SessionId(i as u64), *at);
            }
            let mut seen = vec![None; deadlines.len()];
            let (mut now, mut fired) = (0, Vec::new());
            while now < 62_000 {
                wheel.advance(now, &mut fired);
                for session in fired.drain(..) {
                    prop_assert!(seen[session.0 as usize].replace(now).is_none());
                }
                now += step;
            }
            for (at, seen) in deadlines.iter().zip(seen) {
                let seen = seen.expect("every deadline fires");
                prop_assert!(seen >= *at && seen <= at + SLOT_MS + step);
            }
        }
    }

    #[test]
    fn a_jump_over_the_horizon_fires_everything_and_the_wheel_goes_on() {
        let mut wheel = Wheel::new(0);
        wheel.arm(SessionId(1), 10_000);
        wheel.arm(SessionId(2), 500_000);
        let mut fired = Vec::new();
        wheel.advance(1_000_000, &mut fired);
        fired.sort_unstable();
        assert_eq!(fired, [SessionId(1), SessionId(2)]);
        fired.clear();
        wheel.arm(SessionId(3), 1_000_500);
        wheel.advance(1_000_250, &mut fired);
        assert!(fired.is_empty());
        wheel.advance(1_000_500, &mut fired);
        assert_eq!(fired, [SessionId(3)]);
    }
}
