//! Who is in a channel, in two views: as committed (what readers may see) and as sequenced (what the next event meets).
//!
//! Membership counts as of a place in the log: a send sequenced behind a removal is refused although the removal is not
//! durable yet, and a reader sees neither before the commit. The sequenced view is the committed one plus `ahead`, the
//! few rows that uncommitted events have changed. Changes come from the fold only. Pure.

use conch_store::{MemberChange, MemberRow};
use conch_wire::event::MemberRole;
use conch_wire::{Ordinal, Seq, UserId};

use crate::map::Map;

/// A present or former member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) role: MemberRole,
    pub(crate) joined_seq: Seq,
    pub(crate) joined_ordinal: Ordinal,
    pub(crate) visible_from: Seq,
    /// The event that ended it: the last one they may read.
    pub(crate) left_seq: Option<Seq>,
    /// Known when they left while this state was loaded; else looked up when needed.
    pub(crate) left_ordinal: Option<Ordinal>,
    pub(crate) read_seq: Seq,
    pub(crate) read_ordinal: Ordinal,
}

impl Member {
    fn changed_at(&self) -> Seq {
        self.left_seq.unwrap_or(self.joined_seq)
    }

    pub(crate) fn is_present(&self) -> bool {
        self.left_seq.is_none()
    }
}

/// The members of a channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    committed: Map<UserId, Member>,
    ahead: Map<UserId, Member>,
}

/// The place that a change takes effect at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seq: Seq,
    /// Ordinal up to and including the event.
    pub(crate) ordinal: Ordinal,
}

impl Roster {
    pub(crate) fn load(rows: Vec<MemberRow>) -> Roster {
        let member = |row: &MemberRow| Member {
            role: row.role,
            joined_seq: row.joined_seq,
            joined_ordinal: row.joined_ordinal,
            visible_from: row.visible_from,
            left_seq: row.left_seq,
            left_ordinal: None,
            read_seq: row.read_seq,
            read_ordinal: row.read_ordinal,
        };
        Roster {
            committed: rows.iter().map(|row| (row.user, member(row))).collect(),
            ahead: Map::default(),
        }
    }

    /// As readers may see it.
    pub(crate) fn committed(&self, user: UserId) -> Option<&Member> {
        self.committed.get(&user)
    }

    /// As the next event meets it.
    pub(crate) fn sequenced(&self, user: UserId) -> Option<&Member> {
        self.ahead.get(&user).or_else(|| self.committed.get(&user))
    }

    /// Present members as committed.
    pub(crate) fn present(&self) -> impl Iterator<Item = (UserId, &Member)> {
        self.committed
            .iter()
            .filter(|(_, member)| member.is_present())
            .map(|(&user, member)| (user, member))
    }

    /// Present members as sequenced.
    pub(crate) fn present_sequenced(&self) -> impl Iterator<Item = (UserId, &Member)> {
        let settled = self
            .committed
            .iter()
            .filter(|(user, _)| !self.ahead.contains_key(*user));
        settled
            .chain(self.ahead.iter())
            .filter(|(_, member)| member.is_present())
            .map(|(&user, member)| (user, member))
    }

    /// What a member may do, as committed; see [`effective_role`].
    pub(crate) fn role(&self, user: UserId) -> MemberRole {
        effective_role(self.present(), user, self.committed(user))
    }

    /// What a member may do, as sequenced.
    pub(crate) fn role_sequenced(&self, user: UserId) -> MemberRole {
        effective_role(self.present_sequenced(), user, self.sequenced(user))
    }

    /// An event got its place.
    pub(crate) fn sequence(&mut self, changes: &[MemberChange], place: Place) {
        for change in changes {
            let (user, member) = changed(change, place, |user| self.sequenced(user).copied());
            if let Some(member) = member {
                self.ahead.insert(user, member);
            }
        }
    }

    /// An event is durable.
    pub(crate) fn commit(&mut self, changes: &[MemberChange], place: Place) {
        for change in changes {
            let (user, member) = changed(change, place, |user| self.committed.get(&user).copied());
            if let Some(member) = member {
                self.committed.insert(user, member);
            }
        }
        self.ahead
            .retain(|_, member| member.changed_at() > place.seq);
    }

