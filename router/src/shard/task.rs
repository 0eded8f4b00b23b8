//! The owner loop: the only place with a loop.
//!
//! Each wake-up drains the whole queue, runs the pure states, and ends with one append for all channels that have
//! something to write, one hand-over of deliveries and one push of everything to the gateway. Nothing in a pass waits:
//! appends, reads and room in other shards' queues come back as [`Completion`]s through the same `select!`.
//!
//! Every call into a channel's state is caught: a panic answers those who wait `outcome_unknown`, drops the state and
//! loads it again when its batch in the log has settled; nobody else notices. A failed append is the end of this
//! process's word: nothing more is acknowledged, and [`Fatal`] tells the program to exit.
//!
//! Shutdown: takes nothing new, refuses what has no place yet (certain), commits and answers the rest, ends.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conch_store::{
    AppendError, Appended, ChannelSnapshot, MessageStore, Range, ReadLimit, Record, Refusal,
};
use conch_wire::{AckFlags, ChannelId, SessionId, UserId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use metrics::{counter, gauge};
use tokio::sync::mpsc;

use super::delivery::{Courier, deliver};
use super::input::{Appending, Completion, Control, Input, PairKey, Reply};
use super::pair::{self, Pairs};
use super::reads::{Reads, Running, read};
use super::slot::{ChannelSlot, Phase, Request, WAITING_MAX};
use crate::channel::outbox::FanOut;
use crate::channel::send::{record_bytes, refuse_send};
use crate::channel::state::ChannelState;
use crate::channel::window::WINDOW_KEYS;
use crate::channel::{Answer, Context, Effects, Known, Lookup, LookupId, PageRead, Rules, Ticket};
use crate::failpoint;
use crate::fence::Fences;
use crate::id::Ids;
use crate::metrics as names;
use crate::refuse;
use crate::router::{Fatal, FatalReport};
use crate::user::state::UserState;
use crate::{HistoryRows, Link, Push, Refused, Registered, Registration, RouterConfig};

/// Deliveries taken from other shards in one pass.
const DELIVERIES_PER_PASS: usize = 4_096;

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) config: RouterConfig,
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) fatal: FatalReport,
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) control: mpsc::UnboundedReceiver<Control>,
    pub(crate) deliveries: mpsc::Receiver<FanOut>,
    /// Queues of deliveries of all shards, this one's included.
    pub(crate) shards: Vec<mpsc::Sender<FanOut>>,
}

/// An owner loop and everything it owns.
pub(crate) struct Shard {
    index: usize,
    config: RouterConfig,
    rules: Rules,
    epoch: u32,
    store: Arc<dyn MessageStore>,
    ids: Arc<Ids>,
    link: Arc<dyn Link>,
    fatal: FatalReport,
    inputs: mpsc::Receiver<Input>,
    control: mpsc::UnboundedReceiver<Control>,
    deliveries: mpsc::Receiver<FanOut>,
    shards: Vec<mpsc::Sender<FanOut>>,

    channels: HashMap<ChannelId, ChannelSlot>,
    users: HashMap<UserId, UserState>,
    fences: Fences,
    pairs: Pairs,
    replies: HashMap<Ticket, (ChannelId, Reply<Answer>)>,
    last_ticket: Ticket,
    last_life: u64,
    /// Requests in front of channels that are being loaded, all together.
    waiting: usize,
    completions: FuturesUnordered<Running>,
    reads: Reads,
    /// Channels to look after at the end of the pass.
    touched: Vec<ChannelId>,
    /// By shard that had no room: the channels whose deliveries wait for it.
    behind: Vec<VecDeque<ChannelId>>,
    room_asked: Vec<bool>,
    effects: Effects,
    appends_in_flight: usize,
    /// Most requests that one pass found since they were last reported.
    deepest_queue: usize,
    started: Instant,
    now_ms: u64,
    /// The store failed: nothing is acknowledged any more.
    failed: bool,
    stopping: bool,
}

