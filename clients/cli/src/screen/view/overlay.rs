//! What lies over the conversation: help, listings, whom to write to.

use ratatui::layout::Position;
use ratatui::text::{Line, Span};

use super::Painter;
use super::composer::cursor;
use crate::commands::COMMANDS;
use crate::harmless;
use crate::screen::state::Overlay;
use crate::screen::state::keys::KEYS;

/// Columns of the first half of a line of help.
const HELP_COLUMNS: usize = 24;

impl Painter<'_> {
    pub(super) fn overlay(&mut self) -> Option<Position> {
        match self.app.overlay.as_ref()? {
            Overlay::Help { scrolled } => {
                let lines = self.help();
                self.listing("Help", &lines, *scrolled);
                None
            }
            Overlay::Listing {
                title,
                lines,
                scrolled,
            } => {
                let lines: Vec<_> = lines.iter().map(|it| Line::raw(it.as_str())).collect();
                self.listing(title, &lines, *scrolled);
                None
            }
            Overlay::NewDirect(input) => {
                let inside = self.window("Write to somebody", 46, 4);
                let columns = usize::from(inside.width.saturating_sub(9)).max(1);
                let drawn = input.drawn(columns);
                self.text(inside, 0, 0, "handle @", self.theme.quiet());
                let row = drawn.rows.get(drawn.row).map_or("", String::as_str);
                self.text(inside, 0, 8, row, self.theme.plain());
                let hint = "Enter opens the conversation, Esc does not";
                self.text(inside, 1, 0, hint, self.theme.quiet());
                cursor(inside, drawn.column + 8, 0)
            }
        }
    }

    fn help(&self) -> Vec<Line<'static>> {
        let line = |(what, does): &(&'static str, &'static str)| {
            let gap = HELP_COLUMNS.saturating_sub(harmless::width(what)).max(1);
            Line::from(vec![
                Span::styled(*what, self.theme.title()),
                Span::raw(format!("{}{does}", " ".repeat(gap))),
            ])
        };
        let signs = "✓ stored   ↑ on its way   … waits   ✗ refused";
        KEYS.iter()
            .map(line)
            .chain([Line::raw("")])
            .chain(COMMANDS.iter().map(line))
            .chain([Line::raw(""), Line::raw(signs)])
            .collect()
    }

    fn listing(&mut self, title: &str, lines: &[Line<'_>], scrolled: u16) {
        let screen = self.layout.area;
        let widest = lines.iter().map(Line::width).max().unwrap_or(0);
        let columns = u16::try_from(widest + 4).unwrap_or(u16::MAX).max(30);
        let rows = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
        let inside = self.window(
            title,
            columns,
            rows.min(screen.height.saturating_sub(2).max(3)),
        );
        let most = lines.len().saturating_sub(inside.height.into());
        let first = usize::from(scrolled).min(most);
        for (row, line) in (0..inside.height).zip(&lines[first..]) {
            self.line(inside, row, 0, line);
        }
        if most > 0 && inside.height > 0 {
            let left = lines.len() - first - usize::from(inside.height);
            if left > 0 {
                let words = format!(" ↓ {left} more ");
                self.text_right(inside, inside.height - 1, &words, self.theme.selected());
            }
        }
    }
}
