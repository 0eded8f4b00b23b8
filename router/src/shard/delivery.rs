//! From channel owners to user owners: into this shard's own users at once, into another shard's queue if it has room.

use std::sync::Arc;

use conch_wire::{SessionId, UserId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::channel::outbox::{Carrier, Delivery, FanOut};
use crate::failpoint;
use crate::map::Map;
use crate::user::state::UserState;
use crate::{Link, Push};

/// Hands one message to the users it lists, those of this shard.
pub(crate) fn deliver(
    users: &mut Map<UserId, UserState>,
    message: &FanOut,
    pushes: &mut Vec<(SessionId, Push)>,
) {
    for user in message.users.iter() {
        // Nobody is there: the inbox, derived with the event, tells them when they come.
        let Some(state) = users.get_mut(user) else {
            continue;
        };
        match &message.delivery {
            Delivery::Events(events) => state.on_events(events, pushes),
            Delivery::Head(head) => state.on_head(*head, pushes),
        }
    }
}

/// Carries one pass's deliveries.
pub(crate) struct Courier<'a> {
    pub(crate) here: usize,
    pub(crate) users: &'a mut Map<UserId, UserState>,
    pub(crate) shards: &'a [mpsc::Sender<FanOut>],
    pub(crate) pushes: &'a mut Vec<(SessionId, Push)>,
    pub(crate) link: &'a Arc<dyn Link>,
}

impl Carrier for Courier<'_> {
    fn take(&mut self, shard: usize, message: FanOut) -> bool {
        if shard == self.here {
            deliver(self.users, &message, self.pushes);
            return true;
        }
        // A closed queue belongs to a shard that has ended: its sessions are gone, and their inbox has it.
        !matches!(
            self.shards[shard].try_send(message),
            Err(TrySendError::Full(_))
        )
    }

    fn all_have_it(&mut self) {
        if fail::has_failpoints() {
            // A kill at this stage must find the deliveries with the sessions.
            self.link.push(self.pushes);
            failpoint::stage(failpoint::FANNED_OUT);
        }
    }
}
