//! One connection as the scripted server sees it: the frames that came, the answers to them, the pushes.
//!
//! Owned by [`State`], which is everything that a case knows; the connection's task hands bytes in, the runner calls what
//! the script says. A frame whose type is held waits for the script, every other is answered as a node would answer it
//! from the same world. Rules of a single connection are checked here: aliases, request ids, what may be in flight, credit.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use conch_wire::event::{EventFlags, PendingAnswer, SendFlags, check_send_tail};
use conch_wire::frame::{
    Cursor, EVENT_HEADER_BYTES, ErrorFrame, HEADER_BYTES, Hello, Limits, PushMode, Send, Welcome,
    frame_type, put_event, split_frame,
};
use conch_wire::limits::{
    self, CREDIT_BYTES, FRAME_BYTES_MAX, GAP_STREAMED_MAX, REQUESTS_IN_FLIGHT_MAX,
    SENDS_IN_FLIGHT_MAX,
};
use conch_wire::{
    Alias, ChannelId, ClientFrame, Code, DeviceId, Event, MessageKey, Seq, ServerFrame, SessionId,
};
use tokio::sync::mpsc;

use crate::rules::{Item, Ms, short};
use crate::server::State;
use crate::transport::Outbound;

/// The first session; the others count on.
const FIRST_SESSION: u64 = 0x7000_0000_0000_0001;
/// The device under test.
const DEVICE: DeviceId = DeviceId(0x5000_0000_0000_0007);
/// Aliases of the server's choosing have the top bit set.
const SERVER_ALIASES: Alias = 0x8000_0000;
/// Longest message that a node sends (P-060).
const GATHERED_BYTES_MAX: usize = 540_672;
/// Longest frame on a request stream.
const REQUEST_BYTES_MAX: usize = 1_024;
/// Place of the event's flags in a DELIVER.
const FLAGS_AT: usize = HEADER_BYTES + EVENT_HEADER_BYTES - 1;

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    out: mpsc::Sender<Outbound>,
    pub(crate) hello: Option<Hello>,
    pub(crate) welcomed: bool,
    pub(crate) over: bool,
    pub(crate) silent: bool,
    aliases: HashMap<Alias, ChannelId>,
    by_channel: HashMap<ChannelId, Alias>,
    used_aliases: HashSet<Alias>,
    next_alias: Alias,
    credit: i64,
    charged: u64,
    granted: u64,
    /// Channels whose events were dropped for want of credit.
    noted: BTreeSet<ChannelId>,
    /// Requests without an answer, by their id, with the type of their frame.
    outstanding: HashMap<u32, u8>,
    /// Those that came on streams of their own, with the stream: their answers go there.
    streams: HashMap<u32, u64>,
    /// Sends without an answer.
    sends: HashMap<u32, ChannelId>,
    /// No send before, after a refusal that said so.
    not_before: HashMap<ChannelId, Ms>,
    /// Frames behind a HELLO that is not decided yet.
    backlog: VecDeque<Bytes>,
    /// Frames that go out as one message.
    gathered: Option<BytesMut>,
}

/// A frame that waits for the script.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) session: usize,
    pub(crate) name: &'static str,
    pub(crate) bytes: Bytes,
}

impl Held {
    /// The frame; it was decoded once before it was held.
    pub(crate) fn frame(&self) -> ClientFrame<'_> {
        decode(&self.bytes).expect("held frames were decoded when they came")
    }
}

fn decode(bytes: &Bytes) -> Result<ClientFrame<'_>, conch_wire::WireError> {
    let split = split_frame(bytes, FRAME_BYTES_MAX)?.expect("one whole frame");
    ClientFrame::decode(split.header, split.body)
}

/// The name that scripts use; SEND is SEND_MANY too.
fn script_name(frame: &ClientFrame<'_>) -> &'static str {
    match frame {
        ClientFrame::SendMany { .. } => "SEND",
        frame => frame_type::name(frame.frame_type()).unwrap_or("UNKNOWN"),
    }
}

/// The messages of a send and their request.
pub(crate) fn sends<'f, 'a>(frame: &'f ClientFrame<'a>) -> Option<(u32, &'f [Send<'a>])> {
    match frame {
        ClientFrame::Send { request, send } => Some((*request, std::slice::from_ref(send))),
        ClientFrame::SendMany { request, sends } => Some((*request, sends)),
        _ => None,
    }
}

/// The text of a message to be sent.
pub(crate) fn text_of(send: &Send<'_>) -> String {
    as_event(send).text().unwrap_or_default().to_owned()
}

