//! QUIC as a transport: one control stream, and a stream for each request that wants one.
//!
//! The session knows nothing of streams. Frames of the control stream are put together by [`frames`] and handed up in
//! order; a HISTORY or SYNC that came on a stream of its own ([`requests`]) is handed up like any other, and what the
//! session writes is split by frame headers only while such a request waits for its answer. The node opens no streams
//! and sends no datagrams; datagrams that come must hold frames that may be dropped, of which this version knows none.
//!
//! The connection itself has no task: it is run by the session's, which takes what came at the beginning of a turn and
//! sends once at its end ([`crate::quic::connection`]).
//!
//! Bounds: what the connection holds for the client is its send window, what it holds of the client its receive windows
//! ([`crate::quic::transport_config`]); here lie one incomplete frame, 15 requests, one chunk of the session and the
//! answers of [`requests::HELD_BYTES_MAX`].

mod datagrams;
pub mod frames;
pub mod requests;
mod streams;

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use conch_wire::Code;
use conch_wire::frame::{HEADER_BYTES, split_frame};
use quinn_proto::{Dir, StreamId, VarInt};

use super::{Closing, Gone, Incoming, Progress, Transport};
use crate::quic::RECEIVE_WINDOW_BYTES;
use crate::quic::connection::Connection;
use datagrams::check_datagram;
use frames::Reassembler;
use requests::{HELD_BYTES_MAX, Requests};
use streams::{Read, read, write};

pub use streams::number;

/// Bytes read from the control stream at once.
const READ_BYTES: usize = 16_384;
/// Control goes before answers of request streams.
const CONTROL_PRIORITY: i32 = 1;

