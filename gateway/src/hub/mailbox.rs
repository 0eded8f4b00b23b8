//! A session's mailbox: what owners pushed and the session has not taken yet.
//!
//! Filled by the hub (on an owner's thread, never waiting), drained by the session's task. Bounded in events and bytes by
//! the same rule as the connection itself: what does not fit is dropped and its channel **marked**, and the session owes a
//! head for every mark. Acks and refusals are never dropped: a session has at most `SENDS_IN_FLIGHT_MAX` sends without an
//! answer. Signals (time, close, drain) are flags, so they cost nothing however often they come.
//!
//! Invariant: an event that was pushed is in the queue, or its channel is in the marks, or `mark_all` is set, until the
//! session has drained it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use conch_router::{Published, Push};
use conch_wire::limits::HEADS_WAITING_MAX;
use conch_wire::{ChannelId, Code, SessionId, UserId};
use futures_util::task::AtomicWaker;

use crate::session::marks::Marks;

/// Most events and heads that wait.
const PUSHES_MAX: usize = 512;
/// Most bytes of event bodies that wait.
const BYTES_MAX: usize = 32_768;

/// Orders from the node to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Signals {
    /// Look at your deadlines.
    pub tick: bool,
    /// End with this code.
    pub close: Option<Code>,
    /// Tell the client that the node goes away, with this window in milliseconds.
    pub goaway: Option<(u32, u32)>,
}

/// What a drain hands over.
#[derive(Debug, Default)]
pub struct Drained {
    /// In the order of pushing.
    pub pushes: Vec<Push>,
    /// Channels whose events were dropped.
    pub marks: Vec<ChannelId>,
    /// Of those: channels that the user left by a dropped event.
    pub left: Vec<ChannelId>,
    /// So much was dropped that the channels are not known any more.
    pub mark_all: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    pushes: Vec<Push>,
    /// Events and heads in `pushes`.
    counted: usize,
    bytes: usize,
    marks: Marks,
    left: Vec<ChannelId>,
    mark_all: bool,
    signals: Signals,
}

/// See the module.
#[derive(Debug)]
pub struct Mailbox {
    pub session: SessionId,
    /// 0 until the session is authenticated.
    user: AtomicU64,
    waiting: Mutex<Waiting>,
    /// Something came since the session last asked; whoever sets it wakes the session.
    filled: AtomicBool,
    waker: AtomicWaker,
}

