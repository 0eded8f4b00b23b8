//! What a key does.

use conch_client::wire::limits::TEXT_CHARS_MAX;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::conversation::Scroll;
use super::entry::{Entry, Purpose};
use super::input::{Input, To};
use super::{App, Effect, Overlay};
use crate::commands::Line;
use crate::screen::layout::Layout;

/// Handles are shorter.
const HANDLE_CHARS_MAX: usize = 64;

/// What `F1` and `/help` show of keys.
pub(crate) const KEYS: &[(&str, &str)] = &[
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", "a new line in the message"),
    (
        "Tab, Shift-Tab",
        "next and previous conversation (also Alt-↓ Alt-↑)",
    ),
    ("Alt-1 … Alt-9", "conversation by its place in the list"),
    ("Alt-A", "next conversation with something unread"),
    ("Ctrl-N", "write to somebody"),
    (
        "PageUp, PageDown",
        "look back, and forward again (also ↑ ↓)",
    ),
    ("Ctrl-End, Esc", "back to the newest"),
    ("Ctrl-Y", "send a refused message again"),
    ("Ctrl-R", "take a refused message back, to change it or not"),
    ("F2", "the list, on a narrow screen"),
    (
        "Ctrl-A, Ctrl-E",
        "begin and end of the line; Ctrl-← Ctrl-→ by words",
    ),
    (
        "Ctrl-W, Ctrl-U, Ctrl-K",
        "delete a word, all before, all behind",
    ),
    ("Ctrl-L", "paint the screen anew"),
    (
        "Ctrl-C, Ctrl-Q",
        "end; what is not sent yet is sent next time",
    ),
];

