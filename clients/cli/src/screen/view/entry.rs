//! The form for signing up and logging in.

use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use super::Painter;
use super::composer::cursor;
use crate::screen::state::entry::{Entry, Field, Purpose};
use crate::wrap::wrap;

/// Columns of the names of fields.
const NAME_COLUMNS: u16 = 11;
/// Columns and rows of the form.
const COLUMNS: u16 = 60;
const ROWS: u16 = 13;

impl Painter<'_> {
    pub(super) fn entry(&mut self) -> Option<Position> {
        let entry = self.app.entry.as_ref()?;
        let title = format!("Conch · {}", self.app.server);
        let area = Rect {
            height: self.layout.area.height - self.layout.status.height,
            ..self.layout.area
        };
        let inside = if area.height < ROWS || area.width < COLUMNS / 2 {
            area
        } else {
            self.window(&crate::harmless::cut(&title, 54), COLUMNS, ROWS)
        };
        self.purposes(inside, entry);
        let mut place = None;
        for (at, field) in entry.fields().iter().enumerate() {
            let row = 2 + at as u16;
            let found = self.field(inside, row, entry, *field);
            if entry.field == *field {
                place = found;
            }
        }
        let mut row = 3 + entry.fields().len() as u16;
        let busy = entry.busy.then(|| "asking the server…".to_owned());
        if let Some(word) = busy.or_else(|| entry.word.clone()) {
            let style = if entry.busy {
                self.theme.quiet()
            } else {
                self.theme.bad()
            };
            for words in wrap(&word, inside.width.into()).into_iter().take(3) {
                self.text(inside, row, 0, words, style);
                row += 1;
            }
            row += 1;
        }
        for words in [
            "Enter goes on · Tab next line · Ctrl-C ends",
            match entry.purpose {
                Purpose::LogIn => "Ctrl-T makes a new account instead",
                Purpose::SignUp => "Ctrl-T logs in to an account instead",
            },
        ] {
            self.text(inside, row, 0, words, self.theme.quiet());
            row += 1;
        }
        place
    }

    fn purposes(&mut self, area: Rect, entry: &Entry) {
        let word = |purpose, word: &'static str| {
            let style = if entry.purpose == purpose {
                self.theme.selected()
            } else {
                self.theme.quiet()
            };
            Span::styled(word, style)
        };
        let line = Line::from(vec![
            word(Purpose::LogIn, " Log in "),
            Span::raw("  "),
            word(Purpose::SignUp, " Sign up "),
        ]);
        self.line(area, 0, 0, &line);
    }

    fn field(&mut self, area: Rect, row: u16, entry: &Entry, field: Field) -> Option<Position> {
        let (name, input) = match field {
            Field::Handle => ("handle", &entry.handle),
            Field::Password => ("password", &entry.password),
            Field::Repeated => ("once more", &entry.repeated),
        };
        let is_here = entry.field == field;
        let style = if is_here {
            self.theme.title()
        } else {
            self.theme.quiet()
        };
        self.text(area, row, 0, name, style);
        let room = usize::from(area.width.saturating_sub(NAME_COLUMNS + 1)).max(1);
        let (text, column) = if field == Field::Handle {
            let drawn = input.drawn(room);
            let text = drawn.rows.get(drawn.row).cloned().unwrap_or_default();
            (text, drawn.column)
        } else {
            // What is typed shows as that something is typed.
            let chars = input.text().chars().count().min(room);
            ("•".repeat(chars), chars)
        };
        self.text(area, row, NAME_COLUMNS, &text, self.theme.plain());
        if row >= area.height {
            return None;
        }
        cursor(area, usize::from(NAME_COLUMNS) + column, row.into())
    }
}
