//! A real nginx and a real HAProxy between clients and the node (fault F44): idle connections are killed, proxies are
//! reloaded in the middle of a conversation, and nothing is lost or comes twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_client::core::{Config, ConnectionState, Content, Event};
use conch_client::{Client, ClientBuilder, SendHandle, SendOutcome};
use conch_e2e::front::{Front, Kind};
use conch_e2e::{PASSWORD, Pair, Place, SOON, enter, eventually, hello, message, texts};
use conch_loadtest::node::Node;
use conch_loadtest::raw::RawClient;
use conch_wire::ChannelId;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A timeout that no test reaches.
const PATIENT: Duration = Duration::from_secs(300);
/// A timeout that idle connections reach soon, and a busy machine does not by itself.
const IMPATIENT: Duration = Duration::from_secs(4);

/// How a node is run behind a proxy: not for development, with a secret of its own.
const BEHIND_PROXY: &str = "\
[auth]
sign_up = \"open\"
token_secret = \"f2b7c1d09a8e4f6b8c3d5e7f9a1b2c3d\"
[metrics]
listen = \"127.0.0.1:0\"
";

/// A node as operators run it behind a proxy.
async fn behind_proxy(limits: &str) -> Result<(Place, Node)> {
    let mut place = Place::with_config(&format!("{BEHIND_PROXY}{limits}"))?;
    place.plan.dev = false;
    place.plan.args.push("--behind-proxy".to_owned());
    let node = place.start().await?;
    Ok((place, node))
}

/// An application that talks through the proxy, and everything that it was told.
struct App {
    client: Client,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    texts: Vec<String>,
    online: usize,
    offline: usize,
}

impl App {
    async fn open(front: &Front, place: &Place, channel: ChannelId) -> Result<App> {
        let client = ClientBuilder::new(&front.base_url(), &place.path().join("app"))
            .root_certificates(front.certificate_pem().as_bytes().to_vec())
            .config(Config {
                reconnect_base_ms: 50,
                reconnect_cap_ms: 400,
                ..Config::default()
            })
            .open()
            .await?;
        client.log_in("ann", PASSWORD, "app").await?;
        let told = Arc::new(Mutex::new(Told::default()));
        let sink = Arc::clone(&told);
        let mut events = client.events().await?;
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut told = sink.lock().unwrap();
                match event {
                    Event::Message(message) if message.channel == channel => {
                        if let Content::Text { text, .. } = message.content {
                            told.texts.push(text);
                        }
                    }
                    Event::Connection(ConnectionState::Online) => told.online += 1,
                    Event::Connection(ConnectionState::Offline { .. }) => told.offline += 1,
                    _ => {}
                }
            }
        });
        client.connect().await?;
        let app = App { client, told };
        app.until("the first connection", |told| told.online > 0)
            .await?;
        Ok(app)
    }

    async fn until(&self, what: &str, is: impl Fn(&Told) -> bool) -> Result<()> {
        eventually(what, SOON, || async { is(&self.told.lock().unwrap()) }).await
    }

    fn count(&self, of: impl Fn(&Told) -> usize) -> usize {
        of(&self.told.lock().unwrap())
    }
}

async fn stored(handle: SendHandle) -> Result<()> {
    let outcome = tokio::time::timeout(SOON, handle)
        .await
        .context("no answer to a send")??;
    ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
    Ok(())
}

/// What the application was told is the log, and both are what was written, each once.
async fn all_is_there(
    app: &App,
    node: &Node,
    pair: &Pair,
    mut written: Vec<String>,
    front: &Front,
) -> Result<()> {
    let log = texts(node, &pair.ben, pair.channel).await?;
    app.until("everything to be shown", |told| {
        told.texts.len() >= log.len()
    })
    .await
    .with_context(|| front.output())?;
    ensure!(
        app.told.lock().unwrap().texts == log,
        "shown are {:?}",
        app.told.lock().unwrap().texts
    );
    let mut log = log;
    log.sort_unstable();
    written.sort_unstable();
    ensure!(log == written, "the log holds {log:?}");
    Ok(())
}

