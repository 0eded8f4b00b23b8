//! The activities of a round: who sends, pages back and reads when something is due, and who drops out.
//!
//! Each activity is a task on the worker's thread. Choices are drawn from the scenario's seed, the worker's number and the
//! activity's place, so that a run can be repeated as far as a network lets it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use conch_wire::ChannelId;
use rand::rngs::StdRng;
use rand::seq::{IteratorRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pace::{Pacer, Train};
use super::player::{Do, Player, Window};
use super::shared::Shared;
use crate::run::wire::WorkerPlan;
use crate::scenario::{Arrivals, Send};

/// Messages that may wait in all devices of a worker before arrivals are dropped (and the figures invalid).
const UNSETTLED_MAX: usize = 500_000;

/// The round as the activities see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) began: Instant,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) rate_factor: f64,
}

impl Round {
    fn measured(&self) -> Instant {
        self.began + self.warm_up
    }

    fn end(&self) -> Instant {
        self.measured() + self.duration
    }
}

/// One channel as activities see it.
#[derive(Clone, Debug)]
struct Place {
    id: ChannelId,
    /// Indices of people.
    members: Vec<usize>,
}

pub(super) struct Crowd<'a> {
    pub(super) plan: &'a WorkerPlan,
    pub(super) players: &'a [Vec<Player>],
    pub(super) shared: &'a Rc<Shared>,
    pub(super) round: Round,
}

impl Crowd<'_> {
    /// Starts everything that the scenario says; the tasks end with the set that they are in.
    pub(super) fn start(&self, tasks: &mut JoinSet<()>) -> Result<()> {
        let scenario = &self.plan.scenario;
        for (index, send) in scenario.send.iter().enumerate() {
            let places = self.places(send.to.as_deref(), send.senders);
            if places.is_empty() {
                continue;
            }
            match (send.rate, send.window) {
                (Some(rate), _) => self.open_loop(tasks, index as u64, send, rate, places)?,
                (None, Some(size)) => self.closed_loop(tasks, send, size, places),
                (None, None) => {}
            }
        }
        for (index, history) in scenario.history.iter().enumerate() {
            let items = history.items;
            let what = move |channel| Do::Page { channel, items };
            self.at_random(
                tasks,
                100 + index as u64,
                history.to.as_deref(),
                history.rate,
                what,
            )?;
        }
        for (index, read) in scenario.read.iter().enumerate() {
            let what = |channel| Do::Read { channel };
            self.at_random(
                tasks,
                200 + index as u64,
                read.to.as_deref(),
                read.rate,
                what,
            )?;
        }
        for (index, storm) in scenario.storm.iter().enumerate() {
            let within = Duration::from_secs_f64(storm.within_s);
            // They were not away: what they write in the meantime waits in their outboxes, as in an app.
            self.drop_out(
                tasks,
                300 + index as u64,
                storm.at_s,
                storm.share,
                true,
                move |rng| Do::Vanish(within.mul_f64(rng.random())),
            );
        }
        for (index, stall) in scenario.stall.iter().enumerate() {
            let time = Duration::from_secs_f64(stall.for_s);
            self.drop_out(
                tasks,
                400 + index as u64,
                stall.at_s,
                stall.share,
                false,
                move |_| Do::Stall(time),
            );
        }
        for (index, absence) in scenario.absence.iter().enumerate() {
            let time = Duration::from_secs_f64(absence.for_s);
            self.drop_out(
                tasks,
                500 + index as u64,
                absence.at_s,
                absence.share,
                false,
                move |_| Do::Vanish(time),
            );
        }
        Ok(())
    }

    fn seed(&self, activity: u64) -> u64 {
        let worker = self.plan.worker as u64;
        self.plan
            .scenario
            .seed
            .wrapping_mul(1_000_003)
            .wrapping_add(worker.wrapping_mul(10_007))
            .wrapping_add(activity)
    }

    fn places(&self, to: Option<&str>, senders: Option<usize>) -> Vec<Place> {
        self.plan
            .channels
            .iter()
            .filter(|channel| to.is_none_or(|to| to == channel.set))
            .map(|channel| Place {
                id: ChannelId(channel.id),
                members: channel
                    .members
                    .iter()
                    .take(senders.unwrap_or(usize::MAX))
                    .copied()
                    .collect(),
            })
            .collect()
    }

    /// This worker's part of a rate: as its channels are part of all.
    fn share_of(&self, rate: f64, to: Option<&str>, places: usize) -> f64 {
        let of_all: usize = self
            .plan
            .channels_of_all
            .iter()
            .filter(|(set, _)| to.is_none_or(|to| to == *set))
            .map(|(_, count)| count)
            .sum();
        rate * places as f64 / of_all.max(1) as f64
    }

    fn open_loop(
        &self,
        tasks: &mut JoinSet<()>,
        index: u64,
        send: &Send,
        rate: f64,
        places: Vec<Place>,
    ) -> Result<()> {
        let of_worker = self.share_of(rate, send.to.as_deref(), places.len());
        let messages = of_worker * self.round.rate_factor;
        let (from, until) = self.times(send);
        let mut pacer = self.pacer(
            index,
            from,
            until,
            messages / send.batch as f64,
            send.arrivals,
        )?;
        let mut choice = Choice::new(send.arrivals, self.seed(index), places);
        let (batch, payload_bytes) = (send.batch, send.payload_bytes);
        let (players, shared) = (self.players.to_vec(), Rc::clone(self.shared));
        tasks.spawn_local(async move {
            let mut due = Vec::new();
            loop {
                pacer.next(&mut due).await;
                if due.is_empty() {
                    return;
                }
                for at in due.drain(..) {
                    let Some((channel, player)) = choice.next(&players) else {
                        shared.tally.borrow_mut().nobody_there();
                        continue;
                    };
                    if shared.unsettled.get() > UNSETTLED_MAX {
                        shared.tally.borrow_mut().dropped();
                        continue;
                    }
                    let due = shared.stamp(at);
                    player.give(Do::Say {
                        channel,
                        due,
                        batch,
                        payload_bytes,
                    });
                }
            }
        });
        Ok(())
    }

    fn closed_loop(&self, tasks: &mut JoinSet<()>, send: &Send, size: usize, places: Vec<Place>) {
        let (from, until) = self.times(send);
        let players = self.players.to_vec();
        let window = Window {
            size: size.max(send.batch),
            batch: send.batch,
            payload_bytes: send.payload_bytes,
            left: None,
            open: 0,
        };
        let is_whole_round = send.at_s.is_none() && send.for_s.is_none();
        tasks.spawn_local(async move {
            tokio::time::sleep_until(from).await;
            for place in &places {
                for member in &place.members {
                    let channel = place.id;
                    players[*member][0].give(Do::Keep { channel, window });
                }
            }
            if !is_whole_round {
                tokio::time::sleep_until(until).await;
                let closed = Window { size: 0, ..window };
                for place in &places {
                    for member in &place.members {
                        let (channel, window) = (place.id, closed);
                        players[*member][0].give(Do::Keep { channel, window });
                    }
                }
            }
        });
    }

    /// Pages and marks: somebody present in some channel, at moments of their own.
    fn at_random(
        &self,
        tasks: &mut JoinSet<()>,
        index: u64,
        to: Option<&str>,
        rate: f64,
        what: impl Fn(ChannelId) -> Do + 'static,
    ) -> Result<()> {
        let places = self.places(to, None);
        if places.is_empty() {
            return Ok(());
        }
        let rate = self.share_of(rate, to, places.len());
        let (from, until) = (self.round.began, self.round.end());
        let mut pacer = self.pacer(index, from, until, rate, Arrivals::Poisson)?;
        let mut choice = Choice::new(Arrivals::Poisson, self.seed(index), places);
        let (players, shared) = (self.players.to_vec(), Rc::clone(self.shared));
        tasks.spawn_local(async move {
            let mut due = Vec::new();
            loop {
                pacer.next(&mut due).await;
                if due.is_empty() {
                    return;
                }
                for _ in due.drain(..) {
                    match choice.next(&players) {
                        Some((channel, player)) => player.give(what(channel)),
                        None => shared.tally.borrow_mut().nobody_there(),
                    }
                }
            }
        });
        Ok(())
    }

    /// A share of all devices gets an order at a moment. `stays`: they count as present all the same.
    fn drop_out(
        &self,
        tasks: &mut JoinSet<()>,
        index: u64,
        at_s: f64,
        share: f64,
        stays: bool,
        order: impl Fn(&mut StdRng) -> Do + 'static,
    ) {
        let at = self.round.measured() + Duration::from_secs_f64(at_s);
        let mut rng = StdRng::seed_from_u64(self.seed(index));
        let players = self.players.to_vec();
        tasks.spawn_local(async move {
            tokio::time::sleep_until(at).await;
            let mut present: Vec<&Player> = players
                .iter()
                .flatten()
                .filter(|player| player.seat.is_present.get())
                .collect();
            let all: usize = players.iter().map(Vec::len).sum();
            present.shuffle(&mut rng);
            present.truncate((all as f64 * share).round() as usize);
            for player in present {
                player.seat.is_present.set(stays);
                player.give(order(&mut rng));
            }
        });
    }

    fn times(&self, send: &Send) -> (Instant, Instant) {
        let from = send.at_s.map_or(self.round.began, |at| {
            self.round.measured() + Duration::from_secs_f64(at)
        });
        let until = send.for_s.map_or(self.round.end(), |time| {
            from.max(self.round.measured()) + Duration::from_secs_f64(time)
        });
        (from, until.min(self.round.end()))
    }

    fn pacer(
        &self,
        index: u64,
        from: Instant,
        until: Instant,
        rate: f64,
        arrivals: Arrivals,
    ) -> Result<Pacer> {
        let train = Train {
            from: from.into_std(),
            until: until.into_std(),
            rate,
            arrivals,
            seed: self.seed(index),
        };
        Pacer::start(train).context("start a thread for the arrivals")
    }
}

