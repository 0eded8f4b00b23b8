//! What the client says by itself, and how effects ended.

use conch_client::core::{
    ChannelInfo, ConnectionState, Event, Message, OutboxMessage, RefusalReason,
};
use conch_client::wire::{ChannelId, DeviceId, MessageKey, UserId};
use conch_client::{Account, Person};

use super::conversation::Page;
use super::entry::Field;
use super::{App, Effect, Link, Overlay};
use crate::words;

/// How an effect ended. Errors are words for the person.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// What this device holds.
    Held {
        channels: Vec<ChannelInfo>,
        outbox: Vec<OutboxMessage>,
        people: Vec<Person>,
    },
    Entered(Result<Account, (String, Option<Field>)>),
    LoggedOut(Result<(), String>),
    /// The message is safe on this device.
    Taken {
        ticket: u64,
        result: Result<MessageKey, String>,
    },
    Page {
        channel: ChannelId,
        visit: u64,
        page: Page,
        result: Result<Vec<Message>, String>,
    },
    Previews(Vec<Message>),
    /// What this device remembers of people, before the server is asked.
    Remembered(Vec<Person>),
    People {
        asked: Vec<UserId>,
        found: Option<Vec<Person>>,
    },
    /// A channel to go to.
    Made(Result<ChannelId, String>),
    Members(Result<Vec<String>, String>),
    Devices(Result<Vec<(DeviceId, String)>, String>),
    /// Something was done, in words.
    Done(Result<String, String>),
}

impl App {
    pub(super) fn on_client(&mut self, event: Event) {
        match event {
            Event::Connection(state) => self.on_connection(state),
            Event::Message(message) => self.on_message(&message),
            Event::SendStored { key, .. } => self.outbox.on_stored(key),
            Event::SendRefused { key, reason, .. } => self.on_refused(key, reason),
            // What it tells is told by the events of each message.
            Event::Outbox { .. } => {}
            Event::SendsDelayed {
                channel,
                code,
                retry_in_ms,
            } => {
                let until_ms = self.now_ms + retry_in_ms;
                self.outbox.on_delayed(channel, code, until_ms);
            }
            Event::Channel(info) => self.on_channel(info),
            Event::ChannelRemoved { channel } => {
                self.channels.remove(channel);
                if self.is_open(channel) {
                    self.go_nowhere();
                    self.complain("this conversation is gone");
                }
            }
            Event::ChannelReset { channel } => {
                self.channels.forget_preview(channel);
                if self.is_open(channel)
                    && let Some(open) = &mut self.open
                {
                    let page = open.begin_newest();
                    self.load(page);
                }
            }
            Event::Skipped { channel, from, to } => {
                if self.is_open(channel)
                    && let Some(open) = &mut self.open
                {
                    open.on_skipped(from, to, self.now_ms);
                }
            }
        }
    }

    fn on_refused(&mut self, key: MessageKey, reason: RefusalReason) {
        self.outbox.on_refused(key, reason);
        if reason != RefusalReason::Cancelled {
            let why = words::refusal(reason);
            self.complain(format!("a message was not sent: {why}"));
        }
    }

    fn is_open(&self, channel: ChannelId) -> bool {
        self.open.as_ref().is_some_and(|it| it.channel == channel)
    }

    fn on_connection(&mut self, state: ConnectionState) {
        let retry_at_ms = match state {
            ConnectionState::Offline { retry_in_ms, .. } => self.now_ms + retry_in_ms,
            _ => 0,
        };
        self.link = Link {
            state,
            retry_at_ms,
            ..self.link
        };
        match state {
            ConnectionState::Online => {
                self.people.on_online();
                self.want_people_in_view();
                if let Some(open) = &mut self.open {
                    open.on_online();
                }
            }
            ConnectionState::Stopped(reason)
                if words::is_login_over(reason) && self.me.is_some() && self.entry.is_none() =>
            {
                self.show_entry(Some(format!(
                    "{}. What is here stays; Esc goes back to it",
                    words::stopped(reason).trim_end_matches(": /login HANDLE")
                )));
            }
            _ => {}
        }
    }

    /// The server will not have this login any more.
    pub(crate) fn is_login_over(&self) -> bool {
        matches!(self.link.state, ConnectionState::Stopped(reason) if words::is_login_over(reason))
    }

    fn on_channel(&mut self, info: ChannelInfo) {
        let left = info.left && self.is_open(info.channel);
        let was_left = self
            .channels
            .entry(info.channel)
            .is_some_and(|it| it.info.left);
        if left && !was_left {
            self.complain("you are not a member here any more; what came before can be read");
        }
        if let Some(peer) = info.peer {
            self.people.want(self.now_ms, peer);
        }
        self.channels.put(info);
    }

    fn on_message(&mut self, message: &Message) {
        if let Some(key) = message.key {
            self.outbox.on_placed(key);
        }
        self.channels.on_message(message);
        self.want_people_of(std::slice::from_ref(message));
        if self.is_open(message.channel)
            && let Some(open) = &mut self.open
        {
            open.on_event(message);
        }
    }

