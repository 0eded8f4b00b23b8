//! The closed set of frame types. Numbers are for ever; those of frames that are designed but not built are left free.
//!
//! Bit 7 belongs to the number and says "skip if unknown"; bit 6 is reserved for compressed bodies and refused today.
//! Clients send 0x01 ..= 0x1f, nodes send 0x21 ..= 0x3f. Used by both codecs, and by whoever fills
//! [`crate::frame::ErrorFrame::refused_type`] or names a frame in a log.

/// Bit of a type that a receiver may skip when it does not know it.
pub const SKIP_IF_UNKNOWN: u8 = 0x80;
/// Bit of a compressed body: reserved, refused.
pub const COMPRESSED: u8 = 0x40;

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub const $name: u8 = $number;)*

        /// The name of a type, for logs and documents.
        pub fn name(frame_type: u8) -> Option<&'static str> {
            match frame_type { $($number => Some(stringify!($name)),)* _ => None }
        }

        /// Every type that this version knows.
        pub const ALL: &[u8] = &[$($name,)*];
    };
}

types! {
    /// Client: `Hello` table; first frame of a connection.
    HELLO = 0x01;
    /// Client: `AuthRefresh` table; ref = request.
    AUTH_REFRESH = 0x02;
    /// Client: `SendHdr`, tail; ref = request.
    SEND = 0x03;
    /// Client: 1–64 × (u32 item length, `SendHdr`, tail); ref = request.
    SEND_MANY = 0x04;
    /// Client: `ReadMark`; ref = request, or 0.
    READ = 0x09;
    /// Client: `OpenCursor`; ref = request.
    OPEN_CHANNEL = 0x0c;
    /// Client: empty; ref = alias.
    CLOSE_CHANNEL = 0x0d;
    /// Client: `HistoryRange`; ref = request.
    HISTORY = 0x0e;
    /// Client: `Sync` table; ref = request.
    SYNC = 0x0f;
    /// Client: u32 bytes granted; ref = 0.
    CREDIT = 0x11;
    /// Client: empty; ref = nonce.
    PING = 0x12;
    /// Client: empty; ref = 0.
    GOODBYE = 0x13;

    /// Node: `Welcome` table; ref = 0.
    WELCOME = 0x21;
    /// Node: `EventHdr`, tail; ref = alias. Kinds 1–15.
    DELIVER = 0x22;
    /// Node: `EventHdr`, tail; ref = alias. Kinds 16 and up.
    EVENT = 0x23;
    /// Node: 1–64 × `SendAck`; ref = request.
    SEND_ACK = 0x24;
    /// Node: `ChannelHead`; ref = 0.
    CHANNEL_HEAD = 0x25;
    /// Node: empty; ref = 0.
    SYNC_NOW = 0x26;
    /// Node: `ChannelOpened` table; ref = request, or 0 when not asked for.
    CHANNEL_OPENED = 0x27;
    /// Node: `SyncChanges` table; ref = request, or 0 when not asked for.
    SYNC_CHANGES = 0x28;
    /// Node: `HistoryHdr`, authors, items; ref = request.
    HISTORY_PAGE = 0x29;
    /// Node: `Error` table; ref = request, or 0 for the connection.
    ERROR = 0x2d;
    /// Node: u32 bytes granted; ref = 0.
    SERVER_CREDIT = 0x2e;
    /// Node: U64 inbox position; ref = nonce.
    PONG = 0x2f;
    /// Node: `Goaway` table; ref = 0.
    GOAWAY = 0x31;
    /// Node: `AuthExpiring` table; ref = 0.
    AUTH_EXPIRING = 0x32;
    /// Node: `AuthRefreshed` table; ref = request.
    AUTH_REFRESHED = 0x33;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_unique_and_keep_their_flag_bits_clear() {
        for (i, frame_type) in ALL.iter().enumerate() {
            assert!(!ALL[..i].contains(frame_type));
            assert_eq!(frame_type & (SKIP_IF_UNKNOWN | COMPRESSED), 0);
            assert!(name(*frame_type).is_some());
        }
        assert_eq!(name(0), None);
    }
}
