//! Properties of the session's pure half against a model of owners and a client that grants what it used.

#![allow(clippy::unwrap_used)] // a test ends at the first surprise

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use conch_router::{ChannelView, HistoryRequest, HistoryRows, Published, Push, SyncRows};
use conch_wire::event::{ChannelKind, Event, EventFlags, MemberRole};
use conch_wire::frame::{
    ChannelHead, ClientFrame, Cursor, Hello, PushMode, ServerFrame, split_frame,
};
use conch_wire::{ChannelId, Code, DeviceId, FrameHeader, Seq, SessionId, UserId, limits};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::effect::{Admission, Answer, Effect, Identity, ViewFor};
use super::state::{Session, SessionConfig};
use super::sync_token::InboxIdentity;
use crate::bucket::Rate;

const ME: UserId = UserId(7);
const HERE: SessionId = SessionId(99);
const GENERATION: u32 = 3;

fn config() -> Arc<SessionConfig> {
    let rate = Rate {
        per_s: 1_000_000,
        burst: 1_000_000,
    };
    Arc::new(SessionConfig {
        node: "test".to_owned(),
        inbox: InboxIdentity {
            generation: GENERATION,
            incarnation: 1,
        },
        group_members_max: 500,
        sends: rate,
        frames: rate,
    })
}

/// Owners: a head per channel and the events that lead to it.
#[derive(Default)]
struct Owners {
    channels: HashMap<ChannelId, Vec<Bytes>>,
}

impl Owners {
    fn publish(&mut self, channel: ChannelId, text_bytes: usize, own: bool) -> Published {
        let events = self.channels.entry(channel).or_default();
        let seq = events.len() as Seq + 1;
        let body = Event {
            author: UserId(8),
            seq,
            time_ms: 1_000,
            kind: 1,
            flags: EventFlags::default(),
            tail: Bytes::from(vec![b'x'; text_bytes]),
        }
        .encode_body();
        events.push(body.clone());
        Published {
            channel,
            channel_kind: ChannelKind::Group,
            seq,
            ordinal: seq,
            position: 0,
            kind: 1,
            author: UserId(8),
            origin: own.then_some(HERE),
            left: SmallVec::new(),
            body,
        }
    }

    fn head(&self, channel: ChannelId) -> Seq {
        self.channels.get(&channel).map_or(0, |e| e.len() as Seq)
    }

    fn view(&self, channel: ChannelId) -> ChannelView {
        let head = self.head(channel);
        ChannelView {
            head: ChannelHead {
                channel,
                head_seq: head,
                head_ordinal: head,
                read_seq: 0,
                read_ordinal: 0,
                mentions: 0,
            },
            kind: ChannelKind::Group,
            title: "t".to_owned(),
            peer: None,
            first_seq: 1,
            left_seq: None,
            role: MemberRole::Member,
            members: 2,
        }
    }

    fn history(&self, request: &HistoryRequest) -> HistoryRows {
        let events = &self.channels[&request.channel];
        let to = request.to.min(events.len() as Seq);
        let mut bodies = Vec::new();
        let mut bytes = 0;
        for seq in request.from..=to {
            let body = &events[seq as usize - 1];
            bytes += body.len();
            if !bodies.is_empty()
                && (bytes > request.bytes_max || bodies.len() >= request.items_max)
            {
                break;
            }
            bodies.push(body.clone());
        }
        HistoryRows {
            covered_from: request.from,
            covered_to: request.from + bodies.len() as Seq - 1,
            first_seq: 1,
            head_seq: events.len() as Seq,
            bodies,
        }
    }
}

/// What a client knows, by the rules of the protocol.
#[derive(Default)]
struct Client {
    aliases: HashMap<u32, ChannelId>,
    /// Last seq held without a gap.
    held: HashMap<ChannelId, Seq>,
    /// Ahead of a gap.
    ahead: HashMap<ChannelId, HashSet<Seq>>,
    /// Highest seq heard of.
    heard: HashMap<ChannelId, Seq>,
    window: u32,
    used: u32,
    granted: u64,
    charged: u64,
    sync_now: bool,
    synced: bool,
    welcomed: bool,
    opened_requests: Vec<u32>,
    errors: Vec<(u32, Code)>,
}

impl Client {
    fn new(window: u32) -> Client {
        Client {
            window,
            granted: u64::from(window),
            ..Client::default()
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let split = split_frame(bytes, limits::FRAME_BYTES_MAX)
                .unwrap()
                .unwrap();
            let size = split.consumed as u32;
            let frame =
                ServerFrame::decode(split.header, Bytes::copy_from_slice(split.body)).unwrap();
            self.on_frame(frame, size);
            bytes = &bytes[split.consumed..];
        }
    }

