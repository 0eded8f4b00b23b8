//! Tests of the model, and states for tests of the drawing: Ada at a screen, in UTC, at noon of a Tuesday.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use conch_client::core::{
    ChannelInfo, ConnectionState, Content, Event, Message, RefusalReason, StopReason,
};
use conch_client::wire::event::ChannelKind;
use conch_client::wire::{ChannelId, Code, DeviceId, MemberRole, MessageKey, Seq, UserId};
use conch_client::{Account, Person};
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Size;

use super::conversation::{Page, Scroll};
use super::entry::{Field, Purpose};
use super::outbox::Stage;
use super::{Answer, App, Beginning, Effect, Happening};

pub(crate) const ADA: UserId = UserId(1);
pub(crate) const GRACE: UserId = UserId(2);
/// Tuesday, 18 November 2025, 12:00 UTC.
pub(crate) const NOON_MS: u64 = 1_763_467_200_000;
pub(crate) const DIRECT: ChannelId = ChannelId(10);
pub(crate) const HARBOUR: ChannelId = ChannelId(11);

pub(crate) fn person(user: UserId, handle: &str, name: &str) -> Person {
    Person {
        user,
        handle: handle.to_owned(),
        display_name: name.to_owned(),
    }
}

pub(crate) fn nobody(width: u16, height: u16) -> App {
    App::new(Beginning {
        size: Size { width, height },
        now_ms: NOON_MS,
        zone: TimeZone::UTC,
        colours: true,
        server: "http://127.0.0.1:8080".to_owned(),
        account: None,
        password: None,
        word: None,
    })
}

/// Ada, online, with a direct channel and a group; nothing is open.
pub(crate) fn ada(width: u16, height: u16) -> App {
    let mut app = nobody(width, height);
    app.me = Some(Account {
        user: ADA,
        device: DeviceId(5),
        handle: "ada".to_owned(),
        display_name: "Ada".to_owned(),
    });
    app.entry = None;
    connection(&mut app, ConnectionState::Online);
    let people = vec![person(GRACE, "grace", "Grace"), person(ADA, "ada", "Ada")];
    let held = Answer::Held {
        channels: vec![
            channel(DIRECT, ChannelKind::Direct, "", 0),
            channel(HARBOUR, ChannelKind::Group, "Harbour", 3),
        ],
        outbox: Vec::new(),
        people,
    };
    answer(&mut app, held);
    app.take_effects();
    app
}

pub(crate) fn channel(id: ChannelId, kind: ChannelKind, title: &str, unread: u32) -> ChannelInfo {
    ChannelInfo {
        channel: id,
        kind,
        title: title.to_owned(),
        peer: (kind == ChannelKind::Direct).then_some(GRACE),
        role: MemberRole::Member,
        left: false,
        unread,
        mentions: 0,
        last: None,
        first_seq: 1,
        head_seq: 0,
        read_seq: 0,
        held_from: 1,
        held_to: 0,
        used: 0,
    }
}

pub(crate) fn text(channel: ChannelId, seq: Seq, author: UserId, text: &str) -> Message {
    Message {
        channel,
        seq,
        author,
        // A minute apart, the newest a little ago.
        time_ms: NOON_MS - 3_600_000 + u64::from(seq) * 60_000,
        key: None,
        content: Content::Text {
            text: text.to_owned(),
            mentions: Vec::new(),
        },
    }
}

pub(crate) fn happen(app: &mut App, happening: Happening) {
    let now_ms = app.now_ms;
    app.update(now_ms, happening);
}

pub(crate) fn answer(app: &mut App, answer: Answer) {
    happen(app, Happening::Answer(answer));
}

pub(crate) fn connection(app: &mut App, state: ConnectionState) {
    happen(app, Happening::Client(Event::Connection(state)));
}

pub(crate) fn press(app: &mut App, code: KeyCode, modifiers: KeyModifiers) {
    happen(app, Happening::Key(KeyEvent::new(code, modifiers)));
}

pub(crate) fn types(app: &mut App, text: &str) {
    for c in text.chars() {
        press(app, KeyCode::Char(c), KeyModifiers::NONE);
    }
}

pub(crate) fn enters(app: &mut App, line: &str) {
    types(app, line);
    press(app, KeyCode::Enter, KeyModifiers::NONE);
}

/// Opens a channel and lets its newest page come.
pub(crate) fn open(app: &mut App, channel: ChannelId, messages: Vec<Message>) {
    app.go_to(channel);
    page(app, Page::Newest, messages);
    app.take_effects();
}

