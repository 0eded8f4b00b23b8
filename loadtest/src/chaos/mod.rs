//! The kill proof: people chat while their node is killed again and again, and the checker judges.
//!
//! Several people with two devices each write into direct channels and groups. The node is killed with -9 at random
//! moments, at failpoints on the way of a message, and several times in a row while it starts. Devices vanish for
//! moments, send the same message from two devices at once, and move read marks. At the end the node runs undisturbed;
//! everything must settle, every device must be complete without another message, and all histories are read in full.
//!
//! The schedule of faults and of words is drawn from the seed, each consumer from a stream of its own; what the node
//! makes of it depends on the machine's timing, so a seed repeats the schedule, not the run. A node that ends for any other
//! reason than our kill fails the run.

mod fault;
mod report;
mod talk;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conch_wire::ChannelId;
use conch_wire::frame::{Hello, PushMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::App;
use crate::checker::{Checker, Observed};
use crate::device::{Device, DevicePlan, SharedChecker};
use crate::forward::Forward;
use crate::http::{Api, Login};
use crate::node::{Node, NodePlan};
use crate::raw::RawClient;
use fault::Fault;
pub use report::ChaosReport;
use talk::{Participant, Talker};

/// How a run goes.
#[derive(Clone, Debug)]
pub struct ChaosPlan {
    pub seed: u64,
    /// How long faults go on; settling and judging come behind.
    pub faults_for: Duration,
    /// Also end the faults after this many kills.
    pub kills_max: u64,
    /// People; each has two devices.
    pub people: usize,
    /// Mean pause of a device between two bursts of messages.
    pub pace: Duration,
    /// Folder for data and output.
    pub folder: PathBuf,
    /// The `conch` program must have failpoints; without them only random kills happen.
    pub failpoints: bool,
}

/// How long everything may take to settle once the node runs undisturbed.
const SETTLE: Duration = Duration::from_secs(60);
/// How long a node may live without dying at its failpoint before it is killed from outside.
const FAILPOINT_PATIENCE: Duration = Duration::from_millis(2_500);
/// More often than the protocol's 25 s, so that short runs see beats too.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A person: one login for each device that speaks the protocol itself.
struct Person {
    logins: Vec<Login>,
    channels: Vec<ChannelId>,
}

/// Runs the proof.
pub async fn run(plan: &ChaosPlan) -> Result<ChaosReport> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let node_plan = NodePlan::new(&plan.folder)?.config(crate::node::LIFTED_LIMITS)?;
    let node = node_plan.start().await.context("the first start")?;
    let checker: SharedChecker = Arc::new(Mutex::new(Checker::new()));
    let people = populate(&node, plan.people, &checker).await?;
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening.clone()).await?;
    let devices = start_devices(plan, &people, &checker, &listening, &forward).await?;
    let talkers: Vec<_> = devices
        .iter()
        .enumerate()
        .map(|(index, device)| {
            let channels = people[index / 2].channels.clone();
            let talker = Talker::new(rng.random(), index as u64, channels, plan.pace);
            tokio::spawn(talker.run(device.clone(), devices[index ^ 1].clone()))
        })
        .collect();

    let mut report = ChaosReport::new(plan.seed);
    let node = torment(plan, &node_plan, node, &endpoint, &mut rng, &mut report).await;
    for talker in &talkers {
        talker.abort();
    }
    let node = node?;
    for device in &devices {
        if let Participant::Sdk(app) = device {
            app.back().await;
        }
    }
    settle(&devices).await.with_context(|| node.output())?;
    read_everything(&node, &people, &checker).await?;
    complete(&devices, &checker).await;
    for device in &devices {
        match device {
            Participant::Plain(device) => report.count(device.tally()),
            Participant::Sdk(app) => report.count_app(app.shown(), app.failures()),
        }
    }
    drop(devices);
    node.terminate();
    report.took = began.elapsed();
    // Devices may be in the middle of a report; their handles are gone, their tasks end at the next await.
    let checker = std::mem::take(&mut *lock(&checker));
    report.verdict = Some(checker.verdict());
    Ok(report)
}

