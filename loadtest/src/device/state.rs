//! The pure half of a device under test: the minimal client of `docs/protocol.md`, section 23, with a journal.
//!
//! Frames and `now` go in; frames to send ([`State::take_output`]) and [`Note`]s for the checker ([`State::take_notes`])
//! come out. It merges by seq, fills gaps by HISTORY, resumes by cursors and sync token, asks about pending sends, keeps
//! one send in flight per channel and repeats under the same key until the answer is known. It is written from the
//! protocol's text and shares no code with the SDK, so that an error in one is not an error in both. No IO, no clock.
//!
//! Invariants: an event is shown once and in order of seq; a note of an attempt is there before its bytes are.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use conch_wire::event::{Ack, EventFlags, PendingAnswer, PendingSend, SendFlags};
use conch_wire::frame::{
    ChannelHead, Cursor, ErrorFrame, Hello, History, HistoryPage, PushMode, Send, SyncChanges,
    Welcome,
};
use conch_wire::{
    Alias, ChannelId, ClientFrame, Code, Event, EventKind, MessageKey, Seq, ServerFrame, SessionId,
    UserId, limits,
};

use super::stamp::Stamp;
use crate::checker::{Fingerprint, Observed};

/// Wait before the same send goes out again when the node gave no advice, in milliseconds.
const RETRY_MS: u64 = 50;

/// Something that the checker has to know, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    Attempted {
        channel: ChannelId,
        key: MessageKey,
        print: Fingerprint,
    },
    Acked {
        channel: ChannelId,
        print: Fingerprint,
        seq: Seq,
        stamp: Option<Stamp>,
    },
    Refused {
        channel: ChannelId,
        print: Fingerprint,
    },
    /// Refused for good, and dropped.
    GivenUp {
        channel: ChannelId,
        print: Fingerprint,
    },
    Unknown {
        channel: ChannelId,
        print: Fingerprint,
    },
    /// `stamp`: of a message that came from the node; an own one counts as shown when its ack comes, and has none.
    Shown {
        channel: ChannelId,
        event: Observed,
        stamp: Option<Stamp>,
    },
    /// A page that [`State::page_back`] asked for; empty when it was refused.
    Page {
        channel: ChannelId,
        request: u32,
        events: Vec<Observed>,
    },
    /// The mark as it was when this connection began: not below any that was told before.
    ReadMark {
        channel: ChannelId,
        seq: Seq,
    },
    /// A durable mark.
    ReadConfirmed {
        channel: ChannelId,
        seq: Seq,
    },
    InboxPosition(u64),
}

/// What a device did so far; for reports and for waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that wait for their final answer.
    pub unsettled: usize,
    /// WELCOMEs.
    pub connections: u64,
    /// Messages given up because the node refused them for good.
    pub dropped: u64,
    /// Pending sends that the node answered as stored in a WELCOME.
    pub resolved_by_welcome: u64,
    /// SYNCs because a PONG told of something that no push had told.
    pub hints_lost: u64,
    /// Pages of history that it asked for.
    pub pages: u64,
    /// Channels told to be forgotten and loaded again.
    pub resyncs: u64,
}

/// One message on its way.
#[derive(Clone, Debug)]
struct Outgoing {
    key: MessageKey,
    text: Bytes,
    attempted: bool,
}

#[derive(Debug, Default)]
struct Channel {
    alias: Option<Alias>,
    opening: bool,
    /// Last seq shown, without a gap.
    have: Seq,
    /// Highest seq heard of.
    known: Seq,
    ahead: BTreeMap<Seq, (Observed, Option<Stamp>)>,
    paging: bool,
    outbox: VecDeque<Outgoing>,
    /// How many of the outbox's first items are on the wire.
    in_flight: usize,
    retry_at: u64,
    left: bool,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Send {
        channel: ChannelId,
    },
    History {
        channel: ChannelId,
    },
    /// For a person who pages back.
    Page {
        channel: ChannelId,
    },
    Open {
        channel: ChannelId,
    },
    Sync,
}

