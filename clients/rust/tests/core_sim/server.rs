//! The model of a server: logs in memory, sessions with queues, and a way to misbehave within the protocol.
//!
//! Each session has three lanes to the client (answers, live, bulk); order holds within a lane and not between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use conch_client::wire::event::{
    Ack, ChannelKind, EventBody, EventMember, PendingAnswer, SendFlags,
};
use conch_client::wire::frame::{
    ChannelHead, ChannelOpened, Cursor, ErrorFrame, Hello, History, HistoryPage, Limits, Send,
    SyncChanges, SyncRow, Welcome, frame_type, split_frame,
};
use conch_client::wire::limits::{FRAME_BYTES_MAX, GAP_STREAMED_MAX, REQUESTS_IN_FLIGHT_MAX};
use conch_client::wire::{
    AckFlags, Alias, ChannelId, ClientFrame, Code, DeviceId, Event, EventFlags, EventKind,
    MemberRole, MessageKey, Seq, ServerFrame, SessionId, UserId,
};
use rand::Rng;
use rand::rngs::StdRng;

pub(crate) const ME: UserId = UserId(1);
const PAGE_ITEMS: usize = 40;
const SYNC_ROWS: usize = 2;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) cuts: bool,
    pub(crate) refusals: bool,
    pub(crate) hints: bool,
    pub(crate) tokens: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<Event>,
    pub(crate) keys: BTreeMap<MessageKey, Seq>,
    pub(crate) first: Seq,
    pub(crate) left: Option<Seq>,
    pub(crate) read: Seq,
    position: u64,
}

impl Log {
    pub(crate) fn head(&self) -> Seq {
        self.events.len() as Seq
    }

    /// What this person may see last.
    pub(crate) fn visible(&self) -> Seq {
        self.left.unwrap_or(self.head())
    }

    pub(crate) fn ordinal(&self, seq: Seq) -> u32 {
        let upto = &self.events[..seq as usize];
        upto.iter().filter(|it| it.kind < 16).count() as u32
    }

    pub(crate) fn at(&self, seq: Seq) -> &Event {
        &self.events[seq as usize - 1]
    }
}

#[derive(Debug, Default)]
struct Session {
    connection: u64,
    id: u64,
    live: bool,
    /// WELCOME has reached the client; before, it is all there is.
    greeted: bool,
    /// The client cannot be reached any more; what it sent before may still arrive.
    cut: bool,
    fenced: bool,
    inbound: VecDeque<Bytes>,
    unanswered: Vec<(ChannelId, ServerFrame)>,
    lanes: [VecDeque<Bytes>; 3],
    aliases: BTreeMap<ChannelId, Alias>,
    server_aliases: u32,
    credit: i64,
    collapsed: BTreeSet<ChannelId>,
}

const ANSWERS: usize = 0;
const LIVE: usize = 1;
const BULK: usize = 2;

impl Session {
    fn put(&mut self, lane: usize, frame: &ServerFrame) -> i64 {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        let bytes = out.len() as i64;
        self.lanes[lane].push_back(out.freeze());
        bytes
    }
}

pub(crate) struct Server {
    pub(crate) faults: Faults,
    pub(crate) logs: BTreeMap<ChannelId, Log>,
    generation: u32,
    incarnation: u32,
    position: u64,
    sessions: Vec<Session>,
    seen_keys: BTreeSet<MessageKey>,
    clock: u64,
}

impl Server {
    pub(crate) fn new(faults: Faults) -> Server {
        Server {
            faults,
            logs: BTreeMap::new(),
            generation: 1,
            incarnation: 1,
            position: 0,
            sessions: Vec::new(),
            seen_keys: BTreeSet::new(),
            clock: 1_700_000_000_000,
        }
    }

    pub(crate) fn create(&mut self, channel: u64) {
        let id = ChannelId(channel);
        self.logs.insert(
            id,
            Log {
                first: 1,
                ..Log::default()
            },
        );
        let body = EventBody {
            channel_kind: Some(ChannelKind::Group),
            title: Some(format!("group {channel}")),
            members: (1..5)
                .map(|user| EventMember {
                    user: UserId(user),
                    role: MemberRole::Member,
                })
                .collect(),
        };
        self.append(
            id,
            UserId(2),
            EventKind::ChannelCreated as u8,
            body.encode(),
        );
    }

