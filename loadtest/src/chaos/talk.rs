//! What the people say: one talker per device, drawing from a random stream of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conch_wire::{ChannelId, DeviceId, MessageKey};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::steward::Rooms;
use crate::app::App;
use crate::device::{Command, Device};

/// A device with more unanswered messages than this stops talking until they are answered.
const UNSETTLED_MAX: usize = 48;
/// Above the size that is still pushed, so that devices must pull it.
const LARGE_BYTES: usize = 20_000;

/// One device of a person: the plain protocol, or the SDK.
#[derive(Clone, Debug)]
pub(super) enum Participant {
    Plain(Arc<Device>),
    Sdk(Arc<App>),
}

impl Participant {
    pub(super) fn device(&self) -> DeviceId {
        match self {
            Participant::Plain(device) => device.device,
            Participant::Sdk(app) => app.device,
        }
    }

    /// For reports.
    pub(super) fn name(&self) -> String {
        match self {
            Participant::Plain(device) => format!("plain device {}", device.device),
            Participant::Sdk(app) => format!("SDK {}", app.device),
        }
    }

    /// Messages without a final answer.
    pub(super) fn unsettled(&self) -> usize {
        match self {
            Participant::Plain(device) => device.tally().unsettled,
            Participant::Sdk(app) => app.unsettled(),
        }
    }

    async fn say(&self, channel: ChannelId, key: MessageKey, text: String) {
        match self {
            Participant::Plain(device) => {
                let text = Bytes::from(text);
                device.command(Command::Say { channel, key, text }).await;
            }
            // It makes its keys itself.
            Participant::Sdk(app) => app.say(channel, text).await,
        }
    }

    async fn read(&self, channel: ChannelId) {
        match self {
            Participant::Plain(device) => {
                device.command(Command::Read { channel }).await;
            }
            // To the end, wherever that is: the node clamps it.
            Participant::Sdk(app) => app.read(channel, conch_wire::limits::SEQ_MAX).await,
        }
    }

    async fn vanish(&self, time: Duration) {
        match self {
            Participant::Plain(device) => {
                device.command(Command::Vanish(time)).await;
            }
            Participant::Sdk(app) => app.vanish(time).await,
        }
    }
}

pub(super) struct Talker {
    rng: StdRng,
    index: u64,
    said: u64,
    rooms: Rooms,
    pace: Duration,
}

impl Talker {
    pub(super) fn new(seed: u64, index: u64, rooms: Rooms, pace: Duration) -> Talker {
        Talker {
            rng: StdRng::seed_from_u64(seed),
            index,
            said: 0,
            rooms,
            pace,
        }
    }

    /// Talks until the day is over, and ends what it has begun: a message that was handed to a device half would be one
    /// whose outcome nobody hears. `twin`: the person's other device.
    pub(super) async fn run(
        mut self,
        device: Participant,
        twin: Participant,
        is_over: watch::Receiver<bool>,
    ) {
        while !*is_over.borrow() {
            let pause = self.pace.mul_f64(self.rng.random_range(0.1..1.9));
            tokio::time::sleep(pause).await;
            if device.unsettled() > UNSETTLED_MAX {
                continue;
            }
            let channel = self.room();
            match self.rng.random_range(0..100) {
                0..=2 => {
                    let away = Duration::from_millis(self.rng.random_range(10..1_500));
                    device.vanish(away).await;
                }
                3..=9 => device.read(channel).await,
                10..=13 => {
                    let (key, text) = self.message();
                    device.say(channel, key, text.clone()).await;
                    // The same message from both devices at once, where both can use the same key.
                    if let (Participant::Plain(_), Participant::Plain(_)) = (&device, &twin) {
                        twin.say(channel, key, text).await;
                    }
                }
                _ => {
                    for _ in 0..self.rng.random_range(1..=6) {
                        let (key, text) = self.message();
                        device.say(channel, key, text).await;
                    }
                }
            }
        }
    }

    fn room(&mut self) -> ChannelId {
        let rooms = self
            .rooms
            .lock()
            .expect("nobody panics while it holds this");
        // Those that were there from the beginning stay: there is one.
        rooms[self.rng.random_range(0..rooms.len())]
    }

    /// A message that nobody said before.
    fn message(&mut self) -> (MessageKey, String) {
        self.said += 1;
        let mut text = format!("{}/{} ", self.index, self.said);
        let length = if self.rng.random_range(0..200) == 0 {
            LARGE_BYTES
        } else {
            self.rng.random_range(0..120)
        };
        text.extend(std::iter::repeat_n('x', length));
        (MessageKey(self.rng.random()), text)
    }
}
