//! What a delivery costs the node when one message goes to many: a group whose members are all connected.
//!
//! Closed loop: a sender keeps one SEND_MANY in flight and goes on when everybody has all but the last [`LEAD`] messages,
//! so that nothing collapses and every delivery counts. The message is made durable once.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conch_wire::{Alias, MessageKey, ServerFrame};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::threads::{ByThread, is_index};
use super::{TEXT_BYTES, api, fresh_node, generator_cpu, hello, sign_up};
use crate::raw::{Answer, Draft, RawClient, Transport};

/// Messages that may be under way to somebody: well below what a mailbox holds.
const LEAD: u64 = 96;
/// Not measured: the first push to a session opens its channel.
const WARM_UP: Duration = Duration::from_secs(3);
/// A delivery that takes longer was lost or collapsed: the figure is void.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the load is made.
#[derive(Clone, Copy, Debug)]
pub struct FanOutPlan {
    pub transport: Transport,
    /// Of the group, senders included; each has one connection.
    pub members: usize,
    /// Of them.
    pub senders: usize,
    /// Messages per SEND_MANY.
    pub batch: usize,
    pub seconds: u64,
}

/// Costs of fan-out.
#[derive(Clone, Debug)]
pub struct FanOutFigures {
    pub plan: FanOutPlan,
    pub messages: u64,
    pub delivered: u64,
    pub took: Duration,
    pub generator_cpu: Duration,
    pub node_cpu: Duration,
    /// Of it.
    pub by_thread: ByThread,
    pub rss_bytes: u64,
}

impl FanOutFigures {
    /// CPU time of the node per delivery, index work included, in µs.
    pub fn cpu_us(&self) -> f64 {
        self.node_cpu.as_nanos() as f64 / 1_000.0 / self.delivered.max(1) as f64
    }
}

impl fmt::Display for FanOutFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let index = self.by_thread.of(is_index).as_nanos() as f64 / 1_000.0;
        write!(
            f,
            "fanout: {} of {} members write over {}, {} messages per SEND_MANY, {seconds:.0} s, fsync before ack: {:.3} CPU-µs per delivery \
             ({:.3} of it index); {:.0} messages/s, {:.0} deliveries/s; node used {:.2} cores, generator {:.2}; {} MiB; by thread:",
            self.plan.senders,
            self.plan.members,
            self.plan.transport,
            self.plan.batch,
            self.cpu_us(),
            index / self.delivered.max(1) as f64,
            self.messages as f64 / seconds,
            self.delivered as f64 / seconds,
            self.node_cpu.as_secs_f64() / seconds,
            self.generator_cpu.as_secs_f64() / seconds,
            self.rss_bytes >> 20,
        )?;
        self.by_thread.write_each(f, self.delivered)
    }
}

/// How far everybody is.
#[derive(Default)]
struct Progress {
    acked: AtomicU64,
    /// Over all members.
    delivered: AtomicU64,
    moved: Notify,
}

/// Measures fan-out.
pub async fn fanout(folder: &Path, plan: FanOutPlan) -> Result<FanOutFigures> {
    ensure!(
        (1..plan.members).contains(&plan.senders),
        "of {} members {} cannot be the senders",
        plan.members,
        plan.senders
    );
    let name = format!("fanout-{}-{}", plan.transport, plan.members);
    let (_plan, node) = fresh_node(folder, &name, plan.transport).await?;
    let api = api(&node)?;
    let people = sign_up(&api, plan.members).await?;
    let others: Vec<_> = people[1..].iter().map(|login| login.user).collect();
    let group = api
        .group(&people[0].access_token, "everybody", &others)
        .await;
    let group = group.context("make the group")?;
    let progress = Arc::new(Progress::default());
    let mut running = JoinSet::new();
    let endpoint = node.doors().endpoint(plan.transport)?;
    for (index, login) in people.iter().enumerate().rev() {
        let (mut client, _) = RawClient::open_at(&endpoint, hello(login)).await?;
        client.first_changes().await?;
        let opened = client.open_fresh(group, 1).await?;
        ensure!(opened.head.channel == group, "another channel was opened");
        if index < plan.senders {
            running.spawn(write(client, opened.alias, plan, Arc::clone(&progress)));
        } else {
            running.spawn(read(client, Arc::clone(&progress)));
        }
    }
    let measured = async {
        tokio::time::sleep(WARM_UP).await;
        let began = Instant::now();
        let own_before = generator_cpu();
        let count = || {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (load(&progress.acked), load(&progress.delivered))
        };
        let cpu_before = (node.cpu()?, ByThread::now(node.pid()));
        let before = count();
        tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
        let after = count();
        let node_cpu = node.cpu()?.saturating_sub(cpu_before.0);
        let by_thread = ByThread::now(node.pid()).since(&cpu_before.1);
        Ok(FanOutFigures {
            plan,
            messages: after.0 - before.0,
            delivered: after.1 - before.1,
            took: began.elapsed(),
            generator_cpu: generator_cpu().saturating_sub(own_before),
            node_cpu,
            by_thread,
            rss_bytes: node.rss_bytes()?,
        })
    };
    tokio::select! {
        figures = measured => figures,
        Some(ended) = running.join_next() => {
            ended.context("a client panicked")??;
            bail!("a client ended before its time")
        }
    }
}

