//! Draws an [`App`] into a buffer: pure, for any size, changing nothing.
//!
//! | file | concept |
//! |---|---|
//! | `sidebar.rs` | the list of conversations |
//! | `conversation.rs` | the header and the transcript |
//! | `composer.rs` | the line being written, and words of the program |
//! | `status.rs` | the connection |
//! | `overlay.rs` | help, listings, whom to write to |
//! | `entry.rs` | signing up and logging in |

mod composer;
mod conversation;
mod entry;
mod overlay;
mod sidebar;
mod status;

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::Line;

use super::layout::Layout;
use super::state::App;
use super::theme::Theme;

/// Draws everything; says where the cursor stands, if there is one.
pub(crate) fn draw(app: &App, buffer: &mut Buffer) -> Option<Position> {
    let painter = &mut Painter {
        app,
        theme: Theme {
            colours: app.colours,
        },
        layout: Layout::of(app),
        buffer,
    };
    // Between a change of size and its event the buffer may be smaller than the state knows.
    if painter.layout.area != *painter.buffer.area() || painter.layout.area.is_empty() {
        return None;
    }
    let cursor = if app.entry.is_some() {
        painter.entry()
    } else {
        painter.sidebar();
        painter.conversation();
        painter.composer()
    };
    painter.status();
    if app.overlay.is_some() {
        return painter.overlay();
    }
    cursor
}

/// What drawing needs.
struct Painter<'a> {
    app: &'a App,
    theme: Theme,
    layout: Layout,
    buffer: &'a mut Buffer,
}

impl Painter<'_> {
    /// A line at a row of an area, cut at its right end. Says where it ended.
    fn line(&mut self, area: Rect, row: u16, column: u16, line: &Line<'_>) -> u16 {
        if row >= area.height || column >= area.width {
            return area.right();
        }
        let (x, y) = (area.x + column, area.y + row);
        self.buffer.set_line(x, y, line, area.width - column).0
    }

    fn text(&mut self, area: Rect, row: u16, column: u16, text: &str, style: Style) -> u16 {
        self.line(area, row, column, &Line::styled(text, style))
    }

    /// A text that ends at the right end of a row.
    fn text_right(&mut self, area: Rect, row: u16, text: &str, style: Style) {
        let columns = crate::harmless::width(text).min(area.width.into()) as u16;
        self.text(area, row, area.width - columns, text, style);
    }

    fn fill(&mut self, area: Rect, symbol: &str, style: Style) {
        let area = area.intersection(*self.buffer.area());
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                self.buffer[(x, y)].set_symbol(symbol).set_style(style);
            }
        }
    }

    /// A box in the middle of the screen with a title; says where its inside is.
    fn window(&mut self, title: &str, columns: u16, rows: u16) -> Rect {
        use ratatui::widgets::{Block, Clear, Padding, Widget};
        let screen = self.layout.area;
        let (columns, rows) = (columns.min(screen.width), rows.min(screen.height));
        let area = Rect {
            x: (screen.width - columns) / 2,
            y: (screen.height - rows) / 2,
            width: columns,
            height: rows,
        };
        // A wide character at its edge would be drawn over it.
        let around = Rect {
            x: area.x.saturating_sub(1),
            width: (area.width + 2).min(screen.width - area.x.saturating_sub(1)),
            ..area
        };
        Clear.render(around, self.buffer);
        let block = Block::bordered()
            .border_style(self.theme.quiet())
            .title(Line::styled(format!(" {title} "), self.theme.title()))
            .padding(Padding::horizontal(1));
        let inside = block.inner(area);
        block.render(area, self.buffer);
        inside
    }
}

#[cfg(test)]
mod tests;
