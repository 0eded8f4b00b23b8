//! When a message was meant to leave, written into its text so that every reader can tell how long it took.
//!
//! The generator's clock is that of one process: writer and readers of a message are in the same one. A text opens with 16
//! hexadecimal digits of nanoseconds and 16 that make it unlike every other (the checker knows messages by their content).

use std::fmt::Write;

use bytes::Bytes;

/// Nanoseconds on the clock of the process that wrote it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp(pub u64);

/// Bytes of a text that a stamp and its number take.
pub const STAMPED_BYTES_MIN: usize = 32;

impl Stamp {
    /// A text of `bytes` (at least [`STAMPED_BYTES_MIN`]) that no other number gives.
    pub fn write(self, number: u64, bytes: usize) -> Bytes {
        let mut text = String::with_capacity(bytes.max(STAMPED_BYTES_MIN));
        let _ = write!(text, "{:016x}{number:016x}", self.0);
        while text.len() < bytes {
            text.push('x');
        }
        Bytes::from(text)
    }

    /// The stamp of a text that has one.
    pub fn read(text: &[u8]) -> Option<Stamp> {
        let digits = text.get(..STAMPED_BYTES_MIN)?;
        let mut value = 0;
        for (index, digit) in digits.iter().enumerate() {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            if index < 16 {
                value = value << 4 | u64::from(nibble);
            }
        }
        Some(Stamp(value))
    }
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    #[test]
    fn a_stamp_is_read_back_from_texts_of_any_length() {
        for bytes in [0, 32, 33, 100] {
            let text = Stamp(1_234_567_890_123).write(7, bytes);
            assert_eq!(text.len(), bytes.max(32));
            assert_eq!(Stamp::read(&text), Some(Stamp(1_234_567_890_123)));
            assert_ne!(text, Stamp(1_234_567_890_123).write(8, bytes));
        }
        assert_eq!(Stamp::read(b"the tide is high and the boats are in"), None);
        assert_eq!(Stamp::read(b"0123"), None);
    }
}