/// See the module.
pub struct Quic {
    connection: Connection,
    control: Option<Control>,
    requests: Requests,
    /// Which of control and requests is looked at first; they take turns.
    requests_first: bool,
    authenticated: bool,
    progress: Progress,
    closing: Option<Closing>,
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic")
            .field("connection", &self.connection)
            .field("requests", &self.requests)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Control {
    stream: StreamId,
    frames: Reassembler,
    /// Of the session's last chunk.
    waiting: VecDeque<Bytes>,
}

impl Quic {
    /// Takes a connection over whose handshake is done.
    pub fn new(connection: Connection) -> Quic {
        Quic {
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
    fn poll_streams(&mut self, now_ms: u64) -> Poll<Incoming> {
        while let Some(stream) = self.connection.state().streams().accept(Dir::Bi) {
            if self.control.is_none() {
                let mut send = self.connection.state().send_stream(stream);
                // Fails when the client has stopped it already, which the first write finds out.
                let _ = send.set_priority(CONTROL_PRIORITY);
                self.control = Some(Control {
                    stream,
                    frames: Reassembler::default(),
                    waiting: VecDeque::new(),
                });
            } else if self.authenticated {
                self.requests.open(stream, now_ms);
            } else {
                return Poll::Ready(Incoming::NotFrames {
                    code: Code::UnexpectedFrame,
                    what: "a second stream before WELCOME",
                });
            }
        }
        if self.connection.is_lost() {
            return Poll::Ready(Incoming::Gone);
        }
        Poll::Pending
    }

    fn poll_datagram(&mut self) -> Poll<Incoming> {
        let Some(datagram) = self.connection.state().datagrams().recv() else {
            return Poll::Pending;
        };
        self.progress.received_bytes += datagram.len() as u64;
        Poll::Ready(match check_datagram(&datagram) {
            Ok(()) => Incoming::Control,
            Err((code, what)) => Incoming::NotFrames { code, what },
        })
    }

    fn poll_control(&mut self) -> Poll<Incoming> {
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
            if !self.connection.has_news() {
                return Poll::Pending;
            }
            match read(self.connection.state(), control.stream, READ_BYTES) {
                Read::Bytes(bytes) => {
                    self.progress.received_bytes += bytes.len() as u64;
                    control.frames.push(bytes);
                }
                Read::Nothing => return Poll::Pending,
                Read::End | Read::Reset => return Poll::Ready(Incoming::Gone),
            }
        }
    }

    fn poll_requests(&mut self, now_ms: u64) -> Poll<Incoming> {
        let connection = self.connection.state();
        self.requests
            .poll_read(connection, now_ms, &mut self.progress)
    }

    fn poll_write_requests(&mut self) {
        let connection = self.connection.state();
        self.requests.write(connection, &mut self.progress);
    }

    /// Writes what waits for the control stream.
    fn poll_write_control(&mut self) -> Poll<Result<(), Gone>> {
        let Some(control) = &mut self.control else {
            return Poll::Ready(Ok(()));
        };
        while let Some(bytes) = control.waiting.front_mut() {
            let before = bytes.len();
            let written = write(self.connection.state(), control.stream, bytes);
            self.progress.sent_bytes += (before - bytes.len()) as u64;
            // Stopping the control stream ends the connection.
            if ready!(written).is_err() {
                return Poll::Ready(Err(Gone));
            }
            control.waiting.pop_front();
        }
        control.waiting.shrink_to(0);
        Poll::Ready(Ok(()))
    }

    /// Ready: the connection has everything of the control stream, and few answers are held.
    fn poll_written(&mut self) -> Poll<Result<(), Gone>> {
        if self.connection.is_lost() {
            return Poll::Ready(Err(Gone));
        }
        let control = self.poll_write_control()?;
        self.poll_write_requests();
        if control.is_pending() || self.requests.held_bytes() > HELD_BYTES_MAX {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready: the client has everything, or will not take it.
    fn poll_delivered(&mut self) -> Poll<()> {
        if ready!(self.poll_written()).is_err() {
            return Poll::Ready(());
        }
        if self.requests.held_bytes() > 0 {
            return Poll::Pending;
        }
        let Some(control) = &self.control else {
            return Poll::Ready(());
        };
        let mut send = self.connection.state().send_stream(control.stream);
        // Finished before or stopped by the client: it is over at once.
        let _ = send.finish();
        match send.stopped() {
            Ok(None) => Poll::Pending,
            Ok(Some(_)) | Err(_) => Poll::Ready(()),
        }
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

const _: () = assert!(requests::REQUEST_BYTES_MAX > HEADER_BYTES);

impl Transport for Quic {
    /// An answered request stream makes room for the next one.
    const SENDING_MAKES_ROOM: bool = true;

    fn begin_turn(&mut self, cx: &mut Context<'_>) {
        self.connection.begin_turn(cx);
    }

    fn end_turn(&mut self, cx: &mut Context<'_>) {
        self.connection.end_turn(cx);
    }

    fn poll_recv(&mut self, _cx: &mut Context<'_>, now_ms: u64) -> Poll<Incoming> {
        if let Poll::Ready(incoming) = self.poll_streams(now_ms) {
            return Poll::Ready(incoming);
        }
        if let Poll::Ready(incoming) = self.poll_datagram() {
            return Poll::Ready(incoming);
        }
        // Answers that were held go on whenever the task wakes, whether the session has more to say or not.
        self.poll_write_requests();
        self.requests_first = !self.requests_first;
        if self.requests_first
            && let Poll::Ready(incoming) = self.poll_requests(now_ms)
        {
            return Poll::Ready(incoming);
        }
        if let Poll::Ready(incoming) = self.poll_control() {
            return Poll::Ready(incoming);
        }
        if let Poll::Ready(incoming) = self.poll_requests(now_ms) {
            return Poll::Ready(incoming);
        }
        self.connection.all_read();
        Poll::Pending
    }

    fn send(&mut self, _cx: &mut Context<'_>, chunk: Bytes) -> Result<(), Gone> {
        self.route(chunk);
        Ok(())
    }

    /// Ready when the connection has taken everything of the control stream within its send window, and the answers that
    /// clients do not take are few enough.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_written()
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
            .state()
            .set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
    }

    /// Waits until the client has everything that was written, then closes: a close of QUIC throws away what is not
    /// delivered yet. The end of the control stream is how the client's machine says that it has it.
    fn poll_close(&mut self, cx: &mut Context<'_>, closing: Closing) -> Poll<()> {
        self.closing.get_or_insert(closing);
        self.connection.begin_turn(cx);
        let delivered = self.poll_delivered();
        self.connection.end_turn(cx);
        delivered
    }
}

impl Drop for Quic {
    /// The close itself, whatever led here: after [`Transport::poll_close`], or when its deadline passed.
    fn drop(&mut self) {
        let code = match &self.closing {
            Some(Closing::Ours(ending)) => ending.code,
            Some(Closing::Breach { .. }) => Some(Code::BadFrame),
            None if std::thread::panicking() => Some(Code::InternalError),
            None => None,
        };
        match code {
            Some(code) => self.connection.end(number(code), code.name().as_bytes()),
            None => self.connection.end(VarInt::from_u32(0), b""),
        }
    }
}

#[cfg(test)]
mod tests;
