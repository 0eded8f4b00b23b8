//! The channel that is shown: a window of its log, and which part of it is in view.
//!
//! The window holds events without a hole, at most [`ITEMS_MAX`] of them and [`BYTES_MAX`] of text; what falls out at one
//! end is loaded again when somebody scrolls there. The view hangs on the event at its lower edge, not on a distance, so
//! what is loaded above or arrives below moves nothing that somebody is reading.

use std::collections::VecDeque;

use conch_client::core::{Content, Message};
use conch_client::wire::{ChannelId, MessageKey, Seq, UserId};

use crate::harmless;

/// Events in one page.
pub(crate) const PAGE_ITEMS: u32 = 60;
/// Events in the window.
const ITEMS_MAX: usize = 600;
/// Text in the window, in bytes.
const BYTES_MAX: usize = 4 << 20;

/// One event, harmless.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub(crate) seq: Seq,
    pub(crate) author: UserId,
    pub(crate) time_ms: u64,
    /// Sent by this device.
    pub(crate) key: Option<MessageKey>,
    pub(crate) body: Body,
}

/// What it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    Text(String),
    Payload {
        kind: u8,
        bytes: usize,
    },
    Created {
        title: String,
    },
    Added(Vec<UserId>),
    Removed(Vec<UserId>),
    Left,
    Renamed {
        title: String,
    },
    Unknown {
        kind: u8,
    },
    /// Events from `from` up to this one that are not to be had.
    Skipped {
        from: Seq,
    },
}

/// Which part of the log to load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Page {
    Newest,
    OlderThan(Seq),
    NewerThan(Seq),
}

/// What there is above the window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Older {
    More,
    Loading,
    Start,
    /// Not to be had now, and why.
    Stuck(String),
}

/// What stands at the lower edge of the view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scroll {
    /// The newest; the view follows it.
    Newest,
    /// The last rows of this one, so many, are below the edge.
    At { element: Element, hidden: usize },
}

/// Something in the conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Element {
    Event(Seq),
    /// By its ticket.
    Sending(u64),
}

/// See the file's head.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) channel: ChannelId,
    /// Answers to an earlier visit are not for this one.
    pub(crate) visit: u64,
    items: VecDeque<Item>,
    bytes: usize,
    pub(crate) older: Older,
    /// There are newer events than the window's.
    pub(crate) cut_off: bool,
    loading_newer: bool,
    /// The first page has come.
    pub(crate) is_loaded: bool,
    pub(crate) scroll: Scroll,
    /// What follows this was not read when the person came.
    pub(crate) unread_after: Option<Seq>,
    /// Told to the server as read.
    marked: Seq,
}

impl Conversation {
    pub(crate) fn new(channel: ChannelId, visit: u64, unread_after: Option<Seq>) -> Conversation {
        Conversation {
            channel,
            visit,
            items: VecDeque::new(),
            bytes: 0,
            older: Older::Loading,
            cut_off: false,
            loading_newer: false,
            is_loaded: false,
            scroll: Scroll::Newest,
            unread_after,
            marked: 0,
        }
    }

    pub(crate) fn items(&self) -> &VecDeque<Item> {
        &self.items
    }

    pub(crate) fn last_seq(&self) -> Seq {
        self.items.back().map_or(0, |it| it.seq)
    }

    /// An event of this channel came by itself. Returns whether it is in the window now.
    pub(crate) fn on_event(&mut self, message: &Message) -> bool {
        if self.cut_off || message.seq <= self.last_seq() {
            return false;
        }
        if self.items.is_empty() && matches!(self.older, Older::Stuck(_)) {
            // It could not be asked for before the client knew it.
            self.older = Older::More;
        }
        self.push_back(item(message));
        self.trim(self.scroll == Scroll::Newest);
        true
    }

    pub(crate) fn on_skipped(&mut self, from: Seq, to: Seq, now_ms: u64) {
        if self.cut_off || to <= self.last_seq() {
            return;
        }
        self.push_back(Item {
            seq: to,
            author: UserId(0),
            time_ms: self.items.back().map_or(now_ms, |it| it.time_ms),
            key: None,
            body: Body::Skipped { from },
        });
    }

    /// The page to load above the window, if it is time.
    pub(crate) fn begin_older(&mut self) -> Option<Page> {
        let first = self.items.front()?.seq;
        if self.older != Older::More {
            return None;
        }
        self.older = Older::Loading;
        Some(Page::OlderThan(first))
    }

    /// The page to load below the window, if there is something.
    pub(crate) fn begin_newer(&mut self) -> Option<Page> {
        if !self.cut_off || std::mem::replace(&mut self.loading_newer, true) {
            return None;
        }
        Some(Page::NewerThan(self.last_seq()))
    }