pub(crate) fn page(app: &mut App, page: Page, messages: Vec<Message>) {
    let open = app.open.as_ref().unwrap();
    let (channel, visit) = (open.channel, open.visit);
    answer(
        app,
        Answer::Page {
            channel,
            visit,
            page,
            result: Ok(messages),
        },
    );
}

fn many(range: std::ops::RangeInclusive<Seq>) -> Vec<Message> {
    range
        .map(|seq| text(DIRECT, seq, GRACE, &format!("message {seq}")))
        .collect()
}

fn loads(effects: &[Effect]) -> Vec<Page> {
    let load = |it: &Effect| match it {
        Effect::Load { page, .. } => Some(*page),
        _ => None,
    };
    effects.iter().filter_map(load).collect()
}

const KEY: MessageKey = MessageKey([9; 16]);

#[test]
fn written_message_is_shown_at_once_and_settles_in_the_log() {
    let mut app = ada(80, 24);
    open(&mut app, DIRECT, many(1..=3));
    assert!(!app.take_effects().contains(&Effect::Hurry));
    enters(&mut app, "hello");
    let effects = app.take_effects();
    let Some(Effect::Send {
        ticket, text: sent, ..
    }) = effects.first()
    else {
        panic!("{effects:?}");
    };
    assert_eq!(sent, "hello");
    assert!(app.input.is_empty());
    let (ticket, stages) = (*ticket, |app: &App| -> Vec<Stage> {
        app.outbox.of(DIRECT).map(|it| it.stage).collect()
    });
    assert_eq!(stages(&app), [Stage::Taking]);
    let result = Ok(KEY);
    answer(&mut app, Answer::Taken { ticket, result });
    assert_eq!(stages(&app), [Stage::Queued]);
    let stored = Event::SendStored {
        channel: DIRECT,
        key: KEY,
        seq: 4,
        time_ms: NOON_MS,
    };
    happen(&mut app, Happening::Client(stored));
    assert_eq!(stages(&app), [Stage::Stored]);
    let mut message = text(DIRECT, 4, ADA, "hello");
    message.key = Some(KEY);
    happen(&mut app, Happening::Client(Event::Message(message)));
    assert_eq!(stages(&app), []);
    assert_eq!(app.open.as_ref().unwrap().last_seq(), 4);
}

#[test]
fn refused_message_says_why_and_can_be_taken_back() {
    let mut app = ada(80, 24);
    open(&mut app, HARBOUR, Vec::new());
    enters(&mut app, "too late");
    answer(
        &mut app,
        Answer::Taken {
            ticket: 1,
            result: Ok(KEY),
        },
    );
    let refused = Event::SendRefused {
        channel: HARBOUR,
        key: KEY,
        reason: RefusalReason::Server(Code::Forbidden),
    };
    happen(&mut app, Happening::Client(refused));
    assert!(
        app.notice
            .as_ref()
            .is_some_and(|it| it.is_error && it.words.contains("ask to be let in"))
    );
    press(&mut app, KeyCode::Char('r'), KeyModifiers::CONTROL);
    assert_eq!(app.input.text(), "too late");
    assert_eq!(app.outbox.of(HARBOUR).count(), 0);
    assert!(app.take_effects().contains(&Effect::Cancel(KEY)));
}

#[test]
fn what_is_loaded_above_and_comes_below_moves_nothing() {
    let mut app = ada(80, 24);
    open(&mut app, DIRECT, many(61..=120));
    for _ in 0..2 {
        press(&mut app, KeyCode::PageUp, KeyModifiers::NONE);
    }
    let before = app.open.as_ref().unwrap().scroll;
    assert_ne!(before, Scroll::Newest);
    while app.open.as_ref().unwrap().items()[0].seq > 1 {
        let pages = loads(&app.take_effects());
        let Some(Page::OlderThan(first)) = pages.first() else {
            press(&mut app, KeyCode::PageUp, KeyModifiers::NONE);
            continue;
        };
        let scroll = app.open.as_ref().unwrap().scroll;
        page(
            &mut app,
            pages[0],
            many(first.saturating_sub(60).max(1)..=first - 1),
        );
        assert_eq!(app.open.as_ref().unwrap().scroll, scroll);
    }
    let scroll = app.open.as_ref().unwrap().scroll;
    let new = text(DIRECT, 121, GRACE, "new");
    happen(&mut app, Happening::Client(Event::Message(new)));
    assert_eq!(app.open.as_ref().unwrap().scroll, scroll);
    for _ in 0..60 {
        press(&mut app, KeyCode::PageUp, KeyModifiers::NONE);
    }
    let top = app.open.as_ref().unwrap().scroll;
    press(&mut app, KeyCode::PageUp, KeyModifiers::NONE);
    assert_eq!(
        app.open.as_ref().unwrap().scroll,
        top,
        "it ends at the beginning"
    );
    for _ in 0..60 {
        press(&mut app, KeyCode::PageDown, KeyModifiers::NONE);
    }
    assert_eq!(app.open.as_ref().unwrap().scroll, Scroll::Newest);
}

