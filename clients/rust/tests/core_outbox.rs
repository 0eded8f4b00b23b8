//! Own messages and their ends, event by event: kept until they are placed or the person lets go of them, over restarts of
//! the program.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::{Bytes, BytesMut};
use conch_client::core::{
    Command, Config, Core, Event, Input, LinkCommand, Loaded, Message, Meta, OutboxItem,
    OutboxMessage, OutboxState, Outcome, Outputs, Persist, Preview, RefusalReason, SendState,
};
use conch_client::wire::event::{Ack, AckFlags, ChannelKind, PendingAnswer, SendFlags};
use conch_client::wire::frame::{
    ChannelHead, ChannelOpened, ErrorFrame, HistoryPage, Limits, Welcome, split_frame,
};
use conch_client::wire::limits::FRAME_BYTES_MAX;
use conch_client::wire::{
    ChannelId, ClientFrame, Code, DeviceId, Event as Entry, EventFlags, MessageKey, Seq,
    ServerFrame, SessionId, UserId,
};

const ME: UserId = UserId(1);
const CHANNEL: ChannelId = ChannelId(7);
const ALIAS: u32 = 0x8000_0001;
const HOUR_MS: u64 = 3_600_000;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;

/// A core and its disk.
struct Device {
    core: Core,
    disk: Loaded,
    connection: u64,
    asked: u32,
}

fn key(n: u8) -> MessageKey {
    MessageKey([n; 16])
}

fn entry(author: UserId, seq: Seq, text: &str) -> Entry {
    Entry {
        author,
        seq,
        time_ms: u64::from(seq) * 10,
        kind: 1,
        flags: EventFlags::default(),
        tail: Bytes::copy_from_slice(text.as_bytes()),
    }
}

impl Device {
    fn new(config: Config) -> Device {
        Device {
            core: Core::new(config, Loaded::default()),
            disk: Loaded::default(),
            connection: 0,
            asked: 0,
        }
    }

    /// The program ends, and another one starts with what is on the disk.
    fn restart(&mut self) -> Outputs {
        self.core = Core::new(Config::default(), self.disk.clone());
        self.take()
    }

    fn take(&mut self) -> Outputs {
        let out = self.core.take_outputs();
        for step in &out.persist {
            match step {
                Persist::Meta(meta) => self.disk.meta = meta.clone(),
                Persist::Channel(row) => {
                    self.disk.channels.retain(|it| it.channel != row.channel);
                    self.disk.channels.push((**row).clone());
                }
                Persist::Outbox(item) => {
                    self.disk.outbox.retain(|it| it.id != item.id);
                    self.disk.outbox.push(item.clone());
                    self.disk.outbox.sort_by_key(|it| it.id);
                }
                Persist::OutboxRemoved(id) => self.disk.outbox.retain(|it| it.id != *id),
                Persist::Forget => self.disk.channels.clear(),
                _ => {}
            }
        }
        out
    }

    fn give(&mut self, input: Input) -> Outputs {
        self.core.handle(0, input);
        let out = self.take();
        for bytes in &out.frames {
            let mut rest = &bytes[..];
            while let Some(split) = split_frame(rest, FRAME_BYTES_MAX).unwrap() {
                let frame = ClientFrame::decode(split.header, split.body).unwrap();
                if let ClientFrame::Send { request, .. }
                | ClientFrame::SendMany { request, .. }
                | ClientFrame::History { request, .. } = frame
                {
                    self.asked = request;
                }
                rest = &rest[split.consumed..];
            }
        }
        out
    }

    fn command(&mut self, command: Command) -> Outputs {
        self.give(Input::Command(command))
    }

    fn frame(&mut self, frame: &ServerFrame) -> Outputs {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let (connection, bytes) = (self.connection, bytes.freeze());
        self.give(Input::Received { connection, bytes })
    }