    fn append(&mut self, id: ChannelId, author: UserId, kind: u8, tail: Vec<u8>) -> Seq {
        self.clock += 1;
        self.position += 1;
        let log = self.logs.get_mut(&id).unwrap();
        let seq = log.head() + 1;
        log.events.push(Event {
            author,
            seq,
            time_ms: self.clock,
            kind,
            flags: EventFlags::default(),
            tail: tail.into(),
        });
        if log.left.is_none() {
            log.position = self.position;
            if author == ME && kind < 16 {
                log.read = seq;
            }
        }
        seq
    }

    /// Somebody says something.
    pub(crate) fn chat(&mut self, rng: &mut StdRng, channel: u64, author: u64) {
        let id = ChannelId(channel);
        if author == ME.0 && self.logs[&id].left.is_some() {
            return;
        }
        let text = format!("word {}", rng.random::<u32>());
        let seq = self.append(id, UserId(author), 1, text.into_bytes());
        self.push(rng, id, seq, None);
    }

    pub(crate) fn remove_me(&mut self, channel: u64, rng: &mut StdRng) {
        let id = ChannelId(channel);
        if self.logs[&id].left.is_some() {
            return;
        }
        let seq = self.append(
            id,
            UserId(2),
            EventKind::MemberRemoved as u8,
            members_body(),
        );
        self.push(rng, id, seq, None);
        self.logs.get_mut(&id).unwrap().left = Some(seq);
        for session in &mut self.sessions {
            session.aliases.remove(&id);
        }
    }

    pub(crate) fn add_me(&mut self, channel: u64, rng: &mut StdRng) {
        let id = ChannelId(channel);
        let log = self.logs.get_mut(&id).unwrap();
        if log.left.take().is_none() {
            return;
        }
        log.first = log.head() + 1;
        let seq = self.append(id, UserId(2), EventKind::MembersAdded as u8, members_body());
        let log = self.logs.get_mut(&id).unwrap();
        log.read = seq;
        self.push(rng, id, seq, None);
    }

    pub(crate) fn rebuild_inbox(&mut self) {
        self.incarnation += 1;
    }

    /// The store came back under another generation, with everything in it.
    pub(crate) fn restore(&mut self) {
        self.generation += 1;
        self.sessions.iter_mut().for_each(|it| it.fenced = true);
    }

    // ---- connections ----

    pub(crate) fn connect(&mut self, connection: u64) {
        let id = self.sessions.len() as u64 + 1;
        self.sessions.push(Session {
            connection,
            id,
            ..Session::default()
        });
    }

    pub(crate) fn send_to(&mut self, connection: u64, bytes: Bytes) {
        if let Some(session) = self.session(connection)
            && !session.cut
        {
            session.inbound.push_back(bytes);
        }
    }

    pub(crate) fn cut(&mut self, connection: u64, rng: &mut StdRng) {
        if let Some(session) = self.session(connection) {
            session.cut = true;
            session.lanes = Default::default();
            let arrived = rng.random_range(0..=session.inbound.len());
            session.inbound.truncate(arrived);
        }
    }

    fn session(&mut self, connection: u64) -> Option<&mut Session> {
        self.sessions
            .iter_mut()
            .find(|it| it.connection == connection)
    }

    pub(crate) fn next_for_client(&mut self, rng: &mut StdRng) -> Option<(u64, Bytes)> {
        let session = self.sessions.iter_mut().rev().find(|it| !it.cut)?;
        let full: Vec<_> = (0..3)
            .filter(|at| session.greeted || *at == ANSWERS)
            .filter(|at| !session.lanes[*at].is_empty())
            .collect();
        session.greeted |= !full.is_empty();
        let lane = full.get(rng.random_range(0..full.len().max(1)))?;
        Some((session.connection, session.lanes[*lane].pop_front()?))
    }

    pub(crate) fn has_work(&self) -> bool {
        self.sessions.iter().any(|it| {
            let to_client = !it.cut && it.lanes.iter().any(|lane| !lane.is_empty());
            to_client
                || (!it.fenced && !it.inbound.is_empty())
                || (!it.cut && !it.unanswered.is_empty())
        })
    }

    /// One thing that waits: a message from a client, or an answer that is ready.
    pub(crate) fn work(&mut self, rng: &mut StdRng) {
        let with_input: Vec<_> = (0..self.sessions.len())
            .filter(|at| !self.sessions[*at].fenced && !self.sessions[*at].inbound.is_empty())
            .collect();
        if rng.random_bool(0.5)
            && let Some(at) = with_input.get(rng.random_range(0..with_input.len().max(1)))
        {
            let bytes = self.sessions[*at].inbound.pop_front().unwrap();
            self.on_message(rng, *at, &bytes);
            return;
        }
        for session in &mut self.sessions {
            if !session.unanswered.is_empty() {
                let at = rng.random_range(0..session.unanswered.len());
                let (_, frame) = session.unanswered.remove(at);
                session.put(ANSWERS, &frame);
                return;
            }
        }
    }

