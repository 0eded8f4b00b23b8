//! What people and channels are called, in plain lines. Names that this device does not know are asked for; without a
//! connection the id stands in for them. A name that is known is shown at once and asked for again, behind the line, when
//! it is older than [`FRESH`].
//!
//! What comes out is as others wrote it: [`crate::show`] makes it harmless.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use conch_client::Client;
use conch_client::core::{ChannelInfo, Content, Message};
use conch_client::wire::UserId;
use conch_client::wire::event::ChannelKind;
use tokio::time::Instant;

/// How long a name is taken for the person's present one.
const FRESH: Duration = Duration::from_secs(600);

/// The handle of a person; their number if that cannot be found out now.
pub(crate) async fn handle(client: &Client, user: UserId) -> String {
    if client.known_person(user).is_none() {
        // Without an answer the number is shown.
        let _ = client.people(&[user]).await;
    }
    client
        .known_person(user)
        .map_or_else(|| format!("#{user}"), |person| person.handle)
}

/// Names for one conversation.
#[derive(Debug)]
pub(crate) struct Names {
    client: Client,
    asked: Mutex<Asked>,
}

/// When each name was last asked for.
#[derive(Debug, Default)]
struct Asked(BTreeMap<UserId, Instant>);

impl Asked {
    /// Whether it is time to ask; whoever asks this asks the server.
    fn is_due(&mut self, user: UserId, now: Instant) -> bool {
        let is_due = self.0.get(&user).is_none_or(|at| *at + FRESH <= now);
        if is_due {
            self.0.insert(user, now);
        }
        is_due
    }
}

impl Names {
    pub(crate) fn new(client: &Client) -> Names {
        Names {
            client: client.clone(),
            asked: Mutex::default(),
        }
    }

    /// The name of a person; their number if that cannot be found out now.
    pub(crate) async fn person(&self, user: UserId) -> String {
        let is_due = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.is_due(user, Instant::now())
        };
        if let Some(person) = self.client.known_person(user) {
            if is_due {
                let client = self.client.clone();
                // Without an answer the old name is shown on.
                tokio::spawn(async move { client.refresh_people(&[user]).await });
            }
            return person.display_name;
        }
        let found = self.client.people(&[user]).await.ok();
        let found = found.and_then(|people| people.into_iter().next());
        found.map_or_else(|| format!("#{user}"), |person| person.display_name)
    }

    /// The name of a channel.
    pub(crate) async fn channel(&self, info: &ChannelInfo) -> String {
        match (info.kind, info.peer) {
            (ChannelKind::Direct, Some(peer)) => self.person(peer).await,
            (ChannelKind::SelfLog, _) => "notes to myself".to_owned(),
            _ if info.title.is_empty() => format!("channel {}", info.channel),
            _ => info.title.clone(),
        }
    }

    /// What an event says, in words; messages as they are.
    pub(crate) async fn content(&self, message: &Message) -> String {
        let people = async |users: &[UserId]| {
            let mut names = Vec::new();
            for user in users {
                names.push(self.person(*user).await);
            }
            names.join(", ")
        };
        match &message.content {
            Content::Text { text, .. } => text.clone(),
            Content::Payload { kind, bytes } => format!("[kind {kind}, {} bytes]", bytes.len()),
            Content::Created { title, .. } if title.is_empty() => {
                "began this conversation".to_owned()
            }
            Content::Created { title, .. } => format!("made the group “{title}”"),
            Content::MembersAdded { members } => format!("added {}", people(members).await),
            Content::MemberRemoved { members } => format!("removed {}", people(members).await),
            Content::MemberLeft { .. } => "left".to_owned(),
            Content::Renamed { title } => format!("renamed the group to “{title}”"),
            Content::Unknown { kind } => {
                format!("[something newer than this program: kind {kind}]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_asked_for_again_when_it_is_old() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        assert!(asked.is_due(UserId(1), now) && asked.is_due(UserId(2), now));
        assert!(!asked.is_due(UserId(1), now + FRESH / 2));
        assert!(asked.is_due(UserId(1), now + FRESH));
    }
}
