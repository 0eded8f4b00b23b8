//! Properties over all frames: what is encoded decodes to itself, whatever the values; what is decoded never panics;
//! frames in a row are split the same however they arrive.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{decode_client, decode_server, encode_client, encode_server, samples};
use conch_wire::event::{
    Ack, AckFlags, ChannelKind, EventBody, EventMember, MessageBody, PendingAnswer, PendingSend,
    SendFlags, check_send_tail,
};
use conch_wire::frame::{
    ChannelHead, ChannelOpened, Cursor, ErrorFrame, FrameHeader, Hello, History, HistoryPage,
    Limits, PushMode, Send, SyncChanges, SyncRow, Welcome, frame_type, split_frame,
};
use conch_wire::{
    ChannelId, ClientFrame, Code, DeviceId, Event, EventFlags, MemberRole, MessageKey, ServerFrame,
    SessionId, UserId, id::ID_MAX, limits,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(ID_MAX), 0..=ID_MAX, 0..1_000u64]
}

fn key() -> impl Strategy<Value = MessageKey> {
    any::<[u8; 16]>().prop_map(MessageKey)
}

fn time_ms() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just((1 << 48) - 1), 0..1u64 << 48]
}

fn seq() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), Just(limits::SEQ_MAX), 1..=limits::SEQ_MAX]
}

fn client_alias() -> impl Strategy<Value = u32> {
    1..=0x7fff_ffffu32
}

fn request() -> impl Strategy<Value = u32> {
    1..=u32::MAX
}

fn title() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=limits::TITLE_CHARS_MAX).prop_map(String::from_iter)
}

fn channel_kind() -> impl Strategy<Value = ChannelKind> {
    prop_oneof![
        Just(ChannelKind::Direct),
        Just(ChannelKind::Group),
        Just(ChannelKind::SelfLog)
    ]
}

fn role() -> impl Strategy<Value = MemberRole> {
    prop_oneof![
        Just(MemberRole::Member),
        Just(MemberRole::Admin),
        Just(MemberRole::Owner)
    ]
}

fn code() -> impl Strategy<Value = Code> {
    proptest::sample::select(Code::ALL)
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (id(), any::<u32>(), any::<u32>(), client_alias()).prop_map(
        |(channel, generation, seq, alias)| Cursor {
            channel: ChannelId(channel),
            generation,
            seq,
            alias,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let pending = (id(), key()).prop_map(|(channel, key)| PendingSend {
        channel: ChannelId(channel),
        key,
    });
    let texts = (
        "[ -~]{0,400}",
        "[ -~]{0,64}",
        vec(any::<u8>(), 0..=limits::SYNC_TOKEN_BYTES_MAX),
    );
    let lists = (
        vec(cursor(), 0..=limits::HELLO_CURSORS_MAX),
        vec(pending, 0..=limits::HELLO_PENDING_MAX),
    );
    let numbers = (
        any::<u16>(),
        any::<u64>(),
        proptest::option::of(id()),
        any::<u32>(),
        any::<bool>(),
    );
    (texts, lists, numbers).prop_map(
        |(
            (token, client, sync_token),
            (cursors, pending),
            (minor, features, replaces, credit_bytes, opened),
        )| Hello {
            minor,
            features,
            token,
            client,
            sync_token,
            cursors,
            pending,
            replaces: replaces.map(SessionId),
            credit_bytes,
            push: if opened {
                PushMode::Opened
            } else {
                PushMode::All
            },
        },
    )
}

/// A send that owns its tail, because strategies cannot lend.
#[derive(Clone, Debug)]
struct OwnedSend {
    key: MessageKey,
    alias: u32,
    kind: u8,
    flags: u8,
    tail: Vec<u8>,
}

impl OwnedSend {
    fn borrow(&self) -> Send<'_> {
        Send {
            key: self.key,
            alias: self.alias,
            kind: self.kind,
            flags: SendFlags(self.flags),
            tail: &self.tail,
        }
    }
}

fn send() -> impl Strategy<Value = OwnedSend> {
    (
        key(),
        1..=u32::MAX,
        1..16u8,
        0..4u8,
        vec(any::<u8>(), 0..500),
    )
        .prop_map(|(key, alias, kind, flags, tail)| OwnedSend {
            key,
            alias,
            kind,
            flags,
            tail,
        })
}

fn cold_client_frame() -> impl Strategy<Value = ClientFrame<'static>> {
    let token = vec(any::<u8>(), 0..=limits::SYNC_TOKEN_BYTES_MAX);
    prop_oneof![
        hello().prop_map(ClientFrame::Hello),
        (request(), "\\PC{0,300}")
            .prop_map(|(request, token)| ClientFrame::AuthRefresh { request, token }),
        (request(), cursor())
            .prop_map(|(request, cursor)| ClientFrame::OpenChannel { request, cursor }),
        (1..=u32::MAX).prop_map(|alias| ClientFrame::CloseChannel { alias }),
        (
            request(),
            id(),
            any::<u32>(),
            any::<u32>(),
            1..=u16::MAX,
            any::<bool>()
        )
            .prop_map(|(request, channel, a, b, items_max, newest_first)| {
                ClientFrame::History {
                    request,
                    history: History {
                        channel: ChannelId(channel),
                        from: a.min(b),
                        to: a.max(b),
                        items_max,
                        newest_first,
                    },
                }
            }),
        (request(), token, 1..=u16::MAX).prop_map(|(request, token, rows_max)| ClientFrame::Sync {
            request,
            token,
            rows_max
        }),
        (any::<u32>(), id(), any::<u32>()).prop_map(|(request, channel, seq)| ClientFrame::Read {
            request,
            channel: ChannelId(channel),
            seq
        }),
        any::<u32>().prop_map(|bytes| ClientFrame::Credit { bytes }),
        any::<u32>().prop_map(|nonce| ClientFrame::Ping { nonce }),
        Just(ClientFrame::Goodbye),
        (0x80..0xc0u8).prop_map(|frame_type| ClientFrame::Skipped { frame_type }),
    ]
}