    fn on_message(&mut self, rng: &mut StdRng, at: usize, bytes: &Bytes) {
        let mut rest = &bytes[..];
        while let Some(split) = split_frame(rest, FRAME_BYTES_MAX).unwrap() {
            let frame = ClientFrame::decode(split.header, split.body).unwrap();
            self.on_frame(rng, at, frame, split.header.frame_type);
            rest = &rest[split.consumed..];
        }
        assert!(rest.is_empty(), "messages hold whole frames");
    }

    fn on_frame(&mut self, rng: &mut StdRng, at: usize, frame: ClientFrame<'_>, kind: u8) {
        assert_eq!(
            self.sessions[at].live,
            !matches!(frame, ClientFrame::Hello(_)),
            "nothing before WELCOME, HELLO once: {frame:?}"
        );
        match frame {
            ClientFrame::Hello(hello) => self.on_hello(rng, at, &hello),
            ClientFrame::Send { request, send } => self.on_send(rng, at, kind, request, &[send]),
            ClientFrame::SendMany { request, sends } => {
                self.on_send(rng, at, kind, request, &sends);
            }
            ClientFrame::OpenChannel { request, cursor } => self.on_open(rng, at, request, cursor),
            ClientFrame::CloseChannel { alias } => {
                self.sessions[at].aliases.retain(|_, it| *it != alias);
            }
            ClientFrame::History { request, history } => {
                self.on_history(rng, at, request, history);
            }
            ClientFrame::Sync { request, token, .. } => {
                if self.refuses(rng) {
                    self.refuse(at, request, frame_type::SYNC, Code::Unavailable, 50, 0);
                } else {
                    self.on_sync(at, request, &token);
                }
            }
            ClientFrame::Read {
                request,
                channel,
                seq,
            } => {
                if self.refuses(rng) {
                    self.refuse(at, request, frame_type::READ, Code::Overloaded, 20, 0);
                    return;
                }
                let log = self.logs.get_mut(&channel).unwrap();
                let seq = seq.min(log.visible());
                if seq <= log.read {
                    return; // moves nothing, and is not answered
                }
                log.read = seq;
                let head = self.head(channel);
                for session in self.sessions.iter_mut().filter(|it| it.live) {
                    session.put(ANSWERS, &ServerFrame::ChannelHead(head));
                }
            }
            ClientFrame::Credit { bytes } => {
                self.sessions[at].credit += i64::from(bytes);
                for channel in std::mem::take(&mut self.sessions[at].collapsed) {
                    let head = self.head(channel);
                    self.sessions[at].put(LIVE, &ServerFrame::ChannelHead(head));
                }
            }
            ClientFrame::Ping { nonce } => {
                let inbox_position = self.position;
                self.sessions[at].put(
                    ANSWERS,
                    &ServerFrame::Pong {
                        nonce,
                        inbox_position,
                    },
                );
            }
            ClientFrame::Goodbye => self.sessions[at].fenced = true,
            ClientFrame::AuthRefresh { .. } | ClientFrame::Skipped { .. } => {}
        }
    }

    fn refuses(&self, rng: &mut StdRng) -> bool {
        self.faults.refusals && rng.random_bool(0.15)
    }

    fn refuse(&mut self, at: usize, request: u32, kind: u8, code: Code, after_ms: u32, item: u16) {
        let frame = error(request, kind, code, after_ms, item);
        self.sessions[at].put(ANSWERS, &frame);
    }