/// A device's memory. Survives connections; see the module.
#[derive(Debug)]
pub struct State {
    user: UserId,
    push: PushMode,
    generation: u32,
    session: Option<SessionId>,
    sync_token: Vec<u8>,
    syncing: bool,
    /// Sync token and rows must be committed together; here both are memory.
    position: u64,
    anything_since_beat: bool,
    channels: HashMap<ChannelId, Channel>,
    aliases: HashMap<Alias, ChannelId>,
    requests: HashMap<u32, Request>,
    asked_pending: Vec<PendingSend>,
    last_request: u32,
    last_alias: Alias,
    credit_used: u32,
    connected: bool,
    /// SENDs and SEND_MANYs on the wire.
    sends_in_flight: usize,
    out: BytesMut,
    notes: Vec<Note>,
    tally: Tally,
}

impl State {
    /// A fresh device of `user`.
    pub fn new(user: UserId, push: PushMode) -> State {
        State {
            user,
            push,
            generation: 0,
            session: None,
            sync_token: Vec::new(),
            syncing: false,
            position: 0,
            anything_since_beat: false,
            channels: HashMap::new(),
            aliases: HashMap::new(),
            requests: HashMap::new(),
            asked_pending: Vec::new(),
            last_request: 0,
            last_alias: 0,
            credit_used: 0,
            connected: false,
            sends_in_flight: 0,
            out: BytesMut::new(),
            notes: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Bytes to send: whole frames.
    pub fn take_output(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// Notes since the last call, oldest first. Hand them to the checker before the output leaves.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Counts so far.
    pub fn tally(&self) -> Tally {
        Tally {
            unsettled: self.channels.values().map(|c| c.outbox.len()).sum(),
            ..self.tally
        }
    }

    /// Last seq shown of a channel.
    pub fn have(&self, channel: ChannelId) -> Seq {
        self.channels.get(&channel).map_or(0, |c| c.have)
    }

    /// Whether everything that it heard of was shown, as far as it knows.
    pub fn is_current(&self) -> bool {
        self.connected && !self.syncing && self.channels.values().all(|it| it.have >= it.known)
    }

    /// When [`State::on_tick`] has something to do, in the caller's milliseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.channels
            .values()
            .filter(|c| self.connected && !c.outbox.is_empty() && c.in_flight == 0)
            .map(|c| c.retry_at)
            .min()
    }

    /// The HELLO of the next connection.
    pub fn hello(&mut self, token: &str) -> Hello {
        let mut cursors = Vec::new();
        for (channel, state) in &mut self.channels {
            if state.left || cursors.len() == limits::HELLO_CURSORS_MAX {
                continue;
            }
            self.last_alias += 1;
            cursors.push(Cursor {
                channel: *channel,
                generation: if state.have == 0 { 0 } else { self.generation },
                seq: state.have,
                alias: self.last_alias,
            });
        }
        self.asked_pending = self
            .channels
            .iter()
            .flat_map(|(channel, state)| {
                let attempted = state.outbox.iter().filter(|item| item.attempted);
                attempted.map(|item| PendingSend {
                    channel: *channel,
                    key: item.key,
                })
            })
            .take(limits::HELLO_PENDING_MAX)
            .collect();
        Hello {
            token: token.to_owned(),
            client: "conch-load".to_owned(),
            sync_token: self.sync_token.clone(),
            cursors,
            pending: self.asked_pending.clone(),
            replaces: self.session,
            credit_bytes: limits::CREDIT_BYTES,
            push: self.push,
            ..Hello::default()
        }
    }

    /// The connection stands.
    pub fn on_welcome(&mut self, welcome: Welcome, now_ms: u64) {
        self.tally.connections += 1;
        self.connected = true;
        self.session = Some(welcome.session);
        if self.generation != 0 && self.generation != welcome.generation {
            self.forget();
        }
        self.generation = welcome.generation;
        self.position = self.position.max(welcome.inbox_position);
        self.notes.push(Note::InboxPosition(welcome.inbox_position));
        let asked = std::mem::take(&mut self.asked_pending);
        for (pending, answer) in asked.into_iter().zip(welcome.pending) {
            if let PendingAnswer::Stored { seq, .. } = answer {
                self.tally.resolved_by_welcome += 1;
                self.settle(pending.channel, pending.key, seq);
            }
        }
        // The first page of changes comes by itself.
        self.syncing = true;
        self.pump(now_ms);
    }

    /// Another generation of the store: seqs may name other messages. Only the outbox stays.
    fn forget(&mut self) {
        self.tally.resyncs += 1;
        self.position = 0;
        self.sync_token.clear();
        for state in self.channels.values_mut() {
            state.have = 0;
            state.known = 0;
            state.ahead.clear();
        }
    }

    /// The connection is gone: what was on the wire has no answer.
    pub fn on_disconnect(&mut self) {
        self.connected = false;
        self.aliases.clear();
        self.requests.clear();
        self.out.clear();
        self.syncing = false;
        self.sends_in_flight = 0;
        self.last_alias = 0;
        self.last_request = 0;
        self.credit_used = 0;
        let user = self.user;
        for (channel, state) in &mut self.channels {
            for item in state.outbox.iter().take(state.in_flight) {
                self.notes.push(Note::Unknown {
                    channel: *channel,
                    print: Fingerprint::of(user, EventKind::Text as u8, &item.text),
                });
            }
            state.in_flight = 0;
            state.alias = None;
            state.opening = false;
            state.paging = false;
            state.retry_at = 0;
        }
    }

    /// A person types a message.
    pub fn say(&mut self, channel: ChannelId, key: MessageKey, text: Bytes, now_ms: u64) {
        self.channel(channel).outbox.push_back(Outgoing {
            key,
            text,
            attempted: false,
        });
        self.try_send(channel, now_ms);
    }

    /// A person types several messages; what does not wait for others leaves together.
    pub fn say_many(
        &mut self,
        channel: ChannelId,
        messages: impl IntoIterator<Item = (MessageKey, Bytes)>,
        now_ms: u64,
    ) {
        let outbox = &mut self.channel(channel).outbox;
        outbox.extend(messages.into_iter().map(|(key, text)| Outgoing {
            key,
            text,
            attempted: false,
        }));
        self.try_send(channel, now_ms);
    }

    /// A person pages back: at most `items` events up to `to`. The request, unless too many are under way.
    pub fn page_back(&mut self, channel: ChannelId, to: Seq, items: u16) -> Option<u32> {
        // One place stays free for SYNC, one for a gap.
        if !self.connected || self.pages_asked() + 2 >= limits::REQUESTS_IN_FLIGHT_MAX {
            return None;
        }
        let request = self.request(Request::Page { channel });
        self.encode(&ClientFrame::History {
            request,
            history: History {
                channel,
                from: 1,
                to,
                items_max: items,
                newest_first: true,
            },
        });
        Some(request)
    }

    fn pages_asked(&self) -> usize {
        let is_page = |it: &&Request| {
            matches!(
                it,
                Request::History { .. } | Request::Page { .. } | Request::Sync
            )
        };
        self.requests.values().filter(is_page).count()
    }

    /// A person has read everything that was shown of `channel`.
    pub fn read(&mut self, channel: ChannelId) {
        let seq = self.have(channel);
        if self.connected && seq > 0 {
            self.encode(&ClientFrame::Read {
                request: 0,
                channel,
                seq,
            });
        }
    }

    /// Time for a heartbeat.
    pub fn beat(&mut self) {
        self.anything_since_beat = false;
        self.encode(&ClientFrame::Ping { nonce: 1 });
    }

    /// Repeats what waited for its time.
    pub fn on_tick(&mut self, now_ms: u64) {
        self.pump(now_ms);
    }

    /// A frame came. `wire_bytes`: what it took on the wire, for the credit.
    pub fn on_frame(&mut self, frame: ServerFrame, wire_bytes: u32, now_ms: u64) {
        match frame {
            ServerFrame::Deliver { alias, event } | ServerFrame::Event { alias, event } => {
                self.on_event(alias, event, wire_bytes);
            }
            ServerFrame::SendAck { request, acks } => self.on_acks(request, &acks, now_ms),
            ServerFrame::ChannelHead(head) => {
                self.notes.push(Note::ReadConfirmed {
                    channel: head.channel,
                    seq: head.read_seq,
                });
                self.note_head(head);
            }
            ServerFrame::SyncNow => self.sync(),
            ServerFrame::ChannelOpened { request, opened } => {
                self.requests.remove(&request);
                let channel = opened.head.channel;
                self.aliases.insert(opened.alias, channel);
                if request == 0 {
                    self.notes.push(Note::ReadMark {
                        channel,
                        seq: opened.head.read_seq,
                    });
                }
                let resyncs = u64::from(opened.resync);
                self.tally.resyncs += resyncs;
                let state = self.channel(channel);
                state.alias = Some(opened.alias);
                state.opening = false;
                if opened.resync {
                    state.have = 0;
                    state.known = 0;
                    state.ahead.clear();
                }
                state.have = state.have.max(opened.first_seq.saturating_sub(1));
                self.note_head(opened.head);
                self.try_send(channel, now_ms);
            }
            ServerFrame::SyncChanges { request, changes } => self.on_changes(request, changes),
            ServerFrame::HistoryPage { request, page } => self.on_page(request, page),
            ServerFrame::Error { request, error } => self.on_error(request, error, now_ms),
            ServerFrame::Pong { inbox_position, .. } => {
                self.notes.push(Note::InboxPosition(inbox_position));
                if inbox_position > self.position {
                    self.position = inbox_position;
                    if !self.anything_since_beat {
                        self.tally.hints_lost += 1;
                        self.sync();
                    }
                }
            }
            ServerFrame::Welcome(_)
            | ServerFrame::Credit { .. }
            | ServerFrame::Goaway { .. }
            | ServerFrame::AuthExpiring { .. }
            | ServerFrame::AuthRefreshed { .. }
            | ServerFrame::Skipped { .. } => {}
        }
    }

    fn on_event(&mut self, alias: Alias, event: Event, wire_bytes: u32) {
        self.anything_since_beat = true;
        self.credit_used += wire_bytes;
        if self.credit_used >= limits::CREDIT_BYTES / 2 {
            let bytes = std::mem::take(&mut self.credit_used);
            self.encode(&ClientFrame::Credit { bytes });
        }
        let Some(channel) = self.aliases.get(&alias).copied() else {
            return;
        };
        if event.flags.contains(EventFlags::BODY_OMITTED) {
            let state = self.channel(channel);
            state.known = state.known.max(event.seq);
        } else {
            self.take(channel, Observed::of(&event), Stamp::read(&event.tail));
        }
        self.fill_gap(channel);
    }

    fn on_acks(&mut self, request: u32, acks: &[Ack], now_ms: u64) {
        let Some(Request::Send { channel }) = self.requests.remove(&request) else {
            return;
        };
        self.sends_in_flight -= 1;
        let state = self.channel(channel);
        let answered = state.in_flight.min(acks.len());
        state.in_flight = 0;
        let keys: Vec<_> = state.outbox.iter().take(answered).map(|i| i.key).collect();
        for (key, ack) in keys.into_iter().zip(acks) {
            self.settle(channel, key, ack.seq);
        }
        self.fill_gap(channel);
        self.try_send(channel, now_ms);
    }

    /// The place of an own message is known.
    fn settle(&mut self, channel: ChannelId, key: MessageKey, seq: Seq) {
        let user = self.user;
        let state = self.channel(channel);
        let Some(index) = state.outbox.iter().position(|item| item.key == key) else {
            return;
        };
        let item = state
            .outbox
            .remove(index)
            .expect("the index was just found");
        let kind = EventKind::Text as u8;
        self.notes.push(Note::Acked {
            channel,
            print: Fingerprint::of(user, kind, &item.text),
            seq,
            stamp: Stamp::read(&item.text),
        });
        self.take(channel, Observed::parts(seq, user, kind, &item.text), None);
    }

    fn on_changes(&mut self, request: u32, changes: SyncChanges) {
        self.requests.remove(&request);
        self.syncing = false;
        for row in changes.rows {
            let state = self.channel(row.head.channel);
            state.have = state.have.max(row.first_seq.saturating_sub(1));
            state.left = row.left_seq.is_some();
            self.note_head(row.head);
        }
        self.sync_token = changes.token;
        if changes.more {
            self.sync();
        }
    }

    fn on_page(&mut self, request: u32, page: HistoryPage) {
        self.anything_since_beat = true;
        if let Some(Request::Page { channel }) = self.requests.remove(&request) {
            let events = page.events.iter().map(Observed::of).collect();
            self.notes.push(Note::Page {
                channel,
                request,
                events,
            });
            return;
        }
        let state = self.channel(page.channel);
        state.paging = false;
        state.have = state.have.max(page.first_seq.saturating_sub(1));
        for event in &page.events {
            self.take(page.channel, Observed::of(event), Stamp::read(&event.tail));
        }
        self.fill_gap(page.channel);
        self.fill_gaps();
    }

    fn on_error(&mut self, request: u32, error: ErrorFrame, now_ms: u64) {
        match self.requests.remove(&request) {
            Some(Request::Send { channel }) => {
                self.sends_in_flight -= 1;
                self.on_send_refused(channel, &error, now_ms);
            }
            Some(Request::Page { channel }) => self.notes.push(Note::Page {
                channel,
                request,
                events: Vec::new(),
            }),
            Some(Request::History { channel }) => {
                let state = self.channel(channel);
                state.paging = false;
                if error.code.number() >= 4_400 {
                    state.known = state.have;
                }
            }
            Some(Request::Open { channel }) => self.channel(channel).opening = false,
            Some(Request::Sync) => self.syncing = false,
            None => {}
        }
    }

    fn on_send_refused(&mut self, channel: ChannelId, error: &ErrorFrame, now_ms: u64) {
        let user = self.user;
        let state = self.channels.entry(channel).or_default();
        let items = std::mem::take(&mut state.in_flight);
        let certain = error.code != Code::OutcomeUnknown;
        for item in state.outbox.iter().take(items) {
            let print = Fingerprint::of(user, EventKind::Text as u8, &item.text);
            self.notes.push(if certain {
                Note::Refused { channel, print }
            } else {
                Note::Unknown { channel, print }
            });
        }
        state.retry_at = now_ms + u64::from(error.retry_after_ms).max(RETRY_MS);
        if error.code == Code::BadAlias {
            state.alias = None;
        } else if error.code.number() >= 4_400 {
            if let Some(item) = state.outbox.remove(usize::from(error.item)) {
                let print = Fingerprint::of(user, EventKind::Text as u8, &item.text);
                self.notes.push(Note::GivenUp { channel, print });
            }
            self.tally.dropped += 1;
        }
        self.pump(now_ms);
    }

    fn take(&mut self, channel: ChannelId, event: Observed, stamp: Option<Stamp>) {
        let state = self.channels.entry(channel).or_default();
        state.known = state.known.max(event.seq);
        if event.seq <= state.have {
            return;
        }
        if event.seq == state.have + 1 && state.ahead.is_empty() {
            state.have += 1;
            self.notes.push(Note::Shown {
                channel,
                event,
                stamp,
            });
            return;
        }
        state.ahead.insert(event.seq, (event, stamp));
        while let Some((event, stamp)) = state.ahead.remove(&(state.have + 1)) {
            state.have += 1;
            self.notes.push(Note::Shown {
                channel,
                event,
                stamp,
            });
        }
    }

    fn note_head(&mut self, head: ChannelHead) {
        self.anything_since_beat = true;
        let state = self.channel(head.channel);
        state.known = state.known.max(head.head_seq);
        self.fill_gap(head.channel);
    }

    fn fill_gaps(&mut self) {
        let behind: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, state)| state.have < state.known && !state.paging)
            .map(|(channel, _)| *channel)
            .collect();
        for channel in behind {
            self.fill_gap(channel);
        }
    }

