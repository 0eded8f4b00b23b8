//! Statuses of close frames (RFC 6455, section 7.4).

use crate::CONTROL_BYTES_MAX;

/// Whether a close frame may carry this status: the RFC's own but for the ones that only stand for "there was none",
/// and those of libraries and applications.
pub fn may_be_sent(status: u16) -> bool {
    matches!(status, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a close frame: the status, and as much of the reason as fits, cut between characters.
pub fn close_payload(status: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&status.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}

#[cfg(test)]
mod tests {
    use super::close_payload;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let payload = close_payload(4400, &"é".repeat(100));
        assert_eq!(payload[..2], 4400u16.to_be_bytes());
        assert_eq!(payload.len(), 2 + 122);
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
    }
}
