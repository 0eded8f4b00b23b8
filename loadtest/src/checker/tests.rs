//! One test for each thing that the checker must catch, on a small conversation that is clean without the fault.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use conch_wire::{ChannelId, DeviceId, MessageKey, Seq, UserId};
use proptest::prelude::*;

use super::{Checker, Fingerprint, FullRead, Observed, Verdict, Violation};

const CHANNEL: ChannelId = ChannelId(7);
const ANN: UserId = UserId(1);
const BEN: UserId = UserId(2);
const DEVICES: [(UserId, DeviceId); 4] = [
    (ANN, DeviceId(11)),
    (ANN, DeviceId(12)),
    (BEN, DeviceId(21)),
    (BEN, DeviceId(22)),
];
const TEXT: u8 = 1;

/// The text that sits at `seq` of the clean conversation.
fn text(seq: Seq) -> Vec<u8> {
    format!("message {seq}").into_bytes()
}

fn author(seq: Seq) -> UserId {
    if seq % 2 == 1 { ANN } else { BEN }
}

fn print_of(seq: Seq) -> Fingerprint {
    Fingerprint::of(author(seq), TEXT, &text(seq))
}

fn device(user: UserId) -> DeviceId {
    if user == ANN {
        DEVICES[0].1
    } else {
        DEVICES[2].1
    }
}

fn key(seq: Seq) -> MessageKey {
    MessageKey(u128::from(seq).to_le_bytes())
}

/// The message of `text_of`, seen at `seq`.
fn seen(seq: Seq, text_of: Seq) -> Observed {
    Observed::parts(seq, author(text_of), TEXT, &text(text_of))
}

/// A conversation of `len` messages, acknowledged, with two members on two devices each; nothing shown or read yet.
fn conversation(len: Seq) -> Checker {
    let mut checker = Checker::new();
    for (user, device) in DEVICES {
        checker.add_device(user, device);
        checker.add_member(CHANNEL, user, 1);
    }
    for seq in 1..=len {
        checker.attempted(
            CHANNEL,
            author(seq),
            device(author(seq)),
            key(seq),
            print_of(seq),
        );
        checker.acked(CHANNEL, print_of(seq), seq);
    }
    checker
}

fn show_all(checker: &mut Checker, seqs: impl Iterator<Item = Seq> + Clone) {
    for (_, device) in DEVICES {
        for seq in seqs.clone() {
            checker.delivered(device, CHANNEL, seen(seq, seq));
        }
    }
}

fn read_all(checker: &mut Checker, len: Seq) {
    let events: Vec<_> = (1..=len).map(|seq| seen(seq, seq)).collect();
    for reader in [ANN, BEN] {
        checker.full_history(reader, CHANNEL, &events, len);
    }
}

fn broken(verdict: Verdict, wanted: impl Fn(&Violation) -> bool) {
    assert!(!verdict.is_clean(), "passed: {verdict}");
    assert!(verdict.violations.iter().any(wanted), "{verdict}");
}

#[test]
fn clean_conversation_passes() {
    let mut checker = conversation(5);
    show_all(&mut checker, 1..=5);
    read_all(&mut checker, 5);
    assert_eq!(checker.missing_at(DEVICES[0].1), 0);
    let verdict = checker.verdict();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn acknowledged_message_missing_in_history_is_caught() {
    let mut checker = conversation(5);
    show_all(&mut checker, 1..=4);
    read_all(&mut checker, 4);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::Lost { seq: 5, .. })
    });
}

#[test]
fn message_stored_twice_is_caught() {
    let mut checker = conversation(3);
    show_all(&mut checker, 1..=3);
    let events = [seen(1, 1), seen(2, 2), seen(3, 3), seen(4, 2)];
    checker.full_history(ANN, CHANNEL, &events, 4);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::Duplicate {
                first: 2,
                second: 4,
                ..
            }
        )
    });
}

#[test]
fn swapped_messages_are_caught() {
    let mut checker = conversation(3);
    show_all(&mut checker, 1..=3);
    let events = [seen(1, 1), seen(2, 3), seen(3, 2)];
    checker.full_history(ANN, CHANNEL, &events, 3);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::SeqTwice { seq: 2, .. })
    });
}

