//! What an event changes besides its own row, read from its body.
//!
//! The store keeps bodies opaque and is handed [`ChannelFold`]; channel owners apply the same function to their own
//! state, so what is served and what a replay derives cannot differ. Pure, and for ever: the same event must have the
//! same effect in every later version. Unknown kinds and unreadable bodies have none.

use conch_store::{EventEffect, EventRow, Fold, MemberChange};
use conch_wire::event::{Event, EventBody, EventKind};

/// The one fold of channel events.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelFold;

impl Fold for ChannelFold {
    fn effect(&self, event: &EventRow) -> EventEffect {
        let Some(kind) = EventKind::from_u8(event.kind) else {
            return EventEffect::default();
        };
        if kind.is_message() {
            return EventEffect {
                is_message: true,
                ..EventEffect::default()
            };
        }
        let Some(body) = Event::decode_body(event.body.clone())
            .ok()
            .and_then(|event| EventBody::decode(&event.tail).ok())
        else {
            return EventEffect::default();
        };
        change_of(kind, body)
    }
}

fn change_of(kind: EventKind, body: EventBody) -> EventEffect {
    let joins = |body: &EventBody| {
        body.members
            .iter()
            .map(|member| MemberChange::Join {
                user: member.user,
                role: member.role,
            })
            .collect()
    };
    let nothing = EventEffect::default();
    match kind {
        EventKind::ChannelCreated => EventEffect {
            created: body.channel_kind,
            members: joins(&body),
            title: body.title,
            ..nothing
        },
        EventKind::MembersAdded => EventEffect {
            members: joins(&body),
            ..nothing
        },
        EventKind::MemberRemoved | EventKind::MemberLeft => EventEffect {
            members: body
                .members
                .iter()
                .map(|member| MemberChange::Leave { user: member.user })
                .collect(),
            ..nothing
        },
        EventKind::ChannelRenamed => EventEffect {
            title: body.title,
            ..nothing
        },
        EventKind::Text | EventKind::Image | EventKind::File | EventKind::System => nothing,
    }
}