    fn on_hello(&mut self, rng: &mut StdRng, at: usize, hello: &Hello) {
        if let Some(replaced) = hello.replaces {
            for session in &mut self.sessions {
                session.fenced |= session.id == replaced.0;
            }
        }
        let pending = hello
            .pending
            .iter()
            .map(|question| {
                let log = &self.logs[&question.channel];
                match log.keys.get(&question.key) {
                    _ if self.faults.cuts && rng.random_bool(0.2) => PendingAnswer::Unknown,
                    Some(seq) => PendingAnswer::Stored {
                        seq: *seq,
                        time_ms: log.at(*seq).time_ms,
                    },
                    None => PendingAnswer::Absent,
                }
            })
            .collect();
        let place = self.place(&hello.sync_token);
        let welcome = Welcome {
            minor: 0,
            features: 0,
            session: SessionId(self.sessions[at].id),
            user: ME,
            device: DeviceId(1),
            time_ms: self.clock,
            generation: self.generation,
            inbox_position: self.position,
            limits: Limits::default(),
            pending,
            resumed: place.is_some(),
            node: "model".to_owned(),
        };
        let session = &mut self.sessions[at];
        session.live = true;
        session.credit = i64::from(hello.credit_bytes);
        session.put(ANSWERS, &ServerFrame::Welcome(Box::new(welcome)));
        for (item, cursor) in hello.cursors.iter().enumerate() {
            if self.refuses(rng) {
                let code = Code::Unavailable;
                self.refuse(at, 0, frame_type::OPEN_CHANNEL, code, 0, item as u16);
            } else {
                self.open(rng, at, 0, *cursor);
            }
        }
        if self.refuses(rng) {
            self.refuse(at, 0, frame_type::SYNC, Code::Unavailable, 50, 0);
        } else {
            self.on_sync(at, 0, &hello.sync_token);
        }
    }

    fn on_open(&mut self, rng: &mut StdRng, at: usize, request: u32, cursor: Cursor) {
        if self.refuses(rng) {
            let code = Code::Unavailable;
            self.refuse(at, request, frame_type::OPEN_CHANNEL, code, 30, 0);
        } else {
            self.open(rng, at, request, cursor);
        }
    }

    fn open(&mut self, rng: &mut StdRng, at: usize, request: u32, cursor: Cursor) {
        let id = cursor.channel;
        let session = &mut self.sessions[at];
        let alias = *session.aliases.entry(id).or_insert(cursor.alias);
        let (opened, head) = self.opened(id, alias, &cursor);
        let resync = opened.resync;
        self.sessions[at].put(LIVE, &ServerFrame::ChannelOpened { request, opened });
        let log = &self.logs[&id];
        let from = cursor.seq.max(log.first - 1) + 1;
        let streams = cursor.seq > 0 && !resync && cursor.generation == self.generation;
        if streams && from <= head && head - from < GAP_STREAMED_MAX {
            let events: Vec<_> = (from..=head).map(|seq| log.at(seq).clone()).collect();
            for event in events {
                self.push_to(rng, at, id, event);
            }
        }
    }

    fn opened(&self, id: ChannelId, alias: Alias, cursor: &Cursor) -> (ChannelOpened, Seq) {
        let head = self.head(id);
        let void = cursor.generation != self.generation || cursor.seq > head.head_seq;
        let opened = ChannelOpened {
            alias,
            head,
            kind: ChannelKind::Group,
            title: format!("group {id}"),
            peer: None,
            first_seq: self.logs[&id].first,
            resync: cursor.generation != 0 && void,
        };
        (opened, head.head_seq)
    }

    fn head(&self, id: ChannelId) -> ChannelHead {
        let log = &self.logs[&id];
        ChannelHead {
            channel: id,
            head_seq: log.visible(),
            head_ordinal: log.ordinal(log.visible()),
            read_seq: log.read,
            read_ordinal: log.ordinal(log.read),
            mentions: 0,
        }
    }

