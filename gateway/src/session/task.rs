//! The driver of a session: one task per connection between its transport, the hub and the router.
//!
//! It owns nothing that decides: it feeds frames, pushes, answers and time to [`Session`], carries out its effects and
//! moves bytes. One wake-up drains everything that is there and writes it in one flush. It holds no timer: the hub's
//! wheel signals deadlines.
//!
//! Whatever ends it (the client, the node, a panic), the session is unregistered by its id.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use conch_router::{Push, Refused, Registration, Router};
use conch_wire::event::PendingAnswer;
use conch_wire::frame::{Hello, split_frame};
use conch_wire::{Code, SessionId, UserId, limits};
use futures_util::stream::{FuturesUnordered, Stream};

use super::effect::{Admission, Answer, Effect, Ending, Identity};
use super::state::{Session, SessionConfig};
use crate::auth::Gate;
use crate::clock::Clock;
use crate::hub::Hub;
use crate::hub::mailbox::Mailbox;
use crate::metrics;
use crate::transport::{Closing, Gone, Incoming, Transport};

/// A socket that takes nothing for this long while something waits is given up.
const STALL_MAX_MS: u64 = 30_000;
/// What was written before an ending gets this long to go out, and the close handshake again.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// The owner of the user must answer a registration within this.
const REGISTER_MAX: Duration = Duration::from_secs(5);
const OWNER_SILENT: Refused = Refused {
    code: Code::Unavailable,
    retry_after_ms: 1_000,
    item: 0,
    detail: "the owner does not answer",
};
/// Frames handled before others on this core get a turn.
const FRAMES_PER_TURN: usize = 128;
/// Rounds of input, output and effects before others on this core get a turn.
const ROUNDS_PER_TURN: usize = 8;

/// What all sessions of a node share.
#[derive(Debug)]
pub struct Edge {
    pub hub: Arc<Hub>,
    pub router: Router,
    pub gate: Arc<Gate>,
    pub clock: Clock,
    pub config: Arc<SessionConfig>,
}

/// Runs one connection to its end.
pub fn run<T: Transport>(transport: T, id: SessionId, edge: Arc<Edge>) -> Connection<T> {
    let mailbox = edge.hub.insert(id);
    let now_ms = edge.clock.now_ms();
    metrics::connection_opened();
    let driver = Driver {
        session: Session::new(id, edge.config.clone(), now_ms),
        transport,
        mailbox,
        edge,
        running: None,
        unasked: false,
        mail_waits: false,
        sent_in_round: false,
        chunk: Bytes::new(),
        flushing_bytes: 0,
        moved_ms: now_ms,
        received_bytes: 0,
        sent_bytes: 0,
        armed_ms: u64::MAX,
        budgeted: None,
        live: None,
    };
    Connection {
        driver,
        farewell: None,
    }
}

/// A connection as a future: by hand, because it is as large as it is for as long as a client is connected, and an `async`
/// block would keep what only its end needs beside it.
pub struct Connection<T> {
    driver: Driver<T>,
    farewell: Option<Box<Farewell>>,
}

/// How it closes, and until when a client has time to answer.
struct Farewell {
    closing: Closing,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl<T> std::fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("session", &self.driver.mailbox.session)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Future for Connection<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Connection { driver, farewell } = self.get_mut();
        let farewell = match farewell {
            Some(farewell) => farewell,
            None => {
                let closing = ready!(driver.poll_turn(cx));
                // From here on nothing is pushed to it any more.
                driver.leave();
                let Some(closing) = closing else {
                    metrics::connection_lost();
                    return Poll::Ready(());
                };
                tracing::debug!(
                    session = driver.mailbox.session.0,
                    ?closing,
                    "connection closes"
                );
                metrics::connection_closed(&closing);
                farewell.insert(Box::new(Farewell {
                    closing,
                    deadline: Box::pin(tokio::time::sleep(CLOSE_MAX)),
                }))
            }
        };
        // A client that does not answer the close is cut off.
        if driver.transport.poll_close(cx, farewell.closing).is_ready() {
            return Poll::Ready(());
        }
        farewell.deadline.as_mut().poll(cx)
    }
}

/// A stage of a send at which a test ends the process; nothing without the feature `failpoints`.
fn crash_point(name: &'static str) {
    let _ = name;
    fail::fail_point!(name, |_| conch_store::crash::kill_self());
}

/// What a round of input has left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Input {
    /// Nothing: the transport wakes the task for more.
    Taken,
    /// Perhaps something.
    Left,
}

