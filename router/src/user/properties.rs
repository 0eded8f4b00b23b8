//! Random lives of a user's sessions against the simplest model: a set.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, Code, DeviceId, SessionId, UserId};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::state::{SESSIONS_MAX, UserState};
use crate::{Published, Push, Registration};

#[derive(Clone, Debug)]
enum Step {
    Register {
        session: u64,
        device: u64,
        replaces: Option<u64>,
    },
    Unregister {
        session: u64,
    },
    CloseDevice {
        device: u64,
    },
    Events {
        count: u32,
        origin: Option<u64>,
        /// All but the first, which nobody here has sent, or all of them.
        all: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..30u64;
    prop_oneof![
        4 => (session.clone(), 0..5u64, proptest::option::of(session.clone())).prop_map(
            |(session, device, replaces)| Step::Register { session, device, replaces }
        ),
        2 => session.clone().prop_map(|session| Step::Unregister { session }),
        1 => (0..5u64).prop_map(|device| Step::CloseDevice { device }),
        3 => (1..4u32, proptest::option::of(session), any::<bool>())
            .prop_map(|(count, origin, all)| Step::Events { count, origin, all }),
    ]
}

fn published(seq: u32, origin: Option<u64>) -> Published {
    Published {
        channel: ChannelId(1),
        channel_kind: ChannelKind::Direct,
        seq,
        ordinal: seq,
        position: u64::from(seq),
        kind: 1,
        author: UserId(1),
        origin: origin.map(SessionId),
        left: SmallVec::new(),
        body: Bytes::new(),
    }
}

proptest! {
    /// Every event goes once, in order, to exactly the sessions that are registered, but for the one that has sent them
    /// all; the position never moves back.
    #[test]
    fn exactly_the_registered_sessions_get_every_event(steps in proptest::collection::vec(step(), 1..80)) {
        let mut user = UserState::default();
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        let mut seq = 0;
        let mut position = 0;
        for step in steps {
            let mut pushes = Vec::new();
            match step {
                Step::Register { session, device, replaces } => {
                    let registration = Registration {
                        session: SessionId(session),
                        user: UserId(1),
                        device: DeviceId(device),
                        replaces: replaces.map(SessionId),
                    };
                    let told = user.on_register(&registration, &mut pushes);
                    let replaced = replaces.filter(|&old| old != session && model.remove(&old).is_some());
                    let closed: Vec<u64> = pushes
                        .iter()
                        .map(|(session, push)| {
                            assert!(matches!(push, Push::Close(Code::SessionReplaced)));
                            session.0
                        })
                        .collect();
                    prop_assert_eq!(closed, replaced.into_iter().collect::<Vec<_>>());
                    model.remove(&session);
                    prop_assert_eq!(told.is_ok(), model.len() < SESSIONS_MAX);
                    if told.is_ok() {
                        model.insert(session, device);
                    }
                }
                Step::Unregister { session } => {
                    user.on_unregister(SessionId(session));
                    model.remove(&session);
                }
                Step::CloseDevice { device } => {
                    user.on_close_device(DeviceId(device), Code::DeviceRevoked, &mut pushes);
                    let before = model.len();
                    model.retain(|_, on| *on != device);
                    prop_assert_eq!(pushes.len(), before - model.len());
                }
                Step::Events { count, origin, all } => {
                    let events: Arc<[Published]> = (1..=count)
                        .map(|i| published(seq + i, origin.filter(|_| all || i > 1)))
                        .collect();
                    seq += count;
                    user.on_events(&events, &mut pushes);
                    for &session in model.keys() {
                        let got: Vec<u32> = pushes
                            .iter()
                            .filter(|(to, _)| to.0 == session)
                            .flat_map(|(_, push)| match push {
                                Push::Events(events) => events.iter().map(|event| event.seq).collect(),
                                _ => vec![0],
                            })
                            .collect();
                        let wanted = if all && origin == Some(session) { 0 } else { count };
                        prop_assert_eq!(got, (seq - count + 1..=seq).take(wanted as usize).collect::<Vec<_>>());
                    }
                    let told = model.keys().filter(|session| !all || origin != Some(**session)).count();
                    prop_assert_eq!(pushes.len(), told);
                }
            }
            prop_assert_eq!(user.is_empty(), model.is_empty());
            let now = user.on_position(0);
            prop_assert!(now >= position);
            position = now;
        }
    }
}