#[test]
fn another_order_for_one_member_is_caught() {
    let mut checker = conversation(3);
    let unacked = 4;
    for text_of in [unacked, unacked + 2] {
        checker.attempted(
            CHANNEL,
            author(text_of),
            device(author(text_of)),
            key(text_of),
            print_of(text_of),
        );
    }
    show_all(&mut checker, 1..=3);
    let mut events = vec![seen(1, 1), seen(2, 2), seen(3, 3), seen(4, 4), seen(5, 6)];
    checker.full_history(ANN, CHANNEL, &events, 5);
    events.swap(3, 4);
    events[3].seq = 4;
    events[4].seq = 5;
    checker.full_history(BEN, CHANNEL, &events, 5);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::SeqTwice { seq: 4, .. })
    });
}

#[test]
fn gap_in_history_is_caught() {
    let mut checker = conversation(4);
    show_all(&mut checker, 1..=4);
    let events = [seen(1, 1), seen(2, 2), seen(4, 4)];
    checker.full_history(BEN, CHANNEL, &events, 4);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::Gap {
                expected: 3,
                found: 4,
                ..
            }
        )
    });
}

#[test]
fn history_that_does_not_start_at_the_beginning_is_caught() {
    let mut checker = conversation(3);
    show_all(&mut checker, 1..=3);
    checker.full_history(BEN, CHANNEL, &[seen(2, 2), seen(3, 3)], 3);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::Gap {
                expected: 1,
                found: 2,
                ..
            }
        )
    });
}

#[test]
fn seq_that_nobody_ever_saw_is_caught() {
    let mut checker = conversation(2);
    checker.attempted(CHANNEL, ANN, device(ANN), key(4), print_of(4));
    checker.acked(CHANNEL, print_of(4), 4);
    show_all(&mut checker, 1..=2);
    broken(
        {
            checker.full_history(ANN, CHANNEL, &[seen(1, 1), seen(2, 2), seen(4, 4)], 4);
            checker.verdict()
        },
        |v| matches!(v, Violation::Hole { seq: 3, .. }),
    );
}

#[test]
fn seq_given_to_two_messages_is_caught() {
    let mut checker = conversation(3);
    checker.attempted(CHANNEL, BEN, device(BEN), key(8), print_of(8));
    checker.acked(CHANNEL, print_of(8), 3);
    show_all(&mut checker, 1..=3);
    read_all(&mut checker, 3);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::SeqTwice { seq: 3, .. })
    });
}

#[test]
fn resend_acknowledged_at_another_seq_is_caught() {
    let mut checker = conversation(3);
    checker.attempted(CHANNEL, author(2), device(author(2)), key(2), print_of(2));
    checker.acked(CHANNEL, print_of(2), 9);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::AckMoved {
                first: 2,
                second: 9,
                ..
            }
        )
    });
}

#[test]
fn resend_acknowledged_at_the_same_seq_passes() {
    let mut checker = conversation(3);
    checker.attempted(CHANNEL, author(2), device(author(2)), key(2), print_of(2));
    checker.acked(CHANNEL, print_of(2), 2);
    show_all(&mut checker, 1..=3);
    read_all(&mut checker, 3);
    let verdict = checker.verdict();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.counts.acked_messages, 3);
}

#[test]
fn one_key_stored_with_two_contents_is_caught() {
    let mut checker = conversation(2);
    let other = Observed::parts(3, ANN, TEXT, b"other content");
    let print = Fingerprint::of(ANN, TEXT, b"other content");
    checker.attempted(CHANNEL, ANN, device(ANN), key(1), print);
    show_all(&mut checker, 1..=2);
    for (_, device) in DEVICES {
        checker.delivered(device, CHANNEL, other);
    }
    checker.full_history(ANN, CHANNEL, &[seen(1, 1), seen(2, 2), other], 3);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::KeyTwice {
                first: 1,
                second: 3,
                ..
            }
        )
    });
}

#[test]
fn later_message_of_a_device_before_its_earlier_one_is_caught() {
    let mut checker = conversation(2);
    for text_of in [7, 5] {
        checker.attempted(CHANNEL, ANN, device(ANN), key(text_of), print_of(text_of));
    }
    let mut events: Vec<_> = (1..=2).map(|seq| seen(seq, seq)).collect();
    events.extend([seen(3, 5), seen(4, 7)]);
    checker.full_history(ANN, CHANNEL, &events, 4);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::Overtaken {
                first: 4,
                second: 3,
                ..
            }
        )
    });
}

#[test]
fn change_seen_where_a_message_lies_is_caught() {
    let mut checker = conversation(2);
    checker.delivered(DEVICES[1].1, CHANNEL, Observed::change(2));
    broken(checker.verdict(), |v| {
        matches!(v, Violation::SeqTwice { seq: 2, .. })
    });
}

