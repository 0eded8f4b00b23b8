//! Random histories: several people with two devices each talk in two channels, and what is told of it comes in any order that
//! causes allow. Without a fault nothing is found, with one fault exactly its kind.

use std::collections::BTreeSet;

use conch_wire::{ChannelId, DeviceId, MessageKey, Seq, UserId};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Checker, Fingerprint, FullRead, Observed, Verdict, Violation};

const CHANNELS: [ChannelId; 2] = [ChannelId(1), ChannelId(2)];
const USERS: u64 = 3;
const TEXT: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    DropDelivery,
    RepeatDelivery,
    ForgeDelivery,
    SwapDeliveries,
    MoveAck,
    AckTwoOfOne,
    RefuseAndStore,
    StoreTwice,
    Overtake,
    CutHistory,
    SkipInHistory,
    ShowToOutsider,
}

const FAULTS: [(Fault, &[&str]); 13] = [
    (Fault::None, &[]),
    (Fault::DropDelivery, &["NotShown"]),
    (Fault::RepeatDelivery, &["ShownTwice"]),
    (Fault::ForgeDelivery, &["Forged"]),
    (Fault::SwapDeliveries, &["SeqTwice"]),
    (Fault::MoveAck, &["AckMoved"]),
    (Fault::AckTwoOfOne, &["KeyTwice"]),
    (Fault::RefuseAndStore, &["RefusedButPresent"]),
    (Fault::StoreTwice, &["Duplicate"]),
    (Fault::Overtake, &["Overtaken"]),
    (Fault::CutHistory, &["Lost"]),
    (Fault::SkipInHistory, &["Gap"]),
    (Fault::ShowToOutsider, &["ShownToOutsider"]),
];

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Acked,
    /// By the second attempt.
    AckedAfterRefusal,
    /// By both devices of its author.
    AckedTwice,
    UnknownAndThere,
    UnknownAndNot,
    Refused,
    RefusedAndThere,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    number: u64,
    channel: ChannelId,
    user: UserId,
    device: DeviceId,
    key: u64,
    fate: Fate,
    /// 0: it is not there.
    seq: Seq,
}

impl Message {
    fn seen(&self) -> Observed {
        Observed::parts(self.seq, self.user, TEXT, &self.number.to_le_bytes())
    }

    fn print(&self) -> Fingerprint {
        Fingerprint::of(self.user, TEXT, &self.number.to_le_bytes())
    }

    fn is_plain(&self) -> bool {
        self.fate == Fate::Acked
    }
}

/// Something that is told, and when.
#[derive(Clone, Copy, Debug)]
enum Told {
    Attempt(Message, DeviceId),
    Ack(Message, Seq),
    Refusal(Message),
    Unknown(Message),
    Show(ChannelId, DeviceId, Observed),
}

fn devices() -> impl Iterator<Item = (UserId, DeviceId)> {
    let of = |user| [2 * user, 2 * user + 1].map(|device| (UserId(user), DeviceId(device)));
    (1..=USERS).flat_map(of)
}

struct Run {
    rng: StdRng,
    fault: Fault,
    messages: Vec<Message>,
    told: Vec<(f64, Told)>,
}

