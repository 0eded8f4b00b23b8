//! The conversation in plain lines (`--plain`, and wherever there is no terminal): lines typed by the person, and what
//! happens meanwhile.
//!
//! A typed message is safe in the data folder before the next line is read. `·` marks one on its way, `✓` one that the
//! server has, `✗` one that it will never take. At the end of a pipe the program waits for the answers before it ends.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use conch_client::core::{
    ChannelInfo, ConnectionState, Content, Event, Message, OutboxMessage, SendState,
};
use conch_client::wire::{ChannelId, DeviceId, MemberRole, MessageKey, Seq, UserId};
use conch_client::{Client, ClientError, EventStream};
use jiff::tz::TimeZone;
use tokio::time::{Instant, sleep_until};

use crate::commands::{Line, help};
use crate::lines::Lines;
use crate::names::Names;
use crate::script::device_name;
use crate::{harmless, now_ms, show, words};

/// Messages shown when a channel is opened.
const OPENING_ITEMS: u32 = 20;
/// A person at a terminal is told that a message is on its way only if that takes longer than this.
const SENDING_SHOWN: Duration = Duration::from_millis(400);
/// A message of another channel is mentioned if it is not older than this, in milliseconds.
const RECENT_MS: u64 = 60_000;
/// How long the end of a pipe waits for answers.
const END_WAIT: Duration = Duration::from_secs(60);

/// A message that is not answered yet.
struct Sending {
    text: String,
    channel: ChannelId,
    since: Instant,
    said: bool,
}

struct Chat<'a> {
    client: &'a Client,
    names: Names,
    events: EventStream,
    lines: Lines,
    display_name: Option<String>,
    is_terminal: bool,
    /// Where typed lines go.
    current: Option<ChannelId>,
    /// What of it is on the screen.
    shown: Option<(Seq, Seq)>,
    /// Channels by the numbers of the last list.
    listed: Vec<ChannelId>,
    /// Devices by the numbers of the last list.
    devices: Vec<DeviceId>,
    sending: BTreeMap<MessageKey, Sending>,
    connected: bool,
}

/// Talks until the person leaves or the input ends.
pub(crate) async fn run(client: &Client, display_name: Option<String>) -> anyhow::Result<()> {
    let mut chat = Chat {
        client,
        names: Names::new(client),
        events: client.events().await?,
        lines: Lines::new(),
        display_name,
        is_terminal: std::io::stdin().is_terminal(),
        current: None,
        shown: None,
        listed: Vec::new(),
        devices: Vec::new(),
        sending: BTreeMap::new(),
        connected: false,
    };
    chat.begin().await?;
    chat.talk().await
}

