//! What all connections of a UDP port share: which there are, who knocks, and what goes where.
//!
//! Behind one lock lie quinn-proto's endpoint and the inbox of every connection. It is held for single calls of quinn-proto
//! and never across an await. Under it an inbox may be locked; no other two locks of QUIC are ever held together, nothing is
//! sent under one, and no connection is woken under one.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ConnectionError, ConnectionEvent, ConnectionHandle, DatagramEvent, Endpoint, EndpointEvent,
    Incoming, Transmit, VarInt,
};
use quinn_udp::RecvMeta;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::connection::Connection;
use super::inbox::{Inbox, Word};
use super::socket::{Socket, ecn_in};

/// First packets that wait to be looked at; more are ignored.
pub(super) const INCOMING_MAX: usize = 1_024;

/// What all connections of a port share. See the module.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: Socket,
    table: Mutex<Table>,
    /// Somebody knocks, or the port closes.
    pub(super) knocked: Notify,
    /// No connection is left.
    pub(super) idle: Notify,
    /// Connections that are over and still answer for themselves.
    pub(super) draining: AtomicUsize,
    pub(super) runtime: Handle,
}

#[derive(Debug)]
struct Table {
    endpoint: Endpoint,
    /// By handle, which quinn-proto gives out densely.
    inboxes: Vec<Option<Arc<Inbox>>>,
    incoming: VecDeque<Incoming>,
    /// Set when the port closes: what it says to everybody.
    closed: Option<(VarInt, Bytes)>,
}

impl Drop for Table {
    fn drop(&mut self) {
        for incoming in self.incoming.drain(..) {
            self.endpoint.ignore(incoming);
        }
    }
}

/// The port takes nobody any more.
#[derive(Debug)]
pub(super) struct Closed;

/// What a datagram asks for.
#[derive(Debug)]
pub(super) enum Routed {
    /// Nothing, or nothing that is to be done now.
    Done,
    /// Wake the connection it is for.
    Wake(Waker),
    /// Send what was written into the response buffer.
    Respond(Transmit),
}

/// What time it is, for QUIC.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Table {
    fn enter(&mut self, handle: ConnectionHandle, inbox: Arc<Inbox>) {
        if self.closed.is_some() {
            // Nobody waits for it yet.
            drop(inbox.say(Word::Close));
        }
        if self.inboxes.len() <= handle.0 {
            self.inboxes.resize(handle.0 + 1, None);
        }
        self.inboxes[handle.0] = Some(inbox);
    }

    fn say(&self, word: Word) -> Vec<Waker> {
        let inboxes = self.inboxes.iter().flatten();
        inboxes.filter_map(|inbox| inbox.say(word)).collect()
    }
}

impl Port {
    /// Over a socket; inside a runtime.
    pub(super) fn new(socket: Socket, endpoint: Endpoint) -> Port {
        Port {
            socket,
            table: Mutex::new(Table {
                endpoint,
                inboxes: Vec::new(),
                incoming: VecDeque::new(),
                closed: None,
            }),
            knocked: Notify::new(),
            idle: Notify::new(),
            draining: AtomicUsize::new(0),
            runtime: Handle::current(),
        }
    }

    /// Connections, those whose handshake is under way and those that drain included.
    pub(super) fn open_connections(&self) -> usize {
        self.table().endpoint.open_connections()
    }

    /// A first packet that waits; an error if the port is closed.
    pub(super) fn incoming(&self) -> Result<Option<Incoming>, Closed> {
        let mut table = self.table();
        match table.closed {
            Some(_) => Err(Closed),
            None => Ok(table.incoming.pop_front()),
        }
    }

    /// Tells every connection to close with this code; from here on there are no more.
    pub(super) fn close(&self, code: VarInt, reason: Bytes) {
        self.end(Word::Close, code, reason);
    }