impl Run {
    /// `None`: this seed has no place for the fault.
    fn new(seed: u64, fault: Fault) -> Option<Run> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut messages = Vec::new();
        for number in 0..rng.random_range(1..60) {
            let (user, device) = *devices().collect::<Vec<_>>().choose(&mut rng)?;
            let fate = match rng.random_range(0..12) {
                0 => Fate::AckedAfterRefusal,
                1 => Fate::AckedTwice,
                2 => Fate::UnknownAndThere,
                3 => Fate::UnknownAndNot,
                4 => Fate::Refused,
                _ => Fate::Acked,
            };
            messages.push(Message {
                number,
                channel: *CHANNELS.choose(&mut rng)?,
                user,
                device,
                key: number,
                fate,
                seq: 0,
            });
        }
        let mut run = Run {
            rng,
            fault,
            messages,
            told: Vec::new(),
        };
        run.spoil_messages()?;
        for channel in CHANNELS {
            let there = run.messages.iter_mut().filter(|message| {
                message.channel == channel
                    && !matches!(message.fate, Fate::Refused | Fate::UnknownAndNot)
            });
            (1..)
                .zip(there)
                .for_each(|(seq, message)| message.seq = seq);
        }
        run.spoil_seqs()?;
        Some(run)
    }

    /// Two plain messages of one device in one channel.
    fn two_of_a_device(&mut self) -> Option<[usize; 2]> {
        let pairs: Vec<_> = (0..self.messages.len())
            .flat_map(|one| (one + 1..self.messages.len()).map(move |two| [one, two]))
            .filter(|pair| {
                let [one, two] = pair.map(|index| self.messages[index]);
                let is_alike = (one.device, one.channel) == (two.device, two.channel);
                is_alike && one.is_plain() && two.is_plain()
            })
            .collect();
        pairs.choose(&mut self.rng).copied()
    }

    fn a_plain_one(&mut self) -> Option<usize> {
        let plain = self.messages.iter().enumerate();
        let plain = plain.filter(|(_, message)| message.is_plain());
        let plain: Vec<_> = plain.map(|(index, _)| index).collect();
        plain.choose(&mut self.rng).copied()
    }

    fn spoil_messages(&mut self) -> Option<()> {
        match self.fault {
            Fault::RefuseAndStore => {
                let victim = self.a_plain_one()?;
                self.messages[victim].fate = Fate::RefusedAndThere;
            }
            Fault::AckTwoOfOne => {
                let [one, two] = self.two_of_a_device()?;
                self.messages[two].key = self.messages[one].key;
            }
            _ => {}
        }
        Some(())
    }

    fn spoil_seqs(&mut self) -> Option<()> {
        if self.fault == Fault::Overtake {
            let [one, two] = self.two_of_a_device()?;
            let seq = self.messages[one].seq;
            self.messages[one].seq = std::mem::replace(&mut self.messages[two].seq, seq);
        }
        Some(())
    }

    /// At some time after `number` was said, before or after others are.
    fn later(&mut self, number: u64, told: Told) {
        let time = number as f64 + self.rng.random_range(0.5..12.0);
        self.told.push((time, told));
    }

    fn now(&mut self, time: f64, told: Told) {
        self.told.push((time, told));
    }

    fn tell_all(&mut self) {
        for message in self.messages.clone() {
            let Message { number, device, .. } = message;
            let time = number as f64;
            self.now(time, Told::Attempt(message, device));
            match message.fate {
                Fate::Acked => {}
                Fate::AckedAfterRefusal => {
                    self.now(time + 0.1, Told::Refusal(message));
                    self.now(time + 0.2, Told::Attempt(message, device));
                }
                Fate::AckedTwice => {
                    let twin = DeviceId(device.0 ^ 1);
                    self.later(number, Told::Attempt(message, twin));
                    let (time, _) = self.told[self.told.len() - 1];
                    self.now(time + 0.1, Told::Ack(message, message.seq));
                }
                Fate::UnknownAndThere | Fate::UnknownAndNot => {
                    self.later(number, Told::Unknown(message));
                }
                Fate::Refused | Fate::RefusedAndThere => {
                    self.later(number, Told::Refusal(message));
                }
            }
            if message.seq == 0 {
                continue;
            }
            if matches!(
                message.fate,
                Fate::Acked | Fate::AckedAfterRefusal | Fate::AckedTwice
            ) {
                self.later(number, Told::Ack(message, message.seq));
            }
            for (_, device) in devices() {
                self.later(number, Told::Show(message.channel, device, message.seen()));
            }
        }
    }

    /// Changes what is told at one place.
    fn spoil_reports(&mut self) -> Option<()> {
        let shows: Vec<_> = (0..self.told.len())
            .filter(|index| matches!(self.told[*index].1, Told::Show(..)))
            .collect();
        let victim = *shows.choose(&mut self.rng)?;
        let (time, Told::Show(channel, device, event)) = self.told[victim] else {
            return None;
        };
        match self.fault {
            Fault::DropDelivery => {
                self.told.remove(victim);
            }
            Fault::RepeatDelivery => self.now(time + 1.0, Told::Show(channel, device, event)),
            Fault::ForgeDelivery => {
                let forged = Observed::parts(event.seq, UserId(1), TEXT, b"forged");
                self.told[victim].1 = Told::Show(channel, device, forged);
            }
            Fault::SwapDeliveries => {
                let is_next = |told: &Told| {
                    matches!(told, Told::Show(of, to, other)
                        if (*of, *to, other.seq) == (channel, device, event.seq + 1))
                };
                let next = self.told.iter().position(|(_, told)| is_next(told))?;
                let Told::Show(_, _, other) = self.told[next].1 else {
                    return None;
                };
                // Behind all others: who sees first cannot be told from who sees right.
                let time = f64::MAX;
                for (index, seq, print) in [
                    (victim, event.seq, other.print),
                    (next, other.seq, event.print),
                ] {
                    let swapped = Observed {
                        seq,
                        print,
                        is_message: true,
                    };
                    self.told[index] = (time, Told::Show(channel, device, swapped));
                }
            }
            Fault::MoveAck => {
                let victim = self.a_plain_one()?;
                let message = self.messages[victim];
                self.now(f64::MAX, Told::Ack(message, message.seq + 1));
            }
            Fault::ShowToOutsider => self.now(time + 1.0, Told::Show(channel, DeviceId(99), event)),
            _ => {}
        }
        Some(())
    }

    /// What lies in a channel in the end.
    fn history(&self, channel: ChannelId) -> Vec<Observed> {
        let there = self.messages.iter();
        let there = there.filter(|message| message.channel == channel && message.seq != 0);
        let mut history: Vec<_> = there.map(Message::seen).collect();
        history.sort_unstable_by_key(|event| event.seq);
        history
    }

    fn verdict(mut self) -> Option<Verdict> {
        self.tell_all();
        self.spoil_reports()?;
        self.told.sort_by(|(one, _), (two, _)| one.total_cmp(two));
        let mut checker = Checker::new();
        for (user, device) in devices() {
            checker.add_device(user, device);
            for channel in CHANNELS {
                checker.add_member(channel, user, 1);
            }
        }
        checker.add_device(UserId(9), DeviceId(99));
        for (_, told) in &self.told {
            tell(&mut checker, told);
        }
        let victim = *CHANNELS.choose(&mut self.rng)?;
        for channel in CHANNELS {
            let mut history = self.history(channel);
            if channel == victim {
                self.spoil_history(channel, &mut checker, &mut history)?;
            }
            let head = history.last().map_or(0, |event| event.seq);
            for user in (1..=USERS).map(UserId) {
                let mut read = FullRead::new(user, channel);
                let mut rest = history.as_slice();
                while !rest.is_empty() {
                    let (page, behind) = rest.split_at(self.rng.random_range(1..=rest.len()));
                    read.page(&mut checker, page);
                    rest = behind;
                }
                read.end(&mut checker, head);
            }
        }
        Some(checker.verdict())
    }

    fn spoil_history(
        &mut self,
        channel: ChannelId,
        checker: &mut Checker,
        history: &mut Vec<Observed>,
    ) -> Option<()> {
        match self.fault {
            Fault::CutHistory => {
                history.pop()?;
            }
            Fault::SkipInHistory => {
                if history.len() < 3 {
                    return None;
                }
                history.remove(self.rng.random_range(1..history.len() - 1));
            }
            Fault::StoreTwice => {
                let seq = history.len() as Seq + 1;
                let event = Observed {
                    seq,
                    ..*history.choose(&mut self.rng)?
                };
                history.push(event);
                for (_, device) in devices() {
                    checker.delivered(device, channel, event);
                }
            }
            _ => {}
        }
        Some(())
    }
}