fn as_event(send: &Send<'_>) -> Event {
    let is_table = send.flags.contains(SendFlags::TABLE);
    Event {
        author: conch_wire::UserId(0),
        seq: 0,
        time_ms: 0,
        kind: send.kind,
        flags: EventFlags(u8::from(is_table)),
        tail: Bytes::copy_from_slice(send.tail),
    }
}

/// The request that a frame answers, if it may be one that came on a stream of its own.
fn answered(frame: &ServerFrame) -> Option<u32> {
    match frame {
        ServerFrame::HistoryPage { request, .. }
        | ServerFrame::SyncChanges { request, .. }
        | ServerFrame::Error { request, .. } => Some(*request),
        _ => None,
    }
}

/// A frame in a line of the trace.
fn describe(frame: &ClientFrame<'_>) -> String {
    if let Some((request, sends)) = sends(frame) {
        let texts: Vec<_> = sends
            .iter()
            .map(|send| {
                let retry = if send.flags.contains(SendFlags::RETRY) {
                    " RETRY"
                } else {
                    ""
                };
                format!("\"{}\"{retry}", short(&text_of(send)))
            })
            .collect();
        let name = frame_type::name(frame.frame_type()).unwrap_or_default();
        return format!("{name} request {request}: {}", texts.join(", "));
    }
    format!("{frame:?}").chars().take(300).collect()
}

impl Session {
    fn new(number: usize, out: mpsc::Sender<Outbound>) -> Session {
        Session {
            id: SessionId(FIRST_SESSION + number as u64),
            out,
            hello: None,
            welcomed: false,
            over: false,
            silent: false,
            aliases: HashMap::new(),
            by_channel: HashMap::new(),
            used_aliases: HashSet::new(),
            next_alias: SERVER_ALIASES,
            credit: 0,
            charged: 0,
            granted: 0,
            noted: BTreeSet::new(),
            outstanding: HashMap::new(),
            streams: HashMap::new(),
            sends: HashMap::new(),
            not_before: HashMap::new(),
            backlog: VecDeque::new(),
            gathered: None,
        }
    }

    fn bind(&mut self, alias: Alias, channel: ChannelId) {
        self.aliases.insert(alias, channel);
        self.used_aliases.insert(alias);
        self.by_channel.insert(channel, alias);
    }

    fn in_flight(&self, types: &[u8]) -> usize {
        self.outstanding
            .values()
            .filter(|it| types.contains(it))
            .count()
    }
}

impl State {
    /// A connection came; says its number.
    pub(crate) fn on_connection(&mut self, out: mpsc::Sender<Outbound>) -> usize {
        let now = self.now();
        self.rules.on_connection(now);
        let number = self.sessions.len();
        self.note(format!("connection {number} opened"));
        self.sessions.push(Session::new(number, out));
        number
    }

    /// The connection is over, whoever ended it.
    pub(crate) fn on_closed(&mut self, s: usize) {
        if !self.sessions[s].over {
            self.note(format!("connection {s} was closed by the client"));
        }
        self.sessions[s].over = true;
        self.held.retain(|held| held.session != s);
    }

    /// One transport message.
    pub(crate) fn on_bytes(&mut self, s: usize, mut bytes: Bytes) {
        while !bytes.is_empty() && !self.sessions[s].over && !self.sessions[s].silent {
            match split_frame(&bytes, FRAME_BYTES_MAX) {
                Ok(Some(split)) => {
                    let consumed = split.consumed;
                    let frame = bytes.split_to(consumed);
                    self.on_frame(s, frame);
                }
                Ok(None) => {
                    self.rules.breach("P-011: a message ends within a frame");
                    return self.end(s, Code::BadFrame.number(), 0, true);
                }
                Err(error) => {
                    self.rules.breach(format!("P-001: {error}"));
                    return self.end(s, error.code.number(), 0, true);
                }
            }
        }
    }

    /// Everything that came on a request stream (P-068): one HISTORY or SYNC.
    pub(crate) fn on_request(&mut self, s: usize, stream: u64, bytes: Bytes) {
        if self.sessions[s].over || self.sessions[s].silent {
            return;
        }
        let split = split_frame(&bytes, FRAME_BYTES_MAX);
        let is_one = matches!(&split, Ok(Some(split)) if split.consumed == bytes.len());
        if !is_one {
            self.rules
                .breach("P-069: a request stream does not hold exactly one frame");
            return self.end(s, Code::BadFrame.number(), 0, true);
        }
        let name = frame_type::name(bytes[0]).unwrap_or("an unknown frame");
        let breach = match bytes[0] {
            _ if !self.sessions[s].welcomed => Some("P-067: a second stream before WELCOME".into()),
            frame_type::HISTORY | frame_type::SYNC if bytes.len() > REQUEST_BYTES_MAX => Some(
                format!("P-068: {name} of {} bytes on a stream", bytes.len()),
            ),
            frame_type::HISTORY | frame_type::SYNC => None,
            _ => Some(format!("P-069: {name} on a stream of its own")),
        };
        if let Some(breach) = breach {
            self.rules.breach(breach);
            return self.end(s, Code::UnexpectedFrame.number(), 0, true);
        }
        let request = u32::from_le_bytes(bytes[4..8].try_into().expect("the header is whole"));
        self.sessions[s].streams.insert(request, stream);
        self.on_frame(s, bytes);
    }

