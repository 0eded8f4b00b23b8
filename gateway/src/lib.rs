//! The edge of a Conch node, and the program `conch`.
//!
//! A gateway holds connections and nothing durable: killing it loses connections, never messages. [`session`] is an
//! authenticated device on a connection, [`transport`] what carries its bytes, [`hub`] the registry through which owners
//! push. [`http`] is accounts, channels and the upgrade; [`quic`] the other way in; [`tls`] the certificate; [`auth`] says who somebody is. [`node`] puts everything together
//! and takes it apart in order; [`cli`] and [`config`] are what an operator sees of it.
//!
//! Channels and users are the owners', behind `conch_router::Router`; nothing here writes the message store.

pub mod admission;
pub mod auth;
pub mod bucket;
pub mod cli;
pub mod clock;
pub mod config;
pub mod exit;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod node;
pub mod prometheus;
pub mod quic;
pub mod ready;
pub mod secret;
pub mod session;
pub mod tls;
pub mod transport;
