//! End to end: real `conch` processes, real sockets, real kills. One test program, so that it is linked once.
//!
//! Needs the programs built with failpoints, as `make test` does it.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod bad_input;
mod bench;
mod catch_up;
mod chat;
mod dark;
mod durable;
mod growth;
mod index;
mod interop;
mod keys;
mod kills;
mod load;
mod order;
mod proxies;
mod relay;
mod restore;
mod sdk;
mod sdk_examples;
mod sdk_full;
mod sdk_process;
mod sdk_store;
mod sdk_token;
mod serve;
mod slow_reader;
mod sweep;
mod terminal;
mod tls;
mod transports;
