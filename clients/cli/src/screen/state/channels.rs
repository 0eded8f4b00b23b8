//! The list of channels: what is new where, and what was said last.

use conch_client::core::{ChannelInfo, Content, Message, Preview as Last};
use conch_client::wire::event::ChannelKind;
use conch_client::wire::{ChannelId, EventKind, Seq, UserId};

use super::people::People;
use crate::harmless;

/// Columns of a preview that are kept.
const PREVIEW_COLUMNS: usize = 80;

/// The newest thing in a channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Preview {
    pub(crate) seq: Seq,
    pub(crate) author: UserId,
    pub(crate) time_ms: u64,
    /// Harmless; of a text its beginning, of anything else a word about it.
    pub(crate) words: String,
    pub(crate) is_text: bool,
}

/// A channel in the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Its title is harmless.
    pub(crate) info: ChannelInfo,
    pub(crate) preview: Option<Preview>,
}

/// The list, in its order: what was written in last comes first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    entries: Vec<Entry>,
}

impl Channels {
    /// Channels that we are in.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|it| !it.info.left)
    }

    pub(crate) fn entry(&self, channel: ChannelId) -> Option<&Entry> {
        self.entries.iter().find(|it| it.info.channel == channel)
    }

    /// The direct channel with this person.
    pub(crate) fn direct(&self, peer: UserId) -> Option<ChannelId> {
        let mut entries = self.entries.iter();
        let found = entries.find(|it| it.info.peer == Some(peer));
        found.map(|it| it.info.channel)
    }

    /// Messages that nobody here has read, in all channels but `open`.
    pub(crate) fn unread_elsewhere(&self, open: Option<ChannelId>) -> u32 {
        self.present()
            .filter(|it| Some(it.info.channel) != open)
            .fold(0, |sum, it| sum.saturating_add(it.info.unread))
    }

    /// The one `step` places down the list, around its ends.
    pub(crate) fn neighbour(&self, of: Option<ChannelId>, step: isize) -> Option<ChannelId> {
        let ids: Vec<_> = self.present().map(|it| it.info.channel).collect();
        let count = ids.len() as isize;
        let at = of.and_then(|of| ids.iter().position(|it| *it == of));
        let next = match at {
            Some(at) => (at as isize + step).rem_euclid(count),
            None if step < 0 => count - 1,
            None => 0,
        };
        ids.get(usize::try_from(next).ok()?).copied()
    }

    /// The first one with something unread, mentions first.
    pub(crate) fn next_unread(&self, open: Option<ChannelId>) -> Option<ChannelId> {
        self.present()
            .filter(|it| Some(it.info.channel) != open && it.info.unread > 0)
            .max_by_key(|it| it.info.mentions > 0)
            .map(|it| it.info.channel)
    }

    pub(crate) fn put(&mut self, mut info: ChannelInfo) {
        info.title = harmless::name(&info.title);
        let (id, last) = (info.channel, info.last.take());
        match self
            .entries
            .iter_mut()
            .find(|it| it.info.channel == info.channel)
        {
            Some(entry) => entry.info = info,
            None => self.entries.push(Entry {
                info,
                preview: None,
            }),
        }
        if let Some(last) = last {
            self.on_last(id, &last);
        }
        self.sort();
    }

    /// The newest message, as the client knows it without reading it.
    fn on_last(&mut self, channel: ChannelId, last: &Last) {
        let entry = self
            .entries
            .iter_mut()
            .find(|it| it.info.channel == channel);
        let is_newer = |it: &Preview| it.seq < last.seq;
        if let Some(entry) = entry
            && entry.preview.as_ref().is_none_or(is_newer)
        {
            let is_text = last.kind == EventKind::Text as u8;
            entry.preview = Some(Preview {
                seq: last.seq,
                author: last.author,
                time_ms: last.time_ms,
                words: match is_text {
                    true => harmless::cut(&harmless::line(&last.text), PREVIEW_COLUMNS),
                    false => "sent something".to_owned(),
                },
                is_text,
            });
        }
    }

    pub(crate) fn remove(&mut self, channel: ChannelId) {
        self.entries.retain(|it| it.info.channel != channel);
    }

    pub(crate) fn forget_preview(&mut self, channel: ChannelId) {
        for entry in &mut self.entries {
            if entry.info.channel == channel {
                entry.preview = None;
            }
        }
    }

    /// Channels that hold something here, of which the newest is not known.
    pub(crate) fn without_preview(&self) -> Vec<ChannelId> {
        let holds = |info: &ChannelInfo| info.held_to >= info.held_from && info.held_to > 0;
        let without = self
            .present()
            .filter(|it| it.preview.is_none() && holds(&it.info));
        without.map(|it| it.info.channel).collect()
    }

    /// An event of a channel: if it is the newest, it is the preview.
    pub(crate) fn on_message(&mut self, message: &Message) {
        let entry = self
            .entries
            .iter_mut()
            .find(|it| it.info.channel == message.channel);
        let Some(entry) = entry else { return };
        if entry
            .preview
            .as_ref()
            .is_some_and(|it| it.seq >= message.seq)
        {
            return;
        }
        entry.preview = Some(preview(message));
        self.sort();
    }

    fn sort(&mut self) {
        self.entries.sort_by_key(|it| {
            let last = it.preview.as_ref().map_or(0, |it| it.time_ms);
            std::cmp::Reverse((last, it.info.used, it.info.channel))
        });
    }
}

fn preview(message: &Message) -> Preview {
    let (words, is_text) = match &message.content {
        // Cut first: the beginning of a long text is short.
        Content::Text { text, .. } => (text.chars().take(4 * PREVIEW_COLUMNS).collect(), true),
        Content::Payload { .. } => ("sent something".to_owned(), false),
        Content::Created { .. } => ("began this conversation".to_owned(), false),
        Content::MembersAdded { .. } => ("added people".to_owned(), false),
        Content::MemberRemoved { .. } => ("removed somebody".to_owned(), false),
        Content::MemberLeft { .. } => ("left".to_owned(), false),
        Content::Renamed { .. } => ("renamed the group".to_owned(), false),
        Content::Unknown { .. } => ("something newer than this program".to_owned(), false),
    };
    Preview {
        seq: message.seq,
        author: message.author,
        time_ms: message.time_ms,
        words: harmless::cut(&harmless::line(&words), PREVIEW_COLUMNS),
        is_text,
    }
}

/// What a channel is called.
pub(crate) fn title(info: &ChannelInfo, people: &People) -> String {
    match (info.kind, info.peer) {
        (ChannelKind::Direct, Some(peer)) => people.name(peer),
        (ChannelKind::SelfLog, _) => "notes to myself".to_owned(),
        _ if info.title.is_empty() => format!("channel {}", info.channel),
        _ => info.title.clone(),
    }
}
