//! Limits and ranges: what lies at a limit passes, what lies one above is refused with its code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{
    CHANNEL, KEY, decode_client, decode_server, encode_client, encode_server, head, text_event,
    text_send,
};
use conch_wire::event::{
    ChannelKind, EventBody, EventMember, MessageBody, PendingSend, SendFlags, check_send_tail,
};
use conch_wire::frame::{
    ChannelHead, Cursor, Hello, HistoryPage, Send, SyncChanges, SyncRow, split_frame,
};
use conch_wire::{
    ChannelId, ClientFrame, Code, Event, EventFlags, MemberRole, ServerFrame, UserId, id::ID_MAX,
    limits,
};

const TEXT: u8 = 1;
const IMAGE: u8 = 2;

fn tail_code(kind: u8, flags: SendFlags, tail: &[u8]) -> Option<Code> {
    check_send_tail(kind, flags, tail)
        .err()
        .map(|error| error.code)
}

fn client_code(frame: &ClientFrame<'_>) -> Option<Code> {
    decode_client(&encode_client(frame))
        .err()
        .map(|error| error.code)
}

fn server_code(frame: &ServerFrame) -> Option<Code> {
    decode_server(&encode_server(frame))
        .err()
        .map(|error| error.code)
}

#[test]
fn text_of_100_000_scalar_values_is_accepted_and_one_more_refused() {
    for scalar in ["a", "é", "海", "🐚"] {
        let longest = scalar.repeat(limits::TEXT_CHARS_MAX);
        assert_eq!(
            tail_code(TEXT, SendFlags::default(), longest.as_bytes()),
            None
        );
        let longer = longest + "a";
        assert_eq!(
            tail_code(TEXT, SendFlags::default(), longer.as_bytes()),
            Some(Code::TooLarge)
        );
    }
}

/// P-009
#[test]
fn text_is_utf8_and_nothing_else_is_asked_of_it() {
    assert_eq!(
        tail_code(TEXT, SendFlags::default(), b"a\0b\r\n\x7f\xe2\x80\xae"),
        None
    );
    for bad in [
        &b"\xff"[..],
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"abc\xf0\x9f\x90",
    ] {
        assert_eq!(
            tail_code(TEXT, SendFlags::default(), bad),
            Some(Code::BadFrame)
        );
    }
}

#[test]
fn payloads_are_opaque_up_to_their_size() {
    let payload = vec![0xff; limits::PAYLOAD_BYTES_MAX + 1];
    assert_eq!(tail_code(IMAGE, SendFlags::default(), &payload[1..]), None);
    assert_eq!(
        tail_code(IMAGE, SendFlags::default(), &payload),
        Some(Code::TooLarge)
    );
}

#[test]
fn kinds_that_are_no_messages_cannot_be_sent() {
    // 4 is a system message: nobody speaks in the name of the node.
    for kind in [0, 4, 5, 15, 16, 20, 255] {
        assert_eq!(
            tail_code(kind, SendFlags::default(), b"x"),
            Some(Code::Invalid),
            "kind {kind}"
        );
    }
}

#[test]
fn a_tail_with_a_table_is_checked_in_both_parts() {
    let body = MessageBody {
        mentions: vec![UserId(1), UserId(2)],
    };
    let tail = body.encode_tail("hello");
    assert_eq!(tail_code(TEXT, SendFlags::TABLE, &tail), None);
    assert_eq!(
        tail_code(TEXT, SendFlags::TABLE, b"abc"),
        Some(Code::BadFrame)
    );
    assert_eq!(
        tail_code(TEXT, SendFlags::TABLE, &[255, 255, 255, 255, 0]),
        Some(Code::BadFrame)
    );
    assert_eq!(
        tail_code(TEXT, SendFlags::TABLE, &tail[..tail.len() - 1]),
        Some(Code::BadFrame)
    );
    let many = MessageBody {
        mentions: vec![UserId(1); 600],
    };
    assert_eq!(
        tail_code(TEXT, SendFlags::TABLE, &many.encode_tail("")),
        Some(Code::TooLarge)
    );
    let stranger = MessageBody {
        mentions: vec![UserId(ID_MAX + 1)],
    };
    assert_eq!(
        tail_code(TEXT, SendFlags::TABLE, &stranger.encode_tail("")),
        Some(Code::BadFrame)
    );

    let event = Event {
        flags: EventFlags::TABLE,
        tail: tail.into(),
        ..text_event(UserId(1), 1, "")
    };
    assert_eq!(event.text(), Some("hello"));
    assert_eq!(event.message_body().unwrap(), Some(body));
}

