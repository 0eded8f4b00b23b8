//! The Rust SDK of Conch.
//!
//! [`core`] holds everything that a chat client must get right, without IO, so that other languages and browsers can run
//! the same; the feature `native` (on by default) adds [`Client`], which drives it with tokio, a folder on disk, and
//! QUIC or WebSocket, whichever the network lets through; and [`Api`], the HTTP calls for accounts and channels.
//!
//! The promises to an application: a message given to [`Client::send`] survives crashes of program and node and arrives
//! once, in the order in which it was sent within its channel, or is refused for a stated reason; every event of a channel
//! is given out once and in order, over restarts too.
//!
//! # Transports
//!
//! An application need not choose. Where the node has QUIC and the network lets it through, connections go by QUIC; where not,
//! WebSocket is there within 3 s, and QUIC is then left alone for ten minutes, over restarts of the application too.
//! Everything promised above holds on either, and over a change from one to the other. What an application should do is say
//! when the device's network changes, because only the system knows:
//!
//! ```no_run
//! # #[cfg(feature = "native")]
//! # async fn example(client: conch_client::Client) -> Result<(), conch_client::ClientError> {
//! // From the system's callback: Wi-Fi came or went, the device woke up.
//! client.network_changed().await?;
//! // For a line of status, when `ConnectionState::Online` is heard.
//! println!("connected by {:?}", client.transport());
//! # Ok(()) }
//! ```
//!
//! A QUIC connection outlives the change; a WebSocket that did not is replaced within seconds and resumes. A deployment with
//! several nodes gives all of them to [`ClientBuilder::endpoints`]; [`ClientBuilder::transports`] narrows the choice for tests
//! and for networks that are known.

pub mod core;

pub use conch_wire as wire;

#[cfg(feature = "native")]
mod native;

#[cfg(feature = "native")]
pub use native::{
    Account, Api, ApiError, Channel, ChannelDetails, Client, ClientBuilder, ClientError, Device,
    EventStream, Login, Member, Person, Rebuilt, RebuiltReason, SendHandle, SendOutcome,
    StoreError, TokenError, TokenFuture, TokenProvider, Transport, Transports, View, ViewItem,
};

pub use conch_wire::event::ChannelKind;
pub use conch_wire::frame::PushMode;
pub use conch_wire::{ChannelId, Code, DeviceId, MemberRole, MessageKey, Seq, UserId};
pub use core::{
    ChannelInfo, Config, ConnectionState, Content, Event, Message, OutboxMessage, Preview,
    RefusalAdvice, RefusalReason, SendState, StopReason,
};
