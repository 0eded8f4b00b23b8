//! Hostile bytes: rows A01 to A05 of the attack table. Everything ends in an error with its code or in a valid frame;
//! nothing panics, and nothing costs more than its length.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use common::{Frame, decode_client, decode_server, encode_client, samples};
use conch_wire::event::{EventBody, MessageBody};
use conch_wire::frame::{FrameHeader, Hello, frame_type, split_frame};
use conch_wire::{ClientFrame, Code, ServerFrame, WireError, limits};
use flatbuffers::FlatBufferBuilder;

/// Far above what any of these may take and far below what they would take unbounded.
const QUICK: Duration = Duration::from_secs(1);

fn header(frame_type: u8, reference: u32, body: &[u8]) -> FrameHeader {
    FrameHeader {
        frame_type,
        body_len: body.len() as u32,
        reference,
    }
}

fn client(frame_type: u8, reference: u32, body: &[u8]) -> Result<ClientFrame<'_>, WireError> {
    ClientFrame::decode(header(frame_type, reference, body), body)
}

fn server(frame_type: u8, reference: u32, body: &[u8]) -> Result<ServerFrame, WireError> {
    ServerFrame::decode(
        header(frame_type, reference, body),
        Bytes::copy_from_slice(body),
    )
}

/// Everything that could take these bytes for one of its own.
fn decode_everywhere(bytes: &[u8]) {
    let Ok(Some(split)) = split_frame(bytes, limits::FRAME_BYTES_MAX) else {
        return;
    };
    let _ = ClientFrame::decode(split.header, split.body);
    let _ = ServerFrame::decode(split.header, Bytes::copy_from_slice(split.body));
    let _ = EventBody::decode(split.body);
    let _ = MessageBody::decode(split.body);
}

/// P-001, P-016
#[test]
fn a01_a_length_over_the_cap_is_refused_by_its_header_alone() {
    for (cap, len) in [
        (limits::HELLO_BYTES_MAX, limits::HELLO_BYTES_MAX - 7),
        (limits::FRAME_BYTES_MAX, (1 << 24) - 1),
    ] {
        let mut bytes = vec![frame_type::HELLO];
        bytes.extend_from_slice(&(len as u32).to_le_bytes()[..3]);
        bytes.extend_from_slice(&[0; 4]);
        let error = split_frame(&bytes, cap).unwrap_err();
        assert_eq!(error.code, Code::TooLarge);
    }
    let body = vec![0; limits::HELLO_BYTES_MAX - 7];
    assert_eq!(
        client(frame_type::HELLO, 0, &body).unwrap_err().code,
        Code::TooLarge
    );
}

#[test]
fn a02_every_truncation_is_an_error_or_waits_for_more() {
    for sample in samples() {
        let bytes = sample.bytes();
        for len in 0..bytes.len() {
            assert_eq!(
                split_frame(&bytes[..len], limits::FRAME_BYTES_MAX),
                Ok(None),
                "{}",
                sample.name
            );
        }
        for len in 8..bytes.len() {
            let mut cut = bytes[..len].to_vec();
            cut[1..4].copy_from_slice(&((len - 8) as u32).to_le_bytes()[..3]);
            decode_everywhere(&cut);
        }
    }
}

#[test]
fn a02_every_one_byte_mutation_is_an_error_or_a_frame() {
    for sample in samples() {
        let bytes = sample.bytes();
        for at in 0..bytes.len() {
            let mut mutated = bytes.clone();
            for value in 0..=255 {
                mutated[at] = value;
                decode_everywhere(&mutated);
            }
        }
    }
}

#[test]
fn a02_what_a_mutation_leaves_valid_encodes_and_decodes_to_itself() {
    for sample in samples() {
        let bytes = sample.bytes();
        for at in 8..bytes.len() {
            let mut mutated = bytes.clone();
            mutated[at] ^= 0x01;
            match sample.frame {
                Frame::Client(_) => {
                    let Ok(frame) = decode_client(&mutated) else {
                        continue;
                    };
                    assert_eq!(
                        decode_client(&encode_client(&frame)).unwrap(),
                        frame,
                        "{} at {at}",
                        sample.name
                    );
                }
                Frame::Server(_) => {
                    let Ok(frame) = decode_server(&mutated) else {
                        continue;
                    };
                    let again = decode_server(&common::encode_server(&frame)).unwrap();
                    assert_eq!(again, frame, "{} at {at}", sample.name);
                }
            }
        }
    }
}

