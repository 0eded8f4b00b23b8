//! A conversation as rows: what is drawn, and what scrolling counts. Pure.
//!
//! Every element (an event, a message on its way) has a block of rows: what separates it from the one before (a day, the
//! unread line, a name), then its text. Only blocks that come into view are made, so a long history costs nothing.

use conch_client::core::RefusalAdvice;
use conch_client::wire::UserId;
use jiff::tz::TimeZone;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::layout::Layout;
use super::state::App;
use super::state::conversation::{Body, Conversation, Element, Item, Older, Scroll};
use super::state::outbox::{Sending, Stage};
use super::theme::Theme;
use crate::wrap::wrap;
use crate::{harmless, show, words};

/// Messages of one person stand under one name if they are not further apart, in milliseconds.
const TOGETHER_MS: u64 = 300_000;
/// Columns in front of texts, and behind them for their marks.
const INDENT: usize = 2;
const MARK_COLUMNS: usize = 2;
/// Narrower than this, texts have the whole width.
const INDENTED_FROM: usize = 16;
/// People named in one line; the rest is counted.
const NAMED_MAX: usize = 8;

/// One row, and a mark at its right end.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) line: Line<'static>,
    pub(crate) mark: Option<Span<'static>>,
}

/// See the file's head.
pub(crate) struct Transcript<'a> {
    app: &'a App,
    open: &'a Conversation,
    sending: Vec<&'a Sending>,
    columns: usize,
    zone: &'a TimeZone,
    theme: Theme,
}

/// Who said something when; what separators and names follow from.
#[derive(Clone, Copy)]
struct Moment {
    author: UserId,
    time_ms: u64,
    /// A person's words, not a change of the channel.
    is_message: bool,
}