    fn on_frame(&mut self, s: usize, bytes: Bytes) {
        let frame = match decode(&bytes) {
            Ok(frame) => frame,
            Err(error) => {
                self.rules
                    .breach(format!("P-002: frame of type {:#04x}: {error}", bytes[0]));
                return self.end(s, error.code.number(), 0, true);
            }
        };
        let is_hello = matches!(frame, ClientFrame::Hello(_));
        if is_hello == self.sessions[s].hello.is_some() {
            self.rules
                .breach(format!("P-015: {} at the wrong moment", describe(&frame)));
            return self.end(s, Code::UnexpectedFrame.number(), 0, true);
        }
        if !is_hello && !self.sessions[s].welcomed {
            self.check_pipelined(s, &frame);
            self.sessions[s].backlog.push_back(bytes.clone());
            return;
        }
        if let ClientFrame::Hello(hello) = &frame {
            self.sessions[s].hello = Some(hello.clone());
            if self.deny > 0 {
                self.deny -= 1;
                self.denied.push(self.now());
                return self.cut(s);
            }
        }
        self.note(format!("{s} ← {}", describe(&frame)));
        let name = script_name(&frame);
        *self.counts.entry(name).or_default() += 1;
        if name == "SEND" {
            let exact = frame_type::name(frame.frame_type()).unwrap_or_default();
            *self
                .counts
                .entry(if exact == "SEND" { "SEND_ONE" } else { exact })
                .or_default() += 1;
        }
        self.check(s, &frame, bytes.len());
        if self.sessions[s].over {
            return;
        }
        let held = Held {
            session: s,
            name,
            bytes: bytes.clone(),
        };
        if self.hold.contains(name) {
            self.held.push_back(held);
        } else {
            self.answer(&held);
        }
    }

    /// P-018: a channel with pending sends waits for WELCOME.
    fn check_pipelined(&mut self, s: usize, frame: &ClientFrame<'_>) {
        let Some(hello) = &self.sessions[s].hello else {
            return;
        };
        let alias = sends(frame)
            .and_then(|(_, sends)| sends.first())
            .map(|it| it.alias);
        let cursor = hello.cursors.iter().find(|it| Some(it.alias) == alias);
        if cursor.is_some_and(|it| {
            hello
                .pending
                .iter()
                .any(|pending| pending.channel == it.channel)
        }) {
            self.rules
                .breach("P-018: a send into a channel whose pending sends are not answered");
        }
    }

    fn check(&mut self, s: usize, frame: &ClientFrame<'_>, bytes: usize) {
        let request = match frame {
            ClientFrame::AuthRefresh { request, .. }
            | ClientFrame::Send { request, .. }
            | ClientFrame::SendMany { request, .. }
            | ClientFrame::OpenChannel { request, .. }
            | ClientFrame::History { request, .. }
            | ClientFrame::Sync { request, .. } => Some(*request),
            ClientFrame::Read { request, .. } if *request != 0 => Some(*request),
            _ => None,
        };
        if let Some(request) = request
            && self.sessions[s]
                .outstanding
                .insert(request, frame.frame_type())
                .is_some()
        {
            self.rules.breach(format!(
                "P-006: request {request} is used again before its answer"
            ));
        }
        let session = &mut self.sessions[s];
        match frame {
            ClientFrame::Hello(hello) => self.check_hello(s, hello, bytes),
            ClientFrame::Send { .. } | ClientFrame::SendMany { .. } => self.check_send(s, frame),
            ClientFrame::OpenChannel { cursor, .. } => {
                let cursor = *cursor;
                self.check_alias(s, &cursor);
            }
            ClientFrame::History { history, .. } => {
                if history.from > history.to || history.items_max == 0 {
                    self.rules.breach("11: HISTORY of an empty range");
                }
                self.check_requests(s);
            }
            ClientFrame::Sync { token, .. } => {
                if !token.is_empty() && !self.rules.is_sync_token(token) {
                    self.rules
                        .breach("SYNC with a token that the server never gave out");
                }
                self.check_requests(s);
            }
            ClientFrame::Credit { bytes } => {
                session.granted += u64::from(*bytes);
                if session.granted > session.charged {
                    self.rules
                        .breach("P-050: more credit was granted than was used");
                }
            }
            ClientFrame::AuthRefresh { token, .. } if !self.rules.is_token(token) => {
                let what = "P-054: AUTH_REFRESH with a token that the client was not given";
                self.rules.breach(what);
            }
            _ => {}
        }
    }

