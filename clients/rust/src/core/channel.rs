//! One channel on this device: what is known of it, its log, its marks, and what is under way for it.

use conch_wire::event::{ChannelKind, EventBody};
use conch_wire::frame::{ChannelOpened, SyncRow};
use conch_wire::limits::SEQ_MAX;
use conch_wire::{Alias, ChannelId, Event, EventKind, MemberRole, Seq, UserId};

use super::Ms;
use super::backoff::Backoff;
use super::event::{ChannelInfo, Preview};
use super::marks::Marks;
use super::merge::Log;
use super::persist::ChannelRow;

/// First and longest wait of a refused request, in milliseconds.
const RETRY_BASE_MS: Ms = 200;
const RETRY_CAP_MS: Ms = 10_000;
/// Bit of the aliases that the server chooses.
pub(crate) const SERVER_ALIAS: Alias = 0x8000_0000;

/// Whether an event is a person's words.
pub(crate) fn is_message(event: &Event) -> bool {
    event.kind < EventKind::ChannelCreated as u8
}

/// See the file's head.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) kind: ChannelKind,
    pub(crate) title: String,
    pub(crate) peer: Option<UserId>,
    pub(crate) role: MemberRole,
    pub(crate) first_seq: Seq,
    pub(crate) left_seq: Option<Seq>,
    pub(crate) log: Log,
    pub(crate) marks: Marks,
    pub(crate) last: Option<Preview>,
    pub(crate) informed_seq: Seq,
    pub(crate) listed: u32,
    pub(crate) used: u64,
    /// The application shows it. With push mode *opened*, only such channels are loaded.
    pub(crate) shown: bool,
    /// When a hole in the log is to be fetched; `None`: there is none, or nothing to be had for it now.
    pub(crate) gap_due: Option<Ms>,
    pub(crate) fetching: bool,
    pub(crate) fetch_backoff: Backoff,
    pub(crate) read_due: Ms,
    /// The mark that the server was told on this connection.
    pub(crate) read_asked: Option<Seq>,
    pub(crate) read_backoff: Backoff,
}

impl Channel {
    /// A channel that was not known: its log begins at the newest `window` events; older ones are loaded on demand.
    pub(crate) fn new(
        id: ChannelId,
        kind: ChannelKind,
        first: Seq,
        head: Seq,
        window: u32,
    ) -> Channel {
        let base = (head + 1).saturating_sub(window).max(first).max(1);
        Channel {
            id,
            kind,
            title: String::new(),
            peer: None,
            role: MemberRole::Member,
            first_seq: first,
            left_seq: None,
            log: Log::new(base, base - 1, head),
            marks: Marks::default(),
            last: None,
            informed_seq: 0,
            listed: 0,
            used: 0,
            shown: false,
            gap_due: None,
            fetching: false,
            fetch_backoff: Backoff::new(RETRY_BASE_MS, RETRY_CAP_MS),
            read_due: 0,
            read_asked: None,
            read_backoff: Backoff::new(RETRY_BASE_MS, RETRY_CAP_MS),
        }
    }

    pub(crate) fn load(row: ChannelRow) -> Channel {
        let mut channel = Channel::new(row.channel, row.kind, row.first_seq, 0, 0);
        channel.title = row.title;
        channel.peer = row.peer;
        channel.role = row.role;
        channel.left_seq = row.left_seq;
        channel.log = Log::new(row.base, row.have, row.head);
        channel.marks = row.marks;
        channel.last = row.last;
        channel.informed_seq = row.informed_seq;
        channel.listed = row.listed;
        channel.used = row.used;
        channel
    }

    pub(crate) fn row(&self) -> ChannelRow {
        ChannelRow {
            channel: self.id,
            kind: self.kind,
            title: self.title.clone(),
            peer: self.peer,
            role: self.role,
            first_seq: self.first_seq,
            left_seq: self.left_seq,
            base: self.log.base(),
            have: self.log.have(),
            head: self.log.head(),
            marks: self.marks,
            last: self.last.clone(),
            informed_seq: self.informed_seq,
            listed: self.listed,
            used: self.used,
        }
    }

