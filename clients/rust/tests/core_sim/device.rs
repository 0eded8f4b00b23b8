//! The device under test: a core, a disk in memory, an application that checks what it hears, and crashes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conch_client::core::{
    ChannelRow, Command, Config, Content, Core, Event, Input, LinkCommand, Loaded, MessageRow,
    Meta, OutboxItem, OutboxState, Outputs, Persist, RefusalReason,
};
use conch_client::wire::event::SendFlags;
use conch_client::wire::{ChannelId, Code, MessageKey, Seq};
use rand::Rng;
use rand::rngs::StdRng;

use super::server::Server;

#[derive(Default)]
struct Disk {
    meta: Meta,
    channels: BTreeMap<ChannelId, ChannelRow>,
    messages: BTreeMap<(ChannelId, Seq), MessageRow>,
    outbox: BTreeMap<u64, OutboxItem>,
}

impl Disk {
    fn apply(&mut self, steps: Vec<Persist>) {
        for step in steps {
            match step {
                Persist::Meta(meta) => self.meta = meta,
                Persist::Channel(row) => {
                    self.channels.insert(row.channel, *row);
                }
                Persist::ChannelRemoved(id) => {
                    self.channels.remove(&id);
                    self.messages.retain(|(channel, _), _| *channel != id);
                }
                Persist::MessagesRemoved(id) => {
                    self.messages.retain(|(channel, _), _| *channel != id);
                }
                Persist::MessagesTrimmed(id, below) => {
                    let is_kept =
                        |(channel, seq): &(ChannelId, Seq)| *channel != id || *seq >= below;
                    self.messages.retain(|place, _| is_kept(place));
                }
                Persist::Message(row) => {
                    self.messages
                        .entry((row.channel, row.event.seq))
                        .or_insert(row);
                }
                Persist::Outbox(item) => {
                    self.outbox.insert(item.id, item);
                }
                Persist::OutboxRemoved(id) => {
                    self.outbox.remove(&id);
                }
                Persist::Forget => {
                    self.channels.clear();
                    self.messages.clear();
                }
            }
        }
    }

    fn load(&self) -> Loaded {
        Loaded {
            meta: self.meta.clone(),
            channels: self.channels.values().cloned().collect(),
            outbox: self.outbox.values().cloned().collect(),
        }
    }
}

struct Written {
    channel: ChannelId,
    key: MessageKey,
    bad: bool,
}

pub(crate) struct Device {
    core: Core,
    disk: Disk,
    seed: u64,
    open: Option<u64>,
    /// The last seq that the application was given, by channel.
    given: BTreeMap<ChannelId, Seq>,
    written: Vec<Written>,
    stored: BTreeMap<MessageKey, Seq>,
    refused: BTreeMap<MessageKey, Code>,
    /// Own messages that were shown as sent, in channels that this device knew and was not told to forget since.
    sent: BTreeMap<(ChannelId, Seq), MessageKey>,
    removed_once: BTreeSet<ChannelId>,
    connections: u64,
}

fn config(seed: u64) -> Config {
    Config {
        held_events_max: if seed.is_multiple_of(5) { 20 } else { u32::MAX },
        first_sight_events: if seed.is_multiple_of(3) { 50 } else { u32::MAX },
        credit_bytes: if seed.is_multiple_of(2) {
            2_000
        } else {
            262_144
        },
        reconnect_base_ms: 50,
        reconnect_cap_ms: 1_000,
        seed,
        ..Config::default()
    }
}

fn is_given_up(item: &OutboxItem) -> bool {
    matches!(item.state, OutboxState::Refused(_))
}

impl Device {
    pub(crate) fn new(seed: u64) -> Device {
        Device {
            core: Core::new(config(seed), Loaded::default()),
            disk: Disk::default(),
            seed,
            open: None,
            given: BTreeMap::new(),
            written: Vec::new(),
            stored: BTreeMap::new(),
            refused: BTreeMap::new(),
            sent: BTreeMap::new(),
            removed_once: BTreeSet::new(),
            connections: 0,
        }
    }

    pub(crate) fn start(&mut self, now: u64, server: &mut Server, rng: &mut StdRng) {
        self.core.handle(now, Input::Start);
        self.carry_out(now, server, rng);
    }

    pub(crate) fn tick(&mut self, now: u64, server: &mut Server, rng: &mut StdRng) {
        if self.core.wake_at().is_some_and(|at| at <= now) {
            self.core.handle(now, Input::Tick);
            self.carry_out(now, server, rng);
            assert!(
                self.core.wake_at().is_none_or(|at| at > now),
                "a tick leaves nothing due: {:?} at {now}",
                self.core.wake_at()
            );
        }
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.core.wake_at()
    }

    pub(crate) fn receive(
        &mut self,
        now: u64,
        connection: u64,
        bytes: Bytes,
        server: &mut Server,
        rng: &mut StdRng,
    ) {
        let connection = connection - self.connections;
        self.core.handle(now, Input::Received { connection, bytes });
        self.carry_out(now, server, rng);
    }

