//! What a typed line means. Pure.

/// A line, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    Text(String),
    Empty,
    Signup {
        handle: String,
    },
    Login {
        handle: String,
    },
    Logout,
    Direct {
        handle: String,
    },
    Group {
        title: String,
        handles: Vec<String>,
    },
    /// By number of the last list, or by name.
    Open {
        which: String,
    },
    Close,
    List,
    History {
        items: u32,
    },
    Members,
    Add {
        handles: Vec<String>,
    },
    Remove {
        handle: String,
    },
    Leave,
    Rename {
        title: String,
    },
    Devices,
    /// By number of the last list of devices, from 1.
    RemoveDevice {
        number: usize,
    },
    Who,
    Help,
    Quit,
    /// Not understood; what to say about it.
    Wrong(String),
}

/// What there is, for `/help`.
pub(crate) const COMMANDS: &[(&str, &str)] = &[
    ("/signup HANDLE", "make an account (asks for a password)"),
    ("/login HANDLE", "log this device in"),
    ("/logout", "log this device out, for good"),
    ("/dm HANDLE", "talk to somebody"),
    (
        "/group TITLE HANDLE…",
        "make a group (\"A TITLE\" of several words)",
    ),
    ("/list", "your conversations, with what is unread"),
    ("/open N", "go to conversation N of the list (or its name)"),
    ("/close", "go nowhere"),
    ("/history [N]", "N older messages (20)"),
    ("/members", "who is here"),
    ("/add HANDLE…", "bring somebody in"),
    ("/remove HANDLE", "put somebody out"),
    ("/leave", "leave this group"),
    ("/rename TITLE", "give this group another name"),
    ("/devices", "where you are logged in"),
    ("/devices remove N", "log device N of that list out"),
    ("/who", "who and where you are"),
    ("/quit", "end; what is not sent yet is sent next time"),
];

/// `/help` in plain lines.
pub(crate) fn help() -> String {
    let mut help = String::new();
    for (what, does) in COMMANDS {
        help += &format!("{what:<22} {does}\n");
    }
    help + "Everything else is a message. // at the beginning of a line is a slash."
}

const HISTORY_ITEMS: u32 = 20;

impl Line {
    pub(crate) fn parse(line: &str) -> Line {
        let line = line.trim_end_matches(['\r', '\n']);
        let Some(command) = line.strip_prefix('/') else {
            return if line.trim().is_empty() {
                Line::Empty
            } else {
                Line::Text(line.to_owned())
            };
        };
        if command.starts_with('/') {
            return Line::Text(command.to_owned());
        }
        // Several lines that begin with a slash are somebody's text, as a rule a pasted path or program.
        if command.contains('\n') {
            return Line::Text(line.to_owned());
        }
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        let rest = rest.trim();
        let words = || rest.split_whitespace().map(handle).collect::<Vec<_>>();
        let one = |make: fn(String) -> Line, usage: &str| match &words()[..] {
            [word] => make(word.clone()),
            _ => Line::Wrong(format!("usage: {usage}")),
        };
        match name {
            "signup" => one(|handle| Line::Signup { handle }, "/signup HANDLE"),
            "login" => one(|handle| Line::Login { handle }, "/login HANDLE"),
            "logout" => Line::Logout,
            "dm" => one(|handle| Line::Direct { handle }, "/dm HANDLE"),
            "group" => parse_group(rest),
            "open" if !rest.is_empty() => Line::Open {
                which: rest.to_owned(),
            },
            "open" => Line::Wrong("usage: /open N (a number of /list, or a name)".to_owned()),
            "close" => Line::Close,
            "list" => Line::List,
            "history" if rest.is_empty() => Line::History {
                items: HISTORY_ITEMS,
            },
            "history" => match rest.parse() {
                Ok(items @ 1..=1_000) => Line::History { items },
                _ => Line::Wrong("usage: /history [1–1000]".to_owned()),
            },
            "members" => Line::Members,
            "add" => match words() {
                handles if handles.is_empty() => Line::Wrong("usage: /add HANDLE…".to_owned()),
                handles => Line::Add { handles },
            },
            "remove" => one(|handle| Line::Remove { handle }, "/remove HANDLE"),
            "leave" => Line::Leave,
            "rename" if !rest.is_empty() => Line::Rename {
                title: rest.to_owned(),
            },
            "rename" => Line::Wrong("usage: /rename TITLE".to_owned()),
            "devices" if rest.is_empty() => Line::Devices,
            "devices" => match rest.strip_prefix("remove ").map(|it| it.trim().parse()) {
                Some(Ok(number @ 1..)) => Line::RemoveDevice { number },
                _ => Line::Wrong("usage: /devices, or /devices remove N".to_owned()),
            },
            "who" => Line::Who,
            "help" | "?" => Line::Help,
            "quit" | "exit" | "q" => Line::Quit,
            other => Line::Wrong(format!("there is no /{other}; /help tells what there is")),
        }
    }
}

/// People write `@ada` as well as `ada`.
fn handle(word: &str) -> String {
    word.strip_prefix('@').unwrap_or(word).to_owned()
}

fn parse_group(rest: &str) -> Line {
    let usage = || Line::Wrong("usage: /group TITLE HANDLE… (or \"A TITLE\" HANDLE…)".to_owned());
    let split = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"'),
        None => rest.split_once(char::is_whitespace),
    };
    let Some((title, handles)) = split else {
        return usage();
    };
    let handles: Vec<_> = handles.split_whitespace().map(handle).collect();
    if title.trim().is_empty() || handles.is_empty() {
        return usage();
    }
    Line::Group {
        title: title.trim().to_owned(),
        handles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_unless_they_begin_with_a_slash() {
        assert_eq!(
            Line::parse("hello /help\n"),
            Line::Text("hello /help".to_owned())
        );
        assert_eq!(Line::parse("  spaced"), Line::Text("  spaced".to_owned()));
        assert_eq!(Line::parse("//usr/bin"), Line::Text("/usr/bin".to_owned()));
        assert_eq!(Line::parse("  \r\n"), Line::Empty);
    }

    #[test]
    fn groups_have_a_title_and_people() {
        let group = |title: &str| Line::Group {
            title: title.to_owned(),
            handles: vec!["ada".to_owned(), "grace".to_owned()],
        };
        assert_eq!(Line::parse("/group Harbour @ada grace"), group("Harbour"));
        assert_eq!(
            Line::parse("/group \"Old Harbour\" ada grace"),
            group("Old Harbour")
        );
        for wrong in [
            "/group",
            "/group Harbour",
            "/group \"Old",
            "/group \"\" ada",
        ] {
            assert!(matches!(Line::parse(wrong), Line::Wrong(_)), "{wrong}");
        }
    }

    #[test]
    fn wrong_commands_say_how() {
        for wrong in [
            "/dm",
            "/dm a b",
            "/open",
            "/history 0",
            "/history x",
            "/add",
            "/nothing",
            "/devices remove",
            "/devices remove 0",
        ] {
            assert!(matches!(Line::parse(wrong), Line::Wrong(_)), "{wrong}");
        }
        assert_eq!(Line::parse("/history 5"), Line::History { items: 5 });
        assert_eq!(
            Line::parse("/devices remove 2"),
            Line::RemoveDevice { number: 2 }
        );
    }
}
