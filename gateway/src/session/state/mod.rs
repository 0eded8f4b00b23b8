//! The pure half of a session: what a device may say, and what it is told.
//!
//! Inputs are frames, pushes from owners, answers to effects and the time; outputs are frames in an [`Outbound`] and
//! [`Effect`]s for the driver ([`super::task`]). No IO, no clock, no randomness.
//!
//! Invariants:
//! * Nothing but HELLO is looked at before the token was accepted; nothing behind HELLO before it was decided.
//! * Every request has exactly one answer, a refusal being an ERROR with its code; refusals are certain.
//! * Events of a channel follow its CHANNEL_OPENED; what is not sent leaves a mark, and every mark leads to a head.
//! * Work under way is bounded: [`Session::may_read`] says when to stop reading, [`Session::pump`] starts only what the
//!   connection can take.

mod config;
mod handshake;
mod openings;
mod pushes;
mod refusals;
mod requests;
mod sending;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use conch_router::HistoryRequest;
use conch_wire::frame::{
    ClientFrame, Cursor, ErrorFrame, FrameHeader, PushMode, ServerFrame, frame_type,
};
use conch_wire::{ChannelId, Code, SessionId, limits};

use crate::bucket::Bucket;
use crate::hub::UserBudget;
use crate::session::channels::{Channels, Stage};
use crate::session::effect::{Answer, Effect, Ending, Identity, PageFor, ViewFor};
use crate::session::outbound::Outbound;
use crate::session::sync_token::SyncPlace;
use refusals::STRIKES;

pub use config::SessionConfig;

/// Views of channels that are asked for at once.
const VIEWS_RUNNING_MAX: usize = 16;
/// Pages that are read at once: each may be 64 KiB, which counts against what a stalled client may cost.
const PAGES_RUNNING_MAX: usize = 1;
/// Openings that may wait before reading stops; HELLO alone may bring 256.
const OPENS_QUEUED_MAX: usize = 512;
/// READs, PINGs and AUTH_REFRESHes under way before reading stops.
const SMALL_RUNNING_MAX: usize = 32;
/// AUTH_EXPIRING is sent this long before the token ends.
const EXPIRING_BEFORE_MS: u64 = 60_000;
/// The connection is closed this long after the token ended.
const EXPIRY_LEEWAY_MS: u64 = 60_000;
/// A head that could not be read is asked for again after this long.
const HEAD_RETRY_MS: u64 = 1_000;
/// Frame bytes per unit of cost, on top of one per frame.
const COST_BYTES: usize = 8_192;

#[derive(Debug)]
enum Phase {
    /// Until `deadline_ms`.
    AwaitHello {
        deadline_ms: u64,
    },
    /// HELLO is with the driver.
    Deciding(Box<Wanted>),
    Live(Box<Live>),
}

/// What HELLO asked for, kept until it is decided.
#[derive(Debug)]
struct Wanted {
    cursors: Vec<Cursor>,
    sync: SyncPlace,
    push: PushMode,
    credit_bytes: u32,
}

/// What only an accepted session has.
#[derive(Debug)]
struct Live {
    identity: Identity,
    push: PushMode,
    channels: Channels,
    sends_in_flight: usize,
    /// HISTORY and SYNC.
    requests_in_flight: usize,
    /// READ, PING, AUTH_REFRESH.
    small_running: usize,
    opens: VecDeque<ChannelId>,
    views_running: usize,
    pages: VecDeque<(HistoryRequest, PageFor)>,
    pages_running: usize,
    /// Openings of HELLO that the first SYNC_CHANGES waits for.
    hello_opens: usize,
    first_sync: Option<SyncPlace>,
    retry_heads_ms: u64,
    expiring_told: bool,
    /// Last known.
    inbox_position: u64,
    budget: Option<UserBudget>,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    config: Arc<SessionConfig>,
    phase: Phase,
    out: Outbound,
    effects: Vec<Effect>,
    frames: Bucket,
    strikes: Bucket,
    last_byte_ms: u64,
    ending: Option<Ending>,
}

impl Session {
    pub fn new(id: SessionId, config: Arc<SessionConfig>, now_ms: u64) -> Session {
        Session {
            id,
            phase: Phase::AwaitHello {
                deadline_ms: now_ms + u64::from(limits::HELLO_DEADLINE_MS),
            },
            out: Outbound::new(0),
            effects: Vec::new(),
            frames: Bucket::full(config.frames, now_ms),
            strikes: Bucket::full(STRIKES, now_ms),
            last_byte_ms: now_ms,
            ending: None,
            config,
        }
    }

