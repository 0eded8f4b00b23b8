//! What was asked on this connection and is not answered yet. Request ids are never reused on a connection.

use std::collections::BTreeMap;

use conch_wire::{ChannelId, Seq};

/// Pages asked for at a time, of the eight requests that a connection may have open: some stay free for the person who
/// scrolls back and for SYNC.
const GAP_PAGES_MAX: usize = 5;
const PAGES_MAX: usize = 7;

/// What a request was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Send(ChannelId),
    Open(ChannelId),
    /// CHANNEL_OPENED again, for its head.
    Head(ChannelId),
    Gap(ChannelId),
    Older {
        channel: ChannelId,
        ticket: u64,
        to: Seq,
    },
    /// A range that is read and not stored.
    Range {
        channel: ChannelId,
        ticket: u64,
    },
    Sync,
    /// The last READ of the channel; those before it are forgotten.
    Read(ChannelId),
    AuthRefresh,
}

/// The open requests of one connection.
#[derive(Debug)]
pub(crate) struct Requests {
    last: u32,
    open: BTreeMap<u32, Asked>,
    gap_pages: usize,
    /// One after a refusal, one more with every page: refusals that go on would count as a flood.
    gap_pages_max: usize,
    pages: usize,
}

impl Default for Requests {
    fn default() -> Self {
        Requests {
            last: 0,
            open: BTreeMap::new(),
            gap_pages: 0,
            gap_pages_max: GAP_PAGES_MAX,
            pages: 0,
        }
    }
}

impl Requests {
    pub(crate) fn ask(&mut self, asked: Asked) -> u32 {
        // Wraps after four thousand million requests; 0 is "no request".
        self.last = self.last.checked_add(1).unwrap_or(1);
        // Only a refusal answers a READ. The newer one says all that the older one did.
        if matches!(asked, Asked::Read(_)) {
            self.open.retain(|_, it| *it != asked);
        }
        self.open.insert(self.last, asked);
        self.count(asked, 1);
        self.last
    }

    pub(crate) fn answered(&mut self, request: u32) -> Option<Asked> {
        let asked = self.open.remove(&request)?;
        self.count(asked, -1);
        Some(asked)
    }

    fn count(&mut self, asked: Asked, by: isize) {
        let is_gap = matches!(asked, Asked::Gap(_));
        if is_gap || matches!(asked, Asked::Older { .. } | Asked::Range { .. }) {
            self.pages = self.pages.saturating_add_signed(by);
        }
        if is_gap {
            self.gap_pages = self.gap_pages.saturating_add_signed(by);
        }
    }

    pub(crate) fn on_gap_page(&mut self) {
        self.gap_pages_max = (self.gap_pages_max + 1).min(GAP_PAGES_MAX);
    }

    pub(crate) fn on_gap_refused(&mut self) {
        self.gap_pages_max = 1;
    }

    /// Whether one more gap may be asked for.
    pub(crate) fn has_gap_room(&self) -> bool {
        self.gap_pages < self.gap_pages_max && self.has_page_room()
    }

    /// Whether one more page may be asked for.
    pub(crate) fn has_page_room(&self) -> bool {
        self.pages < PAGES_MAX
    }

    pub(crate) fn is_opening(&self, channel: ChannelId) -> bool {
        self.open.values().any(|it| *it == Asked::Open(channel))
    }

    pub(crate) fn is_counting(&self, channel: ChannelId) -> bool {
        self.open.values().any(|it| *it == Asked::Head(channel))
    }

    /// Whether anything was asked that is always answered. A READ is not.
    pub(crate) fn wait(&self) -> bool {
        self.open.values().any(|it| !matches!(it, Asked::Read(_)))
    }

    pub(crate) fn is_syncing(&self) -> bool {
        self.open.values().any(|it| *it == Asked::Sync)
    }

    /// The connection is gone: nothing of this will be answered.
    pub(crate) fn clear(&mut self) -> Vec<Asked> {
        let open = std::mem::take(self);
        open.open.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_are_not_answered_leave_one_entry_per_channel() {
        let mut requests = Requests::default();
        let other = requests.ask(Asked::Read(ChannelId(2)));
        let first = requests.ask(Asked::Read(ChannelId(1)));
        let last = (0..1_000).map(|_| requests.ask(Asked::Read(ChannelId(1))));
        let last = last.last().expect("a thousand were asked");
        assert_eq!(requests.open.len(), 2);
        assert_eq!(requests.answered(first), None);
        assert_eq!(requests.answered(last), Some(Asked::Read(ChannelId(1))));
        assert_eq!(requests.answered(other), Some(Asked::Read(ChannelId(2))));
    }
}
