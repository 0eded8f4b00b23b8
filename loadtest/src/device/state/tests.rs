//! What the device under test must get right itself, or it would accuse the node: merging, gaps, repeats.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use bytes::{Buf, Bytes};
use conch_wire::event::{Ack, ChannelKind, EventFlags, PendingAnswer};
use conch_wire::frame::{
    ChannelHead, ChannelOpened, ErrorFrame, HistoryPage, Limits, PushMode, Welcome, split_frame,
};
use conch_wire::{
    ChannelId, ClientFrame, Code, DeviceId, Event, MessageKey, Seq, ServerFrame, SessionId, UserId,
    limits,
};

use super::{Note, State};

const ME: UserId = UserId(1);
const OTHER: UserId = UserId(2);
const CHANNEL: ChannelId = ChannelId(9);
const ALIAS: u32 = 5;

fn event(seq: Seq) -> Event {
    Event {
        author: OTHER,
        seq,
        time_ms: 1,
        kind: 1,
        flags: EventFlags::default(),
        tail: Bytes::from(format!("m{seq}")),
    }
}

fn head(head_seq: Seq) -> ChannelHead {
    ChannelHead {
        channel: CHANNEL,
        head_seq,
        head_ordinal: 0,
        read_seq: 0,
        read_ordinal: 0,
        mentions: 0,
    }
}

fn welcome(pending: Vec<PendingAnswer>) -> Welcome {
    Welcome {
        minor: 0,
        features: 0,
        session: SessionId(3),
        user: ME,
        device: DeviceId(4),
        time_ms: 0,
        generation: 7,
        inbox_position: 1,
        limits: Limits::default(),
        pending,
        resumed: true,
        node: String::new(),
    }
}

fn opened(head_seq: Seq) -> ServerFrame {
    ServerFrame::ChannelOpened {
        request: 0,
        opened: ChannelOpened {
            alias: ALIAS,
            head: head(head_seq),
            kind: ChannelKind::Group,
            title: String::new(),
            peer: None,
            first_seq: 1,
            resync: false,
        },
    }
}

/// A connected device with the channel open and empty.
fn connected() -> State {
    let mut state = State::new(ME, PushMode::All);
    state.hello("t");
    state.on_welcome(welcome(Vec::new()), 0);
    state.on_frame(opened(0), 0, 0);
    state.take_notes();
    state.take_output();
    state
}

fn shown(state: &mut State) -> Vec<Seq> {
    let seq = |note| match note {
        Note::Shown { event, .. } => Some(event.seq),
        _ => None,
    };
    state.take_notes().into_iter().filter_map(seq).collect()
}

/// The frames that the device wants to send, described.
fn sent(state: &mut State) -> Vec<String> {
    let mut bytes = state.take_output();
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let split = split_frame(&bytes, limits::FRAME_BYTES_MAX)
            .unwrap()
            .unwrap();
        let frame = ClientFrame::decode(split.header, split.body).unwrap();
        frames.push(match frame {
            ClientFrame::History { history, .. } => {
                format!("history {}..={}", history.from, history.to)
            }
            ClientFrame::Send { send, .. } => format!("send {:?}", send.flags),
            ClientFrame::SendMany { sends, .. } => format!("send {} items", sends.len()),
            other => format!("{other:?}"),
        });
        let consumed = split.consumed;
        bytes.advance(consumed);
    }
    frames
}

#[test]
fn events_are_shown_once_and_in_order_of_seq() {
    let mut state = connected();
    for seq in [1, 3, 2, 2, 1] {
        let event = event(seq);
        state.on_frame(
            ServerFrame::Deliver {
                alias: ALIAS,
                event,
            },
            40,
            0,
        );
    }
    assert_eq!(shown(&mut state), [1, 2, 3]);
}

#[test]
fn gap_is_fetched_and_nothing_is_shown_above_it_before() {
    let mut state = connected();
    let ahead = event(4);
    state.on_frame(
        ServerFrame::Deliver {
            alias: ALIAS,
            event: ahead,
        },
        40,
        0,
    );
    assert_eq!(shown(&mut state), [0; 0]);
    assert_eq!(sent(&mut state), ["history 1..=4"]);
    let page = HistoryPage {
        channel: CHANNEL,
        generation: 7,
        covered_from: 1,
        covered_to: 3,
        first_seq: 1,
        head_seq: 4,
        events: (1..=3).map(event).collect(),
    };
    state.on_frame(ServerFrame::HistoryPage { request: 1, page }, 0, 0);
    assert_eq!(shown(&mut state), [1, 2, 3, 4]);
}

