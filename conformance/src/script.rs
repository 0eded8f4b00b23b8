//! The format of a case: a JSON file with the world that the server starts with, and steps.
//!
//! Read by the runner and by nobody else; unknown fields are errors, so that a typing mistake never becomes a case that
//! tests nothing. Names stand for ids throughout: `"channel": "a"`, `"author": "bo"`; the person under test is `"me"`.
//! `docs/conformance.md` explains every step to people.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::transport::Transport;

/// The person who uses the client under test.
pub const ME: &str = "me";

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// What is proved, in a sentence.
    pub about: String,
    /// Rules of `docs/protocol.md` that it covers.
    #[serde(default)]
    pub rules: Vec<String>,
    /// How long each step may wait, in milliseconds.
    #[serde(default = "default_patience_ms")]
    pub patience_ms: u64,
    /// What WELCOME announces, where it differs from the protocol's usual values.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// What it runs over; all unless said otherwise.
    #[serde(default = "all_transports")]
    pub transports: Vec<Transport>,
    /// What a client may have and need not: the case runs only for clients that have it.
    #[serde(default)]
    pub needs: Vec<Feature>,
    /// Whether the gap between a cursor and the head is streamed when a channel opens; a node that has no credit left does not.
    #[serde(default = "yes")]
    pub stream_gaps: bool,
    pub channels: Vec<ChannelSpec>,
    pub steps: Vec<Step>,
}

/// What not every client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// It can be told to take events of opened channels only.
    PushOpened,
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(name: &str) -> Result<Feature, String> {
        match name {
            "push_opened" => Ok(Feature::PushOpened),
            _ => Err(format!("{name} is nothing to have: push_opened")),
        }
    }
}

fn all_transports() -> Vec<Transport> {
    Transport::ALL.to_vec()
}

fn default_patience_ms() -> u64 {
    10_000
}

/// Limits that a case may announce differently.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    pub heartbeat_ms: Option<u32>,
    pub silence_max_ms: Option<u32>,
    pub sync_rows_max: Option<u32>,
    /// The server's idle timeout of QUIC itself, which is not announced in WELCOME but by QUIC.
    pub quic_idle_ms: Option<u64>,
}

/// A channel that the person is in when the case begins. Its event 1 is its creation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    pub name: String,
    /// The other person of a direct channel; a group without it.
    pub peer: Option<String>,
    /// Messages of `bo`, from seq 2 on.
    #[serde(default)]
    pub texts: Vec<String>,
    /// So many further messages of `bo`, with the text `fill N`, N being their seq.
    #[serde(default)]
    pub fill: u32,
}

