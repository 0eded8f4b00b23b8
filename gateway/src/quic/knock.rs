//! Somebody's first packet, and the four answers to it.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn_proto::{ConnectionError, Incoming};

use super::connection::Connection;
use super::port::Port;

/// A first packet that waits for its answer; dropped without one, it is refused.
#[derive(Debug)]
pub struct Knock {
    port: Arc<Port>,
    /// Taken by the answer.
    incoming: Option<Incoming>,
    /// Where it came from.
    pub address: SocketAddr,
    /// The address was shown to be the client's.
    pub shown: bool,
}

impl Knock {
    pub(super) fn new(incoming: Incoming, port: Arc<Port>) -> Knock {
        Knock {
            port,
            address: incoming.remote_address(),
            shown: incoming.remote_address_validated(),
            incoming: Some(incoming),
        }
    }

    /// Begins the handshake.
    pub fn accept(mut self) -> Result<Connection, ConnectionError> {
        match self.incoming.take() {
            Some(incoming) => self.port.accept(incoming),
            None => Err(ConnectionError::LocallyClosed),
        }
    }

    /// Says no.
    pub fn refuse(self) {}

    /// Asks the client to come back with a token; says nothing to one that has one.
    pub fn retry(mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.port.retry(incoming);
        }
    }

    /// Says nothing.
    pub fn ignore(mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.port.ignore(incoming);
        }
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.port.refuse(incoming);
        }
    }
}
