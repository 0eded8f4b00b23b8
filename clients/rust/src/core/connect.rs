//! When there is a connection: the first, the next one after a loss, none after a final word.
//!
//! A lost connection is followed by another after a delay with full jitter, at least as long as the server advised; the
//! class of the code (`docs/protocol.md`) says what comes before it: nothing, forgetting what is known, a new token, or the
//! end. A GOAWAY names a window, and this client moves at a moment of its own within it, so that a node's connections do
//! not arrive at the next one together. After a change of network a connection has a few seconds to show that it is alive.
//! Between connections nothing of the old one is left but the numbers that resume it.

use conch_wire::frame::{ErrorFrame, Limits};
use conch_wire::{ClientFrame, Code};

use super::advice::Advice;
use super::alias::AliasBook;
use super::backoff::{ADVICE_MAX_MS, Backoff};
use super::credit::Credit;
use super::event::{ConnectionState, Event, StopReason};
use super::heartbeat::{Beat, Heartbeat};
use super::out::{Answer, LinkCommand, Outcome};
use super::persist::Persist;
use super::requests::Asked;
use super::{Config, Core, Ms};

/// From the wish to connect to WELCOME: name, TCP, TLS, upgrade, HELLO, in milliseconds.
const HANDSHAKE_MAX_MS: Ms = 15_000;
/// Close codes that are this protocol's; others are WebSocket's.
const PROTOCOL_CODES: std::ops::Range<u16> = 4_100..4_700;
/// A connection that lasted this long clears what was held against the server, in milliseconds.
const STABLE_MS: Ms = 10_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Not started, or stopped.
    Off,
    Waiting {
        until: Ms,
    },
    /// The transport is being opened; then HELLO is out.
    Handshaking {
        deadline: Ms,
        hello_sent: bool,
    },
    Online {
        since: Ms,
    },
}

/// The connection, or the wait for one.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) phase: Phase,
    pub(super) connection: u64,
    backoff: Backoff,
    /// The last connection was ended by a code: WELCOME alone does not clear the backoff.
    ended_by_code: bool,
    refresh_token: bool,
    /// ERROR about the connection itself, which comes before its close.
    last_word: Option<(u16, u32)>,
    /// When to leave a node that is going away.
    leave_at: Option<Ms>,
    pub(super) heartbeat: Heartbeat,
    pub(super) credit: Credit,
    pub(super) limits: Limits,
}

impl Link {
    pub(super) fn new(config: &Config) -> Link {
        Link {
            phase: Phase::Off,
            connection: 0,
            backoff: Backoff::new(config.reconnect_base_ms, config.reconnect_cap_ms),
            ended_by_code: false,
            refresh_token: false,
            last_word: None,
            leave_at: None,
            heartbeat: Heartbeat::new(0),
            credit: Credit::new(config.credit_bytes),
            limits: Limits::default(),
        }
    }

    pub(super) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// Whether new sends may go out: not to a node that is leaving.
    pub(super) fn takes_sends(&self) -> bool {
        self.is_online() && self.leave_at.is_none()
    }

    pub(super) fn next_at(&self) -> Option<Ms> {
        match self.phase {
            Phase::Off => None,
            Phase::Waiting { until } => Some(until),
            Phase::Handshaking { deadline, .. } => Some(deadline),
            Phase::Online { .. } => {
                let beat = self.heartbeat.next_at();
                Some(self.leave_at.map_or(beat, |at| at.min(beat)))
            }
        }
    }

    fn is_current(&self, connection: u64) -> bool {
        connection == self.connection
            && matches!(self.phase, Phase::Handshaking { .. } | Phase::Online { .. })
    }
}

impl Core {
    pub(super) fn on_start(&mut self, now: Ms) {
        if self.link.phase == Phase::Off {
            self.link.backoff.succeeded();
            self.connect(now);
        }
    }

    pub(super) fn on_hurry(&mut self, now: Ms) {
        if let Phase::Waiting { .. } = self.link.phase {
            self.connect(now);
        }
    }

    /// A connection that is up is asked at once whether it still is. One that is being opened goes by addresses that are
    /// not ours any more: another one takes its place.
    pub(super) fn on_network_changed(&mut self, now: Ms) {
        match self.link.phase {
            Phase::Off => {}
            Phase::Waiting { .. } => self.connect(now),
            Phase::Online { .. } => self.link.heartbeat.probe(now),
            Phase::Handshaking { .. } => {
                self.out.link.push(LinkCommand::Close {
                    connection: self.link.connection,
                    code: Code::GoingAway,
                    what: "the network changed",
                });
                self.end_connection();
                self.connect(now);
            }
        }
    }