#[test]
fn only_what_somebody_looks_at_is_read() {
    let mut app = ada(80, 24);
    app.go_to(DIRECT);
    page(&mut app, Page::Newest, many(1..=50));
    assert!(app.take_effects().contains(&Effect::MarkRead(DIRECT, 50)));
    happen(&mut app, Happening::Focused(false));
    happen(
        &mut app,
        Happening::Client(Event::Message(text(DIRECT, 51, GRACE, "psst"))),
    );
    assert!(
        !app.take_effects()
            .iter()
            .any(|it| matches!(it, Effect::MarkRead(..)))
    );
    assert_eq!(app.open.as_ref().unwrap().unread_after, Some(50));
    happen(&mut app, Happening::Focused(true));
    assert!(app.take_effects().contains(&Effect::MarkRead(DIRECT, 51)));
    press(&mut app, KeyCode::PageUp, KeyModifiers::NONE);
    happen(
        &mut app,
        Happening::Client(Event::Message(text(DIRECT, 52, GRACE, "below"))),
    );
    assert!(
        !app.take_effects()
            .iter()
            .any(|it| matches!(it, Effect::MarkRead(..)))
    );
    press(&mut app, KeyCode::Esc, KeyModifiers::NONE);
    assert!(app.take_effects().contains(&Effect::MarkRead(DIRECT, 52)));
}

#[test]
fn keys_go_from_conversation_to_conversation_and_keep_what_was_begun() {
    let mut app = ada(80, 24);
    happen(
        &mut app,
        Happening::Client(Event::Message(text(DIRECT, 1, GRACE, "hi"))),
    );
    press(&mut app, KeyCode::Tab, KeyModifiers::NONE);
    assert_eq!(app.open.as_ref().unwrap().channel, DIRECT);
    types(&mut app, "half a se");
    press(&mut app, KeyCode::Tab, KeyModifiers::NONE);
    assert_eq!(app.open.as_ref().unwrap().channel, HARBOUR);
    assert!(app.input.is_empty());
    press(&mut app, KeyCode::BackTab, KeyModifiers::NONE);
    assert_eq!(app.input.text(), "half a se");
    press(&mut app, KeyCode::Char('2'), KeyModifiers::ALT);
    assert_eq!(app.open.as_ref().unwrap().channel, HARBOUR);
    press(&mut app, KeyCode::Char('1'), KeyModifiers::ALT);
    press(&mut app, KeyCode::Char('a'), KeyModifiers::ALT);
    assert_eq!(
        app.open.as_ref().unwrap().channel,
        HARBOUR,
        "something is unread there"
    );
}

#[test]
fn list_on_a_narrow_screen_is_walked_with_arrows() {
    let mut app = ada(40, 12);
    assert!(app.is_list_alone());
    press(&mut app, KeyCode::Down, KeyModifiers::NONE);
    let first = app.open.as_ref().unwrap().channel;
    press(&mut app, KeyCode::Down, KeyModifiers::NONE);
    assert_ne!(app.open.as_ref().unwrap().channel, first);
    assert!(app.is_list_alone());
    page(&mut app, Page::Newest, many(1..=3));
    let is_mark = |it: &Effect| matches!(it, Effect::MarkRead(..));
    assert!(!app.take_effects().iter().any(is_mark), "not looked at yet");
    press(&mut app, KeyCode::Enter, KeyModifiers::NONE);
    assert!(!app.is_list_alone());
    assert!(app.take_effects().iter().any(is_mark));
}

#[test]
fn commands_become_effects() {
    let mut app = ada(80, 24);
    enters(&mut app, "/group \"Old Harbour\" grace");
    enters(&mut app, "/devices");
    enters(&mut app, "/members");
    assert!(app.notice.as_ref().is_some_and(|it| it.is_error), "where?");
    enters(&mut app, "/dm grace");
    assert_eq!(
        app.open.as_ref().unwrap().channel,
        DIRECT,
        "known without asking"
    );
    enters(&mut app, "/rename The Pier");
    enters(&mut app, "/dm @linus");
    let effects = app.take_effects();
    for effect in [
        Effect::Group {
            title: "Old Harbour".to_owned(),
            handles: vec!["grace".to_owned()],
        },
        Effect::Devices,
        Effect::Rename(DIRECT, "The Pier".to_owned()),
        Effect::Direct("linus".to_owned()),
    ] {
        assert!(effects.contains(&effect), "{effect:?}");
    }
    enters(&mut app, "/nothing");
    assert_eq!(app.input.text(), "/nothing", "what is wrong can be mended");
    press(&mut app, KeyCode::Char('q'), KeyModifiers::CONTROL);
    assert_eq!(app.take_effects(), [Effect::Quit]);
}

