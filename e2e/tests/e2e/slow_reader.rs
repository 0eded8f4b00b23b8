//! A device that stops reading costs little, disturbs nobody, and loses nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use conch_e2e::{Pair, Place, SOON, connect, enter, key};
use conch_loadtest::raw::{Answer, Draft};
use conch_wire::event::EventFlags;
use conch_wire::{ServerFrame, limits};
use tokio::time::Instant;

/// Each is pushed whole; together far more than credit and socket buffers hold.
const TEXT_BYTES: usize = 8_000;
const MESSAGES: u64 = 4_000;
/// What was pushed is there within this.
const QUIET: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_stops_is_collapsed_and_loses_nothing() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    // Ben grants what HELLO grants and then neither reads nor grants.
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;

    let say = async |from: u64, count: u64, ann: &mut conch_loadtest::raw::RawClient| {
        for batch in (from..from + count).collect::<Vec<_>>().chunks(8) {
            let drafts: Vec<_> = batch
                .iter()
                .map(|n| Draft::text(key(*n), format!("{n} {}", "x".repeat(TEXT_BYTES))))
                .collect();
            let request = ann.queue_sends(1, &drafts);
            ann.flush().await?;
            if let Answer::Refused(error) = ann.sent(request).await? {
                anyhow::bail!("{error:?}");
            }
        }
        Ok(())
    };
    say(0, MESSAGES / 2, &mut ann).await?;
    let before = node.rss_bytes()?;
    say(MESSAGES / 2, MESSAGES / 2, &mut ann).await?;
    let after = node.rss_bytes()?;
    // 16 MB went by for a reader that takes nothing. What grows is the tail in front of the index, which is bounded
    // on its own and the same without him.
    ensure!(
        after < before + (48 << 20),
        "memory went from {before} to {after} for one reader that does not read"
    );

    // Ben reads on: what was pushed within his credit, and not an event more.
    let mut seen = BTreeSet::new();
    let mut pushed_bytes = 0;
    while let Some(received) = ben.recv_until(Instant::now() + QUIET).await? {
        if let ServerFrame::Deliver { event, .. } = received.frame {
            pushed_bytes += received.wire_bytes;
            ensure!(!event.flags.contains(EventFlags::BODY_OMITTED));
            seen.insert(event.seq);
        }
    }
    ensure!(
        pushed_bytes <= limits::CREDIT_BYTES + TEXT_BYTES as u32 + 64,
        "{pushed_bytes} bytes were pushed with a credit of {}",
        limits::CREDIT_BYTES
    );
    // He grants what he has consumed, and is told how far the channel is.
    let last = seq_of_last(&mut ann, &pair).await?;
    ben.grant(pushed_bytes).await?;
    ben.wait_for(
        "a head that tells what was missed",
        SOON,
        |f| matches!(f, ServerFrame::ChannelHead(head) if head.head_seq == last),
    )
    .await?;
    let page = ben.full_history(pair.channel).await?;
    let read: BTreeSet<_> = page.events.iter().map(|event| event.seq).collect();
    ensure!(read.len() as u32 == last && seen.is_subset(&read));

    // With credit again he is pushed to again.
    say(MESSAGES, 8, &mut ann).await?;
    ben.wait_for(
        "an event after granting",
        SOON,
        |f| matches!(f, ServerFrame::Deliver { event, .. } if event.seq > last),
    )
    .await?;
    Ok(())
}

async fn seq_of_last(client: &mut conch_loadtest::raw::RawClient, pair: &Pair) -> Result<u32> {
    let page = client
        .history(conch_wire::frame::History {
            channel: pair.channel,
            from: 1,
            to: u32::MAX,
            items_max: 1,
            newest_first: true,
        })
        .await?;
    Ok(page.head_seq)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_notice_nothing_of_a_reader_that_stops() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let (mut stuck, _) = connect(&node, &pair.ben).await?;
    stuck.first_changes().await?;
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
    for n in 0..400 {
        let draft = Draft::text(key(n), format!("{n} {}", "x".repeat(TEXT_BYTES)));
        let ack = ann.say(1, &draft).await?;
        let frame = ben
            .wait_for("the event", Duration::from_secs(5), |f| {
                matches!(f, ServerFrame::Deliver { .. })
            })
            .await?;
        ensure!(matches!(frame, ServerFrame::Deliver { event, .. } if event.seq == ack.seq));
        ben.grant(TEXT_BYTES as u32 + 64).await?;
    }
    Ok(())
}
