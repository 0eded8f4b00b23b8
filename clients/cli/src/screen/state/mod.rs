//! What the screen shows and what it wants done: the pure half of the full-screen client.
//!
//! In go [`Happening`]s (a key, an event of the client, an answer, the time) with the time; out come [`Effect`]s, which the
//! shell carries out and answers with [`Answer`]s. `view` draws an [`App`] and changes nothing. So every screen that there
//! is can be made in a test, without a terminal, a clock or a node.
//!
//! | file | concept |
//! |---|---|
//! | `keys.rs` | what a key does |
//! | `doing.rs` | what a line with a slash does |
//! | `answers.rs` | what the client says, and how effects ended |
//! | `channels.rs` | the list |
//! | `conversation.rs` | the channel that is shown, as a window of its log |
//! | `scrolling.rs` | which part of the window is in view |
//! | `outbox.rs` | own messages on their way |
//! | `people.rs` | names, and when to ask for them again |
//! | `input.rs` | the line being written |
//! | `entry.rs` | signing up and logging in |

pub(crate) mod answers;
pub(crate) mod channels;
pub(crate) mod conversation;
mod doing;
pub(crate) mod entry;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod outbox;
pub(crate) mod people;
mod scrolling;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use conch_client::core::{ConnectionState, StopReason};
use conch_client::wire::{ChannelId, DeviceId, MessageKey, Seq, UserId};
use conch_client::{Account, Transport};
use jiff::tz::TimeZone;
use ratatui::crossterm::event::KeyEvent;
use ratatui::layout::Size;

use self::channels::Channels;
use self::conversation::{Conversation, Page};
use self::entry::{Entry, Filled};
use self::input::Input;
use self::outbox::Outbox;
use self::people::People;

pub(crate) use self::answers::Answer;

/// How long a passing word stays, in milliseconds.
const NOTICE_MS: u64 = 8_000;
/// Unfinished lines that are kept, one per channel.
const DRAFTS_MAX: usize = 200;

/// Something that the screen has to know of.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Key(KeyEvent),
    Pasted(String),
    Resized(Size),
    /// The person looks at this terminal, or looks away.
    Focused(bool),
    Client(conch_client::core::Event),
    /// What carries the connection from now on.
    Carried(Option<Transport>),
    Answer(Answer),
    /// Time has passed.
    Tick,
}

/// Something to be done outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Enter(Filled),
    LogOut,
    /// Connect now, without sitting out the delay.
    Hurry,
    /// In the order in which they were written.
    Send {
        ticket: u64,
        channel: ChannelId,
        text: String,
    },
    /// A message that was refused, once more.
    Retry {
        ticket: u64,
        key: MessageKey,
    },
    /// A message that was refused is taken back.
    Cancel(MessageKey),
    /// The channel is shown.
    Open(ChannelId),
    Close(ChannelId),
    Load {
        channel: ChannelId,
        visit: u64,
        page: Page,
    },
    MarkRead(ChannelId, Seq),
    /// The newest event of each.
    Previews(Vec<ChannelId>),
    AskPeople(Vec<UserId>),
    Direct(String),
    Group {
        title: String,
        handles: Vec<String>,
    },
    Members(ChannelId),
    Add(ChannelId, Vec<String>),
    Remove(ChannelId, String),
    Leave(ChannelId),
    Rename(ChannelId, String),
    Devices,
    RemoveDevice(DeviceId),
    /// Paint everything anew: something else wrote over the screen.
    Repaint,
    Quit,
}

/// What lies over the conversation.
#[derive(Clone, Debug)]
pub(crate) enum Overlay {
    Help {
        scrolled: u16,
    },
    /// Whom to write to.
    NewDirect(Input),
    /// Members, devices: lines that are harmless already.
    Listing {
        title: String,
        lines: Vec<String>,
        scrolled: u16,
    },
}

/// A word of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Notice {
    pub(crate) words: String,
    pub(crate) is_error: bool,
    /// Errors stay until the next line is sent.
    pub(crate) until_ms: Option<u64>,
}

