//! The protocol's limits, announced in WELCOME. Units last; each says where it comes from.

/// Longest text of a message, in Unicode scalar values.
pub const TEXT_CHARS_MAX: usize = 100_000;
/// Longest text of a message, in UTF-8 bytes: every scalar value may take four.
pub const TEXT_BYTES_MAX: usize = 4 * TEXT_CHARS_MAX;
/// Largest payload that is not text, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 102_400;
/// Longest frame, header included, in bytes.
pub const FRAME_BYTES_MAX: usize = 524_288;
/// Longest HELLO, header included: nothing larger is read before authentication.
pub const HELLO_BYTES_MAX: usize = 16_384;
/// A body above this is never pushed: the DELIVER says BODY_OMITTED and the client pulls it by HISTORY.
pub const PUSHED_BODY_BYTES_MAX: usize = 16_384;
/// Most messages in one SEND_MANY.
pub const SEND_MANY_ITEMS_MAX: usize = 64;
/// Largest SEND_MANY body, in bytes.
pub const SEND_MANY_BYTES_MAX: usize = 65_536;
/// Most sends without an answer on one connection.
pub const SENDS_IN_FLIGHT_MAX: usize = 64;
/// Most cursors in HELLO; more channels are opened by OPEN_CHANNEL.
pub const HELLO_CURSORS_MAX: usize = 256;
/// Most pending sends asked about in HELLO.
pub const HELLO_PENDING_MAX: usize = 64;
/// Longest access token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8_192;
/// Longest sync token, in bytes.
pub const SYNC_TOKEN_BYTES_MAX: usize = 256;
/// Longest name of a client program, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;
/// Largest table behind the text of a message, in bytes.
pub const TABLE_BYTES_MAX: usize = 4_096;
/// Most other endpoints that one GOAWAY names.
pub const GOAWAY_ENDPOINTS_MAX: usize = 16;
/// Most history or sync requests without an answer on one connection.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 8;
/// Most events in one HISTORY_PAGE.
pub const HISTORY_ITEMS_MAX: usize = 200;
/// Largest HISTORY_PAGE in bytes of bodies, unless a single event is larger: a page holds at least one.
pub const HISTORY_BYTES_MAX: usize = 65_536;
/// Most rows in one SYNC_CHANGES.
pub const SYNC_ROWS_MAX: usize = 500;
/// A gap of an opened channel up to this many events is streamed; a longer one becomes a CHANNEL_HEAD.
pub const GAP_STREAMED_MAX: u32 = 200;
/// Byte credit of a fresh connection, server → client.
pub const CREDIT_BYTES: u32 = 262_144;
/// When more channel heads than this would wait for a slow client, one SYNC_NOW takes their place.
pub const HEADS_WAITING_MAX: usize = 1_000;
/// Application PING in the foreground, in milliseconds.
pub const HEARTBEAT_MS: u32 = 25_000;
/// Either side gives a connection up after this long without a byte, in milliseconds.
pub const SILENCE_MAX_MS: u32 = 45_000;
/// HELLO must be complete this soon after the connection opened, in milliseconds.
pub const HELLO_DEADLINE_MS: u32 = 5_000;
/// WELCOME waits at most this long for owners to answer about pending sends, in milliseconds.
pub const PENDING_WAIT_MS: u32 = 500;
/// Members of a group unless configured otherwise.
pub const GROUP_MEMBERS_DEFAULT: usize = 500;
/// Most members a group may be configured to.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Longest title of a group, in Unicode scalar values.
pub const TITLE_CHARS_MAX: usize = 100;
/// The seq after which a channel is full.
pub const SEQ_MAX: u32 = u32::MAX - 1;

const _: () = assert!(TEXT_BYTES_MAX + TABLE_BYTES_MAX + 64 < FRAME_BYTES_MAX);
// A HELLO full of cursors and pending sends leaves room for its token.
const _: () = assert!(
    20 * HELLO_CURSORS_MAX + 24 * HELLO_PENDING_MAX + TOKEN_BYTES_MAX + 1_024 < HELLO_BYTES_MAX
);
const _: () = assert!(SEND_MANY_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < 1 << 24);
