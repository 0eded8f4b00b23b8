//! Frames on the streams of a QUIC connection.
//!
//! The control stream is the first one that this side opens; it carries frames of both directions, and the end of either
//! half is the end of the connection. After WELCOME each HISTORY and SYNC goes on a stream of its own, so that a lost packet
//! of a page holds up no message; where the node grants no further stream now, it goes on the control stream like the rest.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use conch_wire::frame::{ErrorFrame, FrameHeader, frame_type};
use conch_wire::limits::FRAME_BYTES_MAX;
use conch_wire::{Code, ServerFrame};
use futures_util::FutureExt;
use quinn::{Connection, ConnectionError, ReadError, ReadToEndError, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::framing::{Framer, Part, is_answer, parts};
use super::{CLOSE_MAX, Outgoing, WRITE_MAX};
use crate::core::Input;

/// Read from the control stream at a time, in bytes.
const CHUNK_BYTES: usize = 65_536;
/// A request of more bytes goes on the control stream: a node takes no more on a stream of its own.
const REQUEST_BYTES_MAX: usize = 1_024;

/// Both directions until one ends. Returns the code of the end: the node's, or why what it sent cannot be read.
pub(super) async fn pump(
    connection: Connection,
    number: u64,
    inputs: &mpsc::Sender<Input>,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> Option<u16> {
    let (send, recv) = match timeout(WRITE_MAX, connection.open_bi()).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return close_code(&error),
        Err(_) => return None,
    };
    let streams = Streams {
        connection,
        number,
        inputs,
        is_welcome: AtomicBool::new(false),
    };
    let code = tokio::select! {
        code = streams.write(send, outgoing) => code,
        code = streams.read(recv) => code,
    };
    // Without effect where the node closed first.
    streams.connection.close(0_u32.into(), b"");
    code
}

struct Streams<'a> {
    connection: Connection,
    number: u64,
    inputs: &'a mpsc::Sender<Input>,
    /// WELCOME came: requests may go on streams of their own.
    is_welcome: AtomicBool,
}

impl Streams<'_> {
    async fn write(
        &self,
        mut control: SendStream,
        mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    ) -> Option<u16> {
        // Ends with this: what is asked is of no use to the next connection.
        let mut requests = JoinSet::new();
        let mut stopped = pin!(control.stopped());
        loop {
            tokio::select! {
                // The node reads no more: that ends the connection, and its close says why.
                _ = &mut stopped => {
                    tokio::time::sleep(CLOSE_MAX).await;
                    return None;
                }
                next = outgoing.recv() => match next {
                    Some(Outgoing::Message(message)) => {
                        if !self.send(message, &mut control, &mut requests).await {
                            // The node may have said why: the reader has a moment to hear it.
                            tokio::time::sleep(CLOSE_MAX).await;
                            return None;
                        }
                    }
                    Some(Outgoing::Close(Code::GoingAway)) | None => {
                        return self.leave(control).await;
                    }
                    // The node has no use for why: a client closes with 0.
                    Some(Outgoing::Close(_)) => return None,
                },
                Some(ended) = requests.join_next(), if !requests.is_empty() => {
                    if matches!(ended, Ok(Answered::Nonsense)) {
                        return Some(distrust("no answer on a request's stream"));
                    }
                }
            }
        }
    }

    /// False when the connection takes nothing any more.
    async fn send(
        &self,
        message: Bytes,
        control: &mut SendStream,
        requests: &mut JoinSet<Answered>,
    ) -> bool {
        if !self.is_welcome.load(Ordering::Relaxed) {
            return write(control, message).await;
        }
        for part in parts(message) {
            let rest = match part {
                Part::Control(frames) => frames,
                Part::Request { frame, .. } if frame.len() > REQUEST_BYTES_MAX => frame,
                // Ready at once, or the node grants none now.
                Part::Request { header, frame } => match self.connection.open_bi().now_or_never() {
                    Some(Ok(streams)) => {
                        let request = Request {
                            header,
                            number: self.number,
                            inputs: self.inputs.clone(),
                        };
                        requests.spawn(request.run(streams, frame));
                        continue;
                    }
                    Some(Err(_)) => return false,
                    None => frame,
                },
            };
            if !write(control, rest).await {
                return false;
            }
        }
        true
    }

    /// Lets the node take what was written, GOODBYE at the end of it.
    async fn leave(&self, mut control: SendStream) -> Option<u16> {
        if control.finish().is_ok() {
            let _ = timeout(CLOSE_MAX, control.stopped()).await;
        }
        None
    }

    async fn read(&self, mut control: RecvStream) -> Option<u16> {
        let mut framer = Framer::new(FRAME_BYTES_MAX);
        loop {
            let chunk = match control.read_chunk(CHUNK_BYTES, true).await {
                Ok(Some(chunk)) => chunk,
                Err(ReadError::ConnectionLost(error)) => {
                    tracing::debug!(%error, "the connection ended");
                    return close_code(&error);
                }
                // The node's half is at its end; why it is may follow.
                Ok(None) | Err(_) => {
                    let closed = timeout(CLOSE_MAX, self.connection.closed()).await;
                    return closed.ok().and_then(|error| close_code(&error));
                }
            };
            // Copied, so that no buffer of datagrams is held for the sake of one event in it.
            let bytes = match framer.push(&chunk.bytes) {
                Ok(Some(frames)) => frames,
                Ok(None) => continue,
                Err(error) => return Some(distrust(error.what)),
            };
            if bytes.first() == Some(&frame_type::WELCOME) {
                self.is_welcome.store(true, Ordering::Relaxed);
            }
            let input = Input::Received {
                connection: self.number,
                bytes,
            };
            if self.inputs.send(input).await.is_err() {
                return None;
            }
        }
    }
}

