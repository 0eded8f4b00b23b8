//! A router on the memory store, with a link that writes down what sessions are pushed.
//!
//! Nothing here sleeps: everything waits for a condition with a deadline.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use conch_router::{
    ChannelFold, HistoryRequest, HistoryRows, Link, Published, Push, Refused, Registration, Router,
    RouterConfig, SendItem, SendRequest,
};
use conch_store::MemoryStore;
use conch_wire::event::{Ack, Event, SendFlags};
use conch_wire::{ChannelId, DeviceId, MessageKey, Seq, SessionId, UserId};
use smallvec::SmallVec;
use tokio::sync::watch;

/// Long enough for a loaded machine, short enough to notice.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const ANNA: UserId = UserId(1001);
pub(crate) const BERT: UserId = UserId(2002);
pub(crate) const CARL: UserId = UserId(3003);

/// The session whose shard is held up while the gate is locked.
pub(crate) const BUSY: SessionId = SessionId(99);

/// Writes down every push.
#[derive(Debug)]
pub(crate) struct Recorder {
    pushed: Mutex<HashMap<SessionId, Vec<Push>>>,
    changed: watch::Sender<u64>,
    /// While locked, pushes to [`BUSY`] do not return: a shard that does not come round.
    pub(crate) gate: Mutex<()>,
}

impl Link for Recorder {
    fn push(&self, batch: &mut Vec<(SessionId, Push)>) {
        if batch.is_empty() {
            return;
        }
        if batch.iter().any(|(session, _)| *session == BUSY) {
            drop(self.gate.lock().unwrap());
        }
        let mut pushed = self.pushed.lock().unwrap();
        for (session, push) in batch.drain(..) {
            pushed.entry(session).or_default().push(push);
        }
        drop(pushed);
        self.changed.send_modify(|n| *n += 1);
    }
}

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) router: Router,
    pub(crate) link: Arc<Recorder>,
}

pub(crate) fn memory() -> MemoryStore {
    MemoryStore::new(Arc::new(ChannelFold))
}

pub(crate) fn config() -> RouterConfig {
    RouterConfig {
        shards: 2,
        ..RouterConfig::default()
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::with(config(), memory())
    }

    pub(crate) fn with(config: RouterConfig, store: MemoryStore) -> World {
        let owned = Arc::new(store.clone());
        World::through(config, store, owned)
    }

    /// The owners use `owned`, which stands in front of `store`.
    pub(crate) fn through(
        config: RouterConfig,
        store: MemoryStore,
        owned: Arc<dyn conch_store::MessageStore>,
    ) -> World {
        let link = Arc::new(Recorder {
            pushed: Mutex::default(),
            changed: watch::Sender::new(0),
            gate: Mutex::default(),
        });
        let router = Router::start(config, owned, link.clone());
        World {
            store,
            router,
            link,
        }
    }

    pub(crate) async fn register(&self, user: UserId, session: u64) -> u64 {
        self.router
            .register(Registration {
                session: SessionId(session),
                user,
                device: DeviceId(session),
                replaces: None,
            })
            .await
            .unwrap()
            .inbox_position
    }

    pub(crate) async fn direct(&self, by: UserId, other: UserId) -> ChannelId {
        self.router.direct(by, other).await.unwrap().head.channel
    }

    pub(crate) async fn group(&self, by: UserId, members: &[UserId]) -> ChannelId {
        let channel = self.router.next_channel_id().await.unwrap();
        self.router
            .create_group(channel, by, "climbing".into(), members.to_vec())
            .await
            .unwrap();
        channel
    }

    /// Waits until `of` finds what it looks for in the session's pushes.
    pub(crate) async fn until<T>(
        &self,
        session: u64,
        mut of: impl FnMut(&[Push]) -> Option<T>,
    ) -> T {
        let mut changed = self.link.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                {
                    let pushed = self.link.pushed.lock().unwrap();
                    let pushes = pushed.get(&SessionId(session));
                    if let Some(found) = of(pushes.map_or(&[], Vec::as_slice)) {
                        return found;
                    }
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("session {session} has only {:?}", self.pushed(session)),
        }
    }

    pub(crate) fn pushed(&self, session: u64) -> Vec<Push> {
        let pushed = self.link.pushed.lock().unwrap();
        pushed.get(&SessionId(session)).cloned().unwrap_or_default()
    }

    /// The answer to a request: its acks, or the refusal.
    pub(crate) async fn answer(
        &self,
        session: u64,
        request: u32,
    ) -> Result<SmallVec<[Ack; 1]>, Refused> {
        self.until(session, |pushes| {
            pushes.iter().find_map(|push| match push {
                Push::Acked { request: r, acks } if *r == request => Some(Ok(acks.clone())),
                Push::Refused {
                    request: r,
                    refused,
                    ..
                } if *r == request => Some(Err(*refused)),
                _ => None,
            })
        })
        .await
    }

    pub(crate) fn events(&self, session: u64) -> Vec<Published> {
        events_in(&self.pushed(session))
    }

    pub(crate) async fn event(&self, session: u64, channel: ChannelId, seq: Seq) -> Published {
        self.until(session, |pushes| {
            events_in(pushes)
                .into_iter()
                .find(|event| event.channel == channel && event.seq == seq)
        })
        .await
    }

    /// One message, and its ack.
    pub(crate) async fn say(&self, send: Send<'_>) -> Result<Ack, Refused> {
        let (session, request) = (send.session, send.request);
        self.router.send(send.build()).unwrap();
        self.answer(session, request).await.map(|acks| acks[0])
    }

    /// Waits until this many batches wait for the log.
    pub(crate) async fn until_held(&self, batches: usize) {
        eventually("batches held", || self.store.held() >= batches).await;
    }

    pub(crate) async fn history(&self, user: UserId, channel: ChannelId) -> HistoryRows {
        self.router
            .history(user, everything(channel))
            .await
            .unwrap()
    }

    pub(crate) async fn texts(&self, user: UserId, channel: ChannelId) -> Vec<String> {
        texts(&self.history(user, channel).await)
    }
}