    fn on_frame(&mut self, frame: ServerFrame, size: u32) {
        match frame {
            ServerFrame::Welcome(_) => self.welcomed = true,
            ServerFrame::Deliver { alias, event } | ServerFrame::Event { alias, event } => {
                assert!(
                    self.charged < self.granted,
                    "a charged frame without credit"
                );
                self.charged += u64::from(size);
                self.used += size;
                let channel = self.aliases[&alias];
                self.hear(channel, event.seq);
                let held = self.held.entry(channel).or_default();
                let ahead = self.ahead.entry(channel).or_default();
                if event.seq > *held {
                    ahead.insert(event.seq);
                }
                while ahead.remove(&(*held + 1)) {
                    *held += 1;
                }
            }
            ServerFrame::ChannelHead(head) => self.hear(head.channel, head.head_seq),
            ServerFrame::ChannelOpened { request, opened } => {
                self.aliases.insert(opened.alias, opened.head.channel);
                self.hear(opened.head.channel, opened.head.head_seq);
                self.opened_requests.push(request);
            }
            ServerFrame::SyncNow => self.sync_now = true,
            ServerFrame::SyncChanges { .. } => self.synced = true,
            ServerFrame::Error { request, error } => self.errors.push((request, error.code)),
            _ => {}
        }
    }

    fn hear(&mut self, channel: ChannelId, seq: Seq) {
        let heard = self.heard.entry(channel).or_default();
        *heard = (*heard).max(seq);
    }

    /// The grant that is due, if half of the window is used.
    fn grant(&mut self) -> Option<u32> {
        if u64::from(self.used) * 2 >= u64::from(self.window) && self.used > 0 {
            let bytes = std::mem::take(&mut self.used);
            self.granted += u64::from(bytes);
            return Some(bytes);
        }
        None
    }
}

/// A session between the two models.
struct World {
    session: Session,
    owners: Owners,
    client: Client,
    effects: VecDeque<Effect>,
    /// Bytes that are with the socket and the client has not read.
    in_flight: VecDeque<Bytes>,
    now_ms: u64,
    syncs: usize,
}

impl World {
    fn new(window: u32, push: PushMode, cursors: Vec<Cursor>, owners: Owners) -> World {
        let mut world = World {
            session: Session::new(HERE, config(), 0),
            owners,
            client: Client::new(window),
            effects: VecDeque::new(),
            in_flight: VecDeque::new(),
            now_ms: 0,
            syncs: 0,
        };
        for cursor in &cursors {
            world.client.held.insert(cursor.channel, cursor.seq);
        }
        world.send(&ClientFrame::Hello(Hello {
            token: "t".to_owned(),
            credit_bytes: window,
            push,
            cursors,
            ..Hello::default()
        }));
        world.drain_effects();
        world.answer_all();
        world
    }

    fn send(&mut self, frame: &ClientFrame<'_>) {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        let chunk = out.freeze();
        let split = split_frame(&chunk, limits::FRAME_BYTES_MAX)
            .unwrap()
            .unwrap();
        let (header, body): (FrameHeader, &[u8]) = (split.header, split.body);
        self.session.on_frame(self.now_ms, header, body, &chunk);
        self.drain_effects();
    }

    fn drain_effects(&mut self) {
        self.session.pump(self.now_ms);
        self.effects.extend(self.session.take_effects());
    }

    /// Answers the `nth` effect that waits.
    fn answer_nth(&mut self, nth: usize) {
        let Some(effect) = self.effects.remove(nth) else {
            return;
        };
        let answer = match effect {
            Effect::Admit(_) => Answer::Decided(Ok(Admission {
                identity: Identity {
                    user: ME,
                    device: DeviceId(1),
                    expires_ms: 900_000,
                },
                inbox_position: 0,
                pending: Vec::new(),
                wall_ms: 0,
            })),
            Effect::View { channel, purpose } => Answer::View {
                channel,
                purpose,
                result: Ok(self.owners.view(channel)),
            },
            Effect::Page { request, purpose } => Answer::Page {
                result: Ok(self.owners.history(&request)),
                request,
                purpose,
            },
            Effect::Sync { request, place, .. } => {
                self.syncs += 1;
                Answer::Sync {
                    request,
                    place,
                    result: Ok(SyncRows::default()),
                }
            }
            other => panic!("not asked for: {other:?}"),
        };
        self.session.on_answer(self.now_ms, answer);
        self.drain_effects();
    }

