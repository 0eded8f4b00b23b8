//! What people and channels are called. Names that this device does not know are asked for once; without a connection the
//! id stands in for them.

use conch_client::Client;
use conch_client::core::{ChannelInfo, Content, Message};
use conch_client::wire::UserId;
use conch_client::wire::event::ChannelKind;

/// The name of a person; their number if that cannot be found out now.
pub(crate) async fn person(client: &Client, user: UserId) -> String {
    let known = match client.known_person(user) {
        Some(person) => Some(person),
        None => client
            .people(&[user])
            .await
            .ok()
            .and_then(|people| people.into_iter().next()),
    };
    known.map_or_else(|| format!("#{user}"), |person| person.display_name)
}

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

/// The name of a channel.
pub(crate) async fn channel(client: &Client, info: &ChannelInfo) -> String {
    match (info.kind, info.peer) {
        (ChannelKind::Direct, Some(peer)) => person(client, peer).await,
        (ChannelKind::SelfLog, _) => "notes to myself".to_owned(),
        _ if info.title.is_empty() => format!("channel {}", info.channel),
        _ => info.title.clone(),
    }
}

/// What an event says, in words; messages as they are.
pub(crate) async fn content(client: &Client, message: &Message) -> String {
    let people = async |users: &[UserId]| {
        let mut names = Vec::new();
        for user in users {
            names.push(person(client, *user).await);
        }
        names.join(", ")
    };
    match &message.content {
        Content::Text { text, .. } => text.clone(),
        Content::Payload { kind, bytes } => format!("[kind {kind}, {} bytes]", bytes.len()),
        Content::Created { title, .. } if title.is_empty() => "began this conversation".to_owned(),
        Content::Created { title, .. } => format!("made the group “{title}”"),
        Content::MembersAdded { members } => format!("added {}", people(members).await),
        Content::MemberRemoved { members } => format!("removed {}", people(members).await),
        Content::MemberLeft { .. } => "left".to_owned(),
        Content::Renamed { title } => format!("renamed the group to “{title}”"),
        Content::Unknown { kind } => format!("[something newer than this program: kind {kind}]"),
    }
}
