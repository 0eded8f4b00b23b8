//! One connection, run by the one task that owns it.
//!
//! quinn-proto's connection does nothing by itself: it is told what came and what time it is, and asked what is to be sent.
//! Here that is done once at the beginning of a turn of its session's task ([`Connection::begin_turn`]: what came, timers
//! that are due) and once at its end ([`Connection::end_turn`]: everything that is to be said, acknowledgements and what
//! the session wrote in the same datagrams: [`super::sending`]). A connection at rest holds its state, its inbox and one
//! timer.
//!
//! Whatever ends its owner, a connection that is dropped is closed and goes on under [`super::draining`] until the other
//! side had time to hear it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn_proto::{ConnectionError, ConnectionHandle, Event, VarInt};
use tokio::time::{Instant, Sleep, sleep_until};

use super::draining;
use super::inbox::{Inbox, Word};
use super::port::{Port, now};
use super::sending::Sending;

/// See the module.
#[derive(Debug)]
pub struct Connection(
    /// Taken when it is dropped.
    Option<Box<Line>>,
);

/// The connection with everything that it takes to run it.
pub(super) struct Line {
    connection: quinn_proto::Connection,
    handle: ConnectionHandle,
    inbox: Arc<Inbox>,
    port: Arc<Port>,
    timer: Option<Pin<Box<Sleep>>>,
    sending: Sending,
    /// Its handshake is done.
    connected: bool,
    /// Something came since its owner last read all that there was.
    news: bool,
    /// Why nothing comes or goes any more.
    lost: Option<Box<ConnectionError>>,
    /// The port knows it no longer.
    pub(super) drained: bool,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("handle", &self.handle)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(
        connection: quinn_proto::Connection,
        handle: ConnectionHandle,
        inbox: Arc<Inbox>,
        port: Arc<Port>,
    ) -> Connection {
        Connection(Some(Box::new(Line {
            connection,
            handle,
            inbox,
            port,
            timer: None,
            sending: Sending::default(),
            connected: false,
            news: true,
            lost: None,
            drained: false,
        })))
    }

    fn line(&self) -> &Line {
        self.0.as_deref().expect("taken by its drop only")
    }

    fn line_mut(&mut self) -> &mut Line {
        self.0.as_deref_mut().expect("taken by its drop only")
    }

    /// Its streams and datagrams.
    pub fn state(&mut self) -> &mut quinn_proto::Connection {
        &mut self.line_mut().connection
    }

    /// Where the client is now.
    pub fn remote_address(&self) -> SocketAddr {
        self.line().connection.remote_address()
    }

    /// Nothing comes or goes any more.
    pub fn is_lost(&self) -> bool {
        self.line().lost.is_some()
    }

    /// Whether something came since [`Connection::all_read`].
    pub fn has_news(&self) -> bool {
        self.line().news
    }

    /// Its owner has read all there is.
    pub fn all_read(&mut self) {
        self.line_mut().news = false;
    }

    /// Takes what came and what is due. From here on, what comes wakes the task.
    pub fn begin_turn(&mut self, cx: &mut Context<'_>) {
        self.line_mut().begin_turn(cx);
    }

    /// Sends everything there is to be sent, and sees to it that timers wake the task.
    pub fn end_turn(&mut self, cx: &mut Context<'_>) {
        self.line_mut().end_turn(cx);
    }

    /// Whether something waits for the socket.
    #[cfg(test)]
    pub(super) fn holds_unsent(&self) -> bool {
        self.line().sending.holds_unsent()
    }

    /// Until its handshake is done.
    pub fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let line = self.line_mut();
        line.begin_turn(cx);
        line.end_turn(cx);
        match &line.lost {
            Some(error) => Poll::Ready(Err(ConnectionError::clone(error))),
            None if line.connected => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    /// Says why it ends; dropped afterwards.
    pub fn close(mut self, code: VarInt, reason: &'static [u8]) {
        self.end(code, reason);
    }

    /// As [`Connection::close`], for an owner that is being dropped itself.
    pub fn end(&mut self, code: VarInt, reason: &'static [u8]) {
        self.line_mut().close(code, Bytes::from_static(reason));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(mut line) = self.0.take() {
            line.close(VarInt::from_u32(0), Bytes::new());
            draining::take_over(line);
        }
    }
}

impl Line {
    pub(super) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// Closes unless it is over already. Nothing is sent here.
    fn close(&mut self, code: VarInt, reason: Bytes) {
        self.connection.close(now(), code, reason);
        self.lost
            .get_or_insert_with(|| Box::new(ConnectionError::LocallyClosed));
    }

    pub(super) fn begin_turn(&mut self, cx: &mut Context<'_>) {
        let (datagrams, word) = self.inbox.take(cx.waker());
        self.news |= !datagrams.is_empty();
        for datagram in datagrams {
            self.connection.handle_event(datagram);
        }
        match word {
            Some(Word::Close) => {
                let (code, reason) = self.port.farewell();
                self.close(code, reason);
            }
            Some(Word::Lost) => {
                self.close(VarInt::from_u32(0), Bytes::new());
                self.forget();
            }
            None => {}
        }
        let now = now();
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        self.take_events();
    }

    pub(super) fn end_turn(&mut self, cx: &mut Context<'_>) {
        let was_lost = self.lost.is_some();
        let more = self.sending.transmit(&mut self.connection, &self.port, cx);
        self.take_events();
        let due = self.poll_timer(cx);
        if more || due || was_lost != self.lost.is_some() {
            cx.waker().wake_by_ref();
        }
    }

    /// Passes on what the connection says to the port, and hears what it says to its owner.
    fn take_events(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if self.drained {
                continue;
            }
            self.drained = event.is_drained();
            if let Some(answer) = self.port.tell(self.handle, event) {
                self.connection.handle_event(answer);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => {
                    self.lost.get_or_insert_with(|| Box::new(reason));
                }
                // Whoever owns it looks at everything anyway.
                Event::HandshakeDataReady
                | Event::Stream(_)
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
    }

    /// The port knows it no longer, whatever is on its way.
    pub(super) fn forget(&mut self) {
        if !self.drained {
            self.drained = true;
            let event = quinn_proto::EndpointEvent::drained();
            drop(self.port.tell(self.handle, event));
        }
    }

    /// True: a timer is due. The system's timer is moved only to an earlier time; when it comes too early, it is set again.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.connection.poll_timeout().map(Instant::from_std) else {
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        loop {
            if at < timer.deadline() || (timer.is_elapsed() && at != timer.deadline()) {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if at <= timer.deadline() {
                return true;
            }
        }
    }
}
