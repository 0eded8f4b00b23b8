//! What the server says of its own, and how a connection ends: pushes within their credit, frames to their streams,
//! messages gathered, closes, cuts.

use bytes::{Bytes, BytesMut};
use conch_wire::event::EventFlags;
use conch_wire::frame::{ErrorFrame, PushMode, put_event};
use conch_wire::{ClientFrame, Code, MessageKey, Seq, ServerFrame};

use super::{FLAGS_AT, GATHERED_BYTES_MAX, Held, answered};
use crate::rules::Ms;
use crate::server::State;
use crate::transport::Outbound;

impl State {
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

    pub(super) fn live(&self) -> Vec<usize> {
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

    pub(super) fn out(&mut self, s: usize, outbound: Outbound) {
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

    pub(super) fn close(&mut self, s: usize, code: u16) {
        self.note(format!("{s} → close {code}"));
        self.out(s, Outbound::Close(code));
        self.on_over(s);
    }

    pub(crate) fn cut(&mut self, s: usize) {
        self.note(format!("connection {s} is cut"));
        self.out(s, Outbound::Cut);
        self.on_over(s);
    }

    pub(super) fn on_over(&mut self, s: usize) {
        self.sessions[s].over = true;
        self.held.retain(|held| held.session != s);
    }

    /// The text of a pending send, by its key.
    pub(crate) fn pending_text(&self, key: MessageKey) -> String {
        self.rules.text_of(key).unwrap_or("?").to_owned()
    }
}
