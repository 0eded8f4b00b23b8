//! Many people in groups, and their connections at rest: sessions that know their channels and keep the protocol's beats.
//!
//! [`Population`] is made once over HTTP and lives in a node's data folder; [`Crowd`] holds connections of it open. Each
//! connection is a session that opened all channels of its person by HELLO, as a device does that shows them, and from
//! then on pings every [`HEARTBEAT`] and grants credit for what it receives. Bounds: what the caller asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_wire::frame::{Cursor, Hello, PushMode};
use conch_wire::{ChannelId, ServerFrame, limits};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::http::{Api, Login};
use crate::patience::patiently;
use crate::raw::{Endpoint, RawClient, RawError};

/// People who share their channels with each other.
const CELL: usize = 20;
/// Calls to the HTTP API, and connections, under way at once.
const AT_ONCE: usize = 16;
/// Attempts at a connection.
const ATTEMPTS: usize = 4;
/// Between two pings of a connection.
const HEARTBEAT: Duration = Duration::from_millis(limits::HEARTBEAT_MS as u64);
/// Exists only inside the run's own node.
const PASSWORD: &str = "correct horse battery";

/// A person and the channels that they are in.
#[derive(Clone, Debug)]
pub struct Person {
    pub login: Login,
    pub channels: Arc<[ChannelId]>,
}

/// People in groups of [`CELL`].
#[derive(Clone, Debug)]
pub struct Population {
    pub people: Vec<Person>,
}

impl Population {
    /// Signs `count` people up, each in `channels` groups.
    pub async fn make(api: &Api, count: usize, channels: usize) -> Result<Population> {
        let logins: Vec<Login> = stream::iter(0..count)
            .map(|index| async move {
                let handle = format!("crowd{index}");
                patiently(|| api.sign_up(&handle, PASSWORD)).await
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .context("sign the crowd up")?;
        let mut people = Vec::with_capacity(count);
        for cell in logins.chunks(CELL) {
            let groups: Vec<ChannelId> = stream::iter(0..channels)
                .map(|index| {
                    let by = index % cell.len();
                    let others = cell.iter().filter(|it| it.user != cell[by].user);
                    let others: Vec<_> = others.map(|it| it.user).collect();
                    let title = format!("group {index}");
                    async move { api.group(&cell[by].access_token, &title, &others).await }
                })
                .buffered(AT_ONCE)
                .try_collect()
                .await
                .context("make the crowd's groups")?;
            let groups: Arc<[ChannelId]> = groups.into();
            people.extend(cell.iter().map(|login| Person {
                login: login.clone(),
                channels: Arc::clone(&groups),
            }));
        }
        Ok(Population { people })
    }

    /// Fresh access tokens for everybody: a run may be longer than one lasts.
    pub async fn refresh(&mut self, api: &Api) -> Result<()> {
        let fresh: Vec<Login> = stream::iter(&self.people)
            .map(|person| api.refresh(&person.login))
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .context("refresh the crowd's tokens")?;
        for (person, login) in self.people.iter_mut().zip(fresh) {
            person.login = login;
        }
        Ok(())
    }
}

/// Connections at rest. Dropping it drops them.
#[derive(Debug)]
pub struct Crowd {
    endpoint: Endpoint,
    people: Vec<Person>,
    open: usize,
    lost: Arc<AtomicUsize>,
    resting: JoinSet<()>,
}

impl Crowd {
    /// Nobody yet. Connections are spread over the people in turn.
    pub fn new(endpoint: Endpoint, population: &Population) -> Crowd {
        Crowd {
            endpoint,
            people: population.people.clone(),
            open: 0,
            lost: Arc::default(),
            resting: JoinSet::new(),
        }
    }

    /// Opens connections until there are `wanted`.
    pub async fn grow(&mut self, wanted: usize) -> Result<()> {
        let (endpoint, people) = (&self.endpoint, &self.people);
        let mut opened = stream::iter(self.open..wanted)
            .map(|index| open(endpoint, &people[index % people.len()]))
            .buffer_unordered(AT_ONCE);
        while let Some(client) = opened.next().await {
            let client = client.with_context(|| format!("open connection {}", self.open + 1))?;
            self.resting.spawn(rest(client, Arc::clone(&self.lost)));
            self.open += 1;
        }
        self.check()
    }

    /// Connections that are open.
    pub fn len(&self) -> usize {
        self.open
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// A connection that ended would make every figure of the crowd wrong.
    pub fn check(&self) -> Result<()> {
        let lost = self.lost.load(Ordering::Relaxed);
        ensure!(lost == 0, "{lost} of {} connections were lost", self.open);
        Ok(())
    }
}

/// Opens one connection; again when a handshake took too long, as on a machine that has other work.
async fn open(endpoint: &Endpoint, person: &Person) -> Result<RawClient> {
    for _ in 1..ATTEMPTS {
        match try_open(endpoint, person).await {
            Err(error) if matches!(error.downcast_ref(), Some(RawError::Timeout(_))) => {}
            opened => return opened,
        }
    }
    try_open(endpoint, person).await
}

async fn try_open(endpoint: &Endpoint, person: &Person) -> Result<RawClient> {
    let cursors = person.channels.iter().zip(1..);
    let hello = Hello {
        token: person.login.access_token.clone(),
        client: "conch-load".to_owned(),
        credit_bytes: limits::CREDIT_BYTES,
        push: PushMode::All,
        cursors: cursors
            .map(|(&channel, alias)| Cursor {
                channel,
                generation: 0,
                seq: 0,
                alias,
            })
            .collect(),
        ..Hello::default()
    };
    let (mut client, _) = RawClient::open_at(endpoint, hello).await?;
    // It comes behind every CHANNEL_OPENED of HELLO.
    client.first_changes().await?;
    let mut opened = 0;
    while let Some(received) = client.try_recv() {
        opened += usize::from(matches!(received.frame, ServerFrame::ChannelOpened { .. }));
    }
    ensure!(
        opened == person.channels.len(),
        "{opened} of {} channels were opened",
        person.channels.len()
    );
    client.ping().await?;
    Ok(client)
}

/// Takes what comes, and pings.
async fn rest(mut client: RawClient, lost: Arc<AtomicUsize>) {
    let mut used = 0;
    // The first beat at a place of its own: not all of them together for ever.
    let mut beat = Instant::now() + HEARTBEAT.mul_f64(rand::random_range(0.0..1.0));
    let ended = async {
        loop {
            match client.recv_until(beat).await? {
                Some(received) => used += received.wire_bytes,
                None => {
                    client.ping().await?;
                    beat = Instant::now() + HEARTBEAT;
                }
            }
            if used > limits::CREDIT_BYTES / 4 {
                client.grant(std::mem::take(&mut used)).await?;
            }
        }
    };
    let ended: Result<(), RawError> = ended.await;
    if ended.is_err() {
        lost.fetch_add(1, Ordering::Relaxed);
    }
}
