//! Connections that nobody owns any more: each answers for itself until the other side had time to hear that it is over.
//!
//! RFC 9000 (section 10.2) asks for three probe timeouts, in which a datagram that comes is answered by the close once more.
//! [`DRAINING_MAX`] connections at once do so; more are forgotten at once, and whoever still speaks to them hears a stateless
//! reset.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::connection::Line;

/// Connections that drain at once.
pub(super) const DRAINING_MAX: usize = 4_096;

struct Draining(Box<Line>);

/// Runs a closed connection to its end.
pub(super) fn take_over(mut line: Box<Line>) {
    if line.drained {
        return;
    }
    let port = line.port().clone();
    if port.draining.fetch_add(1, Ordering::Relaxed) >= DRAINING_MAX {
        port.draining.fetch_sub(1, Ordering::Relaxed);
        line.forget();
        return;
    }
    // On a runtime that ends it is dropped without a word, as the node is.
    drop(port.runtime.spawn(Draining(line)));
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.begin_turn(cx);
        self.0.end_turn(cx);
        if self.0.drained {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.forget();
        self.0.port().draining.fetch_sub(1, Ordering::Relaxed);
    }
}
