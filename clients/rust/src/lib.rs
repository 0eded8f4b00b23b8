//! The Rust SDK of Conch.
//!
//! [`core`] holds everything that a chat client must get right, without IO, so that other languages and browsers can run
//! the same; the feature `native` (on by default) adds [`Client`], which drives it with tokio, a folder on disk, and
//! QUIC or WebSocket, whichever the network lets through; and [`Api`], the HTTP calls for accounts and channels.
//!
//! The promises to an application: a message given to [`Client::send`] survives crashes of program and node and arrives
//! once, in the order in which it was sent within its channel, or is refused for a stated reason; every event of a channel
//! is given out once and in order, over restarts too.

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