/// GOAWAY whose many endpoints are all the same long string.
fn shared_string_bomb(string_bytes: usize, endpoints: usize) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let long = builder.create_string(&"e".repeat(string_bytes));
    let list = builder.create_vector(&vec![long; endpoints]);
    let table = builder.start_table();
    builder.push_slot_always(4, Code::GoingAway.number());
    builder.push_slot_always(10, list);
    let table = builder.end_table(table);
    builder.finish_minimal(table);
    builder.finished_data().to_vec()
}

/// SYNC_CHANGES whose many rows are all the same row.
fn shared_table_bomb(rows: u32) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u32_le(16); // root
    for slot in [10, 8, 0, 0, 4, 0] {
        out.put_u16_le(slot); // vtable of the root: only `rows`; two bytes of padding
    }
    out.put_i32_le(12); // the root: its vtable is 12 bytes before it
    out.put_u32_le(4); // `rows` lies 4 bytes on
    out.put_u32_le(rows);
    for index in 0..rows {
        out.put_u32_le(4 * (rows - index)); // the row lies behind the list
    }
    out.put_i32_le(-36); // the row: its vtable lies behind it
    out.put_bytes(0, 28); // head
    out.put_slice(&[2, 1, 0, 0]); // kind, role
    for slot in [10, 36, 4, 32, 33] {
        out.put_u16_le(slot);
    }
    out.to_vec()
}

/// P-007
#[test]
fn a03_a_string_shared_by_many_is_refused_quickly() {
    let one = server(frame_type::GOAWAY, 0, &shared_string_bomb(250_000, 1));
    assert!(one.is_ok(), "the bomb's shape is valid, its size is not");
    let body = Bytes::from(shared_string_bomb(250_000, 60_000));
    assert!(body.len() < limits::FRAME_BYTES_MAX);
    let start = Instant::now();
    for _ in 0..50 {
        let frame = ServerFrame::decode(header(frame_type::GOAWAY, 0, &body), body.clone());
        assert_eq!(frame.unwrap_err().code, Code::BadFrame);
    }
    assert!(start.elapsed() < QUICK);
}

/// P-007
#[test]
fn a03_a_table_shared_by_many_is_refused_quickly() {
    let one = server(frame_type::SYNC_CHANGES, 1, &shared_table_bomb(1)).unwrap();
    let ServerFrame::SyncChanges { changes, .. } = one else {
        panic!("not SYNC_CHANGES")
    };
    assert_eq!(
        changes.rows.len(),
        1,
        "the bomb's shape is valid, its size is not"
    );

    for rows in [100, 1_000, 120_000] {
        let body = shared_table_bomb(rows);
        let start = Instant::now();
        assert_eq!(
            server(frame_type::SYNC_CHANGES, 1, &body).unwrap_err().code,
            Code::BadFrame
        );
        assert!(start.elapsed() < QUICK);
    }
}

#[test]
fn a03_a_table_that_contains_itself_is_refused() {
    // WELCOME's `limits` (slot 20) is WELCOME itself, by an offset that goes round: forward offsets cannot, so each
    // offset that is not forward into the buffer must be refused.
    let sample = samples()
        .into_iter()
        .find(|sample| sample.name == "welcome_resumed")
        .unwrap();
    let bytes = sample.bytes();
    for at in (8..bytes.len()).step_by(4) {
        for offset in [
            0u32,
            u32::MAX,
            u32::MAX - 3,
            0x8000_0000,
            bytes.len() as u32,
            1,
            4,
        ] {
            let mut mutated = bytes.clone();
            mutated[at..at + 4].copy_from_slice(&offset.to_le_bytes()[..4.min(bytes.len() - at)]);
            let start = Instant::now();
            let _ = decode_server(&mutated);
            assert!(start.elapsed() < QUICK);
        }
    }
}

#[test]
fn a04_a_required_field_that_is_absent_is_refused() {
    let mut builder = FlatBufferBuilder::new();
    let table = builder.start_table();
    let table = builder.end_table(table);
    builder.finish_minimal(table);
    let empty = builder.finished_data();
    assert_eq!(
        client(frame_type::HELLO, 0, empty).unwrap_err().code,
        Code::BadFrame
    );
    assert_eq!(
        client(frame_type::AUTH_REFRESH, 1, empty).unwrap_err().code,
        Code::BadFrame
    );
    assert_eq!(
        server(frame_type::WELCOME, 0, empty).unwrap_err().code,
        Code::BadFrame
    );
    assert_eq!(
        server(frame_type::CHANNEL_OPENED, 1, empty)
            .unwrap_err()
            .code,
        Code::BadFrame
    );
    assert_eq!(
        server(frame_type::ERROR, 1, empty).unwrap_err().code,
        Code::BadFrame,
        "a code of 0"
    );
}