#[test]
fn text_of_an_event_is_none_where_there_is_none() {
    let event = |kind, flags, tail: &'static [u8]| Event {
        kind,
        flags,
        tail: tail.into(),
        ..text_event(UserId(1), 1, "")
    };
    assert_eq!(event(1, EventFlags::default(), b"x").text(), Some("x"));
    assert_eq!(event(4, EventFlags::default(), b"x").text(), Some("x"));
    assert_eq!(event(2, EventFlags::default(), b"x").text(), None);
    assert_eq!(event(16, EventFlags::default(), b"x").text(), None);
    assert_eq!(event(1, EventFlags::default(), b"\xff").text(), None);
    assert_eq!(event(1, EventFlags::TABLE, b"\x09\0\0\0x").text(), None);
    assert_eq!(
        event(2, EventFlags::TABLE, b"\x01\0\0\0x").text(),
        Some("x")
    );
}

fn hello_with(cursors: usize, pending: usize, token_len: usize) -> ClientFrame<'static> {
    let cursor = |alias| Cursor {
        channel: ChannelId(ID_MAX),
        generation: 1,
        seq: 1,
        alias,
    };
    ClientFrame::Hello(Hello {
        token: "t".repeat(token_len),
        cursors: (1..=cursors as u32).map(cursor).collect(),
        pending: vec![
            PendingSend {
                channel: CHANNEL,
                key: KEY
            };
            pending
        ],
        ..Hello::default()
    })
}

#[test]
fn hello_is_bounded_in_every_part() {
    let (cursors, pending, token) = (
        limits::HELLO_CURSORS_MAX,
        limits::HELLO_PENDING_MAX,
        limits::TOKEN_BYTES_MAX,
    );
    assert_eq!(
        client_code(&hello_with(cursors, pending, token)),
        None,
        "a full HELLO fits"
    );
    assert_eq!(
        client_code(&hello_with(cursors + 1, 0, 1)),
        Some(Code::TooLarge)
    );
    assert_eq!(
        client_code(&hello_with(0, pending + 1, 1)),
        Some(Code::TooLarge)
    );
    assert_eq!(
        client_code(&hello_with(0, 0, token + 1)),
        Some(Code::TooLarge)
    );
    assert_eq!(
        client_code(&hello_with(0, 0, limits::HELLO_BYTES_MAX)),
        Some(Code::TooLarge)
    );
    let named = |len| {
        ClientFrame::Hello(Hello {
            client: "c".repeat(len),
            ..Hello::default()
        })
    };
    assert_eq!(client_code(&named(limits::CLIENT_NAME_BYTES_MAX)), None);
    assert_eq!(
        client_code(&named(limits::CLIENT_NAME_BYTES_MAX + 1)),
        Some(Code::TooLarge)
    );
    let token = |len| {
        ClientFrame::Hello(Hello {
            sync_token: vec![1; len],
            ..Hello::default()
        })
    };
    assert_eq!(client_code(&token(limits::SYNC_TOKEN_BYTES_MAX)), None);
    assert_eq!(
        client_code(&token(limits::SYNC_TOKEN_BYTES_MAX + 1)),
        Some(Code::TooLarge)
    );
}

/// P-020, P-023
#[test]
fn clients_choose_aliases_with_the_top_bit_clear() {
    let open = |alias| ClientFrame::OpenChannel {
        request: 1,
        cursor: Cursor {
            channel: CHANNEL,
            generation: 0,
            seq: 0,
            alias,
        },
    };
    assert_eq!(client_code(&open(1)), None);
    assert_eq!(client_code(&open(0x7fff_ffff)), None);
    for alias in [0, 0x8000_0000, u32::MAX] {
        assert_eq!(client_code(&open(alias)), Some(Code::BadAlias));
    }
    let send = |alias| ClientFrame::Send {
        request: 1,
        send: Send {
            alias,
            ..text_send("x")
        },
    };
    assert_eq!(client_code(&send(0x8000_0001)), None);
    assert_eq!(client_code(&send(0)), Some(Code::BadAlias));
    assert_eq!(
        client_code(&ClientFrame::CloseChannel { alias: 0x8000_0001 }),
        None
    );
    assert_eq!(
        client_code(&ClientFrame::CloseChannel { alias: 0 }),
        Some(Code::BadFrame)
    );
}

