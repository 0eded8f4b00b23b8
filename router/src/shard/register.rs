//! Sessions of the users that a shard owns: registered before the inbox position is read, gone when they say goodbye.

use conch_wire::{SessionId, UserId};

use super::input::{Completion, Reply};
use super::reads::read;
use super::task::Shard;
use crate::{Registered, Registration, refuse};

impl Shard {
    pub(super) fn on_register(&mut self, registration: Registration, reply: Reply<Registered>) {
        if !self.reads.has_room() {
            // Whoever asked may have gone.
            let _ = reply.send(Err(refuse::overloaded("too many store reads wait")));
            return;
        }
        let user = self.users.entry(registration.user).or_default();
        if let Err(refused) = user.on_register(&registration, &mut self.effects.pushes) {
            let _ = reply.send(Err(refused));
            return;
        }
        // Only now, registered, is the position read: an event in between is pushed, or in what the position covers.
        let store = self.store.clone();
        let user = registration.user;
        let read = read(
            async move { store.inbox_position(user).await },
            Err(conch_store::ReadError::Closed),
            move |result| Completion::Position {
                registration,
                reply,
                result,
            },
        );
        self.start_read(read);
    }

    pub(super) fn on_position(
        &mut self,
        registration: &Registration,
        reply: Reply<Registered>,
        stored: Option<u64>,
    ) {
        let answer = match (stored, self.users.get_mut(&registration.user)) {
            (Some(stored), Some(user)) => Ok(Registered {
                inbox_position: user.on_position(stored),
            }),
            // It said goodbye before it was answered.
            (Some(stored), None) => Ok(Registered {
                inbox_position: stored,
            }),
            (None, _) => Err(refuse::unavailable("the store could not be read")),
        };
        let is_refused = answer.is_err();
        if reply.send(answer).is_err() || is_refused {
            // Nobody waits for it, or nobody was told that it stands: it must not stay behind.
            self.unregister(registration.user, registration.session);
        }
    }

    pub(super) fn unregister(&mut self, user: UserId, session: SessionId) {
        if let Some(state) = self.users.get_mut(&user) {
            state.on_unregister(session);
            if state.is_empty() {
                self.users.remove(&user);
            }
        }
    }
}
