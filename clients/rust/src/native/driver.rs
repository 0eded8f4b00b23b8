//! The task that runs the core: takes inputs, carries out outputs, one batch at a time.
//!
//! Whatever is ready is given to the core together; what comes out is carried out in the order that [`Outputs`] asks for:
//! one durable transaction first, then frames, connections, answers, events. So nothing is sent, answered or given out that
//! a crash could forget.
//!
//! A reader of events that does not keep up holds the connection back (its socket is not read, the server collapses what
//! piles up), never the application's own calls; nothing is dropped and nothing grows.
//!
//! Ends when every [`super::Client`] is gone or one is closed, and when the data folder cannot be written.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use conch_wire::event::SendFlags;
use conch_wire::{ChannelId, MessageKey, Seq};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::error::ClientError;
use super::login::{TokenError, wall_ms};
use super::sending::{SendHandle, SendOutcome, Sending};
use super::store::{Store, StoreError};
use super::transport::{Dialer, Outgoing};
use crate::core::{
    Answer, ChannelInfo, Command, ConnectionState, Core, Event, Input, LinkCommand, Ms,
    OutboxMessage, Outcome, Outputs, Persist, StopReason,
};

/// Inputs of connections waiting for the driver.
const INPUTS_MAX: usize = 64;
/// Inputs and requests taken together before their outputs are carried out.
const BATCH_MAX: usize = 64;
/// Events that a reader may be behind before it holds the connection back.
const EVENTS_MAX: usize = 1_024;
/// A transaction that fails is tried so often, after these pauses.
const STORE_PAUSES_MS: [u64; 3] = [50, 500, 2_000];
/// How long a last GOODBYE may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// How often messages are looked at for their age, in milliseconds of the wall clock.
const LOOK_MS: u64 = 3_600_000;

/// What a send is answered with when the message is safe on this device.
type Taken = Result<SendHandle, ClientError>;

