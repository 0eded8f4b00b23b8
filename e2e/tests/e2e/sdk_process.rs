//! F54: the application is killed (kill -9, a real process) between the first byte of its messages and the storage of their
//! ack, and started again: each message is there once, in the order in which it was written.
//!
//! The application is this test program, started again with another entry. A [`Tap`] in front of the node holds the
//! connection at the point at which the process is to die; what it holds may still arrive afterwards, as on a real network.

use std::env;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_client::{Client, ClientBuilder, ClientError, Config, ConnectionState, Event};
use conch_e2e::{PASSWORD, Pair, Place, SOON, eventually, texts};
use conch_loadtest::node::Node;
use conch_wire::ChannelId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

const ENDPOINT: &str = "CONCH_E2E_APP_ENDPOINT";
const FOLDER: &str = "CONCH_E2E_APP_FOLDER";
const CHANNEL: &str = "CONCH_E2E_APP_CHANNEL";
/// Messages of one life of the application.
const BURST: u32 = 8;

/// The application. On its standard input it hears `send FIRST COUNT` and `settle`; it says `online`, `kept N` when message N
/// is safe on its device, and `settled` when its outbox is empty. It ends when it is killed, or with its standard input.
#[test]
#[ignore = "is the application that the tests below start"]
fn application() {
    let Ok(endpoint) = env::var(ENDPOINT) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = env::var(FOLDER).unwrap();
        let client = open(&endpoint, folder.as_ref()).await.unwrap();
        let channel: ChannelId = env::var(CHANNEL).unwrap().parse().unwrap();
        let channel = client.channel(channel);
        let mut events = client.events().await.unwrap();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if event == Event::Connection(ConnectionState::Online) {
                    say("online");
                }
            }
        });
        client.connect().await.unwrap();
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["send", first, count] => {
                    let (first, count): (u32, u32) =
                        (first.parse().unwrap(), count.parse().unwrap());
                    for n in first..first + count {
                        channel.send(&n.to_string()).await.unwrap();
                        say(&format!("kept {n}"));
                    }
                }
                ["settle"] => {
                    let is_empty = || async { client.outbox().await.is_ok_and(|it| it.is_empty()) };
                    eventually("an empty outbox", SOON, is_empty).await.unwrap();
                    say("settled");
                }
                _ => panic!("{line}"),
            }
        }
    });
}

async fn open(endpoint: &str, folder: &Path) -> Result<Client, ClientError> {
    ClientBuilder::new(endpoint, folder)
        .config(Config {
            reconnect_base_ms: 50,
            reconnect_cap_ms: 400,
            ..Config::default()
        })
        .open()
        .await
}

