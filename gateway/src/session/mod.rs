//! Sessions: an authenticated device on one connection.
//!
//! [`state`] is the pure half: frames, pushes, answers and time in; frames (through [`outbound`]) and effects out.
//! [`task`] is its driver: one task per connection between a transport, the hub and the router. The other files are the
//! concepts that the state is made of: [`channels`] (aliases and openings) on [`aliases`], [`marks`] (the memory of a collapse),
//! [`sync_token`], [`effect`].

pub mod aliases;
pub mod channels;
pub mod effect;
pub mod marks;
pub mod outbound;
pub mod state;
pub mod sync_token;
pub mod task;

#[cfg(test)]
mod tests;

use conch_wire::SessionId;

/// 63 random bits, never 0: not guessable, unique without asking anybody.
pub fn fresh_session_id() -> SessionId {
    loop {
        let random = getrandom::u64().expect("the operating system has randomness");
        let id = random & conch_wire::id::ID_MAX;
        if id != 0 {
            return SessionId(id);
        }
    }
}
