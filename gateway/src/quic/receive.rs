//! The port's one task: it reads what came, as many datagrams by one call as the system gives, and hands each to whom it is for.
//!
//! It decrypts nothing and knows no connection's state, so one of them serves the port. Whatever the system reports, it goes
//! on: an error of a UDP socket is of one datagram, and may have been sent by anybody.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta};

use super::port::{Port, Routed, now};

/// Largest datagram that is read whole: more than the connections allow their clients to send.
const DATAGRAM_BYTES_MAX: usize = 1_500;
/// Messages of the system, of one or several datagrams each, before others on this core get a turn: whom they are for, most of
/// all.
const MESSAGES_PER_TURN: usize = 64;
/// Errors in a row after which it waits a little.
const ERRORS_IN_A_ROW: u32 = 16;
const PAUSE: Duration = Duration::from_millis(10);

/// Says that nothing comes any more, whatever ended the task.
struct Ends(Arc<Port>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.lose_all();
    }
}

/// Receives for as long as it is polled.
pub(super) async fn run(port: Arc<Port>) {
    let port = Ends(port);
    let port = &port.0;
    let part_bytes = DATAGRAM_BYTES_MAX * port.socket.receive_datagrams_max();
    let mut buffer = vec![0; part_bytes * BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    let (mut response, mut wakers) = (Vec::new(), Vec::new());
    let (mut errors, mut messages) = (0, 0);
    loop {
        let received = match port.socket.receive(&mut buffer, &mut metas).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "the QUIC socket reports an error");
                errors += 1;
                if errors >= ERRORS_IN_A_ROW {
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        errors = 0;
        let now = now();
        for (meta, part) in metas[..received].iter().zip(buffer.chunks(part_bytes)) {
            // One copy for all datagrams that came together.
            let mut datagrams = BytesMut::from(&part[..meta.len.min(part_bytes)]);
            while !datagrams.is_empty() {
                let datagram = if datagrams.len() <= meta.stride {
                    std::mem::take(&mut datagrams)
                } else {
                    datagrams.split_to(meta.stride.max(1))
                };
                match port.route(now, meta, datagram, &mut response) {
                    Routed::Done => {}
                    Routed::Wake(waker) => wakers.push(waker),
                    Routed::Respond(transmit) => port.respond(&transmit, &response),
                }
            }
        }
        // Each connection once, when all of its datagrams are there.
        wakers.drain(..).for_each(Waker::wake);
        messages += received;
        if messages >= MESSAGES_PER_TURN {
            messages = 0;
            tokio::task::yield_now().await;
        }
    }
}
