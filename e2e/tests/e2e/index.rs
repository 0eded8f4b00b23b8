//! The index is derived: without it, or with an older one, everything is the same, as long as the log reaches back.

use std::fs;

use anyhow::{Result, ensure};
use conch_e2e::{PASSWORD, Place, api, connect, copy_folder, enter, message};
use conch_loadtest::http::Login;
use conch_loadtest::node::Node;
use conch_wire::ChannelId;
use conch_wire::frame::{HistoryPage, SyncRow};

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
    node.ended(conch_e2e::SOON).await?;
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
    node.ended(conch_e2e::SOON).await?;
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
