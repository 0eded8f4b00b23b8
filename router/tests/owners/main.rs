//! Owners through the public handle, on the memory store: what a device can observe.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod talk;
mod world;
