//! The kill proof: people chat while their node is killed again and again, and the checker judges.
//!
//! Several people with two devices each, half of all devices on each transport, write into direct channels and groups. The
//! node is killed with -9 at random moments, at failpoints on the way of a message, and several times in a row while it
//! starts. Everything passes a bad network ([`weather`]): loss, delay, repetition, holes, resets, changed addresses.
//! Devices vanish for moments, send the same message from two devices at once, and move read marks. Groups are made, and
//! people added, removed and leave, all the while ([`steward`]). At the end the node runs undisturbed; everything must settle,
//! every device must be complete without another message, and all histories are read in full.
//!
//! The schedule of faults and of words is drawn from the seed, each consumer from a stream of its own; what the node
//! makes of it depends on the machine's timing, so a seed repeats the schedule, not the run. A node that ends for any other
//! reason than our kill fails the run.

mod fault;
mod report;
mod steward;
mod talk;
mod weather;

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

use crate::app::AppPlan;
use crate::bad_network::BadNetwork;
use crate::checker::{Checker, Observed};
use crate::device::{Device, DevicePlan, SharedChecker};
use crate::http::{Api, Login};
use crate::node::{Node, NodePlan};
use crate::raw::{Doors, RawClient, Transport};
use crate::stop::Stop;
use fault::Fault;
pub use report::ChaosReport;
use steward::{Group, Rooms, Steward};
use talk::{Participant, Talker};
use weather::{Storms, Weather};

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
    /// Share of datagrams lost, and of chunks of TCP that stall, 0 to 1. 0 leaves the network alone altogether.
    pub loss: f64,
    /// Half of the devices are on QUIC.
    pub quic: bool,
}

/// Where the proxies listen.
const HOST: [u8; 2] = [0, 2];
/// How long everything may take to settle once node and network are undisturbed: an SDK that sits on a dead connection
/// notices after the protocol's 45 s of silence.
const SETTLE: Duration = Duration::from_secs(90);
/// Connections are left half open only in runs that are longer: in a shorter one those devices would prove nothing.
const HALF_OPEN_RUNS: Duration = Duration::from_secs(120);
/// How long another program's socket may sit on the port that the node comes back to.
const PORT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a node may live without dying at its failpoint before it is killed from outside.
const FAILPOINT_PATIENCE: Duration = Duration::from_millis(2_500);
/// More often than the protocol's 25 s, so that short runs see beats too; and silence in proportion.
const HEARTBEAT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(8);

/// A person: one login for each device that speaks the protocol itself.
struct Person {
    logins: Vec<Login>,
    /// Channels whose members stay.
    channels: Vec<ChannelId>,
    /// Where the devices talk: those, and groups that come and go.
    rooms: Rooms,
}

