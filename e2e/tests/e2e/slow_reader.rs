//! A device that stops reading costs little, disturbs nobody, and loses nothing (fault F37), whether it only grants no credit or
//! takes not a byte from its socket any more; on WebSocket and on QUIC.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_e2e::{
    Pair, Place, SOON, closed_for, connect, connect_over, enter, enter_over, eventually, hello, key,
};
use conch_loadtest::node::Node;
use conch_loadtest::raw::{Answer, Draft, Endpoint, RawClient, Transport, Windows};
use conch_wire::event::EventFlags;
use conch_wire::{Code, ServerFrame, limits};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout_at};

/// Each is pushed whole; together far more than credit and socket buffers hold.
const TEXT_BYTES: usize = 8_000;
const MESSAGES: u64 = 4_000;
/// What was pushed is there within this.
const QUIET: Duration = Duration::from_secs(1);

/// Says `count` large messages, from number `from` on.
async fn say(from: u64, count: u64, client: &mut RawClient) -> Result<()> {
    for batch in (from..from + count).collect::<Vec<_>>().chunks(8) {
        let drafts: Vec<_> = batch
            .iter()
            .map(|n| Draft::text(key(*n), format!("{n} {}", "x".repeat(TEXT_BYTES))))
            .collect();
        let request = client.queue_sends(1, &drafts);
        client.flush().await?;
        if let Answer::Refused(error) = client.sent(request).await? {
            anyhow::bail!("{error:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_stops_is_collapsed_and_loses_nothing() -> Result<()> {
    reader_that_stops(Transport::WebSocket).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_stops_on_quic_is_collapsed_and_loses_nothing() -> Result<()> {
    reader_that_stops(Transport::Quic).await
}

async fn reader_that_stops(transport: Transport) -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    // Ben grants what HELLO grants and then neither reads nor grants.
    let mut ben = enter_over(&node, &pair.ben, pair.channel, 1, transport).await?;
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

    // Ben reads on: what was pushed within his credit, and not an event more. Where the socket and the mailbox were full
    // before the credit was used up, the head comes behind it at once.
    let mut seen = BTreeSet::new();
    let mut pushed_bytes = 0;
    let mut told = 0;
    while let Some(received) = ben.recv_until(Instant::now() + QUIET).await? {
        match received.frame {
            ServerFrame::Deliver { event, .. } => {
                pushed_bytes += received.wire_bytes;
                ensure!(!event.flags.contains(EventFlags::BODY_OMITTED));
                seen.insert(event.seq);
            }
            ServerFrame::ChannelHead(head) => told = head.head_seq,
            _ => {}
        }
    }
    ensure!(
        pushed_bytes <= limits::CREDIT_BYTES + TEXT_BYTES as u32 + 64,
        "{pushed_bytes} bytes were pushed with a credit of {}",
        limits::CREDIT_BYTES
    );
    // He grants what he has consumed, and is told how far the channel is, if he was not yet.
    let last = seq_of_last(&mut ann, &pair).await?;
    ben.grant(pushed_bytes).await?;
    if told < last {
        ben.wait_for(
            "a head that tells what was missed",
            SOON,
            |f| matches!(f, ServerFrame::ChannelHead(head) if head.head_seq == last),
        )
        .await?;
    }
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

async fn seq_of_last(client: &mut RawClient, pair: &Pair) -> Result<u32> {
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
            .wait_for("the event", SOON, |f| {
                matches!(f, ServerFrame::Deliver { .. })
            })
            .await?;
        ensure!(matches!(frame, ServerFrame::Deliver { event, .. } if event.seq == ack.seq));
        ben.grant(TEXT_BYTES as u32 + 64).await?;
    }
    Ok(())
}

/// Small enough that a reader that stops is noticed by the node after a few messages.
const RECEIVE_BUFFER_BYTES: u32 = 8_192;
/// What the node waits for a reader that takes nothing, and how exactly that is seen from outside.
const STALL: Duration = Duration::from_secs(30);
const STALL_SEEN: Duration = Duration::from_secs(12);

/// A device of Ben's that says HELLO, and from WELCOME on takes not a byte any more.
async fn stuck_websocket(node: &Node, pair: &Pair) -> Result<RawClient> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let stream = socket.connect(node.http().parse()?).await?;
    let mut client = RawClient::upgrade(stream, node.http()).await?;
    client.hello(hello(&pair.ben)).await?;
    Ok(client)
}

/// The same on QUIC: what it does not read it does not let the node send.
async fn stuck_quic(node: &Node, pair: &Pair) -> Result<RawClient> {
    let mut client = RawClient::connect_to(&quic_with(node, RECEIVE_BUFFER_BYTES)?).await?;
    client.hello(hello(&pair.ben)).await?;
    Ok(client)
}

fn quic_with(node: &Node, window: u32) -> Result<Endpoint> {
    let quic = node.doors().quic.context("the node speaks QUIC")?;
    Ok(quic.endpoint(Windows {
        stream: window,
        connection: window,
    })?)
}

/// Grants credit that it does not have to give, without reading, until the node has had enough; says when that was.
async fn grant_until_closed(mut client: RawClient) -> (Instant, RawClient) {
    loop {
        let granted = client.grant(limits::CREDIT_BYTES).await;
        let gone = client.quic().is_some_and(|it| it.close_reason().is_some());
        if granted.is_err() || gone {
            return (Instant::now(), client);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// F37. Three readers that take nothing at once: a full TCP window; a QUIC client that reads nothing, and one that
/// does not even let WELCOME pass. Each is closed after 30 s of it, not sooner; the node's memory does not grow with what they miss;
/// the same person's other device gets everything meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing_cost_little_and_are_closed_after_30_s() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let began = Instant::now();
    let on_websocket = stuck_websocket(&node, &pair).await?;
    let on_quic = stuck_quic(&node, &pair).await?;
    let mut mute = RawClient::connect_to(&quic_with(&node, 0)?).await?;
    mute.send(&conch_wire::ClientFrame::Hello(hello(&pair.ben)))
        .await?;
    let mut stuck: Vec<_> = [on_websocket, on_quic]
        .map(|client| tokio::spawn(grant_until_closed(client)))
        .into();

    let (mut ben, _) = connect_over(&node, &pair.ben, Transport::Quic).await?;
    ben.first_changes().await?;
    say(0, 64, &mut ann).await?;
    let before = node.rss_bytes()?;
    let saying = async {
        say(64, MESSAGES / 2 - 64, &mut ann).await?;
        anyhow::Ok(node.rss_bytes()?)
    };
    // Bursts that no mailbox holds come to him as heads: he knows of everything in time, and pages what he wants.
    let hearing = async {
        let (mut known, mut used) = (0, 0);
        while u64::from(known) < MESSAGES / 2 {
            let received = timeout_at(Instant::now() + SOON, ben.recv())
                .await
                .with_context(|| format!("the other device knows of {known} only"))??;
            match received.frame {
                ServerFrame::Deliver { event, .. } => {
                    known = known.max(event.seq);
                    used += received.wire_bytes;
                }
                ServerFrame::ChannelHead(head) => known = known.max(head.head_seq),
                _ => {}
            }
            if used > limits::CREDIT_BYTES / 4 {
                ben.grant(std::mem::take(&mut used)).await?;
            }
        }
        let page = ben.full_history(pair.channel).await?;
        ensure!(page.events.len() as u64 >= MESSAGES / 2);
        anyhow::Ok(())
    };
    let (after, heard) = tokio::join!(saying, hearing);
    heard?;
    // Whoever takes nothing is stuck by now at the latest.
    let closed_by = Instant::now() + STALL + STALL_SEEN;
    // The same bound as above: the tail in front of the index, and nothing for those who do not read.
    let after = after?;
    ensure!(
        after < before + (48 << 20),
        "memory went from {before} to {after} for readers that take nothing"
    );

    for (name, stuck) in ["WebSocket", "QUIC"].into_iter().zip(stuck.drain(..)) {
        let (closed, client) = timeout_at(closed_by, stuck)
            .await
            .with_context(|| format!("the stuck {name} was not closed"))??;
        let lasted = closed - began;
        ensure!(lasted >= STALL, "{name} was closed after {lasted:?}");
        if let Some(connection) = client.quic() {
            ensure!(code_of(&connection.closed().await) == Some(Code::SlowConsumer));
        }
    }
    let connection = mute.quic().context("on QUIC")?.clone();
    let reason = timeout_at(closed_by, connection.closed())
        .await
        .context("the client that takes no WELCOME was not closed")?;
    ensure!(code_of(&reason) == Some(Code::SlowConsumer), "{reason:?}");
    eventually("the node to have counted them", SOON, || async {
        closed_for(&node, "slow_consumer")
            .await
            .is_ok_and(|closed| closed == 3.0)
    })
    .await
}

fn code_of(reason: &quinn::ConnectionError) -> Option<Code> {
    let quinn::ConnectionError::ApplicationClosed(close) = reason else {
        return None;
    };
    Code::from_u16(u16::try_from(close.error_code.into_inner()).ok()?)
}