    fn check_hello(&mut self, s: usize, hello: &Hello, bytes: usize) {
        if bytes > limits::HELLO_BYTES_MAX {
            self.rules
                .breach("P-016: HELLO is longer than 16,384 bytes");
        }
        for cursor in &hello.cursors {
            self.check_alias(s, cursor);
        }
        if !hello.pending.is_empty() && hello.replaces.is_none() {
            self.rules
                .breach("P-063: pending sends without the session that they were attempted on");
        }
        let first_seqs = self
            .world
            .channels
            .iter()
            .map(|it| (it.id, it.first_seq))
            .collect();
        self.rules
            .on_hello(hello, self.world.generation, &first_seqs);
    }

    fn check_alias(&mut self, s: usize, cursor: &Cursor) {
        let is_new = self.sessions[s].used_aliases.insert(cursor.alias);
        if cursor.alias == 0 || cursor.alias >= SERVER_ALIASES || !is_new {
            let alias = cursor.alias;
            self.rules.breach(format!(
                "P-020: alias {alias:#x} is out of range or was used before"
            ));
        }
    }

    fn check_requests(&mut self, s: usize) {
        let asked = self.sessions[s].in_flight(&[frame_type::HISTORY, frame_type::SYNC]);
        if asked > REQUESTS_IN_FLIGHT_MAX {
            self.rules
                .breach("P-042: more than 8 HISTORY and SYNC without an answer");
        }
    }

    fn check_send(&mut self, s: usize, frame: &ClientFrame<'_>) {
        let Some((request, sends)) = sends(frame) else {
            return;
        };
        let alias = sends[0].alias;
        for send in sends {
            if let Err(error) = check_send_tail(send.kind, send.flags, send.tail) {
                self.rules
                    .breach(format!("9: a message that no node takes: {error}"));
            }
        }
        let now = self.now();
        let session = &mut self.sessions[s];
        let Some(channel) = session.aliases.get(&alias).copied() else {
            // Right behind an OPEN_CHANNEL that was refused it is allowed (P-024).
            if !session.used_aliases.contains(&alias) {
                self.rules.breach(format!(
                    "P-024: a send on alias {alias:#x}, which nobody opened"
                ));
            }
            return;
        };
        if session.sends.values().any(|it| *it == channel) {
            self.rules
                .breach("P-035: a second send of a channel while one is in flight");
        }
        session.sends.insert(request, channel);
        if session.sends.len() > SENDS_IN_FLIGHT_MAX {
            self.rules
                .breach("P-036: more than 64 sends without an answer");
        }
        let items: Vec<Item> = sends
            .iter()
            .map(|send| Item {
                key: send.key,
                text: text_of(send),
                retry: send.flags.contains(SendFlags::RETRY),
            })
            .collect();
        self.rules.on_items(channel, &items);
        if let Some(until) = self.sessions[s].not_before.remove(&channel)
            && now + 5 < until
        {
            self.rules.breach(format!(
                "9: sent again {} ms before retry_after_ms was over",
                until - now
            ));
        }
    }

