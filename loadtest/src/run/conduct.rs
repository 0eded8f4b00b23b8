//! The course of a run: reach the node, make the people, start the workers, play, have it judged, report.
//!
//! Until the workers run, what goes wrong is an error. From then on everything ends in a report: the node's death, a worker's
//! death or silence, a Ctrl-C. Each wait has a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval, interval_at, sleep_until};

use super::assemble::Outcome;
use super::people;
use super::plans;
use super::population;
use super::processes::{Heard, Processes};
use super::progress::Progress;
use super::round::Round;
use super::search::RateSearch;
use super::series::Series;
use super::server::{Server, Target};
use super::wire::{Judged, Order, Said};
use crate::report::{Ended, Probe, Report, SearchFound};
use crate::scenario::{Latency, Scenario};

/// How long workers may be silent while they are getting ready.
const SETUP_SILENCE: Duration = Duration::from_secs(60);
/// How long a worker may take beyond the time it was given.
const GRACE: Duration = Duration::from_secs(15);
/// How long the final read of history may take.
const JUDGE_PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at the node's process.
const LOOK: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Clone, Debug)]
pub struct RunPlan {
    pub name: String,
    pub scenario: Scenario,
    pub target: Target,
    /// Worker processes; `None`: as many as the devices need, and half of the cores.
    pub workers: Option<usize>,
}

