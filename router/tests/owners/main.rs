//! Owners through the public handle, on the memory store: what a device can observe.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod blind;
mod groups;
mod keys;
mod people;
mod talk;
mod trouble;
mod world;