    /// Answers a frame the way a node does.
    pub(crate) fn answer(&mut self, held: &Held) {
        let s = held.session;
        match held.frame() {
            ClientFrame::Hello(_) => self.welcome(held, &[]),
            ClientFrame::AuthRefresh { request, token } => {
                self.sessions[s].outstanding.remove(&request);
                if let Some(hello) = &mut self.sessions[s].hello {
                    hello.token = token;
                }
                let expires_in_ms = 600_000;
                self.put(
                    s,
                    &ServerFrame::AuthRefreshed {
                        request,
                        expires_in_ms,
                    },
                );
            }
            ClientFrame::Send { .. } | ClientFrame::SendMany { .. } => self.ack(held),
            ClientFrame::OpenChannel { request, cursor } => {
                self.sessions[s].outstanding.remove(&request);
                self.open(s, request, cursor, 0);
            }
            ClientFrame::CloseChannel { alias } => {
                let session = &mut self.sessions[s];
                if let Some(channel) = session.aliases.remove(&alias) {
                    session.by_channel.remove(&channel);
                }
            }
            ClientFrame::History { request, history } => {
                self.sessions[s].outstanding.remove(&request);
                let Some(channel) = self.world.by_id(history.channel) else {
                    return self.refuse_request(s, request, frame_type::HISTORY, Code::NotFound);
                };
                let page = self.world.page(channel, &history);
                for event in &page.events {
                    self.rules.gave(page.channel, event.seq);
                }
                self.put(s, &ServerFrame::HistoryPage { request, page });
            }
            ClientFrame::Sync {
                request,
                token,
                rows_max,
            } => {
                self.sessions[s].outstanding.remove(&request);
                self.sync(s, request, &token, rows_max.into());
            }
            ClientFrame::Read {
                request,
                channel,
                seq,
            } => {
                self.sessions[s].outstanding.remove(&request);
                match self.world.by_id(channel) {
                    Some(at) => {
                        self.world.read(at, seq);
                        self.head(at);
                    }
                    None if request != 0 => {
                        self.refuse_request(s, request, frame_type::READ, Code::NotFound);
                    }
                    None => {}
                }
            }
            ClientFrame::Credit { bytes } => self.on_credit(s, bytes),
            ClientFrame::Ping { nonce } => {
                let inbox_position = self.world.inbox_position();
                self.put(
                    s,
                    &ServerFrame::Pong {
                        nonce,
                        inbox_position,
                    },
                );
            }
            ClientFrame::Goodbye => {
                self.note(format!("connection {s} said goodbye"));
                self.close(s, 1000);
            }
            ClientFrame::Skipped { .. } => {}
        }
    }

    /// WELCOME and what follows it. `said` overrides answers about pending sends, by index.
    pub(crate) fn welcome(&mut self, held: &Held, said: &[String]) {
        let s = held.session;
        let ClientFrame::Hello(hello) = held.frame() else {
            return self.fail("welcome: the taken frame is no HELLO");
        };
        let mut pending = Vec::new();
        for (index, question) in hello.pending.iter().enumerate() {
            let stored = self.world.stored(question.channel, question.key);
            let answer = match (said.get(index).map(String::as_str), stored) {
                (Some("unknown"), _) => PendingAnswer::Unknown,
                (Some("absent"), _) | (None | Some("true"), None) => PendingAnswer::Absent,
                (None | Some("true" | "stored"), Some((seq, time_ms))) => {
                    self.rules.settled(question.key);
                    self.rules.gave(question.channel, seq);
                    PendingAnswer::Stored { seq, time_ms }
                }
                (Some(other), _) => {
                    return self.fail(&format!("welcome: pending \"{other}\" cannot be said"));
                }
            };
            pending.push(answer);
        }
        let session = &mut self.sessions[s];
        session.welcomed = true;
        session.credit = match hello.credit_bytes {
            0 => CREDIT_BYTES.into(),
            bytes => bytes.into(),
        };
        session.hello = Some(hello.clone());
        let welcome = Welcome {
            minor: 0,
            features: 0,
            session: session.id,
            user: self.world.me(),
            device: DEVICE,
            time_ms: 1_790_000_000_000,
            generation: self.world.generation,
            inbox_position: self.world.inbox_position(),
            limits: self.limits(),
            pending,
            resumed: self.world.is_valid(&hello.sync_token),
            node: "scripted".to_owned(),
        };
        self.rules.gave_session(welcome.session.0);
        self.put(s, &ServerFrame::Welcome(Box::new(welcome)));
        for (index, cursor) in hello.cursors.iter().enumerate() {
            self.open(s, 0, *cursor, index as u16);
        }
        self.sync(s, 0, &hello.sync_token, usize::MAX);
        while let Some(bytes) = self.sessions[s].backlog.pop_front() {
            self.on_frame(s, bytes);
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            text_chars_max: limits::TEXT_CHARS_MAX as u32,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            pushed_body_bytes_max: limits::PUSHED_BODY_BYTES_MAX as u32,
            send_many_items_max: limits::SEND_MANY_ITEMS_MAX as u32,
            send_many_bytes_max: limits::SEND_MANY_BYTES_MAX as u32,
            sends_in_flight_max: SENDS_IN_FLIGHT_MAX as u32,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX as u32,
            history_items_max: limits::HISTORY_ITEMS_MAX as u32,
            history_bytes_max: limits::HISTORY_BYTES_MAX as u32,
            sync_rows_max: self
                .case_limits
                .sync_rows_max
                .unwrap_or(limits::SYNC_ROWS_MAX as u32),
            group_members_max: limits::GROUP_MEMBERS_DEFAULT as u32,
            heartbeat_ms: self
                .case_limits
                .heartbeat_ms
                .unwrap_or(limits::HEARTBEAT_MS),
            silence_max_ms: self
                .case_limits
                .silence_max_ms
                .unwrap_or(limits::SILENCE_MAX_MS),
        }
    }

