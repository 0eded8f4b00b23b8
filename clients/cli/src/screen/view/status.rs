//! The lowest row: the connection, what is unread elsewhere, and where help is.

use conch_client::core::ConnectionState;
use ratatui::text::{Line, Span};

use super::Painter;
use crate::{harmless, words};

impl Painter<'_> {
    pub(super) fn status(&mut self) {
        let area = self.layout.status;
        if area.is_empty() {
            return;
        }
        let (mark, words, style) = self.connection();
        let mut spans = vec![
            Span::styled(format!(" {mark} "), style),
            Span::styled(words, style),
        ];
        let waiting = self.app.outbox.waiting();
        if waiting > 0 && !self.app.link.is_online() {
            let word = format!(" · {waiting} to send");
            spans.push(Span::styled(word, self.theme.waiting()));
        }
        let here = self.app.open.as_ref().map(|it| it.channel);
        let unread = self.app.channels.unread_elsewhere(here);
        let narrow = self.layout.rule.is_empty();
        if narrow && here.is_some() && unread > 0 && !self.app.list_shown {
            let word = format!(" · {unread} unread: F2");
            spans.push(Span::styled(word, self.theme.unread()));
        }
        let end = self.line(area, 0, 0, &Line::from(spans));
        let help = "F1 help ";
        if usize::from(area.right().saturating_sub(end)) > harmless::width(help) {
            self.text_right(area, 0, help, self.theme.quiet());
        }
    }

    fn connection(&self) -> (&'static str, String, ratatui::style::Style) {
        let server = || {
            let server = self.app.server.trim_start_matches("http://");
            server.trim_start_matches("https://").to_owned()
        };
        match self.app.link.state {
            ConnectionState::Online => {
                let by = self.app.link.transport.map(words::transport);
                let by = by.map_or(String::new(), |by| format!(" · {by}"));
                let words = format!("online · {}{by}", server());
                ("●", words, self.theme.good())
            }
            ConnectionState::Connecting => ("○", "connecting…".to_owned(), self.theme.waiting()),
            ConnectionState::Offline { .. } => {
                let left_ms = self.app.link.retry_at_ms.saturating_sub(self.app.now_ms);
                let words = match left_ms.div_ceil(1_000) {
                    0 => "offline · trying again".to_owned(),
                    seconds => format!("offline · next try in {seconds} s"),
                };
                ("○", words, self.theme.waiting())
            }
            ConnectionState::Stopped(_) if self.app.me.is_none() => {
                ("○", server(), self.theme.quiet())
            }
            ConnectionState::Stopped(reason) => ("■", words::stopped(reason), self.theme.bad()),
        }
    }
}
