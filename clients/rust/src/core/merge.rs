//! One channel's log on this device: a run without holes, and what arrived ahead of it.
//!
//! Events come by DELIVER, by HISTORY, and from our own sends when their ack tells the seq; in any order, any number of
//! times. Each leaves here once and in order. `base ..= have` is what this device holds; `have` moves only by
//! [`Log::take_ready`], together with the storage of what it passes.
//!
//! **Own-author hold.** An event by this user may be a send of ours whose ack was lost. While such a send is unresolved,
//! the caller says so through `held` and nothing from that event on is given out; when the send is resolved the event is
//! either that message (its key is known by then) or one of another device. An event carries the attempt counter of its
//! arrival, because only sends attempted before it arrived can be it.
//!
//! What is ahead is bounded; what does not fit is dropped and fetched when its turn comes.

use std::collections::BTreeMap;

use conch_wire::{Event, MessageKey, Seq};

/// Events kept ahead of the run.
const AHEAD_EVENTS_MAX: usize = 1_024;
/// Bytes of their bodies.
const AHEAD_BYTES_MAX: usize = 1_048_576;

/// An event and what this device knows of it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arrived {
    pub(crate) event: Event,
    /// The message's key, when it is one of our own sends.
    pub(crate) key: Option<MessageKey>,
    /// Attempts that the outbox had made when it arrived.
    pub(crate) attempts: u64,
}

/// See the file's head.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    base: Seq,
    have: Seq,
    /// The highest seq that is known to exist.
    head: Seq,
    ahead: BTreeMap<Seq, Arrived>,
    ahead_bytes: usize,
}

impl Log {
    /// Holds `base ..= have`; empty when `have` is `base - 1`.
    pub(crate) fn new(base: Seq, have: Seq, head: Seq) -> Log {
        let base = base.max(1);
        let have = have.max(base - 1);
        Log {
            base,
            have,
            head: head.max(have),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
        }
    }

    pub(crate) fn base(&self) -> Seq {
        self.base
    }

    pub(crate) fn have(&self) -> Seq {
        self.have
    }

    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    pub(crate) fn note_head(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }

    /// An event came, by whatever way. Known ones are dropped; a known one that turns out to be ours learns its key.
    pub(crate) fn arrive(&mut self, arrived: Arrived) {
        let seq = arrived.event.seq;
        self.note_head(seq);
        if seq <= self.have {
            return;
        }
        if let Some(known) = self.ahead.get_mut(&seq) {
            known.key = known.key.or(arrived.key);
            return;
        }
        self.ahead_bytes += arrived.event.tail.len();
        self.ahead.insert(seq, arrived);
        while self.ahead.len() > 1
            && (self.ahead.len() > AHEAD_EVENTS_MAX || self.ahead_bytes > AHEAD_BYTES_MAX)
        {
            if let Some((_, dropped)) = self.ahead.pop_last() {
                self.ahead_bytes -= dropped.event.tail.len();
            }
        }
    }

    /// The next events in order, up to the first that is missing or held; the run grows over them.
    pub(crate) fn take_ready(&mut self, held: impl Fn(&Arrived) -> bool) -> Vec<Arrived> {
        let mut ready = Vec::new();
        while let Some(first) = self.ahead.first_entry() {
            if *first.key() != self.have + 1 || held(first.get()) {
                break;
            }
            let arrived = first.remove();
            self.have = arrived.event.seq;
            self.ahead_bytes -= arrived.event.tail.len();
            ready.push(arrived);
        }
        ready
    }

    /// The range to fetch next, within `limit` (what lies behind it is not visible to us). `None` also while the next event
    /// is here but held.
    pub(crate) fn missing(&self, limit: Seq) -> Option<(Seq, Seq)> {
        let from = self.have + 1;
        let next_here = self.ahead.keys().next().copied();
        if next_here == Some(from) {
            return None;
        }
        let to = next_here.map_or(self.head, |seq| seq - 1).min(limit);
        (from <= to).then_some((from, to))
    }