    fn connect(&mut self, now: Ms) {
        self.link.connection += 1;
        self.link.phase = Phase::Handshaking {
            deadline: now + HANDSHAKE_MAX_MS,
            hello_sent: false,
        };
        self.link.last_word = None;
        self.link.leave_at = None;
        self.link.heartbeat = Heartbeat::new(now);
        self.link.credit = Credit::new(self.config.credit_bytes);
        self.out.link.push(LinkCommand::Connect {
            connection: self.link.connection,
            refresh_token: std::mem::take(&mut self.link.refresh_token),
        });
        self.say_connection(ConnectionState::Connecting);
    }

    pub(super) fn on_connected(&mut self, now: Ms, connection: u64, token: String) {
        if !self.link.is_current(connection) {
            return;
        }
        let Phase::Handshaking {
            deadline,
            hello_sent: false,
        } = self.link.phase
        else {
            return;
        };
        self.link.phase = Phase::Handshaking {
            deadline,
            hello_sent: true,
        };
        self.link.heartbeat = Heartbeat::new(now);
        self.say_hello(token);
    }

    /// WELCOME is here.
    pub(super) fn on_online(&mut self, now: Ms, limits: Limits) {
        self.link.phase = Phase::Online { since: now };
        self.link
            .heartbeat
            .announced(now, limits.heartbeat_ms, limits.silence_max_ms);
        self.link.limits = limits;
        if !self.link.ended_by_code {
            self.link.backoff.succeeded();
        }
        self.say_connection(ConnectionState::Online);
    }

    /// HELLO is out and WELCOME is not here.
    pub(super) fn is_handshaking(&self) -> bool {
        matches!(
            self.link.phase,
            Phase::Handshaking {
                hello_sent: true,
                ..
            }
        )
    }

    pub(super) fn is_current(&self, connection: u64) -> bool {
        self.link.is_current(connection)
    }

    /// Timers of the connection.
    pub(super) fn pump_link(&mut self, now: Ms) {
        match self.link.phase {
            Phase::Off => {}
            Phase::Waiting { until } => {
                if now >= until {
                    self.connect(now);
                }
            }
            Phase::Handshaking { deadline, .. } => {
                if now >= deadline {
                    self.drop_connection(now, Code::HelloTimeout, "no WELCOME in time");
                }
            }
            Phase::Online { .. } => self.pump_online(now),
        }
    }

    fn pump_online(&mut self, now: Ms) {
        if self.link.leave_at.is_some_and(|at| now >= at) {
            self.put(&ClientFrame::Goodbye);
            self.drop_connection(now, Code::GoingAway, "the node is leaving");
            return;
        }
        match self.link.heartbeat.due(now) {
            Some(Beat::Ping { nonce }) => self.put(&ClientFrame::Ping { nonce }),
            Some(Beat::Dead) => self.drop_connection(now, Code::IdleTimeout, "silence"),
            None => {}
        }
    }

    /// ERROR that is about no request: the word before a close.
    pub(super) fn on_last_word(&mut self, error: &ErrorFrame) {
        self.link.last_word = Some((error.code.number(), error.retry_after_ms));
    }

    pub(super) fn on_goaway(
        &mut self,
        now: Ms,
        delay_min_ms: u32,
        delay_max_ms: u32,
        endpoints: Vec<String>,
    ) {
        self.out.link.push(LinkCommand::Elsewhere { endpoints });
        let delay = self
            .jitter
            .between(delay_min_ms.into(), delay_max_ms.into());
        self.link.leave_at = Some(now + delay.min(ADVICE_MAX_MS));
    }

    pub(super) fn on_auth_expiring(&mut self) {
        self.out.link.push(LinkCommand::RefreshToken {
            connection: self.link.connection,
        });
    }

    pub(super) fn on_token_refreshed(&mut self, connection: u64, token: String) {
        if self.link.is_online() && self.link.is_current(connection) {
            let request = self.requests.ask(Asked::AuthRefresh);
            self.put(&ClientFrame::AuthRefresh { request, token });
        }
    }

    pub(super) fn on_token_rejected(&mut self, connection: u64) {
        if self.link.is_current(connection) {
            self.stop(Code::Unauthenticated, StopReason::LoggedOut);
        }
    }

    /// The transport says that it is closed.
    pub(super) fn on_closed(&mut self, now: Ms, connection: u64, code: Option<u16>) {
        if self.link.is_current(connection) {
            self.lost(now, code);
        }
    }

