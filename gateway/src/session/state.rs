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

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use conch_router::{
    ChannelView, HistoryRequest, HistoryRows, Published, Push, Refused, SendItem, SendRequest,
    SyncRows,
};
use conch_wire::event::check_send_tail;
use conch_wire::frame::{
    ChannelHead, ChannelOpened, ClientFrame, Cursor, ErrorFrame, FrameHeader, Hello, History,
    HistoryPage, Limits, PushMode, Send, ServerFrame, SyncChanges, SyncRow, Welcome, frame_type,
    put_history_page,
};
use conch_wire::limits;
use conch_wire::{Alias, ChannelId, Code, Seq, SessionId};
use smallvec::SmallVec;

use super::channels::{Channels, OpenOutcome, Opening, Stage};
use super::effect::{Admission, Answer, Effect, Ending, Identity, PageFor, ViewFor};
use super::outbound::Outbound;
use super::sync_token::{InboxIdentity, SyncPlace};
use crate::bucket::{Bucket, Rate};
use crate::hub::UserBudget;

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
/// Refusals for going too fast, before the connection is closed as a flood.
const STRIKES: Rate = Rate {
    per_s: 1,
    burst: 50,
};
/// Frame bytes per unit of cost, on top of one per frame.
const COST_BYTES: usize = 8_192;

/// What every session of a node shares.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    pub node: String,
    pub inbox: InboxIdentity,
    pub group_members_max: usize,
    /// Messages of a user, on all connections here.
    pub sends: Rate,
    /// Frames of a connection, by cost.
    pub frames: Rate,
}

