//! An application under test: the real SDK with its data folder, reporting to the checker what an application is shown.
//!
//! The counterpart of [`crate::device`], which speaks the protocol itself. Here the SDK merges, repeats and remembers, and
//! the checker judges what comes out of it: every message once, in order, and every promise of an outcome kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use conch_client::core::{Config, ConnectionState, Content, Event, Message};
use conch_client::{Client, ClientBuilder, EventStream, SendOutcome, Transports};
use conch_wire::{ChannelId, DeviceId, EventKind, MessageKey, Seq, UserId};
use tokio::task::JoinHandle;

use crate::checker::{Fingerprint, Observed};
use crate::device::SharedChecker;
use crate::raw::Transport;

/// A running application; its client closes when it is dropped.
#[derive(Debug)]
pub struct App {
    pub user: UserId,
    pub device: DeviceId,
    client: Client,
    checker: SharedChecker,
    counts: Arc<Counts>,
    listener: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    unsettled: AtomicUsize,
    untold: AtomicU64,
    /// Channels that it was told to forget: none in a run without a restore.
    forgotten: AtomicU64,
    online: AtomicU64,
    shown: AtomicU64,
}

/// Who an application is and where it connects.
#[derive(Clone, Debug)]
pub struct AppPlan {
    /// `http://ip:port`.
    pub endpoint: String,
    /// Its data.
    pub folder: PathBuf,
    /// The one transport that it uses.
    pub transport: Transport,
}

/// Counts of an application so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppTally {
    /// Events shown to the application.
    pub shown: u64,
    /// Messages whose outcome was never told, and channels told to be forgotten.
    pub failures: u64,
    /// Times that it came online.
    pub connections: u64,
}

impl AppPlan {
    /// Logs in, and connects.
    pub async fn start(self, handle: &str, password: &str, checker: SharedChecker) -> Result<App> {
        let client = ClientBuilder::new(&self.endpoint, &self.folder)
            .config(Config {
                client: "conch-load sdk".to_owned(),
                first_sight_events: u32::MAX,
                first_sight_channels: u32::MAX,
                reconnect_base_ms: 50,
                reconnect_cap_ms: 400,
                ..Config::default()
            })
            .transports(match self.transport {
                Transport::Quic => Transports::QuicOnly,
                Transport::WebSocket | Transport::Tls => Transports::WebSocketOnly,
            })
            .open()
            .await
            .context("open the SDK's folder")?;
        let account = client.log_in(handle, password, "sdk").await?;
        checker
            .lock()
            .expect("nobody panics while it reports")
            .add_device(account.user, account.device);
        let events = client.events().await?;
        let counts = Arc::new(Counts::default());
        let listener = tokio::spawn(listen(
            events,
            account.device,
            Arc::clone(&checker),
            Arc::clone(&counts),
        ));
        client.connect().await?;
        Ok(App {
            user: account.user,
            device: account.device,
            client,
            checker,
            counts,
            listener,
        })
    }
}

impl App {
    /// Sends a text that nobody sent before.
    pub async fn say(&self, channel: ChannelId, text: String) {
        let print = Fingerprint::of(self.user, EventKind::Text as u8, text.as_bytes());
        // The SDK makes the key itself; the content stands for it.
        let key = MessageKey(print.key_bytes());
        self.counts.unsettled.fetch_add(1, Ordering::Relaxed);
        let (user, device) = (self.user, self.device);
        self.lock().attempted(channel, user, device, key, print);
        let sending = self.client.send(channel, &text).await;
        let client = self.client.clone();
        let counts = Arc::clone(&self.counts);
        let checker = Arc::clone(&self.checker);
        tokio::spawn(async move {
            let (outcome, message) = match sending {
                Ok(sending) => {
                    let message = sending.key();
                    (sending.await.ok(), Some(message))
                }
                Err(_) => (None, None),
            };
            // A person who reads that it was refused puts it away.
            if let (Some(SendOutcome::Refused { .. }), Some(message)) = (&outcome, message) {
                let _ = client.cancel(message).await;
            }
            let mut checker = checker.lock().expect("nobody panics while it reports");
            match outcome {
                Some(SendOutcome::Stored { seq, .. }) => checker.acked(channel, print, seq),
                Some(SendOutcome::Refused { .. }) => {
                    checker.refused(channel, print);
                    checker.given_up(channel, print);
                }
                None => {
                    checker.unknown(channel, print);
                    counts.untold.fetch_add(1, Ordering::Relaxed);
                }
            }
            counts.unsettled.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Moves the read mark.
    pub async fn read(&self, channel: ChannelId, seq: Seq) {
        // Refused or offline: the mark stays; the verdict looks at confirmed ones only.
        let _ = self.client.mark_read(channel, seq).await;
    }

    /// Is without a network for a while.
    pub async fn vanish(&self, time: Duration) {
        let _ = self.client.disconnect().await;
        tokio::time::sleep(time).await;
        let _ = self.client.connect().await;
    }

    /// Is connected from here on, whoever was cut off while it was away.
    pub async fn back(&self) {
        let _ = self.client.connect().await;
    }

    /// Messages without a final outcome.
    pub fn unsettled(&self) -> usize {
        self.counts.unsettled.load(Ordering::Relaxed)
    }

    /// Counts so far.
    pub fn tally(&self) -> AppTally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AppTally {
            shown: read(&self.counts.shown),
            failures: read(&self.counts.untold) + read(&self.counts.forgotten),
            connections: read(&self.counts.online),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, crate::checker::Checker> {
        self.checker.lock().expect("nobody panics while it reports")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(
    mut events: EventStream,
    device: DeviceId,
    checker: SharedChecker,
    counts: Arc<Counts>,
) {
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) => {
                counts.shown.fetch_add(1, Ordering::Relaxed);
                checker
                    .lock()
                    .expect("nobody panics while it reports")
                    .delivered(device, message.channel, observed(&message));
            }
            Event::ChannelReset { .. } => {
                counts.forgotten.fetch_add(1, Ordering::Relaxed);
            }
            Event::Connection(ConnectionState::Online) => {
                counts.online.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

/// What the application sees of a message. Of an event that changes the channel it sees the meaning and not the bytes.
fn observed(message: &Message) -> Observed {
    match &message.content {
        Content::Text { text, mentions } if mentions.is_empty() => Observed::parts(
            message.seq,
            message.author,
            EventKind::Text as u8,
            text.as_bytes(),
        ),
        _ => Observed::change(message.seq),
    }
}