/// Runs the proof. When `stop` is wished the faults end early; settling and judging come as ever.
pub async fn run(plan: &ChaosPlan, stop: &Stop) -> Result<ChaosReport> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut node_plan = NodePlan::new(&plan.folder)?
        .config(crate::node::LIFTED_LIMITS)?
        .in_own_group();
    if plan.quic {
        node_plan = node_plan.with_quic();
    }
    let node = node_plan.start().await.context("the first start")?;
    node_plan.quic = node.ready().quic.clone();
    let network = BadNetwork::start(HOST, plan.seed, weather::profile(plan.loss), &node).await?;
    let checker: SharedChecker = Arc::new(Mutex::new(Checker::new()));
    let people = populate(&node, plan.people, &checker).await?;
    let (doors, open_doors) = watch::channel(Some(network.lead_to(&node)?));
    let mut report = ChaosReport::new(plan);
    let devices = start_devices(plan, &people, &checker, &open_doors, &network).await?;
    let (over, is_over) = watch::channel(false);
    let talkers: Vec<_> = devices
        .iter()
        .enumerate()
        .map(|(index, (device, _))| {
            let rooms = Arc::clone(&people[index / 2].rooms);
            let talker = Talker::new(rng.random(), index as u64, rooms, plan.pace);
            let twin = devices[index ^ 1].0.clone();
            tokio::spawn(talker.run(device.clone(), twin, is_over.clone()))
        })
        .collect();
    let steward = Steward::new(
        rng.random(),
        network.base_url(),
        Arc::clone(&checker),
        people.iter().map(|it| it.logins[0].user).collect(),
        people.iter().map(|it| Arc::clone(&it.rooms)).collect(),
    );
    let mut steward = tokio::spawn(steward.run(is_over));

    let (storms, storms_seen) = watch::channel(Storms::default());
    let weather = Weather::new(rng.random(), plan.faults_for > HALF_OPEN_RUNS);
    let outside = Outside {
        plan,
        node_plan: &node_plan,
        network: &network,
        doors: &doors,
        stop,
    };
    let node = tokio::select! {
        node = outside.torment(node, &mut rng, &mut report) => node?,
        () = weather.rage(&network, &storms), if plan.loss > 0.0 => bail!("the weather never ends"),
        ended = &mut steward => {
            bail!("the steward gave up: {:?}", ended.map(|it| it.map(|_| ())));
        }
    };
    // Loss and delay go on.
    network.proxies().for_each(conch_impair::Proxy::heal);
    over.send_replace(true);
    for talker in talkers {
        tokio::time::timeout(SETTLE, talker)
            .await
            .context("somebody never ended a sentence")??;
    }
    let groups = tokio::time::timeout(SETTLE, steward)
        .await
        .context("a change of membership found no end")???;
    for (device, _) in &devices {
        if let Participant::Sdk(app) = device {
            app.back().await;
        }
    }
    settle(&devices).await.with_context(|| node.output())?;
    read_everything(&node, &people, &groups, &checker).await?;
    complete(&devices, &checker).await;
    for (device, transport) in &devices {
        match device {
            Participant::Plain(device) => report.count(*transport, device.tally()),
            Participant::Sdk(app) => report.count_app(*transport, app.tally()),
        }
    }
    drop(devices);
    node.terminate();
    report.storms = *storms_seen.borrow();
    report.network = Some(network.seen());
    report.groups = groups.len();
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
            rooms: Rooms::default(),
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
        person
            .rooms
            .lock()
            .expect("nobody panics while it holds this")
            .push(channel);
        lock(checker).add_member(channel, person.logins[0].user, 1);
    }
}

/// Two devices for each person: one speaks the protocol itself; the other one does too, or is the SDK, in turn. A person's
/// devices are on different transports.
async fn start_devices(
    plan: &ChaosPlan,
    people: &[Person],
    checker: &SharedChecker,
    doors: &watch::Receiver<Option<Doors>>,
    network: &BadNetwork,
) -> Result<Vec<(Participant, Transport)>> {
    let mut devices = Vec::new();
    for (index, person) in people.iter().enumerate() {
        let transports = transports(index, plan.quic);
        let plain = |login: &Login, transport| {
            let plan = DevicePlan {
                login: login.clone(),
                push: PushMode::All,
                heartbeat: HEARTBEAT,
                silence: SILENCE,
                transport,
                doors: doors.clone(),
            };
            Participant::Plain(Arc::new(Device::spawn(plan, Arc::clone(checker))))
        };
        devices.push((plain(&person.logins[0], transports[0]), transports[0]));
        let second = match person.logins.get(1) {
            Some(login) => plain(login, transports[1]),
            None => {
                let folder = plan.folder.join(format!("sdk-{index}"));
                let app = AppPlan {
                    endpoint: network.base_url(),
                    folder,
                    transport: transports[1],
                };
                let app = app
                    .start(&handle(index), PASSWORD, Arc::clone(checker))
                    .await?;
                Participant::Sdk(Arc::new(app))
            }
        };
        devices.push((second, transports[1]));
    }
    Ok(devices)
}

/// The transports of a person's devices. The order turns every two people, so that both kinds of device (the second one of
/// every other person is the SDK) come on both.
fn transports(person: usize, quic: bool) -> [Transport; 2] {
    match (quic, person % 4 < 2) {
        (false, _) => [Transport::WebSocket; 2],
        (true, true) => [Transport::WebSocket, Transport::Quic],
        (true, false) => [Transport::Quic, Transport::WebSocket],
    }
}

