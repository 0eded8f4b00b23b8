//! Whole screens, cell by cell, and no screen that panics.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use conch_client::core::{ConnectionState, Content, Event, Message, RefusalReason, StopReason};
use conch_client::wire::event::ChannelKind;
use conch_client::wire::{ChannelId, Code, MessageKey, UserId};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};

use super::draw;
use crate::harmless;
use crate::screen::state::conversation::Page;
use crate::screen::state::tests::{
    ADA, DIRECT, GRACE, HARBOUR, NOON_MS, ada, answer, channel, connection, enters, happen, nobody,
    open, page, person, press, text, types,
};
use crate::screen::state::{Answer, App, Happening};

fn drawn(app: &App) -> (Buffer, Option<Position>) {
    let Size { width, height } = app.size;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut cursor = None;
    let frame = |frame: &mut ratatui::Frame<'_>| cursor = draw(app, frame.buffer_mut());
    let buffer = terminal.draw(frame).unwrap().buffer.clone();
    (buffer, cursor)
}

/// Rows as text, without blanks at their ends.
fn rows(app: &App) -> Vec<String> {
    let (buffer, _) = drawn(app);
    let row = |y| {
        let mut row = String::new();
        let mut covered = 0;
        for x in 0..buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            // A wide character covers the cell behind it.
            if covered == 0 {
                row.push_str(symbol);
                covered = harmless::width(symbol).max(1);
            }
            covered -= 1;
        }
        row.trim_end().to_owned()
    };
    (0..buffer.area.height).map(row).collect()
}

fn assert_rows(app: &App, expected: &[&str]) {
    let found = rows(app);
    let expected: Vec<_> = expected.iter().map(|it| it.trim_end()).collect();
    assert!(found == expected, "found:\n{}", found.join("\n"));
}

/// Ada and Grace have talked; Ada's last word waits.
fn conversation(width: u16, height: u16) -> App {
    let mut app = ada(width, height);
    for message in [
        text(HARBOUR, 1, GRACE, "who is at the pier?"),
        text(DIRECT, 4, GRACE, "see you then"),
    ] {
        happen(&mut app, Happening::Client(Event::Message(message)));
    }
    let mut old = text(DIRECT, 1, GRACE, "Hello Ada, how is the engine?");
    old.time_ms = NOON_MS - 86_400_000;
    open(
        &mut app,
        DIRECT,
        vec![
            old,
            text(DIRECT, 2, ADA, "turning"),
            text(DIRECT, 3, GRACE, "good"),
            text(DIRECT, 4, GRACE, "see you then"),
        ],
    );
    connection(
        &mut app,
        ConnectionState::Offline {
            retry_in_ms: 2_500,
            code: None,
        },
    );
    enters(&mut app, "bye 世界");
    app
}

#[test]
fn conversation_on_an_ordinary_screen() {
    assert_rows(
        &conversation(80, 24),
        &[
            " Conch @ada               │ Grace @grace",
            " Grace              11:04 │",
            "  see you then            │",
            " Harbour                3 │",
            "  Grace: who is at the p… │",
            "                          │",
            "                          │",
            "                          │",
            "                          │",
            "                          │ ─── the beginning ──────────────────────────────────",
            "                          │ ─── yesterday ──────────────────────────────────────",
            "                          │ Grace 12:00",
            "                          │   Hello Ada, how is the engine?",
            "                          │ ─── today ──────────────────────────────────────────",
            "                          │ you 11:02",
            "                          │   turning                                          ✓",
            "                          │ Grace 11:03",
            "                          │   good",
            "                          │   see you then",
            "                          │ you 12:00",
            "                          │   bye 世界                                         …",
            "                          │ ────────────────────────────────────────────────────",
            "                          │ › write a message",
            " ○ offline · next try in 3 s · 1 to send                                F1 help",
        ][..],
    );
}

