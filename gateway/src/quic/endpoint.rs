//! The owner's handle of a port: binds it, hears who knocks, closes it.
//!
//! When its last clone is dropped, nothing is received any more and the connections that are left are lost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn_proto::{EndpointConfig, ServerConfig, VarInt};
use tokio::task::AbortHandle;

use super::knock::Knock;
use super::port::{Closed, Port};
use super::receive;
use super::socket::Socket;

/// A bound port. Cheap to clone. See the module.
#[derive(Clone, Debug)]
pub struct Endpoint {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    port: Arc<Port>,
    receiving: AbortHandle,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

impl Endpoint {
    /// Binds and begins to receive; inside a runtime.
    pub fn bind(
        address: SocketAddr,
        config: EndpointConfig,
        server: ServerConfig,
    ) -> io::Result<Endpoint> {
        let socket = Socket::bind(address)?;
        let may_probe = !socket.may_fragment();
        let endpoint =
            quinn_proto::Endpoint::new(Arc::new(config), Some(Arc::new(server)), may_probe, None);
        let port = Arc::new(Port::new(socket, endpoint));
        let receiving = tokio::spawn(receive::run(port.clone())).abort_handle();
        Ok(Endpoint {
            owner: Arc::new(Owner { port, receiving }),
        })
    }

    pub(super) fn port(&self) -> &Arc<Port> {
        &self.owner.port
    }

    /// Where it really listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.port().socket.address()
    }

    /// Connections, those whose handshake is under way and those that just closed included.
    pub fn open_connections(&self) -> usize {
        self.port().open_connections()
    }

    /// The next first packet. `None`: the port is closed.
    pub async fn knock(&self) -> Option<Knock> {
        let port = self.port();
        loop {
            let knocked = port.knocked.notified();
            match port.incoming() {
                Err(Closed) => return None,
                Ok(Some(incoming)) => return Some(Knock::new(incoming, port.clone())),
                Ok(None) => {}
            }
            knocked.await;
        }
    }

    /// Closes every connection with this code, and takes no more.
    pub fn close(&self, code: VarInt, reason: &[u8]) {
        self.port().close(code, Bytes::copy_from_slice(reason));
    }

    /// Until no connection is left, not even one that only waits for what is still on its way.
    pub async fn idle(&self) {
        loop {
            let idle = self.port().idle.notified();
            if self.open_connections() == 0 {
                return;
            }
            idle.await;
        }
    }
}
