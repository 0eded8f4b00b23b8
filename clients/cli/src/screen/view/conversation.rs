//! The conversation: whom it is with, and its messages from the lower edge of the view upwards.

use conch_client::wire::event::ChannelKind;
use ratatui::text::{Line, Span};

use super::Painter;
use crate::screen::state::channels::title;
use crate::screen::state::conversation::Scroll;
use crate::screen::transcript::{Row, Transcript};
use crate::{harmless, words};

impl Painter<'_> {
    pub(super) fn conversation(&mut self) {
        if self.app.open.is_none() {
            return self.nowhere();
        }
        self.header();
        let area = self.layout.transcript;
        let rows = visible(self.app, area.height.into());
        // A conversation that does not fill its area stands at the bottom, beside the line being written.
        let first = usize::from(area.height).saturating_sub(rows.len());
        for (row, shown) in (first as u16..).zip(rows) {
            self.line(area, row, 0, &shown.line);
            if let Some(mark) = shown.mark {
                let column = area.width.saturating_sub(1);
                self.line(area, row, column, &Line::from(mark));
            }
        }
        self.word_if_empty();
        self.more_below();
    }

    fn header(&mut self) {
        let area = self.layout.header;
        let Some(open) = &self.app.open else { return };
        let entry = self.app.channels.entry(open.channel);
        let name = entry.map_or("a new conversation".to_owned(), |it| {
            title(&it.info, &self.app.people)
        });
        let mut more = String::new();
        if let Some(info) = entry.map(|it| &it.info) {
            if let Some(handle) = info.peer.and_then(|it| self.app.people.handle(it)) {
                more = format!(" @{handle}");
            } else if info.left {
                " · you have left".clone_into(&mut more);
            } else if info.kind == ChannelKind::Group {
                " · group · /members".clone_into(&mut more);
            }
        }
        let room = usize::from(area.width).saturating_sub(harmless::width(&more));
        let line = Line::from(vec![
            Span::styled(harmless::cut(&name, room), self.theme.title()),
            Span::styled(more, self.theme.quiet()),
        ]);
        self.line(area, 0, 0, &line);
    }

    fn word_if_empty(&mut self) {
        let Some(open) = &self.app.open else { return };
        if !open.items().is_empty() || self.app.outbox.of(open.channel).next().is_some() {
            return;
        }
        let area = self.layout.transcript;
        let words = match (&open.older, open.is_loaded) {
            (crate::screen::state::conversation::Older::Stuck(why), _) => why.clone(),
            (_, false) => "loading…".to_owned(),
            (_, true) => "nothing was said yet".to_owned(),
        };
        let middle = area.height / 2;
        self.text(area, middle, 2, &words, self.theme.quiet());
    }

    /// While somebody looks back, what has come meanwhile is below.
    fn more_below(&mut self) {
        let Some(open) = &self.app.open else { return };
        let area = self.layout.transcript;
        if (open.scroll == Scroll::Newest && !open.cut_off) || area.height < 3 {
            return;
        }
        let newest = self.app.channels.entry(open.channel);
        let newest = newest.and_then(|it| it.preview.as_ref()).map(|it| it.seq);
        let unread = self.app.channels.entry(open.channel);
        let unread = unread.map_or(0, |it| it.info.unread);
        let words = match newest {
            Some(newest) if newest > open.last_seq() || unread > 0 => {
                format!(" ↓ {unread} new · Esc ")
            }
            _ => " ↓ newest: Esc ".to_owned(),
        };
        self.text_right(area, area.height - 1, &words, self.theme.selected());
    }

    fn nowhere(&mut self) {
        let area = self.layout.transcript;
        let me = self.app.me.as_ref();
        let me = me.map_or(String::new(), |me| harmless::name(&me.display_name));
        let lines = [
            format!("Hello, {me}."),
            String::new(),
            "Tab      goes from conversation to conversation".to_owned(),
            "Ctrl-N   writes to somebody".to_owned(),
            "F1       tells the rest".to_owned(),
        ];
        let first = (area.height / 2).saturating_sub(lines.len() as u16 / 2);
        for (row, words) in (first..).zip(lines) {
            self.text(area, row, 2, &words, self.theme.quiet());
        }
        if let conch_client::core::ConnectionState::Stopped(reason) = self.app.link.state {
            let words = words::stopped(reason);
            self.text(area, first + 6, 2, &words, self.theme.quiet());
        }
    }
}

/// The rows in view, top first.
pub(super) fn visible(app: &crate::screen::state::App, height: usize) -> Vec<Row> {
    let Some(transcript) = Transcript::of(app) else {
        return Vec::new();
    };
    if transcript.count() == 0 || height == 0 {
        return Vec::new();
    }
    let (mut index, hidden) = transcript.edge();
    let mut rows = transcript.block(index);
    rows.truncate(rows.len().saturating_sub(hidden));
    while rows.len() < height && index > 0 {
        index -= 1;
        let mut above = transcript.block(index);
        above.append(&mut rows);
        rows = above;
    }
    rows.split_off(rows.len().saturating_sub(height))
}
