//! A message on its way, as its sender holds it.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use conch_wire::{MessageKey, Seq};
use tokio::sync::watch;

use super::error::ClientError;
use crate::core::RefusalReason;

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// The server has it for ever.
    Stored {
        /// Its place in the channel.
        seq: Seq,
        /// ms since 1970 by the server's clock.
        time_ms: u64,
    },
    /// It is given up, and kept in the outbox until the person retries or cancels it.
    Refused {
        /// Why; [`RefusalReason::advice`] says what to do.
        reason: RefusalReason,
    },
}

/// A message on its way. It goes on without this handle, too; awaiting it tells how it ended, however long that takes.
#[derive(Clone, Debug)]
pub struct SendHandle {
    key: MessageKey,
    outcome: watch::Receiver<Option<SendOutcome>>,
}

/// The driver's end of a handle.
#[derive(Debug)]
pub(super) struct Sending(watch::Sender<Option<SendOutcome>>);

impl Sending {
    pub(super) fn new(key: MessageKey) -> (Sending, SendHandle) {
        let (sender, outcome) = watch::channel(None);
        (Sending(sender), SendHandle { key, outcome })
    }

    pub(super) fn end(self, outcome: SendOutcome) {
        self.0.send_replace(Some(outcome));
    }
}

impl SendHandle {
    /// The message's name, by which events and the outbox speak of it.
    pub fn key(&self) -> MessageKey {
        self.key
    }

    /// How it ended, if it has.
    pub fn try_outcome(&self) -> Option<SendOutcome> {
        *self.outcome.borrow()
    }

    /// Waits for its end; [`ClientError::Closed`] when the client is closed first. The message is none the worse for that.
    pub async fn outcome(&self) -> Result<SendOutcome, ClientError> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|outcome| *outcome)
            .ok_or(ClientError::Closed)
    }
}

impl IntoFuture for SendHandle {
    type Output = Result<SendOutcome, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.outcome().await })
    }
}