    /// We end this connection, and connect again.
    pub(super) fn drop_connection(&mut self, now: Ms, code: Code, what: &'static str) {
        let frames = self.frames.take();
        self.out.link.push(LinkCommand::Close {
            connection: self.link.connection,
            code,
            what,
        });
        self.lost(now, None);
        // Only silence and farewells are no reason to come back more slowly each time.
        self.link.ended_by_code = !matches!(
            code,
            Code::GoingAway | Code::IdleTimeout | Code::HelloTimeout
        );
        // What was said before leaving (GOODBYE) still goes out; the driver writes frames before it closes.
        self.out.frames.extend(frames);
    }

    fn lost(&mut self, now: Ms, close_code: Option<u16>) {
        let word = self.link.last_word.take();
        // The close decides; the word before it stands in where the close's number did not arrive.
        let code = close_code
            .filter(|code| PROTOCOL_CODES.contains(code))
            .or(word.map(|(code, _)| code))
            .or(close_code);
        let advised_ms = word.map_or(0, |(_, retry_after_ms)| retry_after_ms).into();
        if let Phase::Online { since } = self.link.phase
            && now >= since + STABLE_MS
        {
            self.link.backoff.succeeded();
        }
        let leave_at = self.link.leave_at.take();
        self.end_connection();

        self.link.ended_by_code = code.is_some_and(|code| PROTOCOL_CODES.contains(&code));
        match code.map(Advice::of) {
            Some(Advice::Stop) => {
                let code = code.and_then(Code::nearest).unwrap_or(Code::Flooding);
                return self.stopped(StopReason::Ended(code));
            }
            // Another connection of this device works in our place: two would take turns for ever.
            _ if code == Some(Code::SessionReplaced.number()) => {
                return self.stopped(StopReason::Ended(Code::SessionReplaced));
            }
            Some(Advice::FixRequest) if code == Some(Code::UnsupportedVersion.number()) => {
                return self.stopped(StopReason::UnsupportedVersion);
            }
            Some(Advice::Authenticate) => self.link.refresh_token = true,
            Some(Advice::Afresh) => self.forget(),
            _ => {}
        }
        let until = match leave_at {
            Some(at) => at.max(now),
            None => now + self.link.backoff.failed(advised_ms, &mut self.jitter),
        };
        self.link.phase = Phase::Waiting { until };
        self.say_connection(ConnectionState::Offline {
            retry_in_ms: until - now,
            code,
        });
    }

    /// Nothing of the connection is left; what it did not finish waits for the next one.
    fn end_connection(&mut self) {
        self.frames.clear();
        self.aliases = AliasBook::default();
        self.cursors.clear();
        self.outbox_changed.extend(self.outbox.on_disconnected());
        for asked in self.requests.clear() {
            if let Asked::Older { ticket, .. } | Asked::Range { ticket, .. } = asked {
                self.answer(ticket, Outcome::Offline);
            }
        }
        self.sync.on_disconnected();
        self.gaps.clear();
        for channel in self.channels.values_mut() {
            channel.on_disconnected();
        }
    }

    /// Everything that came from the server is void; what is still to be sent is not.
    pub(super) fn forget(&mut self) {
        for channel in std::mem::take(&mut self.channels).into_keys() {
            self.out.events.push(Event::ChannelReset { channel });
        }
        self.changed.clear();
        self.gaps.clear();
        self.marks_due.clear();
        for item in std::mem::take(&mut self.unplaced).into_values() {
            self.out.persist.push(Persist::OutboxRemoved(item.id));
            self.outbox_changed.insert(item.channel);
        }
        self.meta.generation = 0;
        self.meta.sync_token.clear();
        self.meta.listing = Default::default();
        self.out.persist.push(Persist::Forget);
        self.save_meta();
    }

    pub(super) fn on_stop(&mut self) {
        if self.link.is_online() {
            self.put(&ClientFrame::Goodbye);
        }
        self.stop(Code::GoingAway, StopReason::Closed);
    }

    pub(super) fn stop(&mut self, code: Code, reason: StopReason) {
        let frames = self.frames.take();
        if let Phase::Handshaking { .. } | Phase::Online { .. } = self.link.phase {
            self.out.link.push(LinkCommand::Close {
                connection: self.link.connection,
                code,
                what: "stopped",
            });
        }
        self.end_connection();
        self.stopped(reason);
        self.out.frames.extend(frames);
    }

    fn stopped(&mut self, reason: StopReason) {
        self.link.phase = Phase::Off;
        self.say_connection(ConnectionState::Stopped(reason));
    }

    fn say_connection(&mut self, state: ConnectionState) {
        self.out.events.push(Event::Connection(state));
    }

    pub(super) fn answer(&mut self, ticket: u64, outcome: Outcome) {
        self.out.answers.push(Answer { ticket, outcome });
    }

    pub(super) fn save_meta(&mut self) {
        self.out.persist.push(Persist::Meta(self.meta.clone()));
    }
}