    pub(crate) fn info(&self) -> ChannelInfo {
        ChannelInfo {
            channel: self.id,
            kind: self.kind,
            title: self.title.clone(),
            peer: self.peer,
            role: self.role,
            left: self.left_seq.is_some(),
            unread: self.marks.unread(),
            mentions: self.marks.mentions,
            last: self.last.clone(),
            first_seq: self.first_seq,
            head_seq: self.log.head(),
            read_seq: self.marks.read_seq,
            held_from: self.log.base(),
            held_to: self.log.have(),
            used: self.used,
        }
    }

    pub(crate) fn missing(&self) -> Option<(Seq, Seq)> {
        self.log.missing(self.left_seq.unwrap_or(SEQ_MAX))
    }

    /// A mark that the server was not told on this connection.
    pub(crate) fn has_mark_to_tell(&self) -> bool {
        self.marks.wanted > self.read_asked.unwrap_or(0)
    }

    /// A hole may have to be fetched at `at`, or sooner if that was settled before.
    pub(crate) fn gap_at(&mut self, at: Ms) {
        self.gap_due = match self.missing() {
            Some(_) => Some(self.gap_due.map_or(at, |due| due.min(at))),
            None => None,
        };
    }

    /// A row of SYNC_CHANGES: the channel as of its head.
    pub(crate) fn on_row(&mut self, row: &SyncRow) {
        self.marks.on_head(&row.head);
        self.log.note_head(
            row.left_seq
                .unwrap_or(row.head.head_seq)
                .min(row.head.head_seq),
        );
        if row.head.head_seq < self.informed_seq {
            return;
        }
        self.informed_seq = row.head.head_seq;
        self.kind = row.kind;
        self.title.clone_from(&row.title);
        self.peer = row.peer;
        self.role = row.role;
        self.first_seq = row.first_seq;
        self.left_seq = row.left_seq;
    }

    /// CHANNEL_OPENED: name and marks as of its head. Of membership it says something only when the server opened the channel
    /// by itself, which it does for members.
    pub(crate) fn on_opened(&mut self, opened: &ChannelOpened) {
        self.marks.on_head(&opened.head);
        let by_server = opened.alias & SERVER_ALIAS != 0;
        match self.left_seq {
            Some(left) if by_server && opened.head.head_seq > left => self.left_seq = None,
            Some(left) => self.log.note_head(opened.head.head_seq.min(left)),
            None => {}
        }
        if self.left_seq.is_none() {
            self.log.note_head(opened.head.head_seq);
        }
        if opened.head.head_seq < self.informed_seq {
            return;
        }
        self.kind = opened.kind;
        self.title.clone_from(&opened.title);
        self.peer = opened.peer;
        self.first_seq = opened.first_seq;
    }

    /// An event took its place. What it changes is known already when a row or CHANNEL_OPENED spoke of a later state.
    pub(crate) fn on_placed(&mut self, event: &Event, me: Option<UserId>) {
        let kind = EventKind::from_u8(event.kind);
        let is_message = is_message(event);
        self.marks
            .on_placed(event.seq, is_message, Some(event.author) == me);
        if is_message {
            self.saw_message(event);
        }
        if is_message || event.seq <= self.informed_seq {
            return;
        }
        self.informed_seq = event.seq;
        let Ok(body) = EventBody::decode(&event.tail) else {
            return;
        };
        if let Some(title) = body.title {
            self.title = title;
        }
        let mine = body.members.iter().find(|it| Some(it.user) == me);
        match (kind, mine) {
            (Some(EventKind::MemberRemoved | EventKind::MemberLeft), Some(_)) => {
                self.left_seq = Some(event.seq);
            }
            (Some(EventKind::ChannelCreated | EventKind::MembersAdded), Some(member)) => {
                self.left_seq = None;
                self.role = member.role;
            }
            _ => {}
        }
    }

    /// A message of the log is here; the newest is the channel's preview.
    pub(crate) fn saw_message(&mut self, event: &Event) {
        if self.last.as_ref().is_none_or(|last| last.seq < event.seq) {
            self.last = Some(Preview::of(event));
        }
    }

    /// The connection is gone, and what was under way with it.
    pub(crate) fn on_disconnected(&mut self) {
        self.gap_due = None;
        self.fetching = false;
        self.read_asked = None;
        self.read_due = 0;
    }
}
