//! The suite's own words: a trivial body format with its fold, and a writer of well-formed records.
//!
//! Bodies are opaque to a store, so the suite does not use the wire's. A body is 20 bytes of header (kept by an erasure),
//! then for kinds under 16 the message's text, for [`KIND_CHANGE`] a list of operations, for other kinds nothing that
//! this fold knows. [`Script`] keeps each channel's head and the clock, so that a check reads as what happened:
//! `script.create(..)`, `script.message(..)`, `script.leave(..)`.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use conch_wire::event::{ChannelKind, MemberRole};
use conch_wire::{ChannelId, DeviceId, MessageKey, Ordinal, Seq, UserId};

use crate::row::{EventRow, Record, content_hash};
use crate::{EventEffect, Fold, MemberChange};

/// Kind of the script's messages.
pub const KIND_MESSAGE: u8 = 1;
/// Kind of events whose body is a list of operations.
pub const KIND_CHANGE: u8 = 16;
/// A kind from a newer node, unknown to the fold.
pub const KIND_UNKNOWN: u8 = 200;

const HEADER_BYTES: usize = 20;
const OP_CREATED: u8 = 1;
const OP_TITLE: u8 = 2;
const OP_JOIN: u8 = 3;
const OP_LEAVE: u8 = 4;

/// Reads the script's bodies.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScriptFold;

impl Fold for ScriptFold {
    fn effect(&self, event: &EventRow) -> EventEffect {
        let mut effect = EventEffect {
            is_message: event.kind < KIND_CHANGE,
            ..EventEffect::default()
        };
        if event.kind == KIND_CHANGE && event.body.len() > HEADER_BYTES {
            let mut ops = event.body.slice(HEADER_BYTES..);
            while ops.has_remaining() {
                read_op(&mut ops, &mut effect);
            }
        }
        effect
    }
}

fn read_op(ops: &mut Bytes, effect: &mut EventEffect) {
    match ops.get_u8() {
        OP_CREATED => effect.created = ChannelKind::from_u8(ops.get_u8()),
        OP_TITLE => {
            let len = usize::from(ops.get_u16());
            let title = ops.split_to(len);
            effect.title =
                Some(String::from_utf8(title.to_vec()).expect("the script writes UTF-8"));
        }
        OP_JOIN => {
            let user = UserId(ops.get_u64());
            let role = MemberRole::from_u8(ops.get_u8()).expect("the script writes known roles");
            effect.members.push(MemberChange::Join { user, role });
        }
        OP_LEAVE => effect.members.push(MemberChange::Leave {
            user: UserId(ops.get_u64()),
        }),
        op => unreachable!("the script writes no operation {op}"),
    }
}

/// Operations of one event that changes its channel.
#[derive(Clone, Debug, Default)]
pub struct Change {
    ops: BytesMut,
}

impl Change {
    /// Nothing yet.
    pub fn new() -> Change {
        Change::default()
    }

    /// The channel begins.
    pub fn created(mut self, kind: ChannelKind) -> Change {
        self.ops.put_u8(OP_CREATED);
        self.ops.put_u8(kind as u8);
        self
    }

    /// The title from here on.
    pub fn title(mut self, title: &str) -> Change {
        self.ops.put_u8(OP_TITLE);
        self.ops.put_u16(title.len() as u16);
        self.ops.put_slice(title.as_bytes());
        self
    }

    /// In from here on, as `role`.
    pub fn join_as(mut self, user: u64, role: MemberRole) -> Change {
        self.ops.put_u8(OP_JOIN);
        self.ops.put_u64(user);
        self.ops.put_u8(role as u8);
        self
    }

    /// In from here on.
    pub fn join(self, user: u64) -> Change {
        self.join_as(user, MemberRole::Member)
    }

    /// Out.
    pub fn leave(mut self, user: u64) -> Change {
        self.ops.put_u8(OP_LEAVE);
        self.ops.put_u64(user);
        self
    }
}

/// Writes records with the right seqs, ordinals and times.
#[derive(Clone, Debug)]
pub struct Script {
    ordinals: BTreeMap<ChannelId, Vec<Ordinal>>,
    /// Time of the next event, ms since 1970; every event moves it one on.
    pub clock_ms: u64,
    /// Epoch of the next event.
    pub epoch: u32,
}

impl Default for Script {
    fn default() -> Script {
        Script::new()
    }
}