async fn ping_keeps_idle_connections(kind: Kind) -> Result<()> {
    let (place, node) = behind_proxy("").await?;
    let pair = Pair::meet(&node).await?;
    let front = Front::start(kind, &place.path(), node.http(), IMPATIENT)?;
    let (mut pinging, _) = RawClient::open(front.plain(), hello(&pair.ann)).await?;
    let (mut idle, _) = RawClient::open(front.plain(), hello(&pair.ann)).await?;
    let end = {
        let closed = idle.closed(SOON);
        tokio::pin!(closed);
        loop {
            tokio::select! {
                end = &mut closed => break end?,
                () = tokio::time::sleep(Duration::from_millis(200)) => {
                    pinging.ping().await.with_context(|| front.output())?;
                }
            }
        }
    };
    ensure!(
        end.code().is_none(),
        "the node ended it, not the proxy: {end}"
    );
    pinging
        .ping()
        .await
        .context("the connection that pings was killed too")?;
    Ok(())
}

async fn idle_kill_loses_nothing(kind: Kind) -> Result<()> {
    let (place, node) = behind_proxy("").await?;
    let pair = Pair::meet(&node).await?;
    let front = Front::start(kind, &place.path(), node.http(), IMPATIENT)?;
    let app = App::open(&front, &place, pair.channel)
        .await
        .with_context(|| front.output())?;
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
    let mut written = Vec::new();
    for round in 0..3 {
        let (offline, online) = (app.count(|it| it.offline), app.count(|it| it.online));
        app.until("the idle connection to be killed", |told| {
            told.offline > offline
        })
        .await?;
        // While the application is away, and while it comes back.
        ben.say(1, &message(round)).await?;
        written.push(format!("message {round}"));
        stored(
            app.client
                .send(pair.channel, &format!("app {round}"))
                .await?,
        )
        .await?;
        written.push(format!("app {round}"));
        app.until("the connection to be back", |told| told.online > online)
            .await?;
    }
    all_is_there(&app, &node, &pair, written, &front).await
}

