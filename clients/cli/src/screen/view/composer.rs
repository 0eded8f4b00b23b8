//! The line being written, and words of the program above it.

use ratatui::layout::Position;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::Painter;
use crate::screen::layout::{PROMPT_COLUMNS, notice_columns};
use crate::wrap::wrap;

impl Painter<'_> {
    pub(super) fn composer(&mut self) -> Option<Position> {
        let rule = self.layout.input_rule;
        self.fill(rule, "─", self.theme.quiet());
        self.notice();
        let area = self.layout.input;
        if area.is_empty() {
            return None;
        }
        let drawn = self.app.input.drawn(self.layout.input_columns());
        // The row of the cursor is in view.
        let first = (drawn.row + 1).saturating_sub(area.height.into());
        let prompt = Line::from(Span::styled("› ", self.theme.title()));
        self.line(area, 0, 0, &prompt);
        for (row, text) in (0..area.height).zip(drawn.rows.iter().skip(first)) {
            self.text(area, row, PROMPT_COLUMNS, text, self.theme.plain());
        }
        if self.app.input.is_empty() {
            let hint = match self.app.open {
                Some(_) => "write a message",
                None => "Ctrl-N writes to somebody, /help tells the rest",
            };
            self.text(area, 0, PROMPT_COLUMNS, hint, self.theme.quiet());
        }
        cursor(
            area,
            drawn.column + usize::from(PROMPT_COLUMNS),
            drawn.row - first,
        )
    }

    fn notice(&mut self) {
        let area = self.layout.notice;
        let Some(notice) = &self.app.notice else {
            return;
        };
        let (mark, style) = if notice.is_error {
            ("! ", self.theme.bad())
        } else {
            ("· ", self.theme.unread())
        };
        let rows = wrap(&notice.words, notice_columns(area.width));
        for (row, words) in (0..area.height).zip(rows) {
            let mark = if row == 0 { mark } else { "  " };
            self.text(area, row, 0, &format!("{mark}{words}"), style);
        }
    }
}

/// A place in an area, if it is in it.
pub(super) fn cursor(area: Rect, column: usize, row: usize) -> Option<Position> {
    let column = u16::try_from(column).ok()?.min(area.width.checked_sub(1)?);
    let row = u16::try_from(row).ok().filter(|it| *it < area.height)?;
    Some(Position::new(area.x + column, area.y + row))
}
