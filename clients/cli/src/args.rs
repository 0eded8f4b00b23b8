//! The command line.

use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand};

/// A terminal client for Conch.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Without a command: conversations, on the whole screen of a terminal (F1 tells the keys), in plain lines in \
    a pipe.\n\
    Passwords come from CONCH_PASSWORD, else they are asked for."
)]
pub(crate) struct Args {
    /// Where the node is: http://HOST:PORT or https://HOST:PORT
    #[arg(
        long,
        global = true,
        env = "CONCH_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
    /// Where this device keeps its login, its messages and what it still has to send
    #[arg(
        long,
        global = true,
        env = "CONCH_DATA",
        default_value = "conch-chat-data"
    )]
    pub(crate) data: PathBuf,
    /// A further root certificate to trust (PEM)
    #[arg(long, global = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Plain lines in place of the full screen; chosen by itself where there is no terminal
    #[arg(long)]
    pub(crate) plain: bool,
    /// The name that others see; for sign-up (default: the handle)
    #[arg(long, global = true)]
    pub(crate) name: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// One thing to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an account and log this device in; prints `user ID HANDLE`
    Signup { handle: String },
    /// Log this device in; prints `user ID HANDLE`
    Login { handle: String },
    /// Log this device out, for good
    Logout,
    /// Print who is logged in: `user ID HANDLE`
    Whoami,
    /// Send the text, or every line of standard input; prints `stored CHANNEL SEQ` or `refused CHANNEL CODE` for each
    Send {
        #[command(flatten)]
        place: Place,
        text: Option<String>,
        /// Give up waiting after this long; what is not stored stays in the outbox
        #[arg(long, default_value_t = 30)]
        timeout_s: u64,
    },
    /// Print messages as they come: `CHANNEL SEQ HANDLE TEXT`, separated by tabs
    Watch {
        #[command(flatten)]
        place: AnyPlace,
        /// End after so many
        #[arg(long)]
        count: Option<u64>,
        /// End after this long
        #[arg(long)]
        timeout_s: Option<u64>,
        /// Print what this device holds already first
        #[arg(long)]
        from_start: bool,
    },
    /// Print the newest messages, oldest first: `CHANNEL SEQ HANDLE TEXT`, separated by tabs
    History {
        #[command(flatten)]
        place: Place,
        #[arg(short = 'n', long, default_value_t = 20)]
        items: u32,
        /// Only what lies below this seq
        #[arg(long)]
        before: Option<u32>,
        /// Give up waiting for the connection after this long
        #[arg(long, default_value_t = 10)]
        timeout_s: u64,
    },
    /// Print channels: `CHANNEL KIND UNREAD NAME`, separated by tabs
    List {
        /// How long to wait for the connection
        #[arg(long, default_value_t = 10)]
        timeout_s: u64,
    },
    /// Make a group; prints `channel ID`
    Group {
        title: String,
        #[arg(required = true)]
        handles: Vec<String>,
    },
}

/// One channel.
#[derive(Debug, Clone, Group)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// The direct channel with this person
    #[arg(long, value_name = "HANDLE")]
    pub(crate) to: Option<String>,
    /// The channel with this id
    #[arg(long, value_name = "ID")]
    pub(crate) channel: Option<u64>,
}

/// One channel, or all.
#[derive(Debug, Clone, Group)]
#[group(required = false, multiple = false)]
pub(crate) struct AnyPlace {
    /// Only the direct channel with this person
    #[arg(long, value_name = "HANDLE")]
    pub(crate) to: Option<String>,
    /// Only the channel with this id
    #[arg(long, value_name = "ID")]
    pub(crate) channel: Option<u64>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_sound() {
        Args::command().debug_assert();
    }
}
