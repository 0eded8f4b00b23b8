//! What came for one connection and its task has not taken yet.
//!
//! Filled by the port's task that receives, emptied by the connection's own. It is bounded in bytes: datagrams above
//! [`BYTES_MAX`] are dropped, which to the connection is a loss like any other. An inbox at rest has no memory beside itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use quinn_proto::ConnectionEvent;

use super::RECEIVE_WINDOW_BYTES;

/// Most bytes of datagrams that wait, each with what is kept beside it: all that a client may send without an answer has room,
/// if it comes in full datagrams.
const BYTES_MAX: usize = RECEIVE_WINDOW_BYTES as usize * 3 / 2;

/// What the port says to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Close: the port does.
    Close,
    /// Nothing comes or goes any more.
    Lost,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox<D = ConnectionEvent> {
    waiting: Mutex<Waiting<D>>,
}

#[derive(Debug)]
struct Waiting<D> {
    datagrams: Vec<D>,
    bytes: usize,
    word: Option<Word>,
    /// Of the task that has not been woken since it last looked.
    waker: Option<Waker>,
}

impl<D> Default for Inbox<D> {
    fn default() -> Inbox<D> {
        Inbox {
            waiting: Mutex::new(Waiting {
                datagrams: Vec::new(),
                bytes: 0,
                word: None,
                waker: None,
            }),
        }
    }
}

impl<D> Inbox<D> {
    fn lock(&self) -> MutexGuard<'_, Waiting<D>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A datagram of `bytes` came. The answer is whom to wake, outside of every lock.
    #[must_use]
    pub(super) fn push(&self, datagram: D, bytes: usize) -> Option<Waker> {
        let mut waiting = self.lock();
        let bytes = waiting.bytes + bytes + size_of::<D>();
        if bytes > BYTES_MAX {
            return None;
        }
        waiting.bytes = bytes;
        waiting.datagrams.push(datagram);
        waiting.waker.take()
    }

    /// Says a word, in place of the one before. The answer is whom to wake.
    #[must_use]
    pub(super) fn say(&self, word: Word) -> Option<Waker> {
        let mut waiting = self.lock();
        waiting.word = Some(word);
        waiting.waker.take()
    }

    /// Everything that came; `waker` is woken by what comes next.
    pub(super) fn take(&self, waker: &Waker) -> (Vec<D>, Option<Word>) {
        let mut waiting = self.lock();
        match &mut waiting.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        waiting.bytes = 0;
        (std::mem::take(&mut waiting.datagrams), waiting.word.take())
    }
}

const _: () = assert!(
    RECEIVE_WINDOW_BYTES as usize / 1_200 * (1_200 + size_of::<ConnectionEvent>()) <= BYTES_MAX
);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn so_much_waits_and_no_more_and_its_task_is_woken_once() {
        let inbox = Inbox::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(inbox.take(&waker).0.is_empty());
        for n in 0..400u64 {
            let wake = inbox.push(n, 1_200);
            wake.into_iter().for_each(Waker::wake);
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let (taken, _) = inbox.take(&waker);
        // The first ones, in order; what came too late is lost.
        let most = (BYTES_MAX / 1_208) as u64;
        assert_eq!(taken, (0..most).collect::<Vec<_>>());
        // What was taken makes room, and an inbox at rest holds nothing.
        assert!(inbox.push(400, 1_200).is_some());
        assert_eq!(inbox.take(&waker).0, [400]);
        assert_eq!(inbox.lock().datagrams.capacity(), 0);
    }

    #[test]
    fn a_word_is_heard_once() {
        let inbox = Inbox::<u64>::default();
        assert!(inbox.say(Word::Close).is_none(), "nobody listens yet");
        assert_eq!(inbox.take(Waker::noop()).1, Some(Word::Close));
        assert_eq!(inbox.take(Waker::noop()).1, None);
        assert!(inbox.say(Word::Lost).is_some());
    }
}
