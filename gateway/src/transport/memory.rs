//! A transport in memory, for tests of whole sessions without sockets.
//!
//! A pair: the session's end is a [`Transport`]; the other end is a client's. The way to the client holds a fixed number
//! of chunks, so that a client that does not read is a client that does not read.

use std::task::{Context, Poll};

use bytes::Bytes;
use conch_wire::Code;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::{Closing, Gone, Incoming, Progress, Transport};

/// The session's end.
#[derive(Debug)]
pub struct MemoryTransport {
    from_client: mpsc::UnboundedReceiver<Bytes>,
    to_client: PollSender<ToClient>,
    waiting: Option<Bytes>,
    progress: Progress,
}

/// What a client sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToClient {
    Frames(Bytes),
    /// Closed with this code; `None`: 1000.
    Closed(Option<Code>),
}

/// The client's end.
#[derive(Debug)]
pub struct MemoryClient {
    pub to_node: mpsc::UnboundedSender<Bytes>,
    pub from_node: mpsc::Receiver<ToClient>,
}

/// A connected pair; `chunks_max` chunks fit between the node and a client that does not read.
pub fn pair(chunks_max: usize) -> (MemoryTransport, MemoryClient) {
    let (to_node, from_client) = mpsc::unbounded_channel();
    let (to_client, from_node) = mpsc::channel(chunks_max);
    let transport = MemoryTransport {
        from_client,
        to_client: PollSender::new(to_client),
        waiting: None,
        progress: Progress::default(),
    };
    (transport, MemoryClient { to_node, from_node })
}

impl Transport for MemoryTransport {
    fn poll_recv(&mut self, cx: &mut Context<'_>, _now_ms: u64) -> Poll<Incoming> {
        self.from_client.poll_recv(cx).map(|chunk| match chunk {
            Some(chunk) => {
                self.progress.received_bytes += chunk.len() as u64;
                Incoming::Frames(chunk)
            }
            None => Incoming::Gone,
        })
    }

    fn send(&mut self, _cx: &mut Context<'_>, chunk: Bytes) -> Result<(), Gone> {
        debug_assert!(self.waiting.is_none(), "flushed before");
        self.waiting = Some(chunk);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.waiting.is_none() {
            return Poll::Ready(Ok(()));
        }
        match self.to_client.poll_reserve(cx) {
            Poll::Ready(Ok(())) => {
                let chunk = self.waiting.take().unwrap_or_default();
                self.progress.sent_bytes += chunk.len() as u64;
                Poll::Ready(
                    self.to_client
                        .send_item(ToClient::Frames(chunk))
                        .map_err(|_| Gone),
                )
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Gone)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn progress(&self) -> Progress {
        self.progress
    }

    fn authenticated(&mut self) {}

    fn poll_close(&mut self, cx: &mut Context<'_>, closing: Closing) -> Poll<()> {
        match self.to_client.poll_reserve(cx) {
            Poll::Ready(Ok(())) => {
                let code = match closing {
                    Closing::Ours(ending) => ending.code,
                    Closing::Breach { .. } => None,
                };
                // A client that is gone needs no word.
                let _ = self.to_client.send_item(ToClient::Closed(code));
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }
}
