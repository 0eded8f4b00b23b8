//! The words everybody shares: frames, the FlatBuffers schema, ids, limits and codes of the Conch protocol.
//!
//! `docs/protocol.md` is normative; this crate is its one implementation in Rust, used by the node, the SDK, the load
//! test and the tests alike. It knows no IO, no clock, no async runtime, and builds for wasm32. Generated FlatBuffers
//! types never leave it: every frame has one owned or borrowed Rust type, one encoder and one decoder.
//!
//! Input from outside never panics here; it ends in a [`WireError`], which carries the [`Code`] to answer or close with.

pub mod code;
pub mod event;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod id;
pub mod limits;

mod layout;
mod table;

#[rustfmt::skip] // committed as the compiler wrote it, so that a plain comparison finds a stale file
#[allow(
    clippy::all,
dead_code, // accessors that no frame of ours reads
    missing_debug_implementations,
    non_camel_case_types,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    reason = "made by flatc; its style is not ours to choose, and it never leaves this crate"
)]
mod generated;

pub use code::Code;
pub use event::{AckFlags, Event, EventFlags, EventKind, MemberRole};
pub use frame::{ClientFrame, FrameHeader, ServerFrame, WireError};
pub use id::{ChannelId, DeviceId, MessageKey, SessionId, UserId};

/// Place of an event in its channel: gapless, starting at 1; 0 means "before the first event".
pub type Seq = u32;

/// How many people's messages a channel holds up to and including an event. Unread = head ordinal − read ordinal.
pub type Ordinal = u32;

/// A channel's number on one connection. Chosen by the client (top bit clear) or by the server (top bit set); never 0,
/// never reused on a connection.
pub type Alias = u32;