    // ---- what the driver asks ----

    /// The budget that this session shares with others of its user; set before the admission is answered.
    pub fn share_budget(&mut self, budget: UserBudget) {
        if let Phase::Live(live) = &mut self.phase {
            live.budget = Some(budget);
        }
    }

    /// Longest frame to be accepted now.
    pub fn frame_bytes_max(&self) -> usize {
        match self.phase {
            Phase::AwaitHello { .. } => limits::HELLO_BYTES_MAX,
            _ => limits::FRAME_BYTES_MAX,
        }
    }

    /// Whether the next frame may be read and handled. False while HELLO is decided, while the client does not read what
    /// it asked for, and at the end.
    pub fn may_read(&self) -> bool {
        self.ending.is_none()
            && !self.out.is_full()
            && match &self.phase {
                Phase::AwaitHello { .. } => true,
                Phase::Deciding(_) => false,
                Phase::Live(live) => {
                    live.small_running < SMALL_RUNNING_MAX && live.opens.len() < OPENS_QUEUED_MAX
                }
            }
    }

    /// Whether the mailbox may be drained.
    pub fn may_take_pushes(&self) -> bool {
        matches!(self.phase, Phase::Live(_)) && !self.out.is_full()
    }

    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    pub fn identity(&self) -> Option<Identity> {
        match &self.phase {
            Phase::Live(live) => Some(live.identity),
            _ => None,
        }
    }

