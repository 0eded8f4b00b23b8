//! Shards: the loops that own channels and users.
//!
//! One loop per core ([`task::Shard`]); a channel or user is a value in one, never a task. `input` is what comes in,
//! `slot` a channel's life in the shard (loading, loaded, settling after a panic), `reads` the bounded store reads,
//! `delivery` the way to user owners.

pub(crate) mod delivery;
pub(crate) mod input;
pub(crate) mod pair;
pub(crate) mod reads;
pub(crate) mod slot;
pub(crate) mod task;
