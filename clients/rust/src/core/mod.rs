//! The sans-IO core of a client: everything that a chat client must get right, without a socket, a clock or a disk.
//!
//! In go [`Input`]s (a transport opened, bytes came, a tick, a command) with the time; out come [`Outputs`] (steps to
//! store, frames to write, connections to open or close, events for the application) and the time of the next tick. The
//! driver in `native` carries them out with tokio and SQLite; a test or a browser does it with other means.
//!
//! ```text
//! loop { core.handle(now, input)...; out = core.take_outputs();
//!        store(out.persist)?; write(out.frames); out.link ...; give(out.events); sleep until core.wake_at() }
//! ```
//!
//! What it promises: own messages keep their order and arrive once, whatever is cut when; each channel's events are given
//! out in the order of its log, each once; the sync token never passes a change that is not remembered. It allocates by
//! what the server sends within its limits, never panics on what comes from outside, and decides nothing by the wall clock.
//!
//! | file | concept |
//! |---|---|
//! | `connect.rs` | when there is a connection: backoff, GOAWAY, tokens, beat |
//! | `resume.rs` | HELLO and WELCOME |
//! | `receive.rs` | frames → the concept that they belong to |
//! | `sending.rs`, `outbox.rs`, `ended.rs` | own messages on their way out, and those whose end is known |
//! | `merge.rs`, `channel.rs`, `placing.rs` | events into their order |
//! | `catchup.rs` | SYNC and HISTORY: finding and filling gaps |
//! | `reading.rs`, `marks.rs` | read marks and unread |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conch_wire::event::SendFlags;
use conch_wire::frame::PushMode;
use conch_wire::limits::CREDIT_BYTES;
use conch_wire::{ChannelId, ClientFrame, Code, MessageKey, Seq};

mod advice;
mod alias;
mod backoff;
mod catchup;
mod channel;
mod connect;
mod credit;
mod ended;
mod event;
mod heartbeat;
mod marks;
mod merge;
mod out;
mod outbox;
mod persist;
mod placing;
mod reading;
mod receive;
mod requests;
mod resume;
mod sending;

pub use event::{
    ChannelInfo, ConnectionState, Content, Event, Message, OutboxMessage, Preview, RefusalAdvice,
    RefusalReason, SendState, StopReason,
};
pub use marks::Marks;
pub use out::{Answer, LinkCommand, Outcome, Outputs};
pub use outbox::{OutboxItem, OutboxState};
pub use persist::{ChannelRow, Listing, ListingPhase, Loaded, MessageRow, Meta, Persist};

use alias::AliasBook;
use backoff::Jitter;
use catchup::SyncState;
use channel::Channel;
use connect::Link;
use out::FrameWriter;
use outbox::Outbox;
use requests::Requests;

/// Milliseconds on a clock that never goes back; where it starts does not matter.
pub type Ms = u64;

/// Settings of a core.
#[derive(Clone, Debug)]
pub struct Config {
    /// Program and version, for the server's logs; ≤ 64 bytes.
    pub client: String,
    /// Events of all channels, or only of opened ones.
    pub push: PushMode,
    /// How much the server may push before it hears from us, in bytes.
    /// At most [`CREDIT_BYTES`].
    pub credit_bytes: u32,
    /// A channel that is new to this device starts with its newest events, so many; the older ones are loaded on demand.
    pub first_sight_events: u32,
    /// In a full listing, the channels used last, so many, start with events; the others start empty.
    pub first_sight_channels: u32,
    /// The newest events of a channel that are kept when nobody looks at it; twice as many before the rest is let go of. What
    /// was loaded above that is loaded again when it is wanted.
    pub held_events_max: u32,
    /// Messages waiting to be sent, or given up and not cancelled; more are not taken.
    pub outbox_items_max: usize,
    /// Ceiling of the first delay before connecting again, in milliseconds.
    pub reconnect_base_ms: Ms,
    /// Ceiling of all delays before connecting again, in milliseconds.
    pub reconnect_cap_ms: Ms,
    /// Seed of the jitter. Two clients with the same seed come back together: draw it from the system.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            client: concat!("conch-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            push: PushMode::All,
            credit_bytes: CREDIT_BYTES,
            first_sight_events: 200,
            first_sight_channels: 100,
            held_events_max: 200,
            outbox_items_max: 10_000,
            reconnect_base_ms: 250,
            reconnect_cap_ms: 30_000,
            seed: 0,
        }
    }
}