    /// Set once: the connection is to be closed when what was written is out.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    pub fn outbound(&mut self) -> &mut Outbound {
        &mut self.out
    }

    /// Takes what is to be done.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Session::on_tick`] has something to do at the latest.
    pub fn deadline_ms(&self) -> u64 {
        let idle = self.last_byte_ms + u64::from(limits::SILENCE_MAX_MS);
        match &self.phase {
            Phase::AwaitHello { deadline_ms } => *deadline_ms,
            Phase::Deciding(_) => idle,
            Phase::Live(live) => {
                let auth = if live.expiring_told {
                    live.identity.expires_ms + EXPIRY_LEEWAY_MS
                } else {
                    live.identity.expires_ms.saturating_sub(EXPIRING_BEFORE_MS)
                };
                let heads = if self.out.has_marks() && live.retry_heads_ms > 0 {
                    live.retry_heads_ms
                } else {
                    u64::MAX
                };
                idle.min(auth).min(heads)
            }
        }
    }

    // ---- inputs ----

    /// Bytes came in.
    pub fn on_bytes(&mut self, now_ms: u64) {
        self.last_byte_ms = now_ms;
    }

    /// Something came that holds no frame but costs work: a WebSocket ping.
    pub fn on_control(&mut self, now_ms: u64) {
        if self.frames.take(self.config.frames, 1, now_ms).is_err() {
            self.strike(now_ms, 0);
        }
    }

    /// Ends the connection with an ERROR and a close of the same code. The first ending holds.
    pub fn end(&mut self, code: Code, refused_type: u8, detail: &'static str) {
        if self.ending.is_none() {
            self.out.put(&ServerFrame::Error {
                request: 0,
                error: ErrorFrame {
                    code,
                    retry_after_ms: 0,
                    refused_type,
                    item: 0,
                    detail: detail.to_owned(),
                },
            });
            self.ending = Some(Ending {
                code: Some(code),
                detail,
            });
        }
    }

    /// The node goes away: the client should reconnect within this window.
    pub fn on_goaway(&mut self, delay_min_ms: u32, delay_max_ms: u32) {
        self.out.put(&ServerFrame::Goaway {
            code: Code::GoingAway,
            delay_min_ms,
            delay_max_ms,
            endpoints: Vec::new(),
        });
    }

    /// The time has come to look at deadlines.
    pub fn on_tick(&mut self, now_ms: u64) {
        if now_ms >= self.last_byte_ms + u64::from(limits::SILENCE_MAX_MS) {
            return self.end(Code::IdleTimeout, 0, "nothing was received for 45 s");
        }
        match &mut self.phase {
            Phase::AwaitHello { deadline_ms } if now_ms >= *deadline_ms => {
                self.end(Code::HelloTimeout, 0, "no HELLO within 5 s");
            }
            Phase::Live(live) => {
                let expires_ms = live.identity.expires_ms;
                if now_ms >= expires_ms + EXPIRY_LEEWAY_MS {
                    return self.end(Code::TokenExpired, 0, "the token has expired");
                }
                if !live.expiring_told && now_ms + EXPIRING_BEFORE_MS >= expires_ms {
                    live.expiring_told = true;
                    self.out.put(&ServerFrame::AuthExpiring {
                        expires_in_ms: millis(expires_ms.saturating_sub(now_ms)),
                    });
                }
            }
            _ => {}
        }
    }

    /// One frame. `chunk` is the memory that `body` lies in.
    pub fn on_frame(&mut self, now_ms: u64, header: FrameHeader, body: &[u8], chunk: &Bytes) {
        if matches!(self.phase, Phase::AwaitHello { .. }) && header.frame_type != frame_type::HELLO
        {
            return self.end(
                Code::Unauthenticated,
                header.frame_type,
                "HELLO comes first",
            );
        }
        let frame = match ClientFrame::decode(header, body) {
            Ok(frame) => frame,
            // A breach of the frame level ends the connection; a field out of its range refuses one request.
            Err(error) if self.is_live() && !is_breach(error.code) => {
                return self.refuse(header.reference, header.frame_type, error.code, error.what);
            }
            Err(error) => return self.end(error.code, header.frame_type, error.what),
        };
        match &self.phase {
            Phase::AwaitHello { .. } => match frame {
                ClientFrame::Hello(hello) => self.on_hello(hello),
                _ => self.end(
                    Code::Unauthenticated,
                    header.frame_type,
                    "HELLO comes first",
                ),
            },
            // The driver does not read now; a frame that comes anyway is a broken driver, not a broken client.
            Phase::Deciding(_) => {
                self.end(Code::InternalError, header.frame_type, "read too early")
            }
            Phase::Live(_) => self.on_live_frame(now_ms, header, frame, chunk),
        }
    }

    fn on_live_frame(
        &mut self,
        now_ms: u64,
        header: FrameHeader,
        frame: ClientFrame<'_>,
        chunk: &Bytes,
    ) {
        let cost = 1 + (header.body_len as usize / COST_BYTES) as u32 + extra_cost(&frame);
        if let Err(retry_after_ms) = self.frames.take(self.config.frames, cost, now_ms) {
            // Credit and goodbye are never refused: refusing credit could leave both sides waiting.
            if !matches!(frame, ClientFrame::Credit { .. } | ClientFrame::Goodbye) {
                return self.refuse_flood(
                    now_ms,
                    header.reference,
                    header.frame_type,
                    retry_after_ms,
                );
            }
            self.strike(now_ms, header.frame_type);
        }
        match frame {
            ClientFrame::Hello(_) => {
                self.end(Code::UnexpectedFrame, header.frame_type, "HELLO comes once")
            }
            ClientFrame::Send { request, send } => {
                self.on_send(now_ms, header.frame_type, request, &[send], chunk);
            }
            ClientFrame::SendMany { request, sends } => {
                self.on_send(now_ms, header.frame_type, request, &sends, chunk);
            }
            ClientFrame::OpenChannel { request, cursor } => self.on_open(request, &cursor),
            ClientFrame::CloseChannel { alias } => self.on_close_channel(alias),
            ClientFrame::History { request, history } => self.on_history(request, &history),
            ClientFrame::Sync {
                request,
                token,
                rows_max,
            } => self.on_sync(request, &token, rows_max),
            ClientFrame::Read {
                request,
                channel,
                seq,
            } => {
                self.small(Effect::Read {
                    request,
                    channel,
                    seq,
                });
            }
            ClientFrame::Credit { bytes } => self.out.grant(bytes),
            ClientFrame::Ping { nonce } => self.small(Effect::Position { nonce }),
            ClientFrame::AuthRefresh { request, token } => {
                self.small(Effect::Reauthenticate { request, token });
            }
            ClientFrame::Goodbye => {
                self.ending.get_or_insert(Ending {
                    code: None,
                    detail: "goodbye",
                });
            }
            ClientFrame::Skipped { .. } => {}
        }
    }

    fn small(&mut self, effect: Effect) {
        if let Phase::Live(live) = &mut self.phase {
            live.small_running += 1;
            self.effects.push(effect);
        }
    }

    /// The outcome of an effect.
    pub fn on_answer(&mut self, now_ms: u64, answer: Answer) {
        if let Answer::Decided(result) = answer {
            return match result {
                Ok(admission) => self.on_admitted(now_ms, admission),
                Err(refused) => self.on_not_admitted(&refused),
            };
        }
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match answer {
            Answer::Decided(_) => {}
            Answer::View {
                channel,
                purpose,
                result,
            } => {
                live.views_running -= 1;
                match purpose {
                    ViewFor::Opening => self.on_view(channel, result),
                    ViewFor::Head => self.on_head(now_ms, channel, result),
                }
            }
            Answer::Page {
                request,
                purpose,
                result,
            } => {
                live.pages_running -= 1;
                match purpose {
                    PageFor::Gap => self.on_gap(&request, result),
                    PageFor::Request(id) => {
                        live.requests_in_flight -= 1;
                        self.on_page(id, &request, result);
                    }
                }
            }
            Answer::Sync {
                request,
                place,
                result,
            } => {
                live.requests_in_flight -= 1;
                self.on_sync_page(request, place, result);
            }
            Answer::Read {
                request,
                channel,
                result,
            } => {
                live.small_running -= 1;
                match result {
                    // Every session of the user has the head pushed, this one included.
                    Ok(_) => {}
                    Err(refused) => {
                        if request != 0 {
                            self.put_refusal(request, frame_type::READ, &refused);
                        }
                        if refused.code == Code::OutcomeUnknown {
                            self.out.owe_head(channel);
                        }
                    }
                }
            }
            Answer::Position { nonce, position } => {
                live.small_running -= 1;
                if let Some(position) = position {
                    live.inbox_position = live.inbox_position.max(position);
                }
                let inbox_position = live.inbox_position;
                self.out.put(&ServerFrame::Pong {
                    nonce,
                    inbox_position,
                });
            }
            Answer::Reauthenticated { request, result } => {
                live.small_running -= 1;
                self.on_reauthenticated(now_ms, request, result);
            }
        }
    }

    /// Starts what waits and fits. Called after every batch of inputs and whenever bytes went out.
    pub fn pump(&mut self, now_ms: u64) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        while live.views_running < VIEWS_RUNNING_MAX && !self.out.is_full() {
            if let Some(channel) = live.opens.pop_front() {
                let queued = live
                    .channels
                    .opening_mut(channel)
                    .filter(|opening| opening.stage == Stage::Queued);
                if let Some(opening) = queued {
                    opening.stage = Stage::View;
                    live.views_running += 1;
                    self.effects.push(Effect::View {
                        channel,
                        purpose: ViewFor::Opening,
                    });
                }
                continue;
            }
            if live.retry_heads_ms > now_ms {
                break;
            }
            live.retry_heads_ms = 0;
            let Some(channel) = self.out.next_mark() else {
                break;
            };
            live.views_running += 1;
            self.effects.push(Effect::View {
                channel,
                purpose: ViewFor::Head,
            });
        }
        while live.pages_running < PAGES_RUNNING_MAX && !self.out.is_full() {
            let Some((request, purpose)) = live.pages.pop_front() else {
                break;
            };
            live.pages_running += 1;
            self.effects.push(Effect::Page { request, purpose });
        }
        // A session at rest holds no queues.
        if live.opens.is_empty() {
            live.opens.shrink_to(0);
        }
        if live.pages.is_empty() {
            live.pages.shrink_to(0);
        }
        if live.hello_opens == 0
            && let Some(place) = live.first_sync.take()
        {
            live.requests_in_flight += 1;
            self.effects.push(Effect::Sync {
                request: 0,
                place,
                rows_max: limits::SYNC_ROWS_MAX,
            });
        }
    }
}

/// What a frame costs beyond its bytes.
fn extra_cost(frame: &ClientFrame<'_>) -> u32 {
    match frame {
        ClientFrame::History { .. } | ClientFrame::Sync { .. } => 4,
        ClientFrame::OpenChannel { .. } | ClientFrame::Read { .. } => 1,
        ClientFrame::AuthRefresh { .. } => 2,
        _ => 0,
    }
}

/// Whether a decoding error breaks the connection. The others name a field of one request.
fn is_breach(code: Code) -> bool {
    matches!(
        code,
        Code::BadFrame
            | Code::UnknownFrame
            | Code::UnexpectedFrame
            | Code::TooLarge
            | Code::UnsupportedVersion
    )
}

fn millis(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