    /// Begins again at the newest.
    pub(crate) fn begin_newest(&mut self) -> Page {
        self.items.clear();
        self.bytes = 0;
        self.older = Older::Loading;
        self.cut_off = false;
        self.loading_newer = false;
        self.is_loaded = false;
        self.scroll = Scroll::Newest;
        Page::Newest
    }

    /// A page came. `first_seq`: where the log begins for us; `online`: an empty page means that there is no more.
    pub(crate) fn on_page(
        &mut self,
        page: Page,
        messages: &[Message],
        first_seq: Seq,
        online: bool,
    ) {
        match page {
            Page::Newest => {
                self.is_loaded = true;
                self.put_below(messages, 0);
                self.trim(true);
                self.settle_older(messages.len(), first_seq, online);
            }
            Page::OlderThan(before) => {
                // The window has moved on meanwhile: what was asked for would leave a hole.
                if self.items.front().is_none_or(|it| it.seq != before) {
                    self.older = Older::More;
                    return;
                }
                for message in messages.iter().rev().filter(|it| it.seq < before) {
                    self.push_front(item(message));
                }
                self.trim(false);
                self.settle_older(messages.len(), first_seq, online);
            }
            Page::NewerThan(after) => {
                self.loading_newer = false;
                if self.last_seq() != after {
                    return;
                }
                let full = after.saturating_add(PAGE_ITEMS);
                let is_end = messages.last().is_none_or(|it| it.seq < full);
                self.cut_off = !is_end;
                self.put_below(messages, after);
                self.trim(true);
            }
        }
    }

    pub(crate) fn on_page_failed(&mut self, page: Page, why: String) {
        match page {
            Page::NewerThan(_) => self.loading_newer = false,
            Page::Newest | Page::OlderThan(_) => {
                self.is_loaded = true;
                self.older = Older::Stuck(why);
            }
        }
    }

    /// What could not be had may be had now.
    pub(crate) fn on_online(&mut self) {
        if matches!(self.older, Older::Stuck(_)) {
            self.older = Older::More;
        }
    }

    /// The mark to tell the server, if the newest is in view and was not told.
    pub(crate) fn mark(&mut self) -> Option<Seq> {
        let last = self.last_seq();
        if self.cut_off || self.scroll != Scroll::Newest || last <= self.marked {
            return None;
        }
        self.marked = last;
        Some(last)
    }

    fn settle_older(&mut self, came: usize, first_seq: Seq, online: bool) {
        let at_start = self.items.front().is_some_and(|it| it.seq <= first_seq);
        self.older = if at_start || (came == 0 && online) {
            Older::Start
        } else if came == 0 {
            Older::Stuck("older messages come with the connection".to_owned())
        } else {
            Older::More
        };
    }

    fn put_below(&mut self, messages: &[Message], after: Seq) {
        // What came by itself while the page was on its way lies above it, or is in it.
        let live = std::mem::take(&mut self.items);
        let (kept, live): (VecDeque<_>, VecDeque<_>) =
            live.into_iter().partition(|it| it.seq <= after);
        self.items = kept;
        self.bytes = self.items.iter().map(size).sum();
        for message in messages.iter().filter(|it| it.seq > after) {
            self.push_back(item(message));
        }
        let last = self.last_seq();
        for item in live.into_iter().filter(|it| it.seq > last) {
            self.push_back(item);
        }
    }

    fn push_back(&mut self, item: Item) {
        self.bytes += size(&item);
        self.items.push_back(item);
    }

    fn push_front(&mut self, item: Item) {
        self.bytes += size(&item);
        self.items.push_front(item);
    }

    /// Keeps the window small: lets go of the old end, or of the new one.
    fn trim(&mut self, old_end: bool) {
        while self.items.len() > ITEMS_MAX || (self.bytes > BYTES_MAX && self.items.len() > 1) {
            let gone = if old_end {
                if self.older == Older::Start {
                    self.older = Older::More;
                }
                self.items.pop_front()
            } else {
                self.cut_off = true;
                self.items.pop_back()
            };
            self.bytes -= gone.as_ref().map_or(0, size);
        }
    }
}

fn size(item: &Item) -> usize {
    match &item.body {
        Body::Text(text) => text.len(),
        Body::Added(users) | Body::Removed(users) => users.len() * size_of::<UserId>(),
        _ => 0,
    }
}

