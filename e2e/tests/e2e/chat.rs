//! The main job: two people in two terminals chat through the node, and killing the node loses nothing.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use conch_e2e::{PASSWORD, Place, SOON, eventually};
use conch_loadtest::forward::Forward;
use conch_loadtest::node::program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

/// A running `conch-chat` with its standard input and everything that it printed.
pub(super) struct Terminal {
    child: Child,
    input: ChildStdin,
    printed: Arc<Mutex<String>>,
}

pub(super) fn command(server: &str, data: &Path) -> Result<Command> {
    let mut command = Command::new(program("conch-chat")?);
    command
        .args(["--server", server, "--data"])
        .arg(data)
        .env("CONCH_PASSWORD", PASSWORD)
        .kill_on_drop(true);
    Ok(command)
}

impl Terminal {
    pub(super) fn open(server: &str, data: &Path) -> Result<Terminal> {
        let mut child = command(server, data)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let printed = Arc::new(Mutex::new(String::new()));
        let mut output = child.stdout.take().context("a piped output")?;
        let sink = Arc::clone(&printed);
        tokio::spawn(async move {
            let mut chunk = [0; 4_096];
            while let Ok(n @ 1..) = output.read(&mut chunk).await {
                let text = String::from_utf8_lossy(&chunk[..n]).into_owned();
                sink.lock().unwrap().push_str(&text);
            }
        });
        let input = child.stdin.take().context("a piped input")?;
        Ok(Terminal {
            child,
            input,
            printed,
        })
    }

    pub(super) async fn types(&mut self, line: &str) -> Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    pub(super) async fn shows(&self, text: &str) -> Result<()> {
        eventually(text, SOON, || async {
            self.printed.lock().unwrap().contains(text)
        })
        .await
        .with_context(|| format!("printed so far:\n{}", self.printed.lock().unwrap()))
    }

    pub(super) async fn leaves(mut self) -> Result<()> {
        drop(self.input);
        let status = tokio::time::timeout(SOON, self.child.wait()).await??;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

/// What a script prints of the newest messages: sender and text of each.
async fn history(server: &str, data: &Path, to: &str) -> Result<Vec<(String, String)>> {
    let output = command(server, data)?
        .args(["history", "--to", to])
        .output()
        .await?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let line = |line: &str| {
        let mut fields = line.split('\t').skip(2);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_chat_in_terminals_and_a_killed_node_loses_nothing() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let server = forward.base_url();
    let (ann_data, ben_data) = (place.path().join("ann"), place.path().join("ben"));
    let mut ann = Terminal::open(&server, &ann_data)?;
    let mut ben = Terminal::open(&server, &ben_data)?;
    ann.types("/signup ann").await?;
    ann.shows("@ann").await?;
    ben.types("/signup ben").await?;
    ben.shows("@ben").await?;
    ann.types("/dm ben").await?;
    ann.types("hello, ben").await?;
    ben.types("/dm ann").await?;
    ben.shows("hello, ben").await?;
    ben.types("hello, ann").await?;
    ann.shows("hello, ann").await?;

    node.kill();
    endpoint.send_replace(None);
    // Typed while nobody listens.
    ann.types("are you still there?").await?;
    let node = place.start().await?;
    endpoint.send_replace(Some(node.http().to_owned()));
    ben.shows("are you still there?").await?;
    ben.types("always").await?;
    ann.shows("always").await?;
    ann.leaves().await?;
    ben.leaves().await?;

    node.kill();
    endpoint.send_replace(None);
    let node = place.start().await?;
    endpoint.send_replace(Some(node.http().to_owned()));
    let said: Vec<_> = [
        ("ann", "hello, ben"),
        ("ben", "hello, ann"),
        ("ann", "are you still there?"),
        ("ben", "always"),
    ]
    .map(|(who, what)| (who.to_owned(), what.to_owned()))
    .into();
    for (data, other) in [(&ann_data, "ben"), (&ben_data, "ann")] {
        let found = history(&server, data, other).await?;
        let texts: Vec<_> = found.iter().map(|(_, text)| text.as_str()).collect();
        for ((who, what), line) in said.iter().zip(&found) {
            ensure!(
                line.0.contains(who.as_str()) && line.1 == *what,
                "{texts:?}"
            );
        }
        ensure!(found.len() == said.len(), "{found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_is_made_in_a_terminal_and_everybody_reads_the_same() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let server = node.base_url();
    let mut terminals = Vec::new();
    for handle in ["ann", "ben", "cleo"] {
        let mut terminal = Terminal::open(&server, &place.path().join(handle))?;
        terminal.types(&format!("/signup {handle}")).await?;
        terminal.shows(&format!("@{handle}")).await?;
        terminals.push(terminal);
    }
    terminals[0].types("/group Harbour @ben @cleo").await?;
    terminals[0].types("welcome to the harbour").await?;
    for terminal in &mut terminals[1..] {
        terminal.shows("Harbour").await?;
    }
    let listed = command(&server, &place.path().join("script"))?
        .args(["login", "ben"])
        .output()
        .await?;
    ensure!(listed.status.success(), "{listed:?}");
    let listed = command(&server, &place.path().join("script"))?
        .arg("list")
        .output()
        .await?;
    let text = String::from_utf8(listed.stdout)?;
    ensure!(text.contains("Harbour") && text.contains("group"), "{text}");
    let channel = text.split('\t').next().context("a channel id")?;
    eventually("the message in the group", SOON, || async {
        let output = command(&server, &place.path().join("script"))
            .unwrap()
            .args(["history", "--channel", channel])
            .output()
            .await
            .unwrap();
        String::from_utf8_lossy(&output.stdout).contains("welcome to the harbour")
    })
    .await
}