impl SessionConfig {
    /// The limits as WELCOME and `/v1/node` announce them.
    pub fn limits(&self) -> Limits {
        Limits {
            text_chars_max: limits::TEXT_CHARS_MAX as u32,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX as u32,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            pushed_body_bytes_max: limits::PUSHED_BODY_BYTES_MAX as u32,
            send_many_items_max: limits::SEND_MANY_ITEMS_MAX as u32,
            send_many_bytes_max: limits::SEND_MANY_BYTES_MAX as u32,
            sends_in_flight_max: limits::SENDS_IN_FLIGHT_MAX as u32,
            requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX as u32,
            history_items_max: limits::HISTORY_ITEMS_MAX as u32,
            history_bytes_max: limits::HISTORY_BYTES_MAX as u32,
            sync_rows_max: limits::SYNC_ROWS_MAX as u32,
            group_members_max: self.group_members_max as u32,
            heartbeat_ms: limits::HEARTBEAT_MS,
            silence_max_ms: limits::SILENCE_MAX_MS,
        }
    }
}

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

    fn on_hello(&mut self, mut hello: Hello) {
        if hello.cursors.len() > limits::HELLO_CURSORS_MAX
            || hello.pending.len() > limits::HELLO_PENDING_MAX
        {
            return self.end(
                Code::TooLarge,
                frame_type::HELLO,
                "too many cursors or pending sends",
            );
        }
        self.phase = Phase::Deciding(Box::new(Wanted {
            cursors: std::mem::take(&mut hello.cursors),
            sync: SyncPlace::from_token(&hello.sync_token, self.config.inbox),
            push: hello.push,
            credit_bytes: hello.credit_bytes,
        }));
        self.effects.push(Effect::Admit(Box::new(hello)));
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

    fn on_send(
        &mut self,
        now_ms: u64,
        frame_type: u8,
        request: u32,
        sends: &[Send<'_>],
        chunk: &Bytes,
    ) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(channel) = sends
            .first()
            .and_then(|first| live.channels.channel_of(first.alias))
            .filter(|_| sends.iter().all(|s| s.alias == sends[0].alias))
        else {
            return self.refuse(request, frame_type, Code::BadAlias, "the alias is not open");
        };
        for (item, send) in sends.iter().enumerate() {
            if let Err(error) = check_send_tail(send.kind, send.flags, send.tail) {
                let refused = Refused {
                    code: error.code,
                    retry_after_ms: 0,
                    item: item as u16,
                    detail: error.what,
                };
                return self.put_refusal(request, frame_type, &refused);
            }
        }
        if live.sends_in_flight >= limits::SENDS_IN_FLIGHT_MAX {
            return self.refuse_flood(now_ms, request, frame_type, 50);
        }
        if let Some(budget) = &live.budget {
            let taken = budget.lock().unwrap_or_else(PoisonError::into_inner).take(
                self.config.sends,
                sends.len() as u32,
                now_ms,
            );
            if let Err(retry_after_ms) = taken {
                return self.refuse_flood(now_ms, request, frame_type, retry_after_ms);
            }
        }
        live.sends_in_flight += 1;
        let items: SmallVec<[SendItem; 1]> = sends
            .iter()
            .map(|send| SendItem {
                key: send.key,
                kind: send.kind,
                flags: send.flags,
                tail: keep(send.tail, chunk),
            })
            .collect();
        self.effects.push(Effect::Send(SendRequest {
            session: self.id,
            user: live.identity.user,
            device: live.identity.device,
            request,
            frame_type,
            channel,
            items,
        }));
    }

    fn on_open(&mut self, request: u32, cursor: &Cursor) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match live.channels.open(cursor, request, 0) {
            Ok(OpenOutcome::Started) => live.opens.push_back(cursor.channel),
            Ok(OpenOutcome::Joined) => {}
            Err(code) => self.refuse(
                request,
                frame_type::OPEN_CHANNEL,
                code,
                "the alias may not be used",
            ),
        }
    }

    fn on_close_channel(&mut self, alias: Alias) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match live.channels.channel_of(alias) {
            Some(channel) => self.close_channel(channel),
            None => self.refuse(
                0,
                frame_type::CLOSE_CHANNEL,
                Code::BadAlias,
                "the alias is not open",
            ),
        }
    }

    /// Ends an alias. An opening that was under way is answered, and what it held collapses.
    fn close_channel(&mut self, channel: ChannelId) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(opening) = live.channels.close(channel).and_then(|open| open.opening) else {
            return;
        };
        self.abandon(channel, &opening, &CLOSED_EARLY);
    }

    /// Answers the waiters of an opening that leads nowhere.
    fn abandon(&mut self, channel: ChannelId, opening: &Opening, refused: &Refused) {
        if let Phase::Live(live) = &mut self.phase
            && opening.hello
        {
            live.hello_opens -= 1;
        }
        for waiter in &opening.waiters {
            let refused = Refused {
                item: waiter.item,
                ..*refused
            };
            self.put_refusal(waiter.request, frame_type::OPEN_CHANNEL, &refused);
        }
        if opening.overflowed || !opening.held.is_empty() {
            self.out.mark(channel);
        }
    }

    fn on_history(&mut self, request: u32, history: &History) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        if history.to < history.from || history.items_max == 0 {
            let detail = "to is before from, or items_max is 0";
            return self.refuse(request, frame_type::HISTORY, Code::Invalid, detail);
        }
        if live.requests_in_flight >= limits::REQUESTS_IN_FLIGHT_MAX {
            return self.refuse_busy(request, frame_type::HISTORY);
        }
        live.requests_in_flight += 1;
        let items_max = usize::from(history.items_max).min(limits::HISTORY_ITEMS_MAX);
        live.pages.push_back((
            HistoryRequest {
                channel: history.channel,
                from: history.from,
                to: history.to,
                items_max,
                bytes_max: limits::HISTORY_BYTES_MAX,
                newest_first: history.newest_first,
            },
            PageFor::Request(request),
        ));
    }

    fn on_sync(&mut self, request: u32, token: &[u8], rows_max: u16) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        if live.requests_in_flight >= limits::REQUESTS_IN_FLIGHT_MAX {
            return self.refuse_busy(request, frame_type::SYNC);
        }
        live.requests_in_flight += 1;
        let rows_max = match usize::from(rows_max) {
            0 => limits::SYNC_ROWS_MAX,
            asked => asked.min(limits::SYNC_ROWS_MAX),
        };
        self.effects.push(Effect::Sync {
            request,
            place: SyncPlace::from_token(token, self.config.inbox),
            rows_max,
        });
    }

    /// Something from an owner.
    pub fn on_push(&mut self, push: Push) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match push {
            Push::Acked { request, acks } => {
                live.sends_in_flight = live.sends_in_flight.saturating_sub(1);
                self.out.put(&ServerFrame::SendAck {
                    request,
                    acks: acks.into_vec(),
                });
            }
            Push::Refused {
                request,
                frame_type,
                refused,
            } => self.on_send_refused(request, frame_type, &refused),
            Push::Event(event) => self.on_event(event),
            Push::Head(head) => self.out.put(&ServerFrame::ChannelHead(head)),
            Push::Close(code) => self.end(code, 0, code.name()),
        }
    }

    /// A send was refused, by its owner or on the way to it.
    pub fn on_send_refused(&mut self, request: u32, frame_type: u8, refused: &Refused) {
        if let Phase::Live(live) = &mut self.phase {
            live.sends_in_flight = live.sends_in_flight.saturating_sub(1);
            self.put_refusal(request, frame_type, refused);
        }
    }

    /// Events of these channels were dropped on the way here.
    pub fn on_collapsed(&mut self, channels: &[ChannelId], left: &[ChannelId], all: bool) {
        for channel in channels {
            self.out.mark(*channel);
        }
        if all {
            self.out.mark_all();
        }
        for channel in left {
            self.close_channel(*channel);
        }
    }

    fn on_event(&mut self, event: Arc<Published>) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let channel = event.channel;
        let left = event.left.contains(&live.identity.user);
        // Its sender gets the ack in its place.
        let own = event.origin == Some(self.id);
        match live.channels.get_mut(channel) {
            Some(open) => {
                if let Some(opening) = &mut open.opening {
                    opening.left |= left;
                    if !own {
                        opening.hold(event);
                    }
                    return;
                }
                if !own {
                    self.out.put_event(channel, open.alias, &event.body);
                }
                if left {
                    live.channels.close(channel);
                }
            }
            None if own => {}
            None => match live.push {
                PushMode::Opened => self.out.owe_head(channel),
                PushMode::All if !self.out.has_credit() || self.out.is_marked(channel) => {
                    self.out.mark(channel);
                }
                PushMode::All => {
                    live.channels.open_for_push(event, left);
                    live.opens.push_back(channel);
                }
            },
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

    fn on_not_admitted(&mut self, refused: &Refused) {
        self.put_refusal(0, frame_type::HELLO, refused);
        self.ending.get_or_insert(Ending {
            code: Some(refused.code),
            detail: refused.detail,
        });
    }

    fn on_admitted(&mut self, now_ms: u64, admission: Admission) {
        let before = std::mem::replace(
            &mut self.phase,
            Phase::AwaitHello {
                deadline_ms: now_ms,
            },
        );
        let Phase::Deciding(wanted) = before else {
            return self.end(Code::InternalError, 0, "admitted without HELLO");
        };
        self.out.set_credit(wanted.credit_bytes);
        self.out.put(&ServerFrame::Welcome(Box::new(Welcome {
            minor: 0,
            features: 0,
            session: self.id,
            user: admission.identity.user,
            device: admission.identity.device,
            time_ms: admission.wall_ms,
            generation: self.config.inbox.generation,
            inbox_position: admission.inbox_position,
            limits: self.config.limits(),
            pending: admission.pending,
            resumed: wanted.sync != SyncPlace::Fresh,
            node: self.config.node.clone(),
        })));
        let mut live = Live {
            identity: admission.identity,
            push: wanted.push,
            channels: Channels::default(),
            sends_in_flight: 0,
            requests_in_flight: 0,
            small_running: 0,
            opens: VecDeque::new(),
            views_running: 0,
            pages: VecDeque::new(),
            pages_running: 0,
            hello_opens: 0,
            first_sync: Some(wanted.sync),
            retry_heads_ms: 0,
            expiring_told: false,
            inbox_position: admission.inbox_position,
            budget: None,
        };
        let mut refused = Vec::new();
        for (item, cursor) in wanted.cursors.iter().enumerate() {
            match live.channels.open(cursor, 0, item as u16) {
                Ok(OpenOutcome::Started) => {
                    live.opens.push_back(cursor.channel);
                    live.hello_opens += 1;
                    if let Some(opening) = live
                        .channels
                        .get_mut(cursor.channel)
                        .and_then(|open| open.opening.as_mut())
                    {
                        opening.hello = true;
                    }
                }
                Ok(OpenOutcome::Joined) => {}
                Err(code) => refused.push((item as u16, code)),
            }
        }
        self.phase = Phase::Live(Box::new(live));
        for (item, code) in refused {
            let refused = Refused {
                code,
                retry_after_ms: 0,
                item,
                detail: "the alias may not be used",
            };
            self.put_refusal(0, frame_type::OPEN_CHANNEL, &refused);
        }
    }

    /// A channel that is being opened, as its owner sees it.
    fn on_view(&mut self, channel: ChannelId, result: Result<ChannelView, Refused>) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(open) = live.channels.get_mut(channel) else {
            return;
        };
        let alias = open.alias;
        let Some(opening) = open.opening.as_mut().filter(|o| o.stage == Stage::View) else {
            return;
        };
        let view = match result {
            Ok(view) => view,
            Err(refused) => {
                if let Some(opening) = live.channels.close(channel).and_then(|o| o.opening) {
                    self.abandon(channel, &opening, &refused);
                }
                return;
            }
        };
        let generation = self.config.inbox.generation;
        let waiters = std::mem::take(&mut opening.waiters);
        let mut gap_from: Option<Seq> = None;
        if waiters.is_empty() {
            self.out.put(&opened_frame(0, alias, &view, false));
        } else {
            opening.covered = view.head.head_seq;
        }
        for waiter in &waiters {
            let resync = waiter.generation != 0
                && (waiter.generation != generation || waiter.seq > view.head.head_seq);
            self.out
                .put(&opened_frame(waiter.request, alias, &view, resync));
            if waiter.generation == generation && waiter.seq > 0 && !resync {
                let from = (waiter.seq + 1).max(view.first_seq);
                gap_from = Some(gap_from.map_or(from, |other| other.min(from)));
            }
        }
        let head_seq = view.head.head_seq;
        // A longer gap, or one without credit, is the client's to fetch: it has the head from CHANNEL_OPENED.
        if let Some(from) = gap_from
            && from <= head_seq
            && head_seq - from < limits::GAP_STREAMED_MAX
            && self.out.has_credit()
            && !self.out.is_marked(channel)
        {
            opening.stage = Stage::Gap { to: head_seq };
            live.pages
                .push_back((gap_request(channel, from, head_seq), PageFor::Gap));
            return;
        }
        self.finish_opening(channel);
    }

    /// A page of the gap of a channel that is being opened.
    fn on_gap(&mut self, request: &HistoryRequest, result: Result<HistoryRows, Refused>) {
        let channel = request.channel;
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(open) = live.channels.get_mut(channel) else {
            return;
        };
        let streaming = open
            .opening
            .as_ref()
            .is_some_and(|o| o.stage == Stage::Gap { to: request.to });
        if !streaming {
            return;
        }
        match result {
            Ok(rows) => {
                let sent_all = rows
                    .bodies
                    .iter()
                    .all(|body| self.out.put_event(channel, open.alias, body));
                if sent_all && rows.covered_to >= rows.covered_from && rows.covered_to < request.to
                {
                    let next = gap_request(channel, rows.covered_to + 1, request.to);
                    live.pages.push_back((next, PageFor::Gap));
                    return;
                }
            }
            Err(_) => self.out.mark(channel),
        }
        self.finish_opening(channel);
    }

    /// Everything asked for is written: what was held follows, and events flow from here on.
    fn finish_opening(&mut self, channel: ChannelId) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(open) = live.channels.get_mut(channel) else {
            return;
        };
        let Some(opening) = open.opening.take() else {
            return;
        };
        for event in &opening.held {
            if event.seq > opening.covered {
                self.out.put_event(channel, open.alias, &event.body);
            }
        }
        if opening.overflowed {
            self.out.mark(channel);
        }
        if opening.hello {
            live.hello_opens -= 1;
        }
        if !opening.left && !opening.waiters.is_empty() {
            // Asked again while the gap was streamed: answered by a view of its own.
            let mut again = Box::new(Opening::queued());
            again.waiters = opening.waiters;
            open.opening = Some(again);
            live.opens.push_back(channel);
            return;
        }
        if opening.left {
            live.channels.close(channel);
            let rest = Opening {
                waiters: opening.waiters,
                ..Opening::queued()
            };
            self.abandon(channel, &rest, &CLOSED_EARLY);
        }
    }

    fn on_head(&mut self, now_ms: u64, channel: ChannelId, result: Result<ChannelView, Refused>) {
        match result {
            Ok(view) => self.out.put(&ServerFrame::ChannelHead(view.head)),
            // Not this user's channel: there is nothing to tell.
            Err(refused) if matches!(refused.code, Code::NotFound | Code::Forbidden) => {}
            Err(_) => {
                self.out.owe_head(channel);
                if let Phase::Live(live) = &mut self.phase {
                    live.retry_heads_ms = now_ms + HEAD_RETRY_MS;
                }
            }
        }
    }

    fn on_page(
        &mut self,
        request: u32,
        asked: &HistoryRequest,
        result: Result<HistoryRows, Refused>,
    ) {
        match result {
            Ok(rows) => {
                let page = HistoryPage {
                    channel: asked.channel,
                    generation: self.config.inbox.generation,
                    covered_from: rows.covered_from,
                    covered_to: rows.covered_to,
                    first_seq: rows.first_seq,
                    head_seq: rows.head_seq,
                    events: Vec::new(),
                };
                self.out
                    .write(|out| put_history_page(out, request, &page, &rows.bodies));
            }
            Err(refused) => self.put_refusal(request, frame_type::HISTORY, &refused),
        }
    }

    fn on_sync_page(&mut self, request: u32, place: SyncPlace, result: Result<SyncRows, Refused>) {
        match result {
            Ok(rows) => {
                let (next, more) = place.after_page(&rows);
                self.out.put(&ServerFrame::SyncChanges {
                    request,
                    changes: SyncChanges {
                        reset: place == SyncPlace::Fresh,
                        more,
                        token: next.to_token(self.config.inbox),
                        rows: rows.rows.into_iter().map(sync_row).collect(),
                    },
                });
            }
            Err(refused) => {
                self.put_refusal(request, frame_type::SYNC, &refused);
                if request == 0 {
                    // The page after WELCOME has nobody who asks again.
                    self.out.mark_all();
                }
            }
        }
    }

    fn on_reauthenticated(&mut self, now_ms: u64, request: u32, result: Result<Identity, Refused>) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match result {
            Ok(fresh)
                if fresh.user == live.identity.user && fresh.device == live.identity.device =>
            {
                live.identity = fresh;
                live.expiring_told = false;
                self.out.put(&ServerFrame::AuthRefreshed {
                    request,
                    expires_in_ms: millis(fresh.expires_ms.saturating_sub(now_ms)),
                });
            }
            Ok(_) => self.refuse(
                request,
                frame_type::AUTH_REFRESH,
                Code::Unauthenticated,
                "the token is for another user or device",
            ),
            Err(refused) => self.put_refusal(request, frame_type::AUTH_REFRESH, &refused),
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
                    .get_mut(channel)
                    .and_then(|open| open.opening.as_mut())
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

    // ---- refusals ----

    fn refuse(&mut self, request: u32, refused_type: u8, code: Code, detail: &'static str) {
        let refused = Refused {
            code,
            retry_after_ms: 0,
            item: 0,
            detail,
        };
        self.put_refusal(request, refused_type, &refused);
    }

    fn refuse_busy(&mut self, request: u32, refused_type: u8) {
        let refused = Refused {
            code: Code::RateLimited,
            retry_after_ms: 50,
            item: 0,
            detail: "too many requests in flight",
        };
        self.put_refusal(request, refused_type, &refused);
    }

    fn refuse_flood(&mut self, now_ms: u64, request: u32, refused_type: u8, retry_after_ms: u32) {
        let refused = Refused {
            code: Code::RateLimited,
            retry_after_ms,
            item: 0,
            detail: "too many requests",
        };
        self.put_refusal(request, refused_type, &refused);
        self.strike(now_ms, refused_type);
    }

    fn strike(&mut self, now_ms: u64, refused_type: u8) {
        if self.strikes.take(STRIKES, 1, now_ms).is_err() {
            self.end(
                Code::Flooding,
                refused_type,
                "the flood went on after refusals",
            );
        }
    }

    fn put_refusal(&mut self, request: u32, refused_type: u8, refused: &Refused) {
        self.out.put(&ServerFrame::Error {
            request,
            error: ErrorFrame {
                code: refused.code,
                retry_after_ms: refused.retry_after_ms,
                refused_type,
                item: refused.item,
                detail: refused.detail.to_owned(),
            },
        });
    }
}

