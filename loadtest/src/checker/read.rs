//! A whole history, told page by page as it is read: no more than a page is in memory at once.

use conch_wire::{ChannelId, Seq, UserId};

use super::{Checker, Observed, Violation};

/// A full read in progress, of a channel as one user may see it, ascending.
#[derive(Debug)]
#[must_use = "a read that is not ended proves nothing"]
pub struct FullRead {
    reader: UserId,
    channel: ChannelId,
    /// Seqs of the first and the last event so far.
    read: Option<(Seq, Seq)>,
}

impl FullRead {
    /// Nothing was read yet.
    pub fn new(reader: UserId, channel: ChannelId) -> FullRead {
        FullRead {
            reader,
            channel,
            read: None,
        }
    }

    /// The next events. They must follow on those before.
    pub fn page(&mut self, checker: &mut Checker, events: &[Observed]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        if let Some((_, before)) = self.read
            && before.checked_add(1) != Some(first.seq)
        {
            self.gap(checker, before.saturating_add(1), first.seq);
        }
        checker.page(self.reader, self.channel, events);
        let beginning = self.read.map_or(first.seq, |(beginning, _)| beginning);
        self.read = Some((beginning, last.seq));
    }

    /// Nothing more comes; the last send was answered before the first page. `head`: the newest seq that the node says there is
    /// for this reader.
    pub fn end(self, checker: &mut Checker, head: Seq) {
        let from = checker.ended_read(self.reader, self.channel, head);
        match self.read {
            None if head < from => {}
            None => self.gap(checker, from, head.saturating_add(1)),
            Some((first, last)) => {
                if first != from {
                    self.gap(checker, from, first);
                }
                if last != head {
                    self.gap(checker, head, last);
                }
            }
        }
    }

    fn gap(&self, checker: &mut Checker, expected: Seq, found: Seq) {
        checker.found.add(Violation::Gap {
            reader: self.reader,
            channel: self.channel,
            expected,
            found,
        });
    }
}
