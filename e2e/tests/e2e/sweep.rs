//! Bad networks of every degree (fault F42): 1, 5 and 20 % loss, 300 ms there and back, reordering and repetition, from
//! several seeds, on both transports. The promise holds on each, for a client written from the protocol's text and for the
//! SDK.
//!
//! On TCP the kernel repairs loss, and what an application sees of it are stalls of a retransmission timeout: so many
//! chunks stall here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use conch_e2e::impair::Profile;
use conch_e2e::{PASSWORD, Pair, Place, connect, eventually, key};
use conch_loadtest::app::AppPlan;
use conch_loadtest::bad_network::BadNetwork;
use conch_loadtest::checker::{Checker, Observed};
use conch_loadtest::device::{Command, Device, DevicePlan};
use conch_loadtest::node::Node;
use conch_loadtest::raw::Transport;
use conch_wire::frame::PushMode;
use futures_util::future::try_join_all;
use tokio::sync::{Semaphore, watch};

/// Messages of each of the two people of a lane, said in bursts of these sizes.
const BURSTS: [u64; 8] = [1, 5, 1, 3, 1, 8, 2, 3];
const LOSSES: [f64; 3] = [0.01, 0.05, 0.20];
const SEEDS: [u64; 2] = [42, 4_242];
const HASHES_AT_ONCE: usize = 4;
/// Longest that a lane may take on the worst network.
const PATIENCE: Duration = Duration::from_secs(50);

fn profile(loss: f64) -> Profile {
    Profile {
        delay: Duration::from_millis(150),
        jitter: Duration::from_millis(30),
        bytes_per_s: None,
        loss,
        duplicate: 0.05,
        reorder: 0.05,
        reorder_by: Duration::from_millis(60),
        stall: loss,
        stall_for: Duration::from_millis(600),
        cut: 0.0,
    }
}

/// One network, with two people of its own who talk through it.
#[derive(Clone, Copy, Debug)]
struct Lane {
    number: u8,
    seed: u64,
    loss: f64,
    transport: Transport,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_holds_on_networks_of_every_degree() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let mut lanes = Vec::new();
    for transport in [Transport::WebSocket, Transport::Quic] {
        for loss in LOSSES {
            for seed in SEEDS {
                lanes.push(Lane {
                    number: lanes.len() as u8,
                    seed,
                    loss,
                    transport,
                });
            }
        }
    }
    // Passwords are hashed a few at a time, or the node would refuse some.
    let hashing = Semaphore::new(HASHES_AT_ONCE);
    let running = lanes.into_iter().map(|lane| {
        let (node, place, hashing) = (&node, &place, &hashing);
        async move {
            let ended = run(lane, node, place, hashing).await;
            ended.with_context(|| format!("{lane:?}"))
        }
    });
    try_join_all(running).await?;
    Ok(())
}

async fn run(lane: Lane, node: &Node, place: &Place, hashing: &Semaphore) -> Result<()> {
    let (ann, ben) = (format!("ann{}", lane.number), format!("ben{}", lane.number));
    let turn = hashing.acquire().await?;
    let pair = Pair::named(node, &ann, &ben).await?;
    let host = [1, lane.number + 1];
    let network = BadNetwork::start(host, lane.seed, profile(lane.loss), node).await?;
    let checker = Arc::new(Mutex::new(Checker::new()));
    {
        let mut checker = checker.lock().unwrap();
        checker.add_device(pair.ann.user, pair.ann.device);
        checker.add_member(pair.channel, pair.ann.user, 1);
        checker.add_member(pair.channel, pair.ben.user, 1);
    }
    let (_doors, open_doors) = watch::channel(Some(network.lead_to(node)?));
    let plan = DevicePlan {
        login: pair.ann.clone(),
        push: PushMode::All,
        heartbeat: Duration::from_secs(5),
        silence: Duration::from_secs(45),
        transport: lane.transport,
        doors: open_doors,
    };
    let device = Device::spawn(plan, Arc::clone(&checker));
    let app = AppPlan {
        endpoint: network.base_url(),
        folder: place.path().join(format!("sdk-{}", lane.number)),
        transport: lane.transport,
    };
    let app = app.start(&ben, PASSWORD, Arc::clone(&checker)).await?;
    drop(turn);

    let channel = pair.channel;
    let mut said = 0;
    for burst in BURSTS {
        for _ in 0..burst {
            said += 1;
            let text = Bytes::from(format!("{lane:?} ann {said}"));
            let key = key(u64::from(lane.number) << 32 | said);
            device.command(Command::Say { channel, key, text }).await;
            app.say(channel, format!("{lane:?} ben {said}")).await;
        }
        // Bursts follow answers, or one frame would take them all.
        eventually("answers to a burst", PATIENCE, || async {
            device.tally().unsettled == 0 && app.unsettled() == 0
        })
        .await?;
    }
    eventually("everything everywhere", PATIENCE, || async {
        let checker = checker.lock().unwrap();
        checker.missing_at(device.device) == 0 && checker.missing_at(app.device) == 0
    })
    .await?;
    ensure!(device.tally().dropped + device.tally().resyncs + app.tally().failures == 0);
    if lane.transport == Transport::Quic {
        let udp = network.seen().1.context("QUIC has a proxy")?;
        ensure!(udp.forwarded > 50, "the network saw nothing: {udp:?}");
        ensure!(
            udp.dropped > 0 || lane.loss < 0.05,
            "nothing was lost: {udp:?}"
        );
    }
    drop((device, app));

    let mut judge = std::mem::take(&mut *checker.lock().unwrap());
    for login in [&pair.ann, &pair.ben] {
        let (mut reader, _) = connect(node, login).await?;
        let page = reader.full_history(channel).await?;
        let events: Vec<_> = page.events.iter().map(Observed::of).collect();
        judge.full_history(login.user, channel, &events, page.head_seq);
    }
    let verdict = judge.verdict();
    ensure!(verdict.is_clean(), "{verdict}");
    ensure!(verdict.counts.acked_messages == 2 * said, "{verdict}");
    Ok(())
}
