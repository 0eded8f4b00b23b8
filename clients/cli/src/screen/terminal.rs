//! The terminal itself: taken over at the beginning, given back as it was at the end, whichever end that is.
//!
//! A panic anywhere gives it back before it is reported, so that the report can be read. Keys are read by a thread of
//! their own; it ends with the process, as a read of a terminal cannot be interrupted.

use std::io::{self, Stdout, Write, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange, Event,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Size;
use tokio::sync::mpsc;

use super::state::{App, Happening};
use super::view;

/// Keys that may wait; a paste is one.
const KEYS_MAX: usize = 256;

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The screen; gives the terminal back when dropped.
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    pub(super) fn take() -> io::Result<Screen> {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
        }));
        TAKEN.store(true, Ordering::SeqCst);
        let taken = enable_raw_mode().and_then(|()| {
            execute!(
                stdout(),
                EnterAlternateScreen,
                EnableBracketedPaste,
                EnableFocusChange
            )?;
            Terminal::new(CrosstermBackend::new(stdout()))
        });
        taken.map(Screen).inspect_err(|_| give_back())
    }

    pub(super) fn size(&self) -> io::Result<Size> {
        self.0.size()
    }

    pub(super) fn draw(&mut self, app: &App) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the terminal was given back"));
        }
        self.0.draw(|frame| {
            if let Some(cursor) = view::draw(app, frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(())
    }

    /// Forgets what was drawn: the next drawing writes everything.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.0.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// As it was before; does nothing the second time. What fails here fails because the terminal is gone.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = execute!(
        stdout(),
        DisableFocusChange,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        Show
    );
    let _ = disable_raw_mode();
    let _ = stdout().flush();
}

/// What the person does. The channel ends when the terminal is gone.
pub(super) fn happenings() -> mpsc::Receiver<Happening> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let happening = match event {
                Event::Key(key) => Happening::Key(key),
                Event::Paste(text) => Happening::Pasted(text),
                Event::Resize(width, height) => Happening::Resized(Size { width, height }),
                Event::FocusGained => Happening::Focused(true),
                Event::FocusLost => Happening::Focused(false),
                Event::Mouse(_) => continue,
            };
            if sender.blocking_send(happening).is_err() {
                return;
            }
        }
    });
    receiver
}