/// Who is next: in turn for fixed arrivals, at random for others.
struct Choice {
    places: Vec<Place>,
    rng: StdRng,
    in_turn: bool,
    turn: usize,
    turns_of: BTreeMap<usize, usize>,
}

impl Choice {
    fn new(arrivals: Arrivals, seed: u64, places: Vec<Place>) -> Choice {
        Choice {
            places,
            rng: StdRng::seed_from_u64(seed),
            in_turn: arrivals == Arrivals::Fixed,
            turn: 0,
            turns_of: BTreeMap::new(),
        }
    }

    /// A channel, and a device of one of its people who is present.
    fn next<'a>(&mut self, players: &'a [Vec<Player>]) -> Option<(ChannelId, &'a Player)> {
        let index = if self.in_turn {
            self.turn += 1;
            (self.turn - 1) % self.places.len()
        } else {
            self.rng.random_range(0..self.places.len())
        };
        let place = &self.places[index];
        let first = if self.in_turn {
            let turn = self.turns_of.entry(index).or_default();
            *turn += 1;
            (*turn - 1) % place.members.len()
        } else {
            (0..place.members.len()).choose(&mut self.rng)?
        };
        // The next one who is there.
        let members = place.members[first..].iter().chain(&place.members[..first]);
        members
            .flat_map(|member| &players[*member])
            .find(|player| player.seat.is_present.get())
            .map(|player| (place.id, player))
    }
}
