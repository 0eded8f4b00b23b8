//! Random schedules: a store under test against the memory model.
//!
//! Each schedule creates, joins, leaves, writes, marks, renames, pairs and erases at random, valid or not, in several
//! batches at once; crashes and restarts in between, also with appends that nobody has waited for; and compares every
//! answer with the model's. After such a crash any prefix of the unacknowledged records may be there, and the schedule
//! goes on from the one that is. One seed gives one schedule; a run that compared nothing fails.

use std::fmt;

use conch_wire::event::{ChannelKind, MemberRole};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Subject;
use super::compare::compare;
use super::script::{Change, Script};
use crate::memory::KEY_WINDOW_MS;
use crate::row::Record;

/// How large a schedule is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub seed: u64,
    /// Rounds of one to four batches each.
    pub rounds: usize,
    pub users: u64,
    pub channels: u64,
    /// Most records in one batch.
    pub batch_max: usize,
}

/// Sixteen small schedules and two long ones; or just the one of `STORE_SEED`.
pub async fn random_schedules_agree_with_the_model<S: Subject>(open: impl AsyncFn() -> S) {
    let asked = std::env::var("STORE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = asked.map_or_else(|| (1..=18).collect(), |seed: u64| vec![seed]);
    for seed in seeds {
        let shape = if seed % 9 == 0 {
            Shape {
                seed,
                rounds: 60,
                users: 12,
                channels: 4,
                batch_max: 120,
            }
        } else {
            Shape {
                seed,
                rounds: 50,
                users: 6,
                channels: 5,
                batch_max: 6,
            }
        };
        Box::pin(run_schedule(&open, shape)).await;
    }
}

struct Schedule {
    shape: Shape,
    random: StdRng,
    script: Script,
    /// What is acknowledged.
    records: Vec<Record>,
    compared: usize,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "STORE_SEED={} after {} records",
            self.shape.seed,
            self.records.len()
        )
    }
}

/// Runs one schedule to its end. Panics, with the seed, where the store and the model part.
pub async fn run_schedule<S: Subject>(open: &impl AsyncFn() -> S, shape: Shape) {
    let mut schedule = Schedule {
        shape,
        random: StdRng::seed_from_u64(shape.seed),
        script: Script::new(),
        records: Vec::new(),
        compared: 0,
    };
    let mut subject = open().await;
    for _ in 0..shape.rounds {
        let batches = schedule.batches();
        subject = match schedule.random.random_range(0..20) {
            0 => schedule.crash_unacknowledged(subject, batches).await,
            what => {
                schedule.append(&subject, batches).await;
                match what {
                    1 | 2 => schedule.compared_after(subject.crash().await).await,
                    3 => schedule.compared_after(subject.restart().await).await,
                    4..8 => schedule.compared_after(subject).await,
                    8..11 => {
                        subject.settle().await;
                        schedule.compared_after(subject).await
                    }
                    11 => {
                        subject.settle().await;
                        subject
                    }
                    _ => subject,
                }
            }
        };
    }
    let subject = schedule.compared_after(subject).await;
    schedule.compared_after(subject.crash().await).await;
    assert!(
        schedule.compared >= 3,
        "{schedule}: a schedule that compared nothing"
    );
}

impl Schedule {
    async fn append<S: Subject>(&mut self, subject: &S, batches: Vec<Vec<Record>>) {
        let store = subject.store();
        let mut waiting = Vec::new();
        let mut first = self.records.len() as u64 + 1;
        for batch in batches {
            self.records.extend(batch.clone());
            waiting.push((first, store.append(batch.clone())));
            first += batch.len() as u64;
        }
        for (first, appended) in waiting {
            let appended = appended.await.expect("a healthy store appends");
            assert_eq!(appended.first, first, "{self}");
        }
    }

    async fn compared_after<S: Subject>(&mut self, subject: S) -> S {
        if let Err(difference) = compare(&*subject.store(), &self.records).await {
            panic!("{self}: {difference}");
        }
        self.compared += 1;
        subject
    }

    async fn crash_unacknowledged<S: Subject>(
        &mut self,
        subject: S,
        batches: Vec<Vec<Record>>,
    ) -> S {
        let store = subject.store();
        let waiting: Vec<_> = batches
            .iter()
            .map(|batch| store.append(batch.clone()))
            .collect();
        drop(store);
        let subject = subject.crash().await;
        drop(waiting);
        let acknowledged = self.records.len();
        let mut found = [self.records.clone(), batches.concat()].concat();
        // An empty batch takes no place but tells the next one: a lost record that changes no answer is missed too.
        let next = subject.store().append(Vec::new()).await;
        found.truncate(next.expect("a healthy store appends").first as usize - 1);
        let mut differences = Vec::new();
        while let Err(difference) = compare(&*subject.store(), &found).await {
            differences.push(difference);
            assert!(
                found.len() > acknowledged,
                "{self}: no prefix is there: {differences:#?}"
            );
            found.pop();
        }
        self.script.continue_after(&found);
        self.records = found;
        self.compared += 1;
        subject
    }

    /// One to four batches that share no channel: a channel has one batch in flight.
    fn batches(&mut self) -> Vec<Vec<Record>> {
        let count = self.random.random_range(1..=4);
        (0..count)
            .map(|share| {
                let records = self.random.random_range(1..=self.shape.batch_max);
                (0..records).map(|_| self.record(share, count)).collect()
            })
            .collect()
    }

    fn user(&mut self) -> u64 {
        self.random.random_range(10..10 + self.shape.users)
    }

    fn record(&mut self, share: u64, shares: u64) -> Record {
        let channels = self.shape.channels.div_ceil(shares);
        let channel = 1 + share + shares * self.random.random_range(0..channels);
        let (one, other) = (self.user(), self.user());
        let head = self.script.head(channel);
        let what = self.random.random_range(0..100);
        if head == 0 && what < 80 {
            return self.creation(channel, one, other);
        }
        match what {
            0..55 if head > 0 => {
                if self.random.random_range(0..60) == 0 {
                    self.script.clock_ms += self.random.random_range(0..KEY_WINDOW_MS);
                }
                // Few enough keys that some come again, from the same sender and from others.
                let key = self.random.random_range(0..200);
                let text = "x".repeat(self.random.random_range(0..60));
                self.script.message(channel, one, key, &text)
            }
            55..61 if head > 0 => self.script.join(channel, one, other),
            61..66 if head > 0 => self.script.leave(channel, other),
            66..69 if head > 0 => {
                let change = Change::new()
                    .title(&format!("title {head}"))
                    .leave(one)
                    .join_as(other, MemberRole::Admin);
                self.script.change(channel, one, change)
            }
            69..71 if head > 0 => self.script.unknown(channel, one),
            71..86 => {
                let seq = self.random.random_range(0..=head);
                self.script.mark(channel, one, seq)
            }
            86..92 => {
                let seq = self.random.random_range(0..=head);
                self.script.erasure(channel, seq)
            }
            92..96 => self.script.pair(one, other, channel),
            _ => Record::IdBlock {
                space: self.random.random_range(0..3),
                end: self.random.random_range(0..1_000),
            },
        }
    }

    fn creation(&mut self, channel: u64, one: u64, other: u64) -> Record {
        match self.random.random_range(0..4) {
            0 if one != other => self.script.direct(channel, one, other),
            1 => {
                let change = Change::new().created(ChannelKind::SelfLog).join(one);
                self.script.change(channel, one, change)
            }
            _ => self
                .script
                .group(channel, &format!("group {channel}"), &[one, other]),
        }
    }
}
