//! `conch-chat`: a terminal client for Conch, in plain lines.
//!
//! Without a command it is a conversation: lines are messages, lines with a slash are commands (`/help`). With one it does
//! one thing and ends, for scripts. Either way messages are safe in the data folder before they leave, so that neither a
//! restart of the node nor the end of this program loses a typed line.
//!
//! | file | concept |
//! |---|---|
//! | `args.rs` | the command line |
//! | `chat.rs` | the conversation: what is typed, what happens |
//! | `commands.rs` | what a line with a slash means |
//! | `lines.rs` | standard input, line by line, and passwords |
//! | `names.rs` | what people and channels are called |
//! | `script.rs` | commands that do one thing |
//! | `show.rs` | how things look in a terminal |
//!
//! Exit codes: 0 done; 1 failed or refused; 2 wrong usage; 3 not finished in time (what was sent stays in the outbox).
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is its purpose"
)]

mod args;
mod chat;
mod commands;
mod lines;
mod names;
mod script;
mod show;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use conch_client::{Client, ClientBuilder};

use args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("CONCH_LOG"))
        .with_writer(std::io::stderr)
        .init();
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conch-chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = open(&args).await?;
    let outcome = match args.command {
        None => chat::run(&client, args.name)
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
