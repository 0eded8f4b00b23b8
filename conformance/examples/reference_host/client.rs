//! The reference client between its socket and the driver's lines: bytes and commands in, frames and lines out.
//!
//! Section 23 of `docs/protocol.md`, function by function. The store is saved before frames leave and before lines are said,
//! so a kill at any moment forgets nothing. The rules that `--wrong` breaks are marked by [`Client::is_wrong`].

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use conch_conformance::host::{Command, Said, ShownMessage};
use conch_wire::event::{Ack, EventFlags, PendingAnswer, PendingSend, SendFlags};
use conch_wire::frame::{
    ChannelHead, Cursor, ErrorFrame, Hello, History, HistoryPage, Limits, PushMode, Send,
    SyncChanges, Welcome, frame_type, split_frame,
};
use conch_wire::limits::{CREDIT_BYTES, FRAME_BYTES_MAX, HELLO_PENDING_MAX, SEND_MANY_BYTES_MAX};
use conch_wire::{ChannelId, ClientFrame, Code, Event, MessageKey, ServerFrame, SessionId};
use tokio::time::Instant;

use crate::store::{Channel, Kept, Store, Waiting};

/// Newest events that a channel new to this device starts with.
const FIRST_SIGHT: u32 = 50;
const RECONNECT_CAP_MS: u64 = 30_000;
const RETRY_MS: u64 = 50;

/// What a request without an answer was about.
enum Asked {
    Send { channel: u64, keys: Vec<[u8; 16]> },
    Open(u64),
    Fill(u64),
    Older(u64),
    Sync,
    Other,
}

pub(crate) struct Client {
    store: Store,
    wrong: Option<String>,
    push: PushMode,
    token: String,
    wants_token: bool,
    reconnect_base_ms: u64,
    failures: u32,
    connect_at: Option<Instant>,
    goaway_at: Option<Instant>,
    online: bool,
    /// The word before a close.
    last_word: Option<(u16, u32)>,
    limits: Limits,
    ping_at: Option<Instant>,
    heard: Instant,
    frames: BytesMut,
    /// Lines that wait for what they say to be stored.
    said: Vec<Said>,
    /// A rule of the server's was broken: the connection is left.
    leave: bool,
    position: u64,
    next_request: u32,
    asked: HashMap<u32, Asked>,
    alias_of: HashMap<u64, u32>,
    channel_of: HashMap<u32, u64>,
    next_alias: u32,
    pending: Vec<([u8; 16], u64)>,
    not_before: HashMap<u64, Instant>,
    refused: u32,
    used: u32,
    unseen: HashSet<u64>,
    random: u64,
}

impl Client {
    pub(crate) fn new(
        folder: &Path,
        token: String,
        reconnect_base_ms: u64,
        wrong: Option<String>,
    ) -> Result<Client> {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        Ok(Client {
            store: Store::load(folder)?,
            wrong,
            push: PushMode::All,
            token,
            wants_token: false,
            reconnect_base_ms,
            failures: 0,
            connect_at: Some(Instant::now()),
            goaway_at: None,
            online: false,
            last_word: None,
            limits: Limits::default(),
            ping_at: None,
            heard: Instant::now(),
            frames: BytesMut::new(),
            said: Vec::new(),
            leave: false,
            position: 0,
            next_request: 0,
            asked: HashMap::new(),
            alias_of: HashMap::new(),
            channel_of: HashMap::new(),
            next_alias: 0,
            pending: Vec::new(),
            not_before: HashMap::new(),
            refused: 0,
            used: 0,
            unseen: HashSet::new(),
            random: seed.as_nanos() as u64 ^ u64::from(std::process::id()) << 32,
        })
    }

    pub(crate) fn takes_opened_only(&mut self, is_so: bool) {
        if is_so {
            self.push = PushMode::Opened;
        }
    }

    fn is_wrong(&self, name: &str) -> bool {
        self.wrong.as_deref() == Some(name)
    }