/// P-009
#[test]
fn a04_strings_that_are_not_utf8_are_refused() {
    let bytes = encode_client(&ClientFrame::AuthRefresh {
        request: 1,
        token: "qqqq".to_owned(),
    });
    let at = bytes
        .windows(4)
        .position(|window| window == b"qqqq")
        .unwrap();
    let mut bad = bytes.clone();
    bad[at] = 0xff;
    assert_eq!(decode_client(&bad).unwrap_err().code, Code::BadFrame);
    let mut unterminated = bytes;
    unterminated[at + 4] = b'!';
    assert_eq!(
        decode_client(&unterminated).unwrap_err().code,
        Code::BadFrame
    );
}

/// P-002
#[test]
fn a04_misaligned_prefixed_and_empty_tables_are_refused() {
    let bytes = encode_client(&ClientFrame::Hello(Hello {
        token: "t".to_owned(),
        ..Hello::default()
    }));
    let body = &bytes[8..];
    let mut misaligned = body.to_vec();
    misaligned[0] += 1;
    let prefixed = [&(body.len() as u32).to_le_bytes()[..], body].concat();
    for bad in [
        &misaligned[..],
        &prefixed,
        &[],
        &[0; 3],
        &[0; 4],
        &[255; 64],
    ] {
        assert_eq!(
            client(frame_type::HELLO, 0, bad).unwrap_err().code,
            Code::BadFrame
        );
    }
    let lie = FrameHeader {
        body_len: body.len() as u32 + 1,
        ..header(frame_type::HELLO, 0, body)
    };
    assert_eq!(
        ClientFrame::decode(lie, body).unwrap_err().code,
        Code::BadFrame
    );
}

#[test]
fn a04_values_outside_their_sets_are_refused() {
    let hello = encode_client(&ClientFrame::Hello(Hello {
        token: "t".to_owned(),
        push: conch_wire::frame::PushMode::Opened,
        ..Hello::default()
    }));
    // The only byte of value 1 whose change to 7 makes the frame invalid by meaning is the push mode.
    let refused = (8..hello.len()).filter(|at| hello[*at] == 1).any(|at| {
        let mut bytes = hello.clone();
        bytes[at] = 7;
        decode_client(&bytes).is_err_and(|error| error.what == "push mode is not known")
    });
    assert!(refused);
}

/// P-004, P-005
#[test]
fn a05_unknown_types_are_skipped_or_refused_as_they_say() {
    for frame_type in 0..=255 {
        let frame = client(frame_type, 1, b"anything");
        let other = server(frame_type, 1, b"anything");
        if frame_type & frame_type::COMPRESSED != 0 {
            assert_eq!(frame.unwrap_err().code, Code::BadFrame);
            assert_eq!(other.unwrap_err().code, Code::BadFrame);
        } else if frame_type & frame_type::SKIP_IF_UNKNOWN != 0 {
            assert_eq!(frame, Ok(ClientFrame::Skipped { frame_type }));
            assert_eq!(other, Ok(ServerFrame::Skipped { frame_type }));
        } else if frame_type::name(frame_type).is_none() {
            assert_eq!(frame.unwrap_err().code, Code::UnknownFrame);
            assert_eq!(other.unwrap_err().code, Code::UnknownFrame);
        } else if frame_type < 0x20 {
            assert_eq!(
                other.unwrap_err().code,
                Code::UnknownFrame,
                "a client's frame, sent by a node"
            );
        } else {
            assert_eq!(
                frame.unwrap_err().code,
                Code::UnknownFrame,
                "a node's frame, sent by a client"
            );
        }
    }
}

/// P-058
#[test]
fn a05_fields_of_a_newer_version_are_passed_over() {
    let mut builder = FlatBufferBuilder::new();
    let token = builder.create_string("new");
    let list = builder.create_vector(&[1u32, 2, 3]);
    let table = builder.start_table();
    builder.push_slot_always(4, 9u16); // minor
    builder.push_slot_always(8, token);
    builder.push_slot_always(4 + 2 * 40, list);
    builder.push_slot_always(4 + 2 * 41, 7u64);
    let table = builder.end_table(table);
    builder.finish_minimal(table);
    let expected = Hello {
        minor: 9,
        token: "new".to_owned(),
        ..Hello::default()
    };
    assert_eq!(
        client(frame_type::HELLO, 0, builder.finished_data()),
        Ok(ClientFrame::Hello(expected))
    );
}