/// What an application's call becomes.
#[derive(Debug)]
pub(super) enum Request {
    Start,
    Hurry,
    NetworkChanged,
    Command(Command),
    Send {
        channel: ChannelId,
        key: MessageKey,
        kind: u8,
        flags: SendFlags,
        tail: Bytes,
        /// Answered when the message is safe on this device.
        accepted: oneshot::Sender<Taken>,
    },
    Retry {
        key: MessageKey,
        fresh_key: MessageKey,
        accepted: oneshot::Sender<Taken>,
    },
    Cancel {
        key: MessageKey,
        /// Whether it was taken out.
        done: oneshot::Sender<bool>,
    },
    LoadOlder {
        channel: ChannelId,
        items: u16,
        done: oneshot::Sender<Outcome>,
    },
    LoadRange {
        channel: ChannelId,
        from: Seq,
        to: Seq,
        items: u16,
        done: oneshot::Sender<Outcome>,
    },
    Ask(Question),
    Subscribe {
        reply: oneshot::Sender<mpsc::Receiver<Event>>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

/// What is answered out of the core's memory, once that is stored.
#[derive(Debug)]
pub(super) enum Question {
    Channels(oneshot::Sender<Vec<ChannelInfo>>),
    Channel(ChannelId, oneshot::Sender<Option<ChannelInfo>>),
    Outbox(oneshot::Sender<Vec<OutboxMessage>>),
    Cancelled(bool, oneshot::Sender<bool>),
}

/// A reader of events, and what it has no room for yet.
#[derive(Debug)]
struct Reader {
    sender: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
pub(super) struct Driver {
    core: Core,
    store: Store,
    dialer: Dialer,
    began: Instant,
    inputs: mpsc::Receiver<Input>,
    inputs_sender: mpsc::Sender<Input>,
    requests: mpsc::Receiver<Request>,
    connection: Option<Connection>,
    /// Sends that are stored with the next batch.
    accepted: Vec<(oneshot::Sender<Taken>, SendHandle)>,
    sends: BTreeMap<MessageKey, Sending>,
    /// Asked in this batch.
    questions: Vec<Question>,
    /// When messages were last looked at for their age, ms since 1970.
    looked_ms: u64,
    tickets: BTreeMap<u64, oneshot::Sender<Outcome>>,
    next_ticket: u64,
    readers: Vec<Reader>,
    /// Channels of which something is another, for whoever looks at one.
    touched: broadcast::Sender<ChannelId>,
    state: watch::Sender<ConnectionState>,
    closing: Vec<oneshot::Sender<()>>,
    ended: bool,
}

impl Driver {
    pub(super) fn new(
        core: Core,
        store: Store,
        dialer: Dialer,
        requests: mpsc::Receiver<Request>,
        touched: broadcast::Sender<ChannelId>,
        state: watch::Sender<ConnectionState>,
    ) -> Driver {
        let (inputs_sender, inputs) = mpsc::channel(INPUTS_MAX);
        Driver {
            core,
            store,
            dialer,
            began: Instant::now(),
            inputs,
            inputs_sender,
            requests,
            connection: None,
            accepted: Vec::new(),
            sends: BTreeMap::new(),
            questions: Vec::new(),
            looked_ms: 0,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            readers: Vec::new(),
            touched,
            state,
            closing: Vec::new(),
            ended: false,
        }
    }

    fn now(&self) -> Ms {
        self.began.elapsed().as_millis() as Ms
    }

    pub(super) async fn run(mut self) {
        self.look_at_ages();
        while !self.ended {
            self.wait().await;
            self.take_more().await;
            if let Err(error) = self.carry_out().await {
                tracing::error!(%error, "the data folder cannot be written");
                for (accepted, _) in self.accepted.drain(..) {
                    let _ = accepted.send(Err(ClientError::Store(error.again())));
                }
                self.publish(Event::Connection(ConnectionState::Stopped(
                    StopReason::Storage,
                )));
                break;
            }
        }
        self.finish().await;
    }

    /// Waits for one thing to do, and gives it to the core.
    async fn wait(&mut self) {
        let wake = self
            .core
            .wake_at()
            .map(|at| self.began + Duration::from_millis(at));
        let held_back = self.readers.iter().any(|reader| !reader.backlog.is_empty());
        tokio::select! {
            request = self.requests.recv() => match request {
                Some(request) => self.on_request(request).await,
                None => self.close(),
            },
            Some(input) = self.inputs.recv(), if !held_back => self.give(input),
            () = sleep_until(wake) => self.give(Input::Tick),
            () = room(&mut self.readers), if held_back => {}
        }
    }

    /// What else is ready goes into the same batch.
    async fn take_more(&mut self) {
        for _ in 0..BATCH_MAX {
            let Ok(request) = self.requests.try_recv() else {
                break;
            };
            self.on_request(request).await;
        }
        for _ in 0..BATCH_MAX {
            if self.readers.iter().any(|reader| !reader.backlog.is_empty()) {
                return;
            }
            let Ok(input) = self.inputs.try_recv() else {
                return;
            };
            self.give(input);
        }
    }

    fn give(&mut self, input: Input) {
        self.look_at_ages();
        self.core.handle(self.now(), input);
    }

    /// Before anything that may send them: a device may have slept for a week.
    fn look_at_ages(&mut self) {
        let wall_ms = wall_ms();
        if wall_ms.abs_diff(self.looked_ms) >= LOOK_MS {
            self.looked_ms = wall_ms;
            self.core.handle(self.now(), Input::Expire { wall_ms });
        }
    }

    fn command(&mut self, command: Command) {
        self.give(Input::Command(command));
    }

    async fn on_request(&mut self, request: Request) {
        // Whoever asked may have gone: an answer that nobody waits for is none.
        match request {
            Request::Start => self.give(Input::Start),
            Request::Hurry => self.give(Input::Hurry),
            Request::NetworkChanged => {
                // Before the PING, which then leaves from the new socket.
                self.dialer.network_changed().await;
                self.give(Input::NetworkChanged);
            }
            Request::Command(command) => self.command(command),
            Request::Send {
                channel,
                key,
                kind,
                flags,
                tail,
                accepted,
            } => {
                if !self.core.outbox_room() {
                    let _ = accepted.send(Err(ClientError::OutboxFull));
                    return;
                }
                self.accept(key, accepted);
                self.command(Command::Send {
                    channel,
                    key,
                    kind,
                    flags,
                    tail,
                    created_ms: wall_ms(),
                });
            }
            Request::Retry {
                key,
                fresh_key,
                accepted,
            } => {
                let wall_ms = wall_ms();
                match self.core.retry_key(key, fresh_key, wall_ms) {
                    Some(used) => self.accept(used, accepted),
                    None => {
                        let _ = accepted.send(Err(ClientError::NotRefused));
                        return;
                    }
                }
                self.command(Command::Retry {
                    key,
                    fresh_key,
                    wall_ms,
                });
            }
            Request::Cancel { key, done } => {
                let can = self.core.can_cancel(key);
                self.questions.push(Question::Cancelled(can, done));
                self.command(Command::Cancel { key });
            }
            Request::LoadRange {
                channel,
                from,
                to,
                items,
                done,
            } => {
                let ticket = self.ticket(done);
                self.command(Command::LoadRange {
                    ticket,
                    channel,
                    from,
                    to,
                    items,
                });
            }
            Request::LoadOlder {
                channel,
                items,
                done,
            } => {
                let ticket = self.ticket(done);
                self.command(Command::LoadOlder {
                    ticket,
                    channel,
                    items,
                });
            }
            Request::Ask(question) => self.questions.push(question),
            Request::Subscribe { reply } => {
                let (sender, receiver) = mpsc::channel(EVENTS_MAX);
                if reply.send(receiver).is_ok() {
                    self.readers.push(Reader {
                        sender,
                        backlog: VecDeque::new(),
                    });
                }
            }
            Request::Close { done } => {
                self.closing.push(done);
                self.close();
            }
        }
    }

    fn accept(&mut self, key: MessageKey, accepted: oneshot::Sender<Taken>) {
        let (sending, handle) = Sending::new(key);
        self.sends.insert(key, sending);
        self.accepted.push((accepted, handle));
    }

    fn ticket(&mut self, done: oneshot::Sender<Outcome>) -> u64 {
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, done);
        self.next_ticket
    }

    fn answer(&self, question: Question) {
        match question {
            Question::Channels(reply) => drop(reply.send(self.core.channels())),
            Question::Channel(channel, reply) => drop(reply.send(self.core.channel(channel))),
            Question::Outbox(reply) => drop(reply.send(self.core.outbox())),
            Question::Cancelled(done, reply) => drop(reply.send(done)),
        }
    }

    fn close(&mut self) {
        self.command(Command::Stop);
        self.ended = true;
    }

    async fn carry_out(&mut self) -> Result<(), StoreError> {
        let Outputs {
            persist,
            frames,
            link,
            answers,
            events,
        } = self.core.take_outputs();
        self.persist(&persist).await?;
        for (accepted, handle) in self.accepted.drain(..) {
            let _ = accepted.send(Ok(handle));
        }
        for question in std::mem::take(&mut self.questions) {
            self.answer(question);
        }
        if let Some(connection) = &self.connection {
            for bytes in frames {
                let _ = connection.outgoing.send(Outgoing::Message(bytes));
            }
        }
        for command in link {
            self.on_link(command);
        }
        for Answer { ticket, outcome } in answers {
            if let Some(done) = self.tickets.remove(&ticket) {
                let _ = done.send(outcome);
            }
        }
        for event in events {
            self.publish(event);
        }
        Ok(())
    }

    async fn persist(&self, steps: &[Persist]) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        for pause_ms in STORE_PAUSES_MS {
            match self.store.apply(steps).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "a batch could not be stored; trying again"),
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        self.store.apply(steps).await
    }

    fn on_link(&mut self, command: LinkCommand) {
        match command {
            LinkCommand::Connect {
                connection: number,
                refresh_token,
            } => {
                let (outgoing, receiver) = mpsc::unbounded_channel();
                let inputs = self.inputs_sender.clone();
                let dialer = self.dialer.clone();
                let task = tokio::spawn(dialer.run(number, refresh_token, inputs, receiver));
                self.connection = Some(Connection {
                    number,
                    outgoing,
                    task,
                });
            }
            LinkCommand::Close {
                connection: number,
                code,
                what,
            } => {
                tracing::debug!(%code, what, "closing the connection");
                if let Some(connection) = &self.connection
                    && connection.number == number
                {
                    let _ = connection.outgoing.send(Outgoing::Close(code));
                }
            }
            LinkCommand::RefreshToken { connection } => {
                let tokens = self.dialer.tokens().token(true);
                let inputs = self.inputs_sender.clone();
                tokio::spawn(async move {
                    let input = match tokens.await {
                        Ok(token) => Input::TokenRefreshed { connection, token },
                        Err(TokenError::Rejected(_)) => Input::TokenRejected { connection },
                        // The connection lives on; it is asked again when the server closes it for its token.
                        Err(TokenError::Unavailable(_)) => return,
                    };
                    let _ = inputs.send(input).await;
                });
            }
            LinkCommand::Elsewhere { endpoints } => self.dialer.elsewhere(&endpoints),
        }
    }

    fn publish(&mut self, event: Event) {
        match &event {
            Event::SendStored {
                key, seq, time_ms, ..
            } => self.resolve(
                *key,
                SendOutcome::Stored {
                    seq: *seq,
                    time_ms: *time_ms,
                },
            ),
            Event::SendRefused { key, reason, .. } => {
                self.resolve(*key, SendOutcome::Refused { reason: *reason });
            }
            Event::Connection(state) => {
                self.state.send_replace(*state);
            }
            _ => {}
        }
        if let Some(channel) = event.channel() {
            // Nobody looks: nobody needs to know.
            let _ = self.touched.send(channel);
        }
        self.readers.retain_mut(|reader| reader.put(event.clone()));
    }

    fn resolve(&mut self, key: MessageKey, outcome: SendOutcome) {
        if let Some(sending) = self.sends.remove(&key) {
            sending.end(outcome);
        }
    }

    async fn finish(mut self) {
        self.dialer.end();
        if let Some(connection) = self.connection.take() {
            let _ = connection
                .outgoing
                .send(Outgoing::Close(conch_wire::Code::GoingAway));
            // The task waits for room in a queue that nobody reads any more.
            self.inputs.close();
            let abort = connection.task.abort_handle();
            if tokio::time::timeout(GOODBYE_MAX, connection.task)
                .await
                .is_err()
            {
                abort.abort();
            }
        }
        self.store.close().await;
        for done in self.closing.drain(..) {
            let _ = done.send(());
        }
    }
}

impl Reader {
    /// False when nobody reads any more.
    fn put(&mut self, event: Event) -> bool {
        if !self.backlog.is_empty() {
            self.backlog.push_back(event);
            return !self.sender.is_closed();
        }
        match self.sender.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(event)) => {
                self.backlog.push_back(event);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// Moves what waits to a reader that has room again; drops readers that are gone.
async fn room(readers: &mut Vec<Reader>) {
    let Some(at) = readers.iter().position(|it| !it.backlog.is_empty()) else {
        return;
    };
    let reader = &mut readers[at];
    let Ok(permit) = reader.sender.reserve().await else {
        readers.remove(at);
        return;
    };
    if let Some(event) = reader.backlog.pop_front() {
        permit.send(event);
    }
    while let Some(event) = reader.backlog.pop_front() {
        if let Err(error) = reader.sender.try_send(event) {
            reader.backlog.push_front(error.into_inner());
            return;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
