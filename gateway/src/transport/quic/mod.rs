//! QUIC as a transport: one control stream, and a stream for each request that wants one.
//!
//! The session knows nothing of streams. Frames of the control stream are put together by [`frames`] and handed up in
//! order; a HISTORY or SYNC that came on a stream of its own ([`requests`]) is handed up like any other, and what the
//! session writes is split by frame headers only while such a request waits for its answer. The node opens no streams
//! and sends no datagrams; datagrams that come must hold frames that may be dropped, of which this version knows none.
//!
//! Bounds: what quinn holds for the client is its send window, what it holds of the client its receive windows
//! ([`crate::quic::transport_config`]); here lie one incomplete frame, 15 requests, one chunk of the session and the
//! answers of [`requests::HELD_BYTES_MAX`].

pub mod frames;
pub mod requests;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use conch_wire::Code;
use conch_wire::frame::{HEADER_BYTES, frame_type, split_frame};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt};

use super::{Closing, Gone, Incoming, Progress, Transport};
use crate::quic::RECEIVE_WINDOW_BYTES;
use frames::Reassembler;
use requests::{HELD_BYTES_MAX, Requests, write};

pub use requests::number;

/// Bytes read from the control stream at once.
const READ_BYTES: usize = 16_384;
/// Control goes before answers of request streams.
const CONTROL_PRIORITY: i32 = 1;

type Next<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send>>;
type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send>>;

/// See the module.
pub struct Quic {
    connection: Connection,
    next_stream: Next<(SendStream, RecvStream)>,
    next_datagram: Next<Bytes>,
    control: Option<Control>,
    requests: Requests,
    /// Which of control and requests is looked at first; they take turns.
    requests_first: bool,
    authenticated: bool,
    progress: Progress,
    closing: Option<(Closing, Option<Stopped>)>,
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic")
            .field("connection", &self.connection.stable_id())
            .field("requests", &self.requests)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Control {
    recv: RecvStream,
    send: SendStream,
    frames: Reassembler,
    /// Of the session's last chunk.
    waiting: VecDeque<Bytes>,
}

fn next_stream(connection: &Connection) -> Next<(SendStream, RecvStream)> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_bi().await })
}

fn next_datagram(connection: &Connection) -> Next<Bytes> {
    let connection = connection.clone();
    Box::pin(async move { connection.read_datagram().await })
}

impl Quic {
    /// Takes a connection over whose handshake is done.
    pub fn new(connection: Connection) -> Quic {
        Quic {
            next_stream: next_stream(&connection),
            next_datagram: next_datagram(&connection),
            connection,
            control: None,
            requests: Requests::default(),
            requests_first: false,
            authenticated: false,
            progress: Progress::default(),
            closing: None,
        }
    }