#[test]
fn own_message_is_shown_by_its_ack_once() {
    let mut state = connected();
    state.say(CHANNEL, MessageKey([1; 16]), Bytes::from("hi"), 0);
    state.take_notes();
    let ack = Ack {
        seq: 1,
        time_ms: 0,
        flags: Default::default(),
    };
    state.on_frame(
        ServerFrame::SendAck {
            request: 1,
            acks: vec![ack],
        },
        0,
        0,
    );
    let mut own = event(1);
    own.author = ME;
    own.tail = Bytes::from("hi");
    state.on_frame(
        ServerFrame::Deliver {
            alias: ALIAS,
            event: own,
        },
        40,
        0,
    );
    assert_eq!(shown(&mut state), [1]);
    assert_eq!(state.tally().unsettled, 0);
}

#[test]
fn one_send_is_in_flight_and_the_rest_goes_together_behind_it() {
    let mut state = connected();
    for n in 1..=4 {
        state.say(CHANNEL, MessageKey([n; 16]), Bytes::from(vec![n]), 0);
    }
    assert_eq!(sent(&mut state), ["send SendFlags(0)"]);
    let ack = Ack {
        seq: 1,
        time_ms: 0,
        flags: Default::default(),
    };
    state.on_frame(
        ServerFrame::SendAck {
            request: 1,
            acks: vec![ack],
        },
        0,
        0,
    );
    assert_eq!(sent(&mut state), ["send 3 items"]);
}

#[test]
fn unanswered_send_is_asked_about_and_repeated_with_retry() {
    let mut state = connected();
    state.say(CHANNEL, MessageKey([1; 16]), Bytes::from("hi"), 0);
    state.on_disconnect();
    let notes = state.take_notes();
    assert!(matches!(notes.last(), Some(Note::Unknown { .. })));
    let hello = state.hello("t");
    assert_eq!(hello.pending.len(), 1);
    assert_eq!(hello.replaces, Some(SessionId(3)));
    state.on_welcome(welcome(vec![PendingAnswer::Absent]), 0);
    state.take_output();
    state.on_frame(opened(0), 0, 0);
    assert_eq!(sent(&mut state), ["send SendFlags(2)"]);
}

#[test]
fn pending_send_that_is_stored_is_settled_by_welcome() {
    let mut state = connected();
    state.say(CHANNEL, MessageKey([1; 16]), Bytes::from("hi"), 0);
    state.on_disconnect();
    state.take_notes();
    state.hello("t");
    state.on_welcome(
        welcome(vec![PendingAnswer::Stored { seq: 1, time_ms: 5 }]),
        0,
    );
    assert_eq!(shown(&mut state), [1]);
    assert_eq!(state.tally().unsettled, 0);
}

#[test]
fn refused_send_is_repeated_not_sooner_than_told() {
    let mut state = connected();
    state.say(CHANNEL, MessageKey([1; 16]), Bytes::from("hi"), 0);
    state.take_output();
    let error = ErrorFrame {
        code: Code::RateLimited,
        retry_after_ms: 300,
        refused_type: 3,
        item: 0,
        detail: String::new(),
    };
    state.on_frame(ServerFrame::Error { request: 1, error }, 0, 1_000);
    assert!(matches!(
        state.take_notes().last(),
        Some(Note::Refused { .. })
    ));
    state.on_tick(1_299);
    assert!(sent(&mut state).is_empty());
    assert_eq!(state.next_due(), Some(1_300));
    state.on_tick(1_300);
    assert_eq!(sent(&mut state), ["send SendFlags(2)"]);
}

#[test]
fn credit_is_granted_when_half_is_used() {
    let mut state = connected();
    let half = limits::CREDIT_BYTES / 2;
    let first = event(1);
    state.on_frame(
        ServerFrame::Deliver {
            alias: ALIAS,
            event: first,
        },
        half - 1,
        0,
    );
    assert!(sent(&mut state).is_empty());
    let second = event(2);
    state.on_frame(
        ServerFrame::Deliver {
            alias: ALIAS,
            event: second,
        },
        1,
        0,
    );
    assert_eq!(sent(&mut state), [format!("Credit {{ bytes: {half} }}")]);
}
