//! The smallest client that passes: section 23 of `docs/protocol.md`, written out, behind the line protocol.
//!
//! It shows people who write a client in another language what is needed, and it shows that the script can fail: with
//! `--wrong NAME` it breaks one rule on purpose, and the test `script` wants the matching cases to find it. It keeps its
//! whole state in one JSON file, written anew at every change, which no real client should do.

mod carrier;
mod client;
mod pinned;
mod store;

use anyhow::{Context, Result};
use carrier::{Carrier, Dialer, Received};
use client::Client;
use conch_conformance::host::Command;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep_until};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let wrong = std::env::args().skip_while(|it| it != "--wrong").nth(1);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut next = async || -> Result<Option<Command>> {
        let line = lines.next_line().await?;
        line.map(|line| serde_json::from_str(&line).context(line))
            .transpose()
    };
    let Some(Command::Connect {
        url,
        token,
        data_dir,
        reconnect_base_ms,
        quic,
        push,
    }) = next().await?
    else {
        anyhow::bail!("the first command is connect");
    };
    let dialer = Dialer::new(url, quic, wrong.clone())?;
    let mut client = Client::new(data_dir.as_ref(), token, reconnect_base_ms, wrong)?;
    client.takes_opened_only(push.as_deref() == Some("opened"));
    let mut carrier: Option<Carrier> = None;
    loop {
        if let Some(carrier) = &mut carrier {
            let frames = client.take_frames();
            if !frames.is_empty() {
                carrier.send(frames).await;
            }
        }
        if client.take_leave()
            && let Some(leaving) = carrier.take()
        {
            leaving.close().await;
            client.on_closed(None)?;
        }
        tokio::select! {
            command = next() => match command? {
                None | Some(Command::Quit) => {
                    if let Some(mut carrier) = carrier {
                        carrier.send(client.goodbye()).await;
                        carrier.close().await;
                    }
                    return Ok(());
                }
                Some(command) => client.on_command(command)?,
            },
            received = receive(&mut carrier) => match received {
                Received::Frames(bytes) => client.on_bytes(bytes)?,
                Received::Closed(code) => {
                    carrier = None;
                    client.on_closed(code)?;
                }
            },
            () = until(client.connect_at()), if carrier.is_none() => {
                carrier = dialer.connect().await.ok();
                match carrier {
                    Some(_) => client.on_connected()?,
                    None => client.on_closed(None)?,
                }
            }
            () = until(client.tick_at()), if carrier.is_some() => {
                if client.on_tick() {
                    carrier = None;
                    client.on_closed(None)?;
                }
            }
        }
    }
}

async fn receive(carrier: &mut Option<Carrier>) -> Received {
    match carrier {
        Some(carrier) => carrier.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