#[test]
fn conversation_on_a_small_screen() {
    let mut app = conversation(40, 12);
    assert_rows(
        &app,
        &[
            "Grace @grace",
            "─── today ──────────────────────────────",
            "you 11:02",
            "  turning                              ✓",
            "Grace 11:03",
            "  good",
            "  see you then",
            "you 12:00",
            "  bye 世界                             …",
            "────────────────────────────────────────",
            "› write a message",
            " ○ offline · next try in 3 s · 1 to send",
        ],
    );
    press(&mut app, KeyCode::F(2), KeyModifiers::NONE);
    assert_eq!(
        rows(&app)[..5],
        [
            " Conch @ada",
            " Grace                            11:04",
            "  see you then",
            " Harbour                              3",
            "  Grace: who is at the pier?",
        ]
    );
}

#[test]
fn form_shows_no_password() {
    let mut app = nobody(80, 24);
    enters(&mut app, "/signup ada");
    types(&mut app, "correct horse");
    let shown = rows(&app);
    assert!(
        shown
            .iter()
            .any(|it| it.contains("password   •••••••••••••"))
    );
    assert!(!shown.concat().contains("horse"));
    let (_, cursor) = drawn(&app);
    let cursor = cursor.unwrap();
    assert!(shown[usize::from(cursor.y)].contains("password"));
}

#[test]
fn help_names_every_key_and_command() {
    let mut app = ada(120, 60);
    press(&mut app, KeyCode::F(1), KeyModifiers::NONE);
    let shown = rows(&app).concat();
    for (what, _) in crate::screen::state::keys::KEYS {
        assert!(shown.contains(what), "{what}");
    }
    for (what, _) in crate::commands::COMMANDS {
        assert!(shown.contains(what), "{what}");
    }
    press(&mut app, KeyCode::Esc, KeyModifiers::NONE);
    assert!(!rows(&app).concat().contains("/signup"));
}

#[test]
fn connection_says_what_is_the_matter() {
    let mut app = ada(80, 24);
    let last = |app: &App| rows(app).pop().unwrap();
    assert!(last(&app).contains("● online · 127.0.0.1:8080"));
    connection(&mut app, ConnectionState::Connecting);
    assert!(last(&app).contains("connecting"));
    let stopped = ConnectionState::Stopped(StopReason::UnsupportedVersion);
    connection(&mut app, stopped);
    assert!(last(&app).contains("■ this program is too old for the server: update it"));
}

#[test]
fn refused_message_stands_with_its_reason() {
    let mut app = conversation(80, 24);
    let key = MessageKey([1; 16]);
    let result = Ok(key);
    answer(&mut app, Answer::Taken { ticket: 1, result });
    let refused = Event::SendRefused {
        channel: DIRECT,
        key,
        reason: RefusalReason::Server(Code::NotFound),
    };
    happen(&mut app, Happening::Client(refused));
    let shown = rows(&app).join("\n");
    assert!(shown.contains("✗"), "{shown}");
    assert!(shown.contains("not sent: you are not a member"), "{shown}");
}

#[test]
fn unread_line_stands_above_what_is_new() {
    let mut app = ada(80, 24);
    let mut info = channel(DIRECT, ChannelKind::Direct, "", 1);
    info.read_seq = 2;
    info.mentions = 1;
    happen(&mut app, Happening::Client(Event::Channel(info)));
    assert!(
        rows(&app)
            .iter()
            .any(|it| it.starts_with(" Grace") && it.contains("@1 1 │"))
    );
    open(
        &mut app,
        DIRECT,
        (1..=3)
            .map(|seq| text(DIRECT, seq, GRACE, &format!("number {seq}")))
            .collect(),
    );
    let shown = rows(&app);
    let line = shown
        .iter()
        .position(|it| it.contains("─── new ──"))
        .unwrap();
    assert!(shown[line - 1].contains("number 2"), "{shown:?}");
    assert!(shown[line + 2].contains("number 3"), "{shown:?}");
}