/// Something the core is told.
#[derive(Debug)]
pub enum Input {
    /// Connect, and stay connected. Also after [`ConnectionState::Stopped`], once what stopped it is mended.
    Start,
    /// The transport of `connection` is open, and this is the token to use on it.
    Connected {
        /// Which one.
        connection: u64,
        /// For HELLO.
        token: String,
    },
    /// One WebSocket message, or what came on a stream: whole frames.
    Received {
        /// Where it came from.
        connection: u64,
        /// The frames.
        bytes: Bytes,
    },
    /// The transport is gone or did not come to be.
    Closed {
        /// Which one.
        connection: u64,
        /// The close code, if the server said one or sent what the transport could not make frames of.
        code: Option<u16>,
    },
    /// The provider has another token.
    TokenRefreshed {
        /// The connection that needs it.
        connection: u64,
        /// For AUTH_REFRESH.
        token: String,
    },
    /// The provider has no token to give, for good: the person must log in again.
    TokenRejected {
        /// The connection that needs it.
        connection: u64,
    },
    /// The person is back: do not sit out the delay.
    Hurry,
    /// This device's network is another one: the connection must show soon that it outlived the change.
    NetworkChanged,
    /// The time that [`Core::wake_at`] asked for has come.
    Tick,
    /// The wall clock, ms since 1970: at the start, and about once an hour. Messages that are too old are given up.
    Expire {
        /// By this device's clock.
        wall_ms: u64,
    },
    /// The application wants something.
    Command(Command),
}

/// Something the application wants.
#[derive(Debug)]
pub enum Command {
    /// A message whose tail was checked with `conch_wire::event::check_send_tail` and for which [`Core::outbox_room`] said
    /// that there is room.
    Send {
        /// Where to.
        channel: ChannelId,
        /// 16 random bytes, never used before.
        key: MessageKey,
        /// An [`conch_wire::EventKind`] that is a message.
        kind: u8,
        /// TABLE or nothing.
        flags: SendFlags,
        /// The body.
        tail: Bytes,
        /// ms since 1970 by this device's clock.
        created_ms: u64,
    },
    /// Send a message again that was given up; see [`Core::retry_key`].
    Retry {
        /// Its key.
        key: MessageKey,
        /// 16 random bytes, never used before, for the case that the old key cannot be used.
        fresh_key: MessageKey,
        /// ms since 1970 by this device's clock.
        wall_ms: u64,
    },
    /// Take a message out of the outbox; see [`Core::can_cancel`].
    Cancel {
        /// Its key.
        key: MessageKey,
    },
    /// The person has read up to here.
    MarkRead {
        /// The channel.
        channel: ChannelId,
        /// The last event that was read.
        seq: Seq,
    },
    /// The application shows the channel; it need not be known yet.
    Open {
        /// The channel.
        channel: ChannelId,
    },
    /// The application shows the channel no longer.
    Close {
        /// The channel.
        channel: ChannelId,
    },
    /// Store older events than those that this device holds; answered with the ticket.
    LoadOlder {
        /// For the answer.
        ticket: u64,
        /// The channel.
        channel: ChannelId,
        /// How many at most.
        items: u16,
    },
    /// Read events without storing them, oldest first; answered with the ticket.
    LoadRange {
        /// For the answer.
        ticket: u64,
        /// The channel.
        channel: ChannelId,
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
        /// How many at most.
        items: u16,
    },
    /// Say goodbye and stay disconnected.
    Stop,
}