    fn open(&mut self, s: usize, request: u32, cursor: Cursor, item: u16) {
        let Some(at) = self.world.by_id(cursor.channel) else {
            let error = ErrorFrame {
                code: Code::NotFound,
                retry_after_ms: 0,
                refused_type: frame_type::OPEN_CHANNEL,
                item,
                detail: "no such channel".to_owned(),
            };
            return self.put(s, &ServerFrame::Error { request, error });
        };
        let session = &mut self.sessions[s];
        let alias = match session.by_channel.get(&cursor.channel) {
            Some(alias) => *alias,
            None => {
                session.bind(cursor.alias, cursor.channel);
                cursor.alias
            }
        };
        let channel = &self.world.channels[at];
        let head = channel.head_seq();
        let is_of_now = cursor.generation == self.world.generation && cursor.seq <= head;
        let resync = cursor.seq > 0 && !is_of_now;
        let opened = channel.opened(alias, resync);
        self.put(s, &ServerFrame::ChannelOpened { request, opened });
        if self.stream_gaps && cursor.seq > 0 && is_of_now && head - cursor.seq <= GAP_STREAMED_MAX
        {
            let from = (cursor.seq + 1).max(self.world.channels[at].first_seq);
            for seq in from..=head {
                self.push(s, at, seq);
            }
            if self.world.channels[at].left_seq.is_some() {
                // The last of them is the one that removes me (P-026).
                self.end_aliases(at);
            }
        }
    }

    fn sync(&mut self, s: usize, request: u32, token: &[u8], rows_max: usize) {
        let rows_max = rows_max.min(self.limits().sync_rows_max as usize);
        let changes = self.world.changes(token, rows_max);
        self.rules.gave_sync_token(&changes.token);
        self.put(s, &ServerFrame::SyncChanges { request, changes });
    }

    /// SEND_ACK, with everything stored that is not yet.
    pub(crate) fn ack(&mut self, held: &Held) {
        let s = held.session;
        let frame = held.frame();
        let Some((request, sends)) = sends(&frame) else {
            return self.fail("ack: the taken frame is no SEND");
        };
        self.sessions[s].outstanding.remove(&request);
        let Some(channel) = self.sessions[s].sends.remove(&request) else {
            return self.refuse_request(s, request, frame.frame_type(), Code::BadAlias);
        };
        let left = self
            .world
            .by_id(channel)
            .is_none_or(|at| self.world.channels[at].left_seq.is_some());
        if left
            && sends
                .iter()
                .any(|it| self.world.stored(channel, it.key).is_none())
        {
            for send in sends {
                self.rules.settled(send.key);
            }
            return self.refuse_request(s, request, frame.frame_type(), Code::NotFound);
        }
        let acks: Vec<_> = self.store_sends(channel, sends);
        for (send, ack) in sends.iter().zip(&acks) {
            self.rules.settled(send.key);
            self.rules.gave(channel, ack.seq);
        }
        self.put(s, &ServerFrame::SendAck { request, acks });
    }

    /// Stores the messages of a send and says nothing.
    pub(crate) fn store(&mut self, held: &Held) {
        let frame = held.frame();
        let request = sends(&frame).map(|(request, _)| request);
        let channel = request
            .and_then(|it| self.sessions[held.session].sends.get(&it))
            .copied();
        match (sends(&frame), channel) {
            (Some((_, sends)), Some(channel)) => {
                self.store_sends(channel, sends);
            }
            _ => self.fail("store: the taken frame is no SEND into an open channel"),
        }
    }

