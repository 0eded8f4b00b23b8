//! The outbox by itself: order, one frame in flight per channel, refusals, and what is asked after a cut.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

const CHANNEL: ChannelId = ChannelId(5);

fn key(n: u64) -> MessageKey {
    MessageKey(u128::from(n).to_le_bytes())
}

fn item(id: u64, tail: &[u8]) -> OutboxItem {
    OutboxItem {
        id,
        channel: CHANNEL,
        key: key(id),
        kind: 1,
        flags: SendFlags::default(),
        tail: Bytes::copy_from_slice(tail),
        created_ms: 0,
        after: 0,
        state: OutboxState::Waiting,
    }
}

fn outbox(count: u64) -> Outbox {
    let mut outbox = Outbox::load(Vec::new(), 1);
    for _ in 0..count {
        let id = outbox.next_id();
        outbox.push(item(id, b"text"));
    }
    outbox
}

fn ids(frame: &[(OutboxItem, SendFlags)]) -> Vec<u64> {
    frame.iter().map(|(item, _)| item.id).collect()
}

fn acks(count: usize) -> Vec<Ack> {
    (0..count)
        .map(|at| Ack {
            seq: at as u32 + 1,
            time_ms: 0,
            flags: AckFlags::default(),
        })
        .collect()
}

#[test]
fn what_gathers_goes_into_the_next_frame() {
    let mut outbox = outbox(1);
    assert_eq!(ids(&outbox.next_frame(CHANNEL).unwrap()), [1]);
    for _ in 0..100 {
        let id = outbox.next_id();
        outbox.push(item(id, b"text"));
    }
    assert!(
        outbox.ready(0).is_empty(),
        "one frame in flight per channel"
    );
    outbox.on_ack(CHANNEL, &acks(1)).unwrap();
    let frame = outbox.next_frame(CHANNEL).unwrap();
    assert_eq!(ids(&frame), (2..=65).collect::<Vec<_>>());
    assert!(
        frame
            .iter()
            .all(|(_, flags)| !flags.contains(SendFlags::RETRY))
    );
}

#[test]
fn frame_stays_below_the_bytes_of_send_many() {
    let mut outbox = Outbox::load(Vec::new(), 1);
    for _ in 0..10 {
        let id = outbox.next_id();
        outbox.push(item(id, &[b'x'; 20_000]));
    }
    assert_eq!(outbox.next_frame(CHANNEL).unwrap().len(), 3);
}

#[test]
fn message_above_the_limit_of_send_many_goes_alone() {
    let mut outbox = Outbox::load(vec![item(1, &[b'x'; 100_000]), item(2, b"text")], 3);
    assert_eq!(ids(&outbox.next_frame(CHANNEL).unwrap()), [1]);
}

#[test]
fn everything_from_disk_and_every_further_attempt_says_retry() {
    let mut outbox = Outbox::load(vec![item(1, b"a")], 2);
    let id = outbox.next_id();
    outbox.push(item(id, b"b"));
    let retry: Vec<_> = outbox
        .next_frame(CHANNEL)
        .unwrap()
        .iter()
        .map(|(_, flags)| flags.contains(SendFlags::RETRY))
        .collect();
    assert_eq!(retry, [true, false]);
    outbox.on_disconnected();
    let frame = outbox.next_frame(CHANNEL).unwrap();
    assert!(
        frame
            .iter()
            .all(|(_, flags)| flags.contains(SendFlags::RETRY))
    );
}

#[test]
fn refused_item_is_dropped_and_the_rest_keeps_its_order() {
    let mut outbox = outbox(5);
    outbox.next_frame(CHANNEL).unwrap();
    let refusal = outbox
        .on_refused(CHANNEL, Code::Invalid, 2, 0, 0, &mut Jitter::new(1))
        .unwrap();
    assert!(
        matches!(&refusal, Refusal::Dropped(Settled::Refused { item, .. }) if item.id == 3),
        "{refusal:?}"
    );
    assert_eq!(ids(&outbox.next_frame(CHANNEL).unwrap()), [1, 2, 4, 5]);
}