    pub(super) fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Held {
                channels,
                outbox,
                people,
            } => self.on_held(channels, outbox, &people),
            Answer::Entered(Ok(account)) => {
                self.say(format!(
                    "you are {} (@{})",
                    account.display_name, account.handle
                ));
                self.me = Some(account);
                self.entry = None;
            }
            Answer::Entered(Err((word, field))) => {
                if let Some(entry) = &mut self.entry {
                    entry.on_failed(crate::harmless::line(&word), field);
                }
            }
            Answer::LoggedOut(Ok(())) => {
                self.go_nowhere();
                self.me = None;
                let word = "logged out; what this device received stays in its folder";
                self.show_entry(Some(word.to_owned()));
            }
            Answer::Taken { ticket, result } => self.on_taken(ticket, result),
            Answer::Page {
                channel,
                visit,
                page,
                result,
            } => self.on_page(channel, visit, page, result),
            Answer::Previews(messages) => {
                for message in &messages {
                    self.channels.on_message(message);
                }
                self.want_people_of(&messages);
            }
            Answer::Remembered(people) => self.people.on_remembered(&people),
            Answer::People { asked, found } => {
                self.people.on_answer(self.now_ms, &asked, found.as_deref());
            }
            Answer::Made(Ok(channel)) => self.go_to(channel),
            Answer::Members(Ok(lines)) => self.list("Members", lines),
            Answer::Devices(Ok(devices)) => {
                let (ids, lines) = devices.into_iter().unzip();
                self.devices = ids;
                self.list("Devices", lines);
            }
            Answer::Done(Ok(words)) => self.say(words),
            Answer::LoggedOut(Err(why))
            | Answer::Made(Err(why))
            | Answer::Members(Err(why))
            | Answer::Devices(Err(why))
            | Answer::Done(Err(why)) => self.complain(why),
        }
    }

    fn list(&mut self, title: &str, lines: Vec<String>) {
        let lines = lines.iter().map(|it| crate::harmless::line(it)).collect();
        self.overlay = Some(Overlay::Listing {
            title: title.to_owned(),
            lines,
            scrolled: 0,
        });
    }

    fn on_held(
        &mut self,
        channels: Vec<ChannelInfo>,
        outbox: Vec<OutboxMessage>,
        people: &[Person],
    ) {
        self.people.on_remembered(people);
        for info in channels {
            self.on_channel(info);
        }
        self.outbox.load(outbox);
        let without = self.channels.without_preview();
        if !without.is_empty() {
            self.effects.push(Effect::Previews(without));
        }
    }

    fn on_taken(&mut self, ticket: u64, result: Result<MessageKey, String>) {
        let why = match result {
            Ok(key) => return self.outbox.on_taken(ticket, key),
            Err(why) => why,
        };
        // What could not be kept goes back to where it was written.
        if let Some(text) = self.outbox.on_not_taken(ticket)
            && self.input.is_empty()
        {
            self.input = super::input::Input::of(&text);
        }
        self.complain(format!("not taken: {why}"));
    }

    fn on_page(
        &mut self,
        channel: ChannelId,
        visit: u64,
        page: Page,
        result: Result<Vec<Message>, String>,
    ) {
        let online = self.link.is_online();
        let first_seq = self
            .channels
            .entry(channel)
            .map_or(1, |it| it.info.first_seq);
        let Some(open) = self.open.as_mut().filter(|it| it.visit == visit) else {
            return;
        };
        match result {
            Ok(messages) => {
                open.on_page(page, &messages, first_seq, online);
                self.want_people_of(&messages);
                if page == Page::Newest {
                    for message in &messages {
                        self.channels.on_message(message);
                    }
                }
            }
            Err(why) => open.on_page_failed(page, why),
        }
    }

    /// Names that these messages show.
    fn want_people_of(&mut self, messages: &[Message]) {
        use conch_client::core::Content;
        /// Of a long list of members the first are named.
        const NAMED_MAX: usize = 8;
        for message in messages {
            self.people.want(self.now_ms, message.author);
            if let Content::MembersAdded { members } | Content::MemberRemoved { members } =
                &message.content
            {
                for user in members.iter().take(NAMED_MAX) {
                    self.people.want(self.now_ms, *user);
                }
            }
        }
    }

    /// Names that are on the screen now may have changed while we were away.
    fn want_people_in_view(&mut self) {
        /// What is further up is asked for when it comes into view again.
        const ITEMS: usize = 100;
        let peers = self.channels.present().filter_map(|it| it.info.peer);
        let items = self.open.iter().flat_map(|it| it.items().iter().rev());
        let users: Vec<_> = peers.chain(items.take(ITEMS).map(|it| it.author)).collect();
        for user in users {
            self.people.want(self.now_ms, user);
        }
    }
}
