//! What the checker takes, by its own account.
//!
//! A settled message takes 16 bytes at its place and 5.7 to 11.4 in the index (of a channel with more than 32,768 messages about
//! 8): 25 bytes, as the process sees it too. One under way, refused, without an answer, or sent by two devices takes 65 to
//! 130 more. What one device was shown of one channel takes 38 to 75 bytes as long as it has no gap, then 8 for each gap and
//! never more than some bits per seq. The verdict takes 16 MiB more while it compares keys.

use std::fmt;

/// Counts, and bytes on the heap as they are allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    pub channels: u64,
    /// Channels of devices that were shown something there.
    pub pairs: u64,
    /// Messages that are not settled.
    pub unsettled: u64,
    /// What lies at each seq.
    pub place_bytes: u64,
    /// Where settled messages lie.
    pub index_bytes: u64,
    pub unsettled_bytes: u64,
    /// What devices were shown, and the order in which they sent.
    pub pair_bytes: u64,
    /// Channels and their members.
    pub channel_bytes: u64,
    /// Devices and read marks.
    pub device_bytes: u64,
}

impl Memory {
    /// What grows with the number of messages.
    pub fn messages(&self) -> u64 {
        self.place_bytes + self.index_bytes + self.unsettled_bytes
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.messages() + self.pair_bytes + self.channel_bytes + self.device_bytes
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB: {} for places, {} index, {} for {} unsettled messages, {} for {} channels of devices, {} for {} channels, {} for devices",
            self.total() >> 10,
            self.place_bytes >> 10,
            self.index_bytes >> 10,
            self.unsettled_bytes >> 10,
            self.unsettled,
            self.pair_bytes >> 10,
            self.pairs,
            self.channel_bytes >> 10,
            self.channels,
            self.device_bytes >> 10,
        )
    }
}