#[test]
fn refusal_for_rate_makes_the_whole_frame_wait_and_the_next_one_smaller() {
    let mut outbox = outbox(50);
    outbox.next_frame(CHANNEL).unwrap();
    let refusal = outbox
        .on_refused(
            CHANNEL,
            Code::RateLimited,
            30,
            500,
            1_000,
            &mut Jitter::new(1),
        )
        .unwrap();
    let Refusal::Waits { until } = refusal else {
        panic!("{refusal:?}")
    };
    assert!(until >= 1_500);
    assert!(outbox.ready(until - 1).is_empty());
    assert_eq!(outbox.ready(until), [CHANNEL]);
    assert_eq!(
        ids(&outbox.next_frame(CHANNEL).unwrap()),
        (1..=25).collect::<Vec<_>>()
    );
    outbox.on_ack(CHANNEL, &acks(25)).unwrap();
    assert_eq!(outbox.next_frame(CHANNEL).unwrap()[0].0.id, 26);
}

#[test]
fn only_an_attempt_made_before_an_event_came_can_be_that_event() {
    let mut outbox = outbox(1);
    let before = outbox.attempts();
    assert!(!outbox.holds(CHANNEL, before));
    outbox.next_frame(CHANNEL).unwrap();
    assert!(!outbox.holds(CHANNEL, before));
    assert!(outbox.holds(CHANNEL, outbox.attempts()));
}

#[test]
fn certain_refusal_ends_the_hold_and_an_unknown_outcome_keeps_it() {
    for (code, holds) in [(Code::Overloaded, false), (Code::OutcomeUnknown, true)] {
        let mut outbox = outbox(1);
        outbox.next_frame(CHANNEL).unwrap();
        outbox.on_refused(CHANNEL, code, 0, 0, 0, &mut Jitter::new(1));
        assert_eq!(outbox.holds(CHANNEL, outbox.attempts()), holds, "{code}");
    }
}

#[test]
fn refusal_says_nothing_of_an_earlier_attempt() {
    let mut outbox = outbox(1);
    outbox.next_frame(CHANNEL).unwrap();
    outbox.on_disconnected();
    outbox.next_frame(CHANNEL).unwrap();
    outbox.on_refused(CHANNEL, Code::RateLimited, 0, 0, 0, &mut Jitter::new(1));
    assert!(outbox.holds(CHANNEL, outbox.attempts()));
}

#[test]
fn oldest_sixty_four_are_asked_and_answers_settle_them() {
    let mut outbox = Outbox::load((1..=100).map(|id| item(id, b"text")).collect(), 101);
    let asked = outbox.ask();
    assert_eq!(asked.len(), 64);
    assert_eq!(asked[0].key, key(1));
    let answers: Vec<_> = (0..64)
        .map(|at| match at {
            0 => PendingAnswer::Stored { seq: 9, time_ms: 1 },
            1 => PendingAnswer::Absent,
            _ => PendingAnswer::Unknown,
        })
        .collect();
    let settled = outbox.on_answers(&answers);
    assert!(
        matches!(&settled[..], [Settled::Stored { item, ack }] if item.id == 1 && ack.seq == 9)
    );
    assert_eq!(outbox.len(), 99);
    let frame = outbox.next_frame(CHANNEL).unwrap();
    assert_eq!(frame[0].0.id, 2);
    assert!(frame[0].1.contains(SendFlags::RETRY));
}

#[test]
fn what_only_hello_can_tell_is_not_refused_with_its_channel() {
    let mut outbox = Outbox::load(vec![item(1, b"a")], 2);
    let id = outbox.next_id();
    outbox.push(item(id, b"b"));
    let (settled, left) = outbox.on_open_refused(CHANNEL, Code::NotFound);
    assert!(matches!(&settled[..], [Settled::Refused { item, .. }] if item.id == 2));
    assert!(left);
    outbox.ask();
    outbox.on_answers(&[PendingAnswer::Absent]);
    let (settled, left) = outbox.on_open_refused(CHANNEL, Code::NotFound);
    assert_eq!((settled.len(), left), (1, false));
    assert_eq!(outbox.len(), 0);
}

#[test]
fn channels_take_turns() {
    let mut outbox = Outbox::load(Vec::new(), 1);
    for channel in [1, 2, 3] {
        for _ in 0..70 {
            let id = outbox.next_id();
            outbox.push(OutboxItem {
                channel: ChannelId(channel),
                ..item(id, b"text")
            });
        }
    }
    let mut served = Vec::new();
    for _ in 0..3 {
        let channel = outbox.ready(0)[0];
        let frame = outbox.next_frame(channel).unwrap();
        assert!(outbox.next_frame(ChannelId(9)).is_none());
        served.push(channel.0);
        outbox.on_ack(channel, &acks(frame.len())).unwrap();
    }
    assert_eq!(served, [1, 2, 3]);
}