type Running = Pin<Box<dyn Future<Output = Answer> + Send>>;

struct Driver<T> {
    session: Session,
    transport: T,
    mailbox: Arc<Mailbox>,
    edge: Arc<Edge>,
    /// What was asked for and is not answered.
    running: Option<FuturesUnordered<Running>>,
    /// Something in `running` was not polled yet.
    unasked: bool,
    /// The mailbox may hold pushes.
    mail_waits: bool,
    sent_in_round: bool,
    /// Frames that came in and were not handled yet.
    chunk: Bytes,
    /// Bytes that the transport took and did not flush yet.
    flushing_bytes: usize,
    /// When bytes last went out, or began to wait.
    moved_ms: u64,
    received_bytes: u64,
    sent_bytes: u64,
    /// The earliest deadline that the wheel knows of.
    armed_ms: u64,
    budgeted: Option<UserId>,
    live: Option<metrics::LiveSession>,
}

impl<T: Transport> Driver<T> {
    /// Everything that can be done now. Ready: the connection ends; `None`: it is gone already.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<Closing>> {
        self.transport.begin_turn(cx);
        let turn = self.poll_rounds(cx);
        if turn.is_pending() {
            self.transport.end_turn(cx);
        }
        turn
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<Option<Closing>> {
        for _ in 0..ROUNDS_PER_TURN {
            let now_ms = self.edge.clock.now_ms();
            self.on_signals(cx, now_ms);
            self.on_answers(cx, now_ms);
            self.on_pushes();
            let input = match self.on_input(cx, now_ms) {
                Ok(input) => input,
                Err(None) => return Poll::Ready(None),
                Err(Some(closing)) => return Poll::Ready(Some(closing)),
            };
            self.session.pump(now_ms);
            self.start_effects();
            let flushed = match self.on_output(cx, now_ms) {
                Ok(flushed) => flushed,
                Err(Gone) => return Poll::Ready(None),
            };
            if let Some(ending) = self.session.ending()
                && flushed
            {
                return Poll::Ready(Some(Closing::Ours(ending)));
            }
            if let Some(closing) = self.check_stall(now_ms) {
                return Poll::Ready(Some(closing));
            }
            self.arm();
            if !self.has_more(input) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether something can be done that nothing would wake this task for.
    fn has_more(&self, input: Input) -> bool {
        self.unasked
            || (input == Input::Left && self.session.may_read())
            || (self.mail_waits && self.session.may_take_pushes())
            || (T::SENDING_MAKES_ROOM && self.sent_in_round)
    }

    fn on_signals(&mut self, cx: &mut Context<'_>, now_ms: u64) {
        // Registered before looking: what comes after the look wakes this task.
        self.mailbox.register(cx.waker());
        if !self.mailbox.take_filled() {
            return;
        }
        self.mail_waits = true;
        let signals = self.mailbox.take_signals();
        if let Some((min, max)) = signals.goaway {
            self.session.on_goaway(min, max);
        }
        if let Some(code) = signals.close {
            // What was pushed before the word to close goes out before it: acks, most of all.
            self.on_pushes();
            self.session.end(code, 0, code.name());
        }
        if signals.tick {
            self.armed_ms = u64::MAX;
            self.session.on_tick(now_ms);
        }
    }

    fn on_answers(&mut self, cx: &mut Context<'_>, now_ms: u64) {
        self.unasked = false;
        while let Some(running) = &mut self.running {
            match Pin::new(running).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(answer)) => self.on_answer(now_ms, answer),
                // An idle connection holds no list.
                Poll::Ready(None) => self.running = None,
            }
        }
    }

    fn on_pushes(&mut self) {
        if !self.mail_waits || !self.session.may_take_pushes() {
            return;
        }
        self.mail_waits = false;
        let drained = self.mailbox.drain();
        for push in drained.pushes {
            if let Push::Acked { acks, .. } = &push {
                crash_point("gateway.before_ack");
                metrics::acked(acks.len());
            }
            self.session.on_push(push);
        }
        if !drained.marks.is_empty() || drained.mark_all || !drained.left.is_empty() {
            self.session
                .on_collapsed(&drained.marks, &drained.left, drained.mark_all);
        }
        metrics::collapsed(self.session.outbound().take_dropped());
    }