    /// Connects; the node answers pending sends with `answers` and opens the channel, of which `head` is the newest event.
    fn online(&mut self, answers: Vec<PendingAnswer>, head: Seq) -> Outputs {
        let out = self.give(Input::Start);
        let Some(LinkCommand::Connect { connection, .. }) = out.link.first() else {
            panic!("{:?}", out.link)
        };
        self.connection = *connection;
        self.give(Input::Connected {
            connection: self.connection,
            token: "token".to_owned(),
        });
        let welcomed = self.frame(&ServerFrame::Welcome(Box::new(Welcome {
            minor: 0,
            features: 0,
            session: SessionId(77),
            user: ME,
            device: DeviceId(2),
            time_ms: 0,
            generation: 3,
            inbox_position: 0,
            limits: Limits::default(),
            pending: answers,
            resumed: true,
            node: String::new(),
        })));
        self.frame(&ServerFrame::ChannelOpened {
            request: 0,
            opened: ChannelOpened {
                alias: ALIAS,
                head: ChannelHead {
                    channel: CHANNEL,
                    head_seq: head,
                    head_ordinal: head,
                    read_seq: 0,
                    read_ordinal: 0,
                    mentions: 0,
                },
                kind: ChannelKind::Group,
                title: "Harbour".to_owned(),
                peer: None,
                first_seq: 1,
                resync: false,
            },
        });
        welcomed
    }

    fn offline(&mut self) {
        self.command(Command::Stop);
    }

    fn write(&mut self, n: u8, created_ms: u64) -> Outputs {
        self.command(Command::Send {
            channel: CHANNEL,
            key: key(n),
            kind: 1,
            flags: SendFlags::default(),
            tail: format!("text {n}").into(),
            created_ms,
        })
    }

    fn ack(&mut self, seqs: &[Seq]) -> Outputs {
        let ack = |seq: &Seq| Ack {
            seq: *seq,
            time_ms: 5,
            flags: AckFlags::default(),
        };
        self.frame(&ServerFrame::SendAck {
            request: self.asked,
            acks: seqs.iter().map(ack).collect(),
        })
    }

    fn refuse(&mut self, code: Code) -> Outputs {
        self.frame(&ServerFrame::Error {
            request: self.asked,
            error: ErrorFrame {
                code,
                retry_after_ms: 0,
                refused_type: 0,
                item: 0,
                detail: String::new(),
            },
        })
    }

    fn deliver(&mut self, author: UserId, seq: Seq) -> Outputs {
        let event = entry(author, seq, "theirs");
        self.frame(&ServerFrame::Deliver {
            alias: ALIAS,
            event,
        })
    }

    fn outbox(&self) -> Vec<(MessageKey, SendState)> {
        let outbox: Vec<OutboxMessage> = self.core.outbox();
        outbox.into_iter().map(|it| (it.key, it.state)).collect()
    }
}

fn messages(out: &Outputs) -> Vec<&Message> {
    fn message(event: &Event) -> Option<&Message> {
        match event {
            Event::Message(message) => Some(message),
            _ => None,
        }
    }
    out.events.iter().filter_map(message).collect()
}

const EXPIRED: SendState = SendState::Refused {
    reason: RefusalReason::Expired,
};

#[test]
fn states_of_a_message_are_said_as_they_come() {
    let mut device = Device::new(Config::default());
    device.write(1, 0);
    assert_eq!(device.outbox(), [(key(1), SendState::Waiting)]);
    let out = device.online(Vec::new(), 0);
    assert!(!out.events.is_empty());
    assert_eq!(device.outbox(), [(key(1), SendState::Sending)]);
    device.offline();
    assert_eq!(device.outbox(), [(key(1), SendState::Waiting)]);
    device.online(vec![PendingAnswer::Absent], 0);
    let out = device.ack(&[1]);
    assert!(device.outbox().is_empty());
    assert!(out.events.contains(&Event::Outbox { channel: CHANNEL }));
    assert_eq!(messages(&out)[0].key, Some(key(1)));
}

#[test]
fn message_shown_as_sent_is_kept_until_its_place_is_reached() {
    let mut device = Device::new(Config::default());
    device.online(Vec::new(), 0);
    device.write(1, 0);
    // Event 1 is somebody else's, and missing.
    assert!(messages(&device.ack(&[2])).is_empty());
    let sent = SendState::Sent { seq: 2, time_ms: 5 };
    assert_eq!(device.outbox(), [(key(1), sent)]);
    device.restart();
    assert_eq!(
        device.outbox(),
        [(key(1), sent)],
        "shown without a connection, too"
    );
    device.online(Vec::new(), 2);
    assert_eq!(device.outbox(), [(key(1), sent)], "and not sent again");
    let out = device.deliver(UserId(9), 1);
    let placed: Vec<_> = messages(&out).iter().map(|it| (it.seq, it.key)).collect();
    assert_eq!(placed, [(1, None), (2, Some(key(1)))]);
    assert!(device.outbox().is_empty() && device.disk.outbox.is_empty());
}

