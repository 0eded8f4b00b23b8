//! A message that is not settled: under way, refused, without an answer, or sent by two devices.
//!
//! What is acknowledged and seen at one seq, and was attempted by one device only, is settled: all that can still be asked of
//! it is where it lies and under which key, and this record is given up for that.

use conch_wire::{DeviceId, Seq, UserId};

use super::fingerprint::KeyPrint;

#[derive(Debug)]
pub(super) struct MessageRecord {
    pub(super) sender: UserId,
    pub(super) key: KeyPrint,
    /// The device that attempted it first, and the how-manieth message of this device in this channel it then was.
    pub(super) device: DeviceId,
    pub(super) nth: u32,
    /// Another device attempted it too: then it lies where the quicker one brought it, and says nothing of the order.
    pub(super) shared: bool,
    /// The sender was told that it will never be there.
    pub(super) given_up: bool,
    /// Attempts without an answer: each may still have brought the message in.
    pub(super) open: u32,
    /// Seq of the first ack; 0: none.
    pub(super) acked: Seq,
    /// Where it was seen first; 0: nowhere.
    pub(super) seen: Seq,
}

impl MessageRecord {
    /// Whether all that matters of it is where it lies.
    pub(super) fn is_settled(&self) -> bool {
        self.acked != 0 && self.acked == self.seen && !self.shared && !self.given_up
    }
}