fn tell(checker: &mut Checker, told: &Told) {
    match *told {
        Told::Attempt(message, device) => {
            let key = MessageKey(u128::from(message.key).to_le_bytes());
            checker.attempted(message.channel, message.user, device, key, message.print());
        }
        Told::Ack(message, seq) => checker.acked(message.channel, message.print(), seq),
        Told::Refusal(message) => checker.refused(message.channel, message.print()),
        Told::Unknown(message) => checker.unknown(message.channel, message.print()),
        Told::Show(channel, device, event) => checker.delivered(device, channel, event),
    }
}

fn kinds(verdict: &Verdict) -> BTreeSet<String> {
    let name = |violation: &Violation| {
        let text = format!("{violation:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    };
    verdict.violations.iter().map(name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_fault_is_told_by_its_kind_and_nothing_else_is(seed in any::<u64>(), at in 0..FAULTS.len()) {
        let (fault, wanted) = FAULTS[at];
        let verdict = Run::new(seed, fault).and_then(Run::verdict);
        prop_assume!(verdict.is_some());
        let verdict = verdict.expect("just seen");
        prop_assume!(verdict.counts.acks > 0);
        let wanted: BTreeSet<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        prop_assert_eq!(kinds(&verdict), wanted, "{}", verdict);
    }
}
