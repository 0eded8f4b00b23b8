//! The owner loop: the only place with a loop.
//!
//! Each wake-up drains the whole queue, runs the pure states, and ends with one append for all channels that have
//! something to write, one hand-over of deliveries and one push of everything to the gateway. Nothing in a pass waits:
//! appends, reads and room in other shards' queues come back as [`Completion`]s through the same `select!`.
//!
//! Every call into a channel's state is caught: a panic answers those who wait `outcome_unknown`, drops the state and
//! loads it again when its batch in the log has settled; nobody else notices. A failed append is the end of this
//! process's word: nothing more is acknowledged, and [`crate::Fatal`] tells the program to exit.
//!
//! Shutdown: takes nothing new, refuses what has no place yet (certain), commits and answers the rest, ends.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conch_store::{MessageStore, Refusal};
use conch_wire::{AckFlags, ChannelId, SessionId, UserId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use metrics::{Counter, counter, gauge};
use tokio::sync::mpsc;

use super::delivery::deliver;
use super::input::{Completion, Control, Input, Reply};
use super::pair::Pairs;
use super::reads::{Reads, Running};
use super::slot::{ChannelSlot, Phase, Request, WAITING_MAX};
use crate::channel::outbox::FanOut;
use crate::channel::send::{record_bytes, refuse_send};
use crate::channel::state::ChannelState;
use crate::channel::{Answer, Context, Effects, Rules, Ticket};
use crate::failpoint;
use crate::fence::Fences;
use crate::id::Ids;
use crate::map::Map;
use crate::metrics as names;
use crate::refuse;
use crate::router::FatalReport;
use crate::user::state::UserState;
use crate::{Link, Push, Refused, RouterConfig};

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
    pub(super) index: usize,
    config: RouterConfig,
    pub(super) rules: Rules,
    pub(super) epoch: u32,
    pub(super) store: Arc<dyn MessageStore>,
    pub(super) ids: Arc<Ids>,
    pub(super) link: Arc<dyn Link>,
    pub(super) fatal: FatalReport,
    inputs: mpsc::Receiver<Input>,
    control: mpsc::UnboundedReceiver<Control>,
    deliveries: mpsc::Receiver<FanOut>,
    pub(super) shards: Vec<mpsc::Sender<FanOut>>,

    pub(super) channels: Map<ChannelId, ChannelSlot>,
    pub(super) users: Map<UserId, UserState>,
    fences: Fences,
    pairs: Pairs,
    replies: Map<Ticket, (ChannelId, Reply<Answer>)>,
    last_ticket: Ticket,
    last_life: u64,
    /// Requests in front of channels that are being loaded, all together.
    pub(super) waiting: usize,
    pub(super) completions: FuturesUnordered<Running>,
    pub(super) reads: Reads,
    /// Channels to look after at the end of the pass.
    pub(super) touched: Vec<ChannelId>,
    /// By shard that had no room: the channels whose deliveries wait for it.
    pub(super) behind: Vec<VecDeque<ChannelId>>,
    pub(super) room_asked: Vec<bool>,
    pub(super) effects: Effects,
    pub(super) appends_in_flight: usize,
    /// Most requests that one pass found since they were last reported.
    deepest_queue: usize,
    pub(super) events_committed: Counter,
    pub(super) batches: Counter,
    started: Instant,
    now_ms: u64,
    /// The store failed: nothing is acknowledged any more.
    pub(super) failed: bool,
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
            channels: Map::default(),
            users: Map::default(),
            fences: Fences::default(),
            pairs: Pairs::default(),
            replies: Map::default(),
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
            events_committed: counter!(names::EVENTS_COMMITTED),
            batches: counter!(names::BATCHES),
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

    pub(super) fn admission(&self, bytes: usize) -> Result<(), Refusal> {
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

    pub(super) fn refuse_request(&mut self, request: Request, refused: Refused) {
        match request {
            Request::Send(send) => self.refuse_send(&send, refused),
            Request::Ask { ticket, .. } => self.answer(ticket, Err(refused)),
        }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Result<Answer, Refused>) {
        if let Some((_, reply)) = self.replies.remove(&ticket) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }

    pub(super) fn on_request(
        &mut self,
        channel: ChannelId,
        request: Request,
        admission: Result<(), Refusal>,
    ) {
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
    pub(super) fn with_state(
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
    pub(super) fn on_panic(&mut self, channel: ChannelId) {
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

    pub(super) fn reload(&mut self, channel: ChannelId) {
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

    pub(super) fn touch(&mut self, channel: ChannelId) {
        if let Some(slot) = self.channels.get_mut(&channel)
            && !slot.touched
        {
            slot.touched = true;
            self.touched.push(channel);
        }
    }

    /// Ids that name no channel must not fill the memory.
    pub(super) fn forget_absent(&mut self, channel: ChannelId) {
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
            Push::Events(_) | Push::Head(_) | Push::Close(_) => {}
        }
    }
}

fn answers(push: &Push, asked: u32) -> bool {
    match push {
        Push::Acked { request, .. } | Push::Refused { request, .. } => *request == asked,
        Push::Events(_) | Push::Head(_) | Push::Close(_) => false,
    }
}

fn tell<T>(reply: Reply<T>, refused: Refused) {
    // Whoever asked may have gone.
    let _ = reply.send(Err(refused));
}

fn input_bytes(input: &Input) -> usize {
    match input {
        Input::Send(send) => record_bytes(send),
        Input::Ask { ask, .. } => ask.bytes(),
        Input::Register { .. } | Input::Pair { .. } => 0,
    }
}