/// One of the senders: it reads what the others write as well.
async fn write(
    mut client: RawClient,
    alias: Alias,
    plan: FanOutPlan,
    progress: Arc<Progress>,
) -> Result<()> {
    let text = bytes::Bytes::from(vec![b'x'; TEXT_BYTES]);
    let mut drafts: Vec<_> = (0..plan.batch)
        .map(|_| Draft::text(MessageKey::default(), text.clone()))
        .collect();
    let mut key: u128 = rand::random();
    let others = plan.members as u64 - 1;
    let mut tally = Tally::default();
    loop {
        for draft in &mut drafts {
            key = key.wrapping_add(1);
            draft.key = MessageKey(key.to_le_bytes());
        }
        let request = client.queue_sends(alias, &drafts);
        client.flush().await?;
        match client.sent(request).await? {
            Answer::Acked(acks) => {
                let count = acks.len() as u64;
                progress.acked.fetch_add(count, Ordering::Relaxed);
            }
            Answer::Refused(error) => bail!("a send was refused: {}", error.code),
        }
        tally.take(&mut client, &progress).await?;
        let is_time = || {
            let delivered = progress.delivered.load(Ordering::Relaxed) / others;
            progress.acked.load(Ordering::Relaxed) <= delivered + LEAD
        };
        while !is_time() {
            let moved = progress.moved.notified();
            if is_time() {
                break;
            }
            tokio::select! {
                () = moved => {}
                received = client.recv(), if plan.senders > 1 => tally.note(received?),
                () = tokio::time::sleep(PATIENCE) => bail!("deliveries are missing"),
            }
            tally.take(&mut client, &progress).await?;
        }
    }
}

async fn read(mut client: RawClient, progress: Arc<Progress>) -> Result<()> {
    let mut tally = Tally::default();
    loop {
        let received = timeout(PATIENCE, client.recv()).await;
        tally.note(received.context("nothing is delivered")??);
        tally.take(&mut client, &progress).await?;
    }
}

/// What one client got and has not told yet.
#[derive(Default)]
struct Tally {
    delivered: u64,
    used_bytes: u32,
}

impl Tally {
    fn note(&mut self, received: crate::raw::Received) {
        if matches!(received.frame, ServerFrame::Deliver { .. }) {
            self.delivered += 1;
            self.used_bytes += received.wire_bytes;
        }
    }

    /// Takes what else has come, tells of it and grants it back.
    async fn take(&mut self, client: &mut RawClient, progress: &Progress) -> Result<()> {
        while let Some(received) = client.try_recv() {
            self.note(received);
        }
        let delivered = std::mem::take(&mut self.delivered);
        if delivered > 0 {
            progress.delivered.fetch_add(delivered, Ordering::Relaxed);
            progress.moved.notify_waiters();
        }
        if self.used_bytes > conch_wire::limits::CREDIT_BYTES / 4 {
            client.grant(std::mem::take(&mut self.used_bytes)).await?;
        }
        Ok(())
    }
}
