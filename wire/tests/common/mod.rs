//! Every frame at least once, with its meaning in words and its fields in JSON: what the golden vectors are made of.
//!
//! `samples` is the source of `vectors/frames.json`; the test `vectors` compares the two and decodes each. JSON follows
//! the protocol's rule: 64-bit numbers are decimal strings, bytes are hex; `tail_text` stands beside a tail that is text.

#![allow(dead_code, reason = "each test program uses its part")]

use bytes::{Bytes, BytesMut};
use conch_wire::event::{
    Ack, AckFlags, ChannelKind, EventBody, EventMember, MessageBody, PendingAnswer, PendingSend,
    SendFlags,
};
use conch_wire::frame::{
    ChannelHead, ChannelOpened, Cursor, ErrorFrame, FrameHeader, Hello, History, HistoryPage,
    Limits, PushMode, Send, SyncChanges, SyncRow, Welcome, frame_type, split_frame,
};
use conch_wire::{
    ChannelId, ClientFrame, Code, DeviceId, Event, EventFlags, MemberRole, MessageKey, ServerFrame,
    SessionId, UserId, WireError, limits,
};
use serde_json::{Value, json};

/// A frame of either direction.
pub(crate) enum Frame {
    Client(ClientFrame<'static>),
    Server(ServerFrame),
}

/// One golden vector before it is written.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) frame: Frame,
}

impl Sample {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        match &self.frame {
            Frame::Client(frame) => frame.encode(&mut out),
            Frame::Server(frame) => frame.encode(&mut out),
        }
        out.to_vec()
    }

    pub(crate) fn direction(&self) -> &'static str {
        match self.frame {
            Frame::Client(_) => "client",
            Frame::Server(_) => "server",
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let bytes = self.bytes();
        let (frame_type, fields) = match &self.frame {
            Frame::Client(frame) => (frame.frame_type(), client_fields(frame)),
            Frame::Server(frame) => (frame.frame_type(), server_fields(frame)),
        };
        json!({
            "name": self.name,
            "direction": self.direction(),
            "frame": frame_type::name(frame_type).unwrap_or("unknown"),
            "meaning": self.meaning,
            "hex": hex::encode(bytes),
            "fields": fields,
        })
    }
}

/// The first frame of `bytes`, which must hold nothing else.
pub(crate) fn only_frame(bytes: &[u8]) -> Result<(FrameHeader, &[u8]), WireError> {
    let split = split_frame(bytes, limits::FRAME_BYTES_MAX)?;
    let split = split.ok_or(WireError {
        code: Code::BadFrame,
        what: "the vector is not whole",
    })?;
    assert_eq!(split.consumed, bytes.len());
    Ok((split.header, split.body))
}

pub(crate) fn decode_client(bytes: &[u8]) -> Result<ClientFrame<'_>, WireError> {
    let (header, body) = only_frame(bytes)?;
    ClientFrame::decode(header, body)
}

pub(crate) fn decode_server(bytes: &[u8]) -> Result<ServerFrame, WireError> {
    let (header, body) = only_frame(bytes)?;
    ServerFrame::decode(header, Bytes::copy_from_slice(body))
}

pub(crate) fn encode_client(frame: &ClientFrame<'_>) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.to_vec()
}

pub(crate) fn encode_server(frame: &ServerFrame) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.to_vec()
}

pub(crate) const KEY: MessageKey = MessageKey([
    0x8f, 0x3a, 0x11, 0x5c, 0xd0, 0x27, 0x49, 0xe6, 0xb1, 0x94, 0x0e, 0x73, 0xaa, 0x58, 0xc2, 0x6d,
]);
const OTHER_KEY: MessageKey = MessageKey([0x42; 16]);
pub(crate) const CHANNEL: ChannelId = ChannelId(6_917_529_027_641_081_857);
pub(crate) const ANNA: UserId = UserId(4_611_686_018_427_387_905);
const BEN: UserId = UserId(7);
const TIME_MS: u64 = 1_795_255_200_123;
pub(crate) const FORTY_BYTES: &str = "the conch sounds, and everyone is still.";

pub(crate) fn text_event(author: UserId, seq: u32, text: &str) -> Event {
    Event {
        author,
        seq,
        time_ms: TIME_MS + u64::from(seq),
        kind: 1,
        flags: EventFlags::default(),
        tail: Bytes::copy_from_slice(text.as_bytes()),
    }
}

