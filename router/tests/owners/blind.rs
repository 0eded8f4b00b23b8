//! A store whose reads fail: what cannot be read is never taken for "not there".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use conch_router::RouterConfig;
use conch_store::{
    AppendError, Appended, BoxFuture, ChannelSnapshot, EventRow, InboxPage, InboxQuery, InboxRow,
    MemberRow, MemoryStore, MessageStore, Range, ReadError, ReadLimit, Record, Refusal,
    StoreIdentity,
};
use conch_wire::event::{PendingAnswer, PendingSend};
use conch_wire::{AckFlags, ChannelId, Code, MessageKey, Seq, UserId};

use crate::world::{ANNA, BERT, Send, World, by, config, memory};

/// The memory store, until its reads are made to fail.
struct Blind {
    store: MemoryStore,
    fails: AtomicBool,
    loads: AtomicUsize,
}

impl Blind {
    fn or_fail<T: std::marker::Send + 'static>(
        &self,
        read: BoxFuture<Result<T, ReadError>>,
    ) -> BoxFuture<Result<T, ReadError>> {
        if self.fails.load(Ordering::SeqCst) {
            return Box::pin(async { Err(ReadError::Index("unreadable".into())) });
        }
        read
    }
}

impl MessageStore for Blind {
    fn identity(&self) -> StoreIdentity {
        self.store.identity()
    }
    fn admit(&self, bytes: usize) -> Result<(), Refusal> {
        self.store.admit(bytes)
    }
    fn append(&self, batch: Vec<Record>) -> BoxFuture<Result<Appended, AppendError>> {
        self.store.append(batch)
    }
    fn load_channel(
        &self,
        channel: ChannelId,
        tail: usize,
        keys: usize,
    ) -> BoxFuture<Result<Option<ChannelSnapshot>, ReadError>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.or_fail(self.store.load_channel(channel, tail, keys))
    }
    fn read_events(
        &self,
        channel: ChannelId,
        range: Range,
        limit: ReadLimit,
    ) -> BoxFuture<Result<Vec<EventRow>, ReadError>> {
        self.or_fail(self.store.read_events(channel, range, limit))
    }
    fn find_key(
        &self,
        channel: ChannelId,
        sender: UserId,
        key: MessageKey,
    ) -> BoxFuture<Result<Option<EventRow>, ReadError>> {
        self.or_fail(self.store.find_key(channel, sender, key))
    }
    fn member(
        &self,
        channel: ChannelId,
        user: UserId,
    ) -> BoxFuture<Result<Option<MemberRow>, ReadError>> {
        self.or_fail(self.store.member(channel, user))
    }
    fn find_pair(
        &self,
        one: UserId,
        other: UserId,
    ) -> BoxFuture<Result<Option<ChannelId>, ReadError>> {
        self.or_fail(self.store.find_pair(one, other))
    }
    fn inbox_position(&self, user: UserId) -> BoxFuture<Result<u64, ReadError>> {
        self.or_fail(self.store.inbox_position(user))
    }
    fn inbox(
        &self,
        user: UserId,
        query: InboxQuery,
        rows_max: usize,
    ) -> BoxFuture<Result<InboxPage, ReadError>> {
        self.or_fail(self.store.inbox(user, query, rows_max))
    }
    fn inbox_row(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> BoxFuture<Result<Option<InboxRow>, ReadError>> {
        self.or_fail(self.store.inbox_row(user, channel))
    }
    fn id_block_end(&self, space: u8) -> u64 {
        self.store.id_block_end(space)
    }
    fn close(&self) -> BoxFuture<()> {
        self.store.close()
    }
}

fn world(config: RouterConfig) -> (World, Arc<Blind>) {
    let store = memory();
    let blind = Arc::new(Blind {
        store: store.clone(),
        fails: AtomicBool::new(false),
        loads: AtomicUsize::new(0),
    });
    (World::through(config, store, blind.clone()), blind)
}

/// Guards: a key that could not be looked up is not taken for new (`ChannelState::resume_send`), nor for absent
/// (`ChannelState::resume_pending`).
#[tokio::test]
async fn a_key_that_cannot_be_looked_up_is_unknown() {
    let (world, blind) = world(config());
    let channel = world.direct(ANNA, BERT).await;
    blind.fails.store(true, Ordering::SeqCst);
    let retry = Send {
        retry: true,
        ..by(ANNA, 1, channel, 1, "perhaps")
    };
    let refused = world.say(retry).await.unwrap_err();
    assert_eq!(refused.code, Code::OutcomeUnknown);
    let asked = [PendingSend {
        channel,
        key: MessageKey([9; 16]),
    }];
    let answers = world.router.pending(ANNA, None, &asked).await;
    assert_eq!(answers, [PendingAnswer::Unknown]);
    blind.fails.store(false, Ordering::SeqCst);
    let again = Send {
        request: 2,
        ..retry
    };
    assert_eq!(world.say(again).await.unwrap().flags, AckFlags::default());
    world.router.shutdown().await;
}

/// Guards: a failed load says so to those who wait, and is tried again by the next request, never in a circle.
#[tokio::test]
async fn a_channel_that_cannot_be_loaded_is_unavailable_until_it_can() {
    fail::cfg("owner.poison", "return(poison)").unwrap();
    let (world, blind) = world(config());
    let channel = world.direct(ANNA, BERT).await;
    blind.fails.store(true, Ordering::SeqCst);
    // The state is lost, and cannot be had back.
    let lost = world.say(by(ANNA, 1, channel, 1, "poison")).await;
    assert_eq!(lost.unwrap_err().code, Code::OutcomeUnknown);
    let send = world.say(by(ANNA, 1, channel, 2, "x")).await;
    assert_eq!(send.unwrap_err().code, Code::Unavailable);
    // Neither can one that was never loaded; it is not "not found".
    let view = world.router.view(ANNA, ChannelId(5)).await.unwrap_err();
    assert_eq!(view.code, Code::Unavailable);
    let before = blind.loads.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(blind.loads.load(Ordering::SeqCst), before);
    blind.fails.store(false, Ordering::SeqCst);
    let ack = world.say(by(ANNA, 1, channel, 3, "x")).await.unwrap();
    assert_eq!(ack.seq, 2);
    world.router.shutdown().await;
}

/// Guards: a session whose position could not be read is not left registered (`Shard::on_position`).
#[tokio::test]
async fn a_session_that_could_not_register_gets_nothing() {
    let (world, blind) = world(config());
    blind.fails.store(true, Ordering::SeqCst);
    let refused = world.router.register(conch_router::Registration {
        session: conch_wire::SessionId(2),
        user: BERT,
        device: conch_wire::DeviceId(2),
        replaces: None,
    });
    assert_eq!(refused.await.unwrap_err().code, Code::Unavailable);
    blind.fails.store(false, Ordering::SeqCst);
    world.register(BERT, 3).await;
    let channel = world.direct(ANNA, BERT).await;
    let first: Seq = 1;
    world.event(3, channel, first).await;
    assert!(world.pushed(2).is_empty());
    world.router.shutdown().await;
}
