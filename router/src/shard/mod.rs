//! Shards: the loops that own channels and users.
//!
//! One loop per core ([`task::Shard`]); a channel or user is a value in one, never a task. `task` is the loop and what it
//! does with a request, `commit` the end of a pass (log, deliveries, pushes), `fetch` what is read from the store,
//! `register` the sessions of users; `input` is what comes in, `slot` a channel's life in the shard (loading, loaded,
//! settling after a panic), `reads` the bounded store reads, `delivery` the way to user owners.

mod commit;
pub(crate) mod delivery;
mod fetch;
pub(crate) mod input;
pub(crate) mod pair;
pub(crate) mod reads;
mod register;
pub(crate) mod slot;
pub(crate) mod task;
