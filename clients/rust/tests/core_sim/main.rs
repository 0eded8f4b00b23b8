//! The core against a simulated server, by seed: random delays, cuts, crashes, reorderings of acks and deliveries, lost and
//! repeated hints, refusals in the middle of bursts, collapse, void tokens, new generations.
//!
//! After every step the model checks what a client must never do (two frames of a channel in flight, a repeated key without
//! RETRY, an event out of order or twice). In the end, when the faults stop, everything must come out right: the device's
//! log equals the server's, own sends keep their order and are there once, marks agree.
//!
//! `CORE_SIM_SEED=n` runs one seed; `CORE_SIM_RUNS=n` runs so many.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test, and its seed is printed"
)]

mod device;
mod server;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use device::Device;
use server::{Faults, ME, Server};

/// Steps with faults, then without.
const STEPS: u32 = 1_500;
const SETTLE_STEPS: u32 = 20_000;
const CHANNELS: u64 = 4;

struct Run {
    rng: StdRng,
    server: Server,
    device: Device,
    now: u64,
}

impl Run {
    fn new(seed: u64, faults: Faults) -> Run {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut server = Server::new(faults);
        for channel in 1..=CHANNELS {
            server.create(channel);
            for _ in 0..rng.random_range(0..300) {
                server.chat(&mut rng, channel, 2);
            }
        }
        let device = Device::new(seed);
        Run {
            rng,
            server,
            device,
            now: 0,
        }
    }

    fn channel(&mut self) -> u64 {
        self.rng.random_range(1..=CHANNELS)
    }

    fn step(&mut self) {
        self.now += self.rng.random_range(0..30);
        self.device.tick(self.now, &mut self.server, &mut self.rng);
        let faults = self.server.faults;
        match self.rng.random_range(0..100) {
            0..40 => self.deliver(),
            40..65 => self.server.work(&mut self.rng),
            65..75 => {
                let (channel, author) = (self.channel(), self.rng.random_range(2..5));
                self.server.chat(&mut self.rng, channel, author);
            }
            75..77 => {
                // The same person on another device.
                let channel = self.channel();
                self.server.chat(&mut self.rng, channel, ME.0);
            }
            77..87 => self.write(),
            87..90 => {
                let channel = self.channel();
                self.device
                    .mark_read(self.now, channel, &mut self.server, &mut self.rng);
            }
            90..93 if faults.cuts => self.device.cut(self.now, &mut self.server, &mut self.rng),
            93 if faults.cuts => self.device.crash(self.now, &mut self.server, &mut self.rng),
            94 if faults.tokens => self.server.rebuild_inbox(),
            95 if faults.tokens && self.rng.random_bool(0.2) => {
                self.server.restore();
                self.device.cut(self.now, &mut self.server, &mut self.rng);
            }
            96 if self.rng.random_bool(0.05) => {
                let channel = self.channel();
                self.server.remove_me(channel, &mut self.rng);
            }
            97 if self.rng.random_bool(0.3) => {
                let channel = self.channel();
                self.server.add_me(channel, &mut self.rng);
            }
            _ => {}
        }
    }

    fn write(&mut self) {
        let channel = self.channel();
        let burst = if self.rng.random_bool(0.1) { 50 } else { 1 };
        for _ in 0..burst {
            let bad = self.server.faults.refusals && self.rng.random_bool(0.05);
            self.device
                .write(self.now, channel, bad, &mut self.server, &mut self.rng);
        }
    }

    fn deliver(&mut self) {
        if let Some((connection, bytes)) = self.server.next_for_client(&mut self.rng) {
            self.device
                .receive(self.now, connection, bytes, &mut self.server, &mut self.rng);
        }
    }

    /// No faults any more: everything must come to rest, and be right.
    fn settle(&mut self) {
        self.server.faults = Faults::default();
        for channel in 1..=CHANNELS {
            self.server.chat(&mut self.rng, channel, 2);
        }
        for _ in 0..SETTLE_STEPS {
            if self.server.has_work() {
                self.server.work(&mut self.rng);
                self.deliver();
                self.now += 1;
            } else if self.device.is_settled(&self.server) {
                return;
            } else {
                self.now = self
                    .device
                    .wake_at()
                    .expect("it waits for something")
                    .max(self.now);
            }
            self.device.tick(self.now, &mut self.server, &mut self.rng);
        }
        panic!("not at rest: {}", self.device.describe(&self.server));
    }
}

fn run(seed: u64, faults: Faults) {
    // The seed stands in the output of a run that fails.
    println!("seed {seed} {faults:?}");
    let mut run = Run::new(seed, faults);
    run.device.start(run.now, &mut run.server, &mut run.rng);
    for _ in 0..STEPS {
        run.step();
    }
    run.settle();
    run.device.check(&run.server);
}

fn runs() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    match (number("CORE_SIM_SEED"), number("CORE_SIM_RUNS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(30),
    }
}

#[test]
fn without_faults_everything_arrives() {
    for seed in runs() {
        run(seed, Faults::default());
    }
}

#[test]
fn cuts_and_crashes_lose_and_repeat_nothing() {
    for seed in runs() {
        run(
            seed,
            Faults {
                cuts: true,
                ..Faults::default()
            },
        );
    }
}

#[test]
fn refusals_keep_the_order() {
    for seed in runs() {
        run(
            seed,
            Faults {
                refusals: true,
                ..Faults::default()
            },
        );
    }
}

#[test]
fn lost_repeated_and_collapsed_hints_are_made_up_for() {
    for seed in runs() {
        run(
            seed,
            Faults {
                hints: true,
                ..Faults::default()
            },
        );
    }
}

#[test]
fn everything_at_once() {
    for seed in runs() {
        run(
            seed,
            Faults {
                cuts: true,
                refusals: true,
                hints: true,
                tokens: true,
            },
        );
    }
}
