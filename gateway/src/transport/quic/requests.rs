//! Request streams: one HISTORY or SYNC each, and its answer.
//!
//! A stream brings exactly one frame and its end; the frame goes to the session like any other, and the answer with its
//! request id goes back on the stream. There are at most 15 at once (the connection's limit of streams, less the control
//! stream), a request is at most [`REQUEST_BYTES_MAX`], and answers that a client does not take are held here, counted:
//! above [`HELD_BYTES_MAX`] the connection takes nothing more from its session.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use conch_wire::Code;
use conch_wire::frame::{FrameHeader, HEADER_BYTES, frame_type};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use crate::transport::{Gone, Incoming, Progress};

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
    send: SendStream,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Reading {
        recv: RecvStream,
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
    Lost,
}

impl Requests {
    /// A stream that the client has opened.
    pub fn open(&mut self, send: SendStream, recv: RecvStream, now_ms: u64) {
        self.open.push(Request {
            send,
            stage: Stage::Reading {
                recv,
                bytes: Vec::new(),
                deadline_ms: now_ms + REQUEST_DEADLINE_MS,
            },
        });
    }

    /// The next request, or what is wrong with one.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now_ms: u64,
        progress: &mut Progress,
    ) -> Poll<Incoming> {
        for i in 0..self.open.len() {
            let Stage::Reading {
                recv,
                bytes,
                deadline_ms,
            } = &mut self.open[i].stage
            else {
                continue;
            };
            let incoming = match read(recv, bytes, cx, progress) {
                Read::Pending if now_ms < *deadline_ms => continue,
                Read::Pending => {
                    // Either may be gone already, which is what is wanted.
                    let _ = recv.stop(number(Code::IdleTimeout));
                    self.give_up(i, Code::IdleTimeout);
                    Incoming::Control
                }
                Read::Whole(reference, frame) => {
                    self.open[i].stage = Stage::Asked(reference);
                    Incoming::Frames(frame)
                }
                // It costs what a frame costs: opening and giving up without end is a flood.
                Read::Dropped => {
                    let mut request = self.open.swap_remove(i);
                    let _ = request.send.reset(VarInt::from_u32(0));
                    Incoming::Control
                }
                Read::Broken(code, what) => Incoming::NotFrames { code, what },
                Read::Lost => Incoming::Gone,
            };
            return Poll::Ready(incoming);
        }
        Poll::Pending
    }

    fn give_up(&mut self, i: usize, code: Code) {
        let mut request = self.open.swap_remove(i);
        let _ = request.send.reset(number(code));
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
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut Progress,
    ) -> Result<(), Gone> {
        let held_bytes = &mut self.held_bytes;
        let mut lost = false;
        self.open.retain_mut(|request| {
            let Stage::Answering(frame) = &mut request.stage else {
                return true;
            };
            let before = frame.len();
            let written = write(&mut request.send, frame, cx);
            progress.sent_bytes += (before - frame.len()) as u64;
            *held_bytes -= before - frame.len();
            match written {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => {
                    // Stopped meanwhile: there is nothing left to say.
                    let _ = request.send.finish();
                    false
                }
                // The client does not want it any more.
                Poll::Ready(Err(WriteError::Stopped(_) | WriteError::ClosedStream)) => {
                    *held_bytes -= frame.len();
                    false
                }
                Poll::Ready(Err(_)) => {
                    lost = true;
                    true
                }
            }
        });
        if lost { Err(Gone) } else { Ok(()) }
    }
}

/// A code as an application error code of QUIC.
pub fn number(code: Code) -> VarInt {
    VarInt::from_u32(u32::from(code.number()))
}

/// Writes `bytes` until they are all with the connection; what is left stays in `bytes`.
pub fn write(
    send: &mut SendStream,
    bytes: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<Result<(), WriteError>> {
    while !bytes.is_empty() {
        let chunks = std::slice::from_mut(bytes);
        let written = std::task::ready!(pin!(send.write_chunks(chunks)).poll(cx));
        if let Err(error) = written {
            return Poll::Ready(Err(error));
        }
    }
    Poll::Ready(Ok(()))
}

/// Reads what there is of a request.
fn read(
    recv: &mut RecvStream,
    bytes: &mut Vec<u8>,
    cx: &mut Context<'_>,
    progress: &mut Progress,
) -> Read {
    loop {
        // One more than may come, so that too much is seen.
        let room = REQUEST_BYTES_MAX + 1 - bytes.len();
        let chunk = match pin!(recv.read_chunk(room, true)).poll(cx) {
            Poll::Pending => return Read::Pending,
            Poll::Ready(Ok(chunk)) => chunk,
            Poll::Ready(Err(ReadError::Reset(_))) => return Read::Dropped,
            Poll::Ready(Err(_)) => return Read::Lost,
        };
        let ended = chunk.is_none();
        if let Some(chunk) = chunk {
            progress.received_bytes += chunk.bytes.len() as u64;
            bytes.extend_from_slice(&chunk.bytes);
        }
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