/// Runs it. An error: it could not be begun.
pub async fn run(plan: &RunPlan) -> Result<Report> {
    let mut interrupts = Interrupts::new()?;
    let progress = Progress::new();
    let started_at = jiff::Timestamp::now().to_string();
    let scenario = &plan.scenario;
    let prefix = people::prefix();
    let setup = async {
        let server = Server::reach(&plan.target, scenario).await?;
        plans::enough_descriptors(plan)?;
        let layout = population::channels(scenario);
        let people = people::sign_up(&server.api, scenario, &prefix, &progress).await?;
        let channels = people::make_channels(&server.api, &people, &layout, &progress).await?;
        let channels = channels.iter().map(|it| it.0).collect();
        Ok::<_, anyhow::Error>((server, layout, people, channels))
    };
    let (server, layout, people, channels) = tokio::select! {
        made = setup => made?,
        () = interrupts.next() => bail!("interrupted before anything was measured"),
    };
    let plans = plans::cut(plan, &server, &layout, &people, channels)?;
    let processes = Processes::start(&plans).await?;
    let mut conductor = Conductor {
        scenario,
        workers: plans.iter().map(plans::devices_of).collect(),
        processes,
        server,
        progress,
        interrupts,
        trouble: None,
        judged: BTreeMap::new(),
        gone: BTreeSet::new(),
    };
    let played = conductor.play_all().await;
    conductor.progress.end();
    let outcome = Outcome {
        plan,
        started_at,
        prefix: &prefix,
        server: &conductor.server,
        workers: &conductor.workers,
        ended: conductor.trouble.clone().unwrap_or(Ended::Complete),
        round: played.round,
        search: played.search,
        judged: &conductor.judged,
    };
    Ok(outcome.report())
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Interrupts> {
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt()).context("listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What was played: the round that is reported, and the search before it.
struct Played {
    round: Round,
    search: Option<SearchFound>,
}

struct Conductor<'a> {
    scenario: &'a Scenario,
    /// Devices of each worker.
    workers: Vec<usize>,
    processes: Processes,
    server: Server,
    progress: Progress,
    interrupts: Interrupts,
    /// The first thing that went wrong.
    trouble: Option<Ended>,
    judged: BTreeMap<usize, Judged>,
    /// Workers whose output ended.
    gone: BTreeSet<usize>,
}

impl Conductor<'_> {
    async fn play_all(&mut self) -> Played {
        let mut played = Played {
            round: Round::default(),
            search: None,
        };
        self.progress.step("the workers connect");
        self.wait_until_ready().await;
        let mut factor = Some(1.0);
        if self.scenario.search.is_some() && self.trouble.is_none() {
            let (search, round, best) = self.search().await;
            played.search = Some(search);
            played.round = round;
            factor = best;
        }
        if let Some(factor) = factor.filter(|_| self.trouble.is_none()) {
            let time = &self.scenario.time;
            self.progress.step("all are connected");
            played.round = self.round(time.warm_up_s, time.duration_s, factor).await;
        }
        self.judge().await;
        played
    }

    /// The highest rate: what is reported is a whole round at it. The last probe stands if there is none.
    async fn search(&mut self) -> (SearchFound, Round, Option<f64>) {
        let mut found = SearchFound::default();
        let mut last = Round::default();
        let Some(search) = &self.scenario.search else {
            return (found, last, None);
        };
        let first = self.scenario.send.iter().find_map(|send| send.rate);
        let first = first.unwrap_or(1.0);
        let mut rates = RateSearch::new(first, search.rate_max, search.precision);
        let warm_up_s = self.scenario.time.warm_up_s.min(3.0);
        while let Some(rate) = rates.next() {
            self.progress
                .step(&format!("probe at {} messages per second", rate.round()));
            last = self.round(warm_up_s, search.probe_s, rate / first).await;
            if self.trouble.is_some() {
                break;
            }
            let (latencies, counts) = last.sum();
            let of = match search.of {
                Latency::Ack => &latencies.ack_us,
                Latency::Delivery => &latencies.delivery_us,
            };
            let p99_us = of.at_us(0.99);
            let mut broke = last.invalid(self.scenario);
            if p99_us as f64 > search.p99_ms * 1e3 {
                broke.push(format!("p99 above {} ms", search.p99_ms));
            }
            if of.count() == 0 || counts.unanswered + counts.missing > 0 {
                broke.push("not everything came".to_owned());
            }
            let errors: u64 = last.phases.values().flat_map(|it| it.errors.values()).sum();
            if errors > 0 {
                broke.push(format!("{errors} errors"));
            }
            rates.told(broke.is_empty());
            found.probes.push(Probe {
                rate,
                p99_us,
                broke,
            });
        }
        found.rate = rates.found();
        (found, last, rates.found().map(|rate| rate / first))
    }

    async fn wait_until_ready(&mut self) {
        let mut ready = 0;
        let mut heard_at = Instant::now();
        let mut look = interval(LOOK);
        let mut connected: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
        let all: usize = self.workers.iter().sum();
        while ready < self.processes.count() && self.trouble.is_none() {
            tokio::select! {
                heard = self.processes.next() => {
                    heard_at = Instant::now();
                    match heard {
                        Some((_, Heard::Said(Said::Ready))) => ready += 1,
                        Some((worker, Heard::Said(Said::Setup { connected: now, stored }))) => {
                            connected.insert(worker, (now, stored));
                            let now: usize = connected.values().map(|it| it.0).sum();
                            let stored: u64 = connected.values().map(|it| it.1).sum();
                            if stored == 0 {
                                self.progress.setup("devices connected", now as u64, all as u64);
                            } else {
                                let stored = format!("devices connected, {stored} messages stored");
                                self.progress.setup(&stored, now as u64, all as u64);
                            }
                        }
                        other => self.on_unexpected(other),
                    }
                }
                _ = look.tick() => {
                    self.look_at_server();
                    if heard_at.elapsed() > SETUP_SILENCE {
                        let why = "no worker said anything for a minute while it got ready";
                        self.fail(Ended::WorkerFailed(why.to_owned()));
                    }
                }
                () = self.interrupts.next() => self.fail(Ended::Interrupted),
            }
        }
    }

    /// Plays a round in all workers. With trouble, workers are told to stop, and what they have is taken.
    async fn round(&mut self, warm_up_s: f64, duration_s: f64, rate_factor: f64) -> Round {
        let order = Order::Go {
            warm_up_s,
            duration_s,
            rate_factor,
        };
        self.processes.give(order).await;
        let mut round = Round::default();
        let mut series = Series::new(self.processes.count(), warm_up_s, duration_s);
        let began = Instant::now();
        let measured = began + Duration::from_secs_f64(warm_up_s);
        let end = measured + Duration::from_secs_f64(duration_s);
        let drain = Duration::from_secs_f64(self.scenario.time.drain_s);
        let mut deadline = end + drain + GRACE;
        let mut seconds = interval(Duration::from_secs(1));
        let mut look = interval_at(began + LOOK, LOOK);
        let (mut cpu_before, mut cpu_after) = (None, None);
        while self.waits_for_some(|worker| round.phases.contains_key(&worker)) {
            tokio::select! {
                heard = self.processes.next() => match heard {
                    Some((_, Heard::Said(Said::Second(second)))) => {
                        if let Some(moment) = series.told(&second) {
                            self.progress.moment(&moment);
                        }
                    }
                    Some((worker, Heard::Said(Said::Phase(phase)))) => {
                        if let Some(why) = phase.cut_short.clone() {
                            self.fail(Ended::ServerFailed(why));
                        }
                        round.phases.insert(worker, *phase);
                    }
                    None => break,
                    other => self.on_unexpected(other),
                },
                _ = seconds.tick() => series.sample(self.server.sample()),
                () = sleep_until(measured), if cpu_before.is_none() => {
                    cpu_before = Some(self.server.sample());
                }
                () = sleep_until(end), if cpu_after.is_none() => {
                    cpu_after = Some(self.server.sample());
                }
                _ = look.tick() => self.look_at_server(),
                () = self.interrupts.next() => self.fail(Ended::Interrupted),
                () = sleep_until(deadline) => {
                    let why = "a worker did not end its round in time".to_owned();
                    self.fail(Ended::WorkerFailed(why));
                    break;
                }
            }
            if self.trouble.is_some() && deadline > Instant::now() + GRACE {
                // What the workers have is taken, and not waited for long.
                self.processes.give(Order::Stop).await;
                cpu_after.get_or_insert_with(|| self.server.sample());
                deadline = Instant::now() + GRACE;
            }
        }
        // The last worker may have been quicker than this clock.
        series.sample(self.server.sample());
        cpu_after.get_or_insert_with(|| self.server.sample());
        round.rows = series.rows();
        let in_time = cpu_before.flatten().zip(cpu_after.flatten());
        round.server = in_time.map(|((before, _), (after, rss))| {
            let rows = round.rows.iter().filter_map(|row| row.server_rss_bytes);
            (
                after.saturating_sub(before),
                rows.max().unwrap_or(0).max(rss),
            )
        });
        round
    }

    /// Has everything read and compared; after trouble, only what was found so far.
    async fn judge(&mut self) {
        let is_whole = self.trouble.is_none();
        if is_whole {
            self.progress.step(if self.scenario.check {
                "history is read and compared"
            } else {
                "the workers end"
            });
        }
        let order = if is_whole { Order::Finish } else { Order::Stop };
        self.processes.give(order).await;
        let patience = if is_whole { JUDGE_PATIENCE } else { GRACE };
        let mut deadline = Instant::now() + patience;
        let mut look = interval(LOOK);
        while self.waits_for_some(|worker| self.judged.contains_key(&worker)) {
            tokio::select! {
                heard = self.processes.next() => match heard {
                    Some((worker, Heard::Said(Said::Final(judged)))) => {
                        self.judged.insert(worker, *judged);
                    }
                    Some((_, Heard::Said(Said::Second(_) | Said::Phase(_) | Said::Setup { .. } | Said::Ready))) => {}
                    None => break,
                    other => self.on_unexpected(other),
                },
                _ = look.tick() => self.look_at_server(),
                () = self.interrupts.next() => self.fail(Ended::Interrupted),
                () = sleep_until(deadline) => {
                    let why = "a worker did not finish in time".to_owned();
                    self.fail(Ended::WorkerFailed(why));
                    return;
                }
            }
            if self.trouble.is_some() && deadline > Instant::now() + GRACE {
                self.processes.give(Order::Stop).await;
                deadline = Instant::now() + GRACE;
            }
        }
    }

    /// Whether there is a worker that runs and has not done it.
    fn waits_for_some(&self, has_done: impl Fn(usize) -> bool) -> bool {
        (0..self.processes.count()).any(|worker| !has_done(worker) && !self.gone.contains(&worker))
    }

    fn look_at_server(&mut self) {
        if self.trouble.is_none()
            && let Some(death) = self.server.death()
        {
            self.fail(Ended::ServerFailed(death));
        }
    }

    fn on_unexpected(&mut self, heard: Option<(usize, Heard)>) {
        let why = match heard {
            Some((_, Heard::Said(Said::Failed { problem }))) => {
                // Its last word: what it could not do with the node.
                self.fail(Ended::ServerFailed(problem));
                return;
            }
            Some((worker, Heard::Said(Said::Final(judged)))) => {
                self.judged.insert(worker, *judged);
                return;
            }
            Some((worker, Heard::Ended(status))) => {
                self.gone.insert(worker);
                if self.judged.contains_key(&worker) {
                    return;
                }
                let status = status.map_or_else(String::new, |status| format!(": {status}"));
                format!("worker {worker} ended in the middle of it{status}")
            }
            Some((worker, Heard::Nonsense(what))) => {
                format!("worker {worker} said what no worker says: {what}")
            }
            Some((_, Heard::Said(_))) => return,
            None => "all workers ended in the middle of it".to_owned(),
        };
        self.fail(Ended::WorkerFailed(why));
    }

    fn fail(&mut self, ended: Ended) {
        self.trouble.get_or_insert(ended);
    }
}