#[test]
fn message_shown_as_sent_goes_with_a_log_that_is_void() {
    let mut device = Device::new(Config::default());
    device.online(Vec::new(), 0);
    device.write(1, 0);
    device.ack(&[2]);
    let (connection, code) = (device.connection, Some(Code::Resync.number()));
    device.give(Input::Closed { connection, code });
    assert!(device.outbox().is_empty() && device.disk.outbox.is_empty());
}

#[test]
fn refused_message_outlives_the_program_until_it_is_cancelled() {
    let mut device = Device::new(Config::default());
    device.online(Vec::new(), 0);
    device.write(1, 0);
    let reason = RefusalReason::Server(Code::Forbidden);
    let out = device.refuse(Code::Forbidden);
    let refused = Event::SendRefused {
        channel: CHANNEL,
        key: key(1),
        reason,
    };
    assert!(out.events.contains(&refused));
    device.restart();
    assert_eq!(device.outbox(), [(key(1), SendState::Refused { reason })]);
    device.online(Vec::new(), 0);
    assert_eq!(
        device.outbox(),
        [(key(1), SendState::Refused { reason })],
        "not sent again"
    );
    assert!(device.core.can_cancel(key(1)));
    device.command(Command::Cancel { key: key(1) });
    assert!(device.outbox().is_empty() && device.disk.outbox.is_empty());
}

#[test]
fn retried_message_keeps_its_key_unless_that_is_spent() {
    for (code, wanted) in [(Code::Forbidden, key(1)), (Code::Conflict, key(9))] {
        let mut device = Device::new(Config::default());
        device.online(Vec::new(), 0);
        device.write(1, HOUR_MS);
        device.refuse(code);
        let wall_ms = 2 * HOUR_MS;
        assert_eq!(device.core.retry_key(key(1), key(9), wall_ms), Some(wanted));
        let out = device.command(Command::Retry {
            key: key(1),
            fresh_key: key(9),
            wall_ms,
        });
        assert_eq!(device.outbox(), [(wanted, SendState::Sending)]);
        let split = split_frame(&out.frames[0], FRAME_BYTES_MAX)
            .unwrap()
            .unwrap();
        let ClientFrame::Send { send, .. } = ClientFrame::decode(split.header, split.body).unwrap()
        else {
            panic!("one message")
        };
        assert_eq!(send.key, wanted);
        assert_eq!(send.flags.contains(SendFlags::RETRY), wanted == key(1));
        device.ack(&[1]);
        assert!(device.disk.outbox.is_empty());
    }
}

#[test]
fn message_older_than_the_servers_promise_is_given_up_before_it_is_asked_about() {
    let mut device = Device::new(Config::default());
    device.online(Vec::new(), 0);
    device.write(1, HOUR_MS);
    device.offline();
    device.write(2, 2 * HOUR_MS);
    device.restart();
    device.give(Input::Expire {
        wall_ms: HOUR_MS + WEEK_MS - HOUR_MS,
    });
    assert_eq!(device.outbox()[0].1, SendState::Waiting, "an hour before");
    device.give(Input::Expire {
        wall_ms: HOUR_MS + WEEK_MS - HOUR_MS + 1,
    });
    assert_eq!(
        device.outbox(),
        [(key(1), EXPIRED), (key(2), SendState::Waiting)]
    );
    device.restart();
    assert_eq!(device.outbox()[0], (key(1), EXPIRED));
    // A retry is another message: the old key may be forgotten.
    let wall_ms = HOUR_MS + WEEK_MS;
    assert_eq!(device.core.retry_key(key(1), key(9), wall_ms), Some(key(9)));
}

