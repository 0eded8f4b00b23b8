//! What the checker makes of people who come and go: one test for each thing that it must catch.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use bytes::Bytes;
use conch_wire::event::{ChannelKind, EventBody, EventFlags, EventMember, MemberRole};
use conch_wire::{ChannelId, DeviceId, Event, EventKind, MessageKey, Seq, UserId};

use super::{Change, Checker, Fingerprint, Observed, Verdict, Violation};

const CHANNEL: ChannelId = ChannelId(7);
const ANN: UserId = UserId(1);
const BEN: UserId = UserId(2);
const ANNS: DeviceId = DeviceId(11);
const BENS: DeviceId = DeviceId(21);

fn change(seq: Seq, kind: EventKind, users: &[UserId]) -> Event {
    let is_first = kind == EventKind::ChannelCreated;
    let body = EventBody {
        channel_kind: is_first.then_some(ChannelKind::Group),
        title: is_first.then(|| "group".to_owned()),
        members: users
            .iter()
            .map(|user| EventMember {
                user: *user,
                role: MemberRole::Member,
            })
            .collect(),
    };
    event(seq, kind, body.encode().into())
}

fn text(seq: Seq) -> Event {
    event(seq, EventKind::Text, Bytes::from(format!("message {seq}")))
}

fn event(seq: Seq, kind: EventKind, tail: Bytes) -> Event {
    Event {
        author: ANN,
        seq,
        time_ms: 1,
        kind: kind as u8,
        flags: EventFlags::default(),
        tail,
    }
}

/// Ann makes a group with Ben, writes, removes him, writes, adds him again, writes.
fn history() -> Vec<Event> {
    vec![
        change(1, EventKind::ChannelCreated, &[ANN, BEN]),
        text(2),
        change(3, EventKind::MemberRemoved, &[BEN]),
        text(4),
        change(5, EventKind::MembersAdded, &[BEN]),
        text(6),
    ]
}

fn print_of(event: &Event) -> Fingerprint {
    Fingerprint::of(event.author, event.kind, &event.tail)
}

/// A run with this history in which Ben's device was shown `bens`; Ann's everything.
fn run(history: &[Event], confirmed: &[Change], bens: &[Seq]) -> Checker {
    let mut checker = Checker::new();
    checker.add_device(ANN, ANNS);
    checker.add_device(BEN, BENS);
    for change in confirmed {
        checker.changed(CHANNEL, BEN, *change);
    }
    for event in history.iter().filter(|event| event.kind == 1) {
        let key = MessageKey(u128::from(event.seq).to_le_bytes());
        checker.attempted(CHANNEL, ANN, ANNS, key, print_of(event));
        checker.acked(CHANNEL, print_of(event), event.seq);
    }
    for event in history {
        checker.delivered(ANNS, CHANNEL, Observed::of(event));
        if bens.contains(&event.seq) {
            checker.delivered(BENS, CHANNEL, Observed::of(event));
        }
    }
    checker.members_of_history(CHANNEL, history);
    let events: Vec<_> = history.iter().map(Observed::of).collect();
    checker.full_history(ANN, CHANNEL, &events, events.len() as Seq);
    checker
}

const BOTH: &[Change] = &[Change::Removed, Change::Added];

fn broken(verdict: Verdict, wanted: impl Fn(&Violation) -> bool) {
    assert!(!verdict.is_clean(), "passed: {verdict}");
    assert!(verdict.violations.iter().any(wanted), "{verdict}");
}

fn clean(verdict: Verdict) {
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn both_stays_are_his_and_only_the_newest_is_owed() {
    let mut checker = run(&history(), BOTH, &[1, 2, 3, 5, 6]);
    let own: Vec<_> = history()[4..].iter().map(Observed::of).collect();
    checker.full_history(BEN, CHANNEL, &own, 6);
    clean(checker.verdict());
    // He was away at the end of his first stay: nobody can read that to him any more.
    clean(run(&history(), BOTH, &[1, 5, 6]).verdict());
}

#[test]
fn event_from_between_the_stays_is_caught() {
    let checker = run(&history(), BOTH, &[1, 2, 3, 4, 5, 6]);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::ShownToOutsider {
                device: BENS,
                seq: 4,
                ..
            }
        )
    });
}

#[test]
fn history_from_before_the_newest_stay_is_caught() {
    let mut checker = run(&history(), BOTH, &[5, 6]);
    let events: Vec<_> = history()[3..].iter().map(Observed::of).collect();
    checker.full_history(BEN, CHANNEL, &events, 6);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::Gap {
                reader: BEN,
                expected: 5,
                ..
            }
        )
    });
}

#[test]
fn event_missing_since_joining_is_caught() {
    let checker = run(&history(), BOTH, &[5]);
    assert_eq!(checker.missing_at(BENS), 1);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::NotShown { seq: 6, .. })
    });
}

#[test]
fn former_member_is_owed_what_was_begun() {
    let ended = &history()[..4];
    let removed = &[Change::Removed];
    clean(run(ended, removed, &[1, 2, 3]).verdict());
    clean(run(ended, removed, &[]).verdict());
    broken(run(ended, removed, &[1, 2]).verdict(), |v| {
        matches!(v, Violation::NotShown { seq: 3, .. })
    });
}

#[test]
fn confirmed_change_that_is_not_there_is_caught() {
    let confirmed = &[Change::Removed, Change::Added, Change::Left];
    let checker = run(&history(), confirmed, &[5, 6]);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::ChangesDiffer {
                user: BEN,
                confirmed: 3,
                found: 2,
                ..
            }
        )
    });
}

#[test]
fn change_made_twice_is_caught() {
    let mut history = history();
    history.push(change(7, EventKind::MembersAdded, &[BEN]));
    let checker = run(&history, BOTH, &[5, 6, 7]);
    broken(checker.verdict(), |v| {
        matches!(
            v,
            Violation::ChangeOfNothing {
                user: BEN,
                seq: 7,
                ..
            }
        )
    });
}

#[test]
fn change_that_cannot_be_read_is_caught() {
    let mut history = history();
    let rubbish = Bytes::from_static(b"rubbish");
    history.push(event(7, EventKind::MembersAdded, rubbish));
    let checker = run(&history, BOTH, &[5, 6, 7]);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::Forged { seq: 7, .. })
    });
}

#[test]
fn only_who_was_out_may_be_refused_for_good() {
    for (sender, device, is_right) in [(BEN, BENS, true), (ANN, ANNS, false)] {
        let mut checker = run(&history(), BOTH, &[5, 6]);
        let print = Fingerprint::of(sender, 1, b"said too late");
        checker.attempted(CHANNEL, sender, device, MessageKey([9; 16]), print);
        checker.refused(CHANNEL, print);
        checker.given_up(CHANNEL, print);
        if is_right {
            clean(checker.verdict());
        } else {
            broken(checker.verdict(), |v| {
                matches!(v, Violation::GivenUp { user: ANN, .. })
            });
        }
    }
}

#[test]
fn channel_that_nobody_made_is_caught() {
    let mut checker = run(&history(), BOTH, &[5, 6]);
    checker.channel_of_nobody(ChannelId(8), BEN);
    broken(checker.verdict(), |v| {
        matches!(v, Violation::ChannelOfNobody { user: BEN, .. })
    });
}
