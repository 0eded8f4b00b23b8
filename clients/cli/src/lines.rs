//! Standard input, one line at a time, and passwords.
//!
//! A thread reads a line only when one is asked for, so that a password prompt has the terminal to itself.

use std::io::{BufRead, IsTerminal};
use std::sync::mpsc as blocking;

use anyhow::{Context, bail};
use tokio::sync::mpsc;

/// Longest line that is taken, in bytes: a message with its largest text.
const LINE_BYTES_MAX: usize = 500_000;

/// Lines of standard input.
#[derive(Debug)]
pub(crate) struct Lines {
    ask: blocking::Sender<()>,
    lines: mpsc::Receiver<Option<String>>,
    asked: bool,
    ended: bool,
}

impl Lines {
    pub(crate) fn new() -> Lines {
        let (ask, asked) = blocking::channel();
        let (sender, lines) = mpsc::channel(1);
        // Ends with the process: a read of standard input cannot be interrupted.
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            while asked.recv().is_ok() {
                let line = read_line(&mut input);
                let ended = line.is_none();
                if sender.blocking_send(line).is_err() || ended {
                    return;
                }
            }
        });
        Lines {
            ask,
            lines,
            asked: false,
            ended: false,
        }
    }

    /// The next line; `None` at the end, and again `None` after it. May be dropped and called again without losing a line.
    pub(crate) async fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        if !self.asked {
            self.asked = self.ask.send(()).is_ok();
        }
        let line = self.lines.recv().await.flatten();
        self.asked = false;
        self.ended = line.is_none();
        line
    }

    /// A password: from the environment, from the terminal without an echo, or the next line of a pipe.
    pub(crate) async fn password(&mut self) -> anyhow::Result<String> {
        if let Some(password) = environment() {
            return Ok(password);
        }
        if std::io::stdin().is_terminal() {
            return prompt().await;
        }
        match self.next().await {
            Some(password) => Ok(password),
            None => bail!("no password: set CONCH_PASSWORD"),
        }
    }
}

/// A password for a command that does not read standard input.
pub(crate) async fn password() -> anyhow::Result<String> {
    if let Some(password) = environment() {
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        bail!("no password: set CONCH_PASSWORD");
    }
    prompt().await
}

/// What `CONCH_PASSWORD` says.
pub(crate) fn environment() -> Option<String> {
    std::env::var("CONCH_PASSWORD").ok()
}

async fn prompt() -> anyhow::Result<String> {
    tokio::task::spawn_blocking(|| rpassword::prompt_password("password: "))
        .await?
        .context("the password cannot be read")
}

fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) if !buffer.is_empty() => buffer,
            _ => break,
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |at| at + 1);
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&buffer[..taken.min(room)]);
        input.consume(taken);
        if end.is_some() {
            return Some(text(&line));
        }
    }
    (!line.is_empty()).then(|| text(&line))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end_matches(['\r', '\n'])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_or_without_a_newline() {
        let mut input = &b"one\r\ntwo\n\nlast"[..];
        let lines: Vec<_> = std::iter::from_fn(|| read_line(&mut input)).collect();
        assert_eq!(lines, ["one", "two", "", "last"]);
    }

    #[test]
    fn line_without_end_costs_bounded_memory() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1_000];
        let line = read_line(&mut &long[..]);
        assert_eq!(line.map(|it| it.len()), Some(LINE_BYTES_MAX));
    }
}