fn event(kinds: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Event> {
    (
        id(),
        seq(),
        time_ms(),
        kinds,
        any::<u8>(),
        vec(any::<u8>(), 0..300),
    )
        .prop_map(|(author, seq, time_ms, kind, flags, mut tail)| {
            let flags = EventFlags(flags);
            if flags.contains(EventFlags::BODY_OMITTED) {
                tail.resize(4, 0);
            }
            Event {
                author: UserId(author),
                seq,
                time_ms,
                kind,
                flags,
                tail: Bytes::from(tail),
            }
        })
}

fn head() -> impl Strategy<Value = ChannelHead> {
    (id(), any::<[u32; 5]>()).prop_map(
        |(channel, [head_seq, head_ordinal, read_seq, read_ordinal, mentions])| ChannelHead {
            channel: ChannelId(channel),
            head_seq,
            head_ordinal,
            read_seq,
            read_ordinal,
            mentions,
        },
    )
}

fn pending_answer() -> impl Strategy<Value = PendingAnswer> {
    prop_oneof![
        (seq(), time_ms()).prop_map(|(seq, time_ms)| PendingAnswer::Stored { seq, time_ms }),
        Just(PendingAnswer::Absent),
        Just(PendingAnswer::Unknown),
    ]
}

fn announced() -> impl Strategy<Value = Limits> {
    any::<[u32; 14]>().prop_map(|v| Limits {
        text_chars_max: v[0],
        payload_bytes_max: v[1],
        frame_bytes_max: v[2],
        pushed_body_bytes_max: v[3],
        send_many_items_max: v[4],
        send_many_bytes_max: v[5],
        sends_in_flight_max: v[6],
        requests_in_flight_max: v[7],
        history_items_max: v[8],
        history_bytes_max: v[9],
        sync_rows_max: v[10],
        group_members_max: v[11],
        heartbeat_ms: v[12],
        silence_max_ms: v[13],
    })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let ids = (id(), id(), id());
    let numbers = (
        any::<u16>(),
        any::<u64>(),
        any::<u64>(),
        any::<u32>(),
        any::<u64>(),
        any::<bool>(),
    );
    (
        ids,
        numbers,
        announced(),
        vec(pending_answer(), 0..=limits::HELLO_PENDING_MAX),
        "\\PC{0,40}",
    )
        .prop_map(
            |(
                (session, user, device),
                (minor, features, time_ms, generation, inbox_position, resumed),
                limits,
                pending,
                node,
            )| {
                Welcome {
                    minor,
                    features,
                    session: SessionId(session),
                    user: UserId(user),
                    device: DeviceId(device),
                    time_ms,
                    generation,
                    inbox_position,
                    limits,
                    pending,
                    resumed,
                    node,
                }
            },
        )
}

fn sync_row() -> impl Strategy<Value = SyncRow> {
    let numbers = (
        any::<u32>(),
        proptest::option::of(any::<u32>()),
        proptest::option::of(id()),
    );
    (head(), channel_kind(), title(), role(), numbers).prop_map(
        |(head, kind, title, role, (first_seq, left_seq, peer))| SyncRow {
            head,
            kind,
            title,
            peer: peer.map(UserId),
            first_seq,
            left_seq,
            role,
        },
    )
}

fn page() -> impl Strategy<Value = HistoryPage> {
    let events = vec((event(1..=255), 0..3u64), 0..=limits::HISTORY_ITEMS_MAX);
    (id(), any::<[u32; 3]>(), 1..1_000_000u32, events).prop_map(
        |(channel, [generation, first_seq, head_seq], covered_from, events)| HistoryPage {
            channel: ChannelId(channel),
            generation,
            covered_from,
            covered_to: covered_from + events.len() as u32 - 1,
            first_seq,
            head_seq,
            events: (covered_from..)
                .zip(events)
                .map(|(seq, (event, author))| Event {
                    seq,
                    author: UserId(author),
                    ..event
                })
                .collect(),
        },
    )
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let ack = (seq(), time_ms(), any::<u16>()).prop_map(|(seq, time_ms, flags)| Ack {
        seq,
        time_ms,
        flags: AckFlags(flags),
    });
    let opened =
        (1..=u32::MAX, sync_row(), any::<bool>()).prop_map(|(alias, row, resync)| ChannelOpened {
            alias,
            head: row.head,
            kind: row.kind,
            title: row.title,
            peer: row.peer,
            first_seq: row.first_seq,
            resync,
        });
    let changes = (
        any::<[bool; 2]>(),
        vec(sync_row(), 0..20),
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|([reset, more], rows, token)| SyncChanges {
            reset,
            rows,
            more,
            token,
        });
    let error = (
        code(),
        any::<u32>(),
        any::<u8>(),
        any::<u16>(),
        "\\PC{0,200}",
    )
        .prop_map(
            |(code, retry_after_ms, refused_type, item, detail)| ErrorFrame {
                code,
                retry_after_ms,
                refused_type,
                item,
                detail,
            },
        );
    prop_oneof![
        welcome().prop_map(|welcome| ServerFrame::Welcome(Box::new(welcome))),
        (1..=u32::MAX, event(1..=15))
            .prop_map(|(alias, event)| ServerFrame::Deliver { alias, event }),
        (1..=u32::MAX, event(16..=255))
            .prop_map(|(alias, event)| ServerFrame::Event { alias, event }),
        (request(), vec(ack, 1..=64))
            .prop_map(|(request, acks)| ServerFrame::SendAck { request, acks }),
        head().prop_map(ServerFrame::ChannelHead),
        Just(ServerFrame::SyncNow),
        (any::<u32>(), opened)
            .prop_map(|(request, opened)| ServerFrame::ChannelOpened { request, opened }),
        (any::<u32>(), changes)
            .prop_map(|(request, changes)| ServerFrame::SyncChanges { request, changes }),
        (request(), page()).prop_map(|(request, page)| ServerFrame::HistoryPage { request, page }),
        (any::<u32>(), error).prop_map(|(request, error)| ServerFrame::Error { request, error }),
        any::<u32>().prop_map(|bytes| ServerFrame::Credit { bytes }),
        (any::<u32>(), any::<u64>()).prop_map(|(nonce, inbox_position)| ServerFrame::Pong {
            nonce,
            inbox_position
        }),
        (
            code(),
            any::<[u32; 2]>(),
            vec("\\PC{0,60}", 0..=limits::GOAWAY_ENDPOINTS_MAX)
        )
            .prop_map(|(code, [delay_min_ms, delay_max_ms], endpoints)| {
                ServerFrame::Goaway {
                    code,
                    delay_min_ms,
                    delay_max_ms,
                    endpoints,
                }
            }),
        any::<u32>().prop_map(|expires_in_ms| ServerFrame::AuthExpiring { expires_in_ms }),
        (request(), any::<u32>()).prop_map(|(request, expires_in_ms)| ServerFrame::AuthRefreshed {
            request,
            expires_in_ms
        }),
        (0x80..0xc0u8).prop_map(|frame_type| ServerFrame::Skipped { frame_type }),
    ]
}

fn event_body() -> impl Strategy<Value = EventBody> {
    let member = (id(), role()).prop_map(|(user, role)| EventMember {
        user: UserId(user),
        role,
    });
    (
        proptest::option::of(channel_kind()),
        proptest::option::of(title()),
        vec(member, 0..50),
    )
        .prop_map(|(channel_kind, title, members)| EventBody {
            channel_kind,
            title,
            members,
        })
}

proptest! {
    #[test]
    fn client_frames_round_trip(frame in cold_client_frame()) {
        let bytes = encode_client(&frame);
        prop_assert_eq!(decode_client(&bytes).unwrap(), frame);
    }

    #[test]
    fn sends_round_trip_and_lend_their_tails(request in request(), owned in send()) {
        let frame = ClientFrame::Send { request, send: owned.borrow() };
        let bytes = encode_client(&frame);
        let decoded = decode_client(&bytes).unwrap();
        prop_assert_eq!(&decoded, &frame);
        let ClientFrame::Send { send, .. } = decoded else { panic!("not a SEND") };
        prop_assert!(std::ptr::eq(send.tail, &bytes[32..]));
    }

    #[test]
    fn send_many_round_trips(request in request(), alias in 1..=u32::MAX, owned in vec(send(), 1..=64)) {
        let sends: Vec<_> = owned.iter().map(|send| Send { alias, ..send.borrow() }).collect();
        let frame = ClientFrame::SendMany { request, sends };
        let bytes = encode_client(&frame);
        prop_assert_eq!(&decode_client(&bytes).unwrap(), &frame);
    }

    #[test]
    fn server_frames_round_trip(frame in server_frame()) {
        let bytes = encode_server(&frame);
        prop_assert_eq!(decode_server(&bytes).unwrap(), frame);
    }

    #[test]
    fn events_round_trip_and_share_their_body(event in event(1..=255)) {
        let body = event.encode_body();
        let decoded = Event::decode_body(body.clone()).unwrap();
        prop_assert_eq!(&decoded, &event);
        prop_assert!(std::ptr::eq(&decoded.tail[..], &body[20..]));
    }

    #[test]
    fn event_tables_round_trip(body in event_body(), mentions in vec(id(), 0..50), text in "\\PC{0,50}") {
        prop_assert_eq!(EventBody::decode(&body.encode()).unwrap(), body);
        let message = MessageBody { mentions: mentions.into_iter().map(UserId).collect() };
        prop_assert_eq!(&MessageBody::decode(&message.encode()).unwrap(), &message);
        prop_assert_eq!(check_send_tail(1, SendFlags::TABLE, &message.encode_tail(&text)), Ok(()));
    }

    #[test]
    fn any_bytes_are_an_error_or_a_frame(
        known in proptest::sample::select(frame_type::ALL),
        reference in any::<u32>(),
        body in vec(any::<u8>(), 0..600),
    ) {
        let header = FrameHeader { frame_type: known, body_len: body.len() as u32, reference };
        let _ = ClientFrame::decode(header, &body);
        let _ = EventBody::decode(&body);
        let _ = check_send_tail(1, SendFlags::TABLE, &body);
        let _ = Event::decode_body(Bytes::from(body.clone())).map(|event| {
            let _ = (event.text().map(str::len), event.message_body(), event.omitted_bytes());
        });
        let _ = ServerFrame::decode(header, Bytes::from(body));
    }

    #[test]
    fn many_mutations_are_an_error_or_a_frame(
        index in any::<proptest::sample::Index>(),
        mutations in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let samples = samples();
        let mut bytes = samples[index.index(samples.len())].bytes();
        for (at, value) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(Some(split)) = split_frame(&bytes, limits::FRAME_BYTES_MAX) {
            let _ = ClientFrame::decode(split.header, split.body);
            let _ = ServerFrame::decode(split.header, Bytes::copy_from_slice(split.body));
        }
    }

    #[test]
    fn frames_in_a_row_are_split_the_same_in_any_chunking(
        picks in vec(any::<proptest::sample::Index>(), 1..20),
        chunks in vec(1..200usize, 1..100),
    ) {
        let samples = samples();
        let frames: Vec<Vec<u8>> = picks.iter().map(|pick| samples[pick.index(samples.len())].bytes()).collect();
        let stream = frames.concat();
        let mut arrived = BytesMut::new();
        let mut split = Vec::new();
        let mut rest = &stream[..];
        let mut chunks = chunks.into_iter().cycle();
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(chunks.next().unwrap().min(rest.len()));
            arrived.extend_from_slice(chunk);
            rest = behind;
            while let Some(frame) = split_frame(&arrived, limits::FRAME_BYTES_MAX).unwrap() {
                let consumed = frame.consumed;
                prop_assert_eq!(frame.body.len(), consumed - 8);
                split.push(arrived.split_to(consumed).to_vec());
            }
        }
        prop_assert!(arrived.is_empty());
        prop_assert_eq!(split, frames);
    }
}