/// One step. Those that wait do so until what they name is there, the case's patience is over, or a rule was broken.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// For readers.
    Note(String),

    // The client's side.
    /// Starts the client's process, with the case's data folder, and connects it.
    Start(Start),
    /// SIGKILL, as a crash or a battery does it.
    Kill,
    /// Asks the client to end, and waits until it has.
    Quit,
    /// The person writes a message. Texts must differ within a case: the script knows messages by them.
    Send(SendSpec),
    /// The person opens a channel.
    Open(String),
    /// The person closes it.
    Close(String),
    Read(ReadSpec),
    /// The person scrolls up: so many older events are asked for, and waited for.
    Older(OlderSpec),
    /// Waits until the client says that state; `"online"`, `"offline"`, `"stopped"`.
    State(String),
    Shows(ShowsSpec),
    /// Waits until the send with this id is reported as stored at this seq.
    Sent(SentSpec),
    Refused(RefusedSpec),
    Unread(UnreadSpec),
    /// Waits until the client says that the person is out of the channel.
    Left(String),
    /// Asks for everything that the device holds of the channel and compares it, each text in order.
    View(ViewSpec),
    /// Waits until the client asked for a new token.
    TokenWanted,

    // The server's side.
    /// Frames of these types are not answered by themselves from here on; `take` gets them.
    Hold(Vec<String>),
    /// They are again, those that wait included.
    Auto(Vec<String>),
    Take(Box<Take>),
    /// Answers a taken frame the way it is answered without a script.
    Answer(Of),
    Welcome(WelcomeSpec),
    /// Stores the messages of a taken SEND; says nothing.
    Store(Of),
    /// SEND_ACK for a taken SEND, whose messages are stored now if they are not yet.
    Ack(Of),
    Refuse(RefuseSpec),
    /// Leaves a taken HISTORY or SYNC without an answer: its stream is reset. Where it came on no stream of its own it is
    /// refused with 4104.
    Reset(Of),
    /// Somebody writes.
    Append(AppendSpec),
    /// Pushes stored events, again or for the first time.
    Push(PushSpec),
    /// CHANNEL_HEAD of the channel as it is.
    Head(String),
    SyncNow,
    /// A frame of a type that does not exist, with so many bytes of body.
    UnknownFrame(UnknownFrameSpec),
    Goaway(GoawaySpec),
    AuthExpiring(u32),
    /// The connection breaks, without a word.
    Cut,
    End(EndSpec),
    /// QUIC: the server ends its half of the control stream, and says nothing more.
    Finish,
    /// QUIC: the node was killed and started again, and knows nothing of the connection.
    Vanish,
    /// The connection stays and is dead: nothing is read or written any more.
    Silence,
    /// The store comes from a backup.
    Restore(RestoreSpec),
    /// Older events of the channel are gone.
    Trim(TrimSpec),
    /// Somebody removes me from the channel, by an event, which is pushed.
    RemoveMe(RemoveSpec),
    /// Somebody adds me again.
    AddMe(RemoveSpec),
    /// Sync tokens that were given out are void from here on.
    VoidTokens,
    /// Frames of the server wait from here on, and go out as one message by `flush`.
    Gather,
    Flush,
    /// The next so many HELLOs are answered by a cut; waits for them, and for the next, and compares when they came.
    Deny(usize),
    /// Gives time for something to happen that must not: so many milliseconds pass.
    Pass(u64),

    // What must be true of the server.
    /// Waits until the channel's log holds exactly these texts.
    Log(LogSpec),
    /// Waits until the person's read mark is there.
    Marked(MarkedSpec),
    /// Counts start at 0 again.
    Mark,
    Count(CountSpec),
}

