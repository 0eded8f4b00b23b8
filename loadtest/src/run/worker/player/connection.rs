//! A device's connections: open, converse, lose, come back.

use std::rc::Rc;
use std::time::Duration;

use conch_wire::frame::Welcome;
use conch_wire::{ClientFrame, ServerFrame};
use tokio::time::{Instant, timeout};

use super::Driver;
use crate::device::stamp::Stamp;
use crate::raw::{RawClient, RawError, Received};

/// Longest pause before a failed connection is tried again; the first is a hundredth.
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How long bytes may wait to be taken by the node before the connection is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Looks at heartbeat and silence.
const LOOK: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(45);
/// Request id of a fresh token: the state counts from 1 and never comes there.
const TOKEN_REQUEST: u32 = u32::MAX;

/// Why a connection ended.
enum Ended {
    /// It was told to drop it, and to be away for so long.
    Told(Duration),
    Failed,
    /// The worker is over.
    Over,
}

impl Driver {
    pub(super) async fn run(mut self) {
        let mut pause = RECONNECT_MAX / 100;
        loop {
            if self.shared.is_over.get() {
                return;
            }
            match self.open().await {
                Ok((client, welcome)) => {
                    pause = RECONNECT_MAX / 100;
                    match self.connection(client, welcome).await {
                        Ended::Told(away) => self.be_away(away).await,
                        Ended::Failed => {}
                        Ended::Over => return,
                    }
                }
                Err(error) => {
                    self.failed("connect", &error);
                    if is_about_tokens(&error) {
                        self.shared.refresh(&self.seat.login).await;
                    }
                    // Spread out, as clients do.
                    let spread = 0.5 + rand::random::<f64>();
                    tokio::time::sleep(pause.mul_f64(spread)).await;
                    pause = (2 * pause).min(RECONNECT_MAX);
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(RawClient, Welcome), RawError> {
        let shared = Rc::clone(&self.shared);
        let since = shared.now();
        let _turn = if self.was_connected {
            None
        } else {
            shared.first_connections.acquire().await.ok()
        };
        let token = self.seat.login.borrow().access_token.clone();
        let hello = self.state.hello(&token);
        let open = RawClient::open_at(&self.endpoint, hello).await?;
        if self.was_connected {
            let now = shared.now();
            shared.tally.borrow_mut().reconnected(since, now);
            self.back_since.get_or_insert(since);
            if self.is_excused {
                self.present_from = Stamp(now);
            }
        }
        self.asks_what_it_missed = false;
        self.was_connected = true;
        Ok(open)
    }

    async fn connection(&mut self, mut client: RawClient, welcome: Welcome) -> Ended {
        self.seat.is_connected.set(true);
        self.shared.connected.set(self.shared.connected.get() + 1);
        self.state.on_welcome(welcome, self.now_ms());
        let ended = self.converse(&mut client).await;
        self.seat.is_connected.set(false);
        self.shared.connected.set(self.shared.connected.get() - 1);
        self.state.on_disconnect();
        self.pages.asked.clear();
        self.settle();
        ended
    }

    async fn converse(&mut self, client: &mut RawClient) -> Ended {
        // The first look at a moment of its own: thousands must not beat at once.
        let first = Instant::now() + LOOK.mul_f64(rand::random());
        let mut look = tokio::time::interval_at(first, LOOK);
        let (mut heard, mut beat) = (Instant::now(), Instant::now());
        loop {
            if let Err(ended) = self.flush(client).await {
                return ended;
            }
            if let Some(away) = self.vanish.take() {
                return Ended::Told(away);
            }
            if let Some(time) = self.stall.take() {
                self.be_stalled(time).await;
                heard = Instant::now();
            }
            let due = self.state.next_due();
            let now_ms = self.now_ms();
            tokio::select! {
                received = client.recv() => match received {
                    Ok(first) => {
                        heard = Instant::now();
                        if self.on_received(client, first) {
                            self.refresh_session(client).await;
                        }
                    }
                    Err(error) => {
                        self.failed("connection lost", &error);
                        return Ended::Failed;
                    }
                },
                order = self.inbox.recv() => match order {
                    Some(order) => self.obey_all(order),
                    None => return Ended::Over,
                },
                _ = look.tick() => {
                    if self.shared.is_over.get() {
                        return Ended::Over;
                    }
                    if heard.elapsed() > SILENCE {
                        self.shared.tally.borrow_mut().error("connection lost: silence");
                        return Ended::Failed;
                    }
                    if beat.elapsed() > HEARTBEAT {
                        beat = Instant::now();
                        self.state.beat();
                    }
                }
                () = sleep_until_ms(due, now_ms), if due.is_some() => {
                    let now = self.now_ms();
                    self.state.on_tick(now);
                }
            }
        }
    }

    /// Takes a frame and all that came with it; true: the token ends soon.
    fn on_received(&mut self, client: &mut RawClient, first: Received) -> bool {
        let now = self.now_ms();
        let (mut next, mut bytes, mut expires) = (Some(first), 0, false);
        while let Some(received) = next {
            bytes += received.wire_bytes as usize;
            match &received.frame {
                ServerFrame::Error { error, .. } => {
                    let what = format!("refused: {}", error.code);
                    self.shared.tally.borrow_mut().error(&what);
                }
                ServerFrame::AuthExpiring { .. } => expires = true,
                ServerFrame::Pong { .. } => self.asks_what_it_missed = false,
                _ => {}
            }
            self.state
                .on_frame(received.frame, received.wire_bytes, now);
            next = client.try_recv();
        }
        let now = self.shared.now();
        self.shared.tally.borrow_mut().bytes(bytes, 0, now);
        expires
    }

    /// The token ends soon: the session goes on under a fresh one.
    async fn refresh_session(&mut self, client: &mut RawClient) {
        if self.shared.refresh(&self.seat.login).await {
            let token = self.seat.login.borrow().access_token.clone();
            let request = TOKEN_REQUEST;
            client.queue(&ClientFrame::AuthRefresh { request, token });
            // A failure shows at the next read.
            let _ = client.flush().await;
        }
    }

    /// Tells what happened, then lets the bytes go that follow from it.
    async fn flush(&mut self, client: &mut RawClient) -> Result<(), Ended> {
        self.settle();
        let out = self.state.take_output();
        if out.is_empty() {
            return Ok(());
        }
        let now = self.shared.now();
        self.shared.tally.borrow_mut().bytes(0, out.len(), now);
        match timeout(WRITE_PATIENCE, client.send_bytes(out)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.failed("connection lost", &error);
                Err(Ended::Failed)
            }
            Err(_) => {
                let tally = &self.shared.tally;
                tally
                    .borrow_mut()
                    .error("connection lost: the node takes nothing");
                Err(Ended::Failed)
            }
        }
    }

    /// Away; what it is told to send meanwhile it keeps.
    async fn be_away(&mut self, away: Duration) {
        let until = Instant::now() + away;
        self.is_excused = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                order = self.inbox.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                }
            }
            self.settle();
        }
        self.back_since = Some(self.shared.now());
        self.seat.is_present.set(true);
    }

    async fn be_stalled(&mut self, time: Duration) {
        self.is_excused = true;
        tokio::time::sleep(time).await;
        let now = self.shared.now();
        self.back_since = Some(now);
        self.present_from = Stamp(now);
        self.asks_what_it_missed = true;
        self.state.beat();
        self.seat.is_present.set(true);
    }

    fn failed(&self, what: &str, error: &RawError) {
        if self.shared.is_over.get() {
            return;
        }
        let text = match error.code() {
            Some(code) => format!("{what}: {code}"),
            None => format!("{what}: {error}"),
        };
        self.shared.last_failure.replace(Some(format!("{error}")));
        self.shared.tally.borrow_mut().error(&text);
    }
}

/// Authenticate again: the code says that the token is what is wrong.
fn is_about_tokens(error: &RawError) -> bool {
    error.code().is_some_and(|code| code.number() / 100 == 45)
}

async fn sleep_until_ms(due: Option<u64>, now: u64) {
    let wait = due.unwrap_or(now).saturating_sub(now);
    tokio::time::sleep(Duration::from_millis(wait)).await;
}
