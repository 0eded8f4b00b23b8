//! The way to an owner: slot, owner, shard, queue.
//!
//! Nothing here decides anything about a channel or user; it finds who does and hands over. `try_send` everywhere: a
//! full queue is a certain refusal at once, never a wait. On a single node every slot belongs to this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conch_store::{AppendError, InboxQuery, MessageStore};
use conch_wire::event::{ChannelKind, PendingAnswer, PendingSend};
use conch_wire::frame::ChannelHead;
use conch_wire::limits::PENDING_WAIT_MS;
use conch_wire::{ChannelId, Code, DeviceId, Seq, SessionId, UserId};
use futures_util::FutureExt;
use futures_util::future::join_all;
use metrics::counter;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::channel::{Answer, Ask, Change, Creation};
use crate::id::{Ids, Space};
use crate::metrics::REFUSALS;
use crate::refuse;
use crate::ring::{NodeId, OwnerTable};
use crate::shard::input::{Control, Input, Reply};
use crate::shard::task::{Parts, Shard};
use crate::slot::Slot;
use crate::{
    ChannelView, HistoryRequest, HistoryRows, Link, MemberView, Refused, Registered, Registration,
    RouterConfig, SendRequest, SyncQuery, SyncRows,
};

/// Why the owners cannot go on: the program must end, and be started again.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Fatal {
    /// An append failed: what was in it may be durable or not, and nothing is acknowledged any more.
    #[error("the store failed: {0}")]
    Store(#[from] AppendError),
    /// An owner loop panicked.
    #[error("owner loop {shard} panicked")]
    Shard { shard: usize },
}

/// Where the first fatal failure is put.
#[derive(Clone, Debug)]
pub(crate) struct FatalReport(watch::Sender<Option<Fatal>>);

impl FatalReport {
    pub(crate) fn report(&self, fatal: Fatal) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(fatal);
            is_first
        });
    }
}

#[derive(Debug)]
struct Queues {
    inputs: mpsc::Sender<Input>,
    control: mpsc::UnboundedSender<Control>,
}

struct Inner {
    node: NodeId,
    owners: OwnerTable,
    shards: Vec<Queues>,
    store: Arc<dyn MessageStore>,
    ids: Arc<Ids>,
    fatal: FatalReport,
    loops: Mutex<Vec<JoinHandle<()>>>,
    ended: watch::Sender<bool>,
}

/// Handle to every owner. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("node", &self.inner.node)
            .field("shards", &self.inner.shards.len())
            .finish_non_exhaustive()
    }
}

