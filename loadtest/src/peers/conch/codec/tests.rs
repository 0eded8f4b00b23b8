//! A conversation with a node that says what the test wants, cut in every way.

use conch_wire::event::{Ack, AckFlags, Event, EventFlags};
use conch_wire::frame::{ChannelHead, ChannelOpened, Limits, Welcome};
use conch_wire::{DeviceId, SessionId, UserId};

use super::*;
use crate::peers::conch::websocket::FakeNode;

const CHANNEL: ChannelId = ChannelId(77);

fn bytes(frames: &[ServerFrame]) -> Bytes {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out.freeze()
}

fn welcome() -> ServerFrame {
    ServerFrame::Welcome(Box::new(Welcome {
        minor: 0,
        features: 0,
        session: SessionId(1),
        user: UserId(2),
        device: DeviceId(3),
        time_ms: 4,
        generation: 5,
        inbox_position: 6,
        limits: Limits::default(),
        pending: vec![],
        resumed: false,
        node: "n".to_owned(),
    }))
}

fn opened() -> ServerFrame {
    let head = ChannelHead {
        channel: CHANNEL,
        head_seq: 1,
        head_ordinal: 0,
        read_seq: 0,
        read_ordinal: 0,
        mentions: 0,
    };
    ServerFrame::ChannelOpened {
        request: OPENING,
        opened: ChannelOpened {
            alias: ALIAS,
            head,
            kind: conch_wire::event::ChannelKind::Direct,
            title: String::new(),
            peer: None,
            first_seq: 1,
            resync: false,
        },
    }
}

fn acks(request: u32, count: u32) -> ServerFrame {
    let ack = |seq| Ack {
        seq,
        time_ms: 9,
        flags: AckFlags::default(),
    };
    ServerFrame::SendAck {
        request,
        acks: (1..=count).map(ack).collect(),
    }
}

fn deliver(seq: u32, text: &'static [u8]) -> ServerFrame {
    ServerFrame::Deliver {
        alias: 9,
        event: Event {
            author: UserId(8),
            seq,
            time_ms: 9,
            kind: EventKind::Text as u8,
            flags: EventFlags::default(),
            tail: Bytes::from_static(text),
        },
    }
}

/// A codec, the node at its other end, and what was seen.
struct Conversation {
    codec: Box<dyn Codec>,
    node: FakeNode,
    piece: usize,
    seen: Vec<String>,
}

impl Conversation {
    fn begin(line: Line, piece: usize) -> Conversation {
        let mut codec = ConchCodec::boxed("127.0.0.1:1", "token", CHANNEL, line);
        let mut request = Vec::new();
        codec.start(&mut request).unwrap();
        Conversation {
            codec,
            node: FakeNode::accept(&request),
            piece,
            seen: Vec::new(),
        }
    }

    /// The node says it, in pieces; what the client answers is given.
    fn say(&mut self, frames: &[ServerFrame]) -> Result<Vec<Bytes>, Breach> {
        let messages = match frames {
            [] => vec![],
            _ => vec![bytes(frames)],
        };
        let mut out = Vec::new();
        for chunk in self.node.say(&messages).chunks(self.piece) {
            let seen = &mut |it: Happening<'_>| self.seen.push(format!("{it:?}"));
            assert_eq!(self.codec.take(chunk, &mut out, seen)?, chunk.len());
        }
        Ok(self.node.hear(&out))
    }

    fn publish(&mut self, texts: &[&[u8]]) -> Vec<Bytes> {
        let mut out = Vec::new();
        for text in texts {
            self.codec.publish(text, &mut out);
        }
        self.codec.flush(&mut out);
        self.node.hear(&out)
    }
}

/// Request and texts of every SEND and SEND_MANY.
fn sends(messages: &[Bytes]) -> Vec<(u32, Vec<String>)> {
    let text = |send: &Send<'_>| String::from_utf8(send.tail.to_vec()).unwrap();
    let mut found = Vec::new();
    for message in messages {
        let mut rest = &message[..];
        while let Some(split) = split_frame(rest, limits::FRAME_BYTES_MAX).unwrap() {
            match ClientFrame::decode(split.header, split.body).unwrap() {
                ClientFrame::Send { request, send } => found.push((request, vec![text(&send)])),
                ClientFrame::SendMany { request, sends } => {
                    found.push((request, sends.iter().map(text).collect()));
                }
                _ => {}
            }
            rest = &rest[split.consumed..];
        }
    }
    found
}

#[test]
fn a_sender_has_one_batch_in_flight_and_the_rest_follows_its_ack() {
    for piece in [1, 2, 3, 5, 8, 13, 1_000] {
        let mut it = Conversation::begin(Line::Sender { channel: 0 }, piece);
        assert_eq!(it.say(&[]).unwrap().len(), 1, "HELLO follows the handshake");
        assert_eq!(
            it.say(&[welcome()]).unwrap().len(),
            1,
            "OPEN_CHANNEL follows WELCOME"
        );
        it.say(&[opened()]).unwrap();
        assert_eq!(it.seen, ["Ready"]);
        let first = sends(&it.publish(&[b"a", b"b"]));
        assert_eq!(first, [(2, vec!["a".to_owned(), "b".to_owned()])]);
        assert!(it.publish(&[b"c"]).is_empty(), "one batch is in flight");
        let next = sends(&it.say(&[acks(2, 2)]).unwrap());
        assert_eq!(next, [(3, vec!["c".to_owned()])]);
        it.say(&[acks(3, 1)]).unwrap();
        assert_eq!(it.seen[1..], ["Acked { count: 2 }", "Acked { count: 1 }"]);
    }
}

#[test]
fn a_receiver_tells_deliveries_and_grants_what_it_consumed() {
    for piece in [1, 2, 3, 1_000] {
        let mut it = Conversation::begin(Line::Receiver { channel: 0 }, piece);
        it.say(&[]).unwrap();
        it.say(&[welcome(), deliver(1, b"hi"), deliver(2, b"ho")])
            .unwrap();
        let delivered =
            ["[104, 105]", "[104, 111]"].map(|it| format!("Delivered {{ payload: {it} }}"));
        assert_eq!(it.seen[0], "Ready");
        assert_eq!(it.seen[1..], delivered);
    }
    let mut it = Conversation::begin(Line::Receiver { channel: 0 }, 4_096);
    it.say(&[]).unwrap();
    const LONG: &[u8] = &[b'x'; 15_000];
    let answers: usize = (1..=5)
        .map(|seq| it.say(&[deliver(seq, LONG)]).unwrap().len())
        .sum();
    assert_eq!(answers, 1, "65,536 bytes were passed once");
}

#[test]
fn acks_for_something_else_and_refusals_are_breaches() {
    let start = || {
        let mut it = Conversation::begin(Line::Sender { channel: 0 }, 100);
        it.say(&[]).unwrap();
        it.say(&[welcome(), opened()]).unwrap();
        it.publish(&[b"a", b"b"]);
        it
    };
    assert!(start().say(&[acks(2, 1)]).is_err());
    assert!(start().say(&[acks(9, 2)]).is_err());
    let refusal = ServerFrame::Error {
        request: 2,
        error: conch_wire::frame::ErrorFrame {
            code: conch_wire::Code::RateLimited,
            retry_after_ms: 0,
            refused_type: 3,
            item: 0,
            detail: String::new(),
        },
    };
    assert!(start().say(&[refusal]).is_err());
}
