//! One channel in an application's hand.

use conch_wire::{ChannelId, Seq, UserId};

use super::client::Client;
use super::error::ClientError;
use super::http::Member;
use super::sending::SendHandle;
use super::view::View;
use crate::core::{ChannelInfo, Message, OutboxMessage};

/// A channel. Cheap to clone; holds nothing but its name and the client.
#[derive(Clone, Debug)]
pub struct Channel {
    client: Client,
    id: ChannelId,
}

impl Channel {
    pub(super) fn new(client: Client, id: ChannelId) -> Channel {
        Channel { client, id }
    }

    /// Its id.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// What this device knows of it; `None` before the server has spoken of it.
    pub async fn info(&self) -> Result<Option<ChannelInfo>, ClientError> {
        self.client.channel_info(self.id).await
    }

    /// Sends a text; see [`Client::send`].
    pub async fn send(&self, text: &str) -> Result<SendHandle, ClientError> {
        self.client.send(self.id, text).await
    }

    /// Sends a text that mentions people.
    pub async fn send_mentioning(
        &self,
        text: &str,
        mentions: Vec<UserId>,
    ) -> Result<SendHandle, ClientError> {
        self.client.send_mentioning(self.id, text, mentions).await
    }

    /// Own messages that are not in the log, in the order in which they were written.
    pub async fn outbox(&self) -> Result<Vec<OutboxMessage>, ClientError> {
        let mut outbox = self.client.outbox().await?;
        outbox.retain(|message| message.channel == self.id);
        Ok(outbox)
    }

    /// Older events; see [`Client::history`].
    pub async fn history(
        &self,
        before: Option<Seq>,
        items: u32,
    ) -> Result<Vec<Message>, ClientError> {
        self.client.history(self.id, before, items).await
    }

    /// Newer events; see [`Client::newer`].
    pub async fn newer(&self, after: Seq, items: u32) -> Result<Vec<Message>, ClientError> {
        self.client.newer(self.id, after, items).await
    }

    /// The events of a range; see [`Client::range`].
    pub async fn range(&self, from: Seq, to: Seq) -> Result<Vec<Message>, ClientError> {
        self.client.range(self.id, from, to).await
    }

    /// What to show: the newest `items` events, and one's own messages that are not among them yet. Opens the channel; close
    /// it when the person leaves.
    pub async fn view(&self, items: u32) -> Result<View, ClientError> {
        self.open().await?;
        Ok(View::new(self.client.clone(), self.id, items))
    }

    /// The person has read it up to here, on all their devices.
    pub async fn mark_read(&self, seq: Seq) -> Result<(), ClientError> {
        self.client.mark_read(self.id, seq).await
    }

    /// The application shows it: its events come first, with push mode *opened* at all, and what was loaded of it stays.
    pub async fn open(&self) -> Result<(), ClientError> {
        self.client.open_channel(self.id).await
    }

    /// The application shows it no longer.
    pub async fn close(&self) -> Result<(), ClientError> {
        self.client.close_channel(self.id).await
    }

    /// Its members; see [`Client::members`].
    pub async fn members(&self) -> Result<Vec<Member>, ClientError> {
        self.client.members(self.id).await
    }

    /// Its members as far as this device knows them, without asking the server.
    pub async fn known_members(&self) -> Result<Vec<Member>, ClientError> {
        self.client.known_members(self.id).await
    }

    /// Adds people.
    pub async fn add_members(&self, users: &[UserId]) -> Result<(), ClientError> {
        self.client.add_members(self.id, users).await
    }

    /// Removes somebody.
    pub async fn remove_member(&self, user: UserId) -> Result<(), ClientError> {
        self.client.remove_member(self.id, user).await
    }

    /// Leaves it. What came before can still be read.
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.client.leave(self.id).await
    }

    /// Gives it another title.
    pub async fn rename(&self, title: &str) -> Result<(), ClientError> {
        self.client.rename(self.id, title).await
    }
}
