//! The line protocol between the driver and the client under test, and the client's process.
//!
//! Any program can be driven that reads [`Command`]s as JSON, one per line, from its standard input and writes [`Said`] the
//! same way to its standard output. Ids are decimal strings. What it writes to standard error is shown when a case fails.
//! The program is started anew for every case, and within some cases, always as one process that can be killed: no shell
//! between it and the driver.

use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command as Program};

/// What the driver asks of the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// The first one, once: connect, and stay connected. What must survive lies in the folder and nowhere else.
    Connect {
        url: String,
        token: String,
        data_dir: String,
        /// First ceiling of the delay before connecting again, so that a run is short; a client whose is fixed may ignore it.
        reconnect_base_ms: u64,
        /// There when the client must use QUIC. `GET /v1/node` at `url`'s host and port says the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quic: Option<Quic>,
        /// `opened`: the client takes events of opened channels only. Only for clients that are said to be able to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        push: Option<String>,
    },
    /// The answer to `token_wanted`.
    Token { token: String },
    Send {
        #[serde(with = "id")]
        channel: u64,
        text: String,
        /// The driver's name for it, given back in `sent` and `refused`.
        id: String,
    },
    Open {
        #[serde(with = "id")]
        channel: u64,
    },
    Close {
        #[serde(with = "id")]
        channel: u64,
    },
    Read {
        #[serde(with = "id")]
        channel: u64,
        seq: u32,
    },
    /// Load so many older events; answered by `older`.
    Older {
        #[serde(with = "id")]
        channel: u64,
        items: u16,
    },
    /// Say everything that this device holds of the channel; answered by `view`.
    View {
        #[serde(with = "id")]
        channel: u64,
    },
    /// Leave with a farewell and end.
    Quit,
}

/// Where QUIC is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quic {
    /// `ip:port`.
    pub address: String,
    /// The one certificate to trust: SHA-256 of its DER, in hex.
    pub certificate_sha256: String,
}

/// What the client says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Said {
    /// `connecting`, `online`, `offline`, or `stopped` when it will not connect again by itself.
    State { state: String },
    /// A message at its place, in the order of the log, each once in the life of a data folder. One's own too.
    Message {
        #[serde(with = "id")]
        channel: u64,
        #[serde(flatten)]
        message: ShownMessage,
    },
    /// A message of one's own is stored. `id` may be missing after a restart.
    Sent {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(with = "id")]
        channel: u64,
        seq: u32,
    },
    /// A message of one's own never will be.
    Refused {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        code: u16,
    },
    Unread {
        #[serde(with = "id")]
        channel: u64,
        count: u32,
    },
    /// The person is not in the channel any more.
    Left {
        #[serde(with = "id")]
        channel: u64,
    },
    /// Everything shown of the channel is void; it is shown anew.
    Reset {
        #[serde(with = "id")]
        channel: u64,
    },
    /// Events up to `to` cannot be had.
    Skipped {
        #[serde(with = "id")]
        channel: u64,
        to: u32,
    },
    /// A new access token is needed; the driver gives one.
    TokenWanted,
    Older {
        #[serde(with = "id")]
        channel: u64,
    },
    View {
        #[serde(with = "id")]
        channel: u64,
        messages: Vec<ShownMessage>,
    },
    /// Anything else, for the trace.
    #[serde(other)]
    Other,
}

/// A message as it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShownMessage {
    pub seq: u32,
    #[serde(with = "id")]
    pub author: u64,
    /// Missing for what is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

mod id {
    use serde::de::Error;

    use super::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&id.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// What a stream of the client's says, line by line.
pub(crate) type LinesOf<R> = Lines<BufReader<R>>;

/// A running client.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
}

impl Process {
    /// Starts the program in the caller's folder, so that relative paths in its command mean what they say there; its output
    /// comes in two streams of lines.
    pub(crate) fn start(
        command: &[String],
    ) -> Result<(Process, LinesOf<ChildStdout>, LinesOf<ChildStderr>)> {
        let Some((program, arguments)) = command.split_first() else {
            bail!("the command of the client is empty");
        };
        let mut child = Program::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let stdin = child.stdin.take().context("the client's input")?;
        let stdout = lines(child.stdout.take().context("the client's output")?);
        let stderr = lines(child.stderr.take().context("the client's errors")?);
        Ok((Process { child, stdin }, stdout, stderr))
    }

    pub(crate) async fn say(&mut self, command: &Command) -> Result<()> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.stdin.write_all(line.as_bytes()).await?;
        self.stdin.flush().await.context("the client reads no more")
    }

    /// SIGKILL, and the wait until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("kill the client")
    }

    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.context("wait for the client")
    }
}

fn lines<R: AsyncRead + Unpin>(read: R) -> LinesOf<R> {
    BufReader::new(read).lines()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let send = Command::Send {
            channel: 6_917_529_027_641_081_857,
            text: "hi".into(),
            id: "1".into(),
        };
        assert_eq!(
            serde_json::to_string(&send).unwrap(),
            r#"{"do":"send","channel":"6917529027641081857","text":"hi","id":"1"}"#
        );
        let said: Said = serde_json::from_str(
            r#"{"event":"message","channel":"7","seq":3,"author":"9","text":"yes"}"#,
        )
        .unwrap();
        let Said::Message { channel, message } = said else {
            panic!("{said:?}");
        };
        assert_eq!((channel, message.seq, message.author), (7, 3, 9));
        let other: Said = serde_json::from_str(r#"{"event":"typing"}"#).unwrap();
        assert_eq!(other, Said::Other);
    }
}
