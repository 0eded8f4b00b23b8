//! One connection as the scripted server sees it: the frames that came, the answers to them, the pushes.
//!
//! Owned by [`State`], which is everything that a case knows; the connection's task hands bytes in, the runner calls what
//! the script says. A frame whose type is held waits for the script, every other is answered as a node would answer it
//! from the same world (`answers`). Rules of a single connection are looked after in `checks`; what the server says of its
//! own, and the end, in `output`.

mod answers;
mod checks;
mod output;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use conch_wire::event::{EventFlags, SendFlags};
use conch_wire::frame::{EVENT_HEADER_BYTES, HEADER_BYTES, Hello, Send, frame_type, split_frame};
use conch_wire::limits::FRAME_BYTES_MAX;
use conch_wire::{Alias, ChannelId, ClientFrame, Code, DeviceId, Event, ServerFrame, SessionId};
use tokio::sync::mpsc;

use crate::rules::{Ms, short};
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
}