#[test]
fn forged_message_is_caught() {
    let mut checker = conversation(2);
    show_all(&mut checker, 1..=2);
    checker.full_history(ANN, CHANNEL, &[seen(1, 1), seen(2, 2), seen(3, 3)], 3);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::Forged { seq: 3, .. })
    });
}

#[test]
fn content_changed_on_the_way_is_caught() {
    let mut checker = conversation(2);
    show_all(&mut checker, 1..=1);
    for (_, device) in DEVICES {
        checker.delivered(device, CHANNEL, Observed::parts(2, BEN, TEXT, b"messagf 2"));
    }
    read_all(&mut checker, 2);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::Forged { seq: 2, .. })
    });
}

#[test]
fn refused_message_that_is_there_is_caught() {
    let mut checker = conversation(2);
    checker.attempted(CHANNEL, ANN, device(ANN), key(3), print_of(3));
    checker.refused(CHANNEL, print_of(3));
    show_all(&mut checker, 1..=3);
    read_all(&mut checker, 3);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::RefusedButPresent { seq: 3, .. })
    });
}

#[test]
fn refusal_of_one_attempt_does_not_forbid_an_earlier_unknown_one() {
    let mut checker = conversation(2);
    checker.attempted(CHANNEL, ANN, device(ANN), key(3), print_of(3));
    checker.unknown(CHANNEL, print_of(3));
    checker.attempted(CHANNEL, ANN, device(ANN), key(3), print_of(3));
    checker.refused(CHANNEL, print_of(3));
    show_all(&mut checker, 1..=3);
    read_all(&mut checker, 3);
    let verdict = checker.verdict();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn message_whose_attempts_were_refused_may_still_be_acknowledged() {
    let mut checker = conversation(2);
    // Both of Ann's devices are refused what an attempt of a connection before had brought there: WELCOME says so.
    for (_, device) in &DEVICES[..2] {
        checker.attempted(CHANNEL, ANN, *device, key(3), print_of(3));
        checker.refused(CHANNEL, print_of(3));
    }
    checker.acked(CHANNEL, print_of(3), 3);
    show_all(&mut checker, 1..=3);
    read_all(&mut checker, 3);
    let verdict = checker.verdict();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn unknown_outcome_may_be_absent_or_present_once() {
    for len in [2, 3] {
        let mut checker = conversation(2);
        checker.attempted(CHANNEL, ANN, device(ANN), key(3), print_of(3));
        checker.unknown(CHANNEL, print_of(3));
        show_all(&mut checker, 1..=len);
        read_all(&mut checker, len);
        let verdict = checker.verdict();
        assert!(verdict.is_clean(), "{verdict}");
    }
}

#[test]
fn message_missing_at_one_device_is_caught() {
    let mut checker = conversation(3);
    show_all(&mut checker, 1..=2);
    for (_, device) in &DEVICES[..3] {
        checker.delivered(*device, CHANNEL, seen(3, 3));
    }
    read_all(&mut checker, 3);
    assert_eq!(checker.missing_at(DEVICES[3].1), 1);
    broken(checker.verdict(), |v| {
        *v == Violation::NotShown {
            device: DEVICES[3].1,
            channel: CHANNEL,
            seq: 3,
        }
    });
}

#[test]
fn message_shown_twice_is_caught() {
    let mut checker = conversation(3);
    show_all(&mut checker, 1..=3);
    checker.delivered(DEVICES[1].1, CHANNEL, seen(2, 2));
    read_all(&mut checker, 3);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::ShownTwice { seq: 2, .. })
    });
}

#[test]
fn message_shown_to_a_former_member_is_caught() {
    let mut checker = conversation(3);
    checker.member_left(CHANNEL, BEN, 2);
    show_all(&mut checker, 1..=3);
    checker.full_history(ANN, CHANNEL, &[seen(1, 1), seen(2, 2), seen(3, 3)], 3);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::ShownToOutsider { seq: 3, .. })
    });
}

#[test]
fn former_member_owes_nothing_after_leaving() {
    let mut checker = conversation(3);
    checker.member_left(CHANNEL, BEN, 2);
    for (user, device) in DEVICES {
        for seq in 1..=(if user == ANN { 3 } else { 2 }) {
            checker.delivered(device, CHANNEL, seen(seq, seq));
        }
    }
    checker.full_history(ANN, CHANNEL, &[seen(1, 1), seen(2, 2), seen(3, 3)], 3);
    checker.full_history(BEN, CHANNEL, &[seen(1, 1), seen(2, 2)], 2);
    let verdict = checker.verdict();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn read_mark_that_goes_back_is_caught() {
    let mut checker = conversation(3);
    show_all(&mut checker, 1..=3);
    read_all(&mut checker, 3);
    checker.read_mark(DEVICES[0].1, CHANNEL, 3);
    checker.read_mark(DEVICES[0].1, CHANNEL, 2);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::ReadMarkBack { from: 3, to: 2, .. })
    });
}

