//! What happens to one chunk or datagram: pure decisions from a seeded generator.
//!
//! Every connection and direction has a generator of its own, made from the proxy's seed, and each decision draws the same
//! number of values whatever the profile says, so that changing one probability leaves the fates of the others alone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Profile, Way};

/// Decisions of one direction of one connection.
#[derive(Debug)]
pub(super) struct Fates(StdRng);

/// What happens to a chunk of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ChunkFate {
    pub(super) delay: Duration,
    /// The stream stops for so long ahead of it.
    pub(super) stall: Duration,
    /// The connection ends here.
    pub(super) is_cut: bool,
}

impl Fates {
    pub(super) fn new(seed: u64, connection: u64, way: Way) -> Fates {
        let way = match way {
            Way::ToServer => 0,
            Way::ToClient => 1,
        };
        // Neighbouring seeds must not make neighbouring connections alike.
        let mixed = (seed ^ (connection << 1 | way).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Fates(StdRng::seed_from_u64(mixed))
    }

    fn draw(&mut self) -> f64 {
        self.0.random()
    }

    pub(super) fn chunk(&mut self, profile: &Profile) -> ChunkFate {
        let (jitter, stall, cut) = (self.draw(), self.draw(), self.draw());
        let is_stalled = stall < profile.stall;
        ChunkFate {
            delay: profile.delay + profile.jitter.mul_f64(jitter),
            stall: if is_stalled {
                profile.stall_for
            } else {
                Duration::ZERO
            },
            is_cut: cut < profile.cut,
        }
    }

    /// The delays of a datagram's copies: none when it is lost, two when it is duplicated.
    pub(super) fn datagram(&mut self, profile: &Profile) -> Vec<Duration> {
        let [lost, twice, late, jitter, jitter_of_copy] = [(); 5].map(|()| self.draw());
        if lost < profile.loss {
            return Vec::new();
        }
        let held = if late < profile.reorder {
            profile.reorder_by
        } else {
            Duration::ZERO
        };
        let mut delays = vec![profile.delay + held + profile.jitter.mul_f64(jitter)];
        if twice < profile.duplicate {
            delays.push(profile.delay + profile.jitter.mul_f64(jitter_of_copy));
        }
        delays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: Profile = Profile {
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(5),
        bytes_per_s: None,
        loss: 0.2,
        duplicate: 0.1,
        reorder: 0.1,
        reorder_by: Duration::from_millis(40),
        stall: 0.1,
        stall_for: Duration::from_millis(300),
        cut: 0.01,
    };

    fn datagrams(seed: u64, connection: u64, profile: &Profile) -> Vec<Vec<Duration>> {
        let mut fates = Fates::new(seed, connection, Way::ToServer);
        (0..10_000).map(|_| fates.datagram(profile)).collect()
    }

    #[test]
    fn a_seed_replays_its_fates_and_connections_differ() {
        assert_eq!(datagrams(1, 0, &PROFILE), datagrams(1, 0, &PROFILE));
        assert_ne!(datagrams(1, 0, &PROFILE), datagrams(1, 1, &PROFILE));
        assert_ne!(datagrams(1, 0, &PROFILE), datagrams(2, 0, &PROFILE));
    }

    #[test]
    fn rates_are_those_of_the_profile() {
        let fates = datagrams(7, 3, &PROFILE);
        let share = |is: &dyn Fn(&Vec<Duration>) -> bool| {
            fates.iter().filter(|it| is(it)).count() as f64 / fates.len() as f64
        };
        assert!((share(&Vec::is_empty) - 0.2).abs() < 0.02);
        assert!((share(&|it| it.len() == 2) - 0.08).abs() < 0.02);
        assert!((share(&|it| it.first() >= Some(&Duration::from_millis(50))) - 0.08).abs() < 0.02);
        let delays = fates.iter().flatten();
        assert!(delays.clone().all(|it| *it >= Duration::from_millis(10)));
        assert!(delays.clone().all(|it| *it <= Duration::from_millis(55)));
    }

    #[test]
    fn more_loss_leaves_other_fates_alone() {
        let lossier = Profile {
            loss: 0.5,
            ..PROFILE
        };
        let (some, more) = (datagrams(5, 0, &PROFILE), datagrams(5, 0, &lossier));
        let survivors = some.iter().zip(&more).filter(|(_, more)| !more.is_empty());
        assert!(survivors.clone().count() > 4_000);
        assert!(survivors.into_iter().all(|(some, more)| some == more));
    }

    #[test]
    fn a_clean_profile_does_nothing() {
        let mut fates = Fates::new(3, 0, Way::ToClient);
        for _ in 0..1_000 {
            let fate = fates.chunk(&Profile::default());
            assert_eq!(
                (fate.delay, fate.stall, fate.is_cut),
                (Duration::ZERO, Duration::ZERO, false)
            );
            assert_eq!(fates.datagram(&Profile::default()), [Duration::ZERO]);
        }
    }
}
