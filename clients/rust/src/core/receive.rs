//! Bytes from the server, frame by frame, to the concept that each belongs to.
//!
//! Nothing here trusts the other side: a frame that cannot be read, that comes out of turn or answers nothing costs the
//! connection, never more.

use bytes::Bytes;
use conch_wire::frame::{ErrorFrame, frame_type, split_frame};
use conch_wire::limits::FRAME_BYTES_MAX;
use conch_wire::{Alias, Code, Event, EventFlags, ServerFrame, WireError};

use super::merge::Arrived;
use super::requests::Asked;
use super::{Core, Ms};

impl Core {
    pub(super) fn on_received(&mut self, now: Ms, connection: u64, bytes: Bytes) {
        if !self.is_current(connection) {
            return;
        }
        self.link.heartbeat.heard(now);
        let mut rest = bytes;
        while !rest.is_empty() && self.is_current(connection) {
            match cut(&mut rest) {
                Ok((frame, frame_bytes)) => self.on_frame(now, frame, frame_bytes),
                Err(error) => return self.distrust(now, error.what),
            }
        }
    }

    fn on_frame(&mut self, now: Ms, frame: ServerFrame, frame_bytes: u32) {
        if !self.link.is_online() {
            return self.on_early_frame(now, frame);
        }
        match frame {
            ServerFrame::Welcome(_) => self.distrust(now, "a second WELCOME"),
            ServerFrame::Deliver { alias, event } | ServerFrame::Event { alias, event } => {
                self.on_pushed(now, alias, event, frame_bytes);
            }
            ServerFrame::SendAck { request, acks } => self.on_send_ack(now, request, &acks),
            ServerFrame::ChannelHead(head) => self.on_channel_head(now, &head),
            ServerFrame::SyncNow => self.sync.want(),
            ServerFrame::ChannelOpened { request, opened } => {
                self.on_channel_opened(now, request, &opened);
            }
            ServerFrame::SyncChanges { request, changes } => {
                self.on_sync_changes(now, request, &changes);
            }
            ServerFrame::HistoryPage { request, page } => {
                self.on_history_page(now, request, page);
            }
            ServerFrame::Error { request, error } => self.on_error(now, request, &error),
            ServerFrame::Pong {
                nonce,
                inbox_position,
            } => {
                self.link.heartbeat.answered(nonce);
                self.sync.on_position(inbox_position);
            }
            ServerFrame::Goaway {
                delay_min_ms,
                delay_max_ms,
                endpoints,
                ..
            } => self.on_goaway(now, delay_min_ms, delay_max_ms, endpoints),
            ServerFrame::AuthExpiring { .. } => self.on_auth_expiring(),
            ServerFrame::AuthRefreshed { request, .. } => {
                self.requests.answered(request);
            }
            // The server's credit to us is not used yet: sends are bounded by count.
            ServerFrame::Credit { .. } | ServerFrame::Skipped { .. } => {}
        }
    }

    /// Before WELCOME only WELCOME, a refusal or a farewell makes sense.
    fn on_early_frame(&mut self, now: Ms, frame: ServerFrame) {
        match frame {
            ServerFrame::Welcome(welcome) if self.is_handshaking() => {
                self.on_welcome(now, *welcome);
            }
            ServerFrame::Error { error, .. } => self.on_last_word(&error),
            ServerFrame::Goaway { .. } | ServerFrame::Skipped { .. } => {}
            _ => self.distrust(now, "a frame before WELCOME"),
        }
    }

    fn on_pushed(&mut self, now: Ms, alias: Alias, event: Event, frame_bytes: u32) {
        if let Some(bytes) = self.link.credit.on_pushed(frame_bytes) {
            self.put(&conch_wire::ClientFrame::Credit { bytes });
        }
        let Some(id) = self.aliases.channel(alias) else {
            return self.distrust(now, "an event under an unknown alias");
        };
        let attempts = self.outbox.attempts();
        let Some(channel) = self.channels.get_mut(&id) else {
            return self.sync.want(); // forgotten since; SYNC tells whether it is ours
        };
        channel.listed = self.meta.listing.round;
        if event.flags.contains(EventFlags::BODY_OMITTED) {
            channel.log.note_head(event.seq);
            return self.note_gap(now, id);
        }
        channel.log.arrive(Arrived {
            event,
            key: None,
            attempts,
        });
        self.place(now, id);
    }

    fn on_error(&mut self, now: Ms, request: u32, error: &ErrorFrame) {
        let Some(asked) = self.requests.answered(request) else {
            match error.refused_type {
                0 | frame_type::HELLO => self.on_last_word(error),
                frame_type::OPEN_CHANNEL => self.on_cursor_refused(now, error.item),
                frame_type::SYNC if request == 0 => self.on_first_sync_refused(now, error),
                // Others without a request end in a close, or are mended by the next hint.
                _ => {}
            }
            return;
        };
        match asked {
            Asked::Send(channel) => self.on_send_refused(now, channel, error),
            Asked::Open(channel) => self.on_open_refused(now, channel, error),
            Asked::Gap(channel) => self.on_gap_refused(now, channel, error),
            Asked::Older { ticket, .. } | Asked::Range { ticket, .. } => {
                self.on_page_refused(ticket, error);
            }
            Asked::Sync => self.on_sync_refused(now, error),
            Asked::Read(channel) => self.on_read_refused(now, channel, error),
            // Counted with the next head; and the session ends with its token, and the next one starts with a new one.
            Asked::Head(_) | Asked::AuthRefresh => {}
        }
    }
}

/// Takes the first frame off a message, and says how many bytes it had.
fn cut(rest: &mut Bytes) -> Result<(ServerFrame, u32), WireError> {
    const CUT_SHORT: WireError = WireError {
        code: Code::BadFrame,
        what: "message ends within a frame",
    };
    let split = split_frame(rest, FRAME_BYTES_MAX)?.ok_or(CUT_SHORT)?;
    let (header, consumed) = (split.header, split.consumed);
    let mut frame = rest.split_to(consumed);
    let body = frame.split_off(conch_wire::frame::HEADER_BYTES);
    Ok((ServerFrame::decode(header, body)?, consumed as u32))
}