const CLOSED_EARLY: Refused = Refused {
    code: Code::Conflict,
    retry_after_ms: 0,
    item: 0,
    detail: "closed before it was open",
};

/// What a frame costs beyond its bytes.
fn extra_cost(frame: &ClientFrame<'_>) -> u32 {
    match frame {
        ClientFrame::History { .. } | ClientFrame::Sync { .. } => 4,
        ClientFrame::OpenChannel { .. } | ClientFrame::Read { .. } => 1,
        ClientFrame::AuthRefresh { .. } => 2,
        _ => 0,
    }
}

/// A tail that outlives its frame. Small ones are copied: a slice would pin the whole read buffer until the commit.
fn keep(tail: &[u8], chunk: &Bytes) -> Bytes {
    const COPIED_MAX: usize = 2_048;
    if tail.is_empty() {
        Bytes::new()
    } else if tail.len() <= COPIED_MAX {
        Bytes::copy_from_slice(tail)
    } else {
        chunk.slice_ref(tail)
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

fn gap_request(channel: ChannelId, from: Seq, to: Seq) -> HistoryRequest {
    HistoryRequest {
        channel,
        from,
        to,
        items_max: limits::GAP_STREAMED_MAX as usize,
        bytes_max: limits::HISTORY_BYTES_MAX,
        newest_first: false,
    }
}

fn opened_frame(request: u32, alias: Alias, view: &ChannelView, resync: bool) -> ServerFrame {
    ServerFrame::ChannelOpened {
        request,
        opened: ChannelOpened {
            alias,
            head: view.head,
            kind: view.kind,
            title: view.title.clone(),
            peer: view.peer,
            first_seq: view.first_seq,
            resync,
        },
    }
}

fn sync_row(row: conch_store::InboxRow) -> SyncRow {
    SyncRow {
        head: ChannelHead {
            channel: row.channel,
            head_seq: row.head.seq,
            head_ordinal: row.head.ordinal,
            read_seq: row.member.read_seq,
            read_ordinal: row.member.read_ordinal,
            mentions: 0,
        },
        kind: row.meta.kind,
        title: row.meta.title,
        peer: row.peer,
        first_seq: row.member.visible_from,
        left_seq: row.member.left_seq,
        role: row.member.role,
    }
}

fn millis(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
