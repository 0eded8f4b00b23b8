//! Random lives of a channel's state on the memory store, judged by what is in the log and what was answered.
//!
//! The driver here does what the shard does, one step at a time and in an order that chance picks: requests, lookups
//! answered late, batches taken, committed, the state lost and loaded again. After every step and at the end:
//!
//! * seqs are gapless from 1, times never decrease, ordinals count the messages;
//! * a key of a person has one message with one content, its author a member as of its place;
//! * nothing is acknowledged, viewed or marked beyond what is durable, and an ack names the row it says;
//! * a message that was only ever refused for certain is not in the log;
//! * unread is what counting the messages behind the mark gives;
//! * everybody is answered exactly once.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use conch_store::{
    EventRow, Fold, MemberChange, MemoryStore, MessageStore, Range, ReadLimit, Record,
};
use conch_wire::event::{ChannelKind, SendFlags};
use conch_wire::{ChannelId, Code, DeviceId, MessageKey, SessionId, UserId};
use futures_util::FutureExt;
use proptest::prelude::*;

use super::state::{BATCH_ROWS_MAX, ChannelState};
use super::window::WINDOW_KEYS;
use super::{
    Answer, Ask, Change, Context, Creation, Effects, Known, Lookup, LookupId, Rules, Ticket,
};
use crate::fence::Fences;
use crate::fold::ChannelFold;
use crate::{Push, SendItem, SendRequest};

const CHANNEL: ChannelId = ChannelId(77);
const FOUNDER: UserId = UserId(0);

#[derive(Clone, Debug)]
enum Step {
    Send {
        user: u64,
        items: Vec<(u8, u8)>,
        retry: bool,
    },
    Add {
        user: u64,
    },
    Remove {
        user: u64,
    },
    Leave {
        user: u64,
    },
    Read {
        user: u64,
        seq: u32,
    },
    View {
        user: u64,
    },
    Pending {
        user: u64,
        key: u8,
    },
    TakeBatch,
    Commit,
    Lookup,
    Reload,
    Clock(u64),
    Room(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let user = 0..4u64;
    let items = proptest::collection::vec((0..12u8, 0..2u8), 1..4);
    prop_oneof![
        8 => (user.clone(), items, any::<bool>())
            .prop_map(|(user, items, retry)| Step::Send { user, items, retry }),
        2 => user.clone().prop_map(|user| Step::Add { user }),
        1 => user.clone().prop_map(|user| Step::Remove { user }),
        1 => user.clone().prop_map(|user| Step::Leave { user }),
        2 => (user.clone(), 0..40u32).prop_map(|(user, seq)| Step::Read { user, seq }),
        2 => user.clone().prop_map(|user| Step::View { user }),
        1 => (user, 0..12u8).prop_map(|(user, key)| Step::Pending { user, key }),
        4 => Just(Step::TakeBatch),
        4 => Just(Step::Commit),
        3 => Just(Step::Lookup),
        1 => Just(Step::Reload),
        1 => (0..50u64).prop_map(Step::Clock),
        1 => proptest::bool::weighted(0.8).prop_map(Step::Room),
    ]
}

struct World {
    store: MemoryStore,
    state: ChannelState,
    fences: Fences,
    effects: Effects,
    in_flight: Option<Vec<Record>>,
    lookups: Vec<(LookupId, Lookup)>,
    now_ms: u64,
    has_room: bool,
    last: u32,
    open_sends: HashMap<u32, SendRequest>,
    open_asks: HashSet<Ticket>,
    /// Keys that were acknowledged, or whose outcome is not known: these may be in the log.
    possible: HashSet<(UserId, MessageKey)>,
}

impl World {
    fn new() -> World {
        let store = MemoryStore::new(Arc::new(ChannelFold));
        let mut world = World {
            state: load(&store),
            store,
            fences: Fences::default(),
            effects: Effects::default(),
            in_flight: None,
            lookups: Vec::new(),
            now_ms: 1_000,
            has_room: true,
            last: 0,
            open_sends: HashMap::new(),
            open_asks: HashSet::new(),
            possible: HashSet::new(),
        };
        world.ask(Ask::Create(Creation {
            by: FOUNDER,
            kind: ChannelKind::Group,
            title: "chance".into(),
            others: vec![UserId(1)],
        }));
        world
    }

