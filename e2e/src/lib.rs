//! Fixtures of the end-to-end tests: a node of one's own with people on it, and the shim over its syncs.
//!
//! A [`Place`] is a temporary folder with a node plan whose rate limits are lifted; tests start, kill and start again what
//! they need from it. Nothing here asserts; helpers return errors with what they waited for.

pub mod front;
pub mod plain;
pub mod shim;

pub use conch_impair as impair;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use conch_loadtest::http::{Api, Login};
use conch_loadtest::node::{LIFTED_LIMITS, Node, NodePlan};
use conch_loadtest::raw::{Draft, RawClient, Transport};
use conch_wire::frame::{Hello, PushMode, Welcome};
use conch_wire::{Alias, ChannelId, MessageKey, limits};
use tempfile::TempDir;

/// Password of everybody in tests.
pub const PASSWORD: &str = "correct horse battery";

/// Longest that a test waits for a condition that should come soon.
pub const SOON: Duration = Duration::from_secs(20);

/// A folder for one node's data, and how to start it.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    pub plan: NodePlan,
}

impl Place {
    /// A place for a node with lifted limits.
    pub fn new() -> Result<Place> {
        Place::with_config(LIFTED_LIMITS)
    }

    /// A place for a node with lifted limits that speaks QUIC too.
    pub fn with_quic() -> Result<Place> {
        let mut place = Place::new()?;
        place.plan = place.plan.with_quic();
        Ok(place)
    }

    /// A place for a node with this configuration file.
    pub fn with_config(toml: &str) -> Result<Place> {
        let folder = tempfile::tempdir()?;
        let plan = NodePlan::new(folder.path())?.config(toml)?;
        Ok(Place { folder, plan })
    }

    /// The folder, for anything beside the node's data.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A folder of this name somewhere in the node's data.
    pub fn data_folder(&self, name: &str) -> Result<PathBuf> {
        let mut open = vec![self.plan.data()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    if path.file_name().is_some_and(|found| found == name) {
                        return Ok(path);
                    }
                    open.push(path);
                }
            }
        }
        bail!("no folder {name} in {}", self.plan.data().display())
    }

    /// Starts the node.
    pub async fn start(&self) -> Result<Node> {
        Ok(self.plan.start().await?)
    }
}

/// The HTTP API of a node.
pub fn api(node: &Node) -> Api {
    Api::new(node.base_url())
}

/// Two people and their direct channel on a fresh node.
#[derive(Clone, Debug)]
pub struct Pair {
    pub ann: Login,
    pub ben: Login,
    pub channel: ChannelId,
}

impl Pair {
    /// Signs both up and opens their channel.
    pub async fn meet(node: &Node) -> Result<Pair> {
        Pair::named(node, "ann", "ben").await
    }

    /// The same under other handles.
    pub async fn named(node: &Node, ann: &str, ben: &str) -> Result<Pair> {
        let api = api(node);
        let ann = api.sign_up(ann, PASSWORD).await?;
        let ben = api.sign_up(ben, PASSWORD).await?;
        let channel = api.direct(&ann.access_token, ben.user).await?;
        Ok(Pair { ann, ben, channel })
    }
}

/// A value of the node's metrics, summed over the labels that `name` leaves open: a metric's name, or its name and the
/// beginning of its labels.
pub async fn metric(node: &Node, name: &str) -> Result<f64> {
    let address = node.ready().metrics.clone().context("a metrics listener")?;
    let answer = Api::new(format!("http://{address}"))
        .send(reqwest::Method::GET, "/metrics", None, None)
        .await?;
    let text = answer.text().await?;
    let plain = name.split('{').next().unwrap_or(name);
    ensure!(text.contains(plain), "no metric {plain}");
    let values = text
        .lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.sum())
}

/// Connections that the node closed for `reason`.
pub async fn closed_for(node: &Node, reason: &str) -> Result<f64> {
    let total = "conch_gateway_connections_closed_total";
    metric(node, &format!("{total}{{reason=\"{reason}\"")).await
}

/// A HELLO of a fresh device.
pub fn hello(login: &Login) -> Hello {
    Hello {
        token: login.access_token.clone(),
        client: "conch-e2e".to_owned(),
        credit_bytes: limits::CREDIT_BYTES,
        push: PushMode::All,
        ..Hello::default()
    }
}

/// Connects a fresh device.
pub async fn connect(node: &Node, login: &Login) -> Result<(RawClient, Welcome)> {
    RawClient::open(node.http(), hello(login))
        .await
        .context("connect")
}

/// Connects a fresh device over this transport.
pub async fn connect_over(
    node: &Node,
    login: &Login,
    transport: Transport,
) -> Result<(RawClient, Welcome)> {
    let endpoint = node.doors().endpoint(transport)?;
    RawClient::open_at(&endpoint, hello(login))
        .await
        .with_context(|| format!("connect over {transport}"))
}

/// Connects a fresh device and opens a channel under `alias`.
pub async fn enter(
    node: &Node,
    login: &Login,
    channel: ChannelId,
    alias: Alias,
) -> Result<RawClient> {
    enter_over(node, login, channel, alias, Transport::WebSocket).await
}

/// The same over this transport.
pub async fn enter_over(
    node: &Node,
    login: &Login,
    channel: ChannelId,
    alias: Alias,
    transport: Transport,
) -> Result<RawClient> {
    // An event that is on its way when the session registers opens the channel under an alias of the node's choosing
    // (P-021); a test that wants its own alias comes in again behind it.
    for _ in 0..20 {
        let (mut client, _) = connect_over(node, login, transport).await?;
        client.first_changes().await?;
        let opened = client.open_fresh(channel, alias).await?;
        if opened.alias == alias {
            return Ok(client);
        }
    }
    bail!("the channel always had an alias already")
}

/// The key of test message `n`.
pub fn key(n: u64) -> MessageKey {
    MessageKey((u128::from(n) | 0xc0ff_ee00 << 64).to_le_bytes())
}

/// Test message `n`.
pub fn message(n: u64) -> Draft {
    Draft::text(key(n), format!("message {n}"))
}

/// Texts of a channel's messages in order, read by `login` through a connection of its own.
pub async fn texts(node: &Node, login: &Login, channel: ChannelId) -> Result<Vec<String>> {
    let (mut client, _) = connect(node, login).await?;
    let page = client.full_history(channel).await?;
    let mut texts = Vec::new();
    for event in page.events.iter().filter(|event| event.kind < 16) {
        texts.push(event.text().context("a message has a text")?.to_owned());
    }
    Ok(texts)
}

/// Awaits a condition, looking at it every few milliseconds.
pub async fn eventually<F, Fut>(what: &str, within: Duration, mut condition: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(within, waited)
        .await
        .with_context(|| format!("waited {within:?} for: {what}"))
}

/// Copies a folder and everything in it; the copy must not exist.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A configuration whose send limits are reached by a burst of a dozen messages.
pub const LOW_LIMITS: &str = "\
[limits]
sends_per_user = { per_s = 10, burst = 5 }
";