impl Shard {
    pub(crate) fn new(parts: Parts) -> Shard {
        let shards = parts.shards.len();
        Shard {
            index: parts.index,
            rules: Rules {
                members_max: parts
                    .config
                    .group_members_max
                    .min(conch_wire::limits::GROUP_MEMBERS_MAX),
                tail_events: parts.config.tail_events.max(1),
                shards,
            },
            epoch: parts.store.identity().epoch,
            config: parts.config,
            store: parts.store,
            ids: parts.ids,
            link: parts.link,
            fatal: parts.fatal,
            inputs: parts.inputs,
            control: parts.control,
            deliveries: parts.deliveries,
            shards: parts.shards,
            channels: HashMap::new(),
            users: HashMap::new(),
            fences: Fences::default(),
            pairs: Pairs::default(),
            replies: HashMap::new(),
            last_ticket: 0,
            last_life: 0,
            waiting: 0,
            completions: FuturesUnordered::new(),
            reads: Reads::default(),
            touched: Vec::new(),
            behind: vec![VecDeque::new(); shards],
            room_asked: vec![false; shards],
            effects: Effects::default(),
            appends_in_flight: 0,
            deepest_queue: 0,
            started: Instant::now(),
            now_ms: 0,
            failed: false,
            stopping: false,
        }
    }