    /// What lies below `first` is not there for us (any more): the run starts again at `first`. Returns what was skipped.
    pub(crate) fn skip_to(&mut self, first: Seq) -> Option<(Seq, Seq)> {
        if first <= self.have + 1 {
            return None;
        }
        let skipped = (self.have + 1, first - 1);
        self.base = first;
        self.have = first - 1;
        self.note_head(self.have);
        self.ahead = self.ahead.split_off(&first);
        self.ahead_bytes = self.ahead.values().map(|it| it.event.tail.len()).sum();
        Some(skipped)
    }

    /// Keeps the newest `keep` events. Returns the seq below which the rest is let go of, if there is a rest.
    pub(crate) fn trim(&mut self, keep: u32) -> Option<Seq> {
        let base = (self.have + 1).saturating_sub(keep);
        (base > self.base).then(|| {
            self.base = base;
            base
        })
    }

    /// How many events the run holds.
    pub(crate) fn held(&self) -> u32 {
        self.have + 1 - self.base
    }

    /// Older events, up to just below the run, were stored: it reaches down to `base` now.
    pub(crate) fn extend_down(&mut self, base: Seq) {
        self.base = self.base.min(base.max(1));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use conch_wire::{EventFlags, UserId};
    use proptest::prelude::*;

    use super::*;

    fn event(seq: Seq) -> Arrived {
        Arrived {
            event: Event {
                author: UserId(1),
                seq,
                time_ms: 0,
                kind: 1,
                flags: EventFlags::default(),
                tail: Bytes::from_static(b"hello"),
            },
            key: None,
            attempts: 0,
        }
    }

    fn ready(log: &mut Log) -> Vec<Seq> {
        log.take_ready(|_| false)
            .iter()
            .map(|it| it.event.seq)
            .collect()
    }

    #[test]
    fn ack_may_come_before_the_delivery_below_it() {
        let mut log = Log::new(1, 8, 8);
        log.arrive(event(10));
        assert!(ready(&mut log).is_empty());
        assert_eq!(log.missing(Seq::MAX), Some((9, 9)));
        log.arrive(event(9));
        assert_eq!(ready(&mut log), [9, 10]);
        assert_eq!(log.missing(Seq::MAX), None);
    }

    #[test]
    fn held_event_stops_those_behind_it_and_is_not_fetched() {
        let mut log = Log::new(1, 0, 0);
        log.arrive(event(1));
        log.arrive(event(2));
        assert!(log.take_ready(|it| it.event.seq == 1).is_empty());
        assert_eq!(log.missing(Seq::MAX), None);
        assert_eq!(ready(&mut log), [1, 2]);
    }

    #[test]
    fn skip_forgets_what_is_not_ours_to_see() {
        let mut log = Log::new(1, 3, 20);
        log.arrive(event(6));
        log.arrive(event(10));
        assert_eq!(log.skip_to(10), Some((4, 9)));
        assert_eq!(ready(&mut log), [10]);
        assert_eq!((log.base(), log.have()), (10, 10));
    }

    #[test]
    fn what_is_ahead_is_bounded() {
        let mut log = Log::new(1, 0, 0);
        for seq in 2..10_000 {
            log.arrive(event(seq));
        }
        assert!(log.ahead.len() <= AHEAD_EVENTS_MAX);
        assert_eq!(log.missing(Seq::MAX), Some((1, 1)));
        log.arrive(event(1));
        assert_eq!(ready(&mut log).len(), AHEAD_EVENTS_MAX);
        assert_eq!(log.head(), 9_999);
        assert!(log.missing(Seq::MAX).is_some());
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_gives_each_once_in_order(
            arrivals in proptest::collection::vec(1_u32..=40, 0..400)
        ) {
            let mut log = Log::new(1, 0, 40);
            let mut given = Vec::new();
            for seq in arrivals {
                log.arrive(event(seq));
                given.extend(ready(&mut log));
            }
            while let Some((from, to)) = log.missing(Seq::MAX) {
                (from..=to).for_each(|seq| log.arrive(event(seq)));
                given.extend(ready(&mut log));
            }
            prop_assert_eq!(given, (1..=40).collect::<Vec<_>>());
        }
    }
}
