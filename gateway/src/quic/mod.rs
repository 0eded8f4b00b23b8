//! The QUIC port of a node: from a UDP packet to a session, on quinn-proto.
//!
//! [`endpoint`] is the handle of the port, `port` what all its connections share: `receive` reads the `socket` and puts what
//! comes into each connection's `inbox`; a first packet is a [`knock`], and [`listener`] decides who may begin a `handshake`,
//! [`unshown`] how much goes to an address that is only claimed. [`connection`] is one connection, run by the one task that
//! owns it, `sending` its way out, and `draining` what goes on when nobody owns it any more. With its handshake done it
//! becomes a [`crate::transport::quic::Quic`] under an ordinary session.
//!
//! Here is what every connection is tuned to.

pub mod connection;
mod draining;
pub mod endpoint;
mod handshake;
mod inbox;
pub mod knock;
pub mod listener;
mod port;
mod receive;
mod sending;
mod socket;
pub mod unshown;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{TransportConfig, VarInt};

/// What a client may have sent and the node not read, over all its streams, once it is authenticated.
pub const RECEIVE_WINDOW_BYTES: u32 = 262_144;
/// The same before: HELLO and some of what is pipelined behind it.
const EARLY_RECEIVE_WINDOW_BYTES: u32 = 65_536;
/// The same for one stream.
const STREAM_WINDOW_BYTES: u32 = 131_072;
/// What the node holds of what it sent until the client has it. With one page, what the session has gathered and what
/// request streams hold, a client that does not read stays within 256 KiB.
pub const SEND_WINDOW_BYTES: u64 = 131_072;
/// The control stream and 15 requests.
const STREAMS_MAX: u32 = 16;
/// Datagrams that wait in one direction.
const DATAGRAM_BUFFER_BYTES: usize = 4_096;
/// QUIC's own idle timeout; the protocol's heartbeat is shorter.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Where a node speaks QUIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuicFacts {
    pub address: SocketAddr,
    /// Only of a certificate made for development: what clients trust instead of its chain. SHA-256 of the DER in hex.
    pub certificate_sha256: Option<String>,
}

/// What every connection is tuned to.
pub(crate) fn transport_config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(EARLY_RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        // Datagrams stay at the 1,200 bytes that every path takes: quinn-proto probes for more at addresses that are only claimed, too,
        // beyond every measure, and few frames of a chat are larger.
        .mtu_discovery_config(None)
        .max_idle_timeout(Some(IDLE_MAX.try_into().expect("60 s fit")));
    Arc::new(config)
}

#[cfg(test)]
pub(crate) mod pair;
#[cfg(test)]
mod tests;