#[test]
fn confirmed_read_mark_that_is_lost_is_caught() {
    let mut checker = conversation(3);
    show_all(&mut checker, 1..=3);
    read_all(&mut checker, 3);
    checker.read_confirmed(DEVICES[0].1, CHANNEL, 3);
    checker.final_read_mark(ANN, CHANNEL, 1);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::ReadLost {
                confirmed: 3,
                found: 1,
                ..
            }
        )
    });
}

#[test]
fn inbox_position_that_goes_back_is_caught() {
    let mut checker = conversation(1);
    show_all(&mut checker, 1..=1);
    read_all(&mut checker, 1);
    checker.inbox_position(DEVICES[0].1, 40);
    checker.inbox_position(DEVICES[0].1, 39);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::InboxPositionBack {
                from: 40,
                to: 39,
                ..
            }
        )
    });
}

#[test]
fn acknowledgement_of_nothing_is_caught() {
    let mut checker = conversation(1);
    checker.acked(CHANNEL, print_of(5), 2);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::AckOfNothing { seq: 2, .. })
    });
}

#[test]
fn run_that_compared_nothing_does_not_pass() {
    broken(Checker::new().verdict(), |v| {
        *v == Violation::NothingCompared
    });
    let unread = conversation(2);
    broken(unread.verdict(), |v| matches!(v, Violation::NotRead { .. }));
}

#[test]
fn broken_run_keeps_a_bounded_number_of_violations() {
    let mut checker = conversation(1);
    for seq in 2..10_000 {
        checker.delivered(DEVICES[0].1, CHANNEL, seen(seq, seq));
    }
    let verdict = checker.verdict();
    assert!(verdict.violations_total > 9_000);
    assert!(verdict.violations.len() < 100);
}

#[test]
fn seq_zero_is_caught() {
    let mut checker = conversation(1);
    checker.attempted(CHANNEL, ANN, device(ANN), key(3), print_of(3));
    checker.acked(CHANNEL, print_of(3), 0);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::SeqZero { .. })
    });
}

#[test]
fn report_of_a_device_that_nobody_registered_is_caught() {
    let mut checker = conversation(1);
    let devices = [DeviceId(98), DeviceId(99)];
    checker.delivered(devices[0], CHANNEL, seen(1, 1));
    checker.read_mark(devices[1], CHANNEL, 1);
    let verdict = checker.verdict();
    for device in devices {
        let channel = CHANNEL;
        let unknown = Violation::UnknownDevice { device, channel };
        assert!(verdict.violations.contains(&unknown), "{verdict}");
    }
}

#[test]
fn ack_that_is_taken_back_is_caught() {
    let mut checker = conversation(2);
    checker.refused(CHANNEL, print_of(2));
    checker.given_up(CHANNEL, print_of(2));
    broken(checker.verdict(), |v| {
        matches!(v, Violation::AckTakenBack { seq: 2, .. })
    });
}

#[test]
fn message_of_two_devices_is_in_no_order() {
    let mut checker = conversation(2);
    // Both of Ann's devices try the message 3; what the second one says then comes before it.
    let [first, second] = [DEVICES[0].1, DEVICES[1].1];
    checker.attempted(CHANNEL, ANN, second, key(3), print_of(3));
    checker.attempted(CHANNEL, ANN, first, key(3), print_of(3));
    checker.attempted(CHANNEL, ANN, second, key(5), print_of(5));
    checker.acked(CHANNEL, print_of(5), 3);
    checker.acked(CHANNEL, print_of(3), 4);
    show_all(&mut checker, 1..=2);
    for (_, device) in DEVICES {
        checker.delivered(device, CHANNEL, seen(3, 5));
        checker.delivered(device, CHANNEL, seen(4, 3));
    }
    let events = [seen(1, 1), seen(2, 2), seen(3, 5), seen(4, 3)];
    checker.full_history(ANN, CHANNEL, &events, 4);
    let verdict = checker.verdict();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn settled_message_that_is_sent_again_is_the_same_message() {
    let mut checker = conversation(3);
    let other = DEVICES[1].1;
    checker.attempted(CHANNEL, author(1), other, key(1), print_of(1));
    assert_eq!(checker.counts().messages, 3);
    checker.acked(CHANNEL, print_of(1), 1);
    checker.attempted(CHANNEL, author(1), other, key(1), print_of(1));
    checker.acked(CHANNEL, print_of(1), 2);
    assert_eq!(checker.counts().acked_messages, 3);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::AckMoved {
                first: 1,
                second: 2,
                ..
            }
        )
    });
}

