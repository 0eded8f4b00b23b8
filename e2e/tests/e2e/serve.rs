//! The program itself: starting, stopping, refusing to start, its configuration.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conch_e2e::{Pair, Place, SOON, api, enter, message, texts};
use conch_loadtest::node::program;
use conch_wire::{Code, ServerFrame};
use reqwest::Method;
use std::process::Command;

/// How the node ends when what it was told makes no sense.
const EXIT_CONFIG: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_second_start_everything_is_there() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    for n in 0..50 {
        ann.say(1, &message(n)).await?;
    }
    node.terminate();
    let status = node.ended(SOON).await?;
    ensure!(status.code() == Some(0), "{status}\n{}", node.output());

    let node = place.start().await?;
    // How long it took is a figure of `conch-load measure start`, not of a debug build beside other tests.
    ensure!(texts(&node, &pair.ben, pair.channel).await?.len() == 50);
    api(&node)
        .log_in("ann", conch_e2e::PASSWORD, "third")
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_shutdown_says_goaway_and_finishes_what_was_sent() -> Result<()> {
    let place = Place::new()?;
    let mut node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    for n in 0..50 {
        ann.queue_sends(1, &[message(n)]);
    }
    ann.flush().await?;
    ann.wait_for("the first ack", SOON, |f| {
        matches!(f, ServerFrame::SendAck { .. })
    })
    .await?;
    let began = Instant::now();
    node.terminate();
    ann.wait_for("GOAWAY", SOON, |f| matches!(f, ServerFrame::Goaway { .. }))
        .await?;
    let end = ann.closed(SOON).await?;
    ensure!(matches!(end.code(), Some(Code::GoingAway) | None), "{end}");
    let status = node.ended(SOON).await?;
    ensure!(status.code() == Some(0), "{status}\n{}", node.output());
    ensure!(began.elapsed() < Duration::from_secs(15), "{began:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_says_that_it_lives_and_is_ready() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    for path in ["/livez", "/readyz"] {
        let answer = api(&node).send(Method::GET, path, None, None).await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
    }
    let answer = api(&node).send(Method::GET, "/metrics", None, None).await?;
    ensure!(answer.status() == 404, "metrics are on the public port");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_certificates_it_refuses_to_start_and_says_what_to_set() -> Result<()> {
    let mut place = Place::with_config("")?;
    place.plan.dev = false;
    let (status, output) = place.plan.spawn()?.ended().await?;
    ensure!(status.code() == Some(EXIT_CONFIG), "{status}\n{output}");
    for word in ["cert", "key"] {
        ensure!(output.contains(word), "does not say {word}: {output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_key_in_the_configuration_is_named() -> Result<()> {
    let place = Place::with_config("speling_mistake = 1\n")?;
    let (status, output) = place.plan.spawn()?.ended().await?;
    ensure!(status.code() == Some(EXIT_CONFIG), "{status}\n{output}");
    ensure!(output.contains("speling_mistake"), "{output}");
    let file = place.path().join("conch.toml");
    let checked = Command::new(program("conch")?)
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    ensure!(checked.status.code() == Some(EXIT_CONFIG), "{said}");
    ensure!(said.contains("speling_mistake"), "{said}");
    Ok(())
}

#[test]
fn printed_configuration_is_a_valid_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let conch = program("conch")?;
    let printed = Command::new(&conch)
        .args(["config", "print", "--dev"])
        .output()?;
    ensure!(printed.status.success(), "{printed:?}");
    let file = folder.path().join("conch.toml");
    std::fs::write(&file, &printed.stdout)?;
    let checked = Command::new(&conch)
        .args(["config", "check", "--dev", "--config"])
        .arg(&file)
        .output()?;
    ensure!(checked.status.success(), "{checked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_node_on_the_same_data_is_refused() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let (status, output) = place.plan.spawn()?.ended().await?;
    ensure!(!status.success(), "{status}");
    ensure!(output.contains("in use"), "{output}");
    Pair::meet(&node).await?;
    Ok(())
}
