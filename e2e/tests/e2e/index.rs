//! The index is derived: without it, or with an older one, everything is the same, as long as the log reaches back.

use std::fs;

use anyhow::{Result, ensure};
use conch_e2e::{PASSWORD, Pair, Place, SOON, api, connect, copy_folder, enter, key, message};
use conch_loadtest::http::Login;
use conch_loadtest::node::Node;
use conch_loadtest::raw::Draft;
use conch_wire::frame::{HistoryPage, SyncRow};
use conch_wire::{ChannelId, limits};

/// Everything that a node answers about its people.
#[derive(Debug, PartialEq)]
struct Picture {
    histories: Vec<HistoryPage>,
    rows: Vec<SyncRow>,
    position: u64,
}

async fn picture(node: &Node, logins: &[Login], channels: &[ChannelId]) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for login in logins {
        let (mut client, welcome) = connect(node, login).await?;
        let mut rows = client.first_changes().await?.rows;
        rows.sort_by_key(|row| row.head.channel);
        let mut histories = Vec::new();
        for channel in channels {
            histories.push(client.full_history(*channel).await?);
        }
        pictures.push(Picture {
            histories,
            rows,
            position: welcome.inbox_position,
        });
    }
    Ok(pictures)
}

/// People, channels and messages; a part of it may still be in front of the index.
async fn furnish(node: &Node) -> Result<(Vec<Login>, Vec<ChannelId>)> {
    let api = api(node);
    let mut logins = Vec::new();
    for handle in ["ann", "ben", "cleo"] {
        logins.push(api.sign_up(handle, PASSWORD).await?);
    }
    let users: Vec<_> = logins.iter().map(|login| login.user).collect();
    let channels = vec![
        api.group(&logins[0].access_token, "house", &users[1..])
            .await?,
        api.group(&logins[1].access_token, "garden", &[users[0], users[2]])
            .await?,
    ];
    chat(node, &logins, &channels, 0).await?;
    Ok((logins, channels))
}

async fn chat(node: &Node, logins: &[Login], channels: &[ChannelId], from: u64) -> Result<()> {
    let mut n = from;
    for login in logins {
        for channel in channels {
            let mut client = enter(node, login, *channel, 1).await?;
            for _ in 0..20 {
                n += 1;
                client.say(1, &message(n)).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_index_is_rebuilt_equal() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let (logins, channels) = furnish(&node).await?;
    let before = picture(&node, &logins, &channels).await?;
    node.terminate();
    node.ended(SOON).await?;
    fs::remove_dir_all(place.data_folder("index")?)?;

    let node = place.start().await?;
    ensure!(picture(&node, &logins, &channels).await? == before);
    // Keys are part of what is derived.
    let mut client = enter(&node, &logins[0], channels[0], 1).await?;
    let ack = client.say(1, &message(1).again()).await?;
    ensure!(ack.flags == conch_wire::AckFlags::DUP, "{ack:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_copy_of_the_index_is_brought_forward() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let (logins, channels) = furnish(&node).await?;
    node.terminate();
    node.ended(SOON).await?;
    let older = place.path().join("older-index");
    copy_folder(&place.data_folder("index")?, &older)?;

    let node = place.start().await?;
    chat(&node, &logins, &channels, 1_000).await?;
    let before = picture(&node, &logins, &channels).await?;
    node.kill();
    let index = place.data_folder("index")?;
    fs::remove_dir_all(&index)?;
    copy_folder(&older, &index)?;

    let node = place.start().await?;
    ensure!(picture(&node, &logins, &channels).await? == before);
    Ok(())
}

/// How the node ends when its data is not what it may be.
const EXIT_DATA: i32 = 3;
/// Larger than a segment of the log.
const SEGMENTS_BYTES: usize = 70 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_older_than_the_log_reaches_back_is_refused_with_a_clear_word() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let text = "ẞ".repeat(limits::TEXT_CHARS_MAX);
    let mut n = 0;
    while n * text.len() < SEGMENTS_BYTES {
        ann.say(1, &Draft::text(key(n as u64), text.clone()))
            .await?;
        n += 1;
    }
    node.terminate();
    node.ended(SOON).await?;
    // As if the oldest segment had been recycled long ago and the index had been set back to before that.
    let log = place.data_folder("log")?;
    let mut segments: Vec<_> = fs::read_dir(&log)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.sort();
    ensure!(segments.len() >= 2, "{segments:?}");
    fs::remove_file(&segments[0])?;
    let index = place.data_folder("index")?;
    let kept = place.path().join("index-of-now");
    fs::rename(&index, &kept)?;
    let (status, output) = place.plan.spawn()?.ended().await?;
    ensure!(status.code() == Some(EXIT_DATA), "{status}\n{output}");
    ensure!(
        output.contains("index") && output.contains("restore"),
        "{output}"
    );

    // Nothing was changed by the refusal: with the newer index it starts.
    if index.exists() {
        fs::remove_dir_all(&index)?;
    }
    fs::rename(&kept, &index)?;
    let node = place.start().await?;
    let (mut ben, _) = connect(&node, &pair.ben).await?;
    let rows = ben.first_changes().await?.rows;
    ensure!(rows[0].head.head_ordinal as usize == n, "{rows:?}");
    Ok(())
}