#[test]
fn what_is_too_old_is_taken_out_unless_its_answer_is_awaited() {
    let mut outbox = Outbox::load(Vec::new(), 1);
    for created_ms in [10, 20, 30] {
        let id = outbox.next_id();
        outbox.push(OutboxItem {
            created_ms,
            ..item(id, b"text")
        });
    }
    let expired: Vec<_> = outbox.expire(15).iter().map(|item| item.id).collect();
    assert_eq!(expired, [1]);
    assert_eq!(ids(&outbox.next_frame(CHANNEL).unwrap()), [2, 3]);
    assert!(outbox.expire(100).is_empty(), "in flight");
    outbox.on_disconnected();
    outbox.ask();
    assert!(outbox.expire(100).is_empty(), "asked about in HELLO");
    outbox.on_disconnected();
    assert_eq!(outbox.expire(100).len(), 2);
    assert_eq!(outbox.len(), 0);
}

#[test]
fn only_what_never_left_can_be_taken_back() {
    let mut outbox = outbox(2);
    assert_eq!(outbox.take_back(key(2)).unwrap().id, 2);
    outbox.next_frame(CHANNEL).unwrap();
    assert!(outbox.take_back(key(1)).is_none());
    outbox.on_disconnected();
    assert!(outbox.take_back(key(1)).is_none());
    assert_eq!(outbox.len(), 1);
    let mut loaded = Outbox::load(vec![item(1, b"a")], 2);
    assert!(
        loaded.take_back(key(1)).is_none(),
        "it may have left in an earlier life"
    );
}

/// The server's two buckets: messages of a person, and refusals for rate before it calls them a flood.
struct Server {
    at: Ms,
    messages: f64,
    refusals: f64,
}

impl Server {
    const PER_S: f64 = 10.0;
    const BURST: f64 = 30.0;

    /// Takes `count` messages, or says how long to wait, in milliseconds.
    fn send(&mut self, now: Ms, count: usize) -> Result<(), u32> {
        let passed_s = (now - self.at) as f64 / 1_000.0;
        self.at = now;
        self.messages = (self.messages + passed_s * Self::PER_S).min(Self::BURST);
        self.refusals = (self.refusals - passed_s).max(0.0);
        if count as f64 <= self.messages {
            self.messages -= count as f64;
            return Ok(());
        }
        self.refusals += 1.0;
        assert!(self.refusals <= 50.0, "the session is ended as a flood");
        let lacking = (count as f64).min(Self::BURST) - self.messages;
        Err((lacking / Self::PER_S * 1_000.0).ceil() as u32)
    }
}

#[test]
fn a_long_outbox_goes_out_at_the_servers_rate_and_is_never_a_flood() {
    let mut outbox = Outbox::load(Vec::new(), 1);
    for n in 0..3_000 {
        let id = outbox.next_id();
        let mut item = item(id, b"text");
        item.channel = ChannelId(1 + n % 7);
        outbox.push(item);
    }
    let mut server = Server {
        at: 0,
        messages: Server::BURST,
        refusals: 0.0,
    };
    let (mut now, mut jitter) = (0, Jitter::new(1));
    while outbox.len() > 0 {
        assert!(now < 1_000_000, "{} are left", outbox.len());
        let mut answers = Vec::new();
        for channel in outbox.ready(now) {
            if let Some(frame) = outbox.next_frame(channel) {
                answers.push((channel, frame.len(), server.send(now, frame.len())));
            }
        }
        // A round trip.
        now += 5;
        let is_idle = answers.is_empty();
        for (channel, count, answer) in answers {
            match answer {
                Ok(()) => drop(outbox.on_ack(channel, &acks(count)).unwrap()),
                Err(retry_after_ms) => {
                    let code = Code::RateLimited;
                    outbox
                        .on_refused(channel, code, 0, retry_after_ms, now, &mut jitter)
                        .unwrap();
                }
            }
        }
        if is_idle {
            now = outbox
                .next_at()
                .expect("whoever waits knows until when")
                .max(now);
        }
    }
    // 3,000 at 10 a second, less the burst: not much longer than it has to be.
    assert!(now < 450_000, "{now} ms");
}
