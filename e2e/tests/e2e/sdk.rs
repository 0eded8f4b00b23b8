//! The SDK with a real node: what an application was promised survives the application, too.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_client::core::{Content, Event, SendState};
use conch_client::{Client, ClientBuilder, EventStream, SendOutcome};
use conch_e2e::{PASSWORD, Pair, Place, SOON, enter, eventually, message, texts};
use conch_loadtest::forward::Forward;
use conch_wire::ChannelId;
use tokio::sync::watch;

async fn open(forward: &Forward, folder: &Path) -> Result<Client> {
    let client = ClientBuilder::new(&forward.base_url(), folder)
        .config(conch_client::core::Config {
            reconnect_base_ms: 50,
            reconnect_cap_ms: 400,
            ..Default::default()
        })
        .open()
        .await?;
    Ok(client)
}

/// The next text in `channel`, with its seq.
async fn next_text(events: &mut EventStream, channel: ChannelId) -> Result<(u32, String)> {
    let found = async {
        while let Some(event) = events.next().await {
            if let Event::Message(message) = event
                && message.channel == channel
                && let Content::Text { text, .. } = message.content
            {
                return Ok((message.seq, text));
            }
        }
        anyhow::bail!("the client closed")
    };
    tokio::time::timeout(SOON, found)
        .await
        .context("no message came")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsent_messages_survive_the_application_and_leave_in_order() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let folder = place.path().join("sdk");
    let client = open(&forward, &folder).await?;
    client.log_in("ann", PASSWORD, "sdk").await?;
    client.connect().await?;
    let first = client.send(pair.channel, "0").await?.await?;
    ensure!(matches!(first, SendOutcome::Stored { .. }), "{first:?}");

    node.kill();
    endpoint.send_replace(None);
    for n in 1..=20 {
        client.send(pair.channel, &n.to_string()).await?;
    }
    client.close().await;
    let client = open(&forward, &folder).await?;
    ensure!(client.outbox().await?.len() == 20);
    client.connect().await?;
    for n in 21..=30 {
        client.send(pair.channel, &n.to_string()).await?;
    }
    let node = place.start().await?;
    endpoint.send_replace(Some(node.http().to_owned()));
    eventually("an empty outbox", SOON, || async {
        client.outbox().await.is_ok_and(|outbox| outbox.is_empty())
    })
    .await?;
    let wanted: Vec<_> = (0..=30).map(|n| n.to_string()).collect();
    ensure!(texts(&node, &pair.ben, pair.channel).await? == wanted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_is_shown_every_message_once_over_restarts_of_both() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let folder = place.path().join("sdk");
    let mut shown = Vec::new();
    for round in 0..4_u64 {
        let client = open(&forward, &folder).await?;
        if round == 0 {
            client.log_in("ben", PASSWORD, "sdk").await?;
        }
        let mut events = client.events().await?;
        client.connect().await?;
        let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
        for n in 0..5 {
            ann.say(1, &message(round * 10 + n)).await?;
        }
        for _ in 0..5 {
            shown.push(next_text(&mut events, pair.channel).await?);
        }
        client.close().await;
        // Said while the application is not running.
        ann.say(1, &message(round * 10 + 5)).await?;
        drop(ann);
        node.kill();
        endpoint.send_replace(None);
        node = place.start().await?;
        endpoint.send_replace(Some(node.http().to_owned()));
        let client = open(&forward, &folder).await?;
        let mut events = client.events().await?;
        client.connect().await?;
        shown.push(next_text(&mut events, pair.channel).await?);
        client.close().await;
    }
    let seqs: Vec<_> = shown.iter().map(|(seq, _)| *seq).collect();
    let first = seqs[0];
    let consecutive: Vec<_> = (first..first + seqs.len() as u32).collect();
    ensure!(seqs == consecutive, "{shown:?}");
    let said: Vec<_> = shown.into_iter().map(|(_, text)| text).collect();
    ensure!(texts(&node, &pair.ben, pair.channel).await? == said);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_learns_of_a_refusal_for_good() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let stranger = conch_e2e::api(&node).sign_up("cleo", PASSWORD).await?;
    let folder = place.path().join("sdk");
    let (_endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let client = open(&forward, &folder).await?;
    client.log_in("cleo", PASSWORD, "sdk").await?;
    ensure!(
        client
            .account()
            .await
            .is_some_and(|a| a.user == stranger.user)
    );
    client.connect().await?;
    let sending = client.send(pair.channel, "not mine to write in").await?;
    let outcome = tokio::time::timeout(Duration::from_secs(20), sending)
        .await
        .context("no outcome")??;
    ensure!(
        matches!(outcome, SendOutcome::Refused { .. }),
        "{outcome:?}"
    );
    let outbox = client.outbox().await?;
    let [kept] = &outbox[..] else {
        anyhow::bail!("{outbox:?}")
    };
    ensure!(matches!(kept.state, SendState::Refused { .. }), "{kept:?}");
    ensure!(texts(&node, &pair.ben, pair.channel).await?.is_empty());
    Ok(())
}