/// How to start the client.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Start {
    /// The access token; `token-1` unless said otherwise.
    pub token: Option<String>,
    /// Which events it takes: `opened`, or all.
    pub push: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendSpec {
    pub channel: String,
    pub text: String,
    /// The text unless said otherwise.
    pub id: Option<String>,
    /// The text is filled up with dots to so many bytes.
    #[serde(default)]
    pub bytes: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadSpec {
    pub channel: String,
    pub seq: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OlderSpec {
    pub channel: String,
    pub items: u16,
}

/// Waits until the messages shown in a channel are these, in this order, since the data folder was new or the channel was
/// reset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowsSpec {
    pub channel: String,
    pub texts: Option<Vec<String>>,
    /// In place of the texts: how many.
    pub count: Option<usize>,
    /// In place of the texts: what the newest one is.
    pub last: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentSpec {
    pub id: String,
    pub seq: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedSpec {
    pub id: String,
    pub code: Option<u16>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnreadSpec {
    pub channel: String,
    pub count: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewSpec {
    pub channel: String,
    pub texts: Option<Vec<String>>,
    pub count: Option<usize>,
}

/// Waits for the oldest held frame of a type, and checks it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// `SEND` stands for SEND_MANY too.
    pub frame: String,
    /// The name by which later steps mean this frame.
    #[serde(default = "default_name", rename = "as")]
    pub name: String,
    /// SEND: exactly these texts, in this order.
    pub texts: Option<Vec<String>>,
    /// SEND: the first of its texts.
    pub first: Option<String>,
    /// SEND: whether every message has the RETRY flag.
    pub retry: Option<bool>,
    /// HELLO: the texts of the pending sends, in this order.
    pub pending: Option<Vec<String>>,
    /// HELLO: `none`, or `issued` for one that the server gave out.
    pub sync_token: Option<String>,
    /// HELLO: last seqs without a gap, of these channels at least.
    pub cursors: Option<Vec<CursorSpec>>,
    /// HELLO, AUTH_REFRESH: the access token.
    pub token: Option<String>,
    /// HELLO: `all` or `opened`.
    pub push_mode: Option<String>,
    /// HELLO: whether it replaces the session before it.
    pub replaces: Option<bool>,
    /// HISTORY: the range asked for holds these seqs.
    pub covers: Option<(u32, u32)>,
    /// READ: the seq.
    pub seq: Option<u32>,
}

fn default_name() -> String {
    "it".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorSpec {
    pub channel: String,
    pub seq: u32,
}

/// Means a taken frame.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Of {
    /// The last one taken, unless said otherwise.
    #[serde(default = "default_name")]
    pub of: String,
}

/// WELCOME for a taken HELLO, with other answers than those that are true.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WelcomeSpec {
    #[serde(default = "default_name")]
    pub of: String,
    /// `stored`, `absent`, `unknown`, or `true` for what is the case; by index of the pending sends, the rest `true`.
    #[serde(default)]
    pub pending: Vec<String>,
}

/// ERROR for a taken frame.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefuseSpec {
    #[serde(default = "default_name")]
    pub of: String,
    pub code: u16,
    #[serde(default)]
    pub retry_after_ms: u32,
    #[serde(default)]
    pub item: u16,
}

/// A new event of a channel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendSpec {
    pub channel: String,
    #[serde(default = "default_author")]
    pub author: String,
    pub text: String,
    /// So many, numbered: `text 1`, `text 2` …
    pub count: Option<u32>,
    /// Each is filled up with dots to so many bytes.
    #[serde(default)]
    pub bytes: usize,
    /// What it is filled up with is four bytes long, each time.
    #[serde(default)]
    pub wide: bool,
    /// Who is named by it: a message with a table.
    #[serde(default)]
    pub mentions: Vec<String>,
    /// 1 unless said otherwise.
    pub kind: Option<u8>,
    /// Whether connected sessions are told.
    #[serde(default = "yes")]
    pub push: bool,
}

fn default_author() -> String {
    "bo".to_owned()
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushSpec {
    pub channel: String,
    pub from: u32,
    pub to: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownFrameSpec {
    #[serde(rename = "type")]
    pub frame_type: u8,
    #[serde(default)]
    pub bytes: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoawaySpec {
    pub delay_min_ms: u32,
    pub delay_max_ms: u32,
}

/// ERROR without a request, then the close with the same number.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndSpec {
    pub code: u16,
    #[serde(default)]
    pub retry_after_ms: u32,
    /// False: only the close.
    #[serde(default = "yes")]
    pub word: bool,
}

/// The store was restored from a backup: another generation, and of each channel's log only the first events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreSpec {
    pub generation: u32,
    pub keep: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrimSpec {
    pub channel: String,
    pub first_seq: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveSpec {
    pub channel: String,
    #[serde(default = "default_author")]
    pub by: String,
    #[serde(default = "yes")]
    pub push: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpec {
    pub channel: String,
    /// The messages of `author`, or of everybody.
    pub author: Option<String>,
    pub texts: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkedSpec {
    pub channel: String,
    pub seq: u32,
}

/// How many frames of a type came since the last `mark`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountSpec {
    pub frame: String,
    /// Waited for.
    #[serde(default)]
    pub at_least: usize,
    pub at_most: Option<usize>,
}

/// The cases of a folder, by name.
pub fn load_folder(folder: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("folder {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            cases.push(load(&path).with_context(|| path.display().to_string())?);
        }
    }
    cases.sort_unstable_by(|a: &Case, b| a.name.cmp(&b.name));
    ensure!(!cases.is_empty(), "no case in {}", folder.display());
    Ok(cases)
}

fn load(path: &Path) -> Result<Case> {
    let mut case: Case = serde_json::from_str(&fs::read_to_string(path)?)?;
    case.name = path
        .file_stem()
        .and_then(|name| name.to_str())
        .context("a name in UTF-8")?
        .to_owned();
    Ok(case)
}

/// `text`, filled up to so many bytes with what is four bytes long.
pub(crate) fn filled_wide(text: &str, bytes: usize) -> String {
    let wide = '\u{1f41a}';
    let count = bytes.saturating_sub(text.len()) / wide.len_utf8();
    text.chars()
        .chain(std::iter::repeat_n(wide, count))
        .collect()
}

/// `text`, filled up with dots to so many bytes.
pub(crate) fn filled(text: &str, bytes: usize) -> String {
    let mut text = text.to_owned();
    while text.len() < bytes {
        text.push('.');
    }
    text
}
