//! What a finished line does: a message goes out, a line with a slash is carried out.

use super::entry::{Entry, Purpose};
use super::input::Input;
use super::{App, Effect, Overlay};
use crate::commands::Line;
use crate::screen::state::channels::title;
use conch_client::wire::ChannelId;

impl App {
    /// Enter was pressed.
    pub(super) fn on_line(&mut self) {
        let line = Line::parse(self.input.text());
        // A person who goes on has seen what was wrong.
        self.notice = None;
        match line {
            Line::Empty => {}
            Line::Text(text) => self.send(text),
            Line::Wrong(what) => self.complain(what),
            line => {
                self.input.take();
                self.carry_out(line);
            }
        }
    }

    fn send(&mut self, text: String) {
        let Some(open) = &mut self.open else {
            return self.complain(
                "nobody hears you yet: Ctrl-N writes to somebody, Tab opens a conversation",
            );
        };
        let channel = open.channel;
        open.unread_after = None;
        self.input.take();
        let ticket = self.outbox.begin(channel, text.clone(), self.now_ms);
        self.effects.push(Effect::Send {
            ticket,
            channel,
            text,
        });
        if !self.link.is_online() {
            // Somebody waits for the connection.
            self.effects.push(Effect::Hurry);
        }
        self.go_to_newest();
    }

    fn carry_out(&mut self, line: Line) {
        match line {
            Line::Signup { handle } => self.enter(Purpose::SignUp, &handle),
            Line::Login { handle } => self.enter(Purpose::LogIn, &handle),
            Line::Logout => self.effects.push(Effect::LogOut),
            Line::Direct { handle } => self.go_to_person(&handle),
            Line::Group { title, handles } => self.effects.push(Effect::Group { title, handles }),
            Line::Open { which } => self.go_to_which(&which),
            Line::Close => self.go_nowhere(),
            Line::List => {
                self.list_shown = true;
                self.say("Tab goes from conversation to conversation");
            }
            Line::History { items } => self.scroll(-(items as isize)),
            Line::Members => self.with_here(Effect::Members),
            Line::Add { handles } => self.with_here(|here| Effect::Add(here, handles)),
            Line::Remove { handle } => self.with_here(|here| Effect::Remove(here, handle)),
            Line::Leave => self.with_here(Effect::Leave),
            Line::Rename { title } => self.with_here(|here| Effect::Rename(here, title)),
            Line::Devices => self.effects.push(Effect::Devices),
            Line::RemoveDevice { number } => match self.devices.get(number - 1) {
                Some(device) => self.effects.push(Effect::RemoveDevice(*device)),
                None => self.complain("there is no such number: /devices shows them"),
            },
            Line::Who => self.who(),
            Line::Help => self.overlay = Some(Overlay::Help { scrolled: 0 }),
            Line::Quit => self.effects.push(Effect::Quit),
            Line::Text(_) | Line::Empty | Line::Wrong(_) => {}
        }
    }

    fn with_here(&mut self, effect: impl FnOnce(ChannelId) -> Effect) {
        match &self.open {
            Some(open) => self.effects.push(effect(open.channel)),
            None => self.complain("where? Tab opens a conversation"),
        }
    }

    /// Shows the form, with a word about why.
    pub(super) fn show_entry(&mut self, word: Option<String>) {
        let mut entry = Entry::new(self.password.as_deref());
        if let Some(me) = &self.me {
            entry.handle = Input::of(&me.handle);
            entry.step(false);
        }
        entry.word = word;
        self.entry = Some(entry);
    }

    fn enter(&mut self, purpose: Purpose, handle: &str) {
        if self.me.is_some() && !self.is_login_over() {
            return self.complain("you are logged in: /logout first");
        }
        self.show_entry(None);
        if let Some(entry) = &mut self.entry {
            entry.turn(purpose);
            entry.handle = Input::of(handle);
        }
    }

    /// Somebody whom this device knows needs no connection.
    pub(super) fn go_to_person(&mut self, handle: &str) {
        let known = self.people.by_handle(handle);
        match known.and_then(|user| self.channels.direct(user)) {
            Some(channel) => self.go_to(channel),
            None => self.effects.push(Effect::Direct(handle.to_owned())),
        }
    }

    fn go_to_which(&mut self, which: &str) {
        let number = which.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        let by_number = number.and_then(|at| self.channels.present().nth(at));
        let wanted = which.to_lowercase();
        let has_name = |info: &_| title(info, &self.people).to_lowercase() == wanted;
        let by_name = || self.channels.present().find(|it| has_name(&it.info));
        match by_number.or_else(by_name).map(|it| it.info.channel) {
            Some(channel) => self.go_to(channel),
            None => self.complain(format!("there is no conversation {which}")),
        }
    }

    fn who(&mut self) {
        let Some(me) = &self.me else { return };
        let waiting = match self.outbox.waiting() {
            0 => String::new(),
            waiting => format!("; {waiting} messages are on their way"),
        };
        self.say(format!(
            "you are {} (@{}), number {}, on {}{waiting}",
            me.display_name, me.handle, me.user, self.server
        ));
    }
}
