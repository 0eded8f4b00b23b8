//! One suite for every message store: the contract of [`crate::contract`] and of [`crate::row`] as named checks.
//!
//! A store brings a [`Subject`]: how it is opened, crashed and restarted.

pub mod script;