/// The key with this number.
pub fn key(number: u64) -> MessageKey {
    let mut bytes = [0xA5; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    MessageKey(bytes)
}

impl Script {
    /// At the beginning of everything, some day in 2026.
    pub fn new() -> Script {
        Script {
            ordinals: BTreeMap::new(),
            clock_ms: 1_790_000_000_000,
            epoch: 1,
        }
    }

    /// Forgets what was written after these records: a crash took it.
    pub fn continue_after(&mut self, records: &[Record]) {
        self.ordinals.clear();
        for record in records {
            if let Record::Event(event) = record {
                self.ordinals
                    .entry(event.channel)
                    .or_default()
                    .push(event.ordinal);
            }
        }
    }

    /// Newest seq of a channel; 0 before its first event.
    pub fn head(&self, channel: u64) -> Seq {
        self.ordinals
            .get(&ChannelId(channel))
            .map_or(0, |events| events.len() as Seq)
    }

    /// Ordinal at a seq of a channel.
    pub fn ordinal(&self, channel: u64, seq: Seq) -> Ordinal {
        let events = self.ordinals.get(&ChannelId(channel));
        let index = (seq as usize).checked_sub(1);
        events
            .zip(index)
            .and_then(|(events, index)| events.get(index))
            .copied()
            .unwrap_or(0)
    }

    /// The next event of a channel, whatever it is.
    pub fn event(
        &mut self,
        channel: u64,
        kind: u8,
        sender: u64,
        key: MessageKey,
        tail: &[u8],
    ) -> Record {
        let channel = ChannelId(channel);
        let events = self.ordinals.entry(channel).or_default();
        let seq = events.len() as Seq + 1;
        let ordinal = events.last().copied().unwrap_or(0) + u32::from(kind < KIND_CHANGE);
        events.push(ordinal);

        let mut body = BytesMut::with_capacity(HEADER_BYTES + tail.len());
        body.put_u64_le(sender);
        body.put_u32_le(seq);
        body.put_uint_le(self.clock_ms, 6);
        body.put_u8(kind);
        body.put_u8(0);
        body.put_slice(tail);
        let row = EventRow {
            channel,
            seq,
            epoch: self.epoch,
            ordinal,
            kind,
            sender: UserId(sender),
            device: DeviceId(sender * 10),
            key,
            created_ms: self.clock_ms,
            content_hash: content_hash(kind, 0, tail),
            body: body.freeze(),
        };
        self.clock_ms += 1;
        Record::Event(row)
    }

    /// A person's message under a key.
    pub fn message(&mut self, channel: u64, sender: u64, key_number: u64, text: &str) -> Record {
        self.event(
            channel,
            KIND_MESSAGE,
            sender,
            key(key_number),
            text.as_bytes(),
        )
    }

    /// An event that changes the channel.
    pub fn change(&mut self, channel: u64, by: u64, change: Change) -> Record {
        self.event(channel, KIND_CHANGE, by, MessageKey::default(), &change.ops)
    }

    /// An event of a kind that the fold does not know.
    pub fn unknown(&mut self, channel: u64, by: u64) -> Record {
        self.event(
            channel,
            KIND_UNKNOWN,
            by,
            MessageKey::default(),
            b"from the future",
        )
    }

    /// The first event of a group, by its first member, who owns it.
    pub fn group(&mut self, channel: u64, title: &str, members: &[u64]) -> Record {
        let mut change = Change::new().created(ChannelKind::Group).title(title);
        for (place, member) in members.iter().enumerate() {
            let role = if place == 0 {
                MemberRole::Owner
            } else {
                MemberRole::Member
            };
            change = change.join_as(*member, role);
        }
        self.change(channel, members.first().copied().unwrap_or(0), change)
    }

    /// The first event of a direct channel.
    pub fn direct(&mut self, channel: u64, one: u64, other: u64) -> Record {
        let change = Change::new()
            .created(ChannelKind::Direct)
            .join(one)
            .join(other);
        self.change(channel, one, change)
    }

    /// Somebody is added.
    pub fn join(&mut self, channel: u64, by: u64, user: u64) -> Record {
        self.change(channel, by, Change::new().join(user))
    }

    /// Somebody goes.
    pub fn leave(&mut self, channel: u64, user: u64) -> Record {
        self.change(channel, user, Change::new().leave(user))
    }

    /// A reader's mark at a seq.
    pub fn mark(&self, channel: u64, user: u64, seq: Seq) -> Record {
        Record::ReadMark {
            channel: ChannelId(channel),
            user: UserId(user),
            seq,
            ordinal: self.ordinal(channel, seq),
        }
    }

    /// The direct channel of two people, low id first.
    pub fn pair(&self, one: u64, other: u64, channel: u64) -> Record {
        Record::Pair {
            low: UserId(one.min(other)),
            high: UserId(one.max(other)),
            channel: ChannelId(channel),
        }
    }

    /// An erased event.
    pub fn erasure(&self, channel: u64, seq: Seq) -> Record {
        Record::Erasure {
            channel: ChannelId(channel),
            seq,
        }
    }
}
