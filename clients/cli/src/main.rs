//! `conch-chat`: a terminal client for Conch.
//!
//! Without a command it is for conversations: on the whole screen of a terminal, or in plain lines in a pipe (and with
//! `--plain`). With one it does one thing and ends, for scripts. Either way messages are safe in the data folder before
//! they leave, so that neither a restart of the node nor the end of this program loses a typed line.
//!
//! | file | concept |
//! |---|---|
//! | `args.rs` | the command line |
//! | `screen/` | conversations on the whole screen |
//! | `plain.rs` | conversations in plain lines |
//! | `commands.rs` | what a line with a slash means |
//! | `harmless.rs` | what others wrote, made safe to show |
//! | `lines.rs` | standard input, line by line, and passwords |
//! | `names.rs` | what people and channels are called, in plain lines |
//! | `script.rs` | commands that do one thing |
//! | `show.rs` | days, times, and how things look in plain lines |
//! | `words.rs` | refusals and the connection, in words |
//! | `wrap.rs` | text in rows |
//!
//! Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 not finished in time (what was sent stays in the outbox).
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its purpose"
)]

mod args;
mod commands;
mod harmless;
mod lines;
mod names;
mod plain;
mod screen;
mod script;
mod show;
mod words;
mod wrap;

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use conch_client::{Client, ClientBuilder};

use args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // A log line in the middle of the screen helps nobody: with it, logs are for a redirected stderr.
    if !(is_screen(&args) && stderr().is_terminal()) {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("CONCH_LOG"))
            .with_writer(stderr)
            .init();
    }
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conch-chat: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether there is a whole screen to use, and nobody wants plain lines.
fn is_screen(args: &Args) -> bool {
    let is_dumb = std::env::var("TERM").is_ok_and(|it| it == "dumb");
    let is_terminal = stdin().is_terminal() && stdout().is_terminal();
    args.command.is_none() && !args.plain && is_terminal && !is_dumb
}

/// An error with the next step, if it is one that has one.
fn in_words(error: &anyhow::Error) -> String {
    let words = match error.downcast_ref::<conch_client::ClientError>() {
        None => format!("{error:#}"),
        Some(cause) if cause.to_string() == error.to_string() => words::failure(cause),
        Some(cause) => format!("{error}: {}", words::failure(cause)),
    };
    harmless::line(&words)
}

/// ms since 1970 by this device's clock.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |time| time.as_millis() as u64)
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = open(&args).await?;
    let is_screen = is_screen(&args);
    let outcome = match args.command {
        None if is_screen => screen::run(&client, &args.server, args.name)
            .await
            .map(|()| ExitCode::SUCCESS),
        None => plain::run(&client, args.name)
            .await
            .map(|()| ExitCode::SUCCESS),
        Some(command) => script::run(&client, command, args.name).await,
    };
    client.close().await;
    outcome
}

async fn open(args: &Args) -> anyhow::Result<Client> {
    let mut builder = ClientBuilder::new(&args.server, &args.data)
        .program(concat!("conch-chat ", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &args.ca {
        let pem = std::fs::read(path)
            .with_context(|| format!("the certificate {} cannot be read", path.display()))?;
        builder = builder.root_certificates(pem);
    }
    Ok(builder.open().await?)
}