pub(crate) fn text_send(text: &'static str) -> Send<'static> {
    Send {
        key: KEY,
        alias: 3,
        kind: 1,
        flags: SendFlags::default(),
        tail: text.as_bytes(),
    }
}

pub(crate) fn head() -> ChannelHead {
    ChannelHead {
        channel: CHANNEL,
        head_seq: 120,
        head_ordinal: 110,
        read_seq: 100,
        read_ordinal: 95,
        mentions: 0,
    }
}

pub(crate) fn announced_limits() -> Limits {
    Limits {
        text_chars_max: limits::TEXT_CHARS_MAX as u32,
        payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
        frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
        pushed_body_bytes_max: limits::PUSHED_BODY_BYTES_MAX as u32,
        send_many_items_max: limits::SEND_MANY_ITEMS_MAX as u32,
        send_many_bytes_max: limits::SEND_MANY_BYTES_MAX as u32,
        sends_in_flight_max: limits::SENDS_IN_FLIGHT_MAX as u32,
        requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX as u32,
        history_items_max: limits::HISTORY_ITEMS_MAX as u32,
        history_bytes_max: limits::HISTORY_BYTES_MAX as u32,
        sync_rows_max: limits::SYNC_ROWS_MAX as u32,
        group_members_max: limits::GROUP_MEMBERS_DEFAULT as u32,
        heartbeat_ms: limits::HEARTBEAT_MS,
        silence_max_ms: limits::SILENCE_MAX_MS,
    }
}

fn client_samples() -> Vec<Sample> {
    let sample = |name, meaning, frame| Sample {
        name,
        meaning,
        frame: Frame::Client(frame),
    };
    let mention = MessageBody {
        mentions: vec![BEN],
    }
    .encode_tail("@ben look")
    .leak();
    vec![
        sample(
            "hello_fresh",
            "A fresh device: token, program and credit, nothing to resume.",
            ClientFrame::Hello(Hello {
                token: "eyJhbGciOiJFZERTQSJ9.e30.c2ln".to_owned(),
                client: "conch-chat/0.1.0".to_owned(),
                credit_bytes: limits::CREDIT_BYTES,
                ..Hello::default()
            }),
        ),
        sample(
            "hello_resuming",
            "A device comes back: two open channels, one pending send, the session it replaces; heads only of channels it has not opened.",
            ClientFrame::Hello(Hello {
                minor: 1,
                features: 1 << 40,
                token: "eyJhbGciOiJFZERTQSJ9.e30.c2ln".to_owned(),
                client: "conch-chat/0.1.0".to_owned(),
                sync_token: vec![1, 2, 3, 4, 5],
                cursors: vec![
                    Cursor {
                        channel: CHANNEL,
                        generation: 77,
                        seq: 100,
                        alias: 1,
                    },
                    Cursor {
                        channel: ChannelId(2),
                        generation: 0,
                        seq: 0,
                        alias: 0x7fff_ffff,
                    },
                ],
                pending: vec![PendingSend {
                    channel: CHANNEL,
                    key: KEY,
                }],
                replaces: Some(SessionId(9_000_000_000)),
                credit_bytes: limits::CREDIT_BYTES,
                push: PushMode::Opened,
            }),
        ),
        sample(
            "auth_refresh",
            "A new token for the running session; request 2.",
            ClientFrame::AuthRefresh {
                request: 2,
                token: "eyJhbGciOiJFZERTQSJ9.e30.bmV3".to_owned(),
            },
        ),
        sample(
            "send_text",
            "Forty bytes of text into alias 3, first attempt; request 4.",
            ClientFrame::Send {
                request: 4,
                send: text_send(FORTY_BYTES),
            },
        ),
        sample(
            "send_retry_with_mention",
            "Another attempt of a text with a table: one mention.",
            ClientFrame::Send {
                request: 5,
                send: Send {
                    key: OTHER_KEY,
                    alias: 3,
                    kind: 1,
                    flags: SendFlags(SendFlags::TABLE.0 | SendFlags::RETRY.0),
                    tail: mention,
                },
            },
        ),
        sample(
            "send_server_alias",
            "A text into a channel whose alias the server chose.",
            ClientFrame::Send {
                request: 6,
                send: Send {
                    alias: 0x8000_0001,
                    ..text_send("hi")
                },
            },
        ),
        sample(
            "send_many",
            "Two texts in one frame, admitted all or none; request 7.",
            ClientFrame::SendMany {
                request: 7,
                sends: vec![
                    text_send("one"),
                    Send {
                        key: OTHER_KEY,
                        ..text_send("zwei ½")
                    },
                ],
            },
        ),
        sample(
            "open_channel",
            "Open a channel as alias 3, holding it up to seq 100 of generation 77; request 8.",
            ClientFrame::OpenChannel {
                request: 8,
                cursor: Cursor {
                    channel: CHANNEL,
                    generation: 77,
                    seq: 100,
                    alias: 3,
                },
            },
        ),
        sample(
            "close_channel",
            "Close alias 3.",
            ClientFrame::CloseChannel { alias: 3 },
        ),
        sample(
            "history_fill_gap",
            "Events 101 to 150, oldest first; request 9.",
            ClientFrame::History {
                request: 9,
                history: History {
                    channel: CHANNEL,
                    from: 101,
                    to: 150,
                    items_max: 200,
                    newest_first: false,
                },
            },
        ),
        sample(
            "history_page_up",
            "The newest 50 events up to 100; request 10.",
            ClientFrame::History {
                request: 10,
                history: History {
                    channel: CHANNEL,
                    from: 1,
                    to: 100,
                    items_max: 50,
                    newest_first: true,
                },
            },
        ),
        sample(
            "sync",
            "Channels changed since a token, at most 500; request 11.",
            ClientFrame::Sync {
                request: 11,
                token: vec![1, 2, 3, 4, 5],
                rows_max: 500,
            },
        ),
        sample(
            "sync_from_nothing",
            "All channels, newest first; request 12.",
            ClientFrame::Sync {
                request: 12,
                token: Vec::new(),
                rows_max: 100,
            },
        ),
        sample(
            "read",
            "Everything up to seq 120 has been read; request 13.",
            ClientFrame::Read {
                request: 13,
                channel: CHANNEL,
                seq: 120,
            },
        ),
        sample(
            "client_credit",
            "128 KiB more of pushed events.",
            ClientFrame::Credit { bytes: 131_072 },
        ),
        sample(
            "ping",
            "A heartbeat with nonce 0x01020304.",
            ClientFrame::Ping { nonce: 0x0102_0304 },
        ),
        sample("goodbye", "The client leaves.", ClientFrame::Goodbye),
        sample(
            "client_skipped",
            "A type of a newer version that says it may be skipped.",
            ClientFrame::Skipped { frame_type: 0x8a },
        ),
    ]
}

fn server_samples() -> Vec<Sample> {
    let sample = |name, meaning, frame| Sample {
        name,
        meaning,
        frame: Frame::Server(frame),
    };
    let created = EventBody {
        channel_kind: Some(ChannelKind::Group),
        title: Some("Harbour".to_owned()),
        members: vec![
            EventMember {
                user: ANNA,
                role: MemberRole::Owner,
            },
            EventMember {
                user: BEN,
                role: MemberRole::Member,
            },
        ],
    };
    let left = EventBody {
        members: vec![EventMember {
            user: BEN,
            role: MemberRole::Member,
        }],
        ..EventBody::default()
    };
    let renamed = EventBody {
        title: Some(String::new()),
        ..EventBody::default()
    };
    let change = |author, seq, kind, body: &EventBody| Event {
        kind,
        tail: Bytes::from(body.encode()),
        ..text_event(author, seq, "")
    };
    let welcome = Welcome {
        minor: 0,
        features: 0,
        session: SessionId(9_000_000_001),
        user: ANNA,
        device: DeviceId(12),
        time_ms: TIME_MS,
        generation: 77,
        inbox_position: 5_000_000_000,
        limits: announced_limits(),
        pending: Vec::new(),
        resumed: false,
        node: "node-a".to_owned(),
    };
    vec![
        sample(
            "welcome_fresh",
            "Answer to a fresh device: nothing resumed.",
            ServerFrame::Welcome(Box::new(welcome.clone())),
        ),
        sample(
            "welcome_resumed",
            "Answer to a device that came back and asked about three sends: stored, absent, unknown.",
            ServerFrame::Welcome(Box::new(Welcome {
                minor: 1,
                features: 1 << 40,
                pending: vec![
                    PendingAnswer::Stored {
                        seq: 118,
                        time_ms: TIME_MS,
                    },
                    PendingAnswer::Absent,
                    PendingAnswer::Unknown,
                ],
                resumed: true,
                ..welcome
            })),
        ),
        sample(
            "deliver_text",
            "Forty bytes of text, seq 121, in alias 3: 68 bytes.",
            ServerFrame::Deliver {
                alias: 3,
                event: text_event(ANNA, 121, FORTY_BYTES),
            },
        ),
        sample(
            "deliver_with_mention",
            "A text with a table, in a channel whose alias the server chose.",
            ServerFrame::Deliver {
                alias: 0x8000_0001,
                event: Event {
                    flags: EventFlags::TABLE,
                    tail: Bytes::from(
                        MessageBody {
                            mentions: vec![BEN],
                        }
                        .encode_tail("@ben look"),
                    ),
                    ..text_event(ANNA, 122, "")
                },
            },
        ),
        sample(
            "deliver_omitted",
            "A message whose tail of 300,000 bytes is not pushed: fetch it by HISTORY.",
            ServerFrame::Deliver {
                alias: 3,
                event: Event {
                    flags: EventFlags::BODY_OMITTED,
                    tail: Bytes::copy_from_slice(&300_000u32.to_le_bytes()),
                    ..text_event(ANNA, 123, "")
                },
            },
        ),
        sample(
            "event_channel_created",
            "First event of a group of two with a title.",
            ServerFrame::Event {
                alias: 3,
                event: change(ANNA, 1, 16, &created),
            },
        ),
        sample(
            "event_member_left",
            "Someone left the group.",
            ServerFrame::Event {
                alias: 3,
                event: change(BEN, 124, 19, &left),
            },
        ),
        sample(
            "event_channel_renamed",
            "The title was taken away: present and empty.",
            ServerFrame::Event {
                alias: 3,
                event: change(ANNA, 125, 20, &renamed),
            },
        ),
        sample(
            "send_ack",
            "Request 4 is stored as seq 121.",
            ServerFrame::SendAck {
                request: 4,
                acks: vec![Ack {
                    seq: 121,
                    time_ms: TIME_MS,
                    flags: AckFlags::default(),
                }],
            },
        ),
        sample(
            "send_ack_many",
            "Request 7: the first message was already stored earlier, the second is now.",
            ServerFrame::SendAck {
                request: 7,
                acks: vec![
                    Ack {
                        seq: 118,
                        time_ms: TIME_MS - 5_000,
                        flags: AckFlags::DUP,
                    },
                    Ack {
                        seq: 122,
                        time_ms: TIME_MS,
                        flags: AckFlags::default(),
                    },
                ],
            },
        ),
        sample(
            "channel_head",
            "15 unread messages: 110 − 95.",
            ServerFrame::ChannelHead(head()),
        ),
        sample(
            "sync_now",
            "Too much changed to list: ask SYNC.",
            ServerFrame::SyncNow,
        ),
        sample(
            "channel_opened_group",
            "Answer to request 8: a group, open as alias 3.",
            ServerFrame::ChannelOpened {
                request: 8,
                opened: ChannelOpened {
                    alias: 3,
                    head: head(),
                    kind: ChannelKind::Group,
                    title: "Harbour".to_owned(),
                    peer: None,
                    first_seq: 1,
                    resync: false,
                },
            },
        ),
        sample(
            "channel_opened_direct",
            "By itself, before the first DELIVER in an alias that the server chose; the cursor was void.",
            ServerFrame::ChannelOpened {
                request: 0,
                opened: ChannelOpened {
                    alias: 0x8000_0001,
                    head: head(),
                    kind: ChannelKind::Direct,
                    title: String::new(),
                    peer: Some(BEN),
                    first_seq: 1,
                    resync: true,
                },
            },
        ),
        sample(
            "sync_changes",
            "Answer to request 11: a group, a direct channel and a group that the user left; more wait.",
            ServerFrame::SyncChanges {
                request: 11,
                changes: SyncChanges {
                    reset: false,
                    rows: vec![
                        SyncRow {
                            head: head(),
                            kind: ChannelKind::Group,
                            title: "Harbour".to_owned(),
                            peer: None,
                            first_seq: 1,
                            left_seq: None,
                            role: MemberRole::Owner,
                        },
                        SyncRow {
                            head: ChannelHead {
                                channel: ChannelId(2),
                                ..head()
                            },
                            kind: ChannelKind::Direct,
                            title: String::new(),
                            peer: Some(BEN),
                            first_seq: 1,
                            left_seq: None,
                            role: MemberRole::Member,
                        },
                        SyncRow {
                            head: ChannelHead {
                                channel: ChannelId(3),
                                mentions: 2,
                                ..head()
                            },
                            kind: ChannelKind::Group,
                            title: "Møller & søn".to_owned(),
                            peer: None,
                            first_seq: 40,
                            left_seq: Some(90),
                            role: MemberRole::Admin,
                        },
                    ],
                    more: true,
                    token: vec![1, 2, 3, 4, 6],
                },
            },
        ),
        sample(
            "sync_changes_reset",
            "The token was void; there is nothing to list.",
            ServerFrame::SyncChanges {
                request: 0,
                changes: SyncChanges {
                    reset: true,
                    rows: Vec::new(),
                    more: false,
                    token: vec![9],
                },
            },
        ),
        sample(
            "history_page",
            "Answer to request 9: three events of two authors.",
            ServerFrame::HistoryPage {
                request: 9,
                page: HistoryPage {
                    channel: CHANNEL,
                    generation: 77,
                    covered_from: 101,
                    covered_to: 103,
                    first_seq: 1,
                    head_seq: 125,
                    events: vec![
                        text_event(ANNA, 101, "still here?"),
                        text_event(BEN, 102, "yes"),
                        change(ANNA, 103, 19, &left),
                    ],
                },
            },
        ),
        sample(
            "history_page_empty",
            "Nothing lies in the range asked for.",
            ServerFrame::HistoryPage {
                request: 10,
                page: HistoryPage {
                    channel: CHANNEL,
                    generation: 77,
                    covered_from: 200,
                    covered_to: 199,
                    first_seq: 1,
                    head_seq: 125,
                    events: Vec::new(),
                },
            },
        ),
        sample(
            "error_rate_limited",
            "Item 1 of SEND_MANY (request 7) came too soon; none of it was stored.",
            ServerFrame::Error {
                request: 7,
                error: ErrorFrame {
                    code: Code::RateLimited,
                    retry_after_ms: 1_500,
                    refused_type: frame_type::SEND_MANY,
                    item: 1,
                    detail: "20 messages a second".to_owned(),
                },
            },
        ),
        sample(
            "error_of_connection",
            "The last word before a close.",
            ServerFrame::Error {
                request: 0,
                error: ErrorFrame {
                    code: Code::BadFrame,
                    retry_after_ms: 0,
                    refused_type: 0,
                    item: 0,
                    detail: String::new(),
                },
            },
        ),
        sample(
            "server_credit",
            "64 KiB more may be sent.",
            ServerFrame::Credit { bytes: 65_536 },
        ),
        sample(
            "pong",
            "Answer to a heartbeat, with the inbox position.",
            ServerFrame::Pong {
                nonce: 0x0102_0304,
                inbox_position: 5_000_000_000,
            },
        ),
        sample(
            "goaway",
            "The node is leaving: reconnect within 2 to 10 s, best to another endpoint.",
            ServerFrame::Goaway {
                code: Code::GoingAway,
                delay_min_ms: 2_000,
                delay_max_ms: 10_000,
                endpoints: vec![
                    "wss://b.example/v1/ws".to_owned(),
                    "wss://c.example/v1/ws".to_owned(),
                ],
            },
        ),
        sample(
            "goaway_alone",
            "The node is leaving and knows no other endpoint.",
            ServerFrame::Goaway {
                code: Code::GoingAway,
                delay_min_ms: 0,
                delay_max_ms: 5_000,
                endpoints: Vec::new(),
            },
        ),
        sample(
            "auth_expiring",
            "The token ends in a minute.",
            ServerFrame::AuthExpiring {
                expires_in_ms: 60_000,
            },
        ),
        sample(
            "auth_refreshed",
            "Request 2: the new token holds for 15 minutes.",
            ServerFrame::AuthRefreshed {
                request: 2,
                expires_in_ms: 900_000,
            },
        ),
        sample(
            "server_skipped",
            "A type of a newer version that says it may be skipped.",
            ServerFrame::Skipped { frame_type: 0xab },
        ),
    ]
}

/// Every frame of either direction, with its optional fields present and absent.
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = client_samples();
    samples.extend(server_samples());
    samples
}

