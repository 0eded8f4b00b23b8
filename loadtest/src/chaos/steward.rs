//! Who is in which group: groups are made, people are added, removed and leave, all through HTTP while the node is killed.
//!
//! A change is repeated until its outcome is certain; then the checker hears of it, and compares it with the events of the
//! channel at the end. Person 0 makes the groups, owns them and stays. One change at a time, so that what a repeat finds
//! done already is its own earlier attempt's doing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use conch_wire::{ChannelId, UserId};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::json;
use tokio::sync::watch;

use super::{PASSWORD, handle};
use crate::checker::Change;
use crate::device::SharedChecker;
use crate::http::{Api, Call, HttpError};

/// Groups that it makes at most.
const GROUPS_MAX: usize = 12;
/// Pause before an attempt without a certain outcome is repeated.
const REPEAT: Duration = Duration::from_millis(50);
/// How long an answer may take; longer than the network ever swallows.
const ANSWER: Duration = Duration::from_secs(8);

/// The channels that a person talks in, as devices and steward share them.
pub(super) type Rooms = Arc<Mutex<Vec<ChannelId>>>;

/// A group with changing members.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) channel: ChannelId,
    /// Who is in now, by number.
    members: BTreeSet<usize>,
    /// Who ever was.
    pub(super) ever: BTreeSet<usize>,
}

pub(super) struct Steward {
    rng: StdRng,
    api: Api,
    checker: SharedChecker,
    users: Vec<UserId>,
    rooms: Vec<Rooms>,
    tokens: Vec<Option<String>>,
    groups: Vec<Group>,
    /// People who were put out and still talk there until the next change: their sends must be refused for good.
    ghosts: Vec<(usize, ChannelId)>,
}

/// One change of a group.
#[derive(Clone, Copy, Debug)]
enum Step {
    Make,
    Add { group: usize, person: usize },
    Remove { group: usize, person: usize },
    Leave { group: usize, person: usize },
}

impl Steward {
    pub(super) fn new(
        seed: u64,
        base_url: String,
        checker: SharedChecker,
        users: Vec<UserId>,
        rooms: Vec<Rooms>,
    ) -> Steward {
        Steward {
            rng: StdRng::seed_from_u64(seed),
            api: Api::patient(base_url, ANSWER),
            checker,
            tokens: vec![None; users.len()],
            users,
            rooms,
            groups: Vec::new(),
            ghosts: Vec::new(),
        }
    }

    /// Changes one thing after the other until `over`; gives the groups. What is begun is brought to its end.
    pub(super) async fn run(mut self, over: watch::Receiver<bool>) -> Result<Vec<Group>> {
        while !*over.borrow() {
            let pause = self.rng.random_range(100..900);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let step = self.draw();
            self.quiet_ghosts();
            self.make(step).await.with_context(|| format!("{step:?}"))?;
        }
        self.quiet_ghosts();
        Ok(self.groups)
    }

    fn draw(&mut self) -> Step {
        let wanted = self.rng.random_range(0..10);
        let may_make = self.groups.len() < GROUPS_MAX;
        if self.groups.is_empty() || (wanted == 0 && may_make) {
            return Step::Make;
        }
        let group = self.rng.random_range(0..self.groups.len());
        let members = &self.groups[group].members;
        let out = (1..self.users.len()).filter(|person| !members.contains(person));
        let inside = members.iter().copied().filter(|person| *person != 0);
        let person_out = out.choose(&mut self.rng);
        let person_in = inside.choose(&mut self.rng);
        match (person_out, person_in) {
            (Some(person), _) if wanted < 6 => Step::Add { group, person },
            (_, Some(person)) if wanted < 8 => Step::Remove { group, person },
            (_, Some(person)) => Step::Leave { group, person },
            (Some(person), None) => Step::Add { group, person },
            (None, None) => Step::Make,
        }
    }

