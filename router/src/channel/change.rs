//! Making channels and changing groups.
//!
//! A channel's kind is fixed by its first event and rules go by it, never by counting members: direct channels and a
//! person's own log never change their members. Roles: an owner or admin adds, removes and renames; nobody removes an
//! owner; anybody leaves. A group whose last owner left passes to its longest-standing admin, else member (see
//! `roster`). Like every event these are judged as of their place in the log and answered when durable.

use bytes::Bytes;
use conch_store::content_hash;
use conch_wire::event::{ChannelKind, EventBody, EventMember, MemberRole};
use conch_wire::limits::TITLE_CHARS_MAX;
use conch_wire::{Code, DeviceId, EventFlags, EventKind, MessageKey, UserId};

use super::roster::Member;
use super::state::{ChannelState, Draft, Waiter};
use super::{Change, Context, Creation, Effects, Ticket};
use crate::Refused;
use crate::refuse;

/// Checks a group's title; the detail names the field.
pub(crate) fn check_title(title: &str) -> Result<(), Refused> {
    let invalid = |detail| Err(refuse::refused(Code::Invalid, detail));
    if title.trim().is_empty() {
        return invalid("title: empty");
    }
    if title.chars().count() > TITLE_CHARS_MAX {
        return invalid("title: longer than 100 characters");
    }
    if title.chars().any(char::is_control) {
        return invalid("title: control characters");
    }
    Ok(())
}

impl ChannelState {
    pub(super) fn on_create(
        &mut self,
        context: &Context<'_>,
        creation: Creation,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let user = creation.by;
        if self.sequenced.seq > 0 {
            let is_theirs = self
                .roster
                .sequenced(user)
                .is_some_and(|member| member.joined_seq == 1);
            if !is_theirs {
                let refused = refuse::refused(Code::Conflict, "the id names another channel");
                return effects.answer(ticket, Err(refused));
            }
            return self.wait_for(1, Waiter::View { ticket, user }, effects);
        }
        match self.creation_body(creation) {
            Ok(body) => {
                let kind = EventKind::ChannelCreated;
                match self.sequence_change(context, user, kind, &body) {
                    Some(refused) => effects.answer(ticket, Err(refused)),
                    None => self.wait_for(1, Waiter::View { ticket, user }, effects),
                }
            }
            Err(refused) => effects.answer(ticket, Err(refused)),
        }
    }

    fn creation_body(&self, creation: Creation) -> Result<EventBody, Refused> {
        let Creation {
            by,
            kind,
            title,
            others,
        } = creation;
        let others = without_repeats(others, |user| user != by);
        let wrong = |detail| Err(refuse::refused(Code::Invalid, detail));
        let (founder, title) = match kind {
            ChannelKind::Direct if others.len() != 1 => {
                return wrong("members: a direct channel has two");
            }
            ChannelKind::SelfLog if !others.is_empty() => {
                return wrong("members: a person's own log has one");
            }
            ChannelKind::Direct | ChannelKind::SelfLog => (MemberRole::Member, None),
            ChannelKind::Group => {
                check_title(&title)?;
                if others.len() + 1 > self.rules.members_max {
                    return Err(too_many_members());
                }
                (MemberRole::Owner, Some(title))
            }
        };
        let founder = EventMember {
            user: by,
            role: founder,
        };
        Ok(EventBody {
            channel_kind: Some(kind),
            title,
            members: std::iter::once(founder).chain(members(others)).collect(),
        })
    }

    pub(super) fn on_change(
        &mut self,
        context: &Context<'_>,
        change: Change,
        ticket: Ticket,
        effects: &mut Effects,
    ) {
        let (by, waiter) = match &change {
            Change::Add { by, .. } => (*by, Waiter::View { ticket, user: *by }),
            Change::Remove { by, .. } | Change::Rename { by, .. } => (*by, Waiter::Done { ticket }),
            Change::Leave { user } => (*user, Waiter::Done { ticket }),
        };
        match self.judge_change(change) {
            Err(refused) => effects.answer(ticket, Err(refused)),
            Ok(None) => self.wait_for(self.sequenced.seq, waiter, effects),
            Ok(Some((kind, body))) => match self.sequence_change(context, by, kind, &body) {
                Some(refused) => effects.answer(ticket, Err(refused)),
                None => self.wait_for(self.sequenced.seq, waiter, effects),
            },
        }
    }