    fn answer_all(&mut self) {
        while !self.effects.is_empty() {
            self.answer_nth(0);
        }
    }

    fn push(&mut self, channel: u64, bytes: usize, own: bool) {
        let event = self.owners.publish(ChannelId(channel), bytes, own);
        if own {
            // The ack tells its sender the place.
            self.client.hear(event.channel, event.seq);
            let held = self.client.held.entry(event.channel).or_default();
            self.client
                .ahead
                .entry(event.channel)
                .or_default()
                .insert(event.seq);
            let ahead = self.client.ahead.get_mut(&event.channel).unwrap();
            while ahead.remove(&(*held + 1)) {
                *held += 1;
            }
        }
        if self.session.may_take_pushes() {
            self.session.on_push(Push::Events([event].into()));
        } else {
            // The mailbox is full: it collapses by the same rule.
            self.session.on_collapsed(&[ChannelId(channel)], &[], false);
        }
        self.drain_effects();
    }

    /// The socket takes a chunk.
    fn write_chunk(&mut self) {
        if let Some(chunk) = self.session.outbound().take_chunk() {
            self.in_flight.push_back(chunk);
        }
    }

    /// The client reads a chunk and grants what is due.
    fn read_chunk(&mut self) {
        let Some(chunk) = self.in_flight.pop_front() else {
            return;
        };
        self.session.outbound().sent(chunk.len());
        self.client.take(&chunk);
        if let Some(bytes) = self.client.grant() {
            self.send(&ClientFrame::Credit { bytes });
        }
        self.drain_effects();
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let before = (self.effects.len(), self.in_flight.len());
            self.answer_all();
            self.write_chunk();
            self.read_chunk();
            if before == (0, 0) && self.in_flight.is_empty() && self.effects.is_empty() {
                let unsent = self.session.outbound().unsent_bytes();
                if unsent == 0 {
                    return;
                }
            }
        }
        panic!("it never settles");
    }

    /// Everything there is was pushed, or the client was told that there is more.
    fn check_nothing_lost(&mut self) {
        assert!(
            !self.session.outbound().has_marks(),
            "a mark waits and nobody moves"
        );
        assert_eq!(self.session.ending(), None);
        if self.client.sync_now {
            return;
        }
        for channel in self.owners.channels.keys() {
            let head = self.owners.head(*channel);
            let held = self.client.held.get(channel).copied().unwrap_or(0);
            let heard = self.client.heard.get(channel).copied().unwrap_or(0);
            assert!(
                held == head || heard == head,
                "{channel:?}: head {head}, held {held}, heard {heard}"
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        channel: u64,
        bytes: usize,
        own: bool,
    },
    Answer(usize),
    Write,
    Read,
    Close(usize),
    Open {
        channel: u64,
        alias: u32,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1u64..8, 0usize..6_000, any::<bool>())
            .prop_map(|(channel, bytes, own)| Step::Push { channel, bytes, own: own && bytes % 3 == 0 }),
        3 => (0usize..4).prop_map(Step::Answer),
        2 => Just(Step::Write),
        2 => Just(Step::Read),
        1 => (0usize..4).prop_map(Step::Close),
        1 => (1u64..8, 100u32..120).prop_map(|(channel, alias)| Step::Open { channel, alias }),
    ];
    prop::collection::vec(step, 0..200)
}

fn run(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Push {
                channel,
                bytes,
                own,
            } => world.push(channel, bytes, own),
            Step::Answer(nth) => world.answer_nth(nth),
            Step::Write => world.write_chunk(),
            Step::Read => world.read_chunk(),
            Step::Close(nth) => {
                let mut aliases: Vec<u32> = world.client.aliases.keys().copied().collect();
                aliases.sort_unstable();
                if let Some(alias) = aliases.get(nth).copied() {
                    world.send(&ClientFrame::CloseChannel { alias });
                }
            }
            Step::Open { channel, alias } => {
                let channel = ChannelId(channel);
                let seq = world.client.held.get(&channel).copied().unwrap_or(0);
                world.send(&ClientFrame::OpenChannel {
                    request: 1,
                    cursor: Cursor {
                        channel,
                        generation: GENERATION,
                        seq,
                        alias,
                    },
                });
            }
        }
    }
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Credit: whatever the sizes and grants, no state in which both sides wait; and nothing is lost.
    #[test]
    fn both_sides_never_wait_and_nothing_is_lost(
        steps in steps(),
        window in prop_oneof![1u32..200, 1_000u32..20_000, Just(limits::CREDIT_BYTES)],
        opened in any::<bool>(),
        cursors in prop::collection::btree_map(1u64..8, 0u32..30, 0..4),
    ) {
        let push = if opened { PushMode::Opened } else { PushMode::All };
        let mut owners = Owners::default();
        for (channel, seq) in &cursors {
            for _ in 0..*seq + 5 {
                owners.publish(ChannelId(*channel), 20, false);
            }
        }
        let cursors = cursors
            .iter()
            .enumerate()
            .map(|(i, (channel, seq))| Cursor {
                channel: ChannelId(*channel),
                generation: GENERATION,
                seq: *seq,
                alias: i as u32 + 1,
            })
            .collect();
        let mut world = World::new(window, push, cursors, owners);
        run(&mut world, steps);
        world.check_nothing_lost();
        prop_assert!(world.client.synced);
    }
}