/// The people, their devices and channels, made through the HTTP API of an undisturbed node.
async fn populate(node: &Node, people: usize, checker: &SharedChecker) -> Result<Vec<Person>> {
    ensure!(people >= 2, "chatting takes two people");
    let api = Api::new(node.base_url());
    let mut persons = Vec::new();
    for index in 0..people {
        let mut logins = vec![api.sign_up(&handle(index), PASSWORD).await?];
        if index % 2 == 0 {
            logins.push(api.log_in(&handle(index), PASSWORD, "second").await?);
        }
        for login in &logins {
            lock(checker).add_device(login.user, login.device);
        }
        persons.push(Person {
            logins,
            channels: Vec::new(),
        });
    }
    for index in 0..people {
        let other = (index + 1) % people;
        if people == 2 && index == 1 {
            break;
        }
        let token = &persons[index].logins[0].access_token;
        let channel = api.direct(token, persons[other].logins[0].user).await?;
        join(&mut persons, checker, channel, &[index, other]);
    }
    let all: Vec<usize> = (0..people).collect();
    for members in [&all[..], &all[..people.div_ceil(2).max(2)]] {
        let users: Vec<_> = members[1..]
            .iter()
            .map(|index| persons[*index].logins[0].user)
            .collect();
        let token = &persons[0].logins[0].access_token;
        let channel = api.group(token, "chaos", &users).await?;
        join(&mut persons, checker, channel, members);
    }
    Ok(persons)
}

/// Handles and passwords exist only inside the run's own node.
const PASSWORD: &str = "correct horse battery";

fn handle(index: usize) -> String {
    format!("person{index}")
}

fn join(persons: &mut [Person], checker: &SharedChecker, channel: ChannelId, members: &[usize]) {
    for index in members {
        let person = &mut persons[*index];
        person.channels.push(channel);
        lock(checker).add_member(channel, person.logins[0].user, 1);
    }
}

/// Two devices for each person: one speaks the protocol itself; the other one does too, or is the SDK, in turn.
async fn start_devices(
    plan: &ChaosPlan,
    people: &[Person],
    checker: &SharedChecker,
    listening: &watch::Receiver<Option<String>>,
    forward: &Forward,
) -> Result<Vec<Participant>> {
    let mut devices = Vec::new();
    for (index, person) in people.iter().enumerate() {
        devices.push(plain(&person.logins[0], checker, listening));
        if let Some(second) = person.logins.get(1) {
            devices.push(plain(second, checker, listening));
            continue;
        }
        let folder = plan.folder.join(format!("sdk-{index}"));
        let app = App::start(
            &forward.base_url(),
            &folder,
            &handle(index),
            PASSWORD,
            Arc::clone(checker),
        )
        .await?;
        devices.push(Participant::Sdk(Arc::new(app)));
    }
    Ok(devices)
}

fn plain(
    login: &Login,
    checker: &SharedChecker,
    listening: &watch::Receiver<Option<String>>,
) -> Participant {
    let plan = DevicePlan {
        login: login.clone(),
        push: PushMode::All,
        heartbeat: HEARTBEAT,
        endpoint: listening.clone(),
    };
    Participant::Plain(Arc::new(Device::spawn(plan, Arc::clone(checker))))
}

/// Kills and starts the node until the time is up; gives the last, undisturbed life.
async fn torment(
    plan: &ChaosPlan,
    node_plan: &NodePlan,
    mut node: Node,
    endpoint: &watch::Sender<Option<String>>,
    rng: &mut StdRng,
    report: &mut ChaosReport,
) -> Result<Node> {
    let until = Instant::now() + plan.faults_for;
    // The first life was started without a fault: it is killed from outside.
    let mut fault = Fault::Random {
        after: Duration::from_millis(500),
    };
    loop {
        let over = Instant::now() >= until || report.kills() >= plan.kills_max;
        if over && fault.is_harmless() {
            return Ok(node);
        }
        if over {
            // This life may still die at its failpoint: the one that ends the run must not.
            fault = Fault::None;
        } else {
            die(&mut node, &fault, report).await?;
            fault = Fault::draw(rng, plan.failpoints);
        }
        endpoint.send_replace(None);
        node.kill();
        node = start(node_plan, &fault, rng, report).await?;
        endpoint.send_replace(Some(node.http().to_owned()));
    }
}