/// A line for the test. Standard output is the harness's own.
fn say(line: &str) {
    let mut lines = std::io::stderr().lock();
    lines.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// A running application.
struct App {
    child: Child,
    commands: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

impl App {
    fn start(endpoint: &str, folder: &Path, channel: ChannelId) -> Result<App> {
        let mut child = Command::new(env::current_exe()?)
            .args([
                "--exact",
                "sdk_process::application",
                "--ignored",
                "--nocapture",
            ])
            .env(ENDPOINT, endpoint)
            .env(FOLDER, folder)
            .env(CHANNEL, channel.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = child.stderr.take().context("its words")?;
        let commands = child.stdin.take().context("its ears")?;
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let lines = std::io::BufReader::new(said).lines();
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(App {
            child,
            commands,
            lines,
        })
    }

    fn hears(&mut self, command: &str) -> Result<()> {
        Ok(self.commands.write_all(format!("{command}\n").as_bytes())?)
    }

    async fn says(&mut self, wanted: &str) -> Result<()> {
        let mut said = Vec::new();
        let heard = async {
            while let Some(line) = self.lines.recv().await {
                if line == wanted {
                    return true;
                }
                said.push(line);
            }
            false
        };
        let heard = tokio::time::timeout(SOON, heard).await;
        ensure!(
            heard == Ok(true),
            "the application did not say `{wanted}`: {said:?}"
        );
        Ok(())
    }

    fn kill(mut self) -> Result<()> {
        self.child.kill()?; // SIGKILL
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a tap holds connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    Nothing,
    /// One more byte goes to the node, the rest does not.
    ToNode,
    /// Nothing more goes to the application.
    ToApplication,
}

/// A proxy that can stop in the middle of a frame.
struct Tap {
    address: SocketAddr,
    hold: watch::Sender<Hold>,
    /// A byte went through while the way to the node was held.
    first_byte: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Tap {
    async fn start(node: &Node) -> Result<Tap> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = node.http().to_owned();
        let (hold, held) = watch::channel(Hold::Nothing);
        let first_byte = Arc::new(Notify::new());
        let seen = Arc::clone(&first_byte);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(node) = TcpStream::connect(&target).await else {
                    continue;
                };
                tokio::spawn(through(client, node, held.clone(), Arc::clone(&seen)));
            }
        });
        Ok(Tap {
            address,
            hold,
            first_byte,
            task,
        })
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn hold(&self, hold: Hold) {
        self.hold.send_replace(hold);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn through(
    mut client: TcpStream,
    mut node: TcpStream,
    held: watch::Receiver<Hold>,
    first_byte: Arc<Notify>,
) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_node, mut to_node) = node.split();
    let mut ahead = held.clone();
    let up = async {
        let mut buffer = [0; 4_096];
        loop {
            let count = from_client.read(&mut buffer).await?;
            if count == 0 {
                return to_node.shutdown().await;
            }
            let mut rest = &buffer[..count];
            if *ahead.borrow() == Hold::ToNode {
                to_node.write_all(&rest[..1]).await?;
                rest = &rest[1..];
                first_byte.notify_one();
                // What is held arrives when it is let go, though its sender is dead by then.
                let _ = ahead.wait_for(|hold| *hold != Hold::ToNode).await;
            }
            to_node.write_all(rest).await?;
        }
    };
    let mut back = held;
    let down = async {
        let mut buffer = [0; 4_096];
        loop {
            let count = from_node.read(&mut buffer).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            let _ = back.wait_for(|hold| *hold != Hold::ToApplication).await;
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    let _: std::io::Result<_> = tokio::try_join!(up, down).map(drop);
}

/// A node, two people, and the data folder of the first one's application, which has been online.
struct Scene {
    place: Place,
    node: Node,
    pair: Pair,
    tap: Tap,
}

impl Scene {
    async fn set() -> Result<Scene> {
        let place = Place::new()?;
        let node = place.start().await?;
        let pair = Pair::meet(&node).await?;
        let tap = Tap::start(&node).await?;
        let scene = Scene {
            place,
            node,
            pair,
            tap,
        };
        let client = open(&scene.tap.endpoint(), &scene.folder()).await?;
        client.log_in("ann", PASSWORD, "app").await?;
        client.close().await;
        Ok(scene)
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join("app")
    }

    /// A life of the application, online, whose next byte is of message `first + 1`.
    async fn app(&self, first: u32) -> Result<App> {
        let mut app = App::start(&self.tap.endpoint(), &self.folder(), self.pair.channel)?;
        app.says("online").await?;
        app.hears(&format!("send {first} 1"))?;
        app.hears("settle")?;
        app.says("settled").await?;
        Ok(app)
    }

    async fn stored(&self) -> Result<Vec<String>> {
        texts(&self.node, &self.pair.ben, self.pair.channel).await
    }

    /// Waits until the node has more than `count` messages.
    async fn has_more_than(&self, count: u32) -> Result<()> {
        eventually("a stored message", SOON, || async {
            let stored = self.stored().await;
            stored.is_ok_and(|stored| stored.len() as u32 > count)
        })
        .await
    }

    /// Starts the application anew and lets it say one more word; then everything is there. Returns how much that is.
    async fn comes_right(&self, written: u32) -> Result<u32> {
        let app = self.app(written).await?;
        app.kill()?;
        let written = written + 1;
        let wanted: Vec<_> = (0..written).map(|n| n.to_string()).collect();
        let stored = self.stored().await?;
        ensure!(stored == wanted, "{stored:?}");
        // And so the application has it.
        let client = open(&self.tap.endpoint(), &self.folder()).await?;
        let held = client.history(self.pair.channel, None, written).await?;
        let shown: Vec<_> = held.iter().filter_map(|it| it.text()).collect();
        ensure!(shown == wanted, "{shown:?}");
        client.close().await;
        Ok(written)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f54_application_killed_behind_the_first_byte_of_a_message() -> Result<()> {
    let scene = Scene::set().await?;
    let mut written = 0;
    for _ in 0..3 {
        let mut app = scene.app(written).await?;
        written += 1;
        scene.tap.hold(Hold::ToNode);
        app.hears(&format!("send {written} {BURST}"))?;
        tokio::time::timeout(SOON, scene.tap.first_byte.notified()).await?;
        // The rest of the burst is safe on the device before the process dies.
        app.says(&format!("kept {}", written + BURST - 1)).await?;
        app.kill()?;
        scene.tap.hold(Hold::Nothing);
        written = scene.comes_right(written + BURST).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f54_application_killed_between_the_storage_of_its_message_and_the_ack() -> Result<()> {
    let scene = Scene::set().await?;
    let mut written = 0;
    for _ in 0..3 {
        let mut app = scene.app(written).await?;
        written += 1;
        scene.tap.hold(Hold::ToApplication);
        app.hears(&format!("send {written} {BURST}"))?;
        scene.has_more_than(written).await?;
        app.says(&format!("kept {}", written + BURST - 1)).await?;
        app.kill()?;
        scene.tap.hold(Hold::Nothing);
        written = scene.comes_right(written + BURST).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f54_application_killed_while_its_acks_come_in() -> Result<()> {
    let scene = Scene::set().await?;
    let mut rng = StdRng::seed_from_u64(54);
    let mut written = 0;
    for _ in 0..10 {
        let mut app = scene.app(written).await?;
        written += 1;
        scene.tap.hold(Hold::ToApplication);
        app.hears(&format!("send {written} {BURST}"))?;
        scene.has_more_than(written).await?;
        app.says(&format!("kept {}", written + BURST - 1)).await?;
        scene.tap.hold(Hold::Nothing);
        // Somewhere between the arrival of the first ack and the storage of the last: whichever, it must come right.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        app.kill()?;
        written = scene.comes_right(written + BURST).await?;
    }
    Ok(())
}