    /// Runs until shutdown. A panic in here stops the process: the caller reports it.
    pub(crate) async fn run(mut self) {
        let mut inputs = Vec::new();
        let mut control = Vec::new();
        let mut deliveries = Vec::new();
        let mut ended = Vec::new();
        let queue_max = self.config.queue_max.max(1);
        let idle = self.config.channel_idle_ms;
        let mut sweep = tokio::time::interval(Duration::from_millis((idle / 4).clamp(5, 30_000)));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut goodbye_possible = true;
        while !self.is_done() {
            let mut sweep_due = false;
            tokio::select! {
                Some(completion) = self.completions.next() => ended.push(completion),
                count = self.control.recv_many(&mut control, usize::MAX), if goodbye_possible => {
                    if count == 0 {
                        // Every handle is gone: the same as being told to stop.
                        goodbye_possible = false;
                        control.push(Control::Shutdown);
                    }
                }
                Some(input) = self.inputs.recv() => inputs.push(input),
                Some(delivery) = self.deliveries.recv() => deliveries.push(delivery),
                _ = sweep.tick() => sweep_due = true,
            }
            // Goodbyes are taken before the requests, and acted upon after them: a session's goodbye was sent behind its
            // registration, so the registration is in what is drained next, and comes first.
            while let Ok(message) = self.control.try_recv() {
                control.push(message);
            }
            while inputs.len() < queue_max
                && let Ok(input) = self.inputs.try_recv()
            {
                inputs.push(input);
            }
            while deliveries.len() < DELIVERIES_PER_PASS
                && let Ok(delivery) = self.deliveries.try_recv()
            {
                deliveries.push(delivery);
            }
            while let Some(Some(completion)) =
                futures_util::FutureExt::now_or_never(self.completions.next())
            {
                ended.push(completion);
            }
            self.now_ms = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64);
            self.on_pass(
                &mut ended,
                &mut inputs,
                &mut deliveries,
                &mut control,
                queue_max,
            );
            if sweep_due {
                self.on_sweep();
            }
        }
    }

    fn on_pass(
        &mut self,
        ended: &mut Vec<Completion>,
        inputs: &mut Vec<Input>,
        deliveries: &mut Vec<FanOut>,
        control: &mut Vec<Control>,
        queue_max: usize,
    ) {
        if inputs.len() * 2 > queue_max {
            tracing::debug!(shard = self.index, depth = inputs.len(), "queue half full");
        }
        self.deepest_queue = self.deepest_queue.max(inputs.len());
        for completion in ended.drain(..) {
            self.on_completion(completion);
        }
        // One word from the store for all that is asked for in this pass.
        let bytes: usize = inputs.iter().map(input_bytes).sum();
        let admission = self.admission(bytes);
        for input in inputs.drain(..) {
            self.on_input(input, admission);
        }
        for delivery in deliveries.drain(..) {
            deliver(&mut self.users, &delivery, &mut self.effects.pushes);
        }
        for message in control.drain(..) {
            self.on_control(message);
        }
        self.finish_pass();
    }

    fn admission(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes == 0 {
            return Ok(());
        }
        self.store.admit(bytes)
    }

    fn is_done(&self) -> bool {
        self.stopping
            && self.appends_in_flight == 0
            && self.behind.iter().all(VecDeque::is_empty)
            && self.touched.is_empty()
    }

    fn on_input(&mut self, input: Input, admission: Result<(), Refusal>) {
        if self.failed || self.stopping {
            let refused = if self.failed {
                refuse::unavailable("the log failed; the node restarts")
            } else {
                refuse::going_away()
            };
            return self.refuse_input(input, refused);
        }
        match input {
            Input::Send(send) => {
                let channel = send.channel;
                self.on_request(channel, Request::Send(send), admission);
            }
            Input::Ask {
                channel,
                ask,
                fence,
                reply,
            } => {
                if let Some((user, session)) = fence {
                    self.fences.raise(user, session);
                }
                self.last_ticket += 1;
                let ticket = self.last_ticket;
                self.replies.insert(ticket, (channel, reply));
                self.on_request(channel, Request::Ask { ask, ticket }, admission);
            }
            Input::Register {
                registration,
                reply,
            } => self.on_register(registration, reply),
            Input::Pair { pair, reply } => {
                if self.pairs.wait(pair, reply) {
                    self.start_pair(pair);
                }
            }
        }
    }

    fn refuse_input(&mut self, input: Input, refused: Refused) {
        match input {
            Input::Send(send) => self.refuse_send(&send, refused),
            Input::Ask { reply, .. } => tell(reply, refused),
            Input::Register { reply, .. } => tell(reply, refused),
            Input::Pair { reply, .. } => tell(reply, refused),
        }
    }

    fn refuse_send(&mut self, send: &crate::SendRequest, refused: Refused) {
        counter!(names::REFUSALS, "code" => refused.code.name()).increment(1);
        refuse_send(send, refused, &mut self.effects);
    }

    fn refuse_request(&mut self, request: Request, refused: Refused) {
        match request {
            Request::Send(send) => self.refuse_send(&send, refused),
            Request::Ask { ticket, .. } => self.answer(ticket, Err(refused)),
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Answer, Refused>) {
        if let Some((_, reply)) = self.replies.remove(&ticket) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }

    fn on_request(&mut self, channel: ChannelId, request: Request, admission: Result<(), Refusal>) {
        if !self.channels.contains_key(&channel) {
            if !self.reads.has_room() {
                let refused = refuse::overloaded("too many channels are being loaded");
                return self.refuse_request(request, refused);
            }
            self.last_life += 1;
            self.channels
                .insert(channel, ChannelSlot::loading(self.last_life));
            self.start_load(channel, self.last_life);
        }
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        if slot.is_quarantined() && request.writes() {
            return self.refuse_request(request, refuse::quarantined());
        }
        match &mut slot.phase {
            Phase::Loading(waiting) | Phase::Settling(waiting) => {
                if waiting.len() >= WAITING_MAX || self.waiting >= self.config.queue_max {
                    let refused = refuse::overloaded("the channel is being loaded");
                    return self.refuse_request(request, refused);
                }
                self.waiting += 1;
                waiting.push_back(request);
                if slot.in_flight.is_none() {
                    self.reload(channel);
                }
            }
            Phase::Loaded(_) => self.handle(channel, request, admission),
        }
    }

    /// Hands a request to a loaded channel.
    fn handle(&mut self, channel: ChannelId, request: Request, admission: Result<(), Refusal>) {
        // Kept aside: a panic takes the request with it, and its sender is still to be answered.
        let waiting = match &request {
            Request::Send(send) => Err((send.session, send.request, send.frame_type)),
            Request::Ask { ticket, .. } => Ok(*ticket),
        };
        let pushes_before = self.effects.pushes.len();
        let is_alive =
            self.with_state(
                channel,
                admission,
                move |state, context, effects| match request {
                    Request::Send(send) => {
                        failpoint::poison(&send);
                        state.on_send(context, send, effects);
                    }
                    Request::Ask { ask, ticket } => state.on_ask(context, ask, ticket, effects),
                },
            );
        if is_alive {
            return;
        }
        let refused = refuse::unknown("the channel failed inside and is loaded again");
        match waiting {
            Ok(ticket) => self.answer(ticket, Err(refused)),
            Err((session, request, frame_type)) => {
                // It may have become one of the state's waiters before the panic, and been answered with them.
                let is_told = self.effects.pushes[pushes_before..]
                    .iter()
                    .any(|(to, push)| *to == session && answers(push, request));
                if !is_told {
                    self.effects.pushes.push((
                        session,
                        Push::Refused {
                            request,
                            frame_type,
                            refused,
                        },
                    ));
                }
            }
        }
    }

    /// Runs one step of a loaded channel's state and carries out what it says. `false`: it panicked and is gone.
    fn with_state(
        &mut self,
        channel: ChannelId,
        admission: Result<(), Refusal>,
        step: impl FnOnce(&mut ChannelState, &Context<'_>, &mut Effects),
    ) -> bool {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return true;
        };
        slot.used_at_ms = self.started.elapsed().as_millis() as u64;
        if !slot.touched {
            slot.touched = true;
            self.touched.push(channel);
        }
        let Phase::Loaded(state) = &mut slot.phase else {
            return true;
        };
        let context = Context {
            now_ms: self.now_ms,
            admission,
            fences: &self.fences,
            behind: slot.outbox.waiting(),
        };
        let pushes_before = self.effects.pushes.len();
        let effects = &mut self.effects;
        let outcome = catch_unwind(AssertUnwindSafe(|| step(state, &context, effects)));
        if outcome.is_err() {
            // What was answered before the panic was true then; what was asked for belongs to a state that is gone.
            self.effects.lookups.clear();
            self.effects.pages.clear();
            self.effects.heads.clear();
            self.on_panic(channel);
            return false;
        }
        count(&self.effects.pushes[pushes_before..]);
        for (user, head) in self.effects.heads.drain(..) {
            slot.outbox.head(user, head, self.rules.shards);
        }
        let life = slot.life;
        self.carry_out(channel, life);
        true
    }

    /// Answers and store reads that a state asked for; pushes wait for the end of the pass.
    fn carry_out(&mut self, channel: ChannelId, life: u64) {
        if !self.effects.answers.is_empty() {
            let mut answers = std::mem::take(&mut self.effects.answers);
            for (ticket, answer) in answers.drain(..) {
                self.answer(ticket, answer);
            }
            self.effects.answers = answers;
        }
        if !self.effects.lookups.is_empty() {
            for (id, lookup) in std::mem::take(&mut self.effects.lookups) {
                self.start_lookup(channel, life, id, lookup);
            }
        }
        if !self.effects.pages.is_empty() {
            for page in std::mem::take(&mut self.effects.pages) {
                self.start_page(channel, page);
            }
        }
    }

    /// A state panicked: those who wait in it are answered, it is dropped, and loaded again once the log has settled.
    fn on_panic(&mut self, channel: ChannelId) {
        counter!(names::PANICS).increment(1);
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        slot.panics = slot.panics.saturating_add(1);
        tracing::error!(%channel, panics = slot.panics, "a channel's state panicked");
        if slot.is_quarantined() {
            tracing::error!(%channel, "the channel is quarantined: it can be read, sends are refused");
        }
        let is_settled = slot.in_flight.is_none();
        let phase = std::mem::replace(&mut slot.phase, Phase::Settling(VecDeque::new()));
        if let Phase::Loaded(mut state) = phase {
            let effects = &mut self.effects;
            // The state may be in any condition; what cannot be answered from it is lost with its connection's timeout.
            if catch_unwind(AssertUnwindSafe(|| state.give_up(effects))).is_err() {
                tracing::error!(%channel, "those who waited for the channel could not all be answered");
            }
            let _ = catch_unwind(AssertUnwindSafe(|| drop(state)));
        }
        for (ticket, answer) in std::mem::take(&mut self.effects.answers) {
            self.answer(ticket, answer);
        }
        // Whoever the broken state forgot: nobody may wait for ever.
        let lost = self.replies.extract_if(|_, (of, _)| *of == channel);
        for (_, (_, reply)) in lost {
            tell(reply, refuse::unknown("the channel failed inside"));
        }
        if is_settled {
            self.reload(channel);
        }
    }

    fn reload(&mut self, channel: ChannelId) {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        let Phase::Settling(waiting) = &mut slot.phase else {
            return;
        };
        slot.phase = Phase::Loading(std::mem::take(waiting));
        self.last_life += 1;
        slot.life = self.last_life;
        self.start_load(channel, self.last_life);
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Appended { parts, result } => self.on_appended(&parts, result),
            Completion::Loaded {
                channel,
                life,
                result,
            } => {
                self.on_read_ended();
                self.on_loaded(channel, life, result.ok());
            }
            Completion::Found {
                channel,
                life,
                id,
                result,
            } => {
                self.on_read_ended();
                self.on_found(channel, life, id, result);
            }
            Completion::Page { ticket, result } => {
                self.on_read_ended();
                self.answer(ticket, result.map(Answer::History));
            }
            Completion::Position {
                registration,
                reply,
                result,
            } => {
                self.on_read_ended();
                self.on_position(&registration, reply, result.ok());
            }
            Completion::Room { shard } => self.on_room(shard),
            Completion::Pair { pair, result } => self.pairs.settle(pair, result),
        }
    }

    fn on_appended(&mut self, parts: &[Appending], result: Result<Appended, AppendError>) {
        self.appends_in_flight -= 1;
        let appended = match result {
            Ok(appended) if !self.failed => appended,
            Ok(_) => return,
            Err(error) => return self.on_append_failed(error),
        };
        failpoint::stage(failpoint::COMMITTED);
        for part in parts {
            let Some(slot) = self.channels.get_mut(&part.channel) else {
                continue;
            };
            let Some(mut batch) = slot.in_flight.take() else {
                continue;
            };
            slot.panics = 0;
            for (index, event) in batch.events.iter_mut().enumerate() {
                event.published.position = appended.first + (part.first + index) as u64;
            }
            counter!(names::EVENTS_COMMITTED).increment(batch.events.len() as u64);
            slot.outbox.commit(batch.events);
            if matches!(slot.phase, Phase::Settling(_)) {
                self.touch(part.channel);
                self.reload(part.channel);
            } else {
                self.with_state(part.channel, Ok(()), |state, _, effects| {
                    state.on_committed(effects);
                });
            }
        }
    }

    /// From here on this process acknowledges nothing.
    fn on_append_failed(&mut self, error: AppendError) {
        if !self.failed {
            tracing::error!(shard = self.index, %error, "the log failed: nothing is acknowledged any more");
        }
        self.failed = true;
        self.fatal.report(Fatal::Store(error));
        self.touched.clear();
        self.behind.iter_mut().for_each(VecDeque::clear);
        self.waiting = 0;
        for (_, slot) in std::mem::take(&mut self.channels) {
            match slot.phase {
                Phase::Loaded(mut state) => state.give_up(&mut self.effects),
                Phase::Loading(waiting) | Phase::Settling(waiting) => {
                    for request in waiting {
                        let refused = refuse::unavailable("the log failed; the node restarts");
                        self.refuse_request(request, refused);
                    }
                }
            }
        }
        for (ticket, answer) in std::mem::take(&mut self.effects.answers) {
            self.answer(ticket, answer);
        }
        self.effects.heads.clear();
    }

    fn on_loaded(
        &mut self,
        channel: ChannelId,
        life: u64,
        snapshot: Option<Option<ChannelSnapshot>>,
    ) {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        let Phase::Loading(waiting) = &mut slot.phase else {
            return;
        };
        if slot.life != life {
            return;
        }
        let waiting = std::mem::take(waiting);
        self.waiting = self.waiting.saturating_sub(waiting.len());
        let (epoch, rules) = (self.epoch, self.rules);
        let state = snapshot.and_then(|snapshot| {
            catch_unwind(|| ChannelState::load(channel, epoch, rules, snapshot)).ok()
        });
        let Some(state) = state else {
            // The panics counted so far would be forgotten with the slot; deliveries may still wait in it.
            if slot.panics == 0 && slot.outbox.is_empty() && !slot.behind {
                self.channels.remove(&channel);
            } else {
                // The next request tries again: a store that fails must not be asked in a circle.
                slot.phase = Phase::Settling(VecDeque::new());
            }
            for request in waiting {
                let refused = refuse::unavailable("the channel could not be loaded");
                self.refuse_request(request, refused);
            }
            return;
        };
        slot.phase = Phase::Loaded(Box::new(state));
        self.touch(channel);
        let admission = self.admission(waiting.iter().map(Request::bytes).sum());
        for request in waiting {
            self.on_request(channel, request, admission);
        }
    }

    fn on_found(
        &mut self,
        channel: ChannelId,
        life: u64,
        id: LookupId,
        found: Result<Option<Known>, ()>,
    ) {
        let Some(slot) = self.channels.get(&channel) else {
            return;
        };
        let Phase::Loaded(state) = &slot.phase else {
            return;
        };
        if slot.life != life {
            return;
        }
        let admission = self.admission(state.parked_bytes(id));
        self.with_state(channel, admission, |state, context, effects| {
            state.on_found(context, id, found, effects);
        });
    }

    fn on_register(&mut self, registration: Registration, reply: Reply<Registered>) {
        if !self.reads.has_room() {
            // Whoever asked may have gone.
            let _ = reply.send(Err(refuse::overloaded("too many store reads wait")));
            return;
        }
        let user = self.users.entry(registration.user).or_default();
        if let Err(refused) = user.on_register(&registration, &mut self.effects.pushes) {
            let _ = reply.send(Err(refused));
            return;
        }
        // Only now, registered, is the position read: an event in between is pushed, or in what the position covers.
        let store = self.store.clone();
        let user = registration.user;
        let read = read(
            async move { store.inbox_position(user).await },
            Err(conch_store::ReadError::Closed),
            move |result| Completion::Position {
                registration,
                reply,
                result,
            },
        );
        self.start_read(read);
    }

    fn on_position(
        &mut self,
        registration: &Registration,
        reply: Reply<Registered>,
        stored: Option<u64>,
    ) {
        let answer = match (stored, self.users.get_mut(&registration.user)) {
            (Some(stored), Some(user)) => Ok(Registered {
                inbox_position: user.on_position(stored),
            }),
            // It said goodbye before it was answered.
            (Some(stored), None) => Ok(Registered {
                inbox_position: stored,
            }),
            (None, _) => Err(refuse::unavailable("the store could not be read")),
        };
        let is_refused = answer.is_err();
        if reply.send(answer).is_err() || is_refused {
            // Nobody waits for it, or nobody was told that it stands: it must not stay behind.
            self.unregister(registration.user, registration.session);
        }
    }

    fn unregister(&mut self, user: UserId, session: SessionId) {
        if let Some(state) = self.users.get_mut(&user) {
            state.on_unregister(session);
            if state.is_empty() {
                self.users.remove(&user);
            }
        }
    }

    fn on_control(&mut self, message: Control) {
        match message {
            Control::Unregister { user, session } => self.unregister(user, session),
            Control::CloseDevice { user, device, code } => {
                if let Some(state) = self.users.get_mut(&user) {
                    state.on_close_device(device, code, &mut self.effects.pushes);
                    if state.is_empty() {
                        self.users.remove(&user);
                    }
                }
            }
            Control::Shutdown => self.on_shutdown(),
        }
    }

    fn on_shutdown(&mut self) {
        self.stopping = true;
        self.inputs.close();
        while let Ok(input) = self.inputs.try_recv() {
            self.refuse_input(input, refuse::going_away());
        }
        let mut refused = Vec::new();
        for slot in self.channels.values_mut() {
            match &mut slot.phase {
                Phase::Loading(waiting) | Phase::Settling(waiting) => {
                    refused.extend(waiting.drain(..))
                }
                Phase::Loaded(state) => {
                    state.give_up_parked(refuse::going_away(), &mut self.effects);
                }
            }
        }
        self.effects.lookups.clear();
        for request in refused {
            self.refuse_request(request, refuse::going_away());
        }
        for (ticket, answer) in std::mem::take(&mut self.effects.answers) {
            self.answer(ticket, answer);
        }
    }

    fn touch(&mut self, channel: ChannelId) {
        if let Some(slot) = self.channels.get_mut(&channel)
            && !slot.touched
        {
            slot.touched = true;
            self.touched.push(channel);
        }
    }

    /// The end of a pass: one append, the deliveries of what was committed, one push.
    fn finish_pass(&mut self) {
        let mut records = Vec::new();
        let mut parts = Vec::new();
        let touched = std::mem::take(&mut self.touched);
        for &channel in &touched {
            self.take_batch(channel, &mut records, &mut parts);
        }
        if !records.is_empty() {
            self.start_append(records, parts);
        }
        if fail::has_failpoints() {
            // A kill at this stage must find the acks with the sessions.
            self.link.push(&mut self.effects.pushes);
            if touched
                .iter()
                .any(|channel| self.channels.get(channel).is_some_and(has_deliveries))
            {
                failpoint::stage(failpoint::ACKED);
            }
        }
        for &channel in &touched {
            self.hand_over(channel);
            self.forget_absent(channel);
        }
        if self.touched.is_empty() {
            self.touched = touched;
            self.touched.clear();
        }
        if !self.effects.pushes.is_empty() {
            self.link.push(&mut self.effects.pushes);
            self.effects.pushes.clear();
        }
    }

    fn take_batch(
        &mut self,
        channel: ChannelId,
        records: &mut Vec<Record>,
        parts: &mut Vec<Appending>,
    ) {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        slot.touched = false;
        let Phase::Loaded(state) = &mut slot.phase else {
            return;
        };
        let first = records.len();
        match catch_unwind(AssertUnwindSafe(|| state.take_batch(records))) {
            Ok(None) => {}
            Ok(Some(batch)) => {
                assert_eq!(
                    first + batch.records,
                    records.len(),
                    "a batch is counted whole"
                );
                assert!(slot.in_flight.is_none(), "one batch in flight per channel");
                slot.in_flight = Some(batch);
                parts.push(Appending { channel, first });
            }
            Err(_) => {
                records.truncate(first);
                self.on_panic(channel);
            }
        }
    }

    fn start_append(&mut self, records: Vec<Record>, parts: Vec<Appending>) {
        failpoint::stage(failpoint::SEQUENCED);
        counter!(names::BATCHES).increment(1);
        self.appends_in_flight += 1;
        let appended = self.store.append(records);
        self.completions.push(Box::pin(async move {
            let result = appended.await;
            Completion::Appended { parts, result }
        }));
    }

    fn hand_over(&mut self, channel: ChannelId) {
        let Some(slot) = self.channels.get_mut(&channel) else {
            return;
        };
        // On the list already: it goes on when there is room, and not before, so that order is kept.
        if slot.behind || slot.outbox.is_empty() {
            return;
        }
        let mut courier = Courier {
            here: self.index,
            users: &mut self.users,
            shards: &self.shards,
            pushes: &mut self.effects.pushes,
            link: &self.link,
        };
        if let Err(full) = slot.outbox.hand_over(&mut courier) {
            tracing::debug!(%channel, mark = slot.outbox.mark(), shard = full, "deliveries wait for room");
            slot.behind = true;
            self.behind[full].push_back(channel);
            self.ask_for_room(full);
        }
    }

    fn ask_for_room(&mut self, shard: usize) {
        if std::mem::replace(&mut self.room_asked[shard], true) {
            return;
        }
        let queue = self.shards[shard].clone();
        self.completions.push(Box::pin(async move {
            // Room, or the shard has ended: either way whoever waits goes on. The permit itself is given back at once.
            drop(queue.reserve_owned().await);
            Completion::Room { shard }
        }));
    }

    fn on_room(&mut self, shard: usize) {
        self.room_asked[shard] = false;
        for channel in std::mem::take(&mut self.behind[shard]) {
            if let Some(slot) = self.channels.get_mut(&channel) {
                slot.behind = false;
            }
            self.touch(channel);
        }
    }

    /// Ids that name no channel must not fill the memory.
    fn forget_absent(&mut self, channel: ChannelId) {
        let is_idle_and_absent = self.channels.get(&channel).is_some_and(|slot| {
            slot.may_unload() && matches!(&slot.phase, Phase::Loaded(state) if state.is_absent())
        });
        if is_idle_and_absent {
            self.channels.remove(&channel);
        }
    }

    fn on_sweep(&mut self) {
        let now = self.started.elapsed().as_millis() as u64;
        let idle = self.config.channel_idle_ms;
        self.channels.retain(|_, slot| {
            !slot.may_unload() || slot.behind || now.saturating_sub(slot.used_at_ms) < idle
        });
        let shard = self.index.to_string();
        let quarantined = self
            .channels
            .values()
            .filter(|slot| slot.is_quarantined())
            .count();
        let behind: usize = self.behind.iter().map(VecDeque::len).sum();
        let depth = std::mem::take(&mut self.deepest_queue);
        gauge!(names::CHANNELS_LOADED, "shard" => shard.clone()).set(self.channels.len() as f64);
        gauge!(names::USERS_LOADED, "shard" => shard.clone()).set(self.users.len() as f64);
        gauge!(names::QUARANTINED, "shard" => shard.clone()).set(quarantined as f64);
        gauge!(names::BEHIND, "shard" => shard.clone()).set(behind as f64);
        gauge!(names::QUEUE_DEPTH, "shard" => shard).set(depth as f64);
    }

    fn start_read(&mut self, read: Running) {
        if let Some(read) = self.reads.start(read) {
            self.completions.push(read);
        }
    }

    fn on_read_ended(&mut self) {
        if let Some(next) = self.reads.ended() {
            self.completions.push(next);
        }
    }

    fn start_load(&mut self, channel: ChannelId, life: u64) {
        let store = self.store.clone();
        let tail = self.rules.tail_events;
        let read = read(
            async move { store.load_channel(channel, tail, WINDOW_KEYS).await },
            Err(conch_store::ReadError::Closed),
            move |result| {
                if let Err(error) = &result {
                    tracing::warn!(%channel, %error, "a channel could not be loaded");
                }
                Completion::Loaded {
                    channel,
                    life,
                    result,
                }
            },
        );
        self.start_read(read);
    }

    fn start_lookup(&mut self, channel: ChannelId, life: u64, id: LookupId, lookup: Lookup) {
        let store = self.store.clone();
        let find = async move {
            let row = match lookup {
                Lookup::Key { sender, key } => store.find_key(channel, sender, key).await,
                Lookup::Row(seq) => {
                    let range = Range {
                        from: seq,
                        to: seq,
                        newest_first: false,
                    };
                    let one = ReadLimit {
                        events: 1,
                        bytes: 0,
                    };
                    let rows = store.read_events(channel, range, one).await;
                    rows.map(|rows| rows.into_iter().next())
                }
            };
            row.map(|row| row.as_ref().map(Known::of)).map_err(|error| {
                tracing::warn!(%channel, %error, "a row could not be read");
            })
        };
        self.start_read(read(find, Err(()), move |result| Completion::Found {
            channel,
            life,
            id,
            result,
        }));
    }

    fn start_page(&mut self, channel: ChannelId, page: PageRead) {
        if !self.reads.has_room() {
            let refused = refuse::overloaded("too many store reads wait");
            return self.answer(page.ticket, Err(refused));
        }
        let store = self.store.clone();
        let fetch = async move {
            let rows = store.read_events(channel, page.range, page.limit).await;
            let rows = rows.map_err(|error| {
                tracing::warn!(%channel, %error, "history could not be read");
                refuse::unavailable("the store could not be read")
            })?;
            let covered_from = rows.first().map_or(page.range.from, |row| row.seq);
            let covered_to = rows
                .last()
                .map_or(page.range.from.saturating_sub(1), |row| row.seq);
            Ok(HistoryRows {
                covered_from,
                covered_to,
                first_seq: page.first_seq,
                head_seq: page.head_seq,
                bodies: rows.into_iter().map(|row| row.body).collect(),
            })
        };
        let failed = Err(refuse::unavailable("the store could not be read"));
        let ticket = page.ticket;
        self.start_read(read(fetch, failed, move |result| Completion::Page {
            ticket,
            result,
        }));
    }

    fn start_pair(&mut self, pair: PairKey) {
        let work = pair::find_or_make(
            self.store.clone(),
            self.ids.clone(),
            self.fatal.clone(),
            pair,
        );
        let failed = Err(refuse::unavailable("the pair could not be read"));
        let read = read(work, failed, move |result| Completion::Pair {
            pair,
            result,
        });
        // Not one of the bounded reads: it may wait for the log. Bounded by the queue, one per pair.
        self.completions.push(read);
    }
}