    /// A read mark is durable; marks never move back.
    pub(crate) fn mark_read(&mut self, user: UserId, seq: Seq, ordinal: Ordinal) {
        if let Some(member) = self.committed.get_mut(&user)
            && seq > member.read_seq
        {
            member.read_seq = seq;
            member.read_ordinal = ordinal;
        }
    }

    /// Remembers a looked-up ordinal of where someone left.
    pub(crate) fn note_left_ordinal(&mut self, user: UserId, seq: Seq, ordinal: Ordinal) {
        if let Some(member) = self.committed.get_mut(&user)
            && member.left_seq == Some(seq)
        {
            member.left_ordinal = Some(ordinal);
        }
    }
}

fn changed(
    change: &MemberChange,
    place: Place,
    before: impl FnOnce(UserId) -> Option<Member>,
) -> (UserId, Option<Member>) {
    match *change {
        MemberChange::Join { user, role } => {
            // Events that change the channel are no messages, so the ordinal just before is the event's own.
            let joined = Member {
                role,
                joined_seq: place.seq,
                joined_ordinal: place.ordinal,
                visible_from: place.seq,
                left_seq: None,
                left_ordinal: None,
                read_seq: place.seq - 1,
                read_ordinal: place.ordinal,
            };
            (user, Some(joined))
        }
        MemberChange::Leave { user } => {
            let left = before(user)
                .filter(Member::is_present)
                .map(|member| Member {
                    left_seq: Some(place.seq),
                    left_ordinal: Some(place.ordinal),
                    ..member
                });
            (user, left)
        }
    }
}

/// A group whose last owner left belongs to its longest-standing admin, else member. That follows from the members
/// alone, so no event has to say it and every replay finds the same heir.
fn effective_role<'a>(
    present: impl Iterator<Item = (UserId, &'a Member)>,
    user: UserId,
    own: Option<&Member>,
) -> MemberRole {
    let Some(own) = own.filter(|member| member.is_present()) else {
        return MemberRole::Member;
    };
    let first = present.max_by_key(|(user, member)| {
        (
            member.role,
            std::cmp::Reverse(member.joined_seq),
            std::cmp::Reverse(*user),
        )
    });
    match first {
        Some((heir, member)) if heir == user && member.role != MemberRole::Owner => {
            MemberRole::Owner
        }
        _ => own.role,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::*;

    fn join(user: u64, role: MemberRole) -> MemberChange {
        MemberChange::Join {
            user: UserId(user),
            role,
        }
    }

    fn leave(user: u64) -> MemberChange {
        MemberChange::Leave { user: UserId(user) }
    }

    fn at(seq: Seq) -> Place {
        Place { seq, ordinal: 0 }
    }

    #[test]
    fn a_change_is_sequenced_at_once_and_visible_only_when_committed() {
        let mut roster = Roster::default();
        roster.sequence(&[join(1, MemberRole::Owner)], at(1));
        assert!(roster.sequenced(UserId(1)).is_some());
        assert!(roster.committed(UserId(1)).is_none());
        roster.commit(&[join(1, MemberRole::Owner)], at(1));
        roster.sequence(&[leave(1)], at(2));
        assert!(!roster.sequenced(UserId(1)).unwrap().is_present());
        assert!(roster.committed(UserId(1)).unwrap().is_present());
        roster.commit(&[leave(1)], at(2));
        assert_eq!(roster.committed(UserId(1)).unwrap().left_seq, Some(2));
        assert!(roster.ahead.is_empty());
    }

    #[test]
    fn the_longest_standing_member_inherits_a_group_without_owner() {
        let mut roster = Roster::default();
        let all = [
            join(9, MemberRole::Owner),
            join(5, MemberRole::Member),
            join(3, MemberRole::Member),
        ];
        roster.commit(&all, at(1));
        assert_eq!(roster.role(UserId(3)), MemberRole::Member);
        roster.commit(&[join(1, MemberRole::Member)], at(2));
        roster.commit(&[leave(9)], at(3));
        assert_eq!(roster.role(UserId(3)), MemberRole::Owner);
        assert_eq!(roster.role(UserId(1)), MemberRole::Member);
        assert_eq!(roster.role(UserId(9)), MemberRole::Member);
    }
}