#[test]
fn ids_have_63_bits() {
    let read = |channel| ClientFrame::Read {
        request: 0,
        channel: ChannelId(channel),
        seq: 1,
    };
    assert_eq!(client_code(&read(ID_MAX)), None);
    assert_eq!(client_code(&read(ID_MAX + 1)), Some(Code::BadFrame));
    let deliver = |author| ServerFrame::Deliver {
        alias: 1,
        event: text_event(UserId(author), 1, "x"),
    };
    assert_eq!(server_code(&deliver(ID_MAX)), None);
    assert_eq!(server_code(&deliver(ID_MAX + 1)), Some(Code::BadFrame));
}

#[test]
fn send_many_is_bounded_and_names_one_channel() {
    let many = |sends| ClientFrame::SendMany { request: 1, sends };
    let items = limits::SEND_MANY_ITEMS_MAX;
    assert_eq!(client_code(&many(vec![text_send("x"); items])), None);
    assert_eq!(
        client_code(&many(vec![text_send("x"); items + 1])),
        Some(Code::TooLarge)
    );
    assert_eq!(client_code(&many(Vec::new())), Some(Code::BadFrame));
    assert_eq!(
        client_code(&many(vec![
            text_send("x"),
            Send {
                alias: 4,
                ..text_send("y")
            }
        ])),
        Some(Code::BadFrame)
    );
    let text: &'static str = "x".repeat(limits::SEND_MANY_BYTES_MAX - 28).leak();
    assert_eq!(client_code(&many(vec![text_send(text)])), None);
    assert_eq!(
        client_code(&many(vec![text_send(text), text_send("")])),
        Some(Code::TooLarge)
    );
}

/// P-003
#[test]
fn sends_with_unknown_flags_kinds_or_padding_are_refused() {
    let send = |kind, flags| ClientFrame::Send {
        request: 1,
        send: Send {
            kind,
            flags: SendFlags(flags),
            ..text_send("x")
        },
    };
    assert_eq!(client_code(&send(15, 3)), None);
    for (kind, flags) in [(1, 4), (1, 0x80), (0, 0), (16, 0)] {
        assert_eq!(client_code(&send(kind, flags)), Some(Code::BadFrame));
    }
    let mut bytes = encode_client(&send(1, 0));
    bytes[8 + 22] = 1;
    assert_eq!(decode_client(&bytes).unwrap_err().code, Code::BadFrame);
}

/// P-006
#[test]
fn requests_without_a_number_are_refused() {
    let mut bytes = encode_client(&ClientFrame::Send {
        request: 1,
        send: text_send("x"),
    });
    bytes[4] = 0;
    assert_eq!(decode_client(&bytes).unwrap_err().code, Code::BadFrame);
    let mut bytes = encode_client(&ClientFrame::Goodbye);
    bytes[4] = 1;
    assert_eq!(decode_client(&bytes).unwrap_err().code, Code::BadFrame);
}

#[test]
fn history_asks_for_a_range_of_at_least_one() {
    let ask = |from, to, items_max| ClientFrame::History {
        request: 1,
        history: conch_wire::frame::History {
            channel: CHANNEL,
            from,
            to,
            items_max,
            newest_first: false,
        },
    };
    assert_eq!(client_code(&ask(1, u32::MAX, 1)), None);
    assert_eq!(client_code(&ask(2, 1, 1)), Some(Code::Invalid));
    assert_eq!(client_code(&ask(1, 1, 0)), Some(Code::Invalid));
    assert_eq!(
        client_code(&ClientFrame::Sync {
            request: 1,
            token: Vec::new(),
            rows_max: 0
        }),
        Some(Code::Invalid)
    );
}

/// P-002
#[test]
fn trailing_bytes_behind_a_fixed_body_are_refused() {
    for frame in [
        ClientFrame::Ping { nonce: 1 },
        ClientFrame::Goodbye,
        ClientFrame::Credit { bytes: 1 },
        ClientFrame::CloseChannel { alias: 1 },
        ClientFrame::Read {
            request: 1,
            channel: CHANNEL,
            seq: 1,
        },
    ] {
        let mut bytes = encode_client(&frame);
        bytes.push(0);
        bytes[1] += 1;
        assert_eq!(
            decode_client(&bytes).unwrap_err().code,
            Code::BadFrame,
            "{frame:?}"
        );
    }
}

