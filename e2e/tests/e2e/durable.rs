//! Durable means durable: while the log's sync is held back nobody learns of a message, and when it fails nobody does in
//! that life of the node.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_e2e::shim::Shim;
use conch_e2e::{Pair, Place, SOON, connect, enter, eventually, message, texts};
use conch_loadtest::raw::{Answer, RawClient};
use conch_wire::frame::History;
use conch_wire::{Code, Seq, ServerFrame};

/// What tells the log's files from SQLite's and the index's.
const LOG: &str = "/log/";
/// A message that is shown too early is shown within this.
const QUIET: Duration = Duration::from_millis(700);
/// How the node ends when the log failed.
const EXIT_LOG_FAILED: i32 = 4;

/// A place whose node runs under the shim.
fn shimmed() -> Result<(Place, Shim)> {
    let mut place = Place::new()?;
    let shim = Shim::new(&place.path())?;
    place.plan.env.extend(shim.env());
    Ok((place, shim))
}

async fn held(shim: &Shim, what: &str) -> Result<()> {
    eventually("the shim to stop a sync of the log", SOON, || async {
        shim.events()
            .iter()
            .any(|line| line.starts_with(what) && line.contains(LOG))
    })
    .await
}

fn is_event(frame: &ServerFrame) -> bool {
    matches!(
        frame,
        ServerFrame::Deliver { .. }
            | ServerFrame::SendAck { .. }
            | ServerFrame::ChannelHead(_)
            | ServerFrame::Event { .. }
    )
}

