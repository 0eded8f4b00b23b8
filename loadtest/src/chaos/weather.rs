//! The bad network of a kill proof: what loss means on each transport, and the weather.
//!
//! TCP is repaired by the kernel whatever is lost: the same share of its chunks stalls for a retransmission timeout instead,
//! and a few reset the connection.

use std::time::Duration;

use conch_impair::{Cut, Profile, Way};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::bad_network::BadNetwork;

/// What one lost segment costs a stream: the least retransmission timeout of common kernels.
const STALL: Duration = Duration::from_millis(200);

/// A network that loses this share, 0 to 1; of 0, one that does nothing.
pub(super) fn profile(loss: f64) -> Profile {
    if loss == 0.0 {
        return Profile::default();
    }
    Profile {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(8),
        bytes_per_s: None,
        loss,
        duplicate: loss / 2.0,
        reorder: loss / 2.0,
        reorder_by: Duration::from_millis(20),
        stall: loss,
        stall_for: STALL,
        cut: loss / 100.0,
    }
}

/// What the weather did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Storms {
    pub cuts: u64,
    pub holes: u64,
    pub half_opens: u64,
    pub rebinds: u64,
}

/// Draws what happens to the network beside loss.
pub(super) struct Weather {
    rng: StdRng,
    /// Whether connections may be left half open: a client needs the protocol's 45 s to notice, so a run must be longer.
    half_opens: bool,
}

impl Weather {
    pub(super) fn new(seed: u64, half_opens: bool) -> Weather {
        Weather {
            rng: StdRng::seed_from_u64(seed),
            half_opens,
        }
    }

    /// Storms until it is dropped; tells of each through `storms`.
    pub(super) async fn rage(
        mut self,
        network: &BadNetwork,
        storms: &tokio::sync::watch::Sender<Storms>,
    ) {
        loop {
            let pause = self.rng.random_range(300..2_500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let on_udp = self.rng.random();
            let proxy = match &network.udp {
                Some(udp) if on_udp => udp,
                _ => &network.tcp,
            };
            match self.rng.random_range(0..10) {
                0..=2 => {
                    let cut = if self.rng.random() {
                        Cut::Reset
                    } else {
                        Cut::Fin
                    };
                    proxy.cut_all(cut);
                    storms.send_modify(|it| it.cuts += 1);
                }
                3..=5 => {
                    storms.send_modify(|it| it.holes += 1);
                    let ways = [Way::ToServer, Way::ToClient];
                    let swallowed = match self.rng.random_range(0..3) {
                        0 => &ways[..1],
                        1 => &ways[1..],
                        _ => &ways[..],
                    };
                    for way in swallowed {
                        proxy.black_hole(*way);
                    }
                    let dark = self.rng.random_range(50..1_500);
                    tokio::time::sleep(Duration::from_millis(dark)).await;
                    proxy.heal();
                }
                6 if self.half_opens => {
                    storms.send_modify(|it| it.half_opens += 1);
                    proxy.half_open();
                }
                _ => {
                    if let Some(udp) = &network.udp {
                        storms.send_modify(|it| it.rebinds += 1);
                        udp.rebind();
                    }
                }
            }
        }
    }
}