/// A client without IO; see the module's head.
// All fields that end with a connection are in `Link`, `AliasBook` and `Requests`.
#[derive(Debug)]
pub struct Core {
    config: Config,
    jitter: Jitter,
    meta: Meta,
    channels: BTreeMap<ChannelId, Channel>,
    outbox: Outbox,
    /// Own messages that the server has, by their place, which is not reached.
    unplaced: BTreeMap<(ChannelId, Seq), OutboxItem>,
    /// Own messages that are given up, by id.
    refused: BTreeMap<u64, OutboxItem>,
    /// Channels whose outbox is another, to be said when the input is dealt with.
    outbox_changed: BTreeSet<ChannelId>,
    sync: SyncState,
    link: Link,
    aliases: AliasBook,
    /// Channels of HELLO's cursors, in their order: a refusal names the index.
    cursors: Vec<ChannelId>,
    requests: Requests,
    frames: FrameWriter,
    out: Outputs,
    /// Channels whose row is to be stored, and said to the application, when the input is dealt with.
    changed: BTreeSet<ChannelId>,
    /// Channels that may have a hole to fetch.
    gaps: BTreeSet<ChannelId>,
    /// Channels that may have a mark to tell.
    marks_due: BTreeSet<ChannelId>,
    /// Channels whose count of messages is to be asked for.
    uncounted: BTreeSet<ChannelId>,
    /// Channels that the application shows.
    shown: BTreeSet<ChannelId>,
    used: u64,
    /// Channels of a full listing that still start with events. Outlasts a cut in the middle of the listing; a program that
    /// starts in the middle of one begins anew, as too many events harm less than too few.
    first_sights: u32,
}

impl Core {
    /// A core with what was stored. It does nothing until [`Input::Start`].
    pub fn new(mut config: Config, loaded: Loaded) -> Core {
        // The server caps what it grants itself: a larger window here would never be half used.
        config.credit_bytes = config.credit_bytes.clamp(1, CREDIT_BYTES);
        let used = loaded.channels.iter().map(|row| row.used).max();
        let marks_due = loaded
            .channels
            .iter()
            .filter(|row| row.marks.wanted > 0)
            .map(|row| row.channel)
            .collect();
        let next_id = loaded.outbox.iter().map(|item| item.id + 1).max();
        let mut waiting = Vec::new();
        let mut stored = Vec::new();
        let mut refused = BTreeMap::new();
        for item in loaded.outbox {
            match item.state {
                OutboxState::Waiting => waiting.push(item),
                OutboxState::Stored { .. } => stored.push(item),
                OutboxState::Refused(_) => {
                    refused.insert(item.id, item);
                }
            }
        }
        let mut core = Core {
            jitter: Jitter::new(config.seed),
            link: Link::new(&config),
            first_sights: config.first_sight_channels,
            config,
            meta: loaded.meta,
            channels: loaded
                .channels
                .into_iter()
                .map(|row| (row.channel, Channel::load(row)))
                .collect(),
            outbox: Outbox::load(waiting, next_id.unwrap_or(1)),
            unplaced: BTreeMap::new(),
            refused,
            outbox_changed: BTreeSet::new(),
            sync: SyncState::default(),
            aliases: AliasBook::default(),
            cursors: Vec::new(),
            requests: Requests::default(),
            frames: FrameWriter::default(),
            out: Outputs::default(),
            changed: BTreeSet::new(),
            gaps: BTreeSet::new(),
            marks_due,
            uncounted: BTreeSet::new(),
            shown: BTreeSet::new(),
            used: used.unwrap_or(0),
        };
        core.begin(stored);
        core
    }

    /// Takes up what was stored: messages that wait for their place wait on, and no channel holds more than it should.
    fn begin(&mut self, stored: Vec<OutboxItem>) {
        for item in stored {
            match item.state {
                OutboxState::Stored { seq, .. } if self.await_place(&item) => {
                    self.unplaced.insert((item.channel, seq), item);
                }
                _ => self.out.persist.push(Persist::OutboxRemoved(item.id)),
            }
        }
        let channels: Vec<_> = self.channels.keys().copied().collect();
        for channel in channels {
            self.trim(channel, self.config.held_events_max);
        }
        self.say_changes();
        // Nobody listens yet: who asks is told as it is.
        self.out.events.clear();
    }

