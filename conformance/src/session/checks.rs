//! What every frame of a client must be on its connection: aliases, request ids, what may be in flight, credit.

use conch_wire::ClientFrame;
use conch_wire::event::{SendFlags, check_send_tail};
use conch_wire::frame::{Cursor, Hello, frame_type};
use conch_wire::limits::{self, REQUESTS_IN_FLIGHT_MAX, SENDS_IN_FLIGHT_MAX};

use super::{SERVER_ALIASES, sends, text_of};
use crate::rules::Item;
use crate::server::State;

impl State {
    /// P-018: a channel with pending sends waits for WELCOME.
    pub(super) fn check_pipelined(&mut self, s: usize, frame: &ClientFrame<'_>) {
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

    pub(super) fn check(&mut self, s: usize, frame: &ClientFrame<'_>, bytes: usize) {
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

    pub(super) fn check_hello(&mut self, s: usize, hello: &Hello, bytes: usize) {
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

    pub(super) fn check_alias(&mut self, s: usize, cursor: &Cursor) {
        let is_new = self.sessions[s].used_aliases.insert(cursor.alias);
        if cursor.alias == 0 || cursor.alias >= SERVER_ALIASES || !is_new {
            let alias = cursor.alias;
            self.rules.breach(format!(
                "P-020: alias {alias:#x} is out of range or was used before"
            ));
        }
    }

    pub(super) fn check_requests(&mut self, s: usize) {
        let asked = self.sessions[s].in_flight(&[frame_type::HISTORY, frame_type::SYNC]);
        if asked > REQUESTS_IN_FLIGHT_MAX {
            self.rules
                .breach("P-042: more than 8 HISTORY and SYNC without an answer");
        }
    }

    pub(super) fn check_send(&mut self, s: usize, frame: &ClientFrame<'_>) {
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
}