    async fn make(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Make => {
                let members: BTreeSet<_> = (1..self.users.len())
                    .filter(|_| self.rng.random())
                    .chain([0])
                    .collect();
                let others: Vec<_> = members
                    .iter()
                    .filter(|person| **person != 0)
                    .map(|person| self.users[*person].to_string())
                    .collect();
                let key = format!("{:032x}", self.rng.random::<u128>());
                let body = json!({ "title": "moving", "members": others });
                let call = Call::post("/v1/channels", body).under(key);
                let answer = self.until_certain(0, call).await?;
                let channel = crate::http::channel_of(&answer)?;
                for person in &members {
                    self.enter(*person, channel);
                }
                self.groups.push(Group {
                    channel,
                    ever: members.clone(),
                    members,
                });
            }
            Step::Add { group, person } => {
                let channel = self.groups[group].channel;
                let path = format!("/v1/channels/{channel}/members");
                let body = json!({ "members": [self.users[person].to_string()] });
                self.until_certain(0, Call::post(path, body)).await?;
                self.confirm(channel, person, Change::Added);
                self.groups[group].members.insert(person);
                self.groups[group].ever.insert(person);
                self.enter(person, channel);
            }
            Step::Remove { group, person } => self.put_out(group, person, 0).await?,
            Step::Leave { group, person } => self.put_out(group, person, person).await?,
        }
        Ok(())
    }

    async fn put_out(&mut self, group: usize, person: usize, by: usize) -> Result<()> {
        let channel = self.groups[group].channel;
        let path = format!("/v1/channels/{channel}/members/{}", self.users[person]);
        self.until_certain(by, Call::delete(path)).await?;
        let change = if by == person {
            Change::Left
        } else {
            Change::Removed
        };
        self.confirm(channel, person, change);
        self.groups[group].members.remove(&person);
        self.ghosts.push((person, channel));
        Ok(())
    }

    fn confirm(&self, channel: ChannelId, person: usize, change: Change) {
        self.checker
            .lock()
            .expect("nobody panics while it reports")
            .changed(channel, self.users[person], change);
    }

    /// Repeats a call until it is done, by this attempt or an earlier one of which no answer came.
    async fn until_certain(&mut self, by: usize, call: Call) -> Result<serde_json::Value> {
        let mut is_repeat = false;
        loop {
            let token = self.token(by).await;
            match self.api.make(&call, &token).await {
                Ok(answer) => return Ok(answer),
                Err(HttpError::Problem { status: 401, .. }) => self.tokens[by] = None,
                // Somebody who is out cannot be put out again, or leave again.
                Err(HttpError::Problem {
                    status: 403 | 404, ..
                }) if is_repeat && call.method == Method::DELETE => {
                    return Ok(serde_json::Value::Null);
                }
                Err(HttpError::Problem {
                    status: 400..=428 | 430..=499,
                    code,
                    detail,
                }) => bail!("refused with {code}: {detail}"),
                // 429 and 5xx pass; what broke may have been done.
                Err(_) => is_repeat = true,
            }
            tokio::time::sleep(REPEAT).await;
        }
    }

    async fn token(&mut self, person: usize) -> String {
        loop {
            if let Some(token) = &self.tokens[person] {
                return token.clone();
            }
            match self.api.log_in(&handle(person), PASSWORD, "steward").await {
                Ok(login) => self.tokens[person] = Some(login.access_token),
                Err(_) => tokio::time::sleep(REPEAT).await,
            }
        }
    }

    fn enter(&self, person: usize, channel: ChannelId) {
        let mut rooms = lock(&self.rooms[person]);
        if !rooms.contains(&channel) {
            rooms.push(channel);
        }
    }

    fn quiet_ghosts(&mut self) {
        for (person, channel) in self.ghosts.drain(..) {
            lock(&self.rooms[person]).retain(|room| *room != channel);
        }
    }
}

fn lock(rooms: &Rooms) -> std::sync::MutexGuard<'_, Vec<ChannelId>> {
    rooms.lock().expect("nobody panics while it holds this")
}
