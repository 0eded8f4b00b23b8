//! Who owns what, and being an owner.
//!
//! [`Router`] is the only way to an owner, for sessions and HTTP alike. It finds the slot of a channel or user, the
//! slot's owner (on a single node: one of this process's shards), and hands the request over. Owners live in shards: one
//! loop per core, many channels and users each, whose pure halves (`channel/state.rs`, `user/state.rs`) decide
//! everything. The router does not know the gateway: an owner pushes to a [`Link`], never to a session.

pub mod api;

pub use api::{
    ChannelView, HistoryRequest, HistoryRows, Link, MemberView, Published, Push, Refused,
    Registered, Registration, Router, RouterConfig, SendItem, SendRequest, SyncQuery, SyncRows,
};