/// What the killing needs to know of the run.
struct Outside<'a> {
    plan: &'a ChaosPlan,
    node_plan: &'a NodePlan,
    network: &'a BadNetwork,
    doors: &'a watch::Sender<Option<Doors>>,
    stop: &'a Stop,
}

impl Outside<'_> {
    /// Kills and starts the node until the time is up; gives the last, undisturbed life.
    async fn torment(
        &self,
        mut node: Node,
        rng: &mut StdRng,
        report: &mut ChaosReport,
    ) -> Result<Node> {
        let until = Instant::now() + self.plan.faults_for;
        // The first life was started without a fault: it is killed from outside.
        let mut fault = Fault::Random {
            after: Duration::from_millis(500),
        };
        loop {
            report.ended_early |= self.stop.is_wished();
            let over = Instant::now() >= until
                || report.kills() >= self.plan.kills_max
                || report.ended_early;
            if over && fault.is_harmless() {
                return Ok(node);
            }
            if over {
                // This life may still die at its failpoint: the one that ends the run must not.
                fault = Fault::None;
            } else {
                die(&mut node, &fault, report).await?;
                fault = Fault::draw(rng, self.plan.failpoints);
            }
            self.doors.send_replace(None);
            self.network.lead_nowhere();
            node.kill();
            node = start(self.node_plan, &fault, rng, report).await?;
            self.doors.send_replace(Some(self.network.lead_to(&node)?));
        }
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
                    Err(error) if is_port_taken(&error) => deaths.push(death),
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
        match ready(&fault.arm(node_plan.clone())).await {
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

/// Starts a node that comes back to a port of its own, which another socket may have got meanwhile: that one's end is
/// waited for.
async fn ready(plan: &NodePlan) -> Result<Node, crate::node::NodeError> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match plan.spawn()?.ready().await {
            Err(error) if is_port_taken(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return result,
        }
    }
}

fn is_port_taken(error: &crate::node::NodeError) -> bool {
    matches!(error, crate::node::NodeError::EndedEarly { stderr, .. } if stderr.contains("in use"))
}

/// Every message that a person typed gets its final answer.
async fn settle(devices: &[(Participant, Transport)]) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let unsettled: usize = devices.iter().map(|(it, _)| it.unsettled()).sum();
        if unsettled == 0 {
            return Ok(());
        }
        let by_device = || {
            let waiting = devices.iter().filter(|(it, _)| it.unsettled() > 0);
            waiting
                .map(|(it, transport)| format!("{} on {transport}: {}", it.name(), it.unsettled()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        ensure!(
            Instant::now() < deadline,
            "{unsettled} messages have no answer after {SETTLE:?} of an undisturbed node: {}",
            by_device()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every person reads every channel from its beginning, and all read marks.
async fn read_everything(
    node: &Node,
    people: &[Person],
    groups: &[Group],
    checker: &SharedChecker,
) -> Result<()> {
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
        let theirs = groups.iter().filter(|group| group.ever.contains(&index));
        let channels: Vec<_> = person
            .channels
            .iter()
            .copied()
            .chain(theirs.map(|group| group.channel))
            .collect();
        for channel in &channels {
            let page = client.full_history(*channel).await?;
            let events: Vec<_> = page.events.iter().map(Observed::of).collect();
            // The first person made the groups and stays: theirs is the whole history.
            if index == 0 && groups.iter().any(|group| group.channel == *channel) {
                lock(checker).members_of_history(*channel, &page.events);
            }
            lock(checker).full_history(login.user, *channel, &events, page.head_seq);
        }
        let changes = client.first_changes().await?;
        for row in changes.rows {
            if !channels.contains(&row.head.channel) {
                lock(checker).channel_of_nobody(row.head.channel, login.user);
            }
            lock(checker).final_read_mark(login.user, row.head.channel, row.head.read_seq);
        }
    }
    Ok(())
}

/// Waits, without sending anything more, until every device was shown everything; the verdict tells if it was not.
async fn complete(devices: &[(Participant, Transport)], checker: &SharedChecker) {
    let deadline = Instant::now() + SETTLE;
    for (device, _) in devices {
        while lock(checker).missing_at(device.device()) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn lock(checker: &SharedChecker) -> std::sync::MutexGuard<'_, Checker> {
    checker.lock().expect("no device panics while it reports")
}