/// The node sent what cannot be read: the connection ends as by that code.
fn distrust(what: &'static str) -> u16 {
    tracing::debug!(what, "closing the connection");
    Code::BadFrame.number()
}

async fn write(control: &mut SendStream, bytes: Bytes) -> bool {
    matches!(
        timeout(WRITE_MAX, control.write_chunk(bytes)).await,
        Ok(Ok(()))
    )
}

/// The node's code of a close, if it said one: 0 and closes of QUIC itself are none.
fn close_code(error: &ConnectionError) -> Option<u16> {
    match error {
        ConnectionError::ApplicationClosed(close) => u16::try_from(close.error_code.into_inner())
            .ok()
            .filter(|code| *code != 0),
        _ => None,
    }
}

/// How a request on its own stream ended.
enum Answered {
    /// The core was told.
    Told,
    Nonsense,
}

/// A request on its own stream.
struct Request {
    header: FrameHeader,
    number: u64,
    inputs: mpsc::Sender<Input>,
}

impl Request {
    async fn run(self, (mut send, mut recv): (SendStream, RecvStream), frame: Bytes) -> Answered {
        // A node that does not want to read all of it may answer all the same.
        let _ = send.write_chunk(frame).await;
        let _ = send.finish();
        let bytes = match recv.read_to_end(FRAME_BYTES_MAX).await {
            Ok(answer) if is_answer(&answer, self.header, FRAME_BYTES_MAX) => answer.into(),
            // Ended without a word, or reset: the request was not done, and the connection is as good as before.
            Ok(answer) if answer.is_empty() => self.unavailable(),
            Err(ReadToEndError::Read(ReadError::Reset(_))) => self.unavailable(),
            Err(ReadToEndError::Read(_)) => return Answered::Told, // the connection's end says the rest
            Ok(_) | Err(ReadToEndError::TooLong) => return Answered::Nonsense,
        };
        let input = Input::Received {
            connection: self.number,
            bytes,
        };
        // A driver that is gone needs no news.
        let _ = self.inputs.send(input).await;
        Answered::Told
    }

    /// What the node would have said: not now.
    fn unavailable(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        let error = ErrorFrame {
            code: Code::Unavailable,
            retry_after_ms: 0,
            refused_type: self.header.frame_type,
            item: 0,
            detail: String::new(),
        };
        ServerFrame::Error {
            request: self.header.reference,
            error,
        }
        .encode(&mut bytes);
        bytes.freeze()
    }
}