    fn store_sends(
        &mut self,
        channel: ChannelId,
        sends: &[Send<'_>],
    ) -> Vec<conch_wire::event::Ack> {
        let at = self
            .world
            .by_id(channel)
            .expect("sends are bound to channels that exist");
        sends
            .iter()
            .map(|send| self.world.store(at, send.key, as_event(send)))
            .collect()
    }

    /// ERROR for a taken frame, as the script says.
    pub(crate) fn refuse(&mut self, held: &Held, code: Code, retry_after_ms: u32, item: u16) {
        let (s, now) = (held.session, self.now());
        let frame = held.frame();
        let request = match &frame {
            ClientFrame::History { request, .. }
            | ClientFrame::Sync { request, .. }
            | ClientFrame::OpenChannel { request, .. }
            | ClientFrame::AuthRefresh { request, .. }
            | ClientFrame::Read { request, .. } => *request,
            frame => match sends(frame) {
                Some((request, sends)) => {
                    let is_final = matches!(code.number() / 100, 44 | 46) && code != Code::BadAlias;
                    if is_final && let Some(send) = sends.get(usize::from(item)) {
                        self.rules.settled(send.key);
                    }
                    let session = &mut self.sessions[s];
                    if let Some(channel) = session.sends.remove(&request)
                        && retry_after_ms > 0
                    {
                        session
                            .not_before
                            .insert(channel, now + Ms::from(retry_after_ms));
                    }
                    request
                }
                None => 0,
            },
        };
        self.sessions[s].outstanding.remove(&request);
        let error = ErrorFrame {
            code,
            retry_after_ms,
            refused_type: frame.frame_type(),
            item,
            detail: "as the script says".to_owned(),
        };
        self.put(s, &ServerFrame::Error { request, error });
        if matches!(frame, ClientFrame::Hello(_)) {
            self.end(s, code.number(), retry_after_ms, false);
        }
    }

    fn refuse_request(&mut self, s: usize, request: u32, refused_type: u8, code: Code) {
        self.sessions[s].outstanding.remove(&request);
        let error = ErrorFrame {
            code,
            retry_after_ms: 0,
            refused_type,
            item: 0,
            detail: String::new(),
        };
        self.put(s, &ServerFrame::Error { request, error });
    }

    fn on_credit(&mut self, s: usize, bytes: u32) {
        let session = &mut self.sessions[s];
        session.credit = (session.credit + i64::from(bytes)).min(CREDIT_BYTES.into());
        if session.credit <= 0 {
            return;
        }
        for channel in std::mem::take(&mut session.noted) {
            if let Some(at) = self.world.by_id(channel) {
                let head = self.world.channels[at].head();
                self.put(s, &ServerFrame::ChannelHead(head));
            }
        }
    }

    /// DELIVER or EVENT to one session, if its credit and its mode allow.
    pub(crate) fn push(&mut self, s: usize, at: usize, seq: Seq) {
        let channel = &self.world.channels[at];
        let (id, head) = (channel.id, channel.head());
        let Some(event) = channel.event(seq).cloned() else {
            return self.fail(&format!("push: there is no seq {seq}"));
        };
        let session = &mut self.sessions[s];
        let opened_only = session
            .hello
            .as_ref()
            .is_some_and(|it| it.push == PushMode::Opened);
        let alias = session.by_channel.get(&id).copied();
        if session.credit <= 0 || session.noted.contains(&id) {
            session.noted.insert(id);
            return self.note(format!("{s}: no credit, channel noted"));
        }
        if alias.is_none() && opened_only {
            return self.put(s, &ServerFrame::ChannelHead(head));
        }
        let alias = match alias {
            Some(alias) => alias,
            None => {
                session.next_alias += 1;
                let alias = session.next_alias;
                session.bind(alias, id);
                let opened = self.world.channels[at].opened(alias, false);
                self.put(s, &ServerFrame::ChannelOpened { request: 0, opened });
                alias
            }
        };
        let mut frame = BytesMut::new();
        let charged = put_event(&mut frame, alias, &event.encode_body());
        let session = &mut self.sessions[s];
        session.credit -= charged as i64;
        session.charged += charged as u64;
        if frame[FLAGS_AT] & EventFlags::BODY_OMITTED.0 == 0 {
            self.rules.gave(id, seq);
        }
        self.note(format!(
            "{s} → event {seq} of {}",
            self.world.channels[at].name
        ));
        self.put_bytes(s, frame.freeze());
    }

    /// An event to every session.
    pub(crate) fn push_all(&mut self, at: usize, seq: Seq) {
        for s in self.live() {
            self.push(s, at, seq);
        }
    }

    /// The alias ends with the event that removes me (P-026).
    pub(crate) fn end_aliases(&mut self, at: usize) {
        let channel = self.world.channels[at].id;
        for session in &mut self.sessions {
            if let Some(alias) = session.by_channel.remove(&channel) {
                session.aliases.remove(&alias);
            }
        }
    }

    /// CHANNEL_HEAD to every session.
    pub(crate) fn head(&mut self, at: usize) {
        let head = self.world.channels[at].head();
        for s in self.live() {
            self.put(s, &ServerFrame::ChannelHead(head));
        }
    }

    fn live(&self) -> Vec<usize> {
        let live = |s: &usize| self.sessions[*s].welcomed && !self.sessions[*s].over;
        (0..self.sessions.len()).filter(live).collect()
    }

    pub(crate) fn put(&mut self, s: usize, frame: &ServerFrame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let text: String = format!("{frame:?}").chars().take(300).collect();
        let stream = answered(frame).and_then(|it| self.sessions[s].streams.remove(&it));
        match stream {
            Some(stream) => {
                self.note(format!("{s} → on its stream: {text}"));
                let bytes = bytes.freeze();
                self.out(s, Outbound::Answer { stream, bytes });
            }
            None => {
                self.note(format!("{s} → {text}"));
                self.put_bytes(s, bytes.freeze());
            }
        }
    }

    /// Leaves a taken request without an answer: its stream is reset, or it is told that it cannot be done now.
    pub(crate) fn reset(&mut self, held: &Held) {
        let s = held.session;
        let (ClientFrame::History { request, .. } | ClientFrame::Sync { request, .. }) =
            held.frame()
        else {
            return self.fail("reset: the taken frame is no HISTORY and no SYNC");
        };
        match self.sessions[s].streams.remove(&request) {
            Some(stream) => {
                self.sessions[s].outstanding.remove(&request);
                self.note(format!("{s} → reset of the stream of request {request}"));
                self.out(s, Outbound::Reset { stream });
            }
            None => self.refuse(held, Code::Unavailable, 0, 0),
        }
    }

    /// The server's half of the control stream ends, and nothing more is said.
    pub(crate) fn finish(&mut self, s: usize) {
        self.note(format!("{s} → the end of the control stream"));
        self.out(s, Outbound::Finish);
        self.on_over(s);
    }

    /// The node was killed: it knows of no connection.
    pub(crate) fn vanish(&mut self) {
        self.note("the node was killed and started again".to_owned());
        for s in 0..self.sessions.len() {
            self.on_over(s);
        }
    }

    /// From here on frames wait for [`State::flush`].
    pub(crate) fn gather(&mut self, s: usize) {
        self.sessions[s].gathered.get_or_insert_default();
    }

    /// Sends what was gathered, as one message.
    pub(crate) fn flush(&mut self, s: usize) {
        let Some(gathered) = self.sessions[s].gathered.take() else {
            return self.fail("flush: nothing is gathered");
        };
        if gathered.len() > GATHERED_BYTES_MAX {
            return self.fail("flush: no node gathers so much");
        }
        self.note(format!("{s} → {} bytes at once", gathered.len()));
        self.put_bytes(s, gathered.freeze());
    }

    pub(crate) fn put_bytes(&mut self, s: usize, bytes: Bytes) {
        if let Some(gathered) = &mut self.sessions[s].gathered {
            return gathered.extend_from_slice(&bytes);
        }
        self.out(s, Outbound::Frames(bytes));
    }

    fn out(&mut self, s: usize, outbound: Outbound) {
        let session = &self.sessions[s];
        if session.silent && !matches!(outbound, Outbound::Cut) {
            return;
        }
        if session.out.try_send(outbound).is_err() && !session.over {
            self.note(format!("{s}: the connection takes nothing more"));
        }
    }

    /// The last word of the server: ERROR if wished, then the close.
    pub(crate) fn end(&mut self, s: usize, code: u16, retry_after_ms: u32, word: bool) {
        if let (true, Some(known)) = (word, Code::from_u16(code)) {
            let error = ErrorFrame {
                code: known,
                retry_after_ms,
                refused_type: 0,
                item: 0,
                detail: String::new(),
            };
            self.put(s, &ServerFrame::Error { request: 0, error });
        }
        if retry_after_ms > 0 {
            let until = self.now() + Ms::from(retry_after_ms);
            self.rules
                .wait_before_connecting(until, &format!("code {code} with retry_after_ms"));
        }
        let token = self.sessions[s].hello.as_ref().map(|it| it.token.clone());
        self.rules.ended(code, &token.unwrap_or_default());
        self.close(s, code);
    }

    fn close(&mut self, s: usize, code: u16) {
        self.note(format!("{s} → close {code}"));
        self.out(s, Outbound::Close(code));
        self.on_over(s);
    }

    pub(crate) fn cut(&mut self, s: usize) {
        self.note(format!("connection {s} is cut"));
        self.out(s, Outbound::Cut);
        self.on_over(s);
    }

    fn on_over(&mut self, s: usize) {
        self.sessions[s].over = true;
        self.held.retain(|held| held.session != s);
    }

    /// The text of a pending send, by its key.
    pub(crate) fn pending_text(&self, key: MessageKey) -> String {
        self.rules.text_of(key).unwrap_or("?").to_owned()
    }
}
