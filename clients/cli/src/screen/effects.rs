//! Carries out what the screen wants done, with the client, and brings the answers back.
//!
//! Messages go through one queue, so that they keep their order; everything else runs beside each other, as nothing of it
//! waits for anything else. Answers wait in a bounded queue for the screen.

use conch_client::wire::{ChannelId, MemberRole, MessageKey, UserId};
use conch_client::{ApiError, Client, ClientError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::state::answers::Answer;
use super::state::conversation::{PAGE_ITEMS, Page};
use super::state::entry::{Field, Filled, Purpose};
use super::state::{Effect, Happening};
use crate::script::device_name;
use crate::{harmless, now_ms, show, words};

/// Answers that may wait for the screen.
const ANSWERS_MAX: usize = 256;
/// Channels whose newest event is read before the answer is given.
const PREVIEWS_MAX: usize = 50;

/// A message on its way to the outbox.
struct Outgoing {
    ticket: u64,
    what: What,
}

/// A new message, or one that was refused.
enum What {
    New { channel: ChannelId, text: String },
    Again(MessageKey),
}

/// See the file's head. Ends what is under way when dropped.
pub(super) struct Hands {
    client: Client,
    display_name: Option<String>,
    answers: mpsc::Sender<Happening>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    tasks: JoinSet<()>,
}

impl Hands {
    /// With them comes the queue of answers.
    pub(super) fn new(
        client: Client,
        display_name: Option<String>,
    ) -> (Hands, mpsc::Receiver<Happening>) {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        // Bounded by what a person types; the outbox that it leads to has a limit of its own.
        let (outgoing, queue) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(send_all(client.clone(), queue, answers.clone()));
        let hands = Hands {
            client,
            display_name,
            answers,
            outgoing,
            tasks,
        };
        (hands, receiver)
    }

    /// What this device holds.
    pub(super) fn load(&mut self) {
        self.answer(|client, _| async move {
            let (channels, outbox) = (client.channels().await, client.outbox().await);
            let channels = channels.unwrap_or_default();
            let people = channels.iter().filter_map(|it| it.peer);
            Answer::Held {
                people: people.filter_map(|it| client.known_person(it)).collect(),
                channels,
                outbox: outbox.unwrap_or_default(),
            }
        });
    }

    /// Starts an effect. Those that concern the screen itself are not for here.
    pub(super) fn start(&mut self, effect: Effect) {
        while self.tasks.try_join_next().is_some() {}
        match effect {
            Effect::Quit | Effect::Repaint => {}
            Effect::Send {
                ticket,
                channel,
                text,
            } => {
                // It fails only when everything ends.
                let what = What::New { channel, text };
                let _ = self.outgoing.send(Outgoing { ticket, what });
            }
            Effect::Retry { ticket, key } => {
                let what = What::Again(key);
                // As above.
                let _ = self.outgoing.send(Outgoing { ticket, what });
            }
            Effect::Cancel(key) => {
                self.quietly(move |client| async move { client.cancel(key).await.map(drop) });
            }
            Effect::Enter(filled) => self.answer(|client, name| async move {
                Answer::Entered(enter(&client, &filled, name.as_deref()).await)
            }),
            Effect::LogOut => self.answer(|client, _| async move {
                let result = client.log_out().await;
                Answer::LoggedOut(result.map_err(|it| words::failure(&it)))
            }),
            Effect::Hurry => self.quietly(|client| async move { client.hurry().await }),
            Effect::Open(channel) => {
                self.quietly(move |client| async move { client.open_channel(channel).await });
            }
            Effect::Close(channel) => {
                self.quietly(move |client| async move { client.close_channel(channel).await });
            }
            Effect::MarkRead(channel, seq) => {
                self.quietly(move |client| async move { client.mark_read(channel, seq).await });
            }
            Effect::Load {
                channel,
                visit,
                page,
            } => self.answer(move |client, _| async move {
                Answer::Page {
                    channel,
                    visit,
                    page,
                    result: load(&client, channel, page).await,
                }
            }),
            Effect::Previews(channels) => self.previews(channels),
            Effect::AskPeople(users) => self.ask_people(users),
            effect => self.answer(|client, _| async move { request(&client, effect).await }),
        }
    }

    /// Runs something and gives its answer to the screen.
    fn answer<F, W>(&mut self, work: F)
    where
        F: FnOnce(Client, Option<String>) -> W,
        W: Future<Output = Answer> + Send + 'static,
    {
        let work = work(self.client.clone(), self.display_name.clone());
        let answers = self.answers.clone();
        self.tasks.spawn(async move {
            // It fails only when everything ends.
            let _ = answers.send(Happening::Answer(work.await)).await;
        });
    }

    /// Runs something of which there is nothing to say: it fails only when the client has ended, which is said anyway.
    fn quietly<F, W>(&mut self, work: F)
    where
        F: FnOnce(Client) -> W,
        W: Future<Output = Result<(), ClientError>> + Send + 'static,
    {
        let work = work(self.client.clone());
        self.tasks.spawn(async move { drop(work.await) });
    }

    /// The newest event of each channel, of those that this device holds.
    fn previews(&mut self, channels: Vec<ChannelId>) {
        let (client, answers) = (self.client.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            for channels in channels.chunks(PREVIEWS_MAX) {
                let mut newest = Vec::new();
                for channel in channels {
                    newest.extend(client.history(*channel, None, 1).await.unwrap_or_default());
                }
                let answer = Happening::Answer(Answer::Previews(newest));
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        });
    }

    /// What is remembered first, then what the server says.
    fn ask_people(&mut self, asked: Vec<UserId>) {
        let (client, answers) = (self.client.clone(), self.answers.clone());
        self.tasks.spawn(async move {
            let remembered = asked.iter().filter_map(|it| client.known_person(*it));
            let remembered = Answer::Remembered(remembered.collect());
            // Sending fails only when everything ends.
            let _ = answers.send(Happening::Answer(remembered)).await;
            let found = client.refresh_people(&asked).await.ok();
            let answer = Answer::People { asked, found };
            let _ = answers.send(Happening::Answer(answer)).await;
        });
    }
}

/// Puts messages into the outbox, one after the other.
async fn send_all(
    client: Client,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    answers: mpsc::Sender<Happening>,
) {
    while let Some(message) = queue.recv().await {
        let taken = match message.what {
            What::New { channel, text } => client.send(channel, &text).await,
            What::Again(key) => client.retry(key).await,
        };
        let answer = Answer::Taken {
            ticket: message.ticket,
            // Events tell how it ends, by its key.
            result: taken.map(|it| it.key()).map_err(|it| words::failure(&it)),
        };
        if answers.send(Happening::Answer(answer)).await.is_err() {
            return;
        }
    }
}

async fn enter(
    client: &Client,
    filled: &Filled,
    display_name: Option<&str>,
) -> Result<conch_client::Account, (String, Option<Field>)> {
    if client.account().await.is_some() {
        // The server has ended the login that is kept here.
        let left = client.log_out().await;
        left.map_err(|error| (words::failure(&error), None))?;
    }
    let (handle, password) = (&filled.handle, &filled.password);
    let entered = match filled.purpose {
        Purpose::SignUp => {
            let device = device_name();
            client
                .sign_up(handle, password, display_name, &device)
                .await
        }
        Purpose::LogIn => client.log_in(handle, password, &device_name()).await,
    };
    let account = entered.map_err(|error| (words::failure(&error), wrong_field(&error)))?;
    match client.connect().await {
        Ok(()) => Ok(account),
        Err(error) => Err((words::failure(&error), None)),
    }
}

/// What of the form the server did not like.
fn wrong_field(error: &ClientError) -> Option<Field> {
    let ClientError::Api(error) = error else {
        return None;
    };
    let is = |code| ApiError::is(error, code);
    if is("handle_taken") || is("invalid_handle") {
        Some(Field::Handle)
    } else if is("wrong_credentials") || is("invalid_password") {
        Some(Field::Password)
    } else {
        None
    }
}

async fn load(
    client: &Client,
    channel: ChannelId,
    page: Page,
) -> Result<Vec<conch_client::core::Message>, String> {
    let page = match page {
        Page::Newest => client.history(channel, None, PAGE_ITEMS).await,
        Page::OlderThan(seq) => client.history(channel, Some(seq), PAGE_ITEMS).await,
        Page::NewerThan(seq) => client.newer(channel, seq, PAGE_ITEMS).await,
    };
    page.map_err(|error| match error {
        ClientError::Offline => "messages come with the connection".to_owned(),
        error => words::failure(&error),
    })
}

/// What is asked of the server by a command.
async fn request(client: &Client, effect: Effect) -> Answer {
    match effect {
        Effect::Direct(handle) => Answer::Made(direct(client, &handle).await),
        Effect::Group { title, handles } => Answer::Made(group(client, &title, &handles).await),
        Effect::Members(channel) => Answer::Members(members(client, channel).await),
        Effect::Devices => Answer::Devices(match client.devices().await {
            Ok(devices) => Ok((1..)
                .zip(&devices)
                .map(|(n, it)| (it.device, format!("{n:>2}  {}", show::device(it, now_ms()))))
                .collect()),
            Err(error) => Err(words::failure(&error)),
        }),
        effect => Answer::Done(change(client, effect).await),
    }
}

async fn person(client: &Client, handle: &str) -> Result<UserId, String> {
    match client.user_by_handle(handle).await {
        Ok(person) => Ok(person.user),
        Err(ClientError::Api(error)) if error.is("not_found") => Err(format!(
            "there is nobody called @{}",
            harmless::name(handle)
        )),
        Err(error) => Err(words::failure(&error)),
    }
}

async fn people(client: &Client, handles: &[String]) -> Result<Vec<UserId>, String> {
    let mut users = Vec::new();
    for handle in handles {
        users.push(person(client, handle).await?);
    }
    Ok(users)
}

async fn direct(client: &Client, handle: &str) -> Result<ChannelId, String> {
    let user = person(client, handle).await?;
    let channel = client.direct(user).await;
    channel.map(|it| it.id()).map_err(|it| words::failure(&it))
}

async fn group(client: &Client, title: &str, handles: &[String]) -> Result<ChannelId, String> {
    let users = people(client, handles).await?;
    let channel = client.create_group(title, &users).await;
    channel.map(|it| it.id()).map_err(|it| words::failure(&it))
}

async fn members(client: &Client, channel: ChannelId) -> Result<Vec<String>, String> {
    let members = client.members(channel).await;
    let members = members.map_err(|it| words::failure(&it))?;
    let line = |member: &conch_client::Member| {
        let role = match member.role {
            MemberRole::Owner => ", owner",
            MemberRole::Admin => ", admin",
            MemberRole::Member => "",
        };
        let name = harmless::name(&member.person.display_name);
        format!("{name} @{}{role}", harmless::name(&member.person.handle))
    };
    Ok(members.iter().map(line).collect())
}

/// Changes something, and says what was done.
async fn change(client: &Client, effect: Effect) -> Result<String, String> {
    let done = match effect {
        Effect::Add(channel, handles) => {
            let users = people(client, &handles).await?;
            client
                .add_members(channel, &users)
                .await
                .map(drop)
                .map(|()| "added")
        }
        Effect::Remove(channel, handle) => {
            let user = person(client, &handle).await?;
            client
                .remove_member(channel, user)
                .await
                .map(|()| "removed")
        }
        Effect::Leave(channel) => client.leave(channel).await.map(|()| "you have left"),
        Effect::Rename(channel, title) => client.rename(channel, &title).await.map(|()| "renamed"),
        Effect::RemoveDevice(device) => {
            let removed = client.remove_device(device).await;
            removed.map(|()| "that device is logged out")
        }
        // Everything else is carried out elsewhere.
        _ => Ok(""),
    };
    done.map(str::to_owned).map_err(|it| words::failure(&it))
}
