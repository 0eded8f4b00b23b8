//! Colours: few, of the 16 that every terminal has, and none if the person wants none (`NO_COLOR`). Nothing is told by
//! colour alone.

use conch_client::wire::UserId;
use ratatui::style::{Color, Modifier, Style};

/// Names of others; one's own is another.
const NAMES: [Color; 5] = [
    Color::Cyan,
    Color::Yellow,
    Color::Magenta,
    Color::Blue,
    Color::LightRed,
];

/// Styles of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    pub(crate) colours: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    pub(crate) fn plain(self) -> Style {
        Style::new()
    }

    /// Times, previews, rules: there, but not in the way.
    pub(crate) fn quiet(self) -> Style {
        if self.colours {
            Style::new().fg(Color::DarkGray)
        } else {
            Style::new().add_modifier(Modifier::DIM)
        }
    }

    pub(crate) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn name(self, user: UserId, is_me: bool) -> Style {
        let colour = if is_me {
            Color::Green
        } else {
            NAMES[(user.0 % NAMES.len() as u64) as usize]
        };
        self.colour(colour).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn unread(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn mention(self) -> Style {
        self.colour(Color::LightRed).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn good(self) -> Style {
        self.colour(Color::Green)
    }

    pub(crate) fn waiting(self) -> Style {
        self.colour(Color::Yellow)
    }

    pub(crate) fn bad(self) -> Style {
        self.colour(Color::LightRed)
    }

    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
