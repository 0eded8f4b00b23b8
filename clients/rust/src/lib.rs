#![cfg_attr(feature = "native", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "native"),
    doc = "The core of the Rust SDK of Conch, without its driver."
)]
#![warn(missing_docs)]

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