/// The head that a reader is told by a page of history.
async fn head(client: &mut RawClient, pair: &Pair) -> Result<(Seq, usize)> {
    let page = client
        .history(History {
            channel: pair.channel,
            from: 1,
            to: Seq::MAX,
            items_max: 200,
            newest_first: false,
        })
        .await?;
    Ok((page.head_seq, page.events.len()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_learns_of_a_message_before_it_is_durable() -> Result<()> {
    let (place, shim) = shimmed()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
    ann.say(1, &message(1)).await?;
    ben.wait_for("message 1", SOON, |f| {
        matches!(f, ServerFrame::Deliver { .. })
    })
    .await?;
    let before = head(&mut ben, &pair).await?;
    let position = ben.ping().await?;

    shim.hold(LOG)?;
    let request = ann.start_send(1, &message(2)).await?;
    held(&shim, "held").await?;
    ensure!(
        ann.stays_silent(QUIET, is_event).await?,
        "acknowledged early"
    );
    ensure!(ben.stays_silent(QUIET, is_event).await?, "delivered early");
    ensure!(head(&mut ben, &pair).await? == before, "in history early");
    ensure!(head(&mut ann, &pair).await? == before, "in history early");
    ensure!(ben.ping().await? == position, "in the inbox early");
    let (mut late, _) = connect(&node, &pair.ben).await?;
    let rows = late.first_changes().await?.rows;
    ensure!(
        rows.iter().all(|row| row.head.head_seq == before.0),
        "in the listing of a fresh device early: {rows:?}"
    );

    shim.release()?;
    let Answer::Acked(acks) = ann.sent(request).await? else {
        anyhow::bail!("refused after the sync was let go")
    };
    let ack = acks.first().context("one ack")?;
    ensure!(ack.seq == before.0 + 1, "{ack:?}");
    for reader in [&mut ben, &mut late] {
        reader
            .wait_for(
                "message 2",
                SOON,
                |f| matches!(f, ServerFrame::Deliver { event, .. } if event.seq == ack.seq),
            )
            .await?;
    }
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["message 1", "message 2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_message_that_is_killed_is_there_once_or_not_at_all() -> Result<()> {
    let (place, shim) = shimmed()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    ann.say(1, &message(1)).await?;
    shim.hold(LOG)?;
    for n in 2..6 {
        ann.start_send(1, &message(n)).await?;
    }
    held(&shim, "held").await?;
    node.kill();
    shim.release()?;

    let node = place.start().await?;
    let found = texts(&node, &pair.ben, pair.channel).await?;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for text in &found {
        *counts.entry(text).or_default() += 1;
    }
    ensure!(counts.values().all(|count| *count == 1), "{found:?}");
    // Sent again, every one is there exactly once, in the order in which it is there now or was sent now.
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    for n in 2..6 {
        ann.say(1, &message(n).again()).await?;
    }
    let mut found = texts(&node, &pair.ben, pair.channel).await?;
    found.sort();
    let wanted: Vec<_> = (1..6).map(|n| format!("message {n}")).collect();
    ensure!(found == wanted, "{found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_sync_ends_the_process_and_acknowledges_nothing() -> Result<()> {
    let (place, shim) = shimmed()?;
    let mut node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
    ann.say(1, &message(1)).await?;
    ben.wait_for("message 1", SOON, |f| {
        matches!(f, ServerFrame::Deliver { .. })
    })
    .await?;

    shim.fail(LOG)?;
    let sends = async {
        for n in 2..8 {
            ann.start_send(1, &message(n)).await?;
        }
        Ok::<_, conch_loadtest::raw::RawError>(())
    };
    // The connection may end while the later ones are being sent.
    let _ = sends.await;
    held(&shim, "failed").await?;
    for client in [&mut ann, &mut ben] {
        // Until the node closes the connection.
        while let Ok(received) = client.recv().await {
            match received.frame {
                ServerFrame::SendAck { .. } | ServerFrame::Deliver { .. } => {
                    anyhow::bail!("shown after a failed sync: {:?}", received.frame)
                }
                // Whether it was stored is not known; only what was never handed to the log is certain.
                ServerFrame::Error { request, error } if request != 0 => ensure!(
                    error.code == Code::OutcomeUnknown || error.code.number() < 4_300,
                    "{error:?}"
                ),
                _ => {}
            }
        }
    }
    let status = node.ended(SOON).await?;
    ensure!(
        status.code() == Some(EXIT_LOG_FAILED),
        "{status}\n{}",
        node.output()
    );

    shim.release()?;
    let node = place.start().await?;
    let mut found = texts(&node, &pair.ben, pair.channel).await?;
    ensure!(found.first().map(String::as_str) == Some("message 1"));
    let all = found.len();
    found.sort();
    found.dedup();
    ensure!(found.len() == all, "one of them twice: {found:?}");
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    for n in 2..8 {
        ann.say(1, &message(n).again()).await?;
    }
    ensure!(texts(&node, &pair.ben, pair.channel).await?.len() == 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_key_a_hundred_times_while_not_durable_is_one_message() -> Result<()> {
    let (place, shim) = shimmed()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(enter(&node, &pair.ann, pair.channel, 1).await?);
    }
    shim.hold(LOG)?;
    let mut requests = Vec::new();
    for n in 0..100 {
        let which = n % clients.len();
        let draft = if n == 0 {
            message(1)
        } else {
            message(1).again()
        };
        requests.push((which, clients[which].start_send(1, &draft).await?));
    }
    held(&shim, "held").await?;
    for client in &mut clients {
        let early = |f: &ServerFrame| matches!(f, ServerFrame::SendAck { .. });
        ensure!(
            client.stays_silent(QUIET / 4, early).await?,
            "acknowledged early"
        );
    }
    shim.release()?;
    let mut seqs = Vec::new();
    for (which, request) in requests {
        match clients[which].sent(request).await? {
            Answer::Acked(acks) => seqs.extend(acks.iter().map(|ack| ack.seq)),
            // 64 sends may be in flight on a connection; here there are 25 on each.
            Answer::Refused(error) => anyhow::bail!("refused: {error:?}"),
        }
    }
    ensure!(seqs.len() == 100);
    seqs.dedup();
    ensure!(seqs.len() == 1, "{seqs:?}");
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["message 1"]);
    Ok(())
}