/// Where the connection stands, with the next attempt as a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) state: ConnectionState,
    pub(crate) retry_at_ms: u64,
    pub(crate) transport: Option<Transport>,
}

impl Link {
    pub(crate) fn is_online(&self) -> bool {
        self.state == ConnectionState::Online
    }
}

/// What the shell knows when it begins.
#[derive(Clone)]
pub(crate) struct Beginning {
    pub(crate) size: Size,
    pub(crate) now_ms: u64,
    pub(crate) zone: TimeZone,
    pub(crate) colours: bool,
    pub(crate) server: String,
    pub(crate) account: Option<Account>,
    pub(crate) password: Option<String>,
    /// Something to say first.
    pub(crate) word: Option<String>,
}

/// See the file's head.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) size: Size,
    pub(crate) now_ms: u64,
    pub(crate) zone: TimeZone,
    pub(crate) colours: bool,
    /// As it was given on the command line, harmless.
    pub(crate) server: String,
    pub(crate) me: Option<Account>,
    pub(crate) link: Link,
    /// The form, while nobody is logged in or the login is over.
    pub(crate) entry: Option<Entry>,
    pub(crate) channels: Channels,
    pub(crate) open: Option<Conversation>,
    pub(crate) input: Input,
    drafts: BTreeMap<ChannelId, Input>,
    pub(crate) outbox: Outbox,
    pub(crate) people: People,
    pub(crate) overlay: Option<Overlay>,
    pub(crate) notice: Option<Notice>,
    /// On a narrow screen: the list, in place of the conversation.
    pub(crate) list_shown: bool,
    focused: bool,
    /// Of the last /devices, by their numbers.
    devices: Vec<DeviceId>,
    password: Option<String>,
    visits: u64,
    effects: Vec<Effect>,
    changed: bool,
}

impl App {
    pub(crate) fn new(beginning: Beginning) -> App {
        let entry = match beginning.account {
            None => Some(Entry::new(beginning.password.as_deref())),
            Some(_) => None,
        };
        let mut app = App {
            size: beginning.size,
            now_ms: beginning.now_ms,
            zone: beginning.zone,
            colours: beginning.colours,
            server: crate::harmless::line(&beginning.server),
            me: beginning.account,
            link: Link {
                state: ConnectionState::Stopped(StopReason::Closed),
                retry_at_ms: 0,
                transport: None,
            },
            entry,
            channels: Channels::default(),
            open: None,
            input: Input::default(),
            drafts: BTreeMap::new(),
            outbox: Outbox::default(),
            people: People::default(),
            overlay: None,
            notice: None,
            list_shown: false,
            focused: true,
            devices: Vec::new(),
            password: beginning.password,
            visits: 0,
            effects: Vec::new(),
            changed: true,
        };
        if let Some(word) = beginning.word {
            app.complain(word);
        }
        app
    }

    /// Deals with one thing. `now_ms`: ms since 1970.
    pub(crate) fn update(&mut self, now_ms: u64, happening: Happening) {
        let was = std::mem::replace(&mut self.now_ms, now_ms);
        match happening {
            Happening::Tick => self.on_tick(was),
            happening => {
                self.changed = true;
                self.on_happening(happening);
            }
        }
        self.settle();
    }

    fn on_happening(&mut self, happening: Happening) {
        match happening {
            Happening::Key(key) => self.on_key(key),
            Happening::Pasted(text) => self.on_pasted(&text),
            Happening::Resized(size) => {
                self.size = size;
                self.keep_in_view();
            }
            Happening::Focused(focused) => self.on_focused(focused),
            Happening::Client(event) => self.on_client(event),
            Happening::Carried(transport) => self.link.transport = transport,
            Happening::Answer(answer) => self.on_answer(answer),
            Happening::Tick => {}
        }
    }

