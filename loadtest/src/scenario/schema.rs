//! Every key of a scenario: what may stand there, and what holds when it does not.
//!
//! One table ([`KEYS`]) is what a file is compared with, what errors quote, and what `docs/loadtest.md` has to list; a test
//! compares it with the types that the file is read into.

use std::fmt;

use toml::{Table, Value};

use super::ScenarioError;
use super::shares::TRANSPORTS;

/// What may stand at a key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Allowed {
    Whole(i64, i64),
    Number(f64, f64),
    Words(&'static [&'static str]),
    YesOrNo,
    /// One line of so many characters at most.
    Line(usize),
    /// A transport, or a table of shares.
    Transport,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Whole(min, max) => {
                write!(f, "whole number, {} to {}", grouped(*min), grouped(*max))
            }
            Allowed::Number(min, max) if max.fract() == 0.0 => {
                write!(f, "number, {min} to {}", grouped(*max as i64))
            }
            Allowed::Number(min, max) => write!(f, "number, {min} to {max}"),
            Allowed::Words(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                f.write_str(&quoted.join(" or "))
            }
            Allowed::YesOrNo => f.write_str("true or false"),
            Allowed::Line(chars) => write!(f, "text, one line of 1 to {chars} characters"),
            Allowed::Transport => f.write_str(
                "\"ws\", \"wss\" or \"quic\", or shares that sum to 1: { wss = 0.5, quic = 0.5 }",
            ),
        }
    }
}

/// 1,000,000 for a million.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Key {
    /// Section and name, `send.rate`; a key of no section has only its name.
    pub path: &'static str,
    pub allowed: Allowed,
    /// What holds without it, as a reader would write it; `None`: it must be there.
    pub default: Option<&'static str>,
}

const fn key(path: &'static str, allowed: Allowed, default: Option<&'static str>) -> Key {
    Key {
        path,
        allowed,
        default,
    }
}

const NAME: Allowed = Allowed::Line(40);
const SECONDS: Allowed = Allowed::Number(0.0, 86_400.0);
const SHARE: Allowed = Allowed::Number(0.0, 1.0);
const RATE: Allowed = Allowed::Number(0.01, 10_000_000.0);
const STORED: Allowed = Allowed::Whole(0, 10_000_000);
const EVERYWHERE: Option<&str> = Some("all channels");

/// Every key of a scenario.
pub const KEYS: &[Key] = &[
    key("about", Allowed::Line(200), Some("\"\"")),
    key("check", Allowed::YesOrNo, Some("true")),
    key("seed", Allowed::Whole(0, i64::MAX), Some("1")),
    key("population.people", Allowed::Whole(1, 200_000), None),
    key("population.devices", Allowed::Whole(1, 50), Some("1")),
    key("population.transport", Allowed::Transport, Some("\"ws\"")),
    key("time.warm_up_s", Allowed::Number(0.0, 3_600.0), Some("3")),
    key(
        "time.duration_s",
        Allowed::Number(0.5, 86_400.0),
        Some("30"),
    ),
    key("time.drain_s", Allowed::Number(1.0, 600.0), Some("30")),
    key("direct.name", NAME, Some("\"direct\"")),
    key("direct.pairs", Allowed::Whole(1, 1_000_000), None),
    key("direct.stored", STORED, Some("0")),
    key("group.name", NAME, Some("\"group\"")),
    key("group.groups", Allowed::Whole(1, 1_000_000), Some("1")),
    key("group.members", Allowed::Whole(2, 1_000), None),
    key("group.stored", STORED, Some("0")),
    key("send.to", NAME, EVERYWHERE),
    key("send.rate", RATE, Some("none: then `window`")),
    key(
        "send.arrivals",
        Allowed::Words(&["fixed", "poisson"]),
        Some("\"poisson\""),
    ),
    key(
        "send.window",
        Allowed::Whole(1, 4_096),
        Some("none: then `rate`"),
    ),
    key("send.batch", Allowed::Whole(1, 64), Some("1")),
    key(
        "send.payload_bytes",
        Allowed::Whole(32, 100_000),
        Some("100"),
    ),
    key(
        "send.senders",
        Allowed::Whole(1, 1_000),
        Some("all members"),
    ),
    key("send.at_s", SECONDS, Some("from the warm-up on")),
    key("send.for_s", SECONDS, Some("to the end")),
    key("history.to", NAME, EVERYWHERE),
    key("history.rate", RATE, None),
    key("history.items", Allowed::Whole(1, 200), Some("50")),
    key("read.to", NAME, EVERYWHERE),
    key("read.rate", RATE, None),
    key("storm.at_s", SECONDS, None),
    key("storm.share", SHARE, Some("1")),
    key("storm.within_s", SECONDS, Some("0")),
    key("stall.at_s", SECONDS, None),
    key("stall.for_s", SECONDS, None),
    key("stall.share", SHARE, None),
    key("absence.at_s", SECONDS, None),
    key("absence.for_s", SECONDS, None),
    key("absence.share", SHARE, None),
    key("search.p99_ms", Allowed::Number(0.1, 60_000.0), None),
    key(
        "search.of",
        Allowed::Words(&["delivery", "ack"]),
        Some("\"delivery\""),
    ),
    key("search.rate_max", RATE, None),
    key("search.probe_s", Allowed::Number(1.0, 600.0), Some("10")),
    key("search.precision", Allowed::Number(0.01, 1.0), Some("0.1")),
];

