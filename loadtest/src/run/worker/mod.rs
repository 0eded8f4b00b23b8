//! A worker: one process, one thread, thousands of devices, and the checker of everything that happens in their channels.
//!
//! It is told what to play on its standard input and says what it sees on its standard output ([`super::wire`]). It ends
//! when it is told to, when its input ends (then nobody listens any more), and when nothing can be connected for a while.

mod crowd;
mod doors;
mod judge;
mod pace;
mod player;
mod shared;
mod tally;

use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use conch_wire::{ChannelId, DeviceId, UserId};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, interval_at};

use super::wire::{DevicePlan, Judged, Order, Said, WorkerPlan};
use crate::http::{Api, Login};
use crate::measure::generator_cpu;
use crate::raw::Endpoint;
use crowd::{Crowd, Round};
use doors::Doors;
use player::{Do, Player, Window};
use shared::Shared;

/// With nobody connected for so long there is nothing to wait for.
const NOBODY_PATIENCE: Duration = Duration::from_secs(10);
/// First connections and stored messages: this, and a little for each.
const SETUP_PATIENCE: Duration = Duration::from_secs(60);
const SETUP_PATIENCE_PER_DEVICE: Duration = Duration::from_millis(20);
/// Without progress for so long, storing messages is given up.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// How long arrivals that were due may take to be handed over after the end.
const HAND_OVER: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
/// Messages on the way while a channel is filled.
const STORE_WINDOW: usize = 128;
/// HTTP calls of a worker (fresh tokens) wait no longer.
const HTTP_PATIENCE: Duration = Duration::from_secs(20);

/// Runs a worker to its end. Called with nothing else going on in the process.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let result = LocalSet::new().block_on(&runtime, work());
    // The standard input may be read in the background for ever.
    runtime.shutdown_background();
    result
}

async fn work() -> Result<()> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let line = input.next_line().await.context("read the plan")?;
    let plan: WorkerPlan =
        serde_json::from_str(&line.unwrap_or_default()).context("understand the plan")?;
    let set_up = tokio::select! {
        worker = Worker::set_up(plan) => worker,
        // The only order that can come now is to stop.
        _ = next_order(&mut input) => return say(&Said::Final(Box::default())),
    };
    let mut worker = match set_up {
        Ok(worker) => worker,
        Err(error) => {
            return say(&Said::Failed {
                problem: format!("{error:#}"),
            });
        }
    };
    say(&Said::Ready)?;
    worker.obey(&mut input).await
}

struct Worker {
    plan: WorkerPlan,
    shared: Rc<Shared>,
    /// By person.
    players: Vec<Vec<Player>>,
    /// For those who read history at the end.
    endpoint: Option<Endpoint>,
}

/// How a round ended.
enum RoundEnd {
    Complete,
    CutShort(String),
    /// Told to stop, or nobody listens any more.
    Stopped,
}

impl Worker {
    async fn set_up(plan: WorkerPlan) -> Result<Worker> {
        let base = &plan.doors.base_url;
        let api = match &plan.doors.root_pem {
            Some(pem) => Api::trusting(base, pem).context("trust the root certificate")?,
            None => Api::patient(base, HTTP_PATIENCE),
        };
        let shared = Shared::new(api, plan.scenario.check);
        let mut doors = Doors::new(plan.doors.clone()).await?;
        let mut players = Vec::with_capacity(plan.people.len());
        let mut endpoint = None;
        for person in &plan.people {
            let mut devices = Vec::with_capacity(person.devices.len());
            for device in &person.devices {
                let transport = plan.scenario.population.transport.of(device.number);
                let door = doors.endpoint(transport)?;
                endpoint.get_or_insert_with(|| door.clone());
                let login = login(person.user, device);
                if let Some(checker) = shared.checker.borrow_mut().as_mut() {
                    checker.add_device(login.user, login.device);
                }
                devices.push(Player::spawn(login, door, Rc::clone(&shared)));
            }
            players.push(devices);
        }
        if let Some(checker) = shared.checker.borrow_mut().as_mut() {
            for channel in &plan.channels {
                for member in &channel.members {
                    let user = UserId(plan.people[*member].user);
                    checker.add_member(ChannelId(channel.id), user, 1);
                }
            }
        }
        let worker = Worker {
            plan,
            shared,
            players,
            endpoint,
        };
        worker.wait_for_all().await?;
        worker.fill_channels().await?;
        Ok(worker)
    }

    fn devices(&self) -> usize {
        self.players.iter().map(Vec::len).sum()
    }

