//! The seam between a session and what carries its bytes.
//!
//! A transport hands whole-frame chunks in (a chunk never ends inside a frame) and takes whole-frame chunks out. It is
//! polled by the session's one task: no task of its own. [`websocket`] and [`quic`] are for clients, [`memory`]
//! is for tests.

pub mod memory;
pub mod quic;
pub mod websocket;

use std::task::{Context, Poll};

use bytes::Bytes;
use conch_wire::Code;

use crate::session::effect::Ending;

/// What came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// Whole frames.
    Frames(Bytes),
    /// Something that holds no frames but costs something: a WebSocket ping or pong, a request stream that was given up.
    Control,
    /// Something that the protocol's own framing forbids; close with this code.
    NotFrames { code: Code, what: &'static str },
    /// The connection is over, cleanly or not. Nothing can be written.
    Gone,
    /// The carrier's own rules were broken: the connection must be closed by its own status.
    Breach { status: u16, what: &'static str },
}

/// The connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

/// How a connection is closed: by one of our codes, or by the carrier's own status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    Ours(Ending),
    Breach { status: u16, what: &'static str },
}

/// See the module.
pub trait Transport: Send + Unpin + 'static {
    /// Whether what goes out may make room for what comes in: [`Transport::poll_recv`] is then called again behind it.
    const SENDING_MAKES_ROOM: bool = false;

    /// The session's task begins a turn: a carrier that is run by it takes what came and wakes the task for what comes.
    fn begin_turn(&mut self, _cx: &mut Context<'_>) {}

    /// The session's task has done what it could: what a carrier gathered meanwhile goes out.
    fn end_turn(&mut self, _cx: &mut Context<'_>) {}

    /// The next thing that came in. `now_ms` is monotonic.
    fn poll_recv(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Poll<Incoming>;

    /// Takes a chunk; only when the last [`Transport::poll_flush`] was ready.
    fn send(&mut self, cx: &mut Context<'_>, chunk: Bytes) -> Result<(), Gone>;

    /// Ready when everything taken is with the operating system, or with a carrier that holds a bounded amount itself.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Bytes taken from and given to the carrier so far: progress.
    fn progress(&self) -> Progress;

    /// When [`Transport::poll_recv`] has something to do at the latest, although nothing came; monotonic.
    fn deadline_ms(&self) -> u64 {
        u64::MAX
    }

    /// The client is authenticated: larger messages may come.
    fn authenticated(&mut self);

    /// Says why and closes, waiting for the other side as far as the carrier asks for it. The caller sets the deadline.
    fn poll_close(&mut self, cx: &mut Context<'_>, closing: Closing) -> Poll<()>;
}

/// See [`Transport::progress`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    pub received_bytes: u64,
    pub sent_bytes: u64,
}