    /// SplitMix64; a real client takes keys from the system's generator.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    fn new_key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.random().to_le_bytes());
        key[8..].copy_from_slice(&self.random().to_le_bytes());
        key
    }

    // What the loop asks.

    pub(crate) fn take_frames(&mut self) -> Bytes {
        self.frames.split().freeze()
    }

    pub(crate) fn take_leave(&mut self) -> bool {
        std::mem::take(&mut self.leave)
    }

    pub(crate) fn connect_at(&self) -> Option<Instant> {
        self.connect_at
    }

    /// The next ping, give-up, retry or farewell.
    pub(crate) fn tick_at(&self) -> Option<Instant> {
        let silence = Duration::from_millis(self.limits.silence_max_ms.into());
        let dead = (self.online).then(|| self.heard + silence);
        let retries = self.not_before.values().copied();
        [self.ping_at, dead, self.goaway_at]
            .into_iter()
            .flatten()
            .chain(retries)
            .min()
    }

    pub(crate) fn goodbye(&mut self) -> Bytes {
        self.put(&ClientFrame::Goodbye);
        self.take_frames()
    }

    /// Says whether the connection is dead or to be left.
    pub(crate) fn on_tick(&mut self) -> bool {
        let now = Instant::now();
        let silence = Duration::from_millis(self.limits.silence_max_ms.into());
        if self.online && now >= self.heard + silence && !self.is_wrong("endures-silence") {
            return true;
        }
        if self.goaway_at.is_some_and(|at| at <= now) {
            return true;
        }
        if self.ping_at.is_some_and(|at| at <= now) {
            self.put(&ClientFrame::Ping { nonce: 1 });
            self.ping_at = Some(now + Duration::from_millis(self.limits.heartbeat_ms.into()));
        }
        let due: Vec<u64> = self
            .not_before
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(it, _)| *it)
            .collect();
        for channel in due {
            self.not_before.remove(&channel);
            self.try_send(channel);
        }
        false
    }

    pub(crate) fn on_command(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Send { channel, text, id } => {
                let key = self.new_key();
                self.store.outbox.push(Waiting {
                    key,
                    channel,
                    id,
                    text,
                    attempted: false,
                    open: false,
                });
                self.try_send(channel);
            }
            Command::Open { channel } => self.open(channel),
            Command::Close { channel } => {
                if let Some(alias) = self.alias_of.remove(&channel) {
                    self.channel_of.remove(&alias);
                    self.put(&ClientFrame::CloseChannel { alias });
                }
            }
            Command::Read { channel, seq } if self.online => {
                self.put(&ClientFrame::Read {
                    request: 0,
                    channel: ChannelId(channel),
                    seq,
                });
            }
            Command::Older { channel, items } => self.older(channel, items),
            Command::View { channel } => self.view(channel),
            Command::Token { token } => {
                self.token = token;
                self.wants_token = false;
                if self.online {
                    let token = self.token.clone();
                    let request = self.ask(Asked::Other);
                    self.put(&ClientFrame::AuthRefresh { request, token });
                } else {
                    self.connect_at = Some(Instant::now());
                }
            }
            _ => {}
        }
        self.save()
    }

    // Connecting.

    pub(crate) fn on_connected(&mut self) -> Result<()> {
        self.connect_at = None;
        self.heard = Instant::now();
        let waiting = self.store.outbox.iter().filter(|it| it.attempted);
        self.pending = waiting
            .map(|it| (it.key, it.channel))
            .take(HELLO_PENDING_MAX)
            .collect();
        if self.is_wrong("forgets-pending") {
            self.store.outbox.retain(|it| !it.attempted);
            self.pending.clear();
        }
        let mut cursors = Vec::new();
        for (id, channel) in &self.store.channels {
            if !channel.left {
                self.next_alias += 1;
                let ahead = if self.is_wrong("claims-too-much") {
                    channel.known
                } else {
                    channel.have
                };
                cursors.push(Cursor {
                    channel: ChannelId(*id),
                    generation: self.store.generation,
                    seq: ahead,
                    alias: self.next_alias,
                });
            }
        }
        let hello = Hello {
            token: self.token.clone(),
            client: "reference 1".to_owned(),
            sync_token: self.store.sync_token.clone(),
            cursors,
            pending: self
                .pending
                .iter()
                .map(|(key, channel)| PendingSend {
                    channel: ChannelId(*channel),
                    key: MessageKey(*key),
                })
                .collect(),
            replaces: self.store.session.map(SessionId),
            credit_bytes: CREDIT_BYTES,
            push: self.push,
            ..Hello::default()
        };
        self.said.push(Said::State {
            state: "connecting".to_owned(),
        });
        self.put(&ClientFrame::Hello(hello));
        Ok(())
    }

    /// The connection is over. By the hundreds of the code, with backoff and full jitter.
    pub(crate) fn on_closed(&mut self, close: Option<u16>) -> Result<()> {
        self.online = false;
        self.ping_at = None;
        self.asked.clear();
        self.alias_of.clear();
        self.channel_of.clear();
        self.not_before.clear();
        self.frames.clear();
        self.used = 0;
        let word = self.last_word.take();
        let code = word.map(|(code, _)| code).or(close).unwrap_or(0);
        let advised = word.map_or(0, |(_, advised)| advised);
        self.said.push(Said::State {
            state: "offline".to_owned(),
        });
        if code / 100 == 46
            || code == Code::SessionReplaced.number()
            || code == Code::UnsupportedVersion.number()
        {
            self.said.push(Said::State {
                state: "stopped".to_owned(),
            });
            self.connect_at = None;
            return self.save();
        }
        if code / 100 == 43 {
            self.forget();
        }
        if code / 100 == 45 && code != Code::HelloTimeout.number() {
            self.want_token();
        }
        let doubled = match self.is_wrong("no-backoff") {
            true => 0,
            false => self.failures.min(20),
        };
        let ceiling = (self.reconnect_base_ms << doubled).min(RECONNECT_CAP_MS);
        self.failures += 1;
        let delay = Duration::from_millis(u64::from(advised) + self.random() % (ceiling + 1));
        let at = (Instant::now() + delay).max(self.goaway_at.take().unwrap_or(Instant::now()));
        self.connect_at = (!self.wants_token).then_some(at);
        self.save()
    }

    fn want_token(&mut self) {
        self.wants_token = true;
        self.said.push(Said::TokenWanted);
    }

    fn forget(&mut self) {
        for channel in self.store.channels.keys() {
            self.said.push(Said::Reset { channel: *channel });
        }
        self.store.channels.clear();
        self.store.sync_token.clear();
    }

    fn on_welcome(&mut self, welcome: &Welcome) {
        if self.store.generation != 0
            && self.store.generation != welcome.generation
            && !self.is_wrong("ignores-generation")
        {
            self.forget();
        }
        self.store.generation = welcome.generation;
        self.store.user = welcome.user.0;
        self.store.session = Some(welcome.session.0);
        self.limits = welcome.limits;
        self.position = welcome.inbox_position;
        self.online = true;
        self.failures = 0;
        self.ping_at = (!self.is_wrong("no-ping"))
            .then(|| Instant::now() + Duration::from_millis(self.limits.heartbeat_ms.into()));
        self.said.push(Said::State {
            state: "online".to_owned(),
        });
        let pending = std::mem::take(&mut self.pending);
        for ((key, channel), answer) in pending.iter().zip(&welcome.pending) {
            match *answer {
                PendingAnswer::Stored { seq, time_ms } => {
                    let ack = Ack {
                        seq,
                        time_ms,
                        flags: Default::default(),
                    };
                    self.acknowledged(*channel, *key, &ack);
                }
                PendingAnswer::Absent => {
                    if let Some(it) = self.store.outbox.iter_mut().find(|it| it.key == *key) {
                        it.open = false;
                    }
                }
                PendingAnswer::Unknown => {}
            }
        }
        let channels: Vec<u64> = self.store.outbox.iter().map(|it| it.channel).collect();
        for channel in channels {
            self.try_send(channel);
        }
        for channel in self.store.channels.keys().copied().collect::<Vec<_>>() {
            self.show(channel);
        }
    }

    // Frames in.

    pub(crate) fn on_bytes(&mut self, mut bytes: Bytes) -> Result<()> {
        self.heard = Instant::now();
        if bytes.len() > 131_072 && self.is_wrong("refuses-large") {
            self.leave = true;
            return self.save();
        }
        while !bytes.is_empty() && !self.leave {
            let split =
                split_frame(&bytes, FRAME_BYTES_MAX)?.context("a message ends within a frame")?;
            let (header, consumed) = (split.header, split.consumed);
            let body = bytes.split_to(consumed).split_off(8);
            match ServerFrame::decode(header, body) {
                Ok(frame) => self.on_frame(frame, consumed as u32),
                Err(_) if self.is_wrong("skips-everything") => {}
                Err(_) => self.leave = true,
            }
        }
        self.save()
    }

    fn on_frame(&mut self, frame: ServerFrame, bytes: u32) {
        match frame {
            ServerFrame::Welcome(welcome) => self.on_welcome(&welcome),
            ServerFrame::Deliver { alias, event } | ServerFrame::Event { alias, event } => {
                self.on_event(alias, event, bytes);
            }
            ServerFrame::SendAck { request, acks } => {
                if let Some(Asked::Send { channel, keys }) = self.asked.remove(&request) {
                    for (key, ack) in keys.iter().zip(&acks) {
                        self.acknowledged(channel, *key, ack);
                    }
                    self.try_send(channel);
                }
            }
            ServerFrame::ChannelHead(_) if self.is_wrong("ignores-heads") => {}
            ServerFrame::ChannelHead(head) => self.note_head(&head, 0),
            ServerFrame::SyncNow if !self.is_wrong("ignores-sync-now") => self.sync(),
            ServerFrame::ChannelOpened { request, opened } => {
                self.asked.remove(&request);
                let channel = opened.head.channel.0;
                if opened.resync && !self.is_wrong("ignores-generation") {
                    self.said.push(Said::Reset { channel });
                    self.store.channels.remove(&channel);
                }
                self.unseen.remove(&channel);
                self.alias_of.insert(channel, opened.alias);
                self.channel_of.insert(opened.alias, channel);
                self.note_head(&opened.head, opened.first_seq);
                self.try_send(channel);
            }
            ServerFrame::SyncChanges { request, changes } => {
                self.asked.remove(&request);
                self.on_changes(changes);
            }
            ServerFrame::HistoryPage { request, page } => {
                let asked = self.asked.remove(&request);
                self.on_page(page, matches!(asked, Some(Asked::Older(_))));
            }
            ServerFrame::Error { request, error } => self.on_error(request, &error),
            ServerFrame::Pong { inbox_position, .. } if inbox_position > self.position => {
                self.position = inbox_position;
                self.sync();
            }
            ServerFrame::Goaway {
                delay_min_ms,
                delay_max_ms,
                ..
            } => {
                let span = u64::from(delay_max_ms.saturating_sub(delay_min_ms)) + 1;
                let delay = u64::from(delay_min_ms) + self.random() % span;
                let delay = if self.is_wrong("hurries") { 0 } else { delay };
                self.goaway_at = Some(Instant::now() + Duration::from_millis(delay));
            }
            ServerFrame::AuthExpiring { .. } => self.want_token(),
            _ => {}
        }
    }

    fn on_event(&mut self, alias: u32, event: Event, bytes: u32) {
        self.used += bytes;
        if self.used >= CREDIT_BYTES / 2 && !self.is_wrong("grants-nothing") {
            let bytes = std::mem::take(&mut self.used);
            self.put(&ClientFrame::Credit { bytes });
        }
        let Some(channel) = self.channel_of.get(&alias).copied() else {
            self.leave = true;
            return;
        };
        if self.is_wrong("shows-repeats")
            && let Some(text) = event.text()
        {
            let message = ShownMessage {
                seq: event.seq,
                author: event.author.0,
                text: Some(text.to_owned()),
            };
            self.said.push(Said::Message { channel, message });
        }
        if event.flags.contains(EventFlags::BODY_OMITTED) {
            let it = self.store.channels.entry(channel).or_default();
            it.known = it.known.max(event.seq);
        } else {
            if self.is_wrong("ignores-gap") {
                let it = self.store.channels.entry(channel).or_default();
                it.have = it.have.max(event.seq - 1);
            }
            self.take(channel, event);
        }
        self.fill_gap(channel);
    }

    /// An event from a push, a page or an ack.
    fn take(&mut self, id: u64, event: Event) {
        let user = self.store.user;
        let knows = matches!(event.kind, 1..=4 | 16..=20) || !self.is_wrong("drops-unknown");
        let stays_out = self.is_wrong("stays-out");
        let takes_tables = self.is_wrong("shows-tables");
        let channel = self.store.channels.entry(id).or_default();
        if event.seq <= channel.have || !knows || (channel.left && stays_out) {
            return;
        }
        if names(&event, 17, user) && channel.have > 0 {
            // In again: what lies between was never mine to read.
            channel.left = false;
            channel.first_seq = event.seq;
            channel.have = event.seq - 1;
        }
        channel.known = channel.known.max(event.seq);
        if names(&event, 18, user) || names(&event, 19, user) {
            channel.left = true;
        }
        let kept = Kept {
            author: event.author.0,
            kind: event.kind,
            text: match takes_tables {
                true => Some(String::from_utf8_lossy(&event.tail).into_owned()),
                false => event.text().map(str::to_owned),
            },
        };
        channel.events.insert(event.seq, kept);
        while let Some(next) = channel.events.get(&(channel.have + 1)) {
            channel.have += 1;
            if channel.have > channel.head_seq {
                channel.head_seq = channel.have;
                channel.head_ordinal += u32::from((1..16).contains(&next.kind));
            }
            if next.author == user && channel.have > channel.read_seq {
                channel.read_seq = channel.have;
                channel.read_ordinal = channel.head_ordinal;
            }
        }
        self.show(id);
        self.say_unread(id);
    }

    /// Shows what is next, in order; holds back what may be a message of one's own whose ack was lost.
    fn show(&mut self, id: u64) {
        let holds = self
            .store
            .outbox
            .iter()
            .any(|it| it.channel == id && it.open)
            && !self.is_wrong("shows-own-early");
        let user = self.store.user;
        let Some(channel) = self.store.channels.get_mut(&id) else {
            return;
        };
        channel.shown = channel.shown.max(channel.base.saturating_sub(1));
        while channel.shown < channel.have {
            let seq = channel.shown + 1;
            let Some(kept) = channel.events.get(&seq) else {
                channel.shown = seq;
                continue;
            };
            if kept.author == user && holds {
                return;
            }
            channel.shown = seq;
            if (1..16).contains(&kept.kind) {
                let message = ShownMessage {
                    seq,
                    author: kept.author,
                    text: kept.text.clone(),
                };
                self.said.push(Said::Message {
                    channel: id,
                    message,
                });
            }
        }
        if channel.left {
            self.said.push(Said::Left { channel: id });
        }
    }

    fn say_unread(&mut self, id: u64) {
        if let Some(it) = self.store.channels.get(&id) {
            let count = it.head_ordinal.saturating_sub(it.read_ordinal);
            self.said.push(Said::Unread { channel: id, count });
        }
    }

    fn note_head(&mut self, head: &ChannelHead, first_seq: u32) {
        let id = head.channel.0;
        let channel = self.store.channels.entry(id).or_insert_with(|| {
            let have = first_seq
                .max(1)
                .max((head.head_seq + 1).saturating_sub(FIRST_SIGHT))
                - 1;
            Channel {
                have,
                base: have + 1,
                shown: have,
                ..Channel::default()
            }
        });
        channel.first_seq = channel.first_seq.max(first_seq);
        channel.known = channel.known.max(head.head_seq);
        if head.head_seq >= channel.head_seq {
            (channel.head_seq, channel.head_ordinal) = (head.head_seq, head.head_ordinal);
        }
        if head.read_seq >= channel.read_seq {
            (channel.read_seq, channel.read_ordinal) = (head.read_seq, head.read_ordinal);
        }
        self.say_unread(id);
        self.fill_gap(id);
    }

    fn fill_gap(&mut self, id: u64) {
        let is_asked = |it: &Asked| matches!(it, Asked::Fill(channel) if *channel == id);
        let Some(it) = self.store.channels.get(&id) else {
            return;
        };
        if it.have >= it.known || !self.online || self.asked.values().any(is_asked) {
            return;
        }
        let history = History {
            channel: ChannelId(id),
            from: (it.have + 1).max(it.first_seq),
            to: it.known,
            items_max: 200,
            newest_first: false,
        };
        let request = self.ask(Asked::Fill(id));
        self.put(&ClientFrame::History { request, history });
    }

    fn on_page(&mut self, page: HistoryPage, is_older: bool) {
        let id = page.channel.0;
        if is_older {
            if let Some(channel) = self.store.channels.get_mut(&id) {
                channel.base = page.events.first().map_or(channel.base, |it| it.seq);
                let kept = |it: Event| {
                    (
                        it.seq,
                        Kept {
                            author: it.author.0,
                            kind: it.kind,
                            text: it.text().map(str::to_owned),
                        },
                    )
                };
                channel.events.extend(page.events.into_iter().map(kept));
            }
            return self.said.push(Said::Older { channel: id });
        }
        let channel = self.store.channels.entry(id).or_default();
        channel.known = channel.known.max(page.head_seq);
        if page.first_seq > channel.have + 1 {
            channel.have = page.first_seq - 1;
            self.said.push(Said::Skipped {
                channel: id,
                to: channel.have,
            });
        }
        let empty = page.events.is_empty();
        if empty {
            channel.known = channel.have; // nothing is there for us
        }
        for event in page.events {
            self.take(id, event);
        }
        if !empty {
            self.fill_gap(id);
        }
    }

    fn older(&mut self, id: u64, items: u16) {
        let Some(to) = self
            .store
            .channels
            .get(&id)
            .map(|it| it.base.saturating_sub(1))
            .filter(|to| *to > 0)
        else {
            return self.said.push(Said::Older { channel: id });
        };
        let history = History {
            channel: ChannelId(id),
            from: 1,
            to,
            items_max: items,
            newest_first: true,
        };
        let request = self.ask(Asked::Older(id));
        self.put(&ClientFrame::History { request, history });
    }

    fn view(&mut self, channel: u64) {
        let messages = self.store.channels.get(&channel).map_or(Vec::new(), |it| {
            it.events
                .iter()
                .filter(|(seq, kept)| (1..16).contains(&kept.kind) && **seq <= it.have)
                .map(|(seq, kept)| ShownMessage {
                    seq: *seq,
                    author: kept.author,
                    text: kept.text.clone(),
                })
                .collect()
        });
        self.said.push(Said::View { channel, messages });
    }

    fn sync(&mut self) {
        let request = self.ask(Asked::Sync);
        let token = self.store.sync_token.clone();
        self.put(&ClientFrame::Sync {
            request,
            token,
            rows_max: 500,
        });
    }

    fn on_changes(&mut self, changes: SyncChanges) {
        if changes.reset {
            // What was opened on this connection was seen, and so is what events come of.
            let forgets = self.is_wrong("drops-opened") || self.is_wrong("drops-early");
            let is_unseen = |it: &&u64| forgets || !self.alias_of.contains_key(it);
            let known = self.store.channels.keys();
            self.unseen = known.filter(is_unseen).copied().collect();
        }
        for row in changes.rows {
            let id = row.head.channel.0;
            self.unseen.remove(&id);
            self.note_head(&row.head, row.first_seq);
            if row.left_seq.is_some()
                && let Some(channel) = self.store.channels.get_mut(&id)
            {
                channel.left = true;
                self.show(id);
            }
        }
        self.store.sync_token = changes.token;
        let more = changes.more && !self.is_wrong("one-page");
        if more {
            self.sync();
        }
        if !more || self.is_wrong("drops-early") {
            for id in std::mem::take(&mut self.unseen) {
                self.store.channels.remove(&id);
                self.said.push(Said::Left { channel: id });
            }
        }
    }

    fn on_error(&mut self, request: u32, error: &ErrorFrame) {
        let asked = self.asked.remove(&request);
        let class = error.code.number() / 100;
        match asked {
            None if error.refused_type == frame_type::OPEN_CHANNEL => {}
            None => self.last_word = Some((error.code.number(), error.retry_after_ms)),
            Some(Asked::Send { channel, keys }) => {
                if error.code != Code::OutcomeUnknown {
                    for it in self
                        .store
                        .outbox
                        .iter_mut()
                        .filter(|it| keys.contains(&it.key))
                    {
                        it.open = false;
                    }
                }
                if class == 41 {
                    let backoff = RETRY_MS << self.refused.min(6);
                    self.refused += 1;
                    let early = self.is_wrong("hurries");
                    let wait = if early {
                        0
                    } else {
                        u64::from(error.retry_after_ms).max(backoff)
                    };
                    self.not_before
                        .insert(channel, Instant::now() + Duration::from_millis(wait));
                    if self.is_wrong("overtakes") {
                        self.overtake(channel, &keys);
                    }
                } else if error.code == Code::BadAlias {
                    self.alias_of.remove(&channel);
                    self.open(channel);
                } else {
                    let refused = keys.get(usize::from(error.item)).copied();
                    self.store.outbox.retain(|it| {
                        if Some(it.key) == refused {
                            self.said.push(Said::Refused {
                                id: Some(it.id.clone()),
                                code: error.code.number(),
                            });
                        }
                        Some(it.key) != refused
                    });
                    self.show(channel);
                    self.try_send(channel);
                }
            }
            Some(Asked::Fill(channel)) if class == 41 => self.fill_gap(channel),
            Some(Asked::Open(channel)) if class == 41 => self.open(channel),
            Some(Asked::Older(channel)) => self.said.push(Said::Older { channel }),
            Some(_) => {}
        }
    }

    // Sending.

    fn open(&mut self, id: u64) {
        if !self.online || self.alias_of.contains_key(&id) {
            return;
        }
        self.next_alias += 1;
        let held = self.store.channels.get(&id).map_or(0, |it| it.have);
        let cursor = Cursor {
            channel: ChannelId(id),
            generation: if held == 0 { 0 } else { self.store.generation },
            seq: held,
            alias: self.next_alias,
        };
        let request = self.ask(Asked::Open(id));
        self.put(&ClientFrame::OpenChannel { request, cursor });
    }

    fn try_send(&mut self, channel: u64) {
        let in_flight =
            |it: &Asked| matches!(it, Asked::Send { channel: of, .. } if *of == channel);
        let is_busy = self.asked.values().any(in_flight) && !self.is_wrong("two-in-flight");
        if !self.online || is_busy || self.not_before.contains_key(&channel) {
            return;
        }
        let mut bytes = 0;
        let due: Vec<Waiting> = self
            .store
            .outbox
            .iter()
            .filter(|it| it.channel == channel && !(it.open && self.is_wrong("two-in-flight")))
            .take(64)
            .take_while(|it| {
                bytes += 28 + it.text.len();
                bytes <= SEND_MANY_BYTES_MAX || bytes == 28 + it.text.len()
            })
            .cloned()
            .collect();
        if due.is_empty() {
            return;
        }
        let Some(alias) = self.alias_of.get(&channel).copied() else {
            return self.open(channel);
        };
        self.put_send(channel, alias, &due);
    }

    /// Wrong: what was not refused goes ahead.
    fn overtake(&mut self, channel: u64, refused: &[[u8; 16]]) {
        let newer = self
            .store
            .outbox
            .iter()
            .filter(|it| it.channel == channel && !refused.contains(&it.key));
        let newer: Vec<Waiting> = newer.cloned().collect();
        if let (false, Some(alias)) = (newer.is_empty(), self.alias_of.get(&channel).copied()) {
            self.put_send(channel, alias, &newer);
        }
    }

    fn put_send(&mut self, channel: u64, alias: u32, due: &[Waiting]) {
        let mut keys: Vec<[u8; 16]> = due.iter().map(|it| it.key).collect();
        if self.is_wrong("new-key") {
            for (key, it) in keys.iter_mut().zip(due) {
                if it.attempted {
                    *key = self.new_key();
                    let waiting = self
                        .store
                        .outbox
                        .iter_mut()
                        .find(|waiting| waiting.key == it.key);
                    waiting.expect("what is due waits").key = *key;
                }
            }
        }
        let flags = |it: &Waiting| match it.attempted && !self.is_wrong("no-retry") {
            true => SendFlags::RETRY,
            false => SendFlags::default(),
        };
        let sends: Vec<Send<'_>> = due
            .iter()
            .zip(&keys)
            .map(|(it, key)| Send {
                key: MessageKey(*key),
                alias,
                kind: 1,
                flags: flags(it),
                tail: it.text.as_bytes(),
            })
            .collect();
        for it in self
            .store
            .outbox
            .iter_mut()
            .filter(|it| keys.contains(&it.key))
        {
            (it.attempted, it.open) = (true, true);
        }
        let request = self.ask(Asked::Send { channel, keys });
        match sends[..] {
            [send] => self.put(&ClientFrame::Send { request, send }),
            _ => self.put(&ClientFrame::SendMany { request, sends }),
        }
    }

    fn acknowledged(&mut self, channel: u64, key: [u8; 16], ack: &Ack) {
        let Some(at) = self.store.outbox.iter().position(|it| it.key == key) else {
            return;
        };
        self.refused = 0;
        let it = self.store.outbox.remove(at);
        self.said.push(Said::Sent {
            id: Some(it.id),
            channel,
            seq: ack.seq,
        });
        let event = Event {
            author: conch_wire::UserId(self.store.user),
            seq: ack.seq,
            time_ms: ack.time_ms,
            kind: 1,
            flags: EventFlags::default(),
            tail: it.text.into(),
        };
        if self.is_wrong("shows-by-arrival") {
            let text = event.text().map(str::to_owned);
            let message = ShownMessage {
                seq: event.seq,
                author: event.author.0,
                text,
            };
            self.said.push(Said::Message { channel, message });
        }
        self.take(channel, event);
        self.show(channel);
        self.fill_gap(channel);
    }

    fn ask(&mut self, asked: Asked) -> u32 {
        self.next_request += 1;
        self.asked.insert(self.next_request, asked);
        self.next_request
    }

    /// Stores what there is, then says what there was to say: a stop in between is silent, and never says twice.
    fn save(&mut self) -> Result<()> {
        self.store.save()?;
        self.said.drain(..).for_each(|it| say(&it));
        Ok(())
    }

    fn put(&mut self, frame: &ClientFrame<'_>) {
        // A stop between this and the write of the frames finds them attempted, as it must be.
        self.save().expect("the data folder is writable");
        frame.encode(&mut self.frames);
    }
}

/// Whether an event of this kind is about this person.
fn names(event: &Event, kind: u8, user: u64) -> bool {
    let body = conch_wire::event::EventBody::decode(&event.tail);
    event.kind == kind && body.is_ok_and(|body| body.members.iter().any(|it| it.user.0 == user))
}

/// A line for the driver.
#[allow(
    clippy::print_stdout,
    reason = "lines on standard output are the protocol"
)]
fn say(said: &Said) {
    println!(
        "{}",
        serde_json::to_string(said).expect("lines are plain data")
    );
}
