//! How things look in plain lines, and days and times everywhere: nothing that a pipe or a screen reader could stumble over.

use conch_client::Device;
use conch_client::core::{Content, Message};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::harmless;

/// A time of day, `12:34`.
pub(crate) fn clock(time_ms: u64, zone: &TimeZone) -> String {
    let then = local(time_ms, zone);
    format!("{:02}:{:02}", then.hour(), then.minute())
}

/// The day on which something was.
pub(crate) fn date(time_ms: u64, zone: &TimeZone) -> Date {
    local(time_ms, zone).date()
}

/// A day in words, as seen from another.
pub(crate) fn day(time_ms: u64, now_ms: u64, zone: &TimeZone) -> String {
    let (day, today) = (date(time_ms, zone), date(now_ms, zone));
    if day == today {
        "today".to_owned()
    } else if today.yesterday().is_ok_and(|it| it == day) {
        "yesterday".to_owned()
    } else if day.year() == today.year() {
        day.strftime("%A, %-d %B").to_string()
    } else {
        day.strftime("%A, %-d %B %Y").to_string()
    }
}

/// When the next day begins, in ms since 1970.
pub(crate) fn next_day(now_ms: u64, zone: &TimeZone) -> u64 {
    let next = local(now_ms, zone).tomorrow();
    let begins = next.and_then(|it| it.start_of_day());
    let begins = begins.map(|it| it.timestamp().as_millisecond());
    // At the end of time itself there is no next day.
    begins.map_or(u64::MAX, |ms| u64::try_from(ms).unwrap_or(u64::MAX))
}

/// Time of day in the person's zone; with the date if that is another day than `now_ms`.
pub(crate) fn time(time_ms: u64, now_ms: u64, zone: &TimeZone) -> String {
    let clock = clock(time_ms, zone);
    match date(time_ms, zone) {
        day if day == date(now_ms, zone) => clock,
        day => format!("{day} {clock}"),
    }
}

/// The shortest that says when: the time of a day, else the day.
pub(crate) fn short_time(time_ms: u64, now_ms: u64, zone: &TimeZone) -> String {
    let (day, today) = (date(time_ms, zone), date(now_ms, zone));
    if day == today {
        clock(time_ms, zone)
    } else if day.year() == today.year() {
        day.strftime("%-d %b").to_string()
    } else {
        day.year().to_string()
    }
}

fn local(time_ms: u64, zone: &TimeZone) -> jiff::Zoned {
    let time_ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
    let timestamp = Timestamp::from_millisecond(time_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.to_zoned(zone.clone())
}

/// What a message is that is not text.
pub(crate) fn kind(kind: u8) -> String {
    match kind {
        2 => "image".to_owned(),
        3 => "file".to_owned(),
        kind => format!("kind {kind}"),
    }
}

/// An event of a channel as one line (more if the text has some): `[12:34] Ada: hello`.
pub(crate) fn message(message: &Message, author: &str, content: &str, now_ms: u64) -> String {
    let time = time(message.time_ms, now_ms, &TimeZone::system());
    let (author, content) = (harmless::line(author), harmless::text(content));
    match message.content {
        Content::Text { .. } | Content::Payload { .. } => format!("[{time}] {author}: {content}"),
        _ => format!("[{time}] * {author} {content}"),
    }
}

/// A device of one's own, in one line.
pub(crate) fn device(device: &Device, now_ms: u64) -> String {
    let name = match harmless::name(&device.name) {
        name if name.is_empty() => format!("device {}", device.device),
        name => name,
    };
    let seen = time(device.seen_ms, now_ms, &TimeZone::system());
    let here = if device.current { ", this one" } else { "" };
    format!(
        "{name} ({}), last seen {seen}{here}",
        harmless::name(&device.platform)
    )
}

/// The beginning of a text, to recognise it by.
pub(crate) fn beginning(text: &str) -> String {
    const CHARS: usize = 60;
    let line = harmless::line(text);
    match line.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn other_days_have_a_date() {
        let zone = TimeZone::UTC;
        assert_eq!(time(20 * DAY_MS, 20 * DAY_MS, &zone), "00:00");
        assert_eq!(time(10 * DAY_MS, 20 * DAY_MS, &zone), "1970-01-11 00:00");
        assert_eq!(short_time(10 * DAY_MS, 20 * DAY_MS, &zone), "11 Jan");
        assert_eq!(short_time(0, 400 * DAY_MS, &zone), "1970");
    }

    #[test]
    fn days_have_names() {
        let zone = TimeZone::UTC;
        assert_eq!(day(DAY_MS, DAY_MS + 5, &zone), "today");
        assert_eq!(day(DAY_MS, 2 * DAY_MS, &zone), "yesterday");
        assert_eq!(day(0, 9 * DAY_MS, &zone), "Thursday, 1 January");
        assert_eq!(day(0, 400 * DAY_MS, &zone), "Thursday, 1 January 1970");
        assert_eq!(next_day(5, &zone), DAY_MS);
    }

    #[test]
    fn no_time_of_a_server_is_too_strange() {
        for ms in [0, u64::MAX, i64::MAX as u64, 1 << 62] {
            let zone = TimeZone::UTC;
            let _ = (time(ms, 0, &zone), day(ms, ms, &zone), next_day(ms, &zone));
        }
    }
}