    /// Handles frames while the session takes them. `Err`: the connection ends now.
    fn on_input(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Result<Input, Option<Closing>> {
        for _ in 0..FRAMES_PER_TURN {
            if !self.session.may_read() {
                return Ok(Input::Left);
            }
            if !self.chunk.is_empty() {
                self.on_frame(now_ms);
                continue;
            }
            let incoming = self.transport.poll_recv(cx, now_ms);
            self.note_received(now_ms);
            match incoming {
                Poll::Pending => return Ok(Input::Taken),
                Poll::Ready(Incoming::Frames(chunk)) => self.chunk = chunk,
                Poll::Ready(Incoming::Control) => self.session.on_control(now_ms),
                Poll::Ready(Incoming::NotFrames { code, what }) => self.session.end(code, 0, what),
                Poll::Ready(Incoming::Gone) => return Err(None),
                Poll::Ready(Incoming::Breach { status, what }) => {
                    return Err(Some(Closing::Breach { status, what }));
                }
            }
        }
        Ok(Input::Left)
    }

    fn note_received(&mut self, now_ms: u64) {
        let received = self.transport.progress().received_bytes;
        if received != self.received_bytes {
            metrics::received(received - self.received_bytes);
            self.received_bytes = received;
            self.session.on_bytes(now_ms);
        }
    }

    fn on_frame(&mut self, now_ms: u64) {
        let chunk = self.chunk.clone();
        match split_frame(&chunk, self.session.frame_bytes_max()) {
            Ok(Some(split)) => {
                metrics::frame_received();
                crash_point("gateway.received");
                self.session
                    .on_frame(now_ms, split.header, split.body, &chunk);
                self.chunk.advance(split.consumed);
                if self.chunk.is_empty() {
                    // A held slice would pin the read buffer.
                    self.chunk = Bytes::new();
                }
            }
            Ok(None) => self
                .session
                .end(Code::BadFrame, 0, "a message ends inside a frame"),
            Err(error) => self.session.end(error.code, 0, error.what),
        }
    }

    fn on_answer(&mut self, now_ms: u64, answer: Answer) {
        let admitted = match &answer {
            Answer::Decided(Ok(admission)) => Some(admission.identity),
            Answer::Decided(Err(refused)) => {
                metrics::hello_refused(refused.code);
                None
            }
            _ => None,
        };
        self.session.on_answer(now_ms, answer);
        if let Some(identity) = admitted {
            self.on_admitted(identity);
        }
    }

    fn on_admitted(&mut self, identity: Identity) {
        let budget = self.edge.hub.budget(identity.user, self.edge.config.sends);
        self.budgeted = Some(identity.user);
        self.session.share_budget(budget);
        self.transport.authenticated();
        self.live = Some(metrics::LiveSession::new());
        tracing::debug!(
            session = self.mailbox.session.0,
            user = identity.user.0,
            device = identity.device.0,
            "session begins"
        );
    }

    fn start_effects(&mut self) {
        loop {
            let effects = self.session.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.start(effect);
            }
        }
    }

    fn start(&mut self, effect: Effect) {
        let router = self.edge.router.clone();
        let user = self.session.identity().map(|i| i.user).unwrap_or_default();
        let running: Running = match effect {
            Effect::Send(request) => {
                let (id, frame_type) = (request.request, request.frame_type);
                metrics::sent(request.items.len());
                if let Err(refused) = router.send(request) {
                    metrics::send_refused(refused.code);
                    self.session.on_send_refused(id, frame_type, &refused);
                }
                return;
            }
            Effect::Admit(hello) => Box::pin(admit(self.edge.clone(), self.mailbox.clone(), hello)),
            Effect::View { channel, purpose } => Box::pin(async move {
                Answer::View {
                    channel,
                    purpose,
                    result: router.view(user, channel).await,
                }
            }),
            Effect::Page { request, purpose } => Box::pin(async move {
                Answer::Page {
                    request,
                    purpose,
                    result: router.history(user, request).await,
                }
            }),
            Effect::Sync {
                request,
                place,
                rows_max,
            } => Box::pin(async move {
                Answer::Sync {
                    request,
                    place,
                    result: router.sync(user, place.query(), rows_max).await,
                }
            }),
            Effect::Read {
                request,
                channel,
                seq,
            } => Box::pin(async move {
                Answer::Read {
                    request,
                    channel,
                    result: router.read(user, channel, seq).await,
                }
            }),
            Effect::Position { nonce } => Box::pin(async move {
                Answer::Position {
                    nonce,
                    position: router.store().inbox_position(user).await.ok(),
                }
            }),
            Effect::Reauthenticate { request, token } => {
                let gate = self.edge.gate.clone();
                Box::pin(async move {
                    Answer::Reauthenticated {
                        request,
                        result: gate.check(&token).await,
                    }
                })
            }
        };
        self.running.get_or_insert_default().push(running);
        self.unasked = true;
    }

