//! Commands that do one thing and end. One line per result on standard output, fields separated by tabs or blanks; words
//! for people on standard error.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use conch_client::core::{ConnectionState, Content, Event, Message};
use conch_client::wire::event::ChannelKind;
use conch_client::wire::{ChannelId, UserId};
use conch_client::{Client, ClientError, SendHandle, SendOutcome};
use tokio::time::{Instant, timeout_at};

use crate::args::{Command, Place};
use crate::lines::{self, Lines};
use crate::names::Names;
use crate::{harmless, names, words};

/// Not finished in time.
const LATE: u8 = 3;
/// Pause between two attempts of a request that the network did not let through.
const AGAIN: Duration = Duration::from_millis(300);
/// Lines that are sent before the first of them is answered.
const SENDS_WAITING_MAX: usize = 1_000;

pub(crate) async fn run(
    client: &Client,
    command: Command,
    name: Option<String>,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Signup { handle } => {
            let password = lines::password().await?;
            client
                .sign_up(&handle, &password, name.as_deref(), &device_name())
                .await?;
            who(client).await
        }
        Command::Login { handle } => {
            let password = lines::password().await?;
            client.log_in(&handle, &password, &device_name()).await?;
            who(client).await
        }
        Command::Logout => {
            client.log_out().await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Whoami => who(client).await,
        Command::Send {
            place,
            text,
            timeout_s,
        } => send(client, &place, text, after(timeout_s)).await,
        Command::Watch {
            place,
            count,
            timeout_s,
            from_start,
        } => {
            let deadline = timeout_s.map(after);
            let place = match (place.to, place.channel) {
                (None, None) => None,
                (to, channel) => Some(Place { to, channel }),
            };
            watch(client, place, count, deadline, from_start).await
        }
        Command::History {
            place,
            items,
            before,
            timeout_s,
        } => history(client, &place, items, before, after(timeout_s)).await,
        Command::List { timeout_s } => list(client, after(timeout_s)).await,
        Command::Group { title, handles } => {
            let mut members = Vec::new();
            for handle in &handles {
                members.push(person(client, handle).await?);
            }
            let group = client.create_group(&title, &members).await?;
            println!("channel {}", group.id());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What this device is called in the list of devices.
pub(crate) fn device_name() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(40)
        .collect();
    if host.is_empty() {
        "conch-chat".to_owned()
    } else {
        format!("conch-chat on {host}")
    }
}

fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

async fn who(client: &Client) -> anyhow::Result<ExitCode> {
    let account = client.account().await.context("nobody is logged in")?;
    println!("user {} {}", account.user, account.handle);
    Ok(ExitCode::SUCCESS)
}

async fn person(client: &Client, handle: &str) -> anyhow::Result<UserId> {
    let person = client.user_by_handle(handle).await;
    Ok(person.with_context(|| format!("@{handle}"))?.user)
}

/// The channel that is meant. What this device knows needs no connection; else it is asked for until the deadline.
async fn channel(client: &Client, place: &Place, deadline: Instant) -> anyhow::Result<ChannelId> {
    if let Some(id) = place.channel {
        return Ok(ChannelId(id));
    }
    let handle = place.to.as_deref().unwrap_or_default();
    for info in client.channels().await? {
        let known = info.peer.and_then(|peer| client.known_person(peer));
        if known.is_some_and(|person| person.handle == handle) {
            return Ok(info.channel);
        }
    }
    loop {
        let found = async {
            let peer = client.user_by_handle(handle).await?;
            client.direct(peer.user).await
        };
        match found.await {
            Ok(channel) => return Ok(channel.id()),
            Err(ClientError::Api(error)) if error.is_passing() && Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error).with_context(|| format!("@{handle}")),
        }
    }
}

async fn logged_in(client: &Client) -> anyhow::Result<()> {
    if client.account().await.is_none() {
        bail!("nobody is logged in: conch-chat signup HANDLE, or login HANDLE");
    }
    Ok(())
}

async fn send(
    client: &Client,
    place: &Place,
    text: Option<String>,
    deadline: Instant,
) -> anyhow::Result<ExitCode> {
    logged_in(client).await?;
    client.connect().await?;
    let channel = channel(client, place, deadline).await?;
    let mut waiting = VecDeque::new();
    let mut all_stored = true;
    if let Some(text) = text {
        waiting.push_back(client.send(channel, &text).await?);
    } else {
        let mut lines = Lines::new();
        while let Some(line) = lines.next().await {
            if line.is_empty() {
                continue;
            }
            waiting.push_back(client.send(channel, &line).await?);
            if waiting.len() >= SENDS_WAITING_MAX {
                match settle(channel, &mut waiting, deadline).await? {
                    Some(stored) => all_stored &= stored,
                    None => return late(waiting.len()),
                }
            }
        }
    }
    while !waiting.is_empty() {
        match settle(channel, &mut waiting, deadline).await? {
            Some(stored) => all_stored &= stored,
            None => return late(waiting.len()),
        }
    }
    Ok(if all_stored {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Waits for the oldest; says how it ended. `None`: not in time.
async fn settle(
    channel: ChannelId,
    waiting: &mut VecDeque<SendHandle>,
    deadline: Instant,
) -> anyhow::Result<Option<bool>> {
    let Some(oldest) = waiting.front() else {
        return Ok(Some(true));
    };
    let Ok(outcome) = timeout_at(deadline, oldest.outcome()).await else {
        return Ok(None);
    };
    waiting.pop_front();
    match outcome? {
        SendOutcome::Stored { seq, .. } => {
            println!("stored {channel} {seq}");
            Ok(Some(true))
        }
        SendOutcome::Refused { reason } => {
            println!("refused {channel} {}", reason.name());
            Ok(Some(false))
        }
    }
}

fn late(left: usize) -> anyhow::Result<ExitCode> {
    eprintln!(
        "conch-chat: {left} messages are not stored yet; they are sent when this device connects again"
    );
    Ok(ExitCode::from(LATE))
}

async fn watch(
    client: &Client,
    place: Option<Place>,
    count: Option<u64>,
    deadline: Option<Instant>,
    from_start: bool,
) -> anyhow::Result<ExitCode> {
    logged_in(client).await?;
    let mut events = client.events().await?;
    let far = after(365 * 86_400);
    let deadline = deadline.unwrap_or(far);
    let mut left = count.unwrap_or(u64::MAX);
    let held = client.channels().await?;
    client.connect().await?;
    let only = match &place {
        Some(place) => Some(channel(client, place, deadline).await?),
        None => None,
    };
    if from_start {
        for info in held {
            if only.is_some_and(|only| only != info.channel) {
                continue;
            }
            for message in held_messages(client, info.channel, info.held_from, info.held_to).await?
            {
                if left == 0 {
                    return Ok(ExitCode::SUCCESS);
                }
                left -= u64::from(print(client, &message).await);
            }
        }
    }
    while left > 0 {
        let Ok(event) = timeout_at(deadline, events.next()).await else {
            return Ok(match count {
                Some(_) => ExitCode::from(LATE),
                None => ExitCode::SUCCESS,
            });
        };
        match event {
            Some(Event::Message(message)) if only.is_none_or(|only| only == message.channel) => {
                left -= u64::from(print(client, &message).await);
            }
            Some(Event::Connection(state)) => stop_or_say(state)?,
            Some(_) => {}
            None => bail!("the client has ended"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the device held when it started; nothing is loaded.
async fn held_messages(
    client: &Client,
    channel: ChannelId,
    from: u32,
    to: u32,
) -> anyhow::Result<Vec<Message>> {
    let items = (to + 1).saturating_sub(from);
    if items == 0 {
        return Ok(Vec::new());
    }
    Ok(client.history(channel, Some(to + 1), items).await?)
}

fn stop_or_say(state: ConnectionState) -> anyhow::Result<()> {
    match state {
        ConnectionState::Stopped(_) => bail!("{}", words::connection(state)),
        _ => eprintln!("conch-chat: {}", words::connection(state)),
    }
    Ok(())
}

/// Prints a message of a person; other events are not for scripts. Says whether it was one.
async fn print(client: &Client, message: &Message) -> bool {
    let Content::Text { text, .. } = &message.content else {
        return false;
    };
    let handle = names::handle(client, message.author).await;
    let text = text
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\t', "\\t");
    let handle = harmless::name(&handle);
    println!(
        "{}\t{}\t{handle}\t{}",
        message.channel,
        message.seq,
        harmless::line(&text)
    );
    true
}

async fn history(
    client: &Client,
    place: &Place,
    items: u32,
    before: Option<u32>,
    deadline: Instant,
) -> anyhow::Result<ExitCode> {
    logged_in(client).await?;
    caught_up(client, deadline).await?;
    let channel = channel(client, place, deadline).await?;
    for message in client.history(channel, before, items).await? {
        print(client, &message).await;
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, deadline: Instant) -> anyhow::Result<ExitCode> {
    logged_in(client).await?;
    caught_up(client, deadline).await?;
    let names = Names::new(client);
    for info in client.channels().await? {
        if info.left {
            continue;
        }
        let kind = match info.kind {
            ChannelKind::Direct => "direct",
            ChannelKind::Group => "group",
            ChannelKind::SelfLog => "self",
        };
        let name = harmless::name(&names.channel(&info).await);
        println!("{}\t{kind}\t{}\t{name}", info.channel, info.unread);
    }
    Ok(ExitCode::SUCCESS)
}

/// Connects, and waits until nothing more comes by itself. Without a connection what is here has to do.
async fn caught_up(client: &Client, deadline: Instant) -> anyhow::Result<()> {
    /// Quiet for this long is taken for the end of catching up.
    const QUIET: Duration = Duration::from_millis(700);
    let mut events = client.events().await?;
    client.connect().await?;
    let mut online = false;
    loop {
        let until = if online {
            deadline.min(Instant::now() + QUIET)
        } else {
            deadline
        };
        match timeout_at(until, events.next()).await {
            Ok(Some(Event::Connection(ConnectionState::Online))) => online = true,
            Ok(Some(Event::Connection(state @ ConnectionState::Stopped(_)))) => stop_or_say(state)?,
            Ok(Some(_)) => {}
            Ok(None) => bail!("the client has ended"),
            Err(_) => break,
        }
    }
    let behind =
        |info: &conch_client::core::ChannelInfo| info.held_to < info.head_seq && !info.left;
    if !online {
        eprintln!("conch-chat: no connection; this is what the device holds");
    } else if client.channels().await?.iter().any(behind) {
        eprintln!("conch-chat: still catching up");
    }
    Ok(())
}
