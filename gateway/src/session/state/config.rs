//! What every session of a node shares, and the limits that follow from it.

use conch_wire::frame::Limits;
use conch_wire::limits;

use crate::bucket::Rate;
use crate::session::sync_token::InboxIdentity;

/// What every session of a node shares.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    pub node: String,
    pub inbox: InboxIdentity,
    pub group_members_max: usize,
    /// Messages of a user, on all connections here.
    pub sends: Rate,
    /// Frames of a connection, by cost.
    pub frames: Rate,
}

impl SessionConfig {
    /// The limits as WELCOME and `/v1/node` announce them.
    pub fn limits(&self) -> Limits {
        Limits {
            text_chars_max: limits::TEXT_CHARS_MAX as u32,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            pushed_body_bytes_max: limits::PUSHED_BODY_BYTES_MAX as u32,
            send_many_items_max: limits::SEND_MANY_ITEMS_MAX as u32,
            send_many_bytes_max: limits::SEND_MANY_BYTES_MAX as u32,
            sends_in_flight_max: limits::SENDS_IN_FLIGHT_MAX as u32,
            requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX as u32,
            history_items_max: limits::HISTORY_ITEMS_MAX as u32,
            history_bytes_max: limits::HISTORY_BYTES_MAX as u32,
            sync_rows_max: limits::SYNC_ROWS_MAX as u32,
            group_members_max: self.group_members_max as u32,
            heartbeat_ms: limits::HEARTBEAT_MS,
            silence_max_ms: limits::SILENCE_MAX_MS,
        }
    }
}
