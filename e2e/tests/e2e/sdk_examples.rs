//! The SDK's examples, run against a real node as they stand in its folder.

use std::path::Path;

use anyhow::{Result, ensure};
use conch_client::ClientBuilder;
use conch_e2e::{PASSWORD, Place, SOON, api, enter, eventually, message, texts};
use conch_loadtest::node::Node;
use conch_wire::ChannelId;

/// The text of the one is the other's file, so what runs here is what the documentation shows.
#[allow(dead_code, reason = "its main function is for the command line")]
#[path = "../../../clients/rust/examples/hello.rs"]
mod hello;
#[allow(dead_code, reason = "its main function is for the command line")]
#[path = "../../../clients/rust/examples/offline.rs"]
mod offline;

struct Scene {
    place: Place,
    node: Node,
    grace: conch_loadtest::http::Login,
    channel: ChannelId,
}

async fn scene() -> Result<Scene> {
    let place = Place::new()?;
    let node = place.start().await?;
    let ada = api(&node).sign_up("ada", PASSWORD).await?;
    let grace = api(&node).sign_up("grace", PASSWORD).await?;
    let channel = api(&node).direct(&ada.access_token, grace.user).await?;
    Ok(Scene {
        place,
        node,
        grace,
        channel,
    })
}

async fn says_hello(scene: &Scene, folder: &Path) -> Result<()> {
    let endpoint = scene.node.base_url();
    let mut grace = enter(&scene.node, &scene.grace, scene.channel, 1).await?;
    let answer = async {
        // What ada says first is in the channel before grace answers.
        eventually("ada's word", SOON, || async {
            let texts = texts(&scene.node, &scene.grace, scene.channel).await;
            texts.is_ok_and(|texts| texts.iter().any(|text| text == "hello"))
        })
        .await?;
        grace.say(1, &message(7)).await?;
        anyhow::Ok(())
    };
    let talk = async { Ok(hello::hello(&endpoint, folder).await?) };
    tokio::time::timeout(SOON, async { tokio::try_join!(talk, answer) }).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn example_hello_sends_receives_and_pages_back() -> Result<()> {
    let scene = scene().await?;
    let mut grace = enter(&scene.node, &scene.grace, scene.channel, 1).await?;
    for n in 100..150 {
        grace.say(1, &message(n)).await?;
    }
    drop(grace);
    says_hello(&scene, &scene.place.path().join("ada")).await?;
    let said = texts(&scene.node, &scene.grace, scene.channel).await?;
    ensure!(said[50..] == ["hello", "message 7"], "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn example_offline_shows_the_last_state_without_a_node() -> Result<()> {
    let scene = scene().await?;
    let folder = scene.place.path().join("ada");
    says_hello(&scene, &folder).await?;
    let endpoint = scene.node.base_url();
    scene.node.kill();
    tokio::time::timeout(SOON, offline::offline(&endpoint, &folder)).await??;
    let client = ClientBuilder::new(&endpoint, &folder).open().await?;
    let channels = client.channels().await?;
    let previews: Vec<_> = channels
        .iter()
        .filter_map(|info| Some(info.last.as_ref()?.text.as_str()))
        .collect();
    ensure!(previews == ["message 7"], "{channels:?}");
    Ok(())
}