async fn reload_loses_nothing(kind: Kind) -> Result<()> {
    let (place, node) = behind_proxy(
        "[limits]\nsends_per_user = { per_s = 10_000, burst = 10_000 }\nframes_per_connection = { per_s = 10_000, burst = 10_000 }\n",
    )
    .await?;
    let pair = Pair::meet(&node).await?;
    let front = Front::start(kind, &place.path(), node.http(), PATIENT)?;
    let app = App::open(&front, &place, pair.channel)
        .await
        .with_context(|| front.output())?;
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
    let mut written = Vec::new();
    let mut handles = Vec::new();
    let mut n = 0;
    for _ in 0..3 {
        let (offline, online) = (app.count(|it| it.offline), app.count(|it| it.online));
        front.reload();
        // The old worker's connections are cut a second later: the conversation goes on until after that.
        while app.count(|it| it.offline) == offline || app.count(|it| it.online) == online {
            ben.say(1, &message(n)).await?;
            written.push(format!("message {n}"));
            handles.push(app.client.send(pair.channel, &format!("app {n}")).await?);
            written.push(format!("app {n}"));
            n += 1;
            ensure!(n < 5_000, "the reload cut nothing\n{}", front.output());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for handle in handles {
        stored(handle).await?;
    }
    all_is_there(&app, &node, &pair, written, &front).await
}

/// Large messages and bursts pass as they are: nothing waits in the proxy until more comes.
async fn large_messages_and_bursts_pass(kind: Kind) -> Result<()> {
    let (place, node) = behind_proxy(
        "[limits]\nsends_per_user = { per_s = 10_000, burst = 10_000 }\nframes_per_connection = { per_s = 10_000, burst = 10_000 }\n",
    )
    .await?;
    let pair = Pair::meet(&node).await?;
    let front = Front::start(kind, &place.path(), node.http(), PATIENT)?;
    let app = App::open(&front, &place, pair.channel)
        .await
        .with_context(|| front.output())?;
    let mut ben = enter(&node, &pair.ben, pair.channel, 1).await?;
    let mut written = Vec::new();
    let large = "ü".repeat(100_000);
    stored(app.client.send(pair.channel, &large).await?).await?;
    written.push(large);
    for n in 0..300 {
        ben.say(1, &message(n)).await?;
        written.push(format!("message {n}"));
    }
    all_is_there(&app, &node, &pair, written, &front).await
}

/// What HTTP says to a sign-up from this source address with this forged header.
async fn sign_up(front: &Front, source: &str, forged: &str, handle: &str) -> Result<StatusCode> {
    let client = reqwest::Client::builder()
        .local_address(Some(source.parse()?))
        .pool_max_idle_per_host(0)
        .build()?;
    let body = json!({ "handle": handle, "password": PASSWORD });
    let answer = client
        .post(format!("http://{}/v1/accounts", front.plain()))
        .header("X-Forwarded-For", forged)
        .json(&body)
        .send()
        .await?;
    Ok(answer.status())
}

async fn limits_follow_the_clients_address(kind: Kind) -> Result<()> {
    let (place, node) =
        behind_proxy("[limits]\nearly_per_address = { per_s = 1, burst = 3 }\n").await?;
    let front = Front::start(kind, &place.path(), node.http(), PATIENT)?;
    // At once, so that a busy machine does not make room again between them.
    let flood = join_all((0..20).map(|n| {
        let (front, forged) = (&front, format!("10.0.0.{n}"));
        async move { sign_up(front, "127.0.0.2", &forged, &format!("flood{n}")).await }
    }));
    let statuses = flood.await.into_iter().collect::<Result<Vec<_>>>()?;
    let is_expected =
        |it: &StatusCode| matches!(*it, StatusCode::CREATED | StatusCode::TOO_MANY_REQUESTS);
    ensure!(statuses.iter().all(is_expected), "{statuses:?}");
    ensure!(
        statuses.contains(&StatusCode::TOO_MANY_REQUESTS),
        "a forged header is believed: nobody is limited"
    );
    let other = sign_up(&front, "127.0.0.3", "127.0.0.2", "other").await?;
    ensure!(
        other == StatusCode::CREATED,
        "everybody is limited as one: {other}"
    );
    Ok(())
}

/// The status that an upgrade with this `Origin` gets.
async fn upgrade(front: &Front, origin: &str) -> Result<String> {
    let mut stream = TcpStream::connect(front.plain()).await?;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: conch.1\r\n\r\n",
        front.plain()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    tokio::time::timeout(SOON, stream.read_exact(&mut head)).await??;
    Ok(String::from_utf8_lossy(&head[9..]).into_owned())
}

async fn pages_of_the_proxys_host_may_connect(kind: Kind) -> Result<()> {
    let (place, node) = behind_proxy("").await?;
    let front = Front::start(kind, &place.path(), node.http(), PATIENT)?;
    for scheme in ["https", "http"] {
        let own = format!("{scheme}://{}", front.plain());
        let status = upgrade(&front, &own).await?;
        ensure!(status == "101", "{own}: {status}\n{}", front.output());
    }
    let status = upgrade(&front, "https://evil.example").await?;
    ensure!(status == "403", "a foreign page: {status}");
    Ok(())
}

/// Each for both proxies.
macro_rules! with_both {
    ($($test:ident)*) => {
        mod nginx {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$test(super::Kind::Nginx).await
            })*
        }
        mod haproxy {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$test(super::Kind::Haproxy).await
            })*
        }
    };
}

with_both! {
    ping_keeps_idle_connections
    idle_kill_loses_nothing
    reload_loses_nothing
    large_messages_and_bursts_pass
    limits_follow_the_clients_address
    pages_of_the_proxys_host_may_connect
}