#[test]
fn more_than_a_thousand_marks_become_one_sync_now() {
    for (channels, all) in [(1_000, false), (1_001, true)] {
        let mut world = World::new(1, PushMode::All, Vec::new(), Owners::default());
        world.settle();
        world.push(1, 10, false);
        // The credit is used up, and the client does not read.
        world.answer_all();
        world.write_chunk();
        for channel in 2..=channels + 1 {
            world.push(channel, 10, false);
        }
        world.settle();
        assert_eq!(world.client.sync_now, all);
        world.check_nothing_lost();
    }
}

fn world() -> World {
    let mut world = World::new(0, PushMode::All, Vec::new(), Owners::default());
    world.client = Client {
        welcomed: world.client.welcomed,
        ..Client::new(limits::CREDIT_BYTES)
    };
    world.settle();
    world
}

#[test]
fn events_that_come_while_a_channel_opens_follow_it_in_order() {
    let mut owners = Owners::default();
    for _ in 0..10 {
        owners.publish(ChannelId(1), 10, false);
    }
    let cursor = Cursor {
        channel: ChannelId(1),
        generation: GENERATION,
        seq: 4,
        alias: 1,
    };
    let mut world = World::new(0, PushMode::All, Vec::new(), owners);
    world.client.granted = u64::from(limits::CREDIT_BYTES);
    world.client.held.insert(ChannelId(1), 4);
    world.send(&ClientFrame::OpenChannel { request: 5, cursor });
    world.push(1, 10, false);
    world.answer_nth(0);
    world.push(1, 10, false);
    world.settle();
    assert_eq!(world.client.held[&ChannelId(1)], 12);
    assert!(world.client.ahead[&ChannelId(1)].is_empty());
    assert_eq!(world.client.opened_requests, [5]);
}

#[test]
fn a_cursor_of_another_generation_or_beyond_the_head_is_void() {
    for (generation, seq, void) in [
        (GENERATION, 4, false),
        (GENERATION, 11, true),
        (GENERATION + 1, 4, true),
        (0, 0, false),
    ] {
        let mut owners = Owners::default();
        for _ in 0..10 {
            owners.publish(ChannelId(1), 10, false);
        }
        let cursor = Cursor {
            channel: ChannelId(1),
            generation,
            seq,
            alias: 1,
        };
        let mut world = World::new(0, PushMode::All, vec![cursor], owners);
        let mut frames = Vec::new();
        while let Some(chunk) = world.session.outbound().take_chunk() {
            let mut rest = chunk.clone();
            while !rest.is_empty() {
                let split = split_frame(&rest, limits::FRAME_BYTES_MAX)
                    .unwrap()
                    .unwrap();
                let body = rest.slice_ref(split.body);
                frames.push(ServerFrame::decode(split.header, body).unwrap());
                rest = rest.slice(split.consumed..);
            }
        }
        let opened = frames.iter().find_map(|f| match f {
            ServerFrame::ChannelOpened { opened, .. } => Some(opened.resync),
            _ => None,
        });
        assert_eq!(opened, Some(void));
        let delivered = frames
            .iter()
            .filter(|f| matches!(f, ServerFrame::Deliver { .. }))
            .count();
        let expected = if generation == GENERATION && !void {
            6
        } else {
            0
        };
        assert_eq!(delivered, expected);
        assert!(matches!(
            frames.last(),
            Some(ServerFrame::SyncChanges { .. })
        ));
    }
}

#[test]
fn the_sender_of_a_message_gets_no_event_of_it() {
    let mut world = world();
    world.push(1, 10, false);
    world.settle();
    world.push(1, 10, true);
    world.push(1, 10, false);
    world.settle();
    assert_eq!(world.client.held[&ChannelId(1)], 3);
    assert!(world.client.charged < 3 * 38);
}

