//! How things look in a terminal: plain lines, nothing that a pipe or a screen reader could stumble over.
//!
//! What others wrote may hold anything: control characters are replaced, so that no message can command a terminal.

use conch_client::core::{ConnectionState, Content, Message, StopReason};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Text made harmless: control characters become visible, line breaks are kept if `multiline`.
pub(crate) fn harmless(text: &str, multiline: bool) -> String {
    text.chars()
        .map(|c| match c {
            '\n' if multiline => '\n',
            '\t' => ' ',
            // Overrides of writing direction turn what follows them around.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

/// Time of day in the person's zone; with the date if that is another day than `now_ms`.
pub(crate) fn time(time_ms: u64, now_ms: u64) -> String {
    let local = |ms: u64| {
        let timestamp = Timestamp::from_millisecond(ms as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        timestamp.to_zoned(TimeZone::system())
    };
    let (then, now) = (local(time_ms), local(now_ms));
    let clock = format!("{:02}:{:02}", then.hour(), then.minute());
    if then.date() == now.date() {
        clock
    } else {
        format!("{} {clock}", then.date())
    }
}

/// An event of a channel as one line (more if the text has some): `[12:34] Ada: hello`.
pub(crate) fn message(message: &Message, author: &str, content: &str, now_ms: u64) -> String {
    let time = time(message.time_ms, now_ms);
    let (author, content) = (harmless(author, false), harmless(content, true));
    match message.content {
        Content::Text { .. } | Content::Payload { .. } => format!("[{time}] {author}: {content}"),
        _ => format!("[{time}] * {author} {content}"),
    }
}

/// The beginning of a text, to recognise it by.
pub(crate) fn beginning(text: &str) -> String {
    const CHARS: usize = 60;
    let line = harmless(text, false);
    match line.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// What to say about the connection.
pub(crate) fn connection(state: ConnectionState) -> String {
    match state {
        ConnectionState::Connecting => "connecting…".to_owned(),
        ConnectionState::Online => "connected".to_owned(),
        ConnectionState::Offline { retry_in_ms, code } => {
            let why = code.map_or(String::new(), |code| format!(" (code {code})"));
            format!(
                "no connection{why}; next attempt in {}.{} s",
                retry_in_ms / 1_000,
                retry_in_ms % 1_000 / 100
            )
        }
        ConnectionState::Stopped(reason) => match reason {
            StopReason::Closed => "disconnected".to_owned(),
            StopReason::LoggedOut => "the login has ended: /login HANDLE".to_owned(),
            StopReason::Ended(code) => format!("the server ended this login: {}", code.name()),
            StopReason::UnsupportedVersion => {
                "this program is too old for the server: update it".to_owned()
            }
            StopReason::WrongAccount => {
                "the data folder belongs to another account: take another --data".to_owned()
            }
            StopReason::Storage => "the data folder cannot be written".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_commands_a_terminal() {
        let shown = harmless("\u{1b}[2Jred\u{202e}\r\nnext\tcell", true);
        assert_eq!(shown, "\u{fffd}[2Jred\u{fffd}\u{fffd}\nnext cell");
        assert!(!harmless("a\nb", false).contains('\n'));
    }

    #[test]
    fn other_days_have_a_date() {
        let day = 86_400_000;
        assert_eq!(time(20 * day, 20 * day).len(), 5);
        assert!(time(10 * day, 20 * day).len() > 5);
    }
}
