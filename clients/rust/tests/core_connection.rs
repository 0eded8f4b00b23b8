//! When the core connects, waits, refreshes its token, and stops, and what of a listing, a refusal and a mark outlasts it:
//! frame by frame, on a clock of the test.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::BytesMut;
use conch_client::core::{
    Command, Config, ConnectionState, Core, Event, Input, LinkCommand, Loaded, Meta, Outputs,
    Persist, StopReason,
};
use conch_client::wire::event::ChannelKind;
use conch_client::wire::frame::{
    ChannelHead, ErrorFrame, Hello, Limits, SyncChanges, SyncRow, Welcome, frame_type, split_frame,
};
use conch_client::wire::limits::FRAME_BYTES_MAX;
use conch_client::wire::{
    ChannelId, ClientFrame, Code, DeviceId, MemberRole, ServerFrame, SessionId, UserId,
};

struct Bench {
    core: Core,
    now: u64,
    connection: u64,
}

fn welcome() -> ServerFrame {
    ServerFrame::Welcome(Box::new(Welcome {
        minor: 0,
        features: 0,
        session: SessionId(77),
        user: UserId(1),
        device: DeviceId(2),
        time_ms: 0,
        generation: 3,
        inbox_position: 5,
        limits: Limits::default(),
        pending: Vec::new(),
        resumed: true,
        node: String::new(),
    }))
}

/// The refusal of what HELLO asks about its sync token.
fn first_sync_refused(retry_after_ms: u32) -> ServerFrame {
    ServerFrame::Error {
        request: 0,
        error: ErrorFrame {
            code: Code::Unavailable,
            retry_after_ms,
            refused_type: frame_type::SYNC,
            item: 0,
            detail: String::new(),
        },
    }
}

/// A channel of ten messages, of which none is read.
fn row(channel: u64) -> SyncRow {
    SyncRow {
        head: ChannelHead {
            channel: ChannelId(channel),
            head_seq: 10,
            head_ordinal: 10,
            read_seq: 0,
            read_ordinal: 0,
            mentions: 0,
        },
        kind: ChannelKind::Group,
        title: String::new(),
        peer: None,
        first_seq: 1,
        left_seq: None,
        role: MemberRole::Member,
    }
}

fn page(reset: bool, rows: Vec<SyncRow>, more: bool) -> ServerFrame {
    ServerFrame::SyncChanges {
        request: 0,
        changes: SyncChanges {
            reset,
            rows,
            more,
            token: vec![9],
        },
    }
}

fn connection_error(code: Code, retry_after_ms: u32) -> ServerFrame {
    ServerFrame::Error {
        request: 0,
        error: ErrorFrame {
            code,
            retry_after_ms,
            refused_type: 0,
            item: 0,
            detail: String::new(),
        },
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Meta::default())
    }

    fn with(meta: Meta) -> Bench {
        let loaded = Loaded {
            meta,
            ..Loaded::default()
        };
        let mut bench = Bench {
            core: Core::new(Config::default(), loaded),
            now: 0,
            connection: 0,
        };
        let out = bench.give(Input::Start);
        bench.expect_connect(&out);
        bench
    }

    fn give(&mut self, input: Input) -> Outputs {
        self.core.handle(self.now, input);
        self.core.take_outputs()
    }

    fn expect_connect(&mut self, out: &Outputs) -> bool {
        let [
            LinkCommand::Connect {
                connection,
                refresh_token,
            },
        ] = out.link[..]
        else {
            panic!("{:?}", out.link)
        };
        self.connection = connection;
        refresh_token
    }

    fn connected(&mut self) -> Outputs {
        self.give(Input::Connected {
            connection: self.connection,
            token: "token".to_owned(),
        })
    }

    fn frame(&mut self, frame: &ServerFrame) -> Outputs {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.give(Input::Received {
            connection: self.connection,
            bytes: bytes.freeze(),
        })
    }

    fn online() -> Bench {
        let mut bench = Bench::new();
        bench.go_online();
        bench
    }

    fn go_online(&mut self) {
        self.connected();
        let out = self.frame(&welcome());
        assert_eq!(state(&out), Some(ConnectionState::Online));
        self.frame(&ServerFrame::SyncChanges {
            request: 0,
            changes: SyncChanges {
                reset: false,
                rows: Vec::new(),
                more: false,
                token: vec![9],
            },
        });
    }

    fn closed(&mut self, code: Option<u16>) -> Outputs {
        self.give(Input::Closed {
            connection: self.connection,
            code,
        })
    }

    /// Sleeps until the core wants to be woken.
    fn wake(&mut self) -> Outputs {
        self.now = self.core.wake_at().unwrap();
        self.give(Input::Tick)
    }

    /// Sits out the delay; returns whether a new token was asked for.
    fn reconnect(&mut self) -> bool {
        let out = self.wake();
        self.expect_connect(&out)
    }
}

