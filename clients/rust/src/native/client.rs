//! What an application holds: a [`Client`], cheap to clone, and what it gives out.
//!
//! ```no_run
//! # async fn example() -> Result<(), conch_client::ClientError> {
//! use conch_client::{ClientBuilder, SendOutcome, core::Event};
//!
//! let client = ClientBuilder::new("http://127.0.0.1:8080", "./data").open().await?;
//! if client.account().await.is_none() {
//!     client.log_in("ada", "correct horse battery", "laptop").await?;
//! }
//! let mut events = client.events().await?;
//! client.connect().await?;
//!
//! let grace = client.user_by_handle("grace").await?;
//! let channel = client.direct(grace.user).await?.channel;
//! let sending = client.send(channel, "hello").await?; // safe on this device from here on
//! match sending.await? {
//!     SendOutcome::Stored { seq, .. } => println!("stored as {seq}"),
//!     SendOutcome::Refused { code } => println!("refused: {code}"),
//! }
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event {
//!         println!("{}: {}", message.author, message.text().unwrap_or("…"));
//!     }
//! }
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use conch_wire::event::{MessageBody, SendFlags, check_send_tail};
use conch_wire::{ChannelId, Code, DeviceId, EventKind, MessageKey, Seq, UserId};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::driver::{Request, SendResult};
use super::http::{Api, ApiError, Channel, Device, Login, Member, Person};
use super::login::{Account, TokenProvider, Tokens};
use super::store::{Store, StoreError};
use crate::core::{ChannelInfo, Command, ConnectionState, Event, Message, OutboxItem, Outcome};

/// Ids in one lookup of people.
const PEOPLE_MAX: usize = 100;

/// Why a call did not do what it says.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("`{0}` is not an endpoint: http://host:port or https://host:port")]
    Endpoint(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{0}")]
    Tls(String),
    #[error("the system has no randomness")]
    Randomness,
    /// The message is not one that may be sent; `code` says why.
    #[error("{what} ({code})")]
    Invalid { code: Code, what: &'static str },
    /// Too many messages wait to be sent.
    #[error("too many messages wait to be sent")]
    OutboxFull,
    /// What was asked for is only on the server, and there is no connection.
    #[error("not connected")]
    Offline,
    #[error("refused: {0}")]
    Refused(Code),
    /// The data folder holds what another account received.
    #[error("this data folder belongs to another account; take another folder")]
    OtherAccount,
    #[error("somebody is logged in already")]
    LoggedIn,
    /// The client was closed, or could not write its data folder.
    #[error("the client is closed")]
    Closed,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// The server has it for ever, at this place.
    Stored { seq: Seq, time_ms: u64 },
    /// The server has not and never will.
    Refused { code: Code },
}

/// A message on its way. It goes on without this handle, too; awaiting it tells how it ended, however long that takes.
#[derive(Debug)]
pub struct SendHandle {
    key: MessageKey,
    outcome: oneshot::Receiver<SendResult>,
}

impl SendHandle {
    /// The message's name, by which events speak of it.
    pub fn key(&self) -> MessageKey {
        self.key
    }
}

impl Future for SendHandle {
    type Output = Result<SendOutcome, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(ClientError::Closed)))
    }
}

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
    pub(super) state: watch::Receiver<ConnectionState>,
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

    /// The network changed or the person is back: do not sit out the delay before the next attempt.
    pub async fn hurry(&self) -> Result<(), ClientError> {
        self.ask(Request::Hurry).await
    }

    /// Stays disconnected until [`Client::connect`].
    pub async fn disconnect(&self) -> Result<(), ClientError> {
        self.ask(Request::Command(Command::Stop)).await
    }

    pub fn connection(&self) -> ConnectionState {
        *self.0.state.borrow()
    }

    /// Events from here on.
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        let (reply, stream) = oneshot::channel();
        self.ask(Request::Subscribe { reply }).await?;
        Ok(EventStream(stream.await.map_err(closed)?))
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
    pub async fn send(
        &self,
        channel: ChannelId,
        text: impl Into<String>,
    ) -> Result<SendHandle, ClientError> {
        let tail = text.into().into_bytes();
        self.send_tail(channel, EventKind::Text, SendFlags::default(), tail)
            .await
    }

    /// Sends a text that mentions people.
    pub async fn send_mentioning(
        &self,
        channel: ChannelId,
        text: impl Into<String>,
        mentions: Vec<UserId>,
    ) -> Result<SendHandle, ClientError> {
        let tail = MessageBody { mentions }.encode_tail(&text.into());
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
        let outcome = answer.await.map_err(closed)??;
        Ok(SendHandle { key, outcome })
    }

    /// Messages that the server has not answered for.
    pub async fn outbox(&self) -> Result<Vec<OutboxItem>, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Outbox { reply }).await?;
        answer.await.map_err(closed)
    }

    /// Up to `items` events below `before` (`None`: the newest that this device holds), oldest first. Loads from the server
    /// what is not here; without a connection gives what is, and [`ClientError::Offline`] if that is nothing.
    pub async fn history(
        &self,
        channel: ChannelId,
        before: Option<Seq>,
        items: u32,
    ) -> Result<Vec<Message>, ClientError> {
        let before = before.unwrap_or(Seq::MAX);
        loop {
            let rows = self.0.store.messages(channel, before, items).await?;
            let missing = items.saturating_sub(rows.len() as u32);
            let outcome = match missing {
                0 => Outcome::AtStart,
                _ => self.load_older(channel, missing).await?,
            };
            match outcome {
                Outcome::Loaded => {}
                Outcome::Offline if rows.is_empty() => return Err(ClientError::Offline),
                Outcome::Refused(code) if rows.is_empty() => {
                    return Err(ClientError::Refused(code));
                }
                Outcome::AtStart | Outcome::Offline | Outcome::Refused(_) => {
                    return Ok(rows
                        .iter()
                        .map(|row| Message::read(row.channel, &row.event, row.key))
                        .collect());
                }
            }
        }
    }

    async fn load_older(&self, channel: ChannelId, items: u32) -> Result<Outcome, ClientError> {
        let (done, outcome) = oneshot::channel();
        self.ask(Request::LoadOlder {
            channel,
            items: items.min(u16::MAX.into()) as u16,
            done,
        })
        .await?;
        outcome.await.map_err(closed)
    }

    /// The person has read a channel up to here, on all their devices.
    pub async fn mark_read(&self, channel: ChannelId, seq: Seq) -> Result<(), ClientError> {
        self.ask(Request::Command(Command::MarkRead { channel, seq }))
            .await
    }

    // ---- channels ----

    /// All channels, those used last first; also those that were left.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Channels { reply }).await?;
        let mut channels = answer.await.map_err(closed)?;
        channels.sort_unstable_by_key(|it| (std::cmp::Reverse(it.used), it.channel));
        Ok(channels)
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
        Ok(self.0.api.direct(&self.token().await?, user).await?)
    }

    /// Makes a group.
    pub async fn create_group(
        &self,
        title: &str,
        members: &[UserId],
    ) -> Result<Channel, ClientError> {
        let (token, key) = (self.token().await?, fresh_key()?);
        let api = &self.0.api;
        Ok(match api.create_group(&token, key, title, members).await {
            // The answer was lost: under the same key the same group.
            Err(ApiError::Network(_)) => api.create_group(&token, key, title, members).await?,
            other => other?,
        })
    }

    pub async fn members(&self, channel: ChannelId) -> Result<Vec<Member>, ClientError> {
        let members = self.0.api.members(&self.token().await?, channel).await?;
        let people: Vec<_> = members.iter().map(|it| it.person.clone()).collect();
        self.keep_people(&people).await?;
        Ok(members)
    }

    pub async fn add_members(
        &self,
        channel: ChannelId,
        users: &[UserId],
    ) -> Result<Channel, ClientError> {
        let token = self.token().await?;
        Ok(self.0.api.add_members(&token, channel, users).await?)
    }

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

    pub async fn rename(&self, channel: ChannelId, title: &str) -> Result<Channel, ClientError> {
        let token = self.token().await?;
        Ok(self.0.api.rename(&token, channel, title).await?)
    }

    // ---- people ----

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

    async fn ask(&self, request: Request) -> Result<(), ClientError> {
        self.0
            .requests
            .send(request)
            .await
            .map_err(|_| ClientError::Closed)
    }
}

fn closed(_: oneshot::error::RecvError) -> ClientError {
    ClientError::Closed
}

fn fresh_key() -> Result<MessageKey, ClientError> {
    let mut key = MessageKey::default();
    getrandom::fill(&mut key.0).map_err(|_| ClientError::Randomness)?;
    Ok(key)
}
