//! The Rust SDK behind the line protocol of the conformance script.
//!
//! Commands become calls of [`Client`], its events become lines; nothing is decided here. The test `script` runs every case
//! against it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use conch_client::core::{Config, ConnectionState, Content, Event, Message};
use conch_client::{
    Client, ClientBuilder, SendHandle, SendOutcome, TokenFuture, TokenProvider, Transports,
};
use conch_conformance::host::{Command, Said, ShownMessage};
use conch_wire::frame::PushMode;
use conch_wire::{ChannelId, Code, MessageKey};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<()> {
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
        bail!("the first command is connect");
    };
    let tokens = DriversTokens(watch::Sender::new(token));
    let given = tokens.0.clone();
    let config = Config {
        reconnect_base_ms,
        push: match push.as_deref() {
            Some("opened") => PushMode::Opened,
            _ => PushMode::All,
        },
        ..Config::default()
    };
    let endpoint = url.replacen("ws", "http", 1).replace("/v1/ws", "");
    let client = ClientBuilder::new(&endpoint, data_dir.as_ref())
        .config(config)
        .program("conch-conform-host-rust")
        .token_provider(Arc::new(tokens))
        .transports(match quic {
            Some(_) => Transports::QuicOnly,
            None => Transports::WebSocketOnly,
        })
        .open()
        .await?;
    // Sends of an earlier run have no handle in this one.
    let earlier = client
        .outbox()
        .await?
        .into_iter()
        .map(|it| it.key)
        .collect();
    let mut events = client.events().await?;
    tokio::spawn(async move {
        let mut told = Told {
            earlier,
            left: HashSet::new(),
        };
        while let Some(event) = events.next().await {
            told.tell(event);
        }
    });
    client.connect().await?;
    loop {
        match next().await? {
            None | Some(Command::Quit) => {
                client.close().await;
                return Ok(());
            }
            Some(Command::Token { token }) => {
                given.send_replace(token);
            }
            Some(command) => act(&client, command).await?,
        }
    }
}

async fn act(client: &Client, command: Command) -> Result<()> {
    match command {
        Command::Send { channel, text, id } => {
            let handle = client.send(ChannelId(channel), &text).await?;
            tokio::spawn(report(handle, channel, id));
        }
        Command::Open { channel } => client.open_channel(ChannelId(channel)).await?,
        Command::Close { channel } => client.close_channel(ChannelId(channel)).await?,
        Command::Read { channel, seq } => client.mark_read(ChannelId(channel), seq).await?,
        Command::Older { channel, items } => {
            let held_from = held(client, channel).await?.map_or(1, |(from, _)| from);
            client
                .history(ChannelId(channel), Some(held_from), items.into())
                .await?;
            say(&Said::Older { channel });
        }
        Command::View { channel } => {
            let messages = match held(client, channel).await? {
                Some((from, to)) if from <= to => {
                    client
                        .history(ChannelId(channel), None, to - from + 1)
                        .await?
                }
                _ => Vec::new(),
            };
            let messages = messages.iter().filter_map(shown).collect();
            say(&Said::View { channel, messages });
        }
        Command::Connect { .. } | Command::Token { .. } | Command::Quit => {}
    }
    Ok(())
}

/// The run of seqs that the device holds.
async fn held(client: &Client, channel: u64) -> Result<Option<(u32, u32)>> {
    let channels = client.channels().await?;
    let it = channels.iter().find(|it| it.channel == ChannelId(channel));
    Ok(it.map(|it| (it.held_from, it.held_to)))
}

async fn report(handle: SendHandle, channel: u64, id: String) {
    match handle.await {
        Ok(SendOutcome::Stored { seq, .. }) => say(&Said::Sent {
            id: Some(id),
            channel,
            seq,
        }),
        Ok(SendOutcome::Refused { reason }) => {
            say(&Said::Refused {
                id: Some(id),
                code: reason.code().map_or(0, Code::number),
            });
        }
        Err(_) => {} // the client was closed first
    }
}

/// What was said once and is not said again.
struct Told {
    earlier: HashSet<MessageKey>,
    left: HashSet<ChannelId>,
}

impl Told {
    fn tell(&mut self, event: Event) {
        match event {
            Event::Connection(state) => {
                let state = match state {
                    ConnectionState::Offline { .. } => "offline",
                    ConnectionState::Connecting => "connecting",
                    ConnectionState::Online => "online",
                    ConnectionState::Stopped(_) => "stopped",
                };
                say(&Said::State {
                    state: state.to_owned(),
                });
            }
            Event::Message(message) => {
                if let Some(shown) = shown(&message) {
                    say(&Said::Message {
                        channel: message.channel.0,
                        message: shown,
                    });
                }
            }
            Event::SendStored {
                channel, key, seq, ..
            } if self.earlier.contains(&key) => {
                say(&Said::Sent {
                    id: None,
                    channel: channel.0,
                    seq,
                });
            }
            Event::SendRefused { key, reason, .. } if self.earlier.contains(&key) => {
                say(&Said::Refused {
                    id: None,
                    code: reason.code().map_or(0, Code::number),
                });
            }
            Event::Channel(info) => {
                let channel = info.channel.0;
                say(&Said::Unread {
                    channel,
                    count: info.unread,
                });
                if !info.left {
                    self.left.remove(&info.channel);
                } else if self.left.insert(info.channel) {
                    say(&Said::Left { channel });
                }
            }
            Event::ChannelRemoved { channel } => say(&Said::Left { channel: channel.0 }),
            Event::ChannelReset { channel } => say(&Said::Reset { channel: channel.0 }),
            Event::Skipped { channel, to, .. } => say(&Said::Skipped {
                channel: channel.0,
                to,
            }),
            _ => {}
        }
    }
}

/// A message as the driver wants it; `None` for what changes the channel.
fn shown(message: &Message) -> Option<ShownMessage> {
    let text = match &message.content {
        Content::Text { text, .. } => Some(text.clone()),
        Content::Payload { .. } => None,
        Content::Unknown { kind } if *kind < 16 => None,
        _ => return None,
    };
    Some(ShownMessage {
        seq: message.seq,
        author: message.author.0,
        text,
    })
}

/// Tokens come from the driver, the next one when it is asked for.
struct DriversTokens(watch::Sender<String>);

impl TokenProvider for DriversTokens {
    fn token(&self, refresh: bool) -> TokenFuture {
        let mut tokens = self.0.subscribe();
        Box::pin(async move {
            if refresh {
                say(&Said::TokenWanted);
                // The sender is in `main`, which outlives every connection.
                let _ = tokens.changed().await;
            }
            Ok(tokens.borrow().clone())
        })
    }
}

/// A line for the driver.
#[allow(
    clippy::print_stdout,
    reason = "lines on standard output are the protocol"
)]
fn say(said: &Said) {
    static LINES: Mutex<()> = Mutex::new(());
    let _whole = LINES.lock();
    println!(
        "{}",
        serde_json::to_string(said).expect("lines are plain data")
    );
}