#[test]
fn after_leaving_the_alias_is_closed_for_good() {
    let mut world = world();
    world.push(1, 10, false);
    world.settle();
    let alias = *world.client.aliases.keys().next().unwrap();
    let event = world.owners.publish(ChannelId(1), 10, false);
    let mut last = event;
    last.left.push(ME);
    world.session.on_push(Push::Events([last].into()));
    world.settle();
    assert_eq!(
        world.client.held[&ChannelId(1)],
        2,
        "the last event is delivered"
    );
    let send = conch_wire::frame::Send {
        key: conch_wire::MessageKey([1; 16]),
        alias,
        kind: 1,
        flags: conch_wire::event::SendFlags::default(),
        tail: b"still here?",
    };
    world.send(&ClientFrame::Send { request: 3, send });
    world.settle();
    assert_eq!(world.client.errors, [(3, Code::BadAlias)]);
}

#[test]
fn a_head_that_cannot_be_read_is_asked_for_again() {
    let mut world = World::new(1, PushMode::Opened, Vec::new(), Owners::default());
    world.settle();
    world.push(1, 10, false);
    let effect = world.effects.pop_front().unwrap();
    let Effect::View { channel, purpose } = effect else {
        panic!("{effect:?}")
    };
    assert_eq!(purpose, ViewFor::Head);
    let refused = conch_router::Refused {
        code: Code::Overloaded,
        retry_after_ms: 100,
        item: 0,
        detail: "busy",
    };
    world.session.on_answer(
        0,
        Answer::View {
            channel,
            purpose,
            result: Err(refused),
        },
    );
    world.drain_effects();
    assert!(world.effects.is_empty(), "not at once");
    assert!(world.session.deadline_ms() <= 1_000);
    world.now_ms = 1_000;
    world.session.on_tick(1_000);
    world.drain_effects();
    world.settle();
    world.check_nothing_lost();
}

#[test]
fn a_flood_is_refused_with_advice_and_then_closed() {
    let rate = Rate {
        per_s: 10,
        burst: 20,
    };
    let config = Arc::new(SessionConfig {
        frames: rate,
        ..(*config()).clone()
    });
    let mut world = world();
    let mut session = Session::new(HERE, config, 0);
    std::mem::swap(&mut world.session, &mut session);
    world.client.welcomed = false;
    world.send(&ClientFrame::Hello(Hello {
        token: "t".to_owned(),
        ..Hello::default()
    }));
    world.answer_all();
    for nonce in 0..200 {
        if world.session.ending().is_some() {
            break;
        }
        world.send(&ClientFrame::Ping { nonce });
        // What is unanswered would stop the reading; here only the refusals count.
        if world.effects.pop_front().is_some() {
            let position = None;
            world
                .session
                .on_answer(0, Answer::Position { nonce, position });
        }
    }
    assert_eq!(world.session.ending().unwrap().code, Some(Code::Flooding));
    while let Some(chunk) = world.session.outbound().take_chunk() {
        world.client.take(&chunk);
    }
    let refused = world
        .client
        .errors
        .iter()
        .filter(|(_, code)| *code == Code::RateLimited)
        .count();
    assert!(refused >= 50, "{refused}");
}

#[test]
fn deadlines_of_a_session() {
    let mut session = Session::new(HERE, config(), 1_000);
    assert_eq!(session.deadline_ms(), 6_000);
    session.on_tick(5_999);
    assert_eq!(session.ending(), None);
    session.on_tick(6_000);
    assert_eq!(session.ending().unwrap().code, Some(Code::HelloTimeout));

    let mut world = world();
    // The token ends at 900 s: told at 840 s, closed at 960 s.
    for at in (0..840_000).step_by(30_000) {
        world.session.on_bytes(at);
        world.session.on_tick(at);
    }
    assert_eq!(world.session.outbound().unsent_bytes(), 0);
    world.session.on_bytes(839_999);
    assert_eq!(world.session.deadline_ms(), 840_000);
    world.session.on_tick(840_000);
    assert!(world.session.outbound().unsent_bytes() > 0);
    world.session.on_bytes(959_999);
    world.session.on_tick(959_999);
    assert_eq!(world.session.ending(), None);
    world.session.on_tick(960_000);
    assert_eq!(
        world.session.ending().unwrap().code,
        Some(Code::TokenExpired)
    );

    let mut world = self::world();
    world.session.on_bytes(10_000);
    world.session.on_tick(54_999);
    assert_eq!(world.session.ending(), None);
    world.session.on_tick(55_000);
    assert_eq!(
        world.session.ending().unwrap().code,
        Some(Code::IdleTimeout)
    );
}