    /// Takes streams over that the client has opened. Ready: one is against the rules, or the connection is over.
    fn poll_streams(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<Incoming> {
        loop {
            let opened = std::task::ready!(self.next_stream.as_mut().poll(cx));
            let Ok((send, recv)) = opened else {
                return Poll::Ready(Incoming::Gone);
            };
            self.next_stream = next_stream(&self.connection);
            if self.control.is_none() {
                // Fails when the client has stopped it already, which the first write finds out.
                let _ = send.set_priority(CONTROL_PRIORITY);
                self.control = Some(Control {
                    recv,
                    send,
                    frames: Reassembler::default(),
                    waiting: VecDeque::new(),
                });
            } else if self.authenticated {
                self.requests.open(send, recv, now_ms);
            } else {
                return Poll::Ready(Incoming::NotFrames {
                    code: Code::UnexpectedFrame,
                    what: "a second stream before WELCOME",
                });
            }
        }
    }

    fn poll_datagram(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        let datagram = std::task::ready!(self.next_datagram.as_mut().poll(cx));
        let Ok(datagram) = datagram else {
            return Poll::Ready(Incoming::Gone);
        };
        self.next_datagram = next_datagram(&self.connection);
        self.progress.received_bytes += datagram.len() as u64;
        Poll::Ready(match check_datagram(&datagram) {
            Ok(()) => Incoming::Control,
            Err((code, what)) => Incoming::NotFrames { code, what },
        })
    }

    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        let Some(control) = &mut self.control else {
            return Poll::Pending;
        };
        loop {
            if let Some(frames) = control.frames.take() {
                return Poll::Ready(Incoming::Frames(frames));
            }
            if control.frames.is_too_large() {
                return Poll::Ready(Incoming::NotFrames {
                    code: Code::TooLarge,
                    what: "frame is longer than its limit",
                });
            }
            match std::task::ready!(pin!(control.recv.read_chunk(READ_BYTES, true)).poll(cx)) {
                Ok(Some(chunk)) => {
                    self.progress.received_bytes += chunk.bytes.len() as u64;
                    control.frames.push(chunk.bytes);
                }
                Ok(None) | Err(ReadError::Reset(_)) | Err(_) => {
                    return Poll::Ready(Incoming::Gone);
                }
            }
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<Incoming> {
        self.requests.poll_read(cx, now_ms, &mut self.progress)
    }

    /// Writes what waits for the control stream.
    fn poll_write_control(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Some(control) = &mut self.control else {
            return Poll::Ready(Ok(()));
        };
        while let Some(bytes) = control.waiting.front_mut() {
            let before = bytes.len();
            let written = write(&mut control.send, bytes, cx);
            self.progress.sent_bytes += (before - bytes.len()) as u64;
            match written {
                Poll::Pending => return Poll::Pending,
                // Stopping the control stream ends the connection.
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Ready(Ok(())) => {
                    control.waiting.pop_front();
                }
            }
        }
        control.waiting.shrink_to(0);
        Poll::Ready(Ok(()))
    }

    /// Answers go to their streams, everything else to the control stream.
    fn route(&mut self, mut chunk: Bytes) {
        let mut end = 0;
        while self.requests.expect_answers() {
            let Ok(Some(split)) = split_frame(&chunk[end..], usize::MAX) else {
                break;
            };
            let (place, frame_bytes) = (self.requests.asked(split.header), split.consumed);
            if let Some(place) = place {
                let before = chunk.split_to(end);
                self.requests.answer(place, chunk.split_to(frame_bytes));
                self.queue(before);
                end = 0;
            } else {
                end += frame_bytes;
            }
        }
        self.queue(chunk);
    }

    fn queue(&mut self, bytes: Bytes) {
        // Without a control stream there is nobody to hear it.
        if let Some(control) = &mut self.control
            && !bytes.is_empty()
        {
            control.waiting.push_back(bytes);
        }
    }
}

/// Refuses what may not come as a datagram.
fn check_datagram(datagram: &[u8]) -> Result<(), (Code, &'static str)> {
    if datagram.is_empty() {
        return Err((Code::BadFrame, "an empty datagram"));
    }
    let mut rest = datagram;
    while !rest.is_empty() {
        // A datagram is far below the limit of frames: one that announces more is cut, like any other.
        let Ok(Some(split)) = split_frame(rest, usize::MAX) else {
            return Err((Code::BadFrame, "a datagram ends inside a frame"));
        };
        let frame_type = split.header.frame_type;
        if frame_type & frame_type::COMPRESSED != 0 {
            return Err((Code::BadFrame, "compressed bodies are not in use"));
        }
        if frame_type & frame_type::SKIP_IF_UNKNOWN == 0 {
            return Err((
                Code::UnexpectedFrame,
                "frames of this type do not come as datagrams",
            ));
        }
        rest = &rest[split.consumed..];
    }
    Ok(())
}

const _: () = assert!(requests::REQUEST_BYTES_MAX > HEADER_BYTES);

impl Transport for Quic {
    /// An answered request stream makes room for the next one.
    const SENDING_MAKES_ROOM: bool = true;

    fn poll_recv(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<Incoming> {
        if let Poll::Ready(incoming) = self.poll_streams(cx, now_ms) {
            return Poll::Ready(incoming);
        }
        if let Poll::Ready(incoming) = self.poll_datagram(cx) {
            return Poll::Ready(incoming);
        }
        // Answers that were held go on whenever the task wakes, whether the session has more to say or not.
        if self.requests.poll_write(cx, &mut self.progress).is_err() {
            return Poll::Ready(Incoming::Gone);
        }
        self.requests_first = !self.requests_first;
        if self.requests_first
            && let Poll::Ready(incoming) = self.poll_requests(cx, now_ms)
        {
            return Poll::Ready(incoming);
        }
        if let Poll::Ready(incoming) = self.poll_control(cx) {
            return Poll::Ready(incoming);
        }
        self.poll_requests(cx, now_ms)
    }

    fn send(&mut self, _cx: &mut Context<'_>, chunk: Bytes) -> Result<(), Gone> {
        self.route(chunk);
        Ok(())
    }

    /// Ready when quinn has taken everything of the control stream within its send window, and the answers that clients
    /// do not take are few enough.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let control = self.poll_write_control(cx)?;
        self.requests.poll_write(cx, &mut self.progress)?;
        if control.is_pending() || self.requests.held_bytes() > HELD_BYTES_MAX {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn progress(&self) -> Progress {
        self.progress
    }

    fn deadline_ms(&self) -> u64 {
        self.requests.deadline_ms()
    }

    fn authenticated(&mut self) {
        self.authenticated = true;
        self.connection
            .set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
    }

    /// Waits until the client has everything that was written, then closes: a close of QUIC throws away what is not
    /// delivered yet. The end of the control stream is how the client's machine says that it has it.
    fn poll_close(&mut self, cx: &mut Context<'_>, closing: Closing) -> Poll<()> {
        if self.closing.is_none() {
            self.closing = Some((closing, None));
        }
        match self.poll_flush(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(Gone)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) => {}
        }
        if self.requests.held_bytes() > 0 {
            return Poll::Pending;
        }
        if let (Some((_, stopped)), Some(control)) = (&mut self.closing, &mut self.control) {
            let stopped = stopped.get_or_insert_with(|| {
                // Finished before or stopped by the client: the wait below is over at once.
                let _ = control.send.finish();
                Box::pin(control.send.stopped())
            });
            std::task::ready!(stopped.as_mut().poll(cx)).ok();
        }
        Poll::Ready(())
    }
}

impl Drop for Quic {
    /// The close itself, whatever led here: after [`Transport::poll_close`], or when its deadline passed.
    fn drop(&mut self) {
        let code = match &self.closing {
            Some((Closing::Ours(ending), _)) => ending.code,
            Some((Closing::Breach { .. }, _)) => Some(Code::BadFrame),
            None if std::thread::panicking() => Some(Code::InternalError),
            None => None,
        };
        match code {
            Some(code) => self.connection.close(number(code), code.name().as_bytes()),
            None => self.connection.close(VarInt::from_u32(0), b""),
        }
    }
}

#[cfg(test)]
mod tests;