fn id(id: impl ToString) -> Value {
    Value::String(id.to_string())
}

fn tail_fields(fields: &mut Value, kind: u8, plain: bool, tail: &[u8]) {
    fields["tail"] = Value::String(hex::encode(tail));
    if kind == 1 && plain {
        fields["tail_text"] = Value::String(String::from_utf8_lossy(tail).into_owned());
    }
}

fn send_fields(send: &Send<'_>) -> Value {
    let mut fields = json!({
        "key": hex::encode(send.key.0), "alias": send.alias, "kind": send.kind, "flags": send.flags.0,
    });
    tail_fields(
        &mut fields,
        send.kind,
        !send.flags.contains(SendFlags::TABLE),
        send.tail,
    );
    fields
}

fn event_fields(event: &Event) -> Value {
    let mut fields = json!({
        "author": id(event.author), "seq": event.seq, "time_ms": id(event.time_ms), "kind": event.kind,
        "flags": event.flags.0,
    });
    tail_fields(&mut fields, event.kind, event.flags.0 == 0, &event.tail);
    if event.kind >= 16
        && let Ok(body) = EventBody::decode(&event.tail)
    {
        fields["body"] = json!({
            "channel_kind": body.channel_kind.map(|kind| kind as u8),
            "title": body.title,
            "members": body.members.iter()
                .map(|member| json!({"user": id(member.user), "role": member.role as u8})).collect::<Vec<_>>(),
        });
    }
    fields
}