fn state(out: &Outputs) -> Option<ConnectionState> {
    out.events.iter().rev().find_map(|event| match event {
        Event::Connection(state) => Some(*state),
        _ => None,
    })
}

fn hello(out: &Outputs) -> Hello {
    let bytes = &out.frames[0];
    let split = split_frame(bytes, FRAME_BYTES_MAX).unwrap().unwrap();
    match ClientFrame::decode(split.header, split.body).unwrap() {
        ClientFrame::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn frames(out: &Outputs) -> String {
    let mut names = Vec::new();
    for bytes in &out.frames {
        let mut rest = &bytes[..];
        while let Some(split) = split_frame(rest, FRAME_BYTES_MAX).unwrap() {
            let frame = ClientFrame::decode(split.header, split.body).unwrap();
            names.push(format!("{frame:?}"));
            rest = &rest[split.consumed..];
        }
    }
    names.join("\n")
}

#[test]
fn next_connection_resumes_the_last() {
    let mut bench = Bench::online();
    bench.closed(None);
    bench.reconnect();
    let hello = hello(&bench.connected());
    assert_eq!(hello.replaces, Some(SessionId(77)));
    assert_eq!(hello.sync_token, [9]);
}

#[test]
fn session_and_generation_are_stored_before_anything_is_said() {
    let mut bench = Bench::new();
    bench.connected();
    let out = bench.frame(&welcome());
    let Persist::Meta(meta) = &out.persist[0] else {
        panic!("{:?}", out.persist)
    };
    assert_eq!((meta.session, meta.generation), (Some(SessionId(77)), 3));
}

#[test]
fn failures_wait_longer_each_time_and_welcome_ends_the_row() {
    let mut bench = Bench::new();
    let mut waited = 0;
    for _ in 0..12 {
        bench.closed(None);
        let until = bench.core.wake_at().unwrap();
        assert!(until - bench.now <= 30_000);
        waited = waited.max(until - bench.now);
        bench.reconnect();
    }
    assert!(waited > 1_000, "{waited}");
    bench.go_online();
    bench.closed(None);
    assert!(bench.core.wake_at().unwrap() - bench.now <= 250);
}

#[test]
fn code_of_the_protocol_keeps_the_row_until_a_connection_held() {
    let mut bench = Bench::online();
    let mut waited = 0;
    for _ in 0..8 {
        bench.closed(Some(Code::InternalError.number()));
        waited = waited.max(bench.core.wake_at().unwrap() - bench.now);
        bench.reconnect();
        bench.go_online();
    }
    assert!(waited > 500, "{waited}");
    bench.now += 10_000;
    bench.closed(Some(Code::InternalError.number()));
    assert!(bench.core.wake_at().unwrap() - bench.now <= 250);
}

#[test]
fn advice_before_a_close_is_followed() {
    let mut bench = Bench::new();
    bench.connected();
    bench.frame(&connection_error(Code::RateLimited, 7_000));
    bench.closed(Some(Code::RateLimited.number()));
    assert!(bench.core.wake_at().unwrap() >= 7_000);
}

#[test]
fn goaway_is_followed_within_its_window_and_nothing_new_is_sent() {
    let mut bench = Bench::online();
    bench.frame(&ServerFrame::Goaway {
        code: Code::GoingAway,
        delay_min_ms: 1_000,
        delay_max_ms: 2_000,
        endpoints: Vec::new(),
    });
    let out = bench.give(Input::Command(Command::Send {
        channel: conch_client::wire::ChannelId(4),
        key: conch_client::wire::MessageKey([1; 16]),
        kind: 1,
        flags: conch_client::wire::event::SendFlags::default(),
        tail: "late".into(),
        created_ms: 0,
    }));
    assert!(out.frames.is_empty());
    let leave = bench.core.wake_at().unwrap();
    assert!((1_000..=2_000).contains(&leave), "{leave}");
    let out = bench.wake();
    assert!(frames(&out).contains("Goodbye"));
    assert!(matches!(out.link[0], LinkCommand::Close { .. }));
    let out = bench.give(Input::Tick);
    bench.expect_connect(&out);
}

#[test]
fn goaway_hands_on_the_endpoints_it_names() {
    let mut bench = Bench::online();
    let endpoints = vec!["https://two.example".to_owned()];
    let out = bench.frame(&ServerFrame::Goaway {
        code: Code::GoingAway,
        delay_min_ms: 1_000,
        delay_max_ms: 2_000,
        endpoints: endpoints.clone(),
    });
    assert_eq!(out.link, [LinkCommand::Elsewhere { endpoints }]);
}

#[test]
fn connection_that_is_silent_after_a_change_of_network_is_given_up_soon() {
    let mut bench = Bench::online();
    bench.now += 5_000;
    let out = bench.give(Input::NetworkChanged);
    assert!(frames(&out).contains("Ping"), "{}", frames(&out));
    bench.now += 3_999;
    assert!(bench.give(Input::Tick).link.is_empty());
    bench.now += 1;
    let out = bench.give(Input::Tick);
    assert!(
        matches!(
            out.link[..],
            [LinkCommand::Close {
                code: Code::IdleTimeout,
                ..
            }]
        ),
        "{:?}",
        out.link
    );
}

#[test]
fn connection_on_which_nothing_answers_a_question_is_asked_and_given_up() {
    let mut bench = Bench::online();
    bench.frame(&page(false, Vec::new(), false));
    let out = bench.frame(&ServerFrame::SyncNow);
    assert!(frames(&out).contains("Sync"), "{}", frames(&out));
    bench.now += 10_000;
    let out = bench.give(Input::Tick);
    assert!(frames(&out).contains("Ping"), "{}", frames(&out));
    bench.now += 4_000;
    let out = bench.give(Input::Tick);
    assert!(
        matches!(
            out.link[..],
            [LinkCommand::Close {
                code: Code::IdleTimeout,
                ..
            }]
        ),
        "{:?}",
        out.link
    );
}

#[test]
fn connection_that_answers_after_a_change_of_network_stays() {
    let mut bench = Bench::online();
    bench.give(Input::NetworkChanged);
    bench.now += 100;
    bench.frame(&ServerFrame::Pong {
        nonce: 1,
        inbox_position: 5,
    });
    bench.now += 10_000;
    assert!(bench.give(Input::Tick).link.is_empty());
}

#[test]
fn change_of_network_starts_what_was_being_opened_or_waited_for_anew() {
    let mut bench = Bench::new();
    let old = bench.connection;
    let out = bench.give(Input::NetworkChanged);
    let [
        LinkCommand::Close { connection, .. },
        LinkCommand::Connect {
            connection: next, ..
        },
    ] = out.link[..]
    else {
        panic!("{:?}", out.link)
    };
    assert!(connection == old && next > old);
    bench.connection = next;
    bench.closed(None);
    let out = bench.give(Input::NetworkChanged);
    bench.expect_connect(&out);
}

#[test]
fn node_that_closes_within_its_window_is_not_called_before() {
    let mut bench = Bench::online();
    bench.frame(&ServerFrame::Goaway {
        code: Code::GoingAway,
        delay_min_ms: 3_000,
        delay_max_ms: 3_000,
        endpoints: Vec::new(),
    });
    bench.closed(Some(Code::GoingAway.number()));
    assert_eq!(bench.core.wake_at(), Some(3_000));
}

#[test]
fn refused_token_is_refreshed_before_the_next_connection() {
    let mut bench = Bench::new();
    bench.connected();
    bench.closed(Some(Code::TokenExpired.number()));
    assert!(bench.reconnect());
    bench.closed(None);
    assert!(!bench.reconnect());
}

#[test]
fn token_that_ends_is_replaced_on_the_connection() {
    let mut bench = Bench::online();
    let out = bench.frame(&ServerFrame::AuthExpiring {
        expires_in_ms: 60_000,
    });
    assert!(matches!(out.link[..], [LinkCommand::RefreshToken { .. }]));
    let out = bench.give(Input::TokenRefreshed {
        connection: bench.connection,
        token: "fresh".to_owned(),
    });
    assert!(frames(&out).contains("AuthRefresh"));
}

#[test]
fn final_words_are_final() {
    for (code, reason) in [
        (Code::DeviceRevoked, StopReason::Ended(Code::DeviceRevoked)),
        (
            Code::SessionReplaced,
            StopReason::Ended(Code::SessionReplaced),
        ),
        (Code::UnsupportedVersion, StopReason::UnsupportedVersion),
    ] {
        let mut bench = Bench::online();
        let out = bench.closed(Some(code.number()));
        assert_eq!(state(&out), Some(ConnectionState::Stopped(reason)));
        assert_eq!(bench.core.wake_at(), None);
        let out = bench.give(Input::Start);
        bench.expect_connect(&out);
    }
}

#[test]
fn provider_without_a_token_ends_it() {
    let mut bench = Bench::new();
    let out = bench.give(Input::TokenRejected {
        connection: bench.connection,
    });
    let stopped = ConnectionState::Stopped(StopReason::LoggedOut);
    assert_eq!(state(&out), Some(stopped));
}

#[test]
fn folder_of_another_account_is_not_mixed_up() {
    let mut bench = Bench::with(Meta {
        user: Some(UserId(8)),
        ..Meta::default()
    });
    bench.connected();
    let out = bench.frame(&welcome());
    let stopped = ConnectionState::Stopped(StopReason::WrongAccount);
    assert_eq!(state(&out), Some(stopped));
    assert!(out.persist.is_empty());
}

#[test]
fn another_generation_voids_what_is_known() {
    let mut bench = Bench::with(Meta {
        user: Some(UserId(1)),
        generation: 2,
        sync_token: vec![1],
        ..Meta::default()
    });
    bench.connected();
    let out = bench.frame(&welcome());
    assert!(out.persist.contains(&Persist::Forget));
    assert!(bench.core.meta().sync_token.is_empty());
}

#[test]
fn silence_is_found_out_and_position_in_pong_is_followed() {
    let mut bench = Bench::online();
    while bench.core.wake_at().unwrap() < 25_000 {
        bench.wake();
    }
    let out = bench.wake();
    assert!(frames(&out).contains("Ping"));
    let out = bench.frame(&ServerFrame::Pong {
        nonce: 1,
        inbox_position: 6,
    });
    assert!(frames(&out).contains("Sync"));
    bench.now += 45_000;
    let out = bench.give(Input::Tick);
    assert!(matches!(
        out.link[..],
        [LinkCommand::Close {
            code: Code::IdleTimeout,
            ..
        }]
    ));
}

#[test]
fn rubbish_costs_the_connection_and_nothing_else() {
    for bytes in [
        &b"\x01"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x05\x01\0\0\0\0\0\0\0",
    ] {
        let mut bench = Bench::online();
        let out = bench.give(Input::Received {
            connection: bench.connection,
            bytes: bytes::Bytes::from_static(bytes),
        });
        assert!(matches!(
            out.link[..],
            [LinkCommand::Close {
                code: Code::BadFrame,
                ..
            }]
        ));
        bench.reconnect();
    }
}

#[test]
fn word_of_an_older_connection_is_ignored() {
    let mut bench = Bench::online();
    let old = bench.connection;
    bench.closed(None);
    bench.reconnect();
    let out = bench.give(Input::Closed {
        connection: old,
        code: Some(Code::DeviceRevoked.number()),
    });
    assert!(out.is_empty());
}

#[test]
fn refused_first_sync_is_asked_again_when_the_server_advised() {
    let mut bench = Bench::new();
    bench.connected();
    bench.frame(&welcome());
    let out = bench.frame(&first_sync_refused(700));
    assert!(!frames(&out).contains("Sync"));
    let until = bench.core.wake_at().unwrap();
    assert!((700..=900).contains(&until), "{until}");
    assert!(frames(&bench.wake()).contains("Sync"));
}

#[test]
fn refusal_of_a_first_sync_does_not_double_the_one_under_way() {
    let mut bench = Bench::new();
    bench.connected();
    bench.frame(&welcome());
    let out = bench.frame(&page(true, vec![row(1)], true));
    assert!(frames(&out).contains("Sync"));
    bench.frame(&first_sync_refused(0));
    bench.now += 1_000;
    let out = bench.give(Input::Tick);
    assert!(!frames(&out).contains("Sync"), "{}", frames(&out));
}

#[test]
fn channels_listed_after_a_cut_start_with_events_as_those_before() {
    let mut bench = Bench::new();
    bench.connected();
    bench.frame(&welcome());
    let newest: Vec<_> = (1..=99).map(row).collect();
    bench.frame(&page(true, newest, true));
    bench.closed(None);
    bench.reconnect();
    bench.connected();
    bench.frame(&welcome());
    bench.frame(&page(false, vec![row(100), row(101)], false));
    let held_from = |id| bench.core.channel(ChannelId(id)).unwrap().held_from;
    assert_eq!(held_from(99), 1);
    assert_eq!(held_from(100), 1, "the hundredth starts with its events");
    assert_eq!(held_from(101), 11, "the next one starts empty");
}

#[test]
fn mark_above_one_that_moved_nothing_is_told() {
    let mut bench = Bench::online();
    bench.frame(&page(false, vec![row(1)], false));
    let mark = |seq| {
        Input::Command(Command::MarkRead {
            channel: ChannelId(1),
            seq,
        })
    };
    let out = bench.give(mark(4));
    assert!(frames(&out).contains("Read"), "{}", frames(&out));
    // Nobody answers.
    let out = bench.give(mark(9));
    assert!(
        !frames(&out).contains("Read"),
        "too soon after the last one"
    );
    bench.now += 500;
    let out = frames(&bench.give(Input::Tick));
    assert!(out.contains("Read") && out.contains("seq: 9"), "{out}");
}
