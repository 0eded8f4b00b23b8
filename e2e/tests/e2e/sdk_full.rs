//! The SDK where there is no room, and where nothing may be written: a clear word, and nothing lost that was shown as sent.
//!
//! The application runs as another process of this test program, in a mount namespace of its own, with its data folder on
//! a small file system that it fills up.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use conch_client::{
    Client, ClientBuilder, ClientError, Config, ConnectionState, SendOutcome, StopReason,
};
use conch_e2e::{PASSWORD, Pair, Place, SOON, eventually, texts};
use conch_wire::ChannelId;

const ENDPOINT: &str = "CONCH_E2E_FULL_ENDPOINT";
const FOLDER: &str = "CONCH_E2E_FULL_FOLDER";
const CHANNEL: &str = "CONCH_E2E_FULL_CHANNEL";
/// What the script of the namespace runs: a small file system at the folder, then this program.
const SCRIPT: &str =
    "mount -t tmpfs -o size=4m tmpfs \"$CONCH_E2E_FULL_FOLDER\" && exec \"$0\" \"$@\"";

async fn open(endpoint: &str, folder: &Path) -> Result<Client, ClientError> {
    ClientBuilder::new(endpoint, folder)
        .config(Config {
            reconnect_base_ms: 50,
            reconnect_cap_ms: 400,
            ..Config::default()
        })
        .open()
        .await
}

/// Takes all the room that there is.
fn fill(path: &Path) -> Result<()> {
    let mut bytes = vec![0; 65_536];
    let mut file = fs::File::create(path)?;
    while !bytes.is_empty() {
        match std::io::Write::write(&mut file, &bytes) {
            Ok(_) => {}
            Err(_) => bytes.truncate(bytes.len() / 2),
        }
    }
    Ok(())
}

async fn stored(client: &Client, channel: ChannelId, text: &str) -> Result<()> {
    let sending = client.send(channel, text).await?;
    let outcome = tokio::time::timeout(SOON, sending).await??;
    ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
    Ok(())
}

/// Writes until it is refused; everything that was taken before is to arrive. Returns how many were taken.
async fn write_until_full(client: &Client, channel: ChannelId) -> Result<u32> {
    for n in 0..10_000 {
        match client
            .send(channel, &format!("{n} {}", "x".repeat(4_000)))
            .await
        {
            Ok(_) => {}
            Err(error) => {
                // What the client itself had to write may have found no room first.
                let has_ended = matches!(error, ClientError::Storage);
                ensure!(has_ended || error.code() == "data_folder_full", "{error}");
                return Ok(n);
            }
        }
    }
    anyhow::bail!("there is no end of room")
}

async fn in_a_small_folder(endpoint: &str, folder: &Path, channel: ChannelId) -> Result<()> {
    let data = folder.join("app");
    let client = open(endpoint, &data).await?;
    client.log_in("ann", PASSWORD, "app").await?;
    client.connect().await?;
    stored(&client, channel, "before").await?;

    let filler = folder.join("filler");
    fill(&filler)?;
    let _ = client.disconnect().await;
    let taken = write_until_full(&client, channel).await?;
    eventually("the end of the client", SOON, || async {
        client.connection() == ConnectionState::Stopped(StopReason::Storage)
    })
    .await?;
    let error = client
        .send(channel, "more")
        .await
        .err()
        .context("no room, still")?;
    ensure!(matches!(error, ClientError::Storage), "{error}");
    client.close().await;
    drop(client);

    // No room to begin with.
    let other = open(endpoint, &folder.join("other")).await;
    let error = other.err().context("no room for another")?;
    ensure!(error.code() == "data_folder_full", "{error}");

    fs::remove_file(filler)?;
    let client = open(endpoint, &data).await?;
    ensure!(client.rebuilt().is_none());
    ensure!(client.outbox().await?.len() as u32 == taken);
    client.connect().await?;
    stored(&client, channel, "after").await?;
    client.close().await;
    drop(client);

    // SQLite closes its files on threads of its own, which may be a moment behind.
    eventually("a folder in which nothing can be written", SOON, || async {
        Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(folder)
            .status()
            .is_ok_and(|it| it.success())
    })
    .await?;
    let error = open(endpoint, &data)
        .await
        .err()
        .context("nothing can be written")?;
    ensure!(error.code() == "data_folder_read_only", "{error}");
    Ok(())
}

#[test]
#[ignore = "is the application that the test below starts"]
fn application() -> Result<()> {
    let Ok(endpoint) = env::var(ENDPOINT) else {
        return Ok(());
    };
    let folder = env::var(FOLDER)?;
    let channel = env::var(CHANNEL)?.parse()?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(in_a_small_folder(&endpoint, folder.as_ref(), channel))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_or_read_only_folder_is_said_and_costs_nothing_that_was_taken() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let folder = place.path().join("small");
    fs::create_dir(&folder)?;
    let app = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
        .arg(env::current_exe()?)
        .args([
            "--exact",
            "sdk_full::application",
            "--ignored",
            "--nocapture",
        ])
        .env(ENDPOINT, node.base_url())
        .env(FOLDER, &folder)
        .env(CHANNEL, pair.channel.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = tokio::task::spawn_blocking(|| app.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );

    let texts = texts(&node, &pair.ben, pair.channel).await?;
    let first: Vec<_> = texts
        .iter()
        .map(|text| text.split(' ').next().unwrap())
        .collect();
    let taken = (0..first.len() - 2).map(|n| n.to_string());
    let wanted: Vec<_> = ["before".to_owned()]
        .into_iter()
        .chain(taken)
        .chain(["after".to_owned()])
        .collect();
    ensure!(first == wanted, "{first:?}");
    Ok(())
}