/// Waits for the death that the fault brings, or brings it.
async fn die(node: &mut Node, fault: &Fault, report: &mut ChaosReport) -> Result<()> {
    let patience = match fault {
        Fault::Random { after } => *after,
        _ => FAILPOINT_PATIENCE,
    };
    match node.ended(patience).await {
        Ok(status) if crate::node::was_killed(status) && fault.failpoint().is_some() => {
            report.killed(fault.name());
        }
        Ok(status) => bail!(
            "the node ended by itself: {status}, under {fault:?}\n{}",
            node.output()
        ),
        Err(_) => {
            node.signal(libc::SIGKILL);
            let status = node.ended(Duration::from_secs(10)).await?;
            ensure!(crate::node::was_killed(status), "it ended first: {status}");
            report.killed("random");
        }
    }
    Ok(())
}

/// Starts the node with the fault armed; deaths during the start are counted and followed by another start.
async fn start(
    node_plan: &NodePlan,
    fault: &Fault,
    rng: &mut StdRng,
    report: &mut ChaosReport,
) -> Result<Node> {
    let mut deaths = fault.deaths_at_start(rng);
    loop {
        if let Some(death) = deaths.pop() {
            let plan = death.arm(node_plan.clone());
            let starting = plan.spawn()?;
            if let Fault::Random { after } = death {
                tokio::time::sleep(after).await;
                starting.kill();
                report.killed("starting");
            } else {
                match starting.ready().await {
                    Ok(node) => {
                        node.kill();
                        report.killed("starting");
                    }
                    Err(crate::node::NodeError::EndedEarly { status, .. })
                        if crate::node::was_killed(status) =>
                    {
                        report.killed(death.name());
                    }
                    Err(other) => return Err(other.into()),
                }
            }
            continue;
        }
        match fault.arm(node_plan.clone()).spawn()?.ready().await {
            Ok(node) => {
                report.started(node.started_in);
                return Ok(node);
            }
            // The failpoint lies on the way of a start too.
            Err(crate::node::NodeError::EndedEarly { status, .. })
                if crate::node::was_killed(status) && fault.failpoint().is_some() =>
            {
                report.killed(fault.name());
                return Box::pin(start(node_plan, &Fault::None, rng, report)).await;
            }
            Err(other) => return Err(other.into()),
        }
    }
}

/// Every message that a person typed gets its final answer.
async fn settle(devices: &[Participant]) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let unsettled: usize = devices.iter().map(Participant::unsettled).sum();
        if unsettled == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{unsettled} messages have no answer after {SETTLE:?} of an undisturbed node"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every person reads every channel from its beginning, and all read marks.
async fn read_everything(node: &Node, people: &[Person], checker: &SharedChecker) -> Result<()> {
    let api = Api::new(node.base_url());
    for (index, person) in people.iter().enumerate() {
        // A device of its own: in a long run the first tokens have ended.
        let login = api.log_in(&handle(index), PASSWORD, "reader").await?;
        let hello = Hello {
            token: login.access_token.clone(),
            client: "conch-load history".to_owned(),
            credit_bytes: 0,
            push: PushMode::Opened,
            ..Hello::default()
        };
        let (mut client, _) = RawClient::open(node.http(), hello).await?;
        for channel in &person.channels {
            let page = client.full_history(*channel).await?;
            let events: Vec<_> = page.events.iter().map(Observed::of).collect();
            lock(checker).full_history(login.user, *channel, &events, page.head_seq);
        }
        let changes = client.first_changes().await?;
        for row in changes.rows {
            lock(checker).final_read_mark(login.user, row.head.channel, row.head.read_seq);
        }
    }
    Ok(())
}

/// Waits, without sending anything more, until every device was shown everything; the verdict tells if it was not.
async fn complete(devices: &[Participant], checker: &SharedChecker) {
    let deadline = Instant::now() + SETTLE;
    for device in devices {
        while lock(checker).missing_at(device.device()) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn lock(checker: &SharedChecker) -> std::sync::MutexGuard<'_, Checker> {
    checker.lock().expect("no device panics while it reports")
}