    fn on_send(&mut self, rng: &mut StdRng, at: usize, kind: u8, request: u32, sends: &[Send<'_>]) {
        let alias = sends[0].alias;
        assert!(sends.iter().all(|it| it.alias == alias) && sends.len() <= 64);
        let session = &self.sessions[at];
        let open = session.aliases.iter().find(|(_, it)| **it == alias);
        let Some(id) = open.map(|(id, _)| *id) else {
            return self.refuse(at, request, kind, Code::BadAlias, 0, 0);
        };
        assert!(
            session.unanswered.iter().all(|(it, _)| *it != id),
            "one frame of a channel in flight"
        );
        for send in sends {
            let seen = !self.seen_keys.insert(send.key);
            assert!(
                !seen || send.flags.contains(SendFlags::RETRY),
                "RETRY on a further attempt"
            );
        }
        let answer = self.decide(rng, at, kind, id, request, sends);
        self.sessions[at].unanswered.push((id, answer));
    }

    fn decide(
        &mut self,
        rng: &mut StdRng,
        at: usize,
        kind: u8,
        id: ChannelId,
        request: u32,
        sends: &[Send<'_>],
    ) -> ServerFrame {
        if self.refuses(rng) {
            let after_ms = rng.random_range(0..300);
            let code = match rng.random_range(0..4) {
                0 => Code::RateLimited,
                1 => Code::Overloaded,
                2 => Code::Unavailable,
                _ => {
                    if rng.random_bool(0.5) {
                        self.store(rng, at, id, sends);
                    }
                    Code::OutcomeUnknown
                }
            };
            return error(request, kind, code, after_ms, 0);
        }
        let log = &self.logs[&id];
        for (item, send) in sends.iter().enumerate() {
            if log.keys.contains_key(&send.key) {
                continue;
            }
            let code = match () {
                () if log.left.is_some() => Code::NotFound,
                () if send.tail.starts_with(b"BAD") => Code::Invalid,
                () => continue,
            };
            return error(request, kind, code, 0, item as u16);
        }
        let acks = self.store(rng, at, id, sends);
        ServerFrame::SendAck { request, acks }
    }

    fn store(
        &mut self,
        rng: &mut StdRng,
        at: usize,
        id: ChannelId,
        sends: &[Send<'_>],
    ) -> Vec<Ack> {
        let is_bad = |send: &Send<'_>| {
            let log = &self.logs[&id];
            let refused = log.left.is_some() || send.tail.starts_with(b"BAD");
            refused && !log.keys.contains_key(&send.key)
        };
        if sends.iter().any(is_bad) {
            return Vec::new();
        }
        let mut acks = Vec::new();
        for send in sends {
            let known = self.logs[&id].keys.get(&send.key).copied();
            let seq = known.unwrap_or_else(|| self.append(id, ME, send.kind, send.tail.to_vec()));
            self.logs.get_mut(&id).unwrap().keys.insert(send.key, seq);
            acks.push(Ack {
                seq,
                time_ms: self.logs[&id].at(seq).time_ms,
                flags: AckFlags(u16::from(known.is_some())),
            });
            if known.is_none() {
                self.push(rng, id, seq, Some(at));
            }
        }
        acks
    }

    fn push(&mut self, rng: &mut StdRng, id: ChannelId, seq: Seq, origin: Option<usize>) {
        if self.logs[&id].left.is_some() {
            return;
        }
        for at in 0..self.sessions.len() {
            let session = &self.sessions[at];
            if origin == Some(at) || !session.live || session.cut {
                continue;
            }
            if self.faults.hints {
                match rng.random_range(0..20) {
                    0 => continue,
                    1 => {
                        let head = self.head(id);
                        self.sessions[at].put(LIVE, &ServerFrame::ChannelHead(head));
                        continue;
                    }
                    2 => {
                        self.sessions[at].put(LIVE, &ServerFrame::SyncNow);
                        continue;
                    }
                    _ => {}
                }
            }
            if !self.sessions[at].aliases.contains_key(&id) {
                let session = &mut self.sessions[at];
                session.server_aliases += 1;
                let alias = 0x8000_0000 | session.server_aliases;
                session.aliases.insert(id, alias);
                let cursor = Cursor {
                    channel: id,
                    generation: 0,
                    seq: 0,
                    alias,
                };
                let (opened, _) = self.opened(id, alias, &cursor);
                let frame = ServerFrame::ChannelOpened { request: 0, opened };
                self.sessions[at].put(LIVE, &frame);
            }
            let event = self.logs[&id].at(seq).clone();
            self.push_to(rng, at, id, event);
        }
    }

    fn push_to(&mut self, rng: &mut StdRng, at: usize, id: ChannelId, mut event: Event) {
        let hints = self.faults.hints;
        let session = &mut self.sessions[at];
        if session.credit <= 0 {
            session.collapsed.insert(id);
            return;
        }
        if hints && event.kind < 16 && rng.random_bool(0.05) {
            event.tail = Bytes::copy_from_slice(&(event.tail.len() as u32).to_le_bytes());
            event.flags = EventFlags::BODY_OMITTED;
        }
        let alias = session.aliases[&id];
        let times = if hints && rng.random_bool(0.05) { 2 } else { 1 };
        for _ in 0..times {
            let frame = if event.kind < 16 {
                ServerFrame::Deliver {
                    alias,
                    event: event.clone(),
                }
            } else {
                ServerFrame::Event {
                    alias,
                    event: event.clone(),
                }
            };
            session.credit -= session.put(LIVE, &frame);
        }
    }

    fn on_history(&mut self, rng: &mut StdRng, at: usize, request: u32, asked: History) {
        let waiting = self.sessions[at].lanes[BULK].len();
        assert!(waiting < REQUESTS_IN_FLIGHT_MAX, "requests in flight");
        if self.refuses(rng) {
            let code = if rng.random_bool(0.5) {
                Code::RateLimited
            } else {
                Code::Unavailable
            };
            return self.refuse(at, request, frame_type::HISTORY, code, 40, 0);
        }
        let log = &self.logs[&asked.channel];
        let (mut from, mut to) = (asked.from.max(log.first), asked.to.min(log.visible()));
        let items = PAGE_ITEMS.min(asked.items_max.into()) as u32;
        if from > to {
            (from, to) = (1, 0);
        } else if asked.newest_first {
            from = from.max((to + 1).saturating_sub(items));
        } else {
            to = to.min(from + items - 1);
        }
        let page = HistoryPage {
            channel: asked.channel,
            generation: self.generation,
            covered_from: from,
            covered_to: to,
            first_seq: log.first,
            head_seq: log.visible(),
            events: (from..=to).map(|seq| log.at(seq).clone()).collect(),
        };
        self.sessions[at].put(BULK, &ServerFrame::HistoryPage { request, page });
    }

    // ---- sync ----

    /// (after, None) or (start, Some(next)); `None`: void.
    fn place(&self, token: &[u8]) -> Option<(u64, Option<u64>)> {
        let numbers: Vec<u64> = token
            .chunks_exact(8)
            .map(|it| u64::from_le_bytes(it.try_into().unwrap()))
            .collect();
        match numbers[..] {
            [generation, incarnation, ..]
                if generation != u64::from(self.generation)
                    || incarnation != u64::from(self.incarnation) =>
            {
                None
            }
            [_, _, after] => Some((after, None)),
            [_, _, start, next] => Some((start, Some(next))),
            _ => None,
        }
    }

    fn token(&self, numbers: &[u64]) -> Vec<u8> {
        [u64::from(self.generation), u64::from(self.incarnation)]
            .iter()
            .chain(numbers)
            .flat_map(|it| it.to_le_bytes())
            .collect()
    }

    fn on_sync(&mut self, at: usize, request: u32, token: &[u8]) {
        let place = self.place(token);
        let mut ids: Vec<_> = self
            .logs
            .iter()
            .map(|(id, log)| (log.position, *id))
            .collect();
        ids.sort_unstable();
        let (rows, more, token) = match place {
            Some((after, None)) => {
                ids.retain(|(position, _)| *position > after);
                let more = ids.len() > SYNC_ROWS;
                ids.truncate(SYNC_ROWS);
                let last = ids.last().map_or(after, |(position, _)| *position);
                (ids, more, self.token(&[last]))
            }
            listing => {
                ids.reverse();
                let (start, next) = match listing {
                    Some((start, Some(next))) => (start, next),
                    _ => (ids[0].0, u64::MAX),
                };
                ids.retain(|(position, id)| {
                    *position <= next && (listing.is_some() || self.logs[id].left.is_none())
                });
                let more = ids.len() > SYNC_ROWS;
                ids.truncate(SYNC_ROWS);
                let last = ids.last().map_or(0, |(position, _)| *position);
                if more {
                    let token = self.token(&[start, last - 1]);
                    (ids, true, token)
                } else {
                    (ids, listing.is_some(), self.token(&[start]))
                }
            }
        };
        let changes = SyncChanges {
            reset: place.is_none(),
            rows: rows.iter().map(|(_, id)| self.row(*id)).collect(),
            more,
            token,
        };
        self.sessions[at].put(BULK, &ServerFrame::SyncChanges { request, changes });
    }

    fn row(&self, id: ChannelId) -> SyncRow {
        SyncRow {
            head: self.head(id),
            kind: ChannelKind::Group,
            title: format!("group {id}"),
            peer: None,
            first_seq: self.logs[&id].first,
            left_seq: self.logs[&id].left,
            role: MemberRole::Member,
        }
    }
}

fn members_body() -> Vec<u8> {
    EventBody {
        channel_kind: None,
        title: None,
        members: vec![EventMember {
            user: ME,
            role: MemberRole::Member,
        }],
    }
    .encode()
}

fn error(
    request: u32,
    refused_type: u8,
    code: Code,
    retry_after_ms: u32,
    item: u16,
) -> ServerFrame {
    ServerFrame::Error {
        request,
        error: ErrorFrame {
            code,
            retry_after_ms,
            refused_type,
            item,
            detail: String::new(),
        },
    }
}
