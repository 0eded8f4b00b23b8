//! From a connection's state to the socket: datagrams are made and sent in batches, so many in a turn.
//!
//! They are made in memory that all connections of a thread share; only a batch that the socket did not take is kept, and
//! nothing more is made until it is gone. Each connection waits for the socket by itself, and all of them are woken.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn_proto::{Connection, Transmit};

use super::port::{Port, now};

/// Most datagrams that are made and sent as one.
const BATCH_DATAGRAMS: usize = 16;
/// Datagrams after which others on this core get a turn.
const DATAGRAMS_PER_TURN: usize = 32;

thread_local! {
    static SEND_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a connection keeps of its sending: nothing, while the socket takes everything.
#[derive(Default)]
pub(super) struct Sending {
    unsent: Option<Box<Unsent>>,
}

/// Datagrams that the socket did not take, and the wait for it.
struct Unsent {
    transmit: Transmit,
    bytes: Box<[u8]>,
    writable: Writable,
}

type Writable = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

fn writable(port: &Arc<Port>) -> Writable {
    let port = port.clone();
    Box::pin(async move { port.socket.writable().await })
}

impl Sending {
    /// Whether something waits for the socket.
    #[cfg(test)]
    pub(super) fn holds_unsent(&self) -> bool {
        self.unsent.is_some()
    }

    /// Sends what `connection` has to say. True: there is more, and it is another's turn.
    pub(super) fn transmit(
        &mut self,
        connection: &mut Connection,
        port: &Arc<Port>,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.poll_unsent(port, cx).is_pending() {
            return false;
        }
        SEND_BUFFER.with_borrow_mut(|buffer| {
            let batch = port.socket.send_datagrams_max().min(BATCH_DATAGRAMS);
            let mut datagrams = 0;
            while datagrams < DATAGRAMS_PER_TURN {
                buffer.clear();
                let Some(transmit) = connection.poll_transmit(now(), batch, buffer) else {
                    return false;
                };
                datagrams += transmit
                    .segment_size
                    .map_or(1, |bytes| transmit.size.div_ceil(bytes.max(1)));
                let bytes = &buffer[..transmit.size];
                if port.socket.send(&transmit, bytes).is_err() {
                    self.unsent = Some(Box::new(Unsent {
                        transmit,
                        bytes: bytes.into(),
                        writable: writable(port),
                    }));
                    if self.poll_unsent(port, cx).is_pending() {
                        return false;
                    }
                }
            }
            true
        })
    }

    /// Ready: nothing waits for the socket.
    fn poll_unsent(&mut self, port: &Arc<Port>, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(unsent) = &mut self.unsent {
            let writable_again = ready!(unsent.writable.as_mut().poll(cx));
            let sent = port.socket.send(&unsent.transmit, &unsent.bytes);
            if sent.is_err() && writable_again.is_ok() {
                unsent.writable = writable(port);
            } else {
                self.unsent = None;
            }
        }
        Poll::Ready(())
    }
}