    fn with(&mut self, step: impl FnOnce(&mut ChannelState, &Context<'_>, &mut Effects)) {
        let refusal = conch_store::Refusal::Overloaded { retry_after_ms: 1 };
        let context = Context {
            now_ms: self.now_ms,
            admission: if self.has_room { Ok(()) } else { Err(refusal) },
            fences: &self.fences,
            behind: 0,
        };
        step(&mut self.state, &context, &mut self.effects);
        self.look_at_effects();
    }

    fn ask(&mut self, ask: Ask) {
        self.last += 1;
        let ticket = u64::from(self.last);
        self.open_asks.insert(ticket);
        self.with(|state, context, effects| state.on_ask(context, ask, ticket, effects));
    }

    fn send(&mut self, user: u64, items: &[(u8, u8)], retry: bool) {
        self.last += 1;
        let flags = if retry {
            SendFlags::RETRY
        } else {
            SendFlags(0)
        };
        let request = SendRequest {
            session: SessionId(user),
            user: UserId(user),
            device: DeviceId(user),
            request: self.last,
            frame_type: 3,
            channel: CHANNEL,
            items: items
                .iter()
                .map(|&(key, content)| SendItem {
                    key: MessageKey([key; 16]),
                    kind: 1,
                    flags,
                    tail: Bytes::from(vec![b'a' + content]),
                })
                .collect(),
        };
        self.open_sends.insert(self.last, request.clone());
        self.with(|state, context, effects| state.on_send(context, request, effects));
    }

    fn rows(&self) -> Vec<EventRow> {
        let log = self.store.log().into_iter();
        log.filter_map(|record| match record {
            Record::Event(row) => Some(row),
            _ => None,
        })
        .collect()
    }

    fn look_at_effects(&mut self) {
        let rows = self.rows();
        let durable = rows.len() as u32;
        for (session, push) in std::mem::take(&mut self.effects.pushes) {
            let (request, outcome) = match push {
                Push::Acked { request, acks } => (request, Ok(acks)),
                Push::Refused {
                    request, refused, ..
                } => (request, Err(refused)),
                other => panic!("a channel does not push {other:?}"),
            };
            let sent = self.open_sends.remove(&request).expect("answered once");
            assert_eq!(sent.session, session);
            let keys = sent.items.iter().map(|item| (sent.user, item.key));
            match outcome {
                Ok(acks) => {
                    assert_eq!(acks.len(), sent.items.len());
                    for (ack, item) in acks.iter().zip(&sent.items) {
                        assert!(ack.seq <= durable, "acknowledged before it is durable");
                        let row = &rows[ack.seq as usize - 1];
                        assert_eq!((row.sender, row.key), (sent.user, item.key));
                        assert_eq!(row.created_ms, ack.time_ms);
                        let content = conch_store::content_hash(item.kind, 0, &item.tail);
                        assert_eq!(row.content_hash, content);
                    }
                    self.possible.extend(keys);
                }
                Err(refused) if refused.code == Code::OutcomeUnknown => self.possible.extend(keys),
                Err(refused) => assert!(usize::from(refused.item) < sent.items.len()),
            }
        }
        for (ticket, answer) in std::mem::take(&mut self.effects.answers) {
            assert!(self.open_asks.remove(&ticket), "answered once");
            let head = match answer {
                Ok(Answer::View(view)) => view.head,
                Ok(Answer::Head(head)) => head,
                _ => continue,
            };
            assert!(head.head_seq <= durable && head.read_seq <= head.head_seq);
            let unread = rows[head.read_seq as usize..head.head_seq as usize]
                .iter()
                .filter(|row| row.kind < 16)
                .count() as u32;
            assert_eq!(head.head_ordinal - head.read_ordinal, unread);
        }
        self.effects.heads.clear();
        self.lookups.append(&mut self.effects.lookups);
    }

    fn take_batch(&mut self) {
        let mut records = Vec::new();
        if let Some(batch) = self.state.take_batch(&mut records) {
            assert!(self.in_flight.is_none(), "one batch in flight");
            assert!(batch.events.len() <= BATCH_ROWS_MAX);
            assert_eq!(batch.records, records.len());
            self.in_flight = Some(records);
        }
    }

    fn commit(&mut self) {
        if let Some(records) = self.in_flight.take() {
            self.store.append(records).now_or_never().unwrap().unwrap();
            self.with(|state, _, effects| state.on_committed(effects));
        }
    }

    fn look_up(&mut self) {
        if self.lookups.is_empty() {
            return;
        }
        let (id, lookup) = self.lookups.remove(0);
        let found = match lookup {
            Lookup::Key { sender, key } => {
                let row = self.store.find_key(CHANNEL, sender, key);
                row.now_or_never().unwrap().unwrap()
            }
            Lookup::Row(seq) => {
                let range = Range {
                    from: seq,
                    to: seq,
                    newest_first: false,
                };
                let one = ReadLimit {
                    events: 1,
                    bytes: 0,
                };
                let rows = self.store.read_events(CHANNEL, range, one);
                rows.now_or_never().unwrap().unwrap().pop()
            }
        };
        let known = found.as_ref().map(Known::of);
        self.with(|state, context, effects| state.on_found(context, id, Ok(known), effects));
    }

    /// The state is lost as by a panic: its batch settles, then it is loaded from the log.
    fn reload(&mut self) {
        self.state.give_up(&mut self.effects);
        self.look_at_effects();
        self.lookups.clear();
        if let Some(records) = self.in_flight.take() {
            self.store.append(records).now_or_never().unwrap().unwrap();
        }
        self.state = load(&self.store);
    }

    fn settle(&mut self) {
        self.has_room = true;
        while !self.state.is_quiet() || self.in_flight.is_some() {
            self.take_batch();
            self.commit();
            self.look_up();
        }
    }

    fn run(&mut self, step: Step) {
        let by = FOUNDER;
        match step {
            Step::Send { user, items, retry } => self.send(user, &items, retry),
            Step::Add { user } => self.ask(Ask::Change(Change::Add {
                by,
                users: vec![UserId(user)],
            })),
            Step::Remove { user } => self.ask(Ask::Change(Change::Remove {
                by,
                user: UserId(user),
            })),
            Step::Leave { user } => self.ask(Ask::Change(Change::Leave { user: UserId(user) })),
            Step::Read { user, seq } => self.ask(Ask::Read {
                user: UserId(user),
                seq,
            }),
            Step::View { user } => self.ask(Ask::View { user: UserId(user) }),
            Step::Pending { user, key } => self.ask(Ask::Pending {
                user: UserId(user),
                keys: vec![MessageKey([key; 16])],
            }),
            Step::TakeBatch => self.take_batch(),
            Step::Commit => self.commit(),
            Step::Lookup => self.look_up(),
            Step::Reload => self.reload(),
            Step::Clock(now_ms) => self.now_ms = 980 + now_ms,
            Step::Room(has_room) => self.has_room = has_room,
        }
    }

    fn check_log(&self) {
        let (mut ordinal, mut time_ms) = (0, 0);
        let mut keys = HashSet::new();
        let mut members = HashSet::new();
        for (index, row) in self.rows().iter().enumerate() {
            assert_eq!(row.seq as usize, index + 1);
            assert!(row.created_ms >= time_ms);
            time_ms = row.created_ms;
            let effect = ChannelFold.effect(row);
            if effect.is_message {
                ordinal += 1;
                let key = (row.sender, row.key);
                assert!(keys.insert(key), "one message per key");
                assert!(self.possible.contains(&key), "it was refused for certain");
                assert!(members.contains(&row.sender), "its author was in");
            }
            assert_eq!(row.ordinal, ordinal);
            for change in effect.members {
                match change {
                    MemberChange::Join { user, .. } => assert!(members.insert(user)),
                    MemberChange::Leave { user } => assert!(members.remove(&user)),
                }
            }
        }
    }
}

fn load(store: &MemoryStore) -> ChannelState {
    let rules = Rules {
        members_max: 10,
        // Short, so that much is looked up.
        tail_events: 3,
        shards: 2,
    };
    let snapshot = store
        .load_channel(CHANNEL, rules.tail_events, WINDOW_KEYS)
        .now_or_never()
        .unwrap()
        .unwrap();
    ChannelState::load(CHANNEL, 1, rules, snapshot)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_channel_keeps_its_promises(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.settle();
        prop_assert!(world.open_sends.is_empty(), "every send is answered");
        prop_assert!(world.open_asks.is_empty(), "every question is answered");
        world.check_log();
        // What is in memory and what a replay derives are the same.
        let loaded = load(&world.store);
        for user in (0..4).map(UserId) {
            let derived = loaded.roster.committed(user);
            let held = world.state.roster.committed(user);
            // Where somebody left is known by seq after a load, and its ordinal looked up.
            let held = held.map(|member| super::roster::Member { left_ordinal: None, ..*member });
            prop_assert_eq!(derived.copied(), held);
        }
        prop_assert_eq!(&loaded.meta, &world.state.meta);
        prop_assert_eq!(loaded.committed, world.state.committed);
    }
}
