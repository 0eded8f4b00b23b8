//! The sessions of one user.
//!
//! A session is registered **before** the inbox position is read, so that an event in between is in one of the two: in
//! what the position covers, or pushed. Sessions are told apart by session id, so a late goodbye cannot remove the
//! successor. Loaded while there is a session, and no longer. Driven by the shard loop: registrations from the gateway,
//! deliveries from channel owners; what comes out is pushes. It knows neither the store nor time.

use std::sync::Arc;

use conch_wire::frame::ChannelHead;
use conch_wire::{Code, DeviceId, SessionId};
use smallvec::SmallVec;

use crate::refuse;
use crate::{Published, Push, Refused, Registration};

/// Sessions of one person at once: every device and its tabs; above it someone is leaking connections.
pub(crate) const SESSIONS_MAX: usize = 20;

#[derive(Clone, Copy, Debug)]
struct Registered {
    session: SessionId,
    device: DeviceId,
}

/// The registered sessions of one user.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserState {
    sessions: SmallVec<[Registered; 2]>,
    /// Highest inbox position seen go by.
    position: u64,
}

impl UserState {
    /// From here on the session gets every push. The caller reads the inbox position only after this returned `Ok`.
    pub(crate) fn on_register(
        &mut self,
        registration: &Registration,
        pushes: &mut Vec<(SessionId, Push)>,
    ) -> Result<(), Refused> {
        if let Some(replaced) = registration.replaces
            && replaced != registration.session
            && self.remove(replaced)
        {
            pushes.push((replaced, Push::Close(Code::SessionReplaced)));
        }
        self.remove(registration.session);
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(refuse::refused(
                Code::LimitReached,
                "too many sessions of this user",
            ));
        }
        self.sessions.push(Registered {
            session: registration.session,
            device: registration.device,
        });
        Ok(())
    }

    /// The position to answer a registration with: what the store said, or what was pushed since.
    pub(crate) fn on_position(&mut self, stored: u64) -> u64 {
        self.position = self.position.max(stored);
        self.position
    }

    /// By session id: the goodbye of a session that was replaced finds nothing.
    pub(crate) fn on_unregister(&mut self, session: SessionId) {
        self.remove(session);
    }

    /// Ends the sessions of a device; nothing more is pushed to them.
    pub(crate) fn on_close_device(
        &mut self,
        device: DeviceId,
        code: Code,
        pushes: &mut Vec<(SessionId, Push)>,
    ) {
        self.sessions.retain(|registered| {
            let ends = registered.device == device;
            if ends {
                pushes.push((registered.session, Push::Close(code)));
            }
            !ends
        });
    }

    /// Committed events of one of the user's channels. A session that has sent all of them gets its acks in their place.
    pub(crate) fn on_events(
        &mut self,
        events: &Arc<[Published]>,
        pushes: &mut Vec<(SessionId, Push)>,
    ) {
        if let Some(newest) = events.last() {
            self.position = self.position.max(newest.position);
        }
        for registered in &self.sessions {
            let session = registered.session;
            let is_own = |event: &Published| event.origin == Some(session) && event.left.is_empty();
            if !events.iter().all(is_own) {
                pushes.push((session, Push::Events(events.clone())));
            }
        }
    }

    /// The user's read mark moved.
    pub(crate) fn on_head(&self, head: ChannelHead, pushes: &mut Vec<(SessionId, Push)>) {
        pushes.extend(
            self.sessions
                .iter()
                .map(|registered| (registered.session, Push::Head(head))),
        );
    }

    /// Nobody is there: the state may go.
    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn remove(&mut self, session: SessionId) -> bool {
        let before = self.sessions.len();
        self.sessions
            .retain(|registered| registered.session != session);
        self.sessions.len() < before
    }
}