    fn fill_gap(&mut self, channel: ChannelId) {
        let asked = self.pages_asked();
        let state = self.channels.entry(channel).or_default();
        while state
            .ahead
            .first_key_value()
            .is_some_and(|(seq, _)| *seq <= state.have)
        {
            state.ahead.pop_first();
        }
        // One place stays free for SYNC.
        if !self.connected
            || state.have >= state.known
            || state.paging
            || asked + 1 >= limits::REQUESTS_IN_FLIGHT_MAX
        {
            return;
        }
        state.paging = true;
        let (from, to) = (state.have + 1, state.known);
        self.tally.pages += 1;
        let request = self.request(Request::History { channel });
        self.encode(&ClientFrame::History {
            request,
            history: History {
                channel,
                from,
                to,
                items_max: limits::HISTORY_ITEMS_MAX as u16,
                newest_first: false,
            },
        });
    }

    fn sync(&mut self) {
        if !self.connected || self.syncing {
            return;
        }
        self.syncing = true;
        let request = self.request(Request::Sync);
        let token = self.sync_token.clone();
        self.encode(&ClientFrame::Sync {
            request,
            token,
            rows_max: limits::SYNC_ROWS_MAX as u16,
        });
    }

    fn pump(&mut self, now_ms: u64) {
        let waiting: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, state)| !state.outbox.is_empty() && state.in_flight == 0)
            .map(|(channel, _)| *channel)
            .collect();
        for channel in waiting {
            self.try_send(channel, now_ms);
        }
        self.fill_gaps();
    }

    fn try_send(&mut self, channel: ChannelId, now_ms: u64) {
        let user = self.user;
        if !self.connected {
            return;
        }
        let state = self.channels.entry(channel).or_default();
        if state.in_flight > 0 || state.outbox.is_empty() || now_ms < state.retry_at {
            return;
        }
        if self.sends_in_flight >= limits::SENDS_IN_FLIGHT_MAX {
            // Due again at once: whichever answer comes makes room.
            return;
        }
        let Some(alias) = state.alias else {
            self.open(channel);
            return;
        };
        let mut bytes = 0;
        let count = state
            .outbox
            .iter()
            .take(limits::SEND_MANY_ITEMS_MAX)
            .take_while(|item| {
                bytes += item.text.len() + 28;
                bytes <= limits::SEND_MANY_BYTES_MAX
            })
            .count()
            .max(1);
        state.in_flight = count;
        let items: Vec<_> = state.outbox.iter().take(count).cloned().collect();
        for item in state.outbox.iter_mut().take(count) {
            item.attempted = true;
        }
        let mut sends = Vec::with_capacity(count);
        for item in &items {
            self.notes.push(Note::Attempted {
                channel,
                key: item.key,
                print: Fingerprint::of(user, EventKind::Text as u8, &item.text),
            });
            sends.push(Send {
                key: item.key,
                alias,
                kind: EventKind::Text as u8,
                flags: if item.attempted {
                    SendFlags::RETRY
                } else {
                    SendFlags::default()
                },
                tail: &item.text,
            });
        }
        self.sends_in_flight += 1;
        let request = self.request(Request::Send { channel });
        if let [send] = sends[..] {
            self.encode(&ClientFrame::Send { request, send });
        } else {
            self.encode(&ClientFrame::SendMany { request, sends });
        }
    }

    fn open(&mut self, channel: ChannelId) {
        let generation = self.generation;
        let alias = self.last_alias + 1;
        let state = self.channels.entry(channel).or_default();
        if state.opening {
            return;
        }
        state.opening = true;
        let cursor = Cursor {
            channel,
            generation: if state.have == 0 { 0 } else { generation },
            seq: state.have,
            alias,
        };
        self.last_alias = alias;
        let request = self.request(Request::Open { channel });
        self.encode(&ClientFrame::OpenChannel { request, cursor });
    }

    fn request(&mut self, request: Request) -> u32 {
        self.last_request += 1;
        self.requests.insert(self.last_request, request);
        self.last_request
    }

    fn encode(&mut self, frame: &ClientFrame<'_>) {
        frame.encode(&mut self.out);
    }

    fn channel(&mut self, channel: ChannelId) -> &mut Channel {
        self.channels.entry(channel).or_default()
    }
}

#[cfg(test)]
mod tests;