/// Sections that may stand there many times, `[[send]]`; the others stand there once, `[time]`.
pub(super) const REPEATED: [&str; 8] = [
    "direct", "group", "send", "history", "read", "storm", "stall", "absence",
];
const REQUIRED: [&str; 1] = ["population"];

/// Compares a file with the table: the first key that is unknown, missing or not allowed is the error.
pub(super) fn compare(file: &str, table: &Table) -> Result<(), ScenarioError> {
    for (name, value) in table {
        if KEYS.iter().any(|key| key.path == name) {
            compare_value(file, name, name, value)?;
        } else if !keys_of(name).is_empty() {
            compare_section(file, name, value)?;
        } else {
            return Err(unknown(file, "", name));
        }
    }
    for section in REQUIRED {
        if !table.contains_key(section) {
            return Err(missing(file, &keys_of(section)[0], section));
        }
    }
    Ok(())
}

fn compare_section(file: &str, section: &str, value: &Value) -> Result<(), ScenarioError> {
    let repeated = REPEATED.contains(&section);
    match value {
        Value::Array(many) if repeated => {
            for (index, one) in many.iter().enumerate() {
                let at = format!("{section}[{index}]");
                let Value::Table(table) = one else {
                    return Err(ScenarioError::key(file, at, "a section, as [[…]]"));
                };
                compare_table(file, section, &at, table)?;
            }
            Ok(())
        }
        Value::Table(table) if !repeated => compare_table(file, section, section, table),
        _ => {
            let form = if repeated {
                format!("a section that may be repeated: [[{section}]]")
            } else {
                format!("a section: [{section}]")
            };
            Err(ScenarioError::key(file, section, form))
        }
    }
}

fn compare_table(file: &str, section: &str, at: &str, table: &Table) -> Result<(), ScenarioError> {
    let keys = keys_of(section);
    for (name, value) in table {
        let path = format!("{section}.{name}");
        if !keys.iter().any(|key| key.path == path) {
            return Err(unknown(file, section, &format!("{at}.{name}")));
        }
        compare_value(file, &path, &format!("{at}.{name}"), value)?;
    }
    let absent = |key: &&Key| key.default.is_none() && !table.contains_key(name_of(key));
    match keys.iter().find(absent) {
        Some(key) => Err(missing(file, key, at)),
        None => Ok(()),
    }
}

fn compare_value(file: &str, path: &str, at: &str, value: &Value) -> Result<(), ScenarioError> {
    let allowed = KEYS
        .iter()
        .find(|key| key.path == path)
        .map(|key| key.allowed);
    let fits = match (allowed, value) {
        (Some(Allowed::Whole(min, max)), Value::Integer(number)) => (min..=max).contains(number),
        (Some(Allowed::Number(min, max)), Value::Integer(number)) => {
            (min..=max).contains(&(*number as f64))
        }
        (Some(Allowed::Number(min, max)), Value::Float(number)) => (min..=max).contains(number),
        (Some(Allowed::Words(words)), Value::String(word)) => words.contains(&word.as_str()),
        (Some(Allowed::YesOrNo), Value::Boolean(_)) => true,
        (Some(Allowed::Line(chars)), Value::String(text)) => {
            (1..=chars).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        }
        (Some(Allowed::Transport), Value::String(name)) => is_transport(name),
        (Some(Allowed::Transport), Value::Table(shares)) => {
            !shares.is_empty()
                && shares
                    .iter()
                    .all(|(name, share)| is_transport(name) && is_share(share))
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let allowed = allowed.map_or_else(String::new, |allowed| allowed.to_string());
    let shown = value.to_string().replace('\n', " ");
    let problem = format!("{shown} is not allowed; allowed: {allowed}");
    Err(ScenarioError::key(file, at, problem))
}

fn is_transport(name: &str) -> bool {
    TRANSPORTS.iter().any(|(known, _)| *known == name)
}

fn is_share(value: &Value) -> bool {
    let number = value
        .as_float()
        .or_else(|| value.as_integer().map(|it| it as f64));
    number.is_some_and(|number| (0.0..=1.0).contains(&number))
}

fn keys_of(section: &str) -> Vec<Key> {
    KEYS.iter()
        .filter(|key| {
            key.path
                .split_once('.')
                .is_some_and(|(of, _)| of == section)
        })
        .copied()
        .collect()
}

fn name_of<'a>(key: &Key) -> &'a str {
    key.path.rsplit_once('.').map_or(key.path, |(_, name)| name)
}

fn missing(file: &str, key: &Key, at: &str) -> ScenarioError {
    let name = name_of(key);
    ScenarioError::key(
        file,
        format!("{at}.{name}"),
        format!("missing; allowed: {}", key.allowed),
    )
}

fn unknown(file: &str, section: &str, at: &str) -> ScenarioError {
    let mut known: Vec<&str> = Vec::new();
    for key in KEYS {
        let name = match key.path.split_once('.') {
            Some((of, name)) if of == section => name,
            Some((of, _)) if section.is_empty() => of,
            None if section.is_empty() => key.path,
            _ => continue,
        };
        if !known.contains(&name) {
            known.push(name);
        }
    }
    ScenarioError::key(
        file,
        at,
        format!("unknown key; allowed here: {}", known.join(", ")),
    )
}
