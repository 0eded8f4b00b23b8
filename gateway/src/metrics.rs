//! Every metric of the gateway: `conch_gateway_*`, with unit and help.
//!
//! Labels come from closed sets (code names, HTTP routes and classes), never users or channels. `docs/operations.md`
//! lists the same names; a test compares the two.

use std::sync::LazyLock;

use conch_wire::Code;
use metrics::{
    Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::transport::Closing;

macro_rules! names {
    ($($(#[doc = $help:literal])* $name:ident = $text:literal, $describe:ident, $unit:expr;)*) => {
        $($(#[doc = $help])* pub const $name: &str = $text;)*

        /// Name and help of every metric.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($help,)*)),)*];

        /// Registers unit and help with the installed recorder.
        pub fn describe() {
            $($describe!($name, $unit, concat!($($help,)*).trim_ascii());)*
        }
    };
}

names! {
    /// Connections that are open, authenticated or not.
    CONNECTIONS = "conch_gateway_connections", describe_gauge, Unit::Count;
    /// Connections accepted.
    CONNECTIONS_TOTAL = "conch_gateway_connections_total", describe_counter, Unit::Count;
    /// Sessions: authenticated connections.
    SESSIONS = "conch_gateway_sessions", describe_gauge, Unit::Count;
    /// Connections that ended, by reason (a code's name, `done`, `breach`, `lost`).
    CLOSED_TOTAL = "conch_gateway_connections_closed_total", describe_counter, Unit::Count;
    /// HELLOs refused, by code.
    HELLO_REFUSED_TOTAL = "conch_gateway_hello_refused_total", describe_counter, Unit::Count;
    /// Frames received.
    FRAMES_RECEIVED_TOTAL = "conch_gateway_frames_received_total", describe_counter, Unit::Count;
    /// Bytes received on connections.
    RECEIVED_BYTES_TOTAL = "conch_gateway_received_bytes_total", describe_counter, Unit::Bytes;
    /// Bytes sent on connections.
    SENT_BYTES_TOTAL = "conch_gateway_sent_bytes_total", describe_counter, Unit::Bytes;
    /// Messages handed to owners.
    SENDS_TOTAL = "conch_gateway_sends_total", describe_counter, Unit::Count;
    /// Sends refused at once by the router, by code.
    SENDS_REFUSED_TOTAL = "conch_gateway_sends_refused_total", describe_counter, Unit::Count;
    /// Messages acknowledged to clients.
    ACKS_TOTAL = "conch_gateway_acks_total", describe_counter, Unit::Count;
    /// Events dropped because a client had no credit or did not read; each left a mark that leads to a head.
    COLLAPSED_TOTAL = "conch_gateway_events_collapsed_total", describe_counter, Unit::Count;
    /// Errors of accepting a connection (descriptors used up, most of all).
    ACCEPT_ERRORS_TOTAL = "conch_gateway_accept_errors_total", describe_counter, Unit::Count;
    /// Connections refused before they were one, by reason (`node_full`, `address_full`, `handshakes`, `rate`, `stopping`).
    REFUSED_TOTAL = "conch_gateway_connections_refused_total", describe_counter, Unit::Count;
    /// Connections on QUIC whose handshake is done.
    QUIC_CONNECTIONS = "conch_gateway_quic_connections", describe_gauge, Unit::Count;
    /// QUIC handshakes under way.
    QUIC_HANDSHAKES = "conch_gateway_quic_handshakes", describe_gauge, Unit::Count;
    /// Clients that were asked to show their address first.
    QUIC_RETRIES_TOTAL = "conch_gateway_quic_retries_total", describe_counter, Unit::Count;
    /// HTTP requests answered, by route and class of status.
    HTTP_REQUESTS_TOTAL = "conch_gateway_http_requests_total", describe_counter, Unit::Count;
    /// Time to answer an HTTP request.
    HTTP_SECONDS = "conch_gateway_http_request_duration_seconds", describe_histogram, Unit::Seconds;
    /// Password hashes waiting or running.
    HASHES_WAITING = "conch_gateway_password_hashes_waiting", describe_gauge, Unit::Count;
    /// Password hashes refused because the queue was full.
    HASHES_REFUSED_TOTAL = "conch_gateway_password_hashes_refused_total", describe_counter, Unit::Count;
}

/// What every frame and flush counts: looked up once, because looking up costs more than counting.
struct Hot {
    frames_received: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    sends: Counter,
    acks: Counter,
}

static HOT: LazyLock<Hot> = LazyLock::new(|| {
    // A counter belongs to the recorder that is there when it is looked up.
    crate::prometheus::installed();
    Hot {
        frames_received: counter!(FRAMES_RECEIVED_TOTAL),
        received_bytes: counter!(RECEIVED_BYTES_TOTAL),
        sent_bytes: counter!(SENT_BYTES_TOTAL),
        sends: counter!(SENDS_TOTAL),
        acks: counter!(ACKS_TOTAL),
    }
});

pub fn connection_opened() {
    counter!(CONNECTIONS_TOTAL).increment(1);
}

pub fn connection_closed(closing: &Closing) {
    let reason = match closing {
        Closing::Ours(ending) => ending.code.map_or("done", Code::name),
        Closing::Breach { .. } => "breach",
    };
    counter!(CLOSED_TOTAL, "reason" => reason).increment(1);
}

pub fn connection_lost() {
    counter!(CLOSED_TOTAL, "reason" => "lost").increment(1);
}

pub fn connections(open: usize) {
    gauge!(CONNECTIONS).set(open as f64);
}

pub fn hello_refused(code: Code) {
    counter!(HELLO_REFUSED_TOTAL, "code" => code.name()).increment(1);
}

pub fn frame_received() {
    HOT.frames_received.increment(1);
}

pub fn received(bytes: u64) {
    HOT.received_bytes.increment(bytes);
}

pub fn sent_bytes(bytes: u64) {
    HOT.sent_bytes.increment(bytes);
}

pub fn sent(messages: usize) {
    HOT.sends.increment(messages as u64);
}

pub fn send_refused(code: Code) {
    counter!(SENDS_REFUSED_TOTAL, "code" => code.name()).increment(1);
}

pub fn acked(messages: usize) {
    HOT.acks.increment(messages as u64);
}

pub fn collapsed(events: u64) {
    if events > 0 {
        counter!(COLLAPSED_TOTAL).increment(events);
    }
}

pub fn accept_error() {
    counter!(ACCEPT_ERRORS_TOTAL).increment(1);
}

/// Why a connection did not become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The node has as many as it may.
    NodeFull,
    /// The address has as many as it may.
    AddressFull,
    /// Too many handshakes are under way.
    Handshakes,
    /// The address begins too many in too short a time.
    Rate,
    Stopping,
}

pub fn connection_refused(refusal: Refusal) {
    let reason = match refusal {
        Refusal::NodeFull => "node_full",
        Refusal::AddressFull => "address_full",
        Refusal::Handshakes => "handshakes",
        Refusal::Rate => "rate",
        Refusal::Stopping => "stopping",
    };
    counter!(REFUSED_TOTAL, "reason" => reason).increment(1);
}

pub fn quic_handshake_began() {
    gauge!(QUIC_HANDSHAKES).increment(1.0);
}

pub fn quic_handshake_ended() {
    gauge!(QUIC_HANDSHAKES).decrement(1.0);
}

pub fn quic_retried() {
    counter!(QUIC_RETRIES_TOTAL).increment(1);
}

/// Counts a connection on QUIC for as long as it lives.
#[derive(Debug)]
pub struct LiveQuic(());

impl LiveQuic {
    pub fn new() -> LiveQuic {
        gauge!(QUIC_CONNECTIONS).increment(1.0);
        LiveQuic(())
    }
}

impl Default for LiveQuic {
    fn default() -> Self {
        LiveQuic::new()
    }
}

impl Drop for LiveQuic {
    fn drop(&mut self) {
        gauge!(QUIC_CONNECTIONS).decrement(1.0);
    }
}

/// `route` is a template of ours, never a path from outside.
pub fn http_answered(route: String, class: &'static str, seconds: f64) {
    counter!(HTTP_REQUESTS_TOTAL, "route" => route, "class" => class).increment(1);
    histogram!(HTTP_SECONDS).record(seconds);
}

pub fn hashes_waiting(hashes: usize) {
    gauge!(HASHES_WAITING).set(hashes as f64);
}

pub fn hash_refused() {
    counter!(HASHES_REFUSED_TOTAL).increment(1);
}

/// Counts a session for as long as it lives.
#[derive(Debug)]
pub struct LiveSession(());

impl LiveSession {
    pub fn new() -> LiveSession {
        gauge!(SESSIONS).increment(1.0);
        LiveSession(())
    }
}

impl Default for LiveSession {
    fn default() -> Self {
        LiveSession::new()
    }
}

impl Drop for LiveSession {
    fn drop(&mut self) {
        gauge!(SESSIONS).decrement(1.0);
    }
}