#[test]
fn a_listing_of_as_many_short_rows_as_there_may_be_is_read() {
    let row = |title: String| SyncRow {
        head: ChannelHead {
            mentions: 1,
            ..head()
        },
        kind: ChannelKind::Group,
        title,
        peer: None,
        first_seq: 0,
        left_seq: None,
        role: MemberRole::Member,
    };
    for title in [
        String::new(),
        "t".to_owned(),
        "🐚".repeat(limits::TITLE_CHARS_MAX),
    ] {
        let changes = |rows: usize| ServerFrame::SyncChanges {
            request: 1,
            changes: SyncChanges {
                reset: true,
                rows: vec![row(title.clone()); rows],
                more: true,
                token: vec![1],
            },
        };
        for rows in [1, 2, 10, limits::SYNC_ROWS_MAX] {
            assert_eq!(server_code(&changes(rows)), None, "{rows} rows");
        }
        assert_eq!(
            server_code(&changes(limits::SYNC_ROWS_MAX + 1)),
            Some(Code::TooLarge)
        );
    }
}

#[test]
fn members_and_titles_of_an_event_are_bounded() {
    let member = EventMember {
        user: UserId(1),
        role: MemberRole::Member,
    };
    let body = |members, chars| EventBody {
        channel_kind: Some(ChannelKind::Group),
        title: Some("é".repeat(chars)),
        members: vec![member.clone(); members],
    };
    let full = body(limits::GROUP_MEMBERS_MAX, limits::TITLE_CHARS_MAX);
    assert_eq!(EventBody::decode(&full.encode()), Ok(full));
    for over in [
        body(limits::GROUP_MEMBERS_MAX + 1, 1),
        body(1, limits::TITLE_CHARS_MAX + 1),
    ] {
        assert_eq!(
            EventBody::decode(&over.encode()).unwrap_err().code,
            Code::TooLarge
        );
    }
}

/// P-040
#[test]
fn pages_are_gapless_and_bounded() {
    let page = |from: u32, count: u32| HistoryPage {
        channel: CHANNEL,
        generation: 1,
        covered_from: from,
        covered_to: from + count - 1,
        first_seq: 1,
        head_seq: 9,
        events: (from..from + count)
            .map(|seq| text_event(UserId(u64::from(seq)), seq, "x"))
            .collect(),
    };
    let frame = |from, count| ServerFrame::HistoryPage {
        request: 1,
        page: page(from, count),
    };
    assert_eq!(
        server_code(&frame(1, limits::HISTORY_ITEMS_MAX as u32)),
        None
    );
    assert_eq!(
        server_code(&frame(1, limits::HISTORY_ITEMS_MAX as u32 + 1)),
        Some(Code::TooLarge)
    );
    let mut bytes = encode_server(&frame(1, 3));
    bytes[8 + 16] = 4; // covered_to says one more than there are items
    assert_eq!(decode_server(&bytes).unwrap_err().code, Code::BadFrame);
}

/// P-027
#[test]
fn events_have_a_place_a_kind_and_the_frame_that_fits() {
    let deliver = |seq, kind| ServerFrame::Deliver {
        alias: 1,
        event: Event {
            kind,
            ..text_event(UserId(1), seq, "x")
        },
    };
    assert_eq!(
        server_code(&deliver(1, 15)),
        None,
        "a kind of a newer node is kept"
    );
    assert_eq!(server_code(&deliver(limits::SEQ_MAX, 1)), None);
    for frame in [
        deliver(0, 1),
        deliver(u32::MAX, 1),
        deliver(1, 0),
        deliver(1, 16),
    ] {
        assert_eq!(server_code(&frame), Some(Code::BadFrame));
    }
    let event = ServerFrame::Event {
        alias: 1,
        event: text_event(UserId(1), 1, "x"),
    };
    assert_eq!(server_code(&event), Some(Code::BadFrame));
}

#[test]
fn a_code_of_a_newer_node_becomes_the_one_of_its_hundred() {
    for code in Code::ALL {
        assert_eq!(Code::nearest(code.number()), Some(*code));
    }
    for number in 4100..4700 {
        assert_eq!(Code::nearest(number).unwrap().number() / 100, number / 100);
    }
    assert_eq!(Code::nearest(4099), None);
    assert_eq!(Code::nearest(4700), None);
}

/// P-001
#[test]
fn a_length_over_the_limit_is_refused_as_soon_as_the_header_is_there() {
    let header = [3, 0xff, 0xff, 0xff, 1, 0, 0, 0];
    assert_eq!(split_frame(&header[..7], 16_384), Ok(None));
    assert_eq!(
        split_frame(&header, 16_384).unwrap_err().code,
        Code::TooLarge
    );
    let fits = [3, 8, 0, 0, 1, 0, 0, 0];
    assert_eq!(split_frame(&fits, 16), Ok(None));
    assert_eq!(split_frame(&fits, 15).unwrap_err().code, Code::TooLarge);
}