    pub(crate) fn write(
        &mut self,
        now: u64,
        channel: u64,
        bad: bool,
        server: &mut Server,
        rng: &mut StdRng,
    ) {
        let key = MessageKey(rng.random());
        let number = self.written.len();
        let text = if bad {
            format!("BAD {number}")
        } else {
            format!("mine {number}")
        };
        self.core.handle(
            now,
            Input::Command(Command::Send {
                channel: ChannelId(channel),
                key,
                kind: 1,
                flags: SendFlags::default(),
                tail: text.into(),
                created_ms: now,
            }),
        );
        self.written.push(Written {
            channel: ChannelId(channel),
            key,
            bad,
        });
        self.carry_out(now, server, rng);
    }

    pub(crate) fn mark_read(
        &mut self,
        now: u64,
        channel: u64,
        server: &mut Server,
        rng: &mut StdRng,
    ) {
        let channel = ChannelId(channel);
        if let Some(info) = self.core.channel(channel) {
            let seq = info.held_to;
            self.core
                .handle(now, Input::Command(Command::MarkRead { channel, seq }));
            self.carry_out(now, server, rng);
        }
    }

    pub(crate) fn cut(&mut self, now: u64, server: &mut Server, rng: &mut StdRng) {
        if let Some(connection) = self.open.take() {
            server.cut(connection, rng);
            self.core.handle(
                now,
                Input::Closed {
                    connection: connection - self.connections,
                    code: None,
                },
            );
            self.carry_out(now, server, rng);
        }
    }

    /// The program ends at any moment, and starts again with what is on its disk.
    pub(crate) fn crash(&mut self, now: u64, server: &mut Server, rng: &mut StdRng) {
        // Something is going on: a message was just written, and may or may not have reached the disk.
        let key = MessageKey(rng.random());
        let channel = ChannelId(1);
        self.core.handle(
            now,
            Input::Command(Command::Send {
                channel,
                key,
                kind: 1,
                flags: SendFlags::default(),
                tail: "at the end".into(),
                created_ms: now,
            }),
        );
        let out = self.core.take_outputs();
        if rng.random_bool(0.5) {
            self.disk.apply(out.persist);
            self.written.push(Written {
                channel,
                key,
                bad: false,
            });
            if rng.random_bool(0.5) {
                self.send(out.frames, server);
            }
        }
        if let Some(connection) = self.open.take() {
            server.cut(connection, rng);
        }
        self.check_sent();
        // Inputs name their connection; a new program counts from the start, so the model keeps the numbers apart.
        self.connections += 1_000_000;
        self.core = Core::new(config(self.seed), self.disk.load());
        self.given = self
            .disk
            .channels
            .values()
            .map(|row| (row.channel, row.have))
            .collect();
        self.start(now, server, rng);
    }

    /// What was shown as sent is on the disk, as an event or in the outbox.
    fn check_sent(&self) {
        for ((channel, seq), key) in &self.sent {
            let row = &self.disk.channels[channel];
            let is_kept = self.disk.outbox.values().any(|item| item.key == *key);
            assert!(
                *seq <= row.have || is_kept,
                "{seq} of {channel} was shown as sent, and {} is the last that is held",
                row.have
            );
        }
    }

    fn send(&mut self, frames: Vec<Bytes>, server: &mut Server) {
        if let Some(connection) = self.open {
            for bytes in frames {
                server.send_to(connection, bytes);
            }
        }
    }

    fn carry_out(&mut self, now: u64, server: &mut Server, rng: &mut StdRng) {
        loop {
            let out = self.core.take_outputs();
            if out.is_empty() {
                return;
            }
            let Outputs {
                persist,
                frames,
                link,
                events,
                ..
            } = out;
            self.disk.apply(persist);
            self.send(frames, server);
            for event in events {
                self.on_event(event, server);
            }
            for command in link {
                self.on_link(now, command, server, rng);
            }
        }
    }

    fn on_link(&mut self, now: u64, command: LinkCommand, server: &mut Server, rng: &mut StdRng) {
        match command {
            LinkCommand::Connect { connection, .. } => {
                if server.faults.cuts && rng.random_bool(0.2) {
                    self.core.handle(
                        now,
                        Input::Closed {
                            connection,
                            code: None,
                        },
                    );
                    return;
                }
                let number = self.connections + connection;
                self.open = Some(number);
                server.connect(number);
                self.core.handle(
                    now,
                    Input::Connected {
                        connection,
                        token: "token".to_owned(),
                    },
                );
            }
            LinkCommand::Close { code, what, .. } => {
                assert_ne!(
                    code,
                    Code::BadFrame,
                    "the model sends nothing wrong: {what}"
                );
                if let Some(connection) = self.open.take() {
                    server.cut(connection, rng);
                }
            }
            LinkCommand::RefreshToken { .. } | LinkCommand::Elsewhere { .. } => {}
        }
    }

