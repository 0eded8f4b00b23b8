//! The full-screen client: a pure model, a pure drawing of it, and this thin shell around both.
//!
//! | file | concept |
//! |---|---|
//! | `state/` | what is shown and wanted: happenings in, effects out (pure) |
//! | `layout.rs` | what stands where (pure) |
//! | `transcript.rs` | a conversation as rows (pure) |
//! | `theme.rs` | colours |
//! | `view/` | drawing (pure) |
//! | `effects.rs` | carries effects out with the client |
//! | `terminal.rs` | takes the terminal and gives it back |
//!
//! The loop here waits for keys, events, answers, signals and the time that the model asked for; it draws when the model
//! changed and at no other time.

mod effects;
mod layout;
mod state;
mod terminal;
mod theme;
mod transcript;
mod view;

use std::time::Duration;

use anyhow::{Context, bail};
use conch_client::core::{OutboxMessage, SendState};
use conch_client::{Client, EventStream};
use jiff::tz::TimeZone;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::{lines, now_ms, words};
use effects::Hands;
use state::{App, Beginning, Effect, Happening};
use terminal::Screen;

/// Happenings taken together before the screen is drawn.
const BATCH_MAX: usize = 256;
/// Longest sleep: the clock of the wall may be set while we sleep.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Where everything comes from.
struct Sources {
    keys: mpsc::Receiver<Happening>,
    events: EventStream,
    answers: mpsc::Receiver<Happening>,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What comes next.
enum Next {
    Happening(Happening),
    /// Somebody wants us to end.
    End,
}

/// Chats until the person leaves, a signal comes or the terminal is gone. Says at the end what is still to be sent.
pub(crate) async fn run(
    client: &Client,
    server: &str,
    display_name: Option<String>,
) -> anyhow::Result<()> {
    let (mut hands, answers) = Hands::new(client.clone(), display_name);
    let mut sources = Sources {
        events: client.events().await?,
        answers,
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hang_up: signal(SignalKind::hangup())?,
        // Nobody reads keys before the terminal is ours.
        keys: mpsc::channel(1).1,
    };
    let account = client.account().await;
    let is_known = account.is_some();
    let mut screen = Screen::take().context("the terminal cannot be used; --plain does without")?;
    sources.keys = terminal::happenings();
    let mut app = App::new(Beginning {
        size: screen.size()?,
        now_ms: now_ms(),
        zone: TimeZone::system(),
        colours: std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
        server: server.to_owned(),
        account,
        password: lines::environment(),
        word: client.rebuilt().map(|it| words::rebuilt(&it)),
    });
    hands.load();
    if is_known {
        client.connect().await?;
    }
    let outcome = chat(client, &mut app, &mut screen, &mut hands, &mut sources).await;
    drop(screen);
    outcome?;
    let is_unsent =
        |it: &OutboxMessage| matches!(it.state, SendState::Waiting | SendState::Sending);
    match client
        .outbox()
        .await?
        .iter()
        .filter(|it| is_unsent(it))
        .count()
    {
        0 => {}
        left => println!("conch-chat: {left} messages are sent next time"),
    }
    Ok(())
}

async fn chat(
    client: &Client,
    app: &mut App,
    screen: &mut Screen,
    hands: &mut Hands,
    sources: &mut Sources,
) -> anyhow::Result<()> {
    loop {
        for effect in app.take_effects() {
            match effect {
                Effect::Quit => return Ok(()),
                Effect::Repaint => screen.forget()?,
                effect => hands.start(effect),
            }
        }
        if app.link.is_online() && app.link.transport != client.transport() {
            app.update(now_ms(), Happening::Carried(client.transport()));
        }
        if app.take_changed() {
            screen.draw(app).context("the terminal cannot be written")?;
        }
        match sources.next(app.wake_at_ms()).await? {
            Next::End => return Ok(()),
            Next::Happening(happening) => app.update(now_ms(), happening),
        }
        for _ in 0..BATCH_MAX {
            match sources.try_next() {
                Some(happening) => app.update(now_ms(), happening),
                None => break,
            }
        }
    }
}

impl Sources {
    async fn next(&mut self, wake_at_ms: u64) -> anyhow::Result<Next> {
        let sleep = Duration::from_millis(wake_at_ms.saturating_sub(now_ms())).min(SLEEP_MAX);
        Ok(tokio::select! {
            key = self.keys.recv() => match key {
                Some(key) => Next::Happening(key),
                // The terminal was closed.
                None => Next::End,
            },
            event = self.events.next() => match event {
                Some(event) => Next::Happening(Happening::Client(event)),
                None => bail!("the client has ended: the data folder cannot be written"),
            },
            Some(answer) = self.answers.recv() => Next::Happening(answer),
            _ = self.terminate.recv() => Next::End,
            _ = self.interrupt.recv() => Next::End,
            _ = self.hang_up.recv() => Next::End,
            () = tokio::time::sleep(sleep) => Next::Happening(Happening::Tick),
        })
    }

    /// What is there already.
    fn try_next(&mut self) -> Option<Happening> {
        let key = self.keys.try_recv().ok();
        key.or_else(|| self.events.try_next().map(Happening::Client))
            .or_else(|| self.answers.try_recv().ok())
    }
}