    /// Moves bytes out. True: nothing waits.
    fn on_output(&mut self, cx: &mut Context<'_>, now_ms: u64) -> Result<bool, Gone> {
        self.sent_in_round = false;
        loop {
            if self.flushing_bytes > 0 {
                let flushed = self.transport.poll_flush(cx);
                let sent = self.transport.progress().sent_bytes;
                if sent != self.sent_bytes {
                    metrics::sent_bytes(sent - self.sent_bytes);
                    self.sent_bytes = sent;
                    self.moved_ms = now_ms;
                }
                match flushed {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(Err(Gone)) => return Err(Gone),
                    Poll::Ready(Ok(())) => {
                        self.session.outbound().sent(self.flushing_bytes);
                        self.flushing_bytes = 0;
                        // Room again: what waited for it may go on.
                        self.session.pump(now_ms);
                        self.start_effects();
                    }
                }
            }
            let Some(chunk) = self.session.outbound().take_chunk() else {
                return Ok(true);
            };
            self.moved_ms = now_ms;
            self.sent_in_round = true;
            self.flushing_bytes = chunk.len();
            self.transport.send(cx, chunk)?;
        }
    }

    /// Gives a connection up that takes nothing.
    fn check_stall(&self, now_ms: u64) -> Option<Closing> {
        if self.flushing_bytes == 0 {
            return None;
        }
        let stalled_ms = now_ms.saturating_sub(self.moved_ms);
        if let Some(ending) = self.session.ending()
            && u128::from(stalled_ms) >= CLOSE_MAX.as_millis()
        {
            return Some(Closing::Ours(ending));
        }
        (stalled_ms >= STALL_MAX_MS).then_some(Closing::Ours(Ending {
            code: Some(Code::SlowConsumer),
            detail: "nothing was read for 30 s",
        }))
    }

    fn arm(&mut self) {
        let mut deadline_ms = self.session.deadline_ms().min(self.transport.deadline_ms());
        if self.flushing_bytes > 0 {
            let patience_ms = if self.session.ending().is_some() {
                CLOSE_MAX.as_millis() as u64
            } else {
                STALL_MAX_MS
            };
            deadline_ms = deadline_ms.min(self.moved_ms + patience_ms);
        }
        if deadline_ms < self.armed_ms {
            self.armed_ms = deadline_ms;
            self.edge.hub.arm(self.mailbox.session, deadline_ms);
        }
    }
}

impl<T> Driver<T> {
    /// Takes the session out of the hub and the owner's list. Again: nothing happens.
    fn leave(&mut self) {
        let user = self.mailbox.take_user();
        if user != UserId(0) {
            self.edge.router.unregister(user, self.mailbox.session);
        }
        if let Some(user) = self.budgeted.take() {
            self.edge.hub.drop_budget(user);
        }
        self.edge.hub.remove(self.mailbox.session);
        self.live = None;
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        // After a panic too: a session that is not unregistered would be pushed to for ever.
        self.leave();
    }
}

/// Decides on HELLO: the token, then register, then the pending sends.
async fn admit(edge: Arc<Edge>, mailbox: Arc<Mailbox>, hello: Box<Hello>) -> Answer {
    Answer::Decided(decide(&edge, &mailbox, &hello).await)
}

async fn decide(edge: &Edge, mailbox: &Mailbox, hello: &Hello) -> Result<Admission, Refused> {
    let identity = edge.gate.check(&hello.token).await?;
    // Known before registering: whatever ends the session from here on unregisters it.
    mailbox.set_user(identity.user);
    let registering = edge.router.register(Registration {
        session: mailbox.session,
        user: identity.user,
        device: identity.device,
        replaces: hello.replaces,
    });
    let registered = tokio::time::timeout(REGISTER_MAX, registering)
        .await
        .map_err(|_| OWNER_SILENT)??;
    let pending = if hello.pending.is_empty() {
        Vec::new()
    } else {
        let wait = Duration::from_millis(u64::from(limits::PENDING_WAIT_MS));
        let asked = edge
            .router
            .pending(identity.user, hello.replaces, &hello.pending);
        // The router keeps this limit for each owner; WELCOME keeps it whatever the router does.
        tokio::time::timeout(wait, asked)
            .await
            .unwrap_or_else(|_| vec![PendingAnswer::Unknown; hello.pending.len()])
    };
    Ok(Admission {
        identity,
        inbox_position: registered.inbox_position,
        pending,
        wall_ms: edge.clock.wall_ms(),
    })
}
