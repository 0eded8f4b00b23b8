//! The ways in which the promise can be broken, one variant each, with what is needed to look for the cause.

use conch_wire::{ChannelId, DeviceId, Seq, UserId};
use thiserror::Error;

/// One broken promise. The letter in front is the invariant of the checker's module documentation.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Violation {
    #[error("I1 lost: channel {channel} seq {seq} was acknowledged and is not in history")]
    Lost { channel: ChannelId, seq: Seq },
    #[error("I1 duplicate: one message of channel {channel} at seq {first} and seq {second}")]
    Duplicate {
        channel: ChannelId,
        first: Seq,
        second: Seq,
    },
    #[error("I1 two acks of one message in channel {channel}: seq {first}, then seq {second}")]
    AckMoved {
        channel: ChannelId,
        first: Seq,
        second: Seq,
    },
    #[error("I1 channel {channel} seq {seq} was acknowledged, and then refused for good")]
    AckTakenBack { channel: ChannelId, seq: Seq },
    #[error(
        "I1 one key stands for two stored messages in channel {channel}: seq {first} and seq {second}"
    )]
    KeyTwice {
        channel: ChannelId,
        first: Seq,
        second: Seq,
    },
    #[error("I2 seq {seq} of channel {channel} was seen with two different contents")]
    SeqTwice { channel: ChannelId, seq: Seq },
    #[error(
        "I2 gap: {reader} read channel {channel} and found seq {found} where {expected} belongs"
    )]
    Gap {
        reader: UserId,
        channel: ChannelId,
        expected: Seq,
        found: Seq,
    },
    #[error("I2 seq {seq} of channel {channel} is between seqs that exist and nobody ever saw it")]
    Hole { channel: ChannelId, seq: Seq },
    #[error(
        "I2 overtaken: device {device} sent the message at seq {first} of channel {channel} before the one at seq {second}"
    )]
    Overtaken {
        channel: ChannelId,
        device: DeviceId,
        first: Seq,
        second: Seq,
    },
    #[error("I2 seq 0 was given in channel {channel}")]
    SeqZero { channel: ChannelId },
    #[error("I3 forged: channel {channel} seq {seq} holds a message that nobody sent")]
    Forged { channel: ChannelId, seq: Seq },
    #[error("I3 acknowledged in channel {channel} at seq {seq} without being sent")]
    AckOfNothing { channel: ChannelId, seq: Seq },
    #[error("I3 refused for certain, and yet in channel {channel} at seq {seq}")]
    RefusedButPresent { channel: ChannelId, seq: Seq },
    #[error(
        "I3 refused for good in channel {channel}, of which its sender {user} was a member all along"
    )]
    GivenUp { channel: ChannelId, user: UserId },
    #[error("I3 {user} has the channel {channel}, which nobody made")]
    ChannelOfNobody { channel: ChannelId, user: UserId },
    #[error("I3 seq {seq} of channel {channel} brings {user} in or out, who was so already")]
    ChangeOfNothing {
        channel: ChannelId,
        user: UserId,
        seq: Seq,
    },
    #[error(
        "I1 channel {channel} has {found} changes of the membership of {user}, other than the {confirmed} that were confirmed"
    )]
    ChangesDiffer {
        channel: ChannelId,
        user: UserId,
        confirmed: usize,
        found: usize,
    },
    #[error("I4 device {device} was never shown channel {channel} seq {seq}")]
    NotShown {
        device: DeviceId,
        channel: ChannelId,
        seq: Seq,
    },
    #[error("I4 device {device} was shown channel {channel} seq {seq} twice")]
    ShownTwice {
        device: DeviceId,
        channel: ChannelId,
        seq: Seq,
    },
    #[error(
        "I4 device {device} was shown channel {channel} seq {seq}, which is not its user's to see"
    )]
    ShownToOutsider {
        device: DeviceId,
        channel: ChannelId,
        seq: Seq,
    },
    #[error("I5 device {device}: read mark of channel {channel} went back from {from} to {to}")]
    ReadMarkBack {
        device: DeviceId,
        channel: ChannelId,
        from: Seq,
        to: Seq,
    },
    #[error(
        "I5 user {user}: read mark of channel {channel} was confirmed at {confirmed} and is {found}"
    )]
    ReadLost {
        user: UserId,
        channel: ChannelId,
        confirmed: Seq,
        found: Seq,
    },
    #[error("I5 device {device}: inbox position went back from {from} to {to}")]
    InboxPositionBack {
        device: DeviceId,
        from: u64,
        to: u64,
    },
    #[error("the run reports a device that was never registered: {device} in channel {channel}")]
    UnknownDevice {
        device: DeviceId,
        channel: ChannelId,
    },
    #[error("history of channel {channel} was never read in full")]
    NotRead { channel: ChannelId },
    #[error("the run compared nothing: no acknowledgement or no full history")]
    NothingCompared,
}
