//! What stands where, for every size. Pure; `state` scrolls by it and `view` draws by it.

use ratatui::layout::Rect;

use super::state::App;
use crate::wrap::wrap;

/// From this width on list and conversation stand side by side.
const BESIDE_COLUMNS: u16 = 64;
/// Columns of the list beside a conversation.
const SIDEBAR_COLUMNS: std::ops::RangeInclusive<u16> = 24..=36;
/// Rows of the line being written.
const INPUT_ROWS_MAX: u16 = 8;
/// Rows of a word of the program.
const NOTICE_ROWS_MAX: u16 = 3;
/// In front of the line being written.
pub(crate) const PROMPT_COLUMNS: u16 = 2;

/// Areas of the screen; what has no room is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Layout {
    pub(crate) area: Rect,
    pub(crate) sidebar: Option<Rect>,
    /// Between list and conversation.
    pub(crate) rule: Rect,
    pub(crate) header: Rect,
    pub(crate) transcript: Rect,
    pub(crate) notice: Rect,
    /// Above the line being written.
    pub(crate) input_rule: Rect,
    pub(crate) input: Rect,
    pub(crate) status: Rect,
}

impl Layout {
    pub(crate) fn of(app: &App) -> Layout {
        let area = Rect::new(0, 0, app.size.width, app.size.height);
        let mut layout = Layout {
            area,
            ..Layout::default()
        };
        let mut rest = area;
        if rest.height >= 3 {
            layout.status = take_bottom(&mut rest, 1);
        }
        let mut main = rest;
        if rest.width >= BESIDE_COLUMNS {
            let (least, most) = (*SIDEBAR_COLUMNS.start(), *SIDEBAR_COLUMNS.end());
            let columns = (rest.width / 3).clamp(least, most);
            layout.sidebar = Some(Rect {
                width: columns,
                ..rest
            });
            layout.rule = Rect {
                x: columns,
                width: 1,
                ..rest
            };
            // A column of air beside the rule.
            main.x += columns + 2;
            main.width -= columns + 2;
        } else if app.list_shown || app.open.is_none() {
            let input = take_input(app, &mut layout, &mut rest);
            layout.input = input;
            layout.sidebar = Some(rest);
            return layout;
        }
        layout.input = take_input(app, &mut layout, &mut main);
        if main.height >= 4 {
            layout.header = take_top(&mut main, 1);
        }
        layout.transcript = main;
        layout
    }

    /// Columns that the line being written has.
    pub(crate) fn input_columns(&self) -> usize {
        input_columns(self.input.width)
    }
}

/// The line being written with its rule, and the word of the program above them.
fn take_input(app: &App, layout: &mut Layout, rest: &mut Rect) -> Rect {
    let rows = app.input.drawn(input_columns(rest.width)).rows.len();
    let most = INPUT_ROWS_MAX.min((rest.height / 3).max(1));
    let rows = u16::try_from(rows).unwrap_or(u16::MAX).clamp(1, most);
    let input = take_bottom(rest, rows);
    if rest.height >= 6 {
        layout.input_rule = take_bottom(rest, 1);
    }
    if let Some(notice) = &app.notice
        && rest.height >= 2
    {
        let rows = wrap(&notice.words, notice_columns(rest.width)).len();
        let most = NOTICE_ROWS_MAX.min(rest.height / 2);
        let rows = u16::try_from(rows).unwrap_or(u16::MAX).clamp(1, most);
        layout.notice = take_bottom(rest, rows);
    }
    input
}

fn input_columns(width: u16) -> usize {
    // One column stays for a cursor behind the last character.
    usize::from(width.saturating_sub(PROMPT_COLUMNS + 1)).max(1)
}

/// Columns of the words of a notice.
pub(crate) fn notice_columns(width: u16) -> usize {
    usize::from(width.saturating_sub(2)).max(1)
}

fn take_bottom(rest: &mut Rect, rows: u16) -> Rect {
    let rows = rows.min(rest.height);
    rest.height -= rows;
    Rect {
        y: rest.y + rest.height,
        height: rows,
        ..*rest
    }
}

fn take_top(rest: &mut Rect, rows: u16) -> Rect {
    let rows = rows.min(rest.height);
    let top = Rect {
        height: rows,
        ..*rest
    };
    rest.y += rows;
    rest.height -= rows;
    top
}