impl Chat<'_> {
    async fn begin(&mut self) -> anyhow::Result<()> {
        if let Some(rebuilt) = self.client.rebuilt() {
            say(&words::rebuilt(&rebuilt));
        }
        let Some(account) = self.client.account().await else {
            say(
                "welcome. /signup HANDLE makes an account, /login HANDLE logs in, /help tells the rest",
            );
            return Ok(());
        };
        say(&format!(
            "you are {} (@{})",
            harmless::name(&account.display_name),
            account.handle
        ));
        let waiting = self.unsent().await?;
        if !waiting.is_empty() {
            say(&format!(
                "{} messages of last time are still to be sent",
                waiting.len()
            ));
        }
        for item in waiting {
            if let Content::Text { text, .. } = item.content {
                self.remember(item.key, item.channel, text);
            }
        }
        self.client.connect().await?;
        self.list().await
    }

    async fn talk(&mut self) -> anyhow::Result<()> {
        loop {
            let slow = self.next_slow();
            tokio::select! {
                line = self.lines.next() => match line {
                    Some(line) => {
                        if self.on_line(&line).await? {
                            return self.end().await;
                        }
                    }
                    None => return self.finish_pipe().await,
                },
                event = self.events.next() => match event {
                    Some(event) => self.on_event(event).await?,
                    None => return Ok(()),
                },
                () = sleep_until(slow) => self.say_slow(),
            }
        }
    }

    /// True: the person leaves.
    async fn on_line(&mut self, line: &str) -> anyhow::Result<bool> {
        let outcome = match Line::parse(line) {
            Line::Empty => Ok(()),
            Line::Text(text) => self.send(text).await,
            Line::Signup { handle } => self.sign_up(&handle).await,
            Line::Login { handle } => self.log_in(&handle).await,
            Line::Logout => self.log_out().await,
            Line::Direct { handle } => self.direct(&handle).await,
            Line::Group { title, handles } => self.group(&title, &handles).await,
            Line::Open { which } => self.open_which(&which).await,
            Line::Close => self.close().await,
            Line::List => self.list().await,
            Line::History { items } => self.older(items).await,
            Line::Members => self.members().await,
            Line::Add { handles } => self.add(&handles).await,
            Line::Remove { handle } => self.remove(&handle).await,
            Line::Leave => self.leave().await,
            Line::Rename { title } => self.rename(&title).await,
            Line::Devices => self.list_devices().await,
            Line::RemoveDevice { number } => self.remove_device(number).await,
            Line::Who => self.who().await,
            Line::Help => {
                println!("{}", help());
                Ok(())
            }
            Line::Quit => return Ok(true),
            Line::Wrong(what) => {
                say(&what);
                Ok(())
            }
        };
        // What one line could not do is said; the conversation goes on. Only a client that ended ends it.
        if let Err(error) = outcome {
            if matches!(error.downcast_ref(), Some(ClientError::Closed)) {
                return Err(error);
            }
            let why = match error.downcast_ref() {
                Some(error) => words::failure(error),
                None => format!("{error:#}"),
            };
            say(&format!("that did not work: {}", harmless::line(&why)));
        }
        Ok(false)
    }

    // ---- messages ----

    async fn send(&mut self, text: String) -> anyhow::Result<()> {
        let Some(channel) = self.current else {
            say("nobody hears you yet: /dm HANDLE, /group TITLE HANDLE…, or /list and /open N");
            return Ok(());
        };
        // The handle is not needed: events tell by the key.
        let handle = self.client.send(channel, text.as_str()).await?;
        self.remember(handle.key(), channel, text);
        Ok(())
    }

    fn remember(&mut self, key: MessageKey, channel: ChannelId, text: String) {
        let sending = Sending {
            text,
            channel,
            since: Instant::now(),
            said: !self.is_terminal,
        };
        if sending.said {
            println!("  · sending: {}", show::beginning(&sending.text));
        }
        self.sending.insert(key, sending);
    }

    /// When something is to be said about a message that takes long.
    fn next_slow(&self) -> Instant {
        let slow = self
            .sending
            .values()
            .filter(|it| !it.said)
            .map(|it| it.since + SENDING_SHOWN);
        slow.min()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600))
    }

    fn say_slow(&mut self) {
        let now = Instant::now();
        for sending in self.sending.values_mut() {
            if !sending.said && sending.since + SENDING_SHOWN <= now {
                sending.said = true;
                println!("  · sending: {}", show::beginning(&sending.text));
            }
        }
    }

    async fn on_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Connection(state) => self.on_connection(state),
            Event::Message(message) => self.on_message(message).await?,
            Event::SendStored { key, time_ms, .. } => {
                if let Some(sent) = self.sending.remove(&key) {
                    let time = show::time(time_ms, now_ms(), &TimeZone::system());
                    println!("  ✓ stored {time}: {}", show::beginning(&sent.text));
                }
            }
            Event::SendRefused { key, reason, .. } => {
                if let Some(sent) = self.sending.remove(&key) {
                    println!(
                        "  ✗ not sent ({}; {}): {}",
                        reason.name(),
                        words::refusal(reason),
                        show::beginning(&sent.text)
                    );
                }
            }
            Event::Outbox { .. } => {}
            Event::SendsDelayed {
                code, retry_in_ms, ..
            } => say(&format!(
                "the server asks for patience ({}); again in {}.{} s",
                code.name(),
                retry_in_ms / 1_000,
                retry_in_ms % 1_000 / 100
            )),
            Event::Channel(info) => {
                if Some(info.channel) == self.current && info.left {
                    say("you are not a member of this channel any more");
                    self.current = None;
                }
            }
            Event::ChannelRemoved { channel } => {
                if Some(channel) == self.current {
                    say("this channel is gone");
                    self.current = None;
                }
            }
            Event::ChannelReset { channel } => {
                if Some(channel) == self.current {
                    say("the server's history has changed; /history shows it again");
                    self.shown = None;
                }
            }
            Event::Skipped { channel, from, to } => {
                if Some(channel) == self.current {
                    say(&format!("messages {from} to {to} are not to be had"));
                }
            }
        }
        Ok(())
    }

    fn on_connection(&mut self, state: ConnectionState) {
        match state {
            // Attempts are not news; the first loss and the return are.
            ConnectionState::Connecting => return,
            ConnectionState::Offline { .. } if !self.connected && !self.sending.is_empty() => {
                return;
            }
            _ => {}
        }
        let was_connected =
            std::mem::replace(&mut self.connected, state == ConnectionState::Online);
        let is_stopped = matches!(state, ConnectionState::Stopped(_));
        if self.connected || was_connected || is_stopped {
            say(&words::connection(state));
        }
    }

    async fn on_message(&mut self, message: Message) -> anyhow::Result<()> {
        if Some(message.channel) != self.current {
            return self.mention(&message).await;
        }
        let (first, last) = self.shown.unwrap_or((message.seq, 0));
        if message.seq <= last {
            return Ok(());
        }
        self.shown = Some((first, message.seq));
        // What was typed here stands on the screen already.
        if message.key.is_none() {
            self.print(&message).await;
        }
        Ok(self.client.mark_read(message.channel, message.seq).await?)
    }

    /// A word about a message that is not where the person is.
    async fn mention(&mut self, message: &Message) -> anyhow::Result<()> {
        let is_recent = message.time_ms + RECENT_MS > now_ms();
        if !is_recent || message.key.is_some() || self.is_me(message.author).await {
            return Ok(());
        }
        let channel = self.info(message.channel).await?;
        let place = match &channel {
            Some(info) => self.names.channel(info).await,
            None => format!("channel {}", message.channel),
        };
        let author = self.names.person(message.author).await;
        let content = self.names.content(message).await;
        let (place, author) = (harmless::line(&place), harmless::line(&author));
        let content = show::beginning(&content);
        match message.content {
            Content::Text { .. } | Content::Payload { .. } => {
                say(&format!("in {place}, {author}: {content}"));
            }
            _ => say(&format!("in {place}, {author} {content}")),
        }
        Ok(())
    }

    async fn print(&self, message: &Message) {
        let author = self.names.person(message.author).await;
        let content = self.names.content(message).await;
        println!("{}", show::message(message, &author, &content, now_ms()));
    }

    async fn older(&mut self, items: u32) -> anyhow::Result<()> {
        let Some(channel) = self.current else {
            say("where? /list and /open N first");
            return Ok(());
        };
        let before = self.shown.map(|(first, _)| first);
        let messages = self.client.history(channel, before, items).await?;
        self.show_page(&messages).await;
        if messages.is_empty() {
            say("that is the beginning");
        }
        Ok(())
    }

    async fn show_page(&mut self, messages: &[Message]) {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            return;
        };
        for message in messages {
            self.print(message).await;
        }
        let newest = self.shown.map_or(last.seq, |(_, newest)| newest);
        self.shown = Some((first.seq, newest));
    }

    // ---- channels ----

    async fn info(&self, channel: ChannelId) -> anyhow::Result<Option<ChannelInfo>> {
        let channels = self.client.channels().await?;
        Ok(channels.into_iter().find(|it| it.channel == channel))
    }

    async fn list(&mut self) -> anyhow::Result<()> {
        let channels: Vec<_> = self
            .client
            .channels()
            .await?
            .into_iter()
            .filter(|it| !it.left)
            .collect();
        if channels.is_empty() {
            say("no channels yet: /dm HANDLE, or /group TITLE HANDLE…");
        }
        self.listed = channels.iter().map(|it| it.channel).collect();
        for (at, info) in channels.iter().enumerate() {
            let name = self.names.channel(info).await;
            let unread = match info.unread {
                0 => String::new(),
                unread => format!("  ({unread} unread)"),
            };
            let here = if Some(info.channel) == self.current {
                "*"
            } else {
                " "
            };
            println!("{here}{:>3}  {}{unread}", at + 1, harmless::line(&name));
        }
        Ok(())
    }

    async fn open_which(&mut self, which: &str) -> anyhow::Result<()> {
        if self.listed.is_empty() {
            let channels = self.client.channels().await?;
            self.listed = channels
                .iter()
                .filter(|it| !it.left)
                .map(|it| it.channel)
                .collect();
        }
        let by_number = which.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        if let Some(channel) = by_number.and_then(|at| self.listed.get(at)) {
            return self.open(*channel).await;
        }
        for info in self.client.channels().await? {
            let name = self.names.channel(&info).await;
            if name.to_lowercase() == which.to_lowercase() {
                return self.open(info.channel).await;
            }
        }
        say(&format!(
            "there is no channel {}; /list shows them",
            harmless::line(which)
        ));
        Ok(())
    }

    async fn open(&mut self, channel: ChannelId) -> anyhow::Result<()> {
        let name = match self.info(channel).await? {
            Some(info) => self.names.channel(&info).await,
            None => "a new conversation".to_owned(),
        };
        self.enter(channel, &name).await
    }

    /// Opens what may be so new that the connection has not told of it yet.
    async fn enter(&mut self, channel: ChannelId, name: &str) -> anyhow::Result<()> {
        self.close().await?;
        self.current = Some(channel);
        self.client.open_channel(channel).await?;
        say(&format!("you are in {}", harmless::line(name)));
        match self.client.history(channel, None, OPENING_ITEMS).await {
            Ok(messages) => {
                self.show_page(&messages).await;
                if let Some(last) = messages.last() {
                    self.client.mark_read(channel, last.seq).await?;
                }
            }
            Err(ClientError::Offline) => say("its messages come with the connection"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        self.shown = None;
        if let Some(channel) = self.current.take() {
            self.client.close_channel(channel).await?;
        }
        Ok(())
    }

    async fn user(&self, handle: &str) -> anyhow::Result<UserId> {
        match self.client.user_by_handle(handle).await {
            Ok(person) => Ok(person.user),
            Err(ClientError::Api(error)) if error.is("not_found") => {
                anyhow::bail!("there is nobody called @{handle}")
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn users(&self, handles: &[String]) -> anyhow::Result<Vec<UserId>> {
        let mut users = Vec::new();
        for handle in handles {
            users.push(self.user(handle).await?);
        }
        Ok(users)
    }

    async fn direct(&mut self, handle: &str) -> anyhow::Result<()> {
        // Somebody whom this device knows needs no connection.
        for info in self.client.channels().await? {
            let peer = info.peer.and_then(|peer| self.client.known_person(peer));
            if peer.is_some_and(|person| person.handle == handle) {
                return self.open(info.channel).await;
            }
        }
        let user = self.user(handle).await?;
        let channel = self.client.direct(user).await?.id();
        let name = self.names.person(user).await;
        self.enter(channel, &name).await
    }

    async fn group(&mut self, title: &str, handles: &[String]) -> anyhow::Result<()> {
        let users = self.users(handles).await?;
        let group = self.client.create_group(title, &users).await?;
        self.enter(group.id(), title).await
    }

    /// The group where the person is.
    fn here(&self) -> anyhow::Result<ChannelId> {
        self.current
            .ok_or_else(|| anyhow::anyhow!("where? /list and /open N first"))
    }

    async fn members(&self) -> anyhow::Result<()> {
        for member in self.client.members(self.here()?).await? {
            let role = match member.role {
                MemberRole::Owner => "  (owner)",
                MemberRole::Admin => "  (admin)",
                MemberRole::Member => "",
            };
            let name = harmless::name(&member.person.display_name);
            println!("  {name} @{}{role}", harmless::name(&member.person.handle));
        }
        Ok(())
    }

    async fn add(&self, handles: &[String]) -> anyhow::Result<()> {
        let users = self.users(handles).await?;
        self.client.add_members(self.here()?, &users).await?;
        Ok(())
    }

    async fn remove(&self, handle: &str) -> anyhow::Result<()> {
        let user = self.user(handle).await?;
        Ok(self.client.remove_member(self.here()?, user).await?)
    }

    async fn leave(&mut self) -> anyhow::Result<()> {
        self.client.leave(self.here()?).await?;
        say("you have left");
        self.current = None;
        self.shown = None;
        Ok(())
    }

    async fn rename(&self, title: &str) -> anyhow::Result<()> {
        self.client.rename(self.here()?, title).await?;
        Ok(())
    }

    // ---- account ----

    async fn sign_up(&mut self, handle: &str) -> anyhow::Result<()> {
        let password = self.lines.password().await?;
        let name = self.display_name.as_deref();
        let account = self
            .client
            .sign_up(handle, &password, name, &device_name())
            .await?;
        say(&format!(
            "you are {} (@{})",
            harmless::name(&account.display_name),
            account.handle
        ));
        Ok(self.client.connect().await?)
    }

    async fn log_in(&mut self, handle: &str) -> anyhow::Result<()> {
        let password = self.lines.password().await?;
        if matches!(self.client.connection(), ConnectionState::Stopped(reason) if words::is_login_over(reason))
        {
            // The server has ended the one that is kept here.
            self.client.log_out().await?;
        }
        let account = self
            .client
            .log_in(handle, &password, &device_name())
            .await?;
        say(&format!(
            "you are {} (@{})",
            harmless::name(&account.display_name),
            account.handle
        ));
        Ok(self.client.connect().await?)
    }

    async fn log_out(&mut self) -> anyhow::Result<()> {
        self.client.log_out().await?;
        self.current = None;
        say("logged out; what this device received stays in its folder");
        Ok(())
    }

    async fn list_devices(&mut self) -> anyhow::Result<()> {
        let devices = self.client.devices().await?;
        self.devices = devices.iter().map(|it| it.device).collect();
        for (number, device) in (1..).zip(&devices) {
            println!("{number:>4}  {}", show::device(device, now_ms()));
        }
        Ok(())
    }

    async fn remove_device(&mut self, number: usize) -> anyhow::Result<()> {
        let Some(device) = self.devices.get(number - 1) else {
            say("there is no such number: /devices shows them");
            return Ok(());
        };
        self.client.remove_device(*device).await?;
        say("that device is logged out");
        Ok(())
    }

    async fn is_me(&self, user: UserId) -> bool {
        let account = self.client.account().await;
        account.is_some_and(|account| account.user == user)
    }

    async fn who(&self) -> anyhow::Result<()> {
        match self.client.account().await {
            Some(account) => say(&format!(
                "you are {} (@{}), number {}",
                account.display_name, account.handle, account.user
            )),
            None => say("nobody is logged in"),
        }
        say(&words::connection(self.client.connection()));
        if let Some(channel) = self.current
            && let Some(info) = self.info(channel).await?
        {
            let name = self.names.channel(&info).await;
            say(&format!("you are in {}", harmless::line(&name)));
        }
        if !self.sending.is_empty() {
            say(&format!("{} messages are on their way", self.sending.len()));
        }
        Ok(())
    }

    /// Messages that go out by themselves.
    async fn unsent(&self) -> anyhow::Result<Vec<OutboxMessage>> {
        let mut outbox = self.client.outbox().await?;
        outbox.retain(|it| matches!(it.state, SendState::Waiting | SendState::Sending));
        Ok(outbox)
    }

    // ---- the end ----

    async fn end(&mut self) -> anyhow::Result<()> {
        match self.unsent().await?.len() {
            0 => {}
            left => say(&format!("{left} messages are sent next time")),
        }
        Ok(())
    }

    /// The input has ended: what was typed is still to be answered.
    async fn finish_pipe(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + END_WAIT;
        while !self.sending.is_empty() {
            let Ok(event) = tokio::time::timeout_at(deadline, self.events.next()).await else {
                break;
            };
            match event {
                Some(event) => self.on_event(event).await?,
                None => break,
            }
        }
        let left: Vec<_> = self.sending.values().map(|it| it.channel).collect();
        if !left.is_empty() {
            anyhow::bail!(
                "{} messages are not stored yet; they are sent next time",
                left.len()
            );
        }
        Ok(())
    }
}

/// A word of the program, told apart from messages.
fn say(what: &str) {
    println!("-- {what}");
}
