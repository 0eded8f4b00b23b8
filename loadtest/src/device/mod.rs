//! A device under test: the pure [`state::State`] driven over a real WebSocket or QUIC, reporting to the checker.
//!
//! One task per device. It connects to wherever the node listens at the moment (a watch that the node's driver feeds),
//! reconnects at once when the connection ends, and obeys [`Command`]s. It never gives up: a node that is away is waited
//! for; silence ends a connection as well. The checker hears of an attempt before its bytes leave, and of everything else in the order of arrival.

pub mod stamp;
pub mod state;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use conch_wire::frame::{PushMode, Welcome};
use conch_wire::{ChannelId, DeviceId, MessageKey, UserId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::checker::Checker;
use crate::http::{Api, Login};
use crate::raw::{Doors, RawClient, RawError, Transport};
use state::{Note, State, Tally};

/// The checker as many devices report to it.
pub type SharedChecker = Arc<Mutex<Checker>>;

/// Commands that may wait in front of one device; above it the sender of commands waits.
const COMMANDS_MAX: usize = 64;
/// Pause before a failed connection is tried again. The node under test is local and comes back within seconds.
const RECONNECT: Duration = Duration::from_millis(20);

/// Who a device is and where it connects.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    pub login: Login,
    pub push: PushMode,
    /// Time between PINGs.
    pub heartbeat: Duration,
    /// Without a frame for so long a connection is given up.
    pub silence: Duration,
    pub transport: Transport,
    /// Where the node is, `None` while it is known to be down.
    pub doors: watch::Receiver<Option<Doors>>,
}

/// What a device is told to do.
#[derive(Debug)]
pub enum Command {
    Say {
        channel: ChannelId,
        key: MessageKey,
        text: Bytes,
    },
    /// Move the read mark to the last event shown.
    Read { channel: ChannelId },
    /// Drop the connection without a word and stay away for a while.
    Vanish(Duration),
}

/// Handle of a running device; dropping it ends the device.
#[derive(Debug)]
pub struct Device {
    pub user: UserId,
    pub device: DeviceId,
    commands: mpsc::Sender<Command>,
    tally: watch::Receiver<Tally>,
    task: JoinHandle<()>,
}

impl Device {
    /// Starts the device.
    pub fn spawn(plan: DevicePlan, checker: SharedChecker) -> Device {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (tally_out, tally) = watch::channel(Tally::default());
        let (user, device) = (plan.login.user, plan.login.device);
        let driver = Driver {
            state: State::new(user, plan.push),
            plan,
            checker,
            inbox,
            tally: tally_out,
            epoch: Instant::now(),
            away_until: None,
        };
        Device {
            user,
            device,
            commands,
            tally,
            task: tokio::spawn(driver.run()),
        }
    }

