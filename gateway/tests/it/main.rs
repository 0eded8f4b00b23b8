//! The gateway from outside: whole nodes in this process (memory store, real sockets on port 0), sessions over the
//! in-memory transport, rows of the attack table by name.

#![allow(clippy::unwrap_used)] // a test ends at the first surprise

mod attacks;
mod chat;
mod client;
mod handshake;
mod http;
mod http_attacks;
mod memory;
mod quic;
mod quic_attacks;
mod quic_bad_input;
mod quic_claimed;
mod quic_client;
mod quic_liar;
mod quic_moves;
mod tls;
mod world;
