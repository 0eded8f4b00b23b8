//! How a frame is answered: as a node would from the same world, or as the script says.

use conch_wire::event::PendingAnswer;
use conch_wire::frame::{Cursor, ErrorFrame, Limits, Send, Welcome, frame_type};
use conch_wire::limits::{
    self, CREDIT_BYTES, FRAME_BYTES_MAX, GAP_STREAMED_MAX, REQUESTS_IN_FLIGHT_MAX,
    SENDS_IN_FLIGHT_MAX,
};
use conch_wire::{ChannelId, ClientFrame, Code, ServerFrame};

use super::{DEVICE, Held, as_event, sends};
use crate::rules::Ms;
use crate::server::State;

impl State {
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

    pub(super) fn limits(&self) -> Limits {
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

    pub(super) fn open(&mut self, s: usize, request: u32, cursor: Cursor, item: u16) {
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

    pub(super) fn sync(&mut self, s: usize, request: u32, token: &[u8], rows_max: usize) {
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

    pub(super) fn store_sends(
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

    pub(super) fn refuse_request(&mut self, s: usize, request: u32, refused_type: u8, code: Code) {
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

    pub(super) fn on_credit(&mut self, s: usize, bytes: u32) {
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
}
