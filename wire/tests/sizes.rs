//! What frames cost on the wire: the figures of the design, asserted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{
    CHANNEL, FORTY_BYTES, decode_server, encode_client, encode_server, text_event, text_send,
};
use conch_wire::event::{Ack, AckFlags};
use conch_wire::frame::{HistoryPage, put_event, put_history_page};
use conch_wire::{ClientFrame, Event, EventFlags, ServerFrame, UserId, limits};

#[test]
fn deliver_of_forty_bytes_is_68() {
    let event = text_event(UserId(1), 9, FORTY_BYTES);
    assert_eq!(FORTY_BYTES.len(), 40);
    assert_eq!(
        encode_server(&ServerFrame::Deliver { alias: 3, event }).len(),
        68
    );
}

#[test]
fn send_of_forty_bytes_is_at_most_76() {
    let frame = ClientFrame::Send {
        request: 1,
        send: text_send(FORTY_BYTES),
    };
    assert_eq!(encode_client(&frame).len(), 72);
}

#[test]
fn ack_read_and_heartbeat_are_at_most_24() {
    let ack = Ack {
        seq: 9,
        time_ms: 1,
        flags: AckFlags::default(),
    };
    assert_eq!(
        encode_server(&ServerFrame::SendAck {
            request: 1,
            acks: vec![ack]
        })
        .len(),
        20
    );
    assert_eq!(
        encode_client(&ClientFrame::Read {
            request: 1,
            channel: CHANNEL,
            seq: 9
        })
        .len(),
        20
    );
    assert_eq!(encode_client(&ClientFrame::Ping { nonce: 1 }).len(), 8);
    assert_eq!(
        encode_server(&ServerFrame::Pong {
            nonce: 1,
            inbox_position: 1
        })
        .len(),
        16
    );
    assert_eq!(encode_client(&ClientFrame::Credit { bytes: 1 }).len(), 12);
    assert_eq!(
        encode_server(&ServerFrame::ChannelHead(common::head())).len(),
        36
    );
}

fn page_of(events: Vec<Event>) -> HistoryPage {
    HistoryPage {
        channel: CHANNEL,
        generation: 1,
        covered_from: events.first().map_or(1, |event| event.seq),
        covered_to: events.last().map_or(0, |event| event.seq),
        first_seq: 1,
        head_seq: 1_000,
        events,
    }
}

#[test]
fn history_costs_at_most_20_bytes_a_message_from_20_on() {
    for count in [20, 50, 200] {
        let page = page_of(
            (1..=count)
                .map(|seq| text_event(UserId(u64::from(seq % 2)), seq, FORTY_BYTES))
                .collect(),
        );
        let bytes = encode_server(&ServerFrame::HistoryPage { request: 1, page });
        let overhead = bytes.len() - count as usize * FORTY_BYTES.len();
        assert!(
            overhead <= 20 * count as usize,
            "{count} messages cost {overhead} bytes"
        );
    }
}

#[test]
fn a_page_from_stored_bodies_is_the_page_from_events() {
    let page = page_of(
        (5..=30)
            .map(|seq| text_event(UserId(u64::from(seq % 7)), seq, "word"))
            .collect(),
    );
    let bodies: Vec<Bytes> = page.events.iter().map(Event::encode_body).collect();
    let mut out = BytesMut::new();
    put_history_page(
        &mut out,
        6,
        &HistoryPage {
            events: Vec::new(),
            ..page.clone()
        },
        &bodies,
    );
    assert_eq!(
        out,
        encode_server(&ServerFrame::HistoryPage {
            request: 6,
            page: page.clone()
        })
    );
    assert_eq!(
        decode_server(&out).unwrap(),
        ServerFrame::HistoryPage { request: 6, page }
    );
}

#[test]
fn a_stored_body_goes_out_as_it_is() {
    let event = text_event(UserId(1), 9, FORTY_BYTES);
    let mut out = BytesMut::new();
    assert_eq!(put_event(&mut out, 3, &event.encode_body()), 68);
    assert_eq!(
        out,
        encode_server(&ServerFrame::Deliver {
            alias: 3,
            event: event.clone()
        })
    );

    let change = Event { kind: 19, ..event };
    out.clear();
    put_event(&mut out, 3, &change.encode_body());
    assert_eq!(
        out,
        encode_server(&ServerFrame::Event {
            alias: 3,
            event: change
        })
    );
}

#[test]
fn a_body_above_16_kib_is_omitted_with_its_size() {
    let longest = "a".repeat(limits::PUSHED_BODY_BYTES_MAX - 20);
    let mut out = BytesMut::new();
    put_event(
        &mut out,
        3,
        &text_event(UserId(1), 9, &longest).encode_body(),
    );
    assert_eq!(out.len(), 8 + limits::PUSHED_BODY_BYTES_MAX);

    out.clear();
    let appended = put_event(
        &mut out,
        3,
        &text_event(UserId(1), 9, &(longest + "a")).encode_body(),
    );
    assert_eq!(appended, 32);
    let ServerFrame::Deliver { event, .. } = decode_server(&out).unwrap() else {
        panic!("not a DELIVER")
    };
    assert!(event.flags.contains(EventFlags::BODY_OMITTED));
    assert_eq!(
        event.omitted_bytes(),
        Some(limits::PUSHED_BODY_BYTES_MAX as u32 - 19)
    );
    assert_eq!(event.text(), None);
    assert_eq!((event.author, event.seq), (UserId(1), 9));
}