impl Mailbox {
    pub fn new(session: SessionId) -> Mailbox {
        Mailbox {
            session,
            user: AtomicU64::new(0),
            waiting: Mutex::default(),
            filled: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Whose session it is, before the session registers with the owner.
    pub fn set_user(&self, user: UserId) {
        self.user.store(user.0, Ordering::Release);
    }

    /// Whose session it was, once: who takes it unregisters the session.
    pub fn take_user(&self) -> UserId {
        UserId(self.user.swap(0, Ordering::AcqRel))
    }

    /// Never waits for the session. Wakes its task, unless an earlier push has and the task has not looked yet.
    pub fn push(&self, push: Push) {
        let user = UserId(self.user.load(Ordering::Acquire));
        self.lock().put(push, user);
        self.tell();
    }

    /// Sets signals and wakes the session.
    pub fn signal(&self, set: impl FnOnce(&mut Signals)) {
        set(&mut self.lock().signals);
        self.tell();
    }

    fn tell(&self) {
        if !self.filled.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Whether anything came since the last call. Register before it; take what came after it.
    pub fn take_filled(&self) -> bool {
        // The load spares the common "no" a write to a line that owners write to.
        self.filled.load(Ordering::Acquire) && self.filled.swap(false, Ordering::AcqRel)
    }

    /// Takes the signals.
    pub fn take_signals(&self) -> Signals {
        std::mem::take(&mut self.lock().signals)
    }

    /// Takes everything that waits, memory included: an idle session holds none.
    pub fn drain(&self) -> Drained {
        let mut waiting = self.lock();
        let pushes = std::mem::take(&mut waiting.pushes);
        waiting.counted = 0;
        waiting.bytes = 0;
        let mut marks = Vec::new();
        while let Some(channel) = waiting.marks.pop() {
            marks.push(channel);
        }
        Drained {
            pushes,
            marks,
            left: std::mem::take(&mut waiting.left),
            mark_all: std::mem::take(&mut waiting.mark_all),
        }
    }

    /// Wakes `waker` at the next push or signal. Look once more after this call.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half-way; a poisoned lock still guards a whole value.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn put(&mut self, push: Push, user: UserId) {
        match push {
            Push::Acked { .. } | Push::Refused { .. } => self.pushes.push(push),
            Push::Close(code) => {
                self.signals.close.get_or_insert(code);
            }
            Push::Head(head) if self.counted < PUSHES_MAX && !self.is_marked(head.channel) => {
                self.counted += 1;
                self.pushes.push(push);
            }
            Push::Head(head) => self.mark(head.channel),
            Push::Events(events) => self.put_events(events, user),
        }
    }

    /// Keeps those at the front that there is room for, and marks their channel for the others.
    fn put_events(&mut self, events: Arc<[Published]>, user: UserId) {
        let Some(channel) = events.first().map(|event| event.channel) else {
            return;
        };
        let mut fit = 0;
        if !self.is_marked(channel) {
            while let Some(event) = events.get(fit)
                && self.counted < PUSHES_MAX
                && (self.bytes == 0 || self.bytes + event.body.len() <= BYTES_MAX)
            {
                self.counted += 1;
                self.bytes += event.body.len();
                fit += 1;
            }
        }
        if fit == events.len() {
            return self.pushes.push(Push::Events(events));
        }
        if fit > 0 {
            self.pushes.push(Push::Events(events[..fit].into()));
        }
        for event in &events[fit..] {
            if event.left.contains(&user) && self.left.len() < HEADS_WAITING_MAX {
                self.left.push(channel);
            }
        }
        self.mark(channel);
    }

    fn is_marked(&self, channel: ChannelId) -> bool {
        self.mark_all || self.marks.contains(channel)
    }

    fn mark(&mut self, channel: ChannelId) {
        if self.mark_all {
            return;
        }
        self.marks.insert(channel);
        if self.marks.len() > HEADS_WAITING_MAX {
            self.marks.clear();
            self.mark_all = true;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;
    use bytes::Bytes;
    use conch_wire::event::ChannelKind;
    use proptest::prelude::*;
    use smallvec::SmallVec;
    use std::collections::HashMap;

    fn events(channel: u64, seqs: std::ops::Range<u32>, bytes: usize) -> Push {
        let event = |seq| Published {
            channel: ChannelId(channel),
            channel_kind: ChannelKind::Group,
            seq,
            ordinal: seq,
            position: 0,
            kind: 1,
            author: UserId(1),
            origin: None,
            left: SmallVec::new(),
            body: Bytes::from(vec![0; bytes]),
        };
        Push::Events(seqs.map(event).collect())
    }

    proptest! {
        #[test]
        fn every_event_is_drained_or_its_channel_is_marked(
            steps in prop::collection::vec((1u64..1_400, 1u32..5, 1usize..30_000, 0u8..40), 1..2_500),
        ) {
            let mailbox = Mailbox::new(SessionId(1));
            let mut next: HashMap<u64, u32> = HashMap::new();
            // Seqs pushed and not yet accounted for, per channel.
            let mut open: HashMap<u64, Vec<u32>> = HashMap::new();
            for (channel, count, bytes, drain) in steps {
                let next = next.entry(channel).or_insert(1);
                let seqs = *next..*next + count;
                *next += count;
                mailbox.push(events(channel, seqs.clone(), bytes));
                open.entry(channel).or_default().extend(seqs);
                prop_assert!(mailbox.lock().bytes <= BYTES_MAX.max(30_000));
                prop_assert!(mailbox.lock().counted <= PUSHES_MAX);
                if drain == 0 {
                    let drained = mailbox.drain();
                    let mut seen: HashMap<u64, u32> = HashMap::new();
                    let all = drained.pushes.iter().flat_map(|push| match push {
                        Push::Events(events) => &events[..],
                        _ => unreachable!(),
                    });
                    for event in all {
                        prop_assert!(seen.insert(event.channel.0, event.seq).is_none_or(|last| last + 1 == event.seq));
                        let seqs = open.get_mut(&event.channel.0).unwrap();
                        prop_assert_eq!(seqs.remove(0), event.seq);
                    }
                    for channel in drained.marks {
                        open.remove(&channel.0);
                    }
                    if drained.mark_all {
                        open.clear();
                    }
                    prop_assert!(open.values().all(Vec::is_empty));
                }
            }
        }
    }

    #[test]
    fn acks_and_signals_pass_a_full_mailbox() {
        let mailbox = Mailbox::new(SessionId(1));
        for seq in 1..=1_000 {
            mailbox.push(events(1, seq..seq + 1, 1_000));
        }
        mailbox.push(Push::Acked {
            request: 9,
            acks: SmallVec::new(),
        });
        mailbox.push(Push::Close(Code::SessionReplaced));
        mailbox.push(Push::Close(Code::GoingAway));
        assert_eq!(mailbox.take_signals().close, Some(Code::SessionReplaced));
        let drained = mailbox.drain();
        assert!(matches!(
            drained.pushes.last(),
            Some(Push::Acked { request: 9, .. })
        ));
        assert_eq!(drained.marks, [ChannelId(1)]);
    }
}