    /// What follows from what is shown now: names to ask for, pages to load, marks to set.
    fn settle(&mut self) {
        self.load_around();
        if self.focused
            && self.overlay.is_none()
            && self.entry.is_none()
            && !self.is_list_alone()
            && let Some(open) = &mut self.open
            && let Some(seq) = open.mark()
        {
            self.effects.push(Effect::MarkRead(open.channel, seq));
        }
        if self.me.is_some()
            && let Some(users) = self.people.ask(self.now_ms)
        {
            self.effects.push(Effect::AskPeople(users));
        }
    }

    fn on_tick(&mut self, was_ms: u64) {
        let day = |ms| crate::show::date(ms, &self.zone);
        // Day separators and times name days as seen from today.
        let new_day = day(was_ms) != day(self.now_ms);
        let over = |it: &Notice| it.until_ms.is_some_and(|until| until <= self.now_ms);
        if self.notice.as_ref().is_some_and(over) {
            self.notice = None;
            self.changed = true;
        }
        let patience_over = self.outbox.on_time(self.now_ms);
        self.changed |= new_day || patience_over || self.counts_down();
    }

    fn counts_down(&self) -> bool {
        matches!(self.link.state, ConnectionState::Offline { .. })
            && self.link.retry_at_ms + 1_000 > self.now_ms
    }

    /// When the next [`Happening::Tick`] is due, in ms since 1970.
    pub(crate) fn wake_at_ms(&self) -> u64 {
        let countdown = self.counts_down().then(|| self.now_ms + 1_000);
        let notice = self.notice.as_ref().and_then(|it| it.until_ms);
        [
            countdown,
            notice,
            self.outbox.wake_at_ms(),
            self.me.as_ref().and(self.people.wake_at_ms()),
        ]
        .into_iter()
        .flatten()
        .chain([crate::show::next_day(self.now_ms, &self.zone)])
        .min()
        .unwrap_or(u64::MAX)
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether the screen shows something else than when this was asked last.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether this is somebody's own.
    pub(crate) fn is_me(&self, user: UserId) -> bool {
        self.me.as_ref().is_some_and(|me| me.user == user)
    }

    fn say(&mut self, words: impl Into<String>) {
        self.notice = Some(Notice {
            words: crate::harmless::line(&words.into()),
            is_error: false,
            until_ms: Some(self.now_ms + NOTICE_MS),
        });
    }

    fn complain(&mut self, words: impl Into<String>) {
        self.notice = Some(Notice {
            words: crate::harmless::line(&words.into()),
            is_error: true,
            until_ms: None,
        });
    }

    // ---- going from channel to channel ----

    fn go_to(&mut self, channel: ChannelId) {
        self.list_shown = false;
        if self.open.as_ref().map(|it| it.channel) == Some(channel) {
            return;
        }
        self.go_nowhere();
        let info = self.channels.entry(channel).map(|it| &it.info);
        let unread_after = info.filter(|it| it.unread > 0).map(|it| it.read_seq);
        self.visits += 1;
        self.open = Some(Conversation::new(channel, self.visits, unread_after));
        self.input = self.drafts.remove(&channel).unwrap_or_default();
        self.effects.push(Effect::Open(channel));
        self.load(Page::Newest);
    }

    fn go_nowhere(&mut self) {
        let Some(open) = self.open.take() else { return };
        let input = std::mem::take(&mut self.input);
        if !input.is_empty() && self.drafts.len() < DRAFTS_MAX {
            self.drafts.insert(open.channel, input);
        }
        self.effects.push(Effect::Close(open.channel));
    }

    fn load(&mut self, page: Page) {
        if let Some(open) = &self.open {
            self.effects.push(Effect::Load {
                channel: open.channel,
                visit: open.visit,
                page,
            });
        }
    }

    fn on_focused(&mut self, focused: bool) {
        if self.focused && !focused {
            // Whatever comes now is new to the person when they are back.
            if let Some(open) = &mut self.open {
                open.unread_after = Some(open.last_seq());
            }
        }
        self.focused = focused;
        if focused && !self.link.is_online() {
            self.effects.push(Effect::Hurry);
        }
    }
}