fn cursor_fields(cursor: &Cursor) -> Value {
    json!({
        "channel": id(cursor.channel), "generation": cursor.generation, "seq": cursor.seq, "alias": cursor.alias,
    })
}

fn head_fields(head: &ChannelHead) -> Value {
    json!({
        "channel": id(head.channel), "head_seq": head.head_seq, "head_ordinal": head.head_ordinal,
        "read_seq": head.read_seq, "read_ordinal": head.read_ordinal, "mentions": head.mentions,
    })
}

pub(crate) fn client_fields(frame: &ClientFrame<'_>) -> Value {
    match frame {
        ClientFrame::Hello(hello) => json!({
            "minor": hello.minor, "features": id(hello.features), "token": hello.token, "client": hello.client,
            "sync_token": hex::encode(&hello.sync_token),
            "cursors": hello.cursors.iter().map(cursor_fields).collect::<Vec<_>>(),
            "pending": hello.pending.iter()
                .map(|pending| json!({"channel": id(pending.channel), "key": hex::encode(pending.key.0)}))
                .collect::<Vec<_>>(),
            "replaces": hello.replaces.map(id), "credit_bytes": hello.credit_bytes, "push_mode": hello.push as u8,
        }),
        ClientFrame::AuthRefresh { request, token } => json!({"request": request, "token": token}),
        ClientFrame::Send { request, send } => {
            json!({"request": request, "send": send_fields(send)})
        }
        ClientFrame::SendMany { request, sends } => {
            json!({"request": request, "sends": sends.iter().map(send_fields).collect::<Vec<_>>()})
        }
        ClientFrame::OpenChannel { request, cursor } => {
            json!({"request": request, "cursor": cursor_fields(cursor)})
        }
        ClientFrame::CloseChannel { alias } => json!({"alias": alias}),
        ClientFrame::History { request, history } => json!({
            "request": request, "channel": id(history.channel), "from": history.from, "to": history.to,
            "items_max": history.items_max, "newest_first": history.newest_first,
        }),
        ClientFrame::Sync {
            request,
            token,
            rows_max,
        } => {
            json!({"request": request, "token": hex::encode(token), "rows_max": rows_max})
        }
        ClientFrame::Read {
            request,
            channel,
            seq,
        } => {
            json!({"request": request, "channel": id(channel), "seq": seq})
        }
        ClientFrame::Credit { bytes } => json!({"bytes": bytes}),
        ClientFrame::Ping { nonce } => json!({"nonce": nonce}),
        ClientFrame::Goodbye => json!({}),
        ClientFrame::Skipped { frame_type } => json!({"frame_type": frame_type}),
    }
}

