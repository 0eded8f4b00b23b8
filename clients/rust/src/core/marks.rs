//! What is unread in one channel, and how far this person has read.
//!
//! The server's word is a [`ChannelHead`]: (head seq, head ordinal) and (read seq, read ordinal). Events pushed after it
//! carry no ordinal; they are counted on from it as they are placed, in order, each once. Unread is the difference of the
//! two ordinals, on every device the same. One's own message moves one's own mark, as it does at the owner. A mark that
//! was set here is *wanted* until the server's word has reached it.

use conch_wire::frame::ChannelHead;
use conch_wire::{Ordinal, Seq};

/// Head and read mark of one channel for this user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// Where `head_ordinal` is counted.
    pub head_seq: Seq,
    /// People's messages up to there.
    pub head_ordinal: Ordinal,
    /// How far this person has read.
    pub read_seq: Seq,
    /// People's messages up to there.
    pub read_ordinal: Ordinal,
    /// Unread messages that mention this person.
    pub mentions: u32,
    /// A mark set here that the server has not confirmed; 0: none.
    pub wanted: Seq,
    /// Events were passed over without being seen, so `head_ordinal` is not known until the server speaks of a head as
    /// high as ours.
    pub uncounted: bool,
}

impl Marks {
    /// People's messages behind the read mark.
    pub fn unread(&self) -> u32 {
        self.head_ordinal.saturating_sub(self.read_ordinal)
    }

    /// The server's word. Heads may overtake each other on their way: each half moves only forward.
    pub(crate) fn on_head(&mut self, head: &ChannelHead) {
        if head.head_seq >= self.head_seq {
            self.head_seq = head.head_seq;
            self.head_ordinal = head.head_ordinal;
            self.mentions = head.mentions;
            self.uncounted = false;
        }
        if head.read_seq >= self.read_seq {
            self.read_seq = head.read_seq;
            self.read_ordinal = head.read_ordinal;
        }
        if self.wanted <= head.read_seq {
            self.wanted = 0;
        }
    }

    /// An event took its place in order.
    pub(crate) fn on_placed(&mut self, seq: Seq, is_message: bool, is_own: bool) {
        if seq <= self.head_seq {
            return;
        }
        self.head_seq = seq;
        if is_message {
            self.head_ordinal = self.head_ordinal.saturating_add(1);
        }
        if is_message && is_own && seq > self.read_seq {
            self.read_seq = seq;
            self.read_ordinal = self.head_ordinal;
            // The owner's mark is at least there: a READ below it moves nothing and is not answered.
            if self.wanted <= seq {
                self.wanted = 0;
            }
        }
    }

    /// Events up to `seq` are not for us, and were not seen.
    pub(crate) fn on_skipped(&mut self, seq: Seq) {
        if seq > self.head_seq {
            self.head_seq = seq;
            self.uncounted = true;
        }
    }

    /// The person has read up to here. Returns whether the server has to be told. The badge shows it at once where the
    /// ordinal is known, else with the server's answer.
    pub(crate) fn want(&mut self, seq: Seq) -> bool {
        if seq <= self.read_seq || seq <= self.wanted {
            return false;
        }
        self.wanted = seq;
        if seq >= self.head_seq {
            self.read_ordinal = self.head_ordinal;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use conch_wire::ChannelId;

    use super::*;

    fn head(head: (Seq, Ordinal), read: (Seq, Ordinal)) -> ChannelHead {
        ChannelHead {
            channel: ChannelId(1),
            head_seq: head.0,
            head_ordinal: head.1,
            read_seq: read.0,
            read_ordinal: read.1,
            mentions: 0,
        }
    }

    #[test]
    fn events_that_are_not_messages_are_not_unread() {
        let mut marks = Marks::default();
        marks.on_placed(1, false, false);
        marks.on_placed(2, true, false);
        marks.on_placed(3, false, false);
        assert_eq!(marks.unread(), 1);
    }

    #[test]
    fn own_message_moves_own_mark() {
        let mut marks = Marks::default();
        marks.on_head(&head((5, 4), (1, 0)));
        assert_eq!(marks.unread(), 4);
        marks.on_placed(6, true, true);
        assert_eq!((marks.unread(), marks.read_seq), (0, 6));
    }

    #[test]
    fn own_message_settles_a_mark_below_it() {
        let mut marks = Marks::default();
        marks.on_head(&head((5, 5), (1, 1)));
        marks.want(5);
        marks.on_placed(6, true, true);
        assert_eq!(marks.wanted, 0);
    }

    #[test]
    fn gap_filled_behind_a_head_counts_once() {
        let mut marks = Marks::default();
        marks.on_head(&head((5, 5), (0, 0)));
        for seq in 1..=6 {
            marks.on_placed(seq, true, false);
        }
        assert_eq!(marks.unread(), 6);
    }

    #[test]
    fn marks_never_go_back() {
        let mut marks = Marks::default();
        marks.on_head(&head((9, 9), (7, 7)));
        marks.on_head(&head((8, 8), (9, 9)));
        marks.on_head(&head((9, 9), (3, 3)));
        assert_eq!((marks.head_seq, marks.read_seq, marks.unread()), (9, 9, 0));
    }

    #[test]
    fn mark_is_wanted_until_the_server_says_it() {
        let mut marks = Marks::default();
        marks.on_head(&head((9, 9), (2, 2)));
        assert!(marks.want(9));
        assert!(!marks.want(9));
        assert_eq!((marks.unread(), marks.wanted), (0, 9));
        marks.on_head(&head((9, 9), (5, 5)));
        assert_eq!(marks.wanted, 9);
        marks.on_head(&head((9, 9), (9, 9)));
        assert_eq!((marks.unread(), marks.wanted), (0, 0));
    }
}
