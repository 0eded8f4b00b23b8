//! The driver: the core with tokio, QUIC and WebSocket, a folder on disk and the HTTP API.
//!
//! | file | concept |
//! |---|---|
//! | `client.rs` | what an application holds: [`Client`] and its events |
//! | `channel.rs` | one channel in its hand: [`Channel`] |
//! | `view.rs` | what to show of one: [`View`] |
//! | `sending.rs` | a message on its way: [`SendHandle`] |
//! | `error.rs` | why a call did not do what it says |
//! | `builder.rs` | how one is made |
//! | `driver.rs` | the task that runs the core: inputs in, outputs carried out in their order |
//! | `transport/` | connections: which node, by QUIC or WebSocket, bytes both ways |
//! | `store/` | the data folder: its lock, and the SQLite database with rows of the core |
//! | `login.rs` | tokens: kept, refreshed, handed out |
//! | `http.rs` | the HTTP API |
//! | `tls.rs` | whom to trust |

mod builder;
mod channel;
mod client;
mod driver;
mod error;
mod http;
mod login;
mod sending;
mod store;
mod tls;
mod transport;
mod view;

pub use builder::ClientBuilder;
pub use channel::Channel;
pub use client::{Client, EventStream};
pub use error::ClientError;
pub use http::{Api, ApiError, ChannelDetails, Device, Login, Member, Person};
pub use login::{Account, TokenError, TokenFuture, TokenProvider};
pub use sending::{SendHandle, SendOutcome};
pub use store::{Rebuilt, RebuiltReason, StoreError};
pub use transport::{Transport, Transports};
pub use view::{View, ViewItem};
