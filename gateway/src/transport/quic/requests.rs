//! Request streams: one HISTORY or SYNC each, and its answer.
//!
//! A stream brings exactly one frame and its end; the frame goes to the session like any other, and the answer with its
//! request id goes back on the stream. There are at most 15 at once (the connection's limit of streams, less the control
//! stream), a request is at most [`REQUEST_BYTES_MAX`], and answers that a client does not take are held here, counted:
//! above [`HELD_BYTES_MAX`] the connection takes nothing more from its session.

use std::task::Poll;

use bytes::Bytes;
use conch_wire::Code;
use conch_wire::frame::{FrameHeader, HEADER_BYTES, frame_type};
use quinn_proto::{Connection, StreamId, VarInt};

use super::streams::{self, give_up, number, write};
use crate::transport::{Incoming, Progress};

/// Longest request, header included: a SYNC with the longest sync token has room.
pub const REQUEST_BYTES_MAX: usize = 1_024;
/// A request must be complete this soon after its stream was opened, in milliseconds.
pub const REQUEST_DEADLINE_MS: u64 = 10_000;
/// Answers that wait for their clients. One page fits, so that a page nobody reads delays nothing else.
pub const HELD_BYTES_MAX: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub struct Requests {
    open: Vec<Request>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Request {
    stream: StreamId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reading {
        bytes: Vec<u8>,
        deadline_ms: u64,
    },
    /// With the session, under this request id.
    Asked(u32),
    Answering(Bytes),
}

/// What became of a stream that is read.
enum Read {
    Pending,
    Whole(u32, Bytes),
    /// Given up by the client.
    Dropped,
    Broken(Code, &'static str),
}

impl Requests {
    /// A stream that the client has opened.
    pub fn open(&mut self, stream: StreamId, now_ms: u64) {
        self.open.push(Request {
            stream,
            stage: Stage::Reading {
                bytes: Vec::new(),
                deadline_ms: now_ms + REQUEST_DEADLINE_MS,
            },
        });
    }

    /// The next request, or what is wrong with one.
    pub fn poll_read(
        &mut self,
        connection: &mut Connection,
        now_ms: u64,
        progress: &mut Progress,
    ) -> Poll<Incoming> {
        for i in 0..self.open.len() {
            let stream = self.open[i].stream;
            let Stage::Reading { bytes, deadline_ms } = &mut self.open[i].stage else {
                continue;
            };
            let incoming = match read(connection, stream, bytes, progress) {
                Read::Pending if now_ms < *deadline_ms => continue,
                Read::Pending => {
                    self.open.swap_remove(i);
                    give_up(connection, stream, number(Code::IdleTimeout));
                    Incoming::Control
                }
                Read::Whole(reference, frame) => {
                    self.open[i].stage = Stage::Asked(reference);
                    Incoming::Frames(frame)
                }
                // It costs what a frame costs: opening and giving up without end is a flood.
                Read::Dropped => {
                    self.open.swap_remove(i);
                    give_up(connection, stream, VarInt::from_u32(0));
                    Incoming::Control
                }
                Read::Broken(code, what) => Incoming::NotFrames { code, what },
            };
            return Poll::Ready(incoming);
        }
        Poll::Pending
    }

    /// When [`Requests::poll_read`] has something to do at the latest.
    pub fn deadline_ms(&self) -> u64 {
        let deadlines = self.open.iter().filter_map(|request| match request.stage {
            Stage::Reading { deadline_ms, .. } => Some(deadline_ms),
            _ => None,
        });
        deadlines.min().unwrap_or(u64::MAX)
    }

    /// Whether a frame of the session may belong on a stream of its own.
    pub fn expect_answers(&self) -> bool {
        self.open.iter().any(|r| matches!(r.stage, Stage::Asked(_)))
    }

    /// Whether the frame with this header answers a request that came on a stream of its own; then the stream's place.
    pub fn asked(&self, header: FrameHeader) -> Option<usize> {
        let answers = matches!(
            header.frame_type,
            frame_type::HISTORY_PAGE | frame_type::SYNC_CHANGES | frame_type::ERROR
        );
        self.open
            .iter()
            .position(|r| answers && matches!(r.stage, Stage::Asked(id) if id == header.reference))
    }

    /// Gives the answer to the stream at `place`, as [`Requests::asked`] said it.
    pub fn answer(&mut self, place: usize, frame: Bytes) {
        self.held_bytes += frame.len();
        self.open[place].stage = Stage::Answering(frame);
    }

    /// Request streams that are not answered yet.
    #[cfg(test)]
    pub(super) fn open_streams(&self) -> usize {
        self.open.len()
    }

    /// Answers that wait for their clients.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Writes what the clients take.
    pub fn write(&mut self, connection: &mut Connection, progress: &mut Progress) {
        let held_bytes = &mut self.held_bytes;
        self.open.retain_mut(|request| {
            let Stage::Answering(frame) = &mut request.stage else {
                return true;
            };
            let before = frame.len();
            let written = write(connection, request.stream, frame);
            progress.sent_bytes += (before - frame.len()) as u64;
            *held_bytes -= before - frame.len();
            match written {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => {
                    streams::finish(connection, request.stream);
                    false
                }
                // The client does not want it any more.
                Poll::Ready(Err(_)) => {
                    streams::finish(connection, request.stream);
                    *held_bytes -= frame.len();
                    false
                }
            }
        });
    }
}

/// Reads what there is of a request.
fn read(
    connection: &mut Connection,
    stream: StreamId,
    bytes: &mut Vec<u8>,
    progress: &mut Progress,
) -> Read {
    loop {
        // One more than may come, so that too much is seen.
        let room = REQUEST_BYTES_MAX + 1 - bytes.len();
        let ended = match streams::read(connection, stream, room) {
            streams::Read::Nothing => return Read::Pending,
            streams::Read::Reset => return Read::Dropped,
            streams::Read::End => true,
            streams::Read::Bytes(chunk) => {
                progress.received_bytes += chunk.len() as u64;
                bytes.extend_from_slice(&chunk);
                false
            }
        };
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>().copied() else {
            if ended {
                return Read::Broken(Code::BadFrame, "a request stream ends without a frame");
            }
            continue;
        };
        let header = FrameHeader::parse(header);
        let frame_bytes = HEADER_BYTES + header.body_len as usize;
        if !matches!(header.frame_type, frame_type::HISTORY | frame_type::SYNC) {
            return Read::Broken(
                Code::UnexpectedFrame,
                "only HISTORY and SYNC go on a stream of their own",
            );
        }
        if frame_bytes > REQUEST_BYTES_MAX {
            return Read::Broken(Code::TooLarge, "a request is longer than its limit");
        }
        if bytes.len() > frame_bytes {
            return Read::Broken(Code::BadFrame, "more than one frame on a request stream");
        }
        if ended && bytes.len() < frame_bytes {
            return Read::Broken(Code::BadFrame, "a request stream ends inside a frame");
        }
        if ended {
            return Read::Whole(header.reference, Bytes::from(std::mem::take(bytes)));
        }
    }
}
