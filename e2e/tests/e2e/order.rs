//! What one device says stays in its order, whatever is refused or falls away on the way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use conch_e2e::{LOW_LIMITS, Pair, Place, SOON, connect, eventually, key, texts};
use conch_loadtest::checker::{Checker, Observed};
use conch_loadtest::device::{Command, Device, DevicePlan};
use conch_loadtest::raw::{Answer, Transport};
use conch_wire::Code;
use conch_wire::frame::PushMode;
use tokio::sync::watch;

const BURST: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn burst_with_refusals_a_crash_and_a_reconnect_ends_in_order() -> Result<()> {
    let place = Place::with_config(LOW_LIMITS)?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let checker = Arc::new(Mutex::new(Checker::new()));
    {
        let mut checker = checker.lock().unwrap();
        checker.add_device(pair.ann.user, pair.ann.device);
        checker.add_member(pair.channel, pair.ann.user, 1);
    }
    let (endpoint, listening) = watch::channel(Some(node.doors()));
    let plan = DevicePlan {
        login: pair.ann.clone(),
        push: PushMode::All,
        heartbeat: Duration::from_secs(5),
        silence: SOON,
        transport: Transport::WebSocket,
        doors: listening,
    };
    let device = Device::spawn(plan, Arc::clone(&checker));
    let say = async |from: u64, to: u64| {
        for n in from..to {
            let text = Bytes::from(format!("message {n}"));
            let (channel, key) = (pair.channel, key(n));
            device.command(Command::Say { channel, key, text }).await;
        }
    };
    // Connected and answered first, so that the burst that follows is cut by refusals and not sent as one.
    say(0, 5).await;
    eventually("the first answers", SOON, || async {
        device.tally().connections > 0 && device.tally().unsettled == 0
    })
    .await?;
    say(5, BURST / 2).await;
    eventually(
        "a refusal, and what was refused to be taken",
        SOON,
        || async {
            let counts = checker.lock().unwrap().counts();
            counts.refusals > 0 && counts.acked_messages > 5
        },
    )
    .await?;
    device
        .command(Command::Vanish(Duration::from_millis(30)))
        .await;
    say(BURST / 2, BURST).await;
    node.kill();
    endpoint.send_replace(None);
    let node = place.start().await?;
    endpoint.send_replace(Some(node.doors()));
    eventually("all answers", Duration::from_secs(60), || async {
        device.tally().unsettled == 0
    })
    .await?;

    let wanted: Vec<_> = (0..BURST).map(|n| format!("message {n}")).collect();
    let found = texts(&node, &pair.ben, pair.channel).await?;
    ensure!(found == wanted, "{found:?}");
    let (mut client, _) = connect(&node, &pair.ann).await?;
    let page = client.full_history(pair.channel).await?;
    let events: Vec<_> = page.events.iter().map(Observed::of).collect();
    let mut checker = std::mem::take(&mut *checker.lock().unwrap());
    checker.full_history(pair.ann.user, pair.channel, &events, page.head_seq);
    let verdict = checker.verdict();
    ensure!(verdict.is_clean(), "{verdict}");
    ensure!(
        verdict.counts.refusals > 0,
        "nothing was refused: {verdict}"
    );
    ensure!(device.tally().connections >= 2, "{:?}", device.tally());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_of_a_flood_names_the_wait_and_is_certain() -> Result<()> {
    let place = Place::with_config(LOW_LIMITS)?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = conch_e2e::enter(&node, &pair.ann, pair.channel, 1).await?;
    let requests: Vec<_> = (0..20)
        .map(|n| ann.queue_sends(1, &[conch_e2e::message(n)]))
        .collect();
    ann.flush().await?;
    let mut acked = Vec::new();
    let mut refused = 0;
    for (n, request) in requests.into_iter().enumerate() {
        match ann.sent(request).await? {
            Answer::Acked(_) => acked.push(format!("message {n}")),
            Answer::Refused(error) => {
                ensure!(error.code == Code::RateLimited, "{error:?}");
                ensure!(error.retry_after_ms > 0, "{error:?}");
                refused += 1;
            }
        }
    }
    ensure!(refused > 0, "nothing was refused");
    ensure!(texts(&node, &pair.ben, pair.channel).await? == acked);
    Ok(())
}