#[test]
fn only_what_never_left_can_be_cancelled() {
    let mut device = Device::new(Config::default());
    device.write(1, 0);
    assert!(device.core.can_cancel(key(1)));
    device.online(Vec::new(), 0);
    assert!(!device.core.can_cancel(key(1)));
    device.command(Command::Cancel { key: key(1) });
    assert_eq!(device.outbox(), [(key(1), SendState::Sending)]);
    device.write(2, 0);
    let out = device.command(Command::Cancel { key: key(2) });
    assert!(out.events.iter().any(|event| matches!(
        event,
        Event::SendRefused {
            reason: RefusalReason::Cancelled,
            ..
        }
    )));
    assert_eq!(device.disk.outbox.len(), 1);
}

#[test]
fn what_is_given_up_counts_against_the_room() {
    let mut device = Device::new(Config {
        outbox_items_max: 1,
        ..Config::default()
    });
    device.online(Vec::new(), 0);
    device.write(1, 0);
    device.refuse(Code::Forbidden);
    assert!(!device.core.outbox_room());
    device.command(Command::Cancel { key: key(1) });
    assert!(device.core.outbox_room());
}

#[test]
fn log_that_nobody_looks_at_is_bounded() {
    let config = Config {
        held_events_max: 10,
        ..Config::default()
    };
    let mut device = Device::new(config);
    device.online(Vec::new(), 0);
    for seq in 1..=20 {
        device.deliver(UserId(9), seq);
    }
    let held = |device: &Device| {
        let info = device.core.channel(CHANNEL).unwrap();
        (info.held_from, info.held_to)
    };
    assert_eq!(held(&device), (1, 20));
    let out = device.deliver(UserId(9), 21);
    assert!(out.persist.contains(&Persist::MessagesTrimmed(CHANNEL, 12)));
    assert_eq!(held(&device), (12, 21));
    device.command(Command::Open { channel: CHANNEL });
    for seq in 22..=60 {
        device.deliver(UserId(9), seq);
    }
    assert_eq!(held(&device), (12, 60), "what is shown stays");
    device.command(Command::Close { channel: CHANNEL });
    assert_eq!(held(&device), (51, 60));
    let info = device.core.channel(CHANNEL).unwrap();
    assert_eq!(
        info.last,
        Some(Preview {
            seq: 60,
            author: UserId(9),
            time_ms: 600,
            kind: 1,
            text: "theirs".to_owned(),
        })
    );
}

#[test]
fn range_is_read_and_not_stored() {
    let mut device = Device::new(Config::default());
    device.online(Vec::new(), 0);
    let ask = Command::LoadRange {
        ticket: 4,
        channel: CHANNEL,
        from: 10,
        to: 30,
        items: 2,
    };
    device.command(ask);
    let out = device.frame(&ServerFrame::HistoryPage {
        request: device.asked,
        page: HistoryPage {
            channel: CHANNEL,
            generation: 3,
            first_seq: 1,
            head_seq: 50,
            covered_from: 10,
            covered_to: 11,
            events: vec![entry(UserId(9), 10, "a"), entry(UserId(9), 11, "b")],
        },
    });
    assert!(out.persist.is_empty() && out.events.is_empty());
    let Outcome::Page(page) = &out.answers[0].outcome else {
        panic!("{:?}", out.answers)
    };
    assert_eq!(page.iter().map(|it| it.seq).collect::<Vec<_>>(), [10, 11]);
}

#[test]
fn pending_sends_of_an_unknown_session_are_not_asked_about_but_sent_again() {
    let item = OutboxItem {
        id: 3,
        channel: CHANNEL,
        key: key(1),
        kind: 1,
        flags: SendFlags::default(),
        tail: Bytes::from_static(b"kept"),
        created_ms: 0,
        after: Seq::MAX,
        state: OutboxState::Waiting,
    };
    let mut device = Device::new(Config::default());
    device.disk = Loaded {
        meta: Meta::default(),
        outbox: vec![item],
        ..Loaded::default()
    };
    device.restart();
    device.give(Input::Start);
    let out = device.give(Input::Connected {
        connection: 1,
        token: "token".to_owned(),
    });
    let split = split_frame(&out.frames[0], FRAME_BYTES_MAX)
        .unwrap()
        .unwrap();
    let ClientFrame::Hello(hello) = ClientFrame::decode(split.header, split.body).unwrap() else {
        panic!("HELLO is first")
    };
    assert!(hello.pending.is_empty() && hello.replaces.is_none());
    device.offline();
    device.online(Vec::new(), 0);
    assert_eq!(device.outbox(), [(key(1), SendState::Sending)]);
}