#[test]
fn pasted_lines_are_one_message_and_no_commands() {
    let mut app = ada(80, 24);
    open(&mut app, DIRECT, Vec::new());
    happen(
        &mut app,
        Happening::Pasted("/usr/bin\r\n/quit\u{1b}[2J".to_owned()),
    );
    press(&mut app, KeyCode::Enter, KeyModifiers::NONE);
    let effects = app.take_effects();
    let sent = effects.iter().find_map(|it| match it {
        Effect::Send { text, .. } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(sent, Some("/usr/bin\n/quit[2J"));
}

#[test]
fn form_signs_up_by_the_old_command_too() {
    let mut app = nobody(80, 24);
    enters(&mut app, "/signup @ada");
    enters(&mut app, "correct horse");
    enters(&mut app, "correct horse");
    let effects = app.take_effects();
    let [Effect::Enter(filled)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(
        (filled.purpose, filled.handle.as_str()),
        (Purpose::SignUp, "ada")
    );
    let taken = (
        "this handle belongs to somebody".to_owned(),
        Some(Field::Handle),
    );
    answer(&mut app, Answer::Entered(Err(taken)));
    let entry = app.entry.as_ref().unwrap();
    assert_eq!((entry.field, entry.busy), (Field::Handle, false));
    assert!(entry.word.as_ref().unwrap().contains("belongs to somebody"));
}

#[test]
fn login_that_is_over_asks_for_the_password_and_leaves_the_rest() {
    let mut app = ada(80, 24);
    open(&mut app, DIRECT, many(1..=3));
    connection(&mut app, ConnectionState::Stopped(StopReason::LoggedOut));
    let entry = app.entry.as_ref().unwrap();
    assert_eq!((entry.handle.text(), entry.field), ("ada", Field::Password));
    press(&mut app, KeyCode::Esc, KeyModifiers::NONE);
    assert!(app.entry.is_none() && app.open.is_some());
    enters(&mut app, "/login ada");
    assert!(app.entry.is_some());
}

#[test]
fn time_alone_changes_nothing_that_is_not_counted() {
    let mut app = ada(80, 24);
    open(&mut app, DIRECT, many(1..=3));
    app.take_changed();
    assert!(
        app.wake_at_ms() >= NOON_MS + 3_600_000,
        "nothing to wake for"
    );
    app.update(NOON_MS + 1_000, Happening::Tick);
    assert!(!app.take_changed());
    let offline = ConnectionState::Offline {
        retry_in_ms: 2_500,
        code: None,
    };
    connection(&mut app, offline);
    app.take_changed();
    assert_eq!(app.wake_at_ms(), NOON_MS + 2_000);
    app.update(NOON_MS + 2_000, Happening::Tick);
    assert!(app.take_changed());
    connection(&mut app, ConnectionState::Online);
    app.take_changed();
    app.update(NOON_MS + 86_400_000, Happening::Tick);
    assert!(app.take_changed(), "days are named as seen from today");
}

#[test]
fn changed_name_is_asked_for_when_the_connection_comes_back() {
    let mut app = ada(80, 24);
    let asked = |app: &mut App| {
        app.take_effects()
            .into_iter()
            .any(|it| matches!(it, Effect::AskPeople(users) if users.contains(&GRACE)))
    };
    let found = |app: &mut App, name: &str| {
        answer(
            app,
            Answer::People {
                asked: vec![GRACE],
                found: Some(vec![person(GRACE, "grace", name)]),
            },
        );
    };
    found(&mut app, "Grace");
    asked(&mut app);
    connection(&mut app, ConnectionState::Online);
    assert!(!asked(&mut app), "fresh");
    app.update(NOON_MS + super::people::FRESH_MS, Happening::Tick);
    connection(&mut app, ConnectionState::Online);
    assert!(asked(&mut app));
    found(&mut app, "Grace H.");
    assert_eq!(app.people.name(GRACE), "Grace H.");
}

#[test]
fn reset_channel_is_read_anew() {
    let mut app = ada(80, 24);
    open(&mut app, DIRECT, many(1..=30));
    happen(
        &mut app,
        Happening::Client(Event::ChannelReset { channel: DIRECT }),
    );
    assert!(app.open.as_ref().unwrap().items().is_empty());
    assert_eq!(loads(&app.take_effects()), [Page::Newest]);
}