    async fn wait_for_all(&self) -> Result<()> {
        let devices = self.devices();
        let patience = SETUP_PATIENCE + SETUP_PATIENCE_PER_DEVICE * devices as u32;
        let deadline = Instant::now() + patience;
        let mut told = Instant::now();
        let is_there =
            |player: &Player| player.seat.is_connected.get() && player.seat.is_current.get();
        let mut nobody_since = Instant::now();
        while !self.players.iter().flatten().all(is_there) {
            let connected = self.shared.connected.get();
            if connected > 0 {
                nobody_since = Instant::now();
            }
            let why = self.shared.last_failure.borrow().clone();
            let why = why.unwrap_or_else(|| "no answer".to_owned());
            if Instant::now() > deadline {
                bail!(
                    "only {connected} of {devices} devices are connected after {patience:?}: {why}"
                );
            }
            if nobody_since.elapsed() > NOBODY_PATIENCE {
                bail!("no device can be connected: {why}");
            }
            self.tell_setup(&mut told)?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Puts messages into channels that begin with some.
    async fn fill_channels(&self) -> Result<()> {
        let mut wanted = 0;
        for channel in &self.plan.channels {
            if channel.stored == 0 {
                continue;
            }
            wanted += channel.stored as u64;
            let window = Window {
                size: STORE_WINDOW,
                batch: STORE_WINDOW / 2,
                payload_bytes: 100,
                left: Some(channel.stored),
                open: 0,
            };
            let first = &self.players[channel.members[0]][0];
            first.give(Do::Keep {
                channel: ChannelId(channel.id),
                window,
            });
        }
        let mut told = Instant::now();
        let mut progress = (Instant::now(), (0, 0));
        loop {
            let (stored, unsettled) = (self.shared.stored.get(), self.shared.unsettled.get());
            if stored >= wanted && unsettled == 0 && self.is_settled() {
                return Ok(());
            }
            if progress.1 != (stored, unsettled) {
                progress = (Instant::now(), (stored, unsettled));
            }
            if progress.0.elapsed() > STORE_PATIENCE {
                bail!(
                    "messages to begin with: {stored} of {wanted} sent, and {unsettled} without an answer"
                );
            }
            self.tell_setup(&mut told)?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Everything has its answer and everybody everything that they heard of.
    fn is_settled(&self) -> bool {
        self.players.iter().flatten().all(|player| {
            let seat = &player.seat;
            seat.unsettled.get() == 0 && seat.is_connected.get() && seat.is_current.get()
        })
    }

    fn tell_setup(&self, told: &mut Instant) -> Result<()> {
        if told.elapsed() > Duration::from_millis(500) {
            *told = Instant::now();
            say(&Said::Setup {
                connected: self.shared.connected.get(),
                stored: self.shared.stored.get(),
            })?;
        }
        Ok(())
    }

    async fn obey(&mut self, input: &mut Lines<BufReader<Stdin>>) -> Result<()> {
        loop {
            match next_order(input).await? {
                Some(Order::Go {
                    warm_up_s,
                    duration_s,
                    rate_factor,
                }) => {
                    let round = Round {
                        began: Instant::now(),
                        warm_up: Duration::from_secs_f64(warm_up_s),
                        duration: Duration::from_secs_f64(duration_s),
                        rate_factor,
                    };
                    if let RoundEnd::Stopped = self.play(round, input).await? {
                        return self.end_early();
                    }
                }
                Some(Order::Finish) => return self.end().await,
                Some(Order::Stop) | None => return self.end_early(),
            }
        }
    }

    /// Plays a round: warm-up, what is measured, and the wait for what is on the way.
    async fn play(
        &mut self,
        round: Round,
        input: &mut Lines<BufReader<Stdin>>,
    ) -> Result<RoundEnd> {
        let from = self.shared.now() + round.warm_up.as_nanos() as u64;
        let until = from + round.duration.as_nanos() as u64;
        self.shared.tally.borrow_mut().begin(from..until);
        self.shared.is_sending.set(true);
        let mut tasks = JoinSet::new();
        let crowd = Crowd {
            plan: &self.plan,
            players: &self.players,
            shared: &self.shared,
            round,
        };
        crowd.start(&mut tasks)?;
        let mut cpu = (generator_cpu(), Duration::ZERO, Duration::ZERO);
        let mut seconds = interval_at(round.began + Duration::from_secs(1), Duration::from_secs(1));
        let (mut second, mut second_cpu) = (0, generator_cpu());
        let mut nobody_since = None;
        let (measured, end) = (
            round.began + round.warm_up,
            round.began + round.warm_up + round.duration,
        );
        let ended = loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(measured), if cpu.1.is_zero() => cpu.1 = generator_cpu(),
                () = tokio::time::sleep_until(end) => break RoundEnd::Complete,
                order = next_order(input) => match order? {
                    Some(Order::Stop) | None => break RoundEnd::Stopped,
                    Some(_) => {}
                },
                _ = seconds.tick() => {
                    self.tell_second(second, &mut second_cpu)?;
                    second += 1;
                    if self.shared.connected.get() > 0 || self.devices() == 0 {
                        nobody_since = None;
                    }
                    let since = *nobody_since.get_or_insert_with(Instant::now);
                    if self.shared.connected.get() == 0 && since.elapsed() > NOBODY_PATIENCE {
                        let why = self.shared.last_failure.borrow().clone().unwrap_or_default();
                        break RoundEnd::CutShort(format!("no device can be connected any more: {why}"));
                    }
                }
            }
        };
        cpu.2 = generator_cpu();
        self.tell_second(second, &mut second_cpu)?;
        second += 1;
        seconds.reset();
        if let RoundEnd::Complete = ended {
            // What was due and not yet handed over: late, and must show as late.
            let rest = async { while tasks.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(HAND_OVER, rest).await;
        }
        // The trains end with their tasks.
        drop(tasks);
        self.shared.is_sending.set(false);
        if !matches!(ended, RoundEnd::Complete) {
            let now = self.shared.now();
            self.shared.tally.borrow_mut().cut_at(now);
        }
        let missing = match ended {
            RoundEnd::Complete => self.drain(second, seconds, &mut second_cpu).await?,
            _ => 0,
        };
        let unanswered = self
            .players
            .iter()
            .flatten()
            .map(|it| it.seat.unsettled.get())
            .sum();
        let mut phase = self.shared.tally.borrow_mut().phase(unanswered, missing);
        let cpu_from = if cpu.1.is_zero() { cpu.0 } else { cpu.1 };
        phase.cpu_us = cpu.2.saturating_sub(cpu_from).as_micros() as u64;
        if let RoundEnd::CutShort(why) = &ended {
            phase.cut_short = Some(why.clone());
        }
        say(&Said::Phase(Box::new(phase)))?;
        Ok(ended)
    }

    /// Waits for answers and deliveries that are on the way; gives what is still missing when patience ends.
    async fn drain(
        &self,
        mut second: u64,
        mut seconds: tokio::time::Interval,
        second_cpu: &mut Duration,
    ) -> Result<u64> {
        let deadline = Instant::now() + Duration::from_secs_f64(self.plan.scenario.time.drain_s);
        let players: Vec<&Player> = self.players.iter().flatten().collect();
        // Those before it lack nothing: nothing new is sent.
        let mut complete = 0;
        loop {
            if self.is_settled() {
                let lacks_nothing = |player: &&&Player| self.missing_at(player) == 0;
                complete += players[complete..].iter().take_while(lacks_nothing).count();
                if complete == players.len() {
                    return Ok(0);
                }
            }
            if Instant::now() > deadline {
                return Ok(players.iter().map(|player| self.missing_at(player)).sum());
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                _ = seconds.tick() => {
                    self.tell_second(second, second_cpu)?;
                    second += 1;
                }
            }
        }
    }

    /// Events that a device lacks, by the checker.
    fn missing_at(&self, player: &Player) -> u64 {
        let checker = self.shared.checker.borrow();
        checker
            .as_ref()
            .map_or(0, |it| it.missing_at(player.seat.device))
    }

    fn tell_second(&self, number: u64, cpu: &mut Duration) -> Result<()> {
        let mut second = self.shared.tally.borrow_mut().take_second();
        let now = generator_cpu();
        second.second = number;
        second.connected = self.shared.connected.get();
        second.cpu_us = now.saturating_sub(*cpu).as_micros() as u64;
        *cpu = now;
        say(&Said::Second(Box::new(second)))
    }

    /// Reads everything and judges.
    async fn end(&mut self) -> Result<()> {
        let (players, channels) = (&self.players, &self.plan.channels);
        let judged = match &self.endpoint {
            Some(endpoint) if self.plan.scenario.check => {
                match judge::judge(&self.shared, players, endpoint, channels).await {
                    Ok(judged) => judged,
                    Err(error) => {
                        say(&Said::Failed {
                            problem: format!("{error:#}"),
                        })?;
                        self.so_far()
                    }
                }
            }
            _ => self.so_far(),
        };
        self.shared.is_over.set(true);
        say(&Said::Final(Box::new(judged)))
    }

    fn end_early(&mut self) -> Result<()> {
        self.shared.is_over.set(true);
        say(&Said::Final(Box::new(self.so_far())))
    }

    fn so_far(&self) -> Judged {
        let checker = self.shared.checker.borrow_mut().take();
        checker.map_or_else(Judged::default, judge::so_far)
    }
}

fn login(user: u64, device: &DevicePlan) -> Login {
    Login {
        user: UserId(user),
        device: DeviceId(device.device),
        access_token: device.access_token.clone(),
        refresh_token: device.refresh_token.clone(),
    }
}

async fn next_order(input: &mut Lines<BufReader<Stdin>>) -> Result<Option<Order>> {
    match input.next_line().await.context("read an order")? {
        Some(line) => {
            let order = serde_json::from_str(&line).context("understand an order")?;
            Ok(Some(order))
        }
        None => Ok(None),
    }
}

/// One line; fails when nobody listens any more.
fn say(said: &Said) -> Result<()> {
    let mut line = serde_json::to_string(said).context("write it down")?;
    line.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .context("nobody listens")
}