    fn end(&self, word: Word, code: VarInt, reason: Bytes) {
        let wakers = {
            let mut table = self.table();
            table.closed = Some((code, reason));
            table.say(word)
        };
        wakers.into_iter().for_each(Waker::wake);
        // Whoever waits, and whoever is about to.
        self.knocked.notify_waiters();
        self.knocked.notify_one();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a datagram to where it belongs.
    pub(super) fn route(
        &self,
        now: Instant,
        meta: &RecvMeta,
        datagram: BytesMut,
        response: &mut Vec<u8>,
    ) -> Routed {
        let bytes = datagram.len();
        response.clear();
        let mut table = self.table();
        let ecn = meta.ecn.map(ecn_in);
        let event = table
            .endpoint
            .handle(now, meta.addr, meta.dst_ip, ecn, datagram, response);
        match event {
            None => Routed::Done,
            Some(DatagramEvent::Response(transmit)) => Routed::Respond(transmit),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let inbox = table.inboxes.get(handle.0).and_then(Option::as_ref);
                match inbox.and_then(|inbox| inbox.push(event, bytes)) {
                    Some(waker) => Routed::Wake(waker),
                    None => Routed::Done,
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) if table.closed.is_some() => {
                Routed::Respond(table.endpoint.refuse(incoming, response))
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if table.incoming.len() < INCOMING_MAX {
                    table.incoming.push_back(incoming);
                    drop(table);
                    self.knocked.notify_one();
                } else {
                    table.endpoint.ignore(incoming);
                }
                Routed::Done
            }
        }
    }

    /// Begins the handshake of who knocked.
    pub(super) fn accept(
        self: &Arc<Port>,
        incoming: Incoming,
    ) -> Result<Connection, ConnectionError> {
        let mut response = Vec::new();
        let accepted = {
            let mut table = self.table();
            let accepted = table.endpoint.accept(incoming, now(), &mut response, None);
            accepted.map(|(handle, connection)| {
                let inbox = Arc::<Inbox>::default();
                table.enter(handle, inbox.clone());
                (handle, connection, inbox)
            })
        };
        match accepted {
            Ok((handle, connection, inbox)) => {
                Ok(Connection::new(connection, handle, inbox, self.clone()))
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(&transmit, &response);
                }
                Err(error.cause)
            }
        }
    }

    pub(super) fn refuse(&self, incoming: Incoming) {
        let mut response = Vec::new();
        let transmit = self.table().endpoint.refuse(incoming, &mut response);
        self.respond(&transmit, &response);
    }

    pub(super) fn retry(&self, incoming: Incoming) {
        let mut response = Vec::new();
        let asked = self.table().endpoint.retry(incoming, &mut response);
        match asked {
            Ok(transmit) => self.respond(&transmit, &response),
            // It had a token already, and so its address is shown.
            Err(error) => self.ignore(error.into_incoming()),
        }
    }

    pub(super) fn ignore(&self, incoming: Incoming) {
        self.table().endpoint.ignore(incoming);
    }

    /// An answer without a connection; lost if the socket takes nothing, because whoever asked asks again.
    pub(super) fn respond(&self, transmit: &Transmit, response: &[u8]) {
        let _ = self.socket.send(transmit, &response[..transmit.size]);
    }

    /// What a connection tells the endpoint; the answer is for the connection.
    pub(super) fn tell(
        &self,
        handle: ConnectionHandle,
        event: EndpointEvent,
    ) -> Option<ConnectionEvent> {
        let mut table = self.table();
        if event.is_drained()
            && let Some(inbox) = table.inboxes.get_mut(handle.0)
        {
            *inbox = None;
        }
        let answer = table.endpoint.handle_event(handle, event);
        let idle = table.endpoint.open_connections() == 0;
        drop(table);
        if idle {
            self.idle.notify_waiters();
        }
        answer
    }

    /// What the port says to everybody when it closes.
    pub(super) fn farewell(&self) -> (VarInt, Bytes) {
        self.table().closed.clone().unwrap_or_default()
    }

    /// Nothing is received any more: who is connected is lost, and nobody comes.
    pub(super) fn lose_all(&self) {
        self.end(Word::Lost, VarInt::from_u32(0), Bytes::new());
    }
}
