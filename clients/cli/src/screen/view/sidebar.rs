//! The list of conversations: name, what was said last, when, and what is unread.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::Painter;
use crate::screen::state::channels::{Entry, title};
use crate::{harmless, show};

/// Rows of a conversation in the list, and on a low screen.
const ENTRY_ROWS: u16 = 2;
const LOW_ENTRY_ROWS: u16 = 1;
/// From this height on a conversation has its two rows.
const HIGH_FROM: u16 = 8;

impl Painter<'_> {
    pub(super) fn sidebar(&mut self) {
        let rule = self.layout.rule;
        self.fill(rule, "│", self.theme.quiet());
        let Some(area) = self.layout.sidebar else {
            return;
        };
        let me = self.app.me.as_ref();
        let me = me.map_or(String::new(), |me| harmless::name(&me.handle));
        let heading = Line::from(vec![
            Span::styled(" Conch", self.theme.title()),
            Span::styled(format!(" @{me}"), self.theme.quiet()),
        ]);
        self.line(area, 0, 0, &heading);
        let list = below(area, 1);
        let rows = if area.height >= HIGH_FROM {
            ENTRY_ROWS
        } else {
            LOW_ENTRY_ROWS
        };
        let entries: Vec<_> = self.app.channels.present().collect();
        if entries.is_empty() {
            return self.empty_list(list);
        }
        let here = self.app.open.as_ref().map(|it| it.channel);
        let at = entries
            .iter()
            .position(|it| Some(it.info.channel) == here)
            .unwrap_or(0);
        let fitting = usize::from(list.height / rows).max(1);
        // The one that is open is in view.
        let first = (at + 1).saturating_sub(fitting);
        for (place, entry) in entries.iter().skip(first).take(fitting).enumerate() {
            let row = place as u16 * rows;
            let height = rows.min(list.height.saturating_sub(row));
            let area = Rect {
                y: list.y + row,
                height,
                ..list
            };
            self.entry_of_list(area, entry, Some(entry.info.channel) == here);
        }
    }

    fn empty_list(&mut self, area: Rect) {
        let words = "No conversations yet.\nCtrl-N writes to somebody,\n/group TITLE HANDLE…\nmakes a group.";
        for (row, words) in (1..).zip(words.lines()) {
            self.text(area, row, 1, words, self.theme.quiet());
        }
    }

    fn entry_of_list(&mut self, area: Rect, entry: &Entry, is_here: bool) {
        if area.is_empty() {
            return;
        }
        let info = &entry.info;
        let mut badge = match (info.unread, info.mentions) {
            (0, 0) => Vec::new(),
            (unread, 0) => vec![(count(unread), self.theme.unread())],
            (unread, mentions) => vec![
                (format!("@{}", count(mentions)), self.theme.mention()),
                (count(unread), self.theme.unread()),
            ],
        };
        if badge.is_empty()
            && let Some(preview) = &entry.preview
        {
            let time = show::short_time(preview.time_ms, self.app.now_ms, &self.app.zone);
            badge.push((time, self.theme.quiet()));
        }
        let columns: usize = badge.iter().map(|(it, _)| harmless::width(it) + 1).sum();
        let room = usize::from(area.width).saturating_sub(columns + 2);
        let name = harmless::cut(&title(info, &self.app.people), room);
        let name_style = if info.unread > 0 {
            self.theme.title()
        } else {
            self.theme.plain()
        };
        if is_here {
            let row = Rect { height: 1, ..area };
            self.fill(row, " ", self.theme.selected());
        }
        let patch = |style: ratatui::style::Style| {
            if is_here {
                style.patch(self.theme.selected())
            } else {
                style
            }
        };
        let name_style = patch(name_style);
        let badge: Vec<_> = badge
            .into_iter()
            .map(|(text, style)| (text, patch(style)))
            .collect();
        self.text(area, 0, 1, &name, name_style);
        let mut column = usize::from(area.width).saturating_sub(columns);
        for (text, style) in badge {
            self.text(area, 0, column as u16, &text, style);
            column += harmless::width(&text) + 1;
        }
        if area.height > 1
            && let Some(words) = self.preview(entry)
        {
            let room = usize::from(area.width).saturating_sub(3);
            let words = harmless::cut(&words, room);
            self.text(area, 1, 2, &words, self.theme.quiet());
        }
    }

    fn preview(&self, entry: &Entry) -> Option<String> {
        let preview = entry.preview.as_ref()?;
        let name = if self.app.is_me(preview.author) {
            "you".to_owned()
        } else {
            self.app.people.name(preview.author)
        };
        let is_theirs = entry.info.peer == Some(preview.author);
        Some(match (preview.is_text, is_theirs) {
            (true, true) => preview.words.clone(),
            (true, false) => format!("{name}: {}", preview.words),
            (false, _) => format!("{name} {}", preview.words),
        })
    }
}

fn count(count: u32) -> String {
    if count > 999 {
        "999+".to_owned()
    } else {
        count.to_string()
    }
}

fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect {
        y: area.y + rows,
        height: area.height - rows,
        ..area
    }
}
