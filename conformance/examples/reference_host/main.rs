//! The smallest client that passes: section 23 of `docs/protocol.md`, written out, behind the line protocol.
//!
//! It shows people who write a client in another language what is needed, and it shows that the script can fail: with
//! `--wrong NAME` it breaks one rule on purpose, and the test `script` wants the matching cases to find it. It keeps its
//! whole state in one JSON file, written anew at every change, which no real client should do.

mod client;
mod store;

use std::time::Duration;

use anyhow::{Context, Result};
use client::Client;
use conch_conformance::host::Command;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

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
    }) = next().await?
    else {
        anyhow::bail!("the first command is connect");
    };
    let mut client = Client::new(data_dir.as_ref(), token, reconnect_base_ms, wrong)?;
    let mut socket: Option<Socket> = None;
    loop {
        if let Some(socket) = &mut socket {
            let frames = client.take_frames();
            if !frames.is_empty() {
                // A connection that breaks here says so when it is read.
                let _ = socket.send(Message::Binary(frames)).await;
            }
        }
        if client.take_leave()
            && let Some(mut leaving) = socket.take()
        {
            let _ = leaving.close(None).await;
            client.on_closed(None)?;
        }
        tokio::select! {
            command = next() => match command? {
                None | Some(Command::Quit) => {
                    if let Some(mut socket) = socket {
                        let _ = socket.send(Message::Binary(client.goodbye())).await;
                        let _ = socket.close(None).await;
                    }
                    return Ok(());
                }
                Some(command) => client.on_command(command)?,
            },
            message = read(&mut socket) => match message {
                Some(Ok(Message::Binary(bytes))) => client.on_bytes(bytes)?,
                Some(Ok(Message::Close(close))) => {
                    socket = None;
                    client.on_closed(close.map(|CloseFrame { code, .. }| code.into()))?;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    socket = None;
                    client.on_closed(None)?;
                }
            },
            () = until(client.connect_at()), if socket.is_none() => {
                socket = connect(&url).await.ok();
                match socket {
                    Some(_) => client.on_connected()?,
                    None => client.on_closed(None)?,
                }
            }
            () = until(client.tick_at()), if socket.is_some() => {
                if client.on_tick() {
                    socket = None;
                    client.on_closed(None)?;
                }
            }
        }
    }
}

async fn read(
    socket: &mut Option<Socket>,
) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn connect(url: &str) -> Result<Socket> {
    let mut request = url.into_client_request()?;
    let offered = HeaderValue::from_static("conch.1");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offered);
    let connected = tokio::time::timeout(Duration::from_secs(5), connect_async(request)).await?;
    Ok(connected?.0)
}