impl Router {
    /// Starts the shards on the current runtime. Await [`Router::shutdown`] to end them.
    pub fn start(
        config: RouterConfig,
        store: Arc<dyn MessageStore>,
        link: Arc<dyn Link>,
    ) -> Router {
        let shards = config.shards.clamp(1, crate::slot::SLOTS);
        let queue_max = config.queue_max.max(1);
        let ids = Arc::new(Ids::new(store.clone()));
        let fatal = FatalReport(watch::Sender::new(None));
        let (delivery_senders, delivery_receivers): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| mpsc::channel(queue_max)).unzip();
        let mut queues = Vec::with_capacity(shards);
        let mut loops = Vec::with_capacity(shards);
        for (index, deliveries) in delivery_receivers.into_iter().enumerate() {
            let (inputs, taken_inputs) = mpsc::channel(queue_max);
            let (control, taken_control) = mpsc::unbounded_channel();
            let shard = Shard::new(Parts {
                index,
                config: config.clone(),
                store: store.clone(),
                ids: ids.clone(),
                link: link.clone(),
                fatal: fatal.clone(),
                inputs: taken_inputs,
                control: taken_control,
                deliveries,
                shards: delivery_senders.clone(),
            });
            queues.push(Queues { inputs, control });
            loops.push(spawn_loop(index, shard, fatal.clone()));
        }
        let node = NodeId(1);
        Router {
            inner: Arc::new(Inner {
                node,
                owners: OwnerTable::single(node),
                shards: queues,
                store,
                ids,
                fatal,
                loops: Mutex::new(loops),
                ended: watch::Sender::new(false),
            }),
        }
    }

    /// The store that the owners write to (identity, inbox incarnation).
    pub fn store(&self) -> &Arc<dyn MessageStore> {
        &self.inner.store
    }

    /// Resolves when the owners cannot go on; the program must then exit with the code for it.
    pub async fn fatal(&self) -> Fatal {
        let mut fatal = self.inner.fatal.0.subscribe();
        match fatal.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(fatal)) => fatal.clone(),
            // The sender lives in `self`; it cannot be gone while this waits.
            _ => std::future::pending().await,
        }
    }

    /// Hands a send to the channel's owner; never waits. `Err`: nothing was handed over.
    pub fn send(&self, request: SendRequest) -> Result<(), Refused> {
        let slot = Slot::of_channel(request.channel);
        self.hand_over(slot, Input::Send(request))
    }

    /// Registers first, then reads the inbox position.
    pub async fn register(&self, registration: Registration) -> Result<Registered, Refused> {
        self.ask_slot(Slot::of_user(registration.user), |reply| Input::Register {
            registration,
            reply,
        })
        .await
    }

    /// By session id, so that a late goodbye cannot remove the successor.
    pub fn unregister(&self, user: UserId, session: SessionId) {
        self.control(user, Control::Unregister { user, session });
    }

    /// Closes every session of a device (log-out, revocation).
    pub fn close_device(&self, user: UserId, device: DeviceId, code: Code) {
        self.control(user, Control::CloseDevice { user, device, code });
    }

    /// Asks the owners what became of sends, through their queues; fences `replaces` there. Waits at most
    /// `PENDING_WAIT_MS` in all, then says `Unknown`.
    pub async fn pending(
        &self,
        user: UserId,
        replaces: Option<SessionId>,
        pending: &[PendingSend],
    ) -> Vec<PendingAnswer> {
        let mut channels: Vec<ChannelId> = pending.iter().map(|send| send.channel).collect();
        channels.sort_unstable();
        channels.dedup();
        let deadline = tokio::time::Instant::now() + Duration::from_millis(PENDING_WAIT_MS.into());
        let questions = channels.into_iter().map(|channel| async move {
            let places: Vec<usize> = (0..pending.len())
                .filter(|&place| pending[place].channel == channel)
                .collect();
            let keys = places.iter().map(|&place| pending[place].key).collect();
            let fence = replaces.map(|session| (user, session));
            let answer = self.ask(channel, Ask::Pending { user, keys }, fence);
            let answer = tokio::time::timeout_at(deadline, answer).await;
            (places, answer)
        });
        let mut answers = vec![PendingAnswer::Unknown; pending.len()];
        for (places, answer) in join_all(questions).await {
            if let Ok(Ok(Answer::Pending(found))) = answer {
                for (place, answer) in places.into_iter().zip(found) {
                    answers[place] = answer;
                }
            }
        }
        answers
    }

    /// The channel for a member, present or former. Absent and not a member answer alike: `not_found`.
    pub async fn view(&self, user: UserId, channel: ChannelId) -> Result<ChannelView, Refused> {
        view(self.ask(channel, Ask::View { user }, None).await)
    }

    /// Members of a channel, for a present member.
    pub async fn members(
        &self,
        user: UserId,
        channel: ChannelId,
    ) -> Result<Vec<MemberView>, Refused> {
        match self.ask(channel, Ask::Members { user }, None).await? {
            Answer::Members(members) => Ok(members),
            _ => Err(wrong_answer()),
        }
    }

    /// Committed events of a range that the user may see.
    pub async fn history(
        &self,
        user: UserId,
        request: HistoryRequest,
    ) -> Result<HistoryRows, Refused> {
        let ask = Ask::History { user, request };
        match self.ask(request.channel, ask, None).await? {
            Answer::History(rows) => Ok(rows),
            _ => Err(wrong_answer()),
        }
    }

    /// Moves the user's read mark forward (clamped to the head); resolves when durable. All devices get the head pushed.
    pub async fn read(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
    ) -> Result<ChannelHead, Refused> {
        match self.ask(channel, Ask::Read { user, seq }, None).await? {
            Answer::Head(head) => Ok(head),
            _ => Err(wrong_answer()),
        }
    }

    /// A page of the user's inbox. Asked of the store without going through an owner: inbox rows are derived in the same
    /// instant as the records that they come from are durable, so nothing in them can be ahead of a commit.
    pub async fn sync(
        &self,
        user: UserId,
        query: SyncQuery,
        rows_max: usize,
    ) -> Result<SyncRows, Refused> {
        let query = match query {
            SyncQuery::After(position) => InboxQuery::After(position),
            SyncQuery::AtOrBefore(position) => InboxQuery::AtOrBefore(position),
        };
        let page = self.inner.store.inbox(user, query, rows_max).await;
        let page = page.map_err(|error| {
            tracing::warn!(%error, "an inbox could not be read");
            refuse::unavailable("the store could not be read")
        })?;
        Ok(SyncRows {
            rows: page.rows,
            more: page.more,
        })
    }

    /// The one direct channel of two people, made if there is none; with oneself: the person's own log.
    pub async fn direct(&self, by: UserId, other: UserId) -> Result<ChannelView, Refused> {
        let pair = (by.min(other), by.max(other));
        let channel = self
            .ask_slot(Slot::of_pair(by, other), |reply| Input::Pair {
                pair,
                reply,
            })
            .await?;
        let (kind, others) = if by == other {
            (ChannelKind::SelfLog, Vec::new())
        } else {
            (ChannelKind::Direct, vec![other])
        };
        let creation = Creation {
            by,
            kind,
            title: String::new(),
            others,
        };
        view(self.ask(channel, Ask::Create(creation), None).await)
    }

    /// Makes a group under an id that the caller took from [`Router::next_channel_id`]; again with the same id by a
    /// founding member: answers what is there.
    pub async fn create_group(
        &self,
        channel: ChannelId,
        by: UserId,
        title: String,
        members: Vec<UserId>,
    ) -> Result<ChannelView, Refused> {
        let creation = Creation {
            by,
            kind: ChannelKind::Group,
            title,
            others: members,
        };
        view(self.ask(channel, Ask::Create(creation), None).await)
    }

    /// Adds people to a group (owner, admin). Those who are in already are left as they are.
    pub async fn add_members(
        &self,
        by: UserId,
        channel: ChannelId,
        users: Vec<UserId>,
    ) -> Result<ChannelView, Refused> {
        view(self.change(channel, Change::Add { by, users }).await)
    }

    /// Removes someone from a group (owner, admin; nobody removes an owner). Removing oneself is leaving.
    pub async fn remove_member(
        &self,
        by: UserId,
        channel: ChannelId,
        user: UserId,
    ) -> Result<(), Refused> {
        done(self.change(channel, Change::Remove { by, user }).await)
    }

    /// Leaves a group; the last owner's role passes to the longest-standing admin, else member.
    pub async fn leave(&self, user: UserId, channel: ChannelId) -> Result<(), Refused> {
        done(self.change(channel, Change::Leave { user }).await)
    }

    /// Renames a group (owner, admin).
    pub async fn rename(
        &self,
        by: UserId,
        channel: ChannelId,
        title: String,
    ) -> Result<(), Refused> {
        done(self.change(channel, Change::Rename { by, title }).await)
    }

    /// A fresh, unguessable, never repeated 63-bit id for a channel.
    pub async fn next_channel_id(&self) -> Result<ChannelId, Refused> {
        self.next_id(Space::Channel).await.map(ChannelId)
    }

    /// A fresh id for a user.
    pub async fn next_user_id(&self) -> Result<UserId, Refused> {
        self.next_id(Space::User).await.map(UserId)
    }

    /// A fresh id for a device.
    pub async fn next_device_id(&self) -> Result<DeviceId, Refused> {
        self.next_id(Space::Device).await.map(DeviceId)
    }

    /// Stops taking requests, commits what was sequenced, answers it, ends the shards. Again: waits for the same end.
    pub async fn shutdown(&self) {
        for shard in &self.inner.shards {
            // A loop that has ended has done what it is told here.
            let _ = shard.control.send(Control::Shutdown);
        }
        let loops = std::mem::take(
            &mut *self
                .inner
                .loops
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if loops.is_empty() {
            // The sender lives in `self`; it cannot be gone while this waits.
            let _ = self.inner.ended.subscribe().wait_for(|ended| *ended).await;
            return;
        }
        for ended in join_all(loops).await {
            if let Err(error) = ended {
                tracing::error!(%error, "an owner loop did not end by itself");
            }
        }
        self.inner.ended.send_replace(true);
    }

    async fn next_id(&self, space: Space) -> Result<u64, Refused> {
        self.inner.ids.next(space).await.map_err(|error| {
            self.inner.fatal.report(Fatal::Store(error));
            refuse::unavailable("the log failed; the node restarts")
        })
    }

    async fn change(&self, channel: ChannelId, change: Change) -> Result<Answer, Refused> {
        self.ask(channel, Ask::Change(change), None).await
    }

    async fn ask(
        &self,
        channel: ChannelId,
        ask: Ask,
        fence: Option<(UserId, SessionId)>,
    ) -> Result<Answer, Refused> {
        self.ask_slot(Slot::of_channel(channel), |reply| Input::Ask {
            channel,
            ask,
            fence,
            reply,
        })
        .await
    }

    async fn ask_slot<T>(
        &self,
        slot: Slot,
        input: impl FnOnce(Reply<T>) -> Input,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.hand_over(slot, input(reply))?;
        // A loop answers everything that it gave a place to before it ends; what it drops was only a question.
        let answer = answer.await.unwrap_or_else(|_| Err(refuse::going_away()));
        if let Err(refused) = &answer {
            counter!(REFUSALS, "code" => refused.code.name()).increment(1);
        }
        answer
    }

    fn hand_over(&self, slot: Slot, input: Input) -> Result<(), Refused> {
        if self.inner.owners.owner(slot) != self.inner.node {
            return Err(refuse::unavailable("the slot belongs to another node"));
        }
        let shards = &self.inner.shards;
        let refused = match shards[slot.shard(shards.len())].inputs.try_send(input) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => refuse::overloaded("the owner's queue is full"),
            Err(TrySendError::Closed(_)) => refuse::going_away(),
        };
        counter!(REFUSALS, "code" => refused.code.name()).increment(1);
        Err(refused)
    }

    fn control(&self, user: UserId, message: Control) {
        let shards = &self.inner.shards;
        // A loop that has ended has no sessions any more.
        let _ = shards[Slot::of_user(user).shard(shards.len())]
            .control
            .send(message);
    }
}

/// A loop's panic stops the process: without it nobody would answer for its channels.
fn spawn_loop(index: usize, shard: Shard, fatal: FatalReport) -> JoinHandle<()> {
    tokio::spawn(async move {
        let run = std::panic::AssertUnwindSafe(shard.run());
        if run.catch_unwind().await.is_err() {
            tracing::error!(shard = index, "an owner loop panicked");
            fatal.report(Fatal::Shard { shard: index });
        }
    })
}

fn view(answer: Result<Answer, Refused>) -> Result<ChannelView, Refused> {
    match answer? {
        Answer::View(view) => Ok(view),
        _ => Err(wrong_answer()),
    }
}

fn done(answer: Result<Answer, Refused>) -> Result<(), Refused> {
    match answer? {
        Answer::Done => Ok(()),
        _ => Err(wrong_answer()),
    }
}

fn wrong_answer() -> Refused {
    refuse::refused(Code::InternalError, "an owner answered another question")
}