/// Counts what sends were answered with. Only a state's own answers come here, never deliveries.
fn count(answers: &[(SessionId, Push)]) {
    for (_, push) in answers {
        match push {
            Push::Refused { refused, .. } => {
                counter!(names::REFUSALS, "code" => refused.code.name()).increment(1);
            }
            Push::Acked { acks, .. } => {
                let again = acks.iter().filter(|ack| ack.flags == AckFlags::DUP).count();
                if again > 0 {
                    counter!(names::DUPLICATES).increment(again as u64);
                }
            }
            Push::Event(_) | Push::Head(_) | Push::Close(_) => {}
        }
    }
}

fn answers(push: &Push, asked: u32) -> bool {
    match push {
        Push::Acked { request, .. } | Push::Refused { request, .. } => *request == asked,
        Push::Event(_) | Push::Head(_) | Push::Close(_) => false,
    }
}

fn tell<T>(reply: Reply<T>, refused: Refused) {
    // Whoever asked may have gone.
    let _ = reply.send(Err(refused));
}

fn has_deliveries(slot: &ChannelSlot) -> bool {
    !slot.outbox.is_empty()
}

fn input_bytes(input: &Input) -> usize {
    match input {
        Input::Send(send) => record_bytes(send),
        Input::Ask { ask, .. } => ask.bytes(),
        Input::Register { .. } | Input::Pair { .. } => 0,
    }
}
