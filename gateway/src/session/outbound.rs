//! What goes out on one connection: gathered frames, byte credit and the collapse.
//!
//! Pure. The session writes every frame through here; the driver takes chunks of whole frames from it and reports when
//! they are with the socket. Pushed events (DELIVER, EVENT) are charged to the credit that the client granted; everything
//! else is exempt, because it is bounded by what the client asked for. One event may take the credit below zero; from then
//! on events **collapse**: they are dropped and their channel is marked. When there is credit again each marked channel
//! gets one CHANNEL_HEAD, asked for at that time and so never older than what was dropped; more than
//! [`HEADS_WAITING_MAX`] marks become one SYNC_NOW.
//!
//! Invariants: an event that was dropped leaves a mark, or SYNC_NOW due, behind it; a mark goes away only by being handed
//! out by [`Outbound::next_mark`] (who takes it sends a head or marks again) or by becoming SYNC_NOW; while the client
//! has all bytes and grants what it used, the credit becomes positive again, so marks never wait for ever.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use conch_wire::frame::{EventBytes, HEADER_BYTES, ServerFrame, put_event};
use conch_wire::limits::{CREDIT_BYTES, HEADS_WAITING_MAX};
use conch_wire::{Alias, ChannelId};

use super::marks::Marks;

/// A chunk is closed at the first frame boundary behind this many bytes, so that one write never waits for a huge one.
const CHUNK_BYTES: usize = 16_384;

/// Above this many unsent bytes nothing more is started for the connection: no input read, no mailbox drained, no page.
pub const UNSENT_HIGH_BYTES: usize = 32_768;

/// See the module.
#[derive(Debug)]
pub struct Outbound {
    gathering: BytesMut,
    chunks: VecDeque<Bytes>,
    /// Bytes in `gathering`, `chunks` and the transport.
    unsent_bytes: usize,
    credit_bytes: i64,
    /// Wait for credit.
    collapsed: Marks,
    /// Owed whatever the credit: channels that are not open, in push mode Opened.
    owed: Marks,
    sync_now: bool,
    /// Events dropped so far, for metrics.
    dropped: u64,
}

impl Outbound {
    /// `credit_bytes` as granted in HELLO: 0 means the default, more than the default is capped to it.
    pub fn new(credit_bytes: u32) -> Outbound {
        let credit = if credit_bytes == 0 {
            CREDIT_BYTES
        } else {
            credit_bytes.min(CREDIT_BYTES)
        };
        Outbound {
            gathering: BytesMut::new(),
            chunks: VecDeque::new(),
            unsent_bytes: 0,
            credit_bytes: i64::from(credit),
            collapsed: Marks::default(),
            owed: Marks::default(),
            sync_now: false,
            dropped: 0,
        }
    }

    /// Credit as HELLO granted it, on an outbound that has only exempt frames so far.
    pub fn set_credit(&mut self, credit_bytes: u32) {
        self.credit_bytes = Outbound::new(credit_bytes).credit_bytes;
    }

    /// Writes a frame that is exempt from credit.
    pub fn put(&mut self, frame: &ServerFrame) {
        self.write(|out| frame.encode(out));
    }

    /// Writes exempt bytes by an encoder of `conch_wire`.
    pub fn write(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let before = self.gathering.len();
        encode(&mut self.gathering);
        self.unsent_bytes += self.gathering.len() - before;
        if self.gathering.len() >= CHUNK_BYTES {
            self.close_chunk();
        }
    }

    /// Makes room at once for events that are pushed next, in place of growing under each of them.
    pub fn expect<'a>(&mut self, bodies: impl Iterator<Item = &'a Bytes>) {
        let bytes = bodies.map(|body| HEADER_BYTES + body.len()).sum::<usize>();
        // Above this a chunk is closed anyway.
        self.gathering.reserve(bytes.min(CHUNK_BYTES));
    }

    /// Pushes an event, or drops it and marks its channel. True: it is on its way.
    pub fn put_event(&mut self, channel: ChannelId, alias: Alias, body: &EventBytes) -> bool {
        if self.credit_bytes <= 0 || self.is_marked(channel) {
            self.mark(channel);
            return false;
        }
        let before = self.unsent_bytes;
        self.write(|out| {
            put_event(out, alias, body);
        });
        self.credit_bytes -= (self.unsent_bytes - before) as i64;
        true
    }

    /// Whether events go out now. False: they would collapse.
    pub fn has_credit(&self) -> bool {
        self.credit_bytes > 0
    }

    /// The client takes `bytes` more.
    pub fn grant(&mut self, bytes: u32) {
        self.credit_bytes = (self.credit_bytes + i64::from(bytes)).min(i64::from(CREDIT_BYTES));
    }

    /// Events of this channel were dropped: a head is owed as soon as there is credit.
    pub fn mark(&mut self, channel: ChannelId) {
        self.dropped += 1;
        if !self.sync_now && !self.owed.contains(channel) && self.collapsed.insert(channel) {
            self.bound_marks();
        }
    }

    /// A head of this channel is owed whatever the credit.
    pub fn owe_head(&mut self, channel: ChannelId) {
        if !self.sync_now && !self.collapsed.contains(channel) && self.owed.insert(channel) {
            self.bound_marks();
        }
    }

    /// Too much changed to list.
    pub fn mark_all(&mut self) {
        self.collapsed.clear();
        self.owed.clear();
        self.sync_now = true;
    }

    fn bound_marks(&mut self) {
        if self.collapsed.len() + self.owed.len() > HEADS_WAITING_MAX {
            self.mark_all();
        }
    }

    /// Whether events of this channel are dropped until its head was asked for.
    pub fn is_marked(&self, channel: ChannelId) -> bool {
        self.sync_now || self.collapsed.contains(channel) || self.owed.contains(channel)
    }

    /// The next channel whose head may be sent now. Who takes it must send the head or [`Outbound::mark`] it again.
    /// Sends SYNC_NOW itself when that is due.
    pub fn next_mark(&mut self) -> Option<ChannelId> {
        if self.unsent_bytes >= UNSENT_HIGH_BYTES {
            return None;
        }
        if self.sync_now && self.has_credit() {
            self.sync_now = false;
            self.put(&ServerFrame::SyncNow);
        }
        if let Some(channel) = self.owed.pop() {
            return Some(channel);
        }
        if self.has_credit() {
            self.collapsed.pop()
        } else {
            None
        }
    }

    /// Whether marks or SYNC_NOW wait for anything.
    pub fn has_marks(&self) -> bool {
        self.sync_now || !self.collapsed.is_empty() || !self.owed.is_empty()
    }

    fn close_chunk(&mut self) {
        self.chunks.push_back(self.gathering.split().freeze());
    }

    /// The next bytes for the transport: whole frames. They count as unsent until [`Outbound::sent`].
    pub fn take_chunk(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            if self.gathering.is_empty() {
                // Room may have been made for events that then collapsed.
                self.gathering = BytesMut::new();
                return None;
            }
            self.close_chunk();
        }
        let chunk = self.chunks.pop_front();
        if self.chunks.is_empty() && self.gathering.is_empty() {
            // An idle connection holds no buffer.
            self.gathering = BytesMut::new();
            self.chunks.shrink_to(0);
        }
        chunk
    }

    /// `bytes` of what was taken are with the socket.
    pub fn sent(&mut self, bytes: usize) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
    }

    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Whether more work for this connection would only pile up.
    pub fn is_full(&self) -> bool {
        self.unsent_bytes >= UNSENT_HIGH_BYTES
    }

    /// Events dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}
