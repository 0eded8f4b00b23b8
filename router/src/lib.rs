//! Who owns what, and being an owner.
//!
//! [`Router`] is the only way to an owner, for sessions and HTTP alike. It finds the slot of a channel or user, the
//! slot's owner (on a single node: one of this process's shards), and hands the request over. Owners live in shards: one
//! loop per core, many channels and users each, whose pure halves (`channel/`, `user/`) decide everything. The router
//! does not know the gateway: an owner pushes to a [`Link`], never to a session.
//!
//! [`ChannelFold`] is what the store derives its tables with; whoever opens a store hands it in.

pub mod api;
mod channel;
mod failpoint;
mod fence;
mod fold;
pub mod id;
mod map;
pub mod metrics;
mod refuse;
pub mod ring;
mod router;
mod shard;
pub mod slot;
mod user;

pub use api::{
    ChannelView, HistoryRequest, HistoryRows, Link, MemberView, Published, Push, Refused,
    Registered, Registration, RouterConfig, SendItem, SendRequest, SyncQuery, SyncRows,
};
pub use fold::ChannelFold;
pub use router::{Fatal, Router};
