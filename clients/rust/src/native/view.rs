//! A window on a channel: the messages to show, one's own that are on their way in their places.
//!
//! The window's top stands still while messages come in below, and moves up when older ones are asked for. Each look reads
//! what is stored at that moment; what [`View::changed`] tells is that another look will find something else. A look asks
//! for the outbox first and reads the log then: a message that moves from one to the other in between is seen in both, and
//! its key tells that it is one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use conch_wire::{ChannelId, Seq};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Mutex as AsyncMutex, broadcast};

use super::client::Client;
use super::error::ClientError;
use crate::core::{Message, OutboxMessage, SendState};

/// Most events in a window; beyond it the oldest leave.
const WINDOW_EVENTS_MAX: u32 = 2_000;

/// Something to show.
#[derive(Clone, PartialEq, Debug)]
pub enum ViewItem {
    /// An event of the log.
    Message(Message),
    /// A message of this device that is not in the log: on its way, or given up.
    Outbox(OutboxMessage),
}

/// See the file's head. Drop it when the channel is not shown any more.
#[derive(Debug)]
pub struct View {
    client: Client,
    channel: ChannelId,
    /// How many events the first look takes.
    items: u32,
    /// The oldest event in the window; `None` before the first look, and while there is none.
    top: Mutex<Option<Seq>>,
    touched: AsyncMutex<broadcast::Receiver<ChannelId>>,
}

impl View {
    pub(super) fn new(client: Client, channel: ChannelId, items: u32) -> View {
        View {
            touched: AsyncMutex::new(client.touched()),
            client,
            channel,
            items,
            top: Mutex::new(None),
        }
    }

    /// Everything to show, from top to bottom. Works without a connection.
    pub async fn items(&self) -> Result<Vec<ViewItem>, ClientError> {
        self.forget_changes().await;
        let mut outbox = self.client.outbox().await?;
        outbox.retain(|it| it.channel == self.channel);
        let mut messages = match self.top() {
            Some(top) => {
                let held = self.client.held(self.channel, top, WINDOW_EVENTS_MAX);
                held.await?
            }
            None => Vec::new(),
        };
        if messages.is_empty() {
            messages = self.client.held(self.channel, 0, self.items).await?;
        }
        self.set_top(messages.first().map(|message| message.seq));
        Ok(arrange(messages, outbox))
    }

    /// Moves the top up by up to `items` events, which are loaded if this device does not hold them. False: there are none.
    pub async fn older(&self, items: u32) -> Result<bool, ClientError> {
        let older = self.client.history(self.channel, self.top(), items).await?;
        let Some(first) = older.first() else {
            return Ok(false);
        };
        self.set_top(Some(first.seq));
        Ok(true)
    }

    /// Waits until something of the channel is another since the last look.
    pub async fn changed(&self) -> Result<(), ClientError> {
        let mut touched = self.touched.lock().await;
        loop {
            match touched.recv().await {
                Ok(channel) if channel == self.channel => return Ok(()),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Ok(()),
                Err(RecvError::Closed) => return Err(ClientError::Closed),
            }
        }
    }

    /// What changed before a look is seen by it.
    async fn forget_changes(&self) {
        // A wait that is under way has its own word from the same change.
        let Ok(mut touched) = self.touched.try_lock() else {
            return;
        };
        while !matches!(
            touched.try_recv(),
            Err(TryRecvError::Empty | TryRecvError::Closed)
        ) {}
    }

    fn top(&self) -> Option<Seq> {
        *self.top.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_top(&self, top: Option<Seq>) {
        *self.top.lock().unwrap_or_else(PoisonError::into_inner) = top;
    }
}

/// Messages in their order; what was given up behind the message that was the newest when it was written; at the end what
/// is on its way, in the order in which it was written.
fn arrange(messages: Vec<Message>, outbox: Vec<OutboxMessage>) -> Vec<ViewItem> {
    let placed: BTreeSet<_> = messages.iter().filter_map(|message| message.key).collect();
    let top = messages.first().map_or(0, |message| message.seq);
    let bottom = messages.last().map_or(0, |message| message.seq);
    let (mut given_up, on_the_way): (Vec<_>, Vec<_>) = outbox
        .into_iter()
        .filter(|it| !placed.contains(&it.key))
        .partition(|it| matches!(it.state, SendState::Refused { .. }) && it.after < bottom);
    // What stands above the window is seen when the window gets there.
    given_up.retain(|it| it.after.saturating_add(1) >= top);
    given_up.sort_by_key(|it| it.after);
    let mut given_up = given_up.into_iter().peekable();
    let mut items = Vec::with_capacity(messages.len() + given_up.len() + on_the_way.len());
    for message in messages {
        while let Some(item) = given_up.next_if(|it| it.after < message.seq) {
            items.push(ViewItem::Outbox(item));
        }
        items.push(ViewItem::Message(message));
    }
    items.extend(given_up.map(ViewItem::Outbox));
    items.extend(on_the_way.into_iter().map(ViewItem::Outbox));
    items
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use conch_wire::{Code, MessageKey, UserId};

    use super::*;
    use crate::core::{Content, RefusalReason};

    fn text(text: &str) -> Content {
        Content::Text {
            text: text.to_owned(),
            mentions: Vec::new(),
        }
    }

    fn message(seq: Seq, key: Option<u8>) -> Message {
        Message {
            channel: ChannelId(1),
            seq,
            author: UserId(1),
            time_ms: 0,
            key: key.map(|key| MessageKey([key; 16])),
            content: text(&seq.to_string()),
        }
    }

    fn own(key: u8, after: Seq, state: SendState) -> OutboxMessage {
        OutboxMessage {
            channel: ChannelId(1),
            key: MessageKey([key; 16]),
            content: text(&format!("own {key}")),
            created_ms: 0,
            after,
            state,
        }
    }

    fn words(items: Vec<ViewItem>) -> Vec<String> {
        let word = |item| {
            let content = match item {
                ViewItem::Message(message) => message.content,
                ViewItem::Outbox(message) => message.content,
            };
            match content {
                Content::Text { text, .. } => text,
                other => panic!("{other:?}"),
            }
        };
        items.into_iter().map(word).collect()
    }

    const REFUSED: SendState = SendState::Refused {
        reason: RefusalReason::Server(Code::Forbidden),
    };

    #[test]
    fn own_messages_stand_in_their_places() {
        let messages = (5..=8).map(|seq| message(seq, None)).collect();
        let outbox = vec![
            own(1, 3, REFUSED),
            own(2, 4, REFUSED),
            own(3, 6, REFUSED),
            own(4, 8, SendState::Sending),
            own(5, 8, REFUSED),
            own(6, 8, SendState::Waiting),
            own(7, Seq::MAX, REFUSED),
        ];
        let wanted = [
            "own 2", "5", "6", "own 3", "7", "8", "own 4", "own 5", "own 6", "own 7",
        ];
        assert_eq!(words(arrange(messages, outbox)), wanted);
    }

    #[test]
    fn message_seen_in_both_is_one() {
        let sent = SendState::Sent { seq: 5, time_ms: 0 };
        let items = arrange(vec![message(5, Some(1))], vec![own(1, 4, sent)]);
        assert_eq!(words(items), ["5"]);
    }
}
