//! What an application holds: a [`Client`], cheap to clone, and the [`EventStream`]s that it gives out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use conch_wire::event::{MessageBody, SendFlags, check_send_tail};
use conch_wire::{ChannelId, Code, DeviceId, EventKind, MessageKey, Seq, UserId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::channel::Channel;
use super::driver::{Question, Request};
use super::error::ClientError;
use super::http::{Api, ApiError, Device, Login, Member, Person};
use super::login::{Account, TokenProvider, Tokens};
use super::sending::SendHandle;
use super::store::{Rebuilt, Store};
use super::transport::Transport;
use crate::core::{
    ChannelInfo, Command, ConnectionState, Event, Message, MessageRow, OutboxMessage, Outcome,
    StopReason,
};

/// Ids in one lookup of people.
const PEOPLE_MAX: usize = 100;
/// Most events of one [`Client::range`].
const RANGE_EVENTS_MAX: u32 = 1_000;
/// Pages of one [`Client::history`] beyond those that it needs, before it gives what there is.
const PAGES_MORE: u32 = 5;
/// Events of one page.
const PAGE_EVENTS: u32 = conch_wire::limits::HISTORY_ITEMS_MAX as u32;

/// Events from the moment of subscribing on. One that is not read holds the connection back: drop it when it is not needed.
#[derive(Debug)]
pub struct EventStream(mpsc::Receiver<Event>);

impl EventStream {
    /// The next event; `None` when the client is closed.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event, if one is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}

/// What all clones of a client share.
pub(super) struct Shared {
    pub(super) api: Api,
    pub(super) store: Store,
    pub(super) tokens: Arc<dyn TokenProvider>,
    pub(super) own_tokens: Arc<Tokens>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) touched: broadcast::Sender<ChannelId>,
    pub(super) state: watch::Receiver<ConnectionState>,
    pub(super) rebuilt: Option<Rebuilt>,
    pub(super) transport: watch::Receiver<Option<Transport>>,
    /// Whose data the folder held when it was opened.
    pub(super) owner: Option<UserId>,
    pub(super) people: Mutex<BTreeMap<UserId, Person>>,
}

/// A chat client of one account on this device. Cheap to clone; ends when the last clone is dropped.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("state", &*self.0.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(shared: Shared) -> Client {
        Client(Arc::new(shared))
    }

    // ---- connection ----

    /// Connects and stays connected, through whatever comes. Subscribe to events first.
    pub async fn connect(&self) -> Result<(), ClientError> {
        self.ask(Request::Start).await
    }

    /// The person is back: do not sit out the delay before the next attempt.
    pub async fn hurry(&self) -> Result<(), ClientError> {
        self.ask(Request::Hurry).await
    }

    /// The device's network is another one: Wi-Fi came or went, the address changed, it woke up. Call this whenever the
    /// system says so. A QUIC connection moves to a new socket and lives on; any connection is asked at once whether it is
    /// still there and replaced after 4 s if it is not; a network that blocks QUIC is forgotten.
    pub async fn network_changed(&self) -> Result<(), ClientError> {
        self.ask(Request::NetworkChanged).await
    }

    /// What carries the connection; `None` while there is none. Read it when [`ConnectionState::Online`] is heard.
    pub fn transport(&self) -> Option<Transport> {
        match self.connection() {
            ConnectionState::Online => *self.0.transport.borrow(),
            _ => None,
        }
    }

    /// Stays disconnected until [`Client::connect`].
    pub async fn disconnect(&self) -> Result<(), ClientError> {
        self.ask(Request::Command(Command::Stop)).await
    }

    /// Where the connection stands.
    pub fn connection(&self) -> ConnectionState {
        *self.0.state.borrow()
    }

    /// Says that the database of the data folder could not be used when it was opened, and what became of it.
    pub fn rebuilt(&self) -> Option<Rebuilt> {
        self.0.rebuilt.clone()
    }

    /// Events from here on.
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        let (reply, stream) = oneshot::channel();
        self.ask(Request::Subscribe { reply }).await?;
        Ok(EventStream(stream.await.map_err(|_| self.ended())?))
    }

    /// Says goodbye, writes what is to be written, and lets go of the data folder. All clones are closed with it.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.ask(Request::Close { done }).await.is_ok() {
            // An error means that it is closed already.
            let _ = closed.await;
        }
    }

    // ---- account ----

    /// Who is logged in with the node's own accounts.
    pub async fn account(&self) -> Option<Account> {
        self.0.own_tokens.account().await
    }

    /// Makes an account and logs this device in.
    pub async fn sign_up(
        &self,
        handle: &str,
        password: &str,
        display_name: Option<&str>,
        device_name: &str,
    ) -> Result<Account, ClientError> {
        self.check_logged_out().await?;
        if self.0.owner.is_some() {
            return Err(ClientError::OtherAccount);
        }
        let api = &self.0.api;
        let login = api
            .sign_up(handle, password, display_name, device_name)
            .await?;
        self.keep_login(login).await
    }

    /// Logs this device in.
    pub async fn log_in(
        &self,
        handle: &str,
        password: &str,
        device_name: &str,
    ) -> Result<Account, ClientError> {
        self.check_logged_out().await?;
        let login = self.0.api.log_in(handle, password, device_name).await?;
        if self.0.owner.is_some_and(|owner| owner != login.person.user) {
            // The device that was just made is of no use; that it stays in the list is no harm.
            let _ = self.0.api.log_out(&login.access_token).await;
            return Err(ClientError::OtherAccount);
        }
        self.keep_login(login).await
    }

    async fn check_logged_out(&self) -> Result<(), ClientError> {
        match self.account().await {
            Some(_) => Err(ClientError::LoggedIn),
            None => Ok(()),
        }
    }

    async fn keep_login(&self, login: Login) -> Result<Account, ClientError> {
        self.keep_people(std::slice::from_ref(&login.person))
            .await?;
        Ok(self.0.own_tokens.put(login).await?)
    }

    /// Logs this device out, for good. What it received stays in the data folder.
    pub async fn log_out(&self) -> Result<(), ClientError> {
        let told = match self.token().await {
            Ok(token) => self.0.api.log_out(&token).await,
            Err(ClientError::Api(error)) => Err(error),
            Err(error) => return Err(error),
        };
        match told {
            Err(error) if error.is_passing() => return Err(error.into()),
            // A login that the server has ended is ended here, too; else nobody could log in again.
            Err(_) | Ok(()) => {}
        }
        self.disconnect().await?;
        Ok(self.0.own_tokens.clear().await?)
    }

    /// This person's devices that are logged in.
    pub async fn devices(&self) -> Result<Vec<Device>, ClientError> {
        Ok(self.0.api.devices(&self.token().await?).await?)
    }

    /// Logs another device of this person out. For this one there is [`Client::log_out`].
    pub async fn remove_device(&self, device: DeviceId) -> Result<(), ClientError> {
        let token = self.token().await?;
        Ok(self.0.api.remove_device(&token, device).await?)
    }

    async fn token(&self) -> Result<String, ClientError> {
        let token = self.0.tokens.token(false).await;
        token.map_err(|error| ApiError::from(error).into())
    }

    // ---- messages ----

    /// Sends a text. When this returns, the message is safe on this device and goes out by itself, in order, also after a
    /// crash; the handle tells how it ended.
    pub async fn send(&self, channel: ChannelId, text: &str) -> Result<SendHandle, ClientError> {
        let tail = text.as_bytes().to_vec();
        self.send_tail(channel, EventKind::Text, SendFlags::default(), tail)
            .await
    }

    /// Sends a text that mentions people.
    pub async fn send_mentioning(
        &self,
        channel: ChannelId,
        text: &str,
        mentions: Vec<UserId>,
    ) -> Result<SendHandle, ClientError> {
        let tail = MessageBody { mentions }.encode_tail(text);
        self.send_tail(channel, EventKind::Text, SendFlags::TABLE, tail)
            .await
    }

    async fn send_tail(
        &self,
        channel: ChannelId,
        kind: EventKind,
        flags: SendFlags,
        tail: Vec<u8>,
    ) -> Result<SendHandle, ClientError> {
        let kind = kind as u8;
        check_send_tail(kind, flags, &tail).map_err(|error| ClientError::Invalid {
            code: error.code,
            what: error.what,
        })?;
        let key = fresh_key()?;
        let (accepted, answer) = oneshot::channel();
        self.ask(Request::Send {
            channel,
            key,
            kind,
            flags,
            tail: Bytes::from(tail),
            accepted,
        })
        .await?;
        answer.await.map_err(|_| self.ended())?
    }

    /// Own messages that are not in their channels' logs, in the order in which they were written: on their way, or given up.
    pub async fn outbox(&self) -> Result<Vec<OutboxMessage>, ClientError> {
        self.question(Question::Outbox).await
    }

    /// Sends a message again that was given up, as the newest of its channel. The same message arrives once, also if an
    /// earlier attempt did arrive; one that is too old for that is sent as a new one, under a new key.
    pub async fn retry(&self, key: MessageKey) -> Result<SendHandle, ClientError> {
        let fresh_key = fresh_key()?;
        let (accepted, answer) = oneshot::channel();
        self.ask(Request::Retry {
            key,
            fresh_key,
            accepted,
        })
        .await?;
        answer.await.map_err(|_| self.ended())?
    }

    /// Takes a message out of the outbox: one that was given up, or one that has never left this device. False: it is neither.
    pub async fn cancel(&self, key: MessageKey) -> Result<bool, ClientError> {
        let (done, answer) = oneshot::channel();
        self.ask(Request::Cancel { key, done }).await?;
        answer.await.map_err(|_| self.ended())
    }

    /// Up to `items` events below `before` (`None`: the newest that this device holds), oldest first. Loads from the server
    /// what is not here; without a connection gives what is, and [`ClientError::Offline`] if that is nothing.
    pub async fn history(
        &self,
        channel: ChannelId,
        before: Option<Seq>,
        items: u32,
    ) -> Result<Vec<Message>, ClientError> {
        let to = before.unwrap_or(Seq::MAX).saturating_sub(1);
        let mut pages = items.div_ceil(PAGE_EVENTS).saturating_add(PAGES_MORE);
        loop {
            let rows = self.0.store.newest(channel, 0, to, items).await?;
            let missing = items.saturating_sub(rows.len() as u32);
            let outcome = match missing {
                0 => Outcome::AtStart,
                _ if pages == 0 => Outcome::AtStart,
                _ => self.load_older(channel, missing).await?,
            };
            pages = pages.saturating_sub(1);
            match outcome {
                Outcome::Loaded => {}
                Outcome::Offline if rows.is_empty() => return Err(ClientError::Offline),
                Outcome::Refused(code) if rows.is_empty() => {
                    return Err(ClientError::Refused(code));
                }
                _ => return Ok(read_all(rows)),
            }
        }
    }

    /// Up to `items` events above `after`, oldest first. Those that this device does not hold are read from the server and
    /// not stored; empty: there are none.
    pub async fn newer(
        &self,
        channel: ChannelId,
        after: Seq,
        items: u32,
    ) -> Result<Vec<Message>, ClientError> {
        let Some(info) = self.channel_info(channel).await? else {
            return Ok(Vec::new());
        };
        let from = after.saturating_add(1);
        if from >= info.held_from {
            let rows = self.0.store.oldest(channel, from, Seq::MAX, items).await?;
            if !rows.is_empty() || info.held_to >= info.head_seq {
                return Ok(read_all(rows));
            }
        }
        let from = from.max(info.first_seq);
        self.load_range(channel, from, info.head_seq, items).await
    }

    /// The events `from ..= to`, at most 1,000, as many as there are for us. Those that this device does not hold are read
    /// from the server and not stored.
    pub async fn range(
        &self,
        channel: ChannelId,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<Message>, ClientError> {
        if to.saturating_sub(from) >= RANGE_EVENTS_MAX {
            return Err(ClientError::Invalid {
                code: Code::Invalid,
                what: "a range has at most 1,000 events",
            });
        }
        let held = match self.channel_info(channel).await? {
            Some(info) => from >= info.held_from && to.min(info.head_seq) <= info.held_to,
            None => false,
        };
        if held {
            let rows = self.0.store.oldest(channel, from, to, Seq::MAX).await?;
            return Ok(read_all(rows));
        }
        let mut found: Vec<Message> = Vec::new();
        loop {
            let next = found.last().map_or(from, |last| last.seq.saturating_add(1));
            if next > to {
                return Ok(found);
            }
            let page = self.load_range(channel, next, to, PAGE_EVENTS).await?;
            if page.is_empty() {
                return Ok(found);
            }
            found.extend(page);
        }
    }

    /// The newest `items` events that this device holds, from `from` on.
    pub(super) async fn held(
        &self,
        channel: ChannelId,
        from: Seq,
        items: u32,
    ) -> Result<Vec<Message>, ClientError> {
        let rows = self.0.store.newest(channel, from, Seq::MAX, items).await?;
        Ok(read_all(rows))
    }

    async fn load_older(&self, channel: ChannelId, items: u32) -> Result<Outcome, ClientError> {
        let (done, outcome) = oneshot::channel();
        self.ask(Request::LoadOlder {
            channel,
            items: items.min(PAGE_EVENTS) as u16,
            done,
        })
        .await?;
        outcome.await.map_err(|_| self.ended())
    }

    async fn load_range(
        &self,
        channel: ChannelId,
        from: Seq,
        to: Seq,
        items: u32,
    ) -> Result<Vec<Message>, ClientError> {
        let (done, outcome) = oneshot::channel();
        self.ask(Request::LoadRange {
            channel,
            from,
            to,
            items: items.min(PAGE_EVENTS) as u16,
            done,
        })
        .await?;
        match outcome.await.map_err(|_| self.ended())? {
            Outcome::Page(messages) => Ok(messages),
            Outcome::Refused(code) => Err(ClientError::Refused(code)),
            Outcome::Offline | Outcome::Loaded | Outcome::AtStart => Err(ClientError::Offline),
        }
    }

    /// The person has read a channel up to here, on all their devices.
    pub async fn mark_read(&self, channel: ChannelId, seq: Seq) -> Result<(), ClientError> {
        self.ask(Request::Command(Command::MarkRead { channel, seq }))
            .await
    }

    // ---- channels ----

    /// All channels, those used last first; also those that were left. Works without a connection.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, ClientError> {
        let mut channels = self.question(Question::Channels).await?;
        channels.sort_unstable_by_key(|it| (std::cmp::Reverse(it.used), it.channel));
        Ok(channels)
    }

    /// One channel; `None` before the server has spoken of it.
    pub async fn channel_info(
        &self,
        channel: ChannelId,
    ) -> Result<Option<ChannelInfo>, ClientError> {
        self.question(|reply| Question::Channel(channel, reply))
            .await
    }

    /// A channel to work with; nothing is asked.
    pub fn channel(&self, channel: ChannelId) -> Channel {
        Channel::new(self.clone(), channel)
    }

    /// The application shows a channel: its events come first, and with push mode *opened* at all.
    pub async fn open_channel(&self, channel: ChannelId) -> Result<(), ClientError> {
        self.ask(Request::Command(Command::Open { channel })).await
    }

    /// The application shows the channel no longer.
    pub async fn close_channel(&self, channel: ChannelId) -> Result<(), ClientError> {
        self.ask(Request::Command(Command::Close { channel })).await
    }

    /// The one channel with this person, made if there is none; with oneself, one's own log.
    pub async fn direct(&self, user: UserId) -> Result<Channel, ClientError> {
        let details = self.0.api.direct(&self.token().await?, user).await?;
        Ok(self.channel(details.channel))
    }

    /// Makes a group.
    pub async fn create_group(
        &self,
        title: &str,
        members: &[UserId],
    ) -> Result<Channel, ClientError> {
        let (token, key) = (self.token().await?, fresh_key()?);
        let api = &self.0.api;
        let details = match api.create_group(&token, key, title, members).await {
            // The answer was lost: under the same key the same group.
            Err(ApiError::Network(_)) => api.create_group(&token, key, title, members).await?,
            other => other?,
        };
        Ok(self.channel(details.channel))
    }

    /// The members of a channel; without a connection those that this device knows of, if it knows.
    pub async fn members(&self, channel: ChannelId) -> Result<Vec<Member>, ClientError> {
        let as_of = self.channel_info(channel).await?.map(|info| info.held_to);
        let asked = match self.token().await {
            Ok(token) => self
                .0
                .api
                .members(&token, channel)
                .await
                .map_err(ClientError::from),
            Err(error) => Err(error),
        };
        let members = match asked {
            Ok(members) => members,
            Err(ClientError::Api(ApiError::Network(why))) => {
                let known = self.known_members(channel).await?;
                if known.is_empty() {
                    return Err(ApiError::Network(why).into());
                }
                return Ok(known);
            }
            Err(error) => return Err(error),
        };
        let people: Vec<_> = members.iter().map(|it| it.person.clone()).collect();
        self.keep_people(&people).await?;
        if let Some(as_of) = as_of {
            self.0.store.save_members(channel, as_of, &members).await?;
        }
        Ok(members)
    }

    /// The members of a channel as far as this device knows them, without asking the server. Somebody whose names it does
    /// not know has none.
    pub async fn known_members(&self, channel: ChannelId) -> Result<Vec<Member>, ClientError> {
        Ok(self.0.store.members(channel).await?)
    }

    /// Adds people to a group.
    pub async fn add_members(
        &self,
        channel: ChannelId,
        users: &[UserId],
    ) -> Result<(), ClientError> {
        let token = self.token().await?;
        self.0.api.add_members(&token, channel, users).await?;
        Ok(())
    }

    /// Removes somebody from a group.
    pub async fn remove_member(&self, channel: ChannelId, user: UserId) -> Result<(), ClientError> {
        let token = self.token().await?;
        Ok(self.0.api.remove_member(&token, channel, user).await?)
    }

    /// Leaves a group.
    pub async fn leave(&self, channel: ChannelId) -> Result<(), ClientError> {
        let token = self.token().await?;
        let me = match self.account().await {
            Some(account) => account.user,
            None => self.0.api.me(&token).await?.user,
        };
        Ok(self.0.api.remove_member(&token, channel, me).await?)
    }

    /// Gives a group another title.
    pub async fn rename(&self, channel: ChannelId, title: &str) -> Result<(), ClientError> {
        let token = self.token().await?;
        self.0.api.rename(&token, channel, title).await?;
        Ok(())
    }

    // ---- people ----

    /// The person of this handle.
    pub async fn user_by_handle(&self, handle: &str) -> Result<Person, ClientError> {
        let token = self.token().await?;
        let person = self.0.api.user_by_handle(&token, handle).await?;
        self.keep_people(std::slice::from_ref(&person)).await?;
        Ok(person)
    }

    /// People by id, those that this device knows without asking; ids that nobody has are left out.
    pub async fn people(&self, users: &[UserId]) -> Result<Vec<Person>, ClientError> {
        let unknown: Vec<_> = users
            .iter()
            .copied()
            .filter(|user| self.known_person(*user).is_none())
            .collect();
        self.refresh_people(&unknown).await?;
        Ok(users
            .iter()
            .filter_map(|user| self.known_person(*user))
            .collect())
    }

    /// People by id as the server has them now, for names that may have changed; ids that nobody has are left out.
    pub async fn refresh_people(&self, users: &[UserId]) -> Result<Vec<Person>, ClientError> {
        let mut found = Vec::new();
        for users in users.chunks(PEOPLE_MAX) {
            let people = self.0.api.users(&self.token().await?, users).await?;
            self.keep_people(&people).await?;
            found.extend(people);
        }
        Ok(found)
    }

    /// A person whom this device knows.
    pub fn known_person(&self, user: UserId) -> Option<Person> {
        let people = self.0.people.lock().unwrap_or_else(PoisonError::into_inner);
        people.get(&user).cloned()
    }

    async fn keep_people(&self, people: &[Person]) -> Result<(), ClientError> {
        self.0.store.save_people(people).await?;
        let mut known = self.0.people.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(people.iter().map(|person| (person.user, person.clone())));
        Ok(())
    }

    pub(super) fn touched(&self) -> broadcast::Receiver<ChannelId> {
        self.0.touched.subscribe()
    }

    async fn question<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Ask(question(reply))).await?;
        answer.await.map_err(|_| self.ended())
    }

    async fn ask(&self, request: Request) -> Result<(), ClientError> {
        let asked = self.0.requests.send(request).await;
        asked.map_err(|_| self.ended())
    }

    /// Why nobody answers any more.
    fn ended(&self) -> ClientError {
        match *self.0.state.borrow() {
            ConnectionState::Stopped(StopReason::Storage) => ClientError::Storage,
            _ => ClientError::Closed,
        }
    }
}

fn read_all(rows: Vec<MessageRow>) -> Vec<Message> {
    rows.iter()
        .map(|row| Message::read(row.channel, &row.event, row.key))
        .collect()
}

fn fresh_key() -> Result<MessageKey, ClientError> {
    let mut key = MessageKey::default();
    getrandom::fill(&mut key.0).map_err(|_| ClientError::Randomness)?;
    Ok(key)
}
