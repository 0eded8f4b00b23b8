//! Sessions that were taken over from: what they still send is refused.
//!
//! A device that comes back asks its pending sends by naming the session that it replaces. From then on a late frame of
//! that session must not bring a message in that was answered `absent`. The list belongs to a shard, not to a channel,
//! so that it outlives a channel that is unloaded or reloaded. Bounded: the oldest entry goes first; a session that was
//! replaced so many replacements ago has long lost its connection. Pure.

use std::collections::{HashSet, VecDeque};

use conch_wire::{SessionId, UserId};

/// Replaced sessions remembered per shard: at 100 reconnects a second, more than two minutes.
const FENCED_MAX: usize = 16_384;

/// The replaced sessions of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fences {
    known: HashSet<(UserId, SessionId)>,
    order: VecDeque<(UserId, SessionId)>,
}

impl Fences {
    /// `user` has replaced `session`. By user too: nobody fences another person's session by naming it.
    pub(crate) fn raise(&mut self, user: UserId, session: SessionId) {
        if !self.known.insert((user, session)) {
            return;
        }
        self.order.push_back((user, session));
        if self.order.len() > FENCED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether what `session` sends is refused.
    pub(crate) fn holds(&self, user: UserId, session: SessionId) -> bool {
        !self.known.is_empty() && self.known.contains(&(user, session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_session_is_fenced_and_the_list_is_bounded() {
        let mut fences = Fences::default();
        fences.raise(UserId(1), SessionId(5));
        fences.raise(UserId(1), SessionId(5));
        assert!(fences.holds(UserId(1), SessionId(5)));
        assert!(!fences.holds(UserId(2), SessionId(5)));
        for session in 0..FENCED_MAX as u64 {
            fences.raise(UserId(3), SessionId(session));
        }
        assert!(!fences.holds(UserId(1), SessionId(5)));
        assert_eq!(fences.known.len(), FENCED_MAX);
        assert_eq!(fences.order.len(), FENCED_MAX);
    }
}