#[test]
fn history_read_by_pages_may_have_no_gap_between_them() {
    for missing in [false, true] {
        let mut checker = conversation(6);
        show_all(&mut checker, 1..=6);
        let mut read = FullRead::new(ANN, CHANNEL);
        for page in [1..=2, 3 + u32::from(missing)..=4, 5..=6] {
            let events: Vec<_> = page.map(|seq| seen(seq, seq)).collect();
            read.page(&mut checker, &events);
        }
        read.end(&mut checker, 6);
        let verdict = checker.verdict();
        if missing {
            broken(verdict, |v| {
                matches!(
                    v,
                    Violation::Gap {
                        expected: 3,
                        found: 4,
                        ..
                    }
                )
            });
        } else {
            assert!(verdict.is_clean(), "{verdict}");
        }
    }
}

/// A million messages, most in a hot channel and the others in a thousand quiet ones, told as they come in a run that goes
/// well; but one device has every second one late. What that takes is bounded, by the checker's own account of its tables.
#[test]
fn million_messages_take_a_bounded_memory() {
    const HOT: Seq = 950_000;
    const QUIET: Seq = 50;
    const LATE: Seq = 1_000;
    let event = |seq: Seq| Observed::parts(seq, ANN, TEXT, &seq.to_le_bytes());
    let mut checker = Checker::new();
    for (user, device) in DEVICES {
        checker.add_device(user, device);
    }
    for channel in (0..=1_000).map(ChannelId) {
        checker.add_member(channel, ANN, 1);
        checker.add_member(channel, BEN, 1);
        let last = if channel.0 == 0 { HOT } else { QUIET };
        let mut read = FullRead::new(BEN, channel);
        for seq in 1..=last {
            let event_here = event(seq);
            let print = event_here.print.unwrap();
            checker.attempted(channel, ANN, DEVICES[0].1, key(seq), print);
            checker.delivered(DEVICES[1].1, channel, event_here);
            checker.delivered(DEVICES[2].1, channel, event_here);
            checker.acked(channel, print, seq);
            checker.delivered(DEVICES[0].1, channel, event_here);
            if seq % 2 == 1 {
                checker.delivered(DEVICES[3].1, channel, event_here);
            }
            if seq % LATE == 0 || seq == last {
                let block = seq - (seq - 1) % LATE;
                for late in (block..=seq).filter(|seq| seq % 2 == 0) {
                    checker.delivered(DEVICES[3].1, channel, event(late));
                }
            }
            read.page(&mut checker, &[event_here]);
        }
        read.end(&mut checker, last);
    }
    let memory = checker.memory();
    let each = memory.messages() as f64 / 1e6;
    assert!(each < 28.0, "{each} bytes per message: {memory}");
    assert_eq!(memory.unsettled, 0);
    let pair = memory.pair_bytes as f64 / memory.pairs as f64;
    assert!(
        pair < 250.0,
        "{pair} bytes per channel of a device: {memory}"
    );
    let verdict = checker.verdict();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.counts.deliveries, 4_000_000);
}

proptest! {
    /// Whatever the length and the order of showing: a clean run passes, and any one message withheld from any one
    /// device, or any two swapped in history, does not.
    #[test]
    fn any_single_fault_is_caught(len in 2u32..80, victim in 0usize..4, at in 0u32..80, swap in any::<bool>()) {
        let at = 1 + at % (len - 1);
        let mut clean = conversation(len);
        show_all(&mut clean, (1..=len).rev());
        read_all(&mut clean, len);
        prop_assert!(clean.verdict().is_clean());

        let mut faulty = conversation(len);
        let mut events: Vec<_> = (1..=len).map(|seq| seen(seq, seq)).collect();
        for (index, (_, device)) in DEVICES.into_iter().enumerate() {
            for event in &events {
                if swap || index != victim || event.seq != at {
                    faulty.delivered(device, CHANNEL, *event);
                }
            }
        }
        if swap {
            let low = events[at as usize - 1].print;
            events[at as usize - 1].print = events[at as usize].print;
            events[at as usize].print = low;
        }
        faulty.full_history(ANN, CHANNEL, &events, len);
        prop_assert!(!faulty.verdict().is_clean());
    }
}
