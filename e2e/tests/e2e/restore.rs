//! A data folder that was set back to an older copy: clients are told, and load again. No channel is skipped, and the
//! seqs that were given twice confuse nobody.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use conch_e2e::{
    PASSWORD, Place, SOON, api, connect, copy_folder, enter, hello, key, message, texts,
};
use conch_loadtest::http::Login;
use conch_loadtest::node::{Node, program};
use conch_loadtest::raw::{Draft, RawClient};
use conch_wire::frame::Cursor;
use conch_wire::{ChannelId, ServerFrame};

async fn say(node: &Node, login: &Login, channel: ChannelId, n: u64, text: &str) -> Result<u32> {
    let mut client = enter(node, login, channel, 1).await?;
    Ok(client
        .say(1, &Draft::text(key(n), text.to_owned()))
        .await?
        .seq)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_folder_makes_clients_load_again_and_skips_no_channel() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let api = api(&node);
    let ann = api.sign_up("ann", PASSWORD).await?;
    let ben = api.sign_up("ben", PASSWORD).await?;
    let mut channels = Vec::new();
    for title in ["one", "two", "three"] {
        channels.push(api.group(&ann.access_token, title, &[ben.user]).await?);
    }
    for (n, channel) in channels.iter().enumerate() {
        say(&node, &ann, *channel, n as u64, "kept").await?;
    }
    node.terminate();
    node.ended(SOON).await?;
    let backup = place.path().join("backup");
    copy_folder(&place.plan.data(), &backup)?;

    // What happens now will be lost with the disk.
    let node = place.start().await?;
    let mut last = BTreeMap::new();
    for (n, channel) in channels.iter().enumerate() {
        for round in 0..3 {
            let n = (10 + n * 10 + round) as u64;
            last.insert(*channel, say(&node, &ann, *channel, n, "lost").await?);
        }
    }
    let (mut device, before) = connect(&node, &ben).await?;
    let changes = device.first_changes().await?;
    drop(device);
    node.kill();
    fs::remove_dir_all(place.plan.data())?;
    copy_folder(&backup, &place.plan.data())?;
    let minted = Command::new(program("conch")?)
        .args(["data", "new-generation", "--data"])
        .arg(place.plan.data())
        .output()?;
    ensure!(minted.status.success(), "{minted:?}");

    let node = place.start().await?;
    // The same seqs are given to other messages, beyond what the device held.
    for (n, channel) in channels.iter().enumerate().skip(1) {
        for round in 0..5 {
            let n = (100 + n * 10 + round) as u64;
            say(&node, &ann, *channel, n, "new").await?;
        }
    }
    let mut back = hello(&ben);
    back.sync_token = changes.token;
    back.cursors = last
        .iter()
        .zip(1..)
        .map(|((channel, seq), alias)| Cursor {
            channel: *channel,
            generation: before.generation,
            seq: *seq,
            alias,
        })
        .collect();
    let (mut device, after) = RawClient::open(node.http(), back).await?;
    ensure!(after.generation != before.generation, "the same generation");
    ensure!(!after.resumed);
    let mut resynced = 0;
    while resynced < channels.len() {
        let frame = device
            .wait_for("CHANNEL_OPENED", SOON, |f| {
                matches!(f, ServerFrame::ChannelOpened { .. })
            })
            .await?;
        if let ServerFrame::ChannelOpened { opened, .. } = frame {
            ensure!(opened.resync, "{opened:?}");
            resynced += 1;
        }
    }
    let listing = device.first_changes().await?;
    ensure!(
        listing.reset && listing.rows.len() == channels.len(),
        "{listing:?}"
    );
    for (n, channel) in channels.iter().enumerate() {
        let mut wanted = vec!["kept"];
        wanted.extend(std::iter::repeat_n("new", if n == 0 { 0 } else { 5 }));
        ensure!(texts(&node, &ben, *channel).await? == wanted);
    }
    // Ids go on behind those that were given out before the restore.
    let fresh = conch_e2e::api(&node).sign_up("cleo", PASSWORD).await?;
    ensure!(fresh.user != ann.user && fresh.user != ben.user);
    let mut client = enter(&node, &ann, channels[0], 1).await?;
    client.say(1, &message(999)).await?;
    Ok(())
}