    /// The event that a change makes; `None`: all is as wished already.
    fn judge_change(&self, change: Change) -> Result<Option<(EventKind, EventBody)>, Refused> {
        match change {
            Change::Add { by, users } => {
                self.require(by, MemberRole::Admin)?;
                let joining = without_repeats(users, |user| !self.is_in(user));
                if joining.is_empty() {
                    return Ok(None);
                }
                if self.roster.present_sequenced().count() + joining.len() > self.rules.members_max
                {
                    return Err(too_many_members());
                }
                let body = EventBody {
                    members: members(joining).collect(),
                    ..EventBody::default()
                };
                Ok(Some((EventKind::MembersAdded, body)))
            }
            Change::Remove { by, user } if by == user => self.judge_change(Change::Leave { user }),
            Change::Remove { by, user } => {
                self.require(by, MemberRole::Admin)?;
                if !self.is_in(user) {
                    let refused = refuse::refused(Code::NotFound, "no such member");
                    return Err(refused);
                }
                if self.roster.role_sequenced(user) == MemberRole::Owner {
                    return Err(forbidden("nobody removes an owner"));
                }
                Ok(Some((EventKind::MemberRemoved, self.one_out(user))))
            }
            Change::Leave { user } => {
                self.require(user, MemberRole::Member)?;
                Ok(Some((EventKind::MemberLeft, self.one_out(user))))
            }
            Change::Rename { by, title } => {
                self.require(by, MemberRole::Admin)?;
                check_title(&title)?;
                if self
                    .meta_ahead
                    .as_ref()
                    .is_some_and(|meta| meta.title == title)
                {
                    return Ok(None);
                }
                let body = EventBody {
                    title: Some(title),
                    ..EventBody::default()
                };
                Ok(Some((EventKind::ChannelRenamed, body)))
            }
        }
    }

    fn one_out(&self, user: UserId) -> EventBody {
        let role = self
            .roster
            .sequenced(user)
            .map_or(MemberRole::Member, |member| member.role);
        EventBody {
            members: vec![EventMember { user, role }],
            ..EventBody::default()
        }
    }

    fn is_in(&self, user: UserId) -> bool {
        self.roster.sequenced(user).is_some_and(Member::is_present)
    }

    /// Whoever is not in finds nothing; a member learns what they may not do.
    fn require(&self, user: UserId, role: MemberRole) -> Result<(), Refused> {
        if !self.is_in(user) {
            return Err(refuse::not_found());
        }
        if self.meta_ahead.as_ref().map(|meta| meta.kind) != Some(ChannelKind::Group) {
            return Err(forbidden("only a group changes"));
        }
        if self.roster.role_sequenced(user) < role {
            return Err(forbidden("the role does not allow it"));
        }
        Ok(())
    }

    fn sequence_change(
        &mut self,
        context: &Context<'_>,
        author: UserId,
        kind: EventKind,
        body: &EventBody,
    ) -> Option<Refused> {
        if let Some(refused) = self.no_room(context, 1) {
            return Some(refused);
        }
        let tail = Bytes::from(body.encode());
        let draft = Draft {
            author,
            device: DeviceId(0),
            key: MessageKey::default(),
            kind: kind as u8,
            flags: EventFlags::default(),
            content_hash: content_hash(kind as u8, 0, &tail),
            tail,
            origin: None,
        };
        self.sequence(context.now_ms, draft);
        None
    }
}

fn members(users: Vec<UserId>) -> impl Iterator<Item = EventMember> {
    users.into_iter().map(|user| EventMember {
        user,
        role: MemberRole::Member,
    })
}

fn without_repeats(mut users: Vec<UserId>, keep: impl Fn(UserId) -> bool) -> Vec<UserId> {
    users.sort_unstable();
    users.dedup();
    users.retain(|&user| keep(user));
    users
}

fn forbidden(detail: &'static str) -> Refused {
    refuse::refused(Code::Forbidden, detail)
}

fn too_many_members() -> Refused {
    refuse::refused(Code::LimitReached, "members: the group is full")
}