    fn on_event(&mut self, event: Event, server: &Server) {
        match event {
            Event::Message(message) => {
                let id = message.channel;
                let log = &server.logs[&id];
                let truth = log.at(message.seq);
                assert_eq!(message.author, truth.author);
                assert_eq!(message.time_ms, truth.time_ms);
                if let Content::Text { text, .. } = &message.content {
                    assert_eq!(text.as_bytes(), &truth.tail[..]);
                }
                let key = log.keys.iter().find(|(_, seq)| **seq == message.seq);
                let waits = |key| self.disk.outbox.values().any(|item| item.key == key);
                assert!(
                    message.key.is_some() || !key.is_some_and(|(key, _)| waits(*key)),
                    "an own message is not shown as another's while it waits for its answer"
                );
                if let Some(key) = message.key {
                    assert_eq!(log.keys.get(&key), Some(&message.seq));
                }
                if let Some(last) = self.given.insert(id, message.seq) {
                    assert_eq!(message.seq, last + 1, "in order, each once, in {id}");
                }
            }
            Event::SendStored {
                channel, key, seq, ..
            } => {
                assert_eq!(server.logs[&channel].keys.get(&key), Some(&seq));
                assert!(self.stored.insert(key, seq).is_none());
                if self.core.channel(channel).is_some() {
                    self.sent.insert((channel, seq), key);
                }
            }
            Event::SendRefused {
                channel,
                key,
                reason,
            } => {
                let RefusalReason::Server(code) = reason else {
                    panic!("{reason}: nothing is cancelled, and the test takes no week")
                };
                assert!(
                    !server.logs[&channel].keys.contains_key(&key),
                    "a refusal is certain"
                );
                assert!(self.refused.insert(key, code).is_none());
            }
            Event::Skipped { channel, from, to } => {
                assert!(server.logs[&channel].first > from);
                if let Some(last) = self.given.insert(channel, to) {
                    assert_eq!(from, last + 1);
                }
                self.sent.retain(|(id, seq), _| *id != channel || *seq > to);
            }
            Event::ChannelReset { channel } => {
                self.given.remove(&channel);
                self.sent.retain(|(id, _), _| *id != channel);
            }
            Event::ChannelRemoved { channel } => {
                self.removed_once.insert(channel);
                self.given.remove(&channel);
                self.sent.retain(|(id, _), _| *id != channel);
            }
            Event::Connection(_)
            | Event::SendsDelayed { .. }
            | Event::Channel(_)
            | Event::Outbox { .. } => {}
        }
    }

    pub(crate) fn is_settled(&self, server: &Server) -> bool {
        self.disk.outbox.values().all(is_given_up)
            && server.logs.iter().all(|(id, log)| {
                let has_left = log.left.is_some();
                let Some(info) = self.core.channel(*id) else {
                    return has_left;
                };
                let marks = self.disk.channels[id].marks;
                let is_read = info.read_seq == log.read && marks.wanted == 0 && !marks.uncounted;
                info.held_to == log.visible() && info.left == has_left && (has_left || is_read)
            })
    }

    pub(crate) fn describe(&self, server: &Server) -> String {
        let logs: Vec<_> = server
            .logs
            .iter()
            .map(|(id, log)| (id, log.first, log.visible(), log.left, log.read))
            .collect();
        format!(
            "outbox {:?}\nchannels {:#?}\nlogs {logs:?}",
            self.disk.outbox,
            self.core.channels()
        )
    }

    /// Everything is right.
    pub(crate) fn check(&self, server: &Server) {
        for (id, log) in &server.logs {
            let Some(info) = self.core.channel(*id) else {
                continue;
            };
            let row = &self.disk.channels[id];
            assert_eq!((row.base, row.have), (info.held_from, info.held_to));
            let held: Vec<_> = self
                .disk
                .messages
                .range((*id, row.base)..=(*id, row.have))
                .map(|(_, row)| row.event.clone())
                .collect();
            assert_eq!(
                held,
                log.events[row.base as usize - 1..row.have as usize],
                "channel {id}"
            );
            if log.left.is_none() {
                let unread = log.ordinal(log.head()) - log.ordinal(log.read);
                assert_eq!(info.unread, unread, "unread of {id}");
            }
        }
        let mut last: BTreeMap<ChannelId, Seq> = BTreeMap::new();
        for written in &self.written {
            let seq = server.logs[&written.channel]
                .keys
                .get(&written.key)
                .copied();
            match (seq, self.refused.get(&written.key)) {
                (Some(seq), None) => {
                    assert!(!written.bad);
                    let before = last.insert(written.channel, seq);
                    assert!(before < Some(seq), "order of own sends");
                }
                (None, Some(code)) => {
                    assert!(written.bad || *code == Code::NotFound, "{code}");
                }
                // The word of the refusal was lost with a crash; refused it was, and that is on the disk.
                (None, None) => assert!(self.connections > 0, "a message is lost"),
                (Some(_), Some(_)) => panic!("stored and refused"),
            }
            let mut kept = self.disk.outbox.values();
            let is_kept = kept.any(|item| item.key == written.key && is_given_up(item));
            assert_eq!(
                is_kept,
                seq.is_none(),
                "what was refused is kept for the person"
            );
        }
    }
}