#[test]
fn colours_are_a_persons_choice() {
    for colours in [true, false] {
        let mut app = conversation(80, 24);
        app.colours = colours;
        let (buffer, _) = drawn(&app);
        let cells = buffer.content();
        let coloured = cells
            .iter()
            .any(|it| it.fg != Color::Reset || it.bg != Color::Reset);
        assert_eq!(coloured, colours);
        // What is chosen is told without colours, too.
        assert!(
            cells
                .iter()
                .any(|it| it.modifier.contains(Modifier::REVERSED))
        );
        let in_16 = |colour| !matches!(colour, Color::Rgb(..) | Color::Indexed(_));
        assert!(cells.iter().all(|it| in_16(it.fg) && in_16(it.bg)));
    }
}

#[test]
fn older_page_moves_nothing_that_is_in_view() {
    let page_of = |from, to| -> Vec<Message> {
        (from..=to)
            .map(|seq| {
                text(
                    DIRECT,
                    seq,
                    GRACE,
                    &format!("number {seq} {}", "long ".repeat(seq as usize % 40)),
                )
            })
            .collect()
    };
    let mut app = ada(80, 24);
    open(&mut app, DIRECT, page_of(61, 120));
    for _ in 0..40 {
        press(&mut app, KeyCode::Up, KeyModifiers::NONE);
    }
    // A row of the oldest block may change with what comes above it: a name, a day.
    let before = rows(&app);
    page(&mut app, Page::OlderThan(61), page_of(1, 60));
    assert_eq!(rows(&app), before);
    happen(
        &mut app,
        Happening::Client(Event::Message(text(DIRECT, 121, GRACE, "new"))),
    );
    let after = rows(&app);
    let conversation = |rows: &[String]| -> Vec<String> {
        let right = |it: &String| it.split_once('│').map(|it| it.1.to_owned());
        rows[1..20].iter().filter_map(right).collect()
    };
    assert_eq!(conversation(&after), conversation(&before));
    press(&mut app, KeyCode::Esc, KeyModifiers::NONE);
    assert!(rows(&app).concat().contains("new"));
}

/// Words that break lines, screens and terminals.
const HOSTILE: &[&str] = &[
    "\u{1b}[2J\u{1b}[31mred\u{9b}1m",
    "\u{202e}gnp.exe\u{2066}\u{2069}",
    "one\rtwo\ttab\u{7}\u{8}\u{0}",
    "世界世界世界世界世界世界世界世界世界世界世界世界世界世界世界世界世界世界世界",
    "👩\u{200d}👩\u{200d}👧 🏳\u{fe0f}\u{200d}🌈 👍\u{1f3fd} \u{1f1e6}",
    "क\u{94d}क\u{94d}क\u{94d}क\u{94d}क\u{94d}क\u{94d}क\u{94d}क ﷽ \u{1100}\u{1100}\u{1100}\u{1100}\u{1100}",
    "\u{ff9e}\u{ff9f}\u{ff9e} \u{200b}\u{feff}\u{3164}",
    "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
];

fn hostile_words() -> impl Strategy<Value = String> {
    let piled = (0_usize..2).prop_map(|n| format!("z{}", "\u{336}".repeat(n * 10_000)));
    let piece = prop_oneof![
        proptest::sample::select(HOSTILE).prop_map(str::to_owned),
        piled,
        any::<String>(),
        "[a-z ]{0,200}",
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|it| it.concat())
}

/// Something that happens, made of small numbers and words.
fn step() -> impl Strategy<Value = (u8, u8, String)> {
    (0_u8..24, any::<u8>(), hostile_words())
}