impl<'a> Transcript<'a> {
    pub(crate) fn of(app: &'a App) -> Option<Transcript<'a>> {
        let open = app.open.as_ref()?;
        Some(Transcript {
            app,
            open,
            sending: app.outbox.of(open.channel).collect(),
            columns: Layout::of(app).transcript.width.into(),
            zone: &app.zone,
            theme: Theme {
                colours: app.colours,
            },
        })
    }

    pub(crate) fn scroll(&self) -> Scroll {
        self.open.scroll
    }

    /// Elements: events, then messages on their way (those belong behind the newest event).
    pub(crate) fn count(&self) -> usize {
        let sending = if self.open.cut_off {
            0
        } else {
            self.sending.len()
        };
        self.open.items().len() + sending
    }

    pub(crate) fn element(&self, index: usize) -> Option<Element> {
        let items = self.open.items();
        match items.get(index) {
            Some(item) => Some(Element::Event(item.seq)),
            None => self
                .sending
                .get(index - items.len())
                .map(|it| Element::Sending(it.ticket)),
        }
    }

    pub(crate) fn find(&self, element: Element) -> Option<usize> {
        let items = self.open.items();
        match element {
            Element::Event(seq) => items.binary_search_by_key(&seq, |it| it.seq).ok(),
            Element::Sending(ticket) => {
                let at = self.sending.iter().position(|it| it.ticket == ticket)?;
                (!self.open.cut_off).then_some(items.len() + at)
            }
        }
    }

    pub(crate) fn height(&self, index: usize) -> usize {
        self.block(index).len()
    }

    /// The rows of an element.
    pub(crate) fn block(&self, index: usize) -> Vec<Row> {
        let Some(here) = self.moment(index) else {
            return Vec::new();
        };
        let before = index.checked_sub(1).and_then(|it| self.moment(it));
        let mut rows = Vec::new();
        if index == 0 {
            self.put_top(&mut rows);
        }
        let date = |moment: Moment| show::date(moment.time_ms, self.zone);
        let new_day = before.is_none_or(|it| date(it) != date(here));
        if new_day {
            let day = show::day(here.time_ms, self.app.now_ms, self.zone);
            rows.push(self.rule(&day, self.theme.quiet()));
        }
        let new_here = self.is_first_unread(index);
        if new_here {
            rows.push(self.rule("new", self.theme.mention()));
        }
        let together = before.is_some_and(|it| {
            it.is_message
                && it.author == here.author
                && here.time_ms.saturating_sub(it.time_ms) < TOGETHER_MS
        });
        if here.is_message && (new_day || new_here || !together) {
            rows.push(self.heading(here));
        }
        let items = self.open.items();
        match items.get(index) {
            Some(item) => self.put_item(&mut rows, item),
            None => self.put_sending(&mut rows, self.sending[index - items.len()]),
        }
        rows
    }

    fn moment(&self, index: usize) -> Option<Moment> {
        let items = self.open.items();
        if let Some(item) = items.get(index) {
            return Some(Moment {
                author: item.author,
                time_ms: item.time_ms,
                is_message: matches!(item.body, Body::Text(_) | Body::Payload { .. }),
            });
        }
        let sending = self.sending.get(index - items.len())?;
        let me = self.app.me.as_ref();
        Some(Moment {
            author: me.map_or(UserId(0), |me| me.user),
            time_ms: sending.created_ms,
            is_message: true,
        })
    }

    fn is_first_unread(&self, index: usize) -> bool {
        let Some(after) = self.open.unread_after else {
            return false;
        };
        let items = self.open.items();
        let is_new = |item: &Item| item.seq > after && !self.app.is_me(item.author);
        let first = items.partition_point(|it| it.seq <= after);
        items.range(first..).position(is_new).map(|at| first + at) == Some(index)
    }

    /// What stands above the oldest event.
    fn put_top(&self, rows: &mut Vec<Row>) {
        let words = match &self.open.older {
            Older::Start => "the beginning",
            Older::Loading => "loading…",
            Older::Stuck(why) => why,
            Older::More => return,
        };
        rows.push(self.rule(words, self.theme.quiet()));
    }

    /// `── words ──`, over the whole width.
    fn rule(&self, words: &str, style: Style) -> Row {
        let words = harmless::cut(words, self.columns.saturating_sub(6));
        let rest = self.columns.saturating_sub(harmless::width(&words) + 2);
        let left = rest.min(3);
        let line = format!("{} {words} {}", "─".repeat(left), "─".repeat(rest - left));
        Row::of(Line::styled(line, style))
    }

    fn heading(&self, here: Moment) -> Row {
        let is_me = self.app.is_me(here.author);
        let name = if is_me {
            "you".to_owned()
        } else {
            self.app.people.name(here.author)
        };
        let time = show::clock(here.time_ms, self.zone);
        let room = self.columns.saturating_sub(time.len() + 1);
        Row::of(Line::from(vec![
            Span::styled(
                harmless::cut(&name, room),
                self.theme.name(here.author, is_me),
            ),
            Span::styled(format!(" {time}"), self.theme.quiet()),
        ]))
    }

    fn put_item(&self, rows: &mut Vec<Row>, item: &Item) {
        let Body::Text(text) = &item.body else {
            return self.put_note(rows, item);
        };
        self.put_text(rows, text, self.theme.plain());
        if item.key.is_some() || self.app.is_me(item.author) {
            self.put_mark(rows, "✓", self.theme.quiet());
        }
    }

    /// A change of the channel, or something that is not text, in words.
    fn put_note(&self, rows: &mut Vec<Row>, item: &Item) {
        let what = match &item.body {
            Body::Text(text) => text.clone(),
            Body::Payload { kind, bytes } => format!("[{}, {bytes} bytes]", show::kind(*kind)),
            Body::Created { title } if title.is_empty() => "began this conversation".to_owned(),
            Body::Created { title } => format!("made the group “{title}”"),
            Body::Added(users) => format!("added {}", self.names(users)),
            Body::Removed(users) => format!("removed {}", self.names(users)),
            Body::Left => "left".to_owned(),
            Body::Renamed { title } => format!("renamed the group to “{title}”"),
            Body::Unknown { kind } => {
                format!("[something newer than this program: kind {kind}]")
            }
            Body::Skipped { from } => format!("messages {from} to {} are not to be had", item.seq),
        };
        match item.body {
            Body::Payload { .. } => self.put_text(rows, &what, self.theme.quiet()),
            Body::Skipped { .. } => self.put_text(rows, &what, self.theme.quiet()),
            _ => {
                let name = if self.app.is_me(item.author) {
                    "you".to_owned()
                } else {
                    self.app.people.name(item.author)
                };
                let time = show::clock(item.time_ms, self.zone);
                self.put_text(
                    rows,
                    &format!("· {name} {what} · {time}"),
                    self.theme.quiet(),
                );
            }
        }
    }

    fn names(&self, users: &[UserId]) -> String {
        let named = users.iter().take(NAMED_MAX);
        let mut names: Vec<_> = named
            .map(|it| {
                if self.app.is_me(*it) {
                    "you".to_owned()
                } else {
                    self.app.people.name(*it)
                }
            })
            .collect();
        if users.len() > NAMED_MAX {
            names.push(format!("{} others", users.len() - NAMED_MAX));
        }
        names.join(", ")
    }

    fn put_sending(&self, rows: &mut Vec<Row>, sending: &Sending) {
        let online = self.app.link.is_online();
        let (mark, style, why) = match sending.stage {
            Stage::Stored => ("✓", self.theme.quiet(), None),
            Stage::Refused { reason } => {
                let keys = match reason.advice() {
                    RefusalAdvice::Retry | RefusalAdvice::CheckThenRetry => {
                        "Ctrl-Y sends it again, Ctrl-R takes it back"
                    }
                    RefusalAdvice::Edit | RefusalAdvice::Discard => "Ctrl-R takes it back",
                };
                let why = format!("not sent: {}. {keys}", words::refusal(reason));
                ("✗", self.theme.bad(), Some(why))
            }
            Stage::Delayed { code, until_ms } => {
                let seconds = until_ms.saturating_sub(self.app.now_ms).div_ceil(1_000);
                let why = format!("{}: goes out by itself in {seconds} s", words::delay(code));
                ("…", self.theme.waiting(), Some(why))
            }
            Stage::Taking | Stage::Queued if online => ("↑", self.theme.waiting(), None),
            Stage::Taking | Stage::Queued => ("…", self.theme.waiting(), None),
        };
        self.put_text(rows, &sending.shown, self.theme.plain());
        self.put_mark(rows, mark, style);
        if let Some(why) = why {
            self.put_text(rows, &why, style);
        }
    }

    fn put_text(&self, rows: &mut Vec<Row>, text: &str, style: Style) {
        let indent = if self.columns >= INDENTED_FROM {
            INDENT
        } else {
            0
        };
        let columns = self.columns.saturating_sub(indent + MARK_COLUMNS);
        for row in wrap(text, columns) {
            let line = format!("{}{row}", " ".repeat(indent));
            rows.push(Row::of(Line::styled(line, style)));
        }
    }

    fn put_mark(&self, rows: &mut [Row], mark: &'static str, style: Style) {
        if let Some(row) = rows.last_mut() {
            row.mark = Some(Span::styled(mark, style));
        }
    }
}

impl Row {
    fn of(line: Line<'static>) -> Row {
        Row { line, mark: None }
    }
}