pub(crate) fn everything(channel: ChannelId) -> HistoryRequest {
    HistoryRequest {
        channel,
        from: 1,
        to: u32::MAX,
        items_max: 10_000,
        bytes_max: 1 << 30,
        newest_first: false,
    }
}

pub(crate) fn texts(rows: &HistoryRows) -> Vec<String> {
    rows.bodies
        .iter()
        .map(|body| Event::decode_body(body.clone()).unwrap())
        .filter(|event| event.kind < 16)
        .map(|event| event.text().unwrap().to_owned())
        .collect()
}

fn events_in(pushes: &[Push]) -> Vec<Published> {
    pushes
        .iter()
        .filter_map(|push| match push {
            Push::Events(events) => Some(events.iter().cloned()),
            _ => None,
        })
        .flatten()
        .collect()
}

/// A SEND to be made.
#[derive(Clone, Copy)]
pub(crate) struct Send<'a> {
    pub(crate) user: UserId,
    pub(crate) session: u64,
    pub(crate) request: u32,
    pub(crate) channel: ChannelId,
    pub(crate) key: u128,
    pub(crate) text: &'a str,
    pub(crate) retry: bool,
}

impl Send<'_> {
    pub(crate) fn build(self) -> SendRequest {
        send_many(self, &[(self.key, self.text)])
    }
}

pub(crate) fn send_many(send: Send<'_>, items: &[(u128, &str)]) -> SendRequest {
    SendRequest {
        session: SessionId(send.session),
        user: send.user,
        device: DeviceId(send.session),
        request: send.request,
        frame_type: 3,
        channel: send.channel,
        items: items
            .iter()
            .map(|(key, text)| SendItem {
                key: MessageKey(key.to_le_bytes()),
                kind: 1,
                flags: if send.retry {
                    SendFlags::RETRY
                } else {
                    SendFlags::default()
                },
                tail: Bytes::copy_from_slice(text.as_bytes()),
            })
            .collect(),
    }
}

/// A send of `user` on the session of the same number, with a key and request of its own.
pub(crate) fn by(
    user: UserId,
    session: u64,
    channel: ChannelId,
    number: u32,
    text: &str,
) -> Send<'_> {
    Send {
        user,
        session,
        request: number,
        channel,
        key: u128::from(session) << 64 | u128::from(number),
        text,
        retry: false,
    }
}

/// Waits until something holds, without a fixed pause.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, wait).await.is_ok(),
        "never came true: {what}"
    );
}
