//! Payloads that tell, wherever they come out, which message they are and when it was meant to go: so that lost, repeated,
//! swapped and damaged deliveries are seen without a table of all messages.
//!
//! ```text
//! 0..5   channel     7 bits per byte, so that every payload is ASCII and passes for text
//! 5..14  number      from 0, per channel
//! 14..24 intended    nanoseconds since the run's origin
//! 24..   filler      a stretch of a fixed pattern that begins at `number` mod 64
//! ```

/// Bytes before the filler: the shortest payload.
pub const STAMP_BYTES: usize = 24;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 4_096;

const PHASES: usize = 64;

/// Filler for every phase: printable, and not periodic within a payload's reach of a phase.
static PATTERN: [u8; PAYLOAD_BYTES_MAX + PHASES] = pattern();

const fn pattern() -> [u8; PAYLOAD_BYTES_MAX + PHASES] {
    let mut bytes = [0; PAYLOAD_BYTES_MAX + PHASES];
    let mut state: u32 = 0x2545_f491;
    let mut at = 0;
    while at < bytes.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes[at] = b'a' + ((state >> 24) % 26) as u8;
        at += 1;
    }
    bytes
}

/// What a payload says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub channel: u32,
    pub number: u64,
    /// Nanoseconds since the run's origin.
    pub intended_ns: u64,
}

impl Stamp {
    /// Fills a payload of at least [`STAMP_BYTES`] and at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub fn write(self, payload: &mut [u8]) {
        let (stamp, filler) = payload.split_at_mut(STAMP_BYTES);
        put(&mut stamp[..5], self.channel.into());
        put(&mut stamp[5..14], self.number);
        put(&mut stamp[14..], self.intended_ns);
        let phase = self.number as usize % PHASES;
        filler.copy_from_slice(&PATTERN[phase..phase + filler.len()]);
    }

    /// Reads a payload; `None` when it is not whole.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let (stamp, filler) = payload.split_at_checked(STAMP_BYTES)?;
        let number = take(&stamp[5..14]);
        let phase = number as usize % PHASES;
        let expected = PATTERN.get(phase..phase + filler.len())?;
        (filler == expected).then(|| Stamp {
            channel: take(&stamp[..5]) as u32,
            number,
            intended_ns: take(&stamp[14..]),
        })
    }
}

fn put(bytes: &mut [u8], mut value: u64) {
    for byte in bytes {
        *byte = value as u8 & 0x7f;
        value >>= 7;
    }
}

fn take(bytes: &[u8]) -> u64 {
    let last_first = bytes.iter().rev();
    last_first.fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            channel: u32::MAX,
            number: (1 << 50) + 77,
            intended_ns: 86_400_000_000_000,
        }
    }

    #[test]
    fn a_payload_says_what_was_written_and_is_text() {
        for bytes in [STAMP_BYTES, 100, PAYLOAD_BYTES_MAX] {
            let mut payload = vec![0; bytes];
            stamp().write(&mut payload);
            assert!(payload.is_ascii());
            assert_eq!(Stamp::read(&payload), Some(stamp()));
        }
    }

    #[test]
    fn damage_is_seen() {
        let mut payload = vec![0; 100];
        stamp().write(&mut payload);
        for at in STAMP_BYTES..100 {
            let mut damaged = payload.clone();
            damaged[at] ^= 1;
            assert_eq!(Stamp::read(&damaged), None, "byte {at}");
        }
        assert_eq!(Stamp::read(&payload[..STAMP_BYTES - 1]), None);
        assert_eq!(Stamp::read(&vec![b'a'; PAYLOAD_BYTES_MAX + 200]), None);
    }
}