    /// Gives a command; waits while too many are waiting. False: the device has ended.
    pub async fn command(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Counts so far.
    pub fn tally(&self) -> Tally {
        *self.tally.borrow()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Driver {
    plan: DevicePlan,
    state: State,
    checker: SharedChecker,
    inbox: mpsc::Receiver<Command>,
    tally: watch::Sender<Tally>,
    epoch: Instant,
    away_until: Option<Instant>,
}

/// Why a connection's loop came back.
enum Ended {
    /// Connect again.
    Again,
    /// Nobody holds the handle any more.
    Dropped,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let away_until = self.away_until.take();
            let Some(doors) = self.next_doors(away_until).await else {
                return;
            };
            match self.connection(&doors).await {
                Ended::Again => {}
                Ended::Dropped => return,
            }
            self.state.on_disconnect();
            self.report();
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Waits until the node is said to listen and the time away is over; takes commands meanwhile.
    async fn next_doors(&mut self, away_until: Option<Instant>) -> Option<Doors> {
        loop {
            let doors = self.plan.doors.borrow_and_update().clone();
            let wait = away_until.filter(|until| *until > Instant::now());
            if let (Some(doors), None) = (doors, wait) {
                return Some(doors);
            }
            let until = wait.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                changed = self.plan.doors.changed() => changed.ok()?,
                command = self.inbox.recv() => self.on_command(command?),
                () = tokio::time::sleep_until(until) => {}
            }
            self.report();
        }
    }

    async fn open(&mut self, doors: &Doors) -> Result<(RawClient, Welcome), RawError> {
        let endpoint = doors.endpoint(self.plan.transport)?;
        let hello = self.state.hello(&self.plan.login.access_token);
        RawClient::open_at(&endpoint, hello).await
    }

    async fn connection(&mut self, doors: &Doors) -> Ended {
        let (mut client, welcome) = match self.open(doors).await {
            Ok(open) => open,
            Err(error) => {
                // 45xx: authenticate again. A node that dies meanwhile is met again with what we have.
                if error.code().is_some_and(|code| code.number() / 100 == 45) {
                    let api = Api::new(format!("http://{}", doors.http));
                    if let Ok(login) = api.refresh(&self.plan.login).await {
                        self.plan.login = login;
                    }
                }
                return Ended::Again;
            }
        };
        let now = self.now();
        self.state.on_welcome(welcome, now);
        let mut beat = tokio::time::interval(self.plan.heartbeat);
        beat.reset();
        let mut heard = Instant::now();
        loop {
            self.report();
            let out = self.state.take_output();
            if !out.is_empty() && client.send_bytes(out).await.is_err() {
                return Ended::Again;
            }
            if self.away_until.is_some() {
                return Ended::Again;
            }
            let due = self.state.next_due().map_or_else(
                || Instant::now() + Duration::from_secs(3_600),
                |due| self.epoch + Duration::from_millis(due),
            );
            tokio::select! {
                received = client.recv() => {
                    let Ok(first) = received else { return Ended::Again };
                    heard = Instant::now();
                    let now = self.now();
                    self.state.on_frame(first.frame, first.wire_bytes, now);
                    while let Some(next) = client.try_recv() {
                        self.state.on_frame(next.frame, next.wire_bytes, now);
                    }
                }
                command = self.inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return Ended::Dropped,
                },
                _ = beat.tick() => self.state.beat(),
                () = tokio::time::sleep_until(heard + self.plan.silence) => return Ended::Again,
                () = tokio::time::sleep_until(due) => {
                    let now = self.now();
                    self.state.on_tick(now);
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Say { channel, key, text } => self.state.say(channel, key, text, now),
            Command::Read { channel } => self.state.read(channel),
            Command::Vanish(time) => self.away_until = Some(Instant::now() + time),
        }
    }

    /// Hands notes to the checker; must come before the output is sent.
    fn report(&mut self) {
        let notes = self.state.take_notes();
        if !notes.is_empty() {
            let mut checker = self
                .checker
                .lock()
                .expect("no device panics while it reports");
            for note in notes {
                note_down(&mut checker, &self.plan.login, note);
            }
        }
        self.tally.send_replace(self.state.tally());
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

/// Tells the checker one note of the device of `login`.
pub(crate) fn note_down(checker: &mut Checker, login: &Login, note: Note) {
    match note {
        Note::Attempted {
            channel,
            key,
            print,
        } => checker.attempted(channel, login.user, login.device, key, print),
        Note::Acked {
            channel,
            print,
            seq,
            ..
        } => checker.acked(channel, print, seq),
        Note::Refused { channel, print } => checker.refused(channel, print),
        Note::GivenUp { channel, print } => checker.given_up(channel, print),
        Note::Unknown { channel, print } => checker.unknown(channel, print),
        Note::Shown { channel, event, .. } => checker.delivered(login.device, channel, event),
        Note::Page {
            channel, events, ..
        } => checker.page(login.user, channel, &events),
        Note::ReadMark { channel, seq } => checker.read_mark(login.device, channel, seq),
        Note::ReadConfirmed { channel, seq } => {
            checker.read_confirmed(login.device, channel, seq);
        }
        Note::InboxPosition(position) => checker.inbox_position(login.device, position),
    }
}