impl App {
    pub(super) fn on_key(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'q') if control => return self.effects.push(Effect::Quit),
            KeyCode::Char('l') if control => return self.effects.push(Effect::Repaint),
            _ => {}
        }
        if self.overlay.is_some() {
            return self.on_overlay_key(key);
        }
        if key.code == KeyCode::F(1) {
            self.overlay = Some(Overlay::Help { scrolled: 0 });
            return;
        }
        match self.entry.take() {
            Some(entry) => self.on_entry_key(key, entry),
            None => self.on_chat_key(key),
        }
    }

    fn on_chat_key(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let here = self.open.as_ref().map(|it| it.channel);
        let page = isize::from(Layout::of(self).transcript.height.max(2) as i16 - 1);
        match key.code {
            KeyCode::Enter if alt => self.write("\n"),
            KeyCode::Char('j') if control => self.write("\n"),
            KeyCode::Enter if self.input.is_empty() && self.is_list_alone() => {
                self.list_shown = false;
            }
            KeyCode::Enter => self.on_line(),
            KeyCode::Up | KeyCode::Down if self.is_list_alone() => {
                self.go_along(if key.code == KeyCode::Down { 1 } else { -1 });
                self.list_shown = true;
            }
            KeyCode::Tab => self.go_along(1),
            KeyCode::BackTab => self.go_along(-1),
            KeyCode::Down if alt => self.go_along(1),
            KeyCode::Up if alt => self.go_along(-1),
            KeyCode::Char(digit @ '1'..='9') if alt => {
                let at = digit as usize - '1' as usize;
                let channel = self.channels.present().nth(at).map(|it| it.info.channel);
                channel.into_iter().for_each(|it| self.go_to(it));
            }
            KeyCode::Char('a') if alt => match self.channels.next_unread(here) {
                Some(channel) => self.go_to(channel),
                None => self.say("nothing is unread"),
            },
            KeyCode::Char('n') if control => {
                self.overlay = Some(Overlay::NewDirect(Input::default()));
            }
            KeyCode::Char('r') if control => self.take_refused(),
            KeyCode::Char('y') if control => self.send_again(),
            KeyCode::F(2) => self.list_shown = !self.list_shown,
            KeyCode::PageUp => self.scroll(-page),
            KeyCode::PageDown => self.scroll(page),
            KeyCode::End if control => self.go_to_newest(),
            KeyCode::Home if control => self.scroll(-(self.size.height as isize) * 20),
            KeyCode::Esc => self.on_escape(),
            KeyCode::Up | KeyCode::Down => {
                let down = key.code == KeyCode::Down;
                let columns = Layout::of(self).input_columns();
                if !self.input.go_row(down, columns) {
                    self.scroll(if down { 1 } else { -1 });
                }
            }
            _ => {
                edit(&mut self.input, key, TEXT_CHARS_MAX);
            }
        }
    }

    pub(super) fn on_pasted(&mut self, text: &str) {
        if let Some(Overlay::NewDirect(input)) = &mut self.overlay {
            input.insert(text.trim(), false, HANDLE_CHARS_MAX);
        } else if self.overlay.is_some() {
        } else if let Some(entry) = &mut self.entry {
            let most = entry.chars_max();
            entry.input().insert(text.trim_end(), false, most);
        } else {
            self.write(text);
        }
    }

    fn write(&mut self, text: &str) {
        if !self.input.insert(text, true, TEXT_CHARS_MAX) {
            self.complain("cut: a message has at most 100,000 characters");
        }
    }

    fn on_escape(&mut self) {
        if self.notice.take().is_some() {
            return;
        }
        match &self.open {
            Some(open) if open.scroll != Scroll::Newest || open.cut_off => self.go_to_newest(),
            Some(_) => self.list_shown = true,
            None => {}
        }
    }

    fn go_along(&mut self, step: isize) {
        let here = self.open.as_ref().map(|it| it.channel);
        if let Some(channel) = self.channels.neighbour(here, step) {
            self.go_to(channel);
        }
    }

    fn take_refused(&mut self) {
        let Some(open) = &self.open else { return };
        let Some((text, key)) = self.outbox.take_refused(open.channel) else {
            return self.say("no message was refused here");
        };
        self.effects.push(Effect::Cancel(key));
        if self.input.is_empty() {
            self.input = Input::of(&text);
        } else {
            self.write(&format!("\n{text}"));
        }
    }

    fn send_again(&mut self) {
        let Some(open) = &self.open else { return };
        match self.outbox.begin_again(open.channel) {
            Some((ticket, key)) => self.effects.push(Effect::Retry { ticket, key }),
            None => self.say("no message was refused here"),
        }
    }

    // ---- overlays ----

    fn on_overlay_key(&mut self, key: KeyEvent) {
        let page = self.size.height / 2;
        let Some(mut overlay) = self.overlay.take() else {
            return;
        };
        match &mut overlay {
            Overlay::NewDirect(input) => match key.code {
                KeyCode::Esc => return,
                KeyCode::Enter => {
                    let handle = input.take();
                    let handle = handle.trim().trim_start_matches('@');
                    if !handle.is_empty() {
                        self.go_to_person(handle);
                    }
                    return;
                }
                _ => {
                    edit(input, key, HANDLE_CHARS_MAX);
                }
            },
            Overlay::Help { scrolled } | Overlay::Listing { scrolled, .. } => match key.code {
                KeyCode::Up => *scrolled = scrolled.saturating_sub(1),
                KeyCode::Down => *scrolled = scrolled.saturating_add(1),
                KeyCode::PageUp => *scrolled = scrolled.saturating_sub(page),
                KeyCode::PageDown => *scrolled = scrolled.saturating_add(page),
                _ => return,
            },
        }
        self.overlay = Some(overlay);
    }

    // ---- signing up and logging in ----

    fn on_entry_key(&mut self, key: KeyEvent, mut entry: Entry) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return self.on_entry_line(entry),
            KeyCode::Tab | KeyCode::Down => entry.step(false),
            KeyCode::BackTab | KeyCode::Up => entry.step(true),
            KeyCode::Char('t') if control => entry.turn(match entry.purpose {
                Purpose::LogIn => Purpose::SignUp,
                Purpose::SignUp => Purpose::LogIn,
            }),
            // Who was logged in once can read on without it.
            KeyCode::Esc if self.me.is_some() && !entry.busy => return,
            _ if entry.busy => {}
            _ => {
                let most = entry.chars_max();
                edit(entry.input(), key, most);
            }
        }
        self.entry = Some(entry);
    }

    fn on_entry_line(&mut self, mut entry: Entry) {
        let typed = entry.handle.text().trim().to_owned();
        if typed.starts_with('/') {
            entry.handle.take();
            let (purpose, handle) = match Line::parse(&typed) {
                Line::Signup { handle } => (Purpose::SignUp, handle),
                Line::Login { handle } => (Purpose::LogIn, handle),
                Line::Quit => return self.effects.push(Effect::Quit),
                Line::Help => {
                    self.overlay = Some(Overlay::Help { scrolled: 0 });
                    self.entry = Some(entry);
                    return;
                }
                _ => {
                    entry.word = Some("first /signup HANDLE or /login HANDLE".to_owned());
                    self.entry = Some(entry);
                    return;
                }
            };
            entry.turn(purpose);
            entry.handle = Input::of(&handle);
        }
        if let Some(filled) = entry.submit() {
            self.effects.push(Effect::Enter(filled));
        }
        self.entry = Some(entry);
    }
}

/// Keys that edit a line, wherever one is. Says whether it was one.
fn edit(input: &mut Input, key: KeyEvent, chars_max: usize) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    let words = control || alt;
    match key.code {
        KeyCode::Left if words => input.go(To::WordLeft),
        KeyCode::Right if words => input.go(To::WordRight),
        KeyCode::Left => input.go(To::Left),
        KeyCode::Right => input.go(To::Right),
        KeyCode::Home => input.go(To::LineStart),
        KeyCode::End => input.go(To::LineEnd),
        KeyCode::Backspace if words => input.delete(To::WordLeft),
        KeyCode::Backspace => input.delete(To::Left),
        KeyCode::Delete if words => input.delete(To::WordRight),
        KeyCode::Delete => input.delete(To::Right),
        KeyCode::Char(c) if control => match c {
            'a' => input.go(To::LineStart),
            'e' => input.go(To::LineEnd),
            'b' => input.go(To::Left),
            'f' => input.go(To::Right),
            'w' => input.delete(To::WordLeft),
            'u' => input.delete(To::LineStart),
            'k' => input.delete(To::LineEnd),
            'h' => input.delete(To::Left),
            'd' => input.delete(To::Right),
            _ => return false,
        },
        KeyCode::Char(c) if alt => match c {
            'b' => input.go(To::WordLeft),
            'f' => input.go(To::WordRight),
            'd' => input.delete(To::WordRight),
            _ => return false,
        },
        KeyCode::Char(c) => {
            return input.insert(c.encode_utf8(&mut [0; 4]), false, chars_max);
        }
        _ => return false,
    }
    true
}