fn item(message: &Message) -> Item {
    let body = match &message.content {
        Content::Text { text, .. } => Body::Text(harmless::text(text)),
        Content::Payload { kind, bytes } => Body::Payload {
            kind: *kind,
            bytes: bytes.len(),
        },
        Content::Created { title, .. } => Body::Created {
            title: harmless::name(title),
        },
        Content::MembersAdded { members } => Body::Added(members.clone()),
        Content::MemberRemoved { members } => Body::Removed(members.clone()),
        Content::MemberLeft { .. } => Body::Left,
        Content::Renamed { title } => Body::Renamed {
            title: harmless::name(title),
        },
        Content::Unknown { kind } => Body::Unknown { kind: *kind },
    };
    Item {
        seq: message.seq,
        author: message.author,
        time_ms: message.time_ms,
        key: message.key,
        body,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn messages(range: std::ops::RangeInclusive<Seq>) -> Vec<Message> {
        range
            .map(|seq| Message {
                channel: ChannelId(7),
                seq,
                author: UserId(1),
                time_ms: u64::from(seq) * 1_000,
                key: None,
                content: Content::Text {
                    text: format!("message {seq}"),
                    mentions: Vec::new(),
                },
            })
            .collect()
    }

    fn seqs(conversation: &Conversation) -> (Seq, Seq, usize) {
        let items = conversation.items();
        let first = items.front().map_or(0, |it| it.seq);
        (first, conversation.last_seq(), items.len())
    }

    fn opened(newest: std::ops::RangeInclusive<Seq>) -> Conversation {
        let mut conversation = Conversation::new(ChannelId(7), 1, None);
        conversation.on_page(Page::Newest, &messages(newest), 1, true);
        conversation
    }

    #[test]
    fn event_that_overtakes_the_first_page_is_there_once() {
        for page in [41..=100, 42..=101] {
            let mut conversation = Conversation::new(ChannelId(7), 1, None);
            conversation.on_event(&messages(101..=101)[0]);
            conversation.on_page(Page::Newest, &messages(page), 1, true);
            assert_eq!(conversation.last_seq(), 101);
            let (first, last, count) = seqs(&conversation);
            assert_eq!(count as u32, last - first + 1, "no hole, nothing twice");
        }
    }

    #[test]
    fn pages_above_end_at_the_beginning() {
        let mut conversation = opened(61..=120);
        assert_eq!(conversation.begin_older(), Some(Page::OlderThan(61)));
        assert_eq!(conversation.begin_older(), None, "one at a time");
        conversation.on_page(Page::OlderThan(61), &messages(1..=60), 1, true);
        assert_eq!(
            (seqs(&conversation), &conversation.older),
            ((1, 120, 120), &Older::Start)
        );
        assert_eq!(conversation.begin_older(), None);
    }

    #[test]
    fn window_is_bounded_and_comes_back_at_both_ends() {
        let mut conversation = opened(5_941..=6_000);
        conversation.scroll = Scroll::At {
            element: Element::Event(5_950),
            hidden: 0,
        };
        let mut first = 5_941;
        for _ in 0..20 {
            let page = conversation.begin_older().unwrap();
            assert_eq!(page, Page::OlderThan(first));
            conversation.on_page(page, &messages(first - 60..=first - 1), 1, true);
            first -= 60;
        }
        assert_eq!(seqs(&conversation), (first, first + 599, ITEMS_MAX));
        assert!(conversation.cut_off);
        assert!(!conversation.on_event(&messages(6_001..=6_001)[0]));
        let mut last = conversation.last_seq();
        while let Some(page) = conversation.begin_newer() {
            assert_eq!(page, Page::NewerThan(last));
            let to = (last + PAGE_ITEMS).min(6_001);
            conversation.on_page(page, &messages(to - PAGE_ITEMS + 1..=to), 1, true);
            last = conversation.last_seq();
        }
        assert_eq!((last, conversation.items().len()), (6_001, ITEMS_MAX));
        assert_eq!(conversation.older, Older::More);
    }

    #[test]
    fn long_texts_are_bounded_too() {
        let mut conversation = opened(1..=1);
        for mut message in messages(2..=20) {
            message.content = Content::Text {
                text: "界".repeat(100_000),
                mentions: Vec::new(),
            };
            conversation.on_event(&message);
        }
        assert!(conversation.bytes <= BYTES_MAX && conversation.last_seq() == 20);
    }

    #[test]
    fn only_what_is_in_view_is_read() {
        let mut conversation = opened(1..=10);
        assert_eq!(conversation.mark(), Some(10));
        assert_eq!(conversation.mark(), None);
        conversation.scroll = Scroll::At {
            element: Element::Event(5),
            hidden: 0,
        };
        conversation.on_event(&messages(11..=11)[0]);
        assert_eq!(conversation.mark(), None);
        conversation.scroll = Scroll::Newest;
        assert_eq!(conversation.mark(), Some(11));
    }

    #[test]
    fn without_a_connection_it_says_so_and_tries_again_later() {
        let mut conversation = opened(61..=120);
        let page = conversation.begin_older().unwrap();
        conversation.on_page(page, &[], 1, false);
        assert!(matches!(conversation.older, Older::Stuck(_)));
        assert_eq!(conversation.begin_older(), None);
        conversation.on_online();
        assert_eq!(conversation.begin_older(), Some(Page::OlderThan(61)));
    }
}
