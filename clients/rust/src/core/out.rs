//! What the core wants done, gathered while inputs are handled and taken by the caller in one piece.

use bytes::{Bytes, BytesMut};
use conch_wire::{ClientFrame, Code};

use super::event::{Event, Message};
use super::persist::Persist;

/// Frames are gathered into transport messages of about this size, in bytes.
const CHUNK_BYTES: usize = 65_536;

/// To be carried out in the order of the fields; `persist` durably and in one transaction before anything else.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Steps of one durable transaction.
    pub persist: Vec<Persist>,
    /// Whole frames for the connection that is open now; each element is one WebSocket message, or goes
    /// onto QUIC streams frame by frame.
    pub frames: Vec<Bytes>,
    /// Connections to open and close.
    pub link: Vec<LinkCommand>,
    /// Ends of what was asked with a ticket.
    pub answers: Vec<Answer>,
    /// For the application.
    pub events: Vec<Event>,
}

impl Outputs {
    /// Nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.frames.is_empty()
            && self.link.is_empty()
            && self.answers.is_empty()
            && self.events.is_empty()
    }
}

/// What to do with connections. Inputs name the connection that they come from; those of an older one are ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkCommand {
    /// Get a token (a new one from the provider if `refresh_token`), open a transport, then say `Connected`, `Closed` or
    /// `TokenRejected`.
    Connect {
        /// Its number.
        connection: u64,
        /// The last token was refused.
        refresh_token: bool,
    },
    /// Write what is queued, then close. `what` is for people and logs.
    Close {
        /// Its number.
        connection: u64,
        /// The close code.
        code: Code,
        /// Why.
        what: &'static str,
    },
    /// Get a new token from the provider, then say `TokenRefreshed` or `TokenRejected`.
    RefreshToken {
        /// The connection that needs it.
        connection: u64,
    },
    /// The node is going away: connect to another endpoint next.
    Elsewhere {
        /// Those that it named, as an application writes them; may be none.
        endpoints: Vec<String>,
    },
}

/// The end of something that was asked with a ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Which question.
    pub ticket: u64,
    /// Its end.
    pub outcome: Outcome,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Older events are stored now.
    Loaded,
    /// The events of a range, in order; they are not stored. Fewer than asked for: ask again behind the last. None: there
    /// are none for us.
    Page(Vec<Message>),
    /// There is nothing older.
    AtStart,
    /// Not connected.
    Offline,
    /// The server says no.
    Refused(Code),
}

/// Gathers frames into transport messages.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    full: Vec<Bytes>,
    open: BytesMut,
}

impl FrameWriter {
    pub(crate) fn put(&mut self, frame: &ClientFrame<'_>) {
        let before = self.open.len();
        frame.encode(&mut self.open);
        if before > 0 && self.open.len() > CHUNK_BYTES {
            let last = self.open.split_off(before);
            self.full
                .push(std::mem::replace(&mut self.open, last).freeze());
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        let mut frames = std::mem::take(&mut self.full);
        if !self.open.is_empty() {
            frames.push(std::mem::take(&mut self.open).freeze());
        }
        frames
    }

    pub(crate) fn clear(&mut self) {
        self.full.clear();
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use conch_wire::frame::{HEADER_BYTES, split_frame};

    use super::*;

    #[test]
    fn messages_hold_whole_frames_and_stay_small() {
        let mut writer = FrameWriter::default();
        for _ in 0..20_000 {
            writer.put(&ClientFrame::Ping { nonce: 1 });
        }
        let mut frames = 0;
        for message in writer.take() {
            assert!(message.len() <= CHUNK_BYTES);
            let mut rest = &message[..];
            while let Ok(Some(split)) = split_frame(rest, HEADER_BYTES) {
                rest = &rest[split.consumed..];
                frames += 1;
            }
            assert!(rest.is_empty());
        }
        assert_eq!(frames, 20_000);
        assert!(writer.take().is_empty());
    }
}