fn limit_fields(limits: &Limits) -> Value {
    json!({
        "text_chars_max": limits.text_chars_max, "payload_bytes_max": limits.payload_bytes_max,
        "frame_bytes_max": limits.frame_bytes_max, "pushed_body_bytes_max": limits.pushed_body_bytes_max,
        "send_many_items_max": limits.send_many_items_max, "send_many_bytes_max": limits.send_many_bytes_max,
        "sends_in_flight_max": limits.sends_in_flight_max, "requests_in_flight_max": limits.requests_in_flight_max,
        "history_items_max": limits.history_items_max, "history_bytes_max": limits.history_bytes_max,
        "sync_rows_max": limits.sync_rows_max, "group_members_max": limits.group_members_max,
        "heartbeat_ms": limits.heartbeat_ms, "silence_max_ms": limits.silence_max_ms,
    })
}

fn pending_fields(answer: &PendingAnswer) -> Value {
    match answer {
        PendingAnswer::Stored { seq, time_ms } => {
            json!({"state": "stored", "seq": seq, "time_ms": id(time_ms)})
        }
        PendingAnswer::Absent => json!({"state": "absent"}),
        PendingAnswer::Unknown => json!({"state": "unknown"}),
    }
}

pub(crate) fn server_fields(frame: &ServerFrame) -> Value {
    match frame {
        ServerFrame::Welcome(welcome) => json!({
            "minor": welcome.minor, "features": id(welcome.features), "session": id(welcome.session),
            "user": id(welcome.user), "device": id(welcome.device), "time_ms": id(welcome.time_ms),
            "generation": welcome.generation, "inbox_position": id(welcome.inbox_position),
            "limits": limit_fields(&welcome.limits),
            "pending": welcome.pending.iter().map(pending_fields).collect::<Vec<_>>(),
            "resumed": welcome.resumed, "node": welcome.node,
        }),
        ServerFrame::Deliver { alias, event } | ServerFrame::Event { alias, event } => {
            json!({"alias": alias, "event": event_fields(event)})
        }
        ServerFrame::SendAck { request, acks } => json!({
            "request": request,
            "acks": acks.iter()
                .map(|ack| json!({"seq": ack.seq, "time_ms": id(ack.time_ms), "flags": ack.flags.0}))
                .collect::<Vec<_>>(),
        }),
        ServerFrame::ChannelHead(head) => head_fields(head),
        ServerFrame::SyncNow => json!({}),
        ServerFrame::ChannelOpened { request, opened } => json!({
            "request": request, "alias": opened.alias, "head": head_fields(&opened.head), "kind": opened.kind as u8,
            "title": opened.title, "peer": opened.peer.map(id), "first_seq": opened.first_seq,
            "resync": opened.resync,
        }),
        ServerFrame::SyncChanges { request, changes } => json!({
            "request": request, "reset": changes.reset, "more": changes.more, "token": hex::encode(&changes.token),
            "rows": changes.rows.iter().map(|row| json!({
                "head": head_fields(&row.head), "kind": row.kind as u8, "role": row.role as u8, "title": row.title,
                "peer": row.peer.map(id), "first_seq": row.first_seq, "left_seq": row.left_seq,
            })).collect::<Vec<_>>(),
        }),
        ServerFrame::HistoryPage { request, page } => json!({
            "request": request, "channel": id(page.channel), "generation": page.generation,
            "covered_from": page.covered_from, "covered_to": page.covered_to, "first_seq": page.first_seq,
            "head_seq": page.head_seq, "events": page.events.iter().map(event_fields).collect::<Vec<_>>(),
        }),
        ServerFrame::Error { request, error } => json!({
            "request": request, "code": error.code.number(), "retry_after_ms": error.retry_after_ms,
            "refused_type": error.refused_type, "item": error.item, "detail": error.detail,
        }),
        ServerFrame::Credit { bytes } => json!({"bytes": bytes}),
        ServerFrame::Pong {
            nonce,
            inbox_position,
        } => {
            json!({"nonce": nonce, "inbox_position": id(inbox_position)})
        }
        ServerFrame::Goaway {
            code,
            delay_min_ms,
            delay_max_ms,
            endpoints,
        } => json!({
            "code": code.number(), "delay_min_ms": delay_min_ms, "delay_max_ms": delay_max_ms,
            "endpoints": endpoints,
        }),
        ServerFrame::AuthExpiring { expires_in_ms } => json!({"expires_in_ms": expires_in_ms}),
        ServerFrame::AuthRefreshed {
            request,
            expires_in_ms,
        } => {
            json!({"request": request, "expires_in_ms": expires_in_ms})
        }
        ServerFrame::Skipped { frame_type } => json!({"frame_type": frame_type}),
    }
}