    /// Deals with one input. `now` never goes back.
    pub fn handle(&mut self, now: Ms, input: Input) {
        match input {
            Input::Start => self.on_start(now),
            Input::Connected { connection, token } => self.on_connected(now, connection, token),
            Input::Received { connection, bytes } => self.on_received(now, connection, bytes),
            Input::Closed { connection, code } => self.on_closed(now, connection, code),
            Input::TokenRefreshed { connection, token } => {
                self.on_token_refreshed(connection, token);
            }
            Input::TokenRejected { connection } => self.on_token_rejected(connection),
            Input::Hurry => self.on_hurry(now),
            Input::NetworkChanged => self.on_network_changed(now),
            Input::Tick => {}
            Input::Expire { wall_ms } => self.on_expire(now, wall_ms),
            Input::Command(command) => self.on_command(now, command),
        }
        self.settle(now);
    }

    fn on_command(&mut self, now: Ms, command: Command) {
        match command {
            Command::Send {
                channel,
                key,
                kind,
                flags,
                tail,
                created_ms,
            } => {
                let item = OutboxItem {
                    id: self.outbox.next_id(),
                    channel,
                    key,
                    kind,
                    flags,
                    tail,
                    created_ms,
                    after: self.newest_held(channel),
                    state: OutboxState::Waiting,
                };
                self.on_send(item);
            }
            Command::Retry {
                key,
                fresh_key,
                wall_ms,
            } => self.on_retry(key, fresh_key, wall_ms),
            Command::Cancel { key } => self.on_cancel(key),
            Command::MarkRead { channel, seq } => self.on_mark_read(channel, seq),
            Command::Open { channel } => self.on_open(now, channel),
            Command::Close { channel } => self.on_close(channel),
            Command::LoadOlder {
                ticket,
                channel,
                items,
            } => self.on_load_older(ticket, channel, items),
            Command::LoadRange {
                ticket,
                channel,
                from,
                to,
                items,
            } => self.on_load_range(ticket, channel, from, to, items),
            Command::Stop => self.on_stop(),
        }
    }

    /// Lets everything go on that can, and stores what changed. Runs after every input, a tick included.
    fn settle(&mut self, now: Ms) {
        self.pump_link(now);
        if self.link.is_online() {
            self.pump_sync(now);
            self.pump_sends(now);
            self.pump_gaps(now);
            self.pump_marks(now);
            self.pump_uncounted();
            self.link.heartbeat.waits(now, self.requests.wait());
        }
        self.say_changes();
    }

    fn say_changes(&mut self) {
        for channel in std::mem::take(&mut self.changed) {
            if let Some(channel) = self.channels.get(&channel) {
                self.out
                    .persist
                    .push(Persist::Channel(Box::new(channel.row())));
                self.out.events.push(Event::Channel(channel.info()));
            }
        }
        for channel in std::mem::take(&mut self.outbox_changed) {
            self.out.events.push(Event::Outbox { channel });
        }
    }

    /// What is to be done; see [`Outputs`]. Taken after any number of inputs.
    pub fn take_outputs(&mut self) -> Outputs {
        let mut out = std::mem::take(&mut self.out);
        out.frames.extend(self.frames.take());
        out
    }

    /// When the next [`Input::Tick`] is due, if none comes before.
    pub fn wake_at(&self) -> Option<Ms> {
        let link = self.link.next_at();
        if !self.link.is_online() {
            return link;
        }
        let marks = self.marks_due.iter().filter_map(|id| {
            let channel = self.channels.get(id)?;
            channel.has_mark_to_tell().then_some(channel.read_due)
        });
        let gaps = self.next_gap_at();
        let sends = self.next_send_at();
        let sync = self.next_sync_at();
        [link, gaps, marks.min(), sends, sync]
            .into_iter()
            .flatten()
            .min()
    }

    /// All channels, without order.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.channels.values().map(Channel::info).collect()
    }

    /// One channel.
    pub fn channel(&self, channel: ChannelId) -> Option<ChannelInfo> {
        self.channels.get(&channel).map(Channel::info)
    }

    /// Whether one more message can wait to be sent.
    pub fn outbox_room(&self) -> bool {
        let kept = self.unplaced.len() + self.refused.len();
        self.outbox.len() + kept < self.config.outbox_items_max
    }

    /// What is known beyond channels.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    fn put(&mut self, frame: &ClientFrame<'_>) {
        self.frames.put(frame);
    }

    /// What the server sent makes no sense: this connection cannot be trusted.
    fn distrust(&mut self, now: Ms, what: &'static str) {
        self.drop_connection(now, Code::BadFrame, what);
    }
}