fn take_step(app: &mut App, (what, number, words): (u8, u8, String)) {
    let seq = app.open.as_ref().map_or(0, |it| it.last_seq()) + 1;
    let here = app.open.as_ref().map_or(DIRECT, |it| it.channel);
    let author = if number % 3 == 0 {
        ADA
    } else {
        UserId(u64::from(number))
    };
    let key = |code| (code, KeyModifiers::NONE);
    let (code, modifiers) = match what {
        0..=3 => {
            let message = text(here, seq, author, &words);
            return happen(app, Happening::Client(Event::Message(message)));
        }
        4 => {
            let mut message = text(here, seq, author, "");
            message.content = match number % 5 {
                0 => Content::Created {
                    title: words,
                    members: Vec::new(),
                },
                1 => Content::MembersAdded {
                    members: (0..u64::from(number)).map(UserId).collect(),
                },
                2 => Content::Renamed { title: words },
                3 => Content::Payload {
                    kind: number,
                    bytes: vec![0; 9],
                },
                _ => Content::Unknown { kind: number },
            };
            return happen(app, Happening::Client(Event::Message(message)));
        }
        5 => {
            let people = vec![person(author, &words, &words)];
            let asked = vec![author];
            return answer(
                app,
                Answer::People {
                    asked,
                    found: Some(people),
                },
            );
        }
        6 => {
            let id = ChannelId(u64::from(number % 40) + 10);
            let mut info = channel(id, ChannelKind::Group, &words, number.into());
            info.left = number % 7 == 0;
            info.mentions = u32::from(number % 4);
            return happen(app, Happening::Client(Event::Channel(info)));
        }
        7 => return happen(app, Happening::Pasted(words)),
        8 => {
            let size = Size {
                width: u16::from(number % 100),
                height: (words.len() % 40) as u16,
            };
            return happen(app, Happening::Resized(size));
        }
        9 => {
            let state = match number % 4 {
                0 => ConnectionState::Online,
                1 => ConnectionState::Offline {
                    retry_in_ms: 9_999,
                    code: Some(4_200),
                },
                2 => ConnectionState::Stopped(StopReason::LoggedOut),
                _ => ConnectionState::Connecting,
            };
            return connection(app, state);
        }
        10 => {
            let lines = words.lines().map(str::to_owned).collect();
            return answer(app, Answer::Members(Ok(lines)));
        }
        11 => {
            let from = seq.saturating_sub(u32::from(number)).max(1);
            let messages = (from..seq)
                .map(|it| text(here, it, GRACE, &words))
                .collect();
            if app.open.is_some() {
                page(app, Page::Newest, messages);
            }
            return;
        }
        12 => return types(app, &words.chars().take(40).collect::<String>()),
        13 => key(KeyCode::Enter),
        14 => key(KeyCode::Tab),
        15 => key(KeyCode::PageUp),
        16 => key(KeyCode::PageDown),
        17 => key(KeyCode::Up),
        18 => key(KeyCode::Esc),
        19 => key(KeyCode::F(1 + number % 2)),
        20 => (KeyCode::Char('n'), KeyModifiers::CONTROL),
        21 => key(KeyCode::Backspace),
        22 => (KeyCode::Enter, KeyModifiers::ALT),
        _ => {
            let code = if number % 2 == 0 {
                Code::NotFound
            } else {
                Code::TooLarge
            };
            let refused = Event::SendRefused {
                channel: here,
                key: MessageKey([number; 16]),
                reason: RefusalReason::Server(code),
            };
            return happen(app, Happening::Client(refused));
        }
    };
    press(app, code, modifiers);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_screen_panics_or_lets_anything_through(
        width in 0_u16..130,
        height in 0_u16..50,
        steps in proptest::collection::vec(step(), 0..24),
    ) {
        let mut app = if width % 5 == 0 { nobody(width, height) } else { ada(width, height) };
        for step in steps {
            take_step(&mut app, step);
            app.take_effects();
            if app.size.width == 0 || app.size.height == 0 {
                continue;
            }
            let (buffer, cursor) = drawn(&app);
            for cell in buffer.content() {
                let symbol = cell.symbol();
                let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                prop_assert!(!symbol.contains(harmful), "{symbol:?}");
                prop_assert!(symbol.chars().count() <= 8, "{symbol:?}");
            }
            if let Some(cursor) = cursor {
                prop_assert!(buffer.area.contains(cursor));
            }
        }
    }
}
