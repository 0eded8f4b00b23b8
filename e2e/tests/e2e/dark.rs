//! Paths that go dark without a word (fault F38): half-open TCP, and a QUIC path on which nothing arrives any more. Node and
//! client notice within the protocol's 45 s, each by itself; what was not acknowledged is kept and sent once.

use std::future::IntoFuture;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_client::core::{Config, ConnectionState, Event};
use conch_client::{Client, ClientBuilder, EventStream, SendOutcome, Transports};
use conch_e2e::impair::{Profile, Proxy};
use conch_e2e::{PASSWORD, Pair, Place, SOON, closed_for, eventually, hello, metric, texts};
use conch_loadtest::bad_network::BadNetwork;
use conch_loadtest::raw::{RawClient, Transport};
use conch_wire::limits::SILENCE_MAX_MS;
use tokio::time::{Instant, timeout_at};

/// Without a byte for so long either side gives up.
const SILENCE: Duration = Duration::from_millis(SILENCE_MAX_MS as u64);
/// How exactly that is seen from outside.
const SEEN: Duration = Duration::from_secs(10);

/// An application on one transport.
struct App {
    client: Client,
    events: EventStream,
}

impl App {
    async fn open(
        network: &BadNetwork,
        place: &Place,
        handle: &str,
        name: &str,
        on: Transports,
    ) -> Result<App> {
        let client = ClientBuilder::new(&network.base_url(), &place.path().join(name))
            .config(Config {
                reconnect_base_ms: 50,
                reconnect_cap_ms: 400,
                ..Config::default()
            })
            .transports(on)
            .open()
            .await?;
        client.log_in(handle, PASSWORD, name).await?;
        let mut events = client.events().await?;
        client.connect().await?;
        until(&mut events, Instant::now() + SOON, |it| {
            *it == ConnectionState::Online
        })
        .await?;
        Ok(App { client, events })
    }

    /// From the moment that its path goes dark: notices, comes back, and says once what was said. One that says it into the dark
    /// keeps it until then; one that is quiet has only its heartbeat.
    async fn notice(mut self, pair: &Pair, name: &str, is_quiet: bool) -> Result<()> {
        let dark = Instant::now();
        let text = words_of(name);
        let early = match is_quiet {
            true => None,
            false => Some(self.client.send(pair.channel, &text).await?),
        };
        until(&mut self.events, dark + SILENCE + SEEN, |it| {
            *it != ConnectionState::Online
        })
        .await
        .with_context(|| format!("{name} noticed nothing"))?;
        let sending = match early {
            Some(sending) => sending,
            None => self.client.send(pair.channel, &text).await?,
        };
        let outcome = timeout_at(Instant::now() + SOON, sending.into_future())
            .await
            .with_context(|| format!("{name} did not come back"))??;
        ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
        Ok(())
    }
}

fn words_of(name: &str) -> String {
    format!("said by {name}, who was in the dark")
}

async fn until(
    events: &mut EventStream,
    deadline: Instant,
    wanted: impl Fn(&ConnectionState) -> bool,
) -> Result<()> {
    let found = async {
        while let Some(event) = events.next().await {
            if matches!(&event, Event::Connection(state) if wanted(state)) {
                return Ok(());
            }
        }
        anyhow::bail!("the client closed")
    };
    timeout_at(deadline, found).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dark_paths_are_noticed_by_both_ends_within_45_s() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let network = BadNetwork::start([0, 3], 1, Profile::default(), &node).await?;
    let doors = network.lead_to(&node)?;
    let (websocket, quic) = (Transports::WebSocketOnly, Transports::QuicOnly);
    let ann_websocket = App::open(&network, &place, "ann", "ann-1", websocket).await?;
    let ann_quic = App::open(&network, &place, "ann", "ann-2", quic).await?;
    let ben_websocket = App::open(&network, &place, "ben", "ben-1", websocket).await?;
    let ben_quic = App::open(&network, &place, "ben", "ben-2", quic).await?;
    // Clients that never come back: what ends their sessions is the node's own doing.
    let mut gone = Vec::new();
    for transport in [Transport::WebSocket, Transport::Quic] {
        let endpoint = doors.endpoint(transport)?;
        let (mut client, _) = RawClient::open_at(&endpoint, hello(&pair.ben)).await?;
        client.first_changes().await?;
        gone.push(client);
    }
    ensure!(closed_for(&node, "idle_timeout").await.unwrap_or(0.0) == 0.0);
    let flows = network.seen().1.context("QUIC has a proxy")?.connections;
    ensure!(flows >= 2, "{flows} flows of UDP: QUIC was not used");

    network.proxies().for_each(Proxy::half_open);
    let dark = Instant::now();
    let node_notices = async {
        let both = || async {
            closed_for(&node, "idle_timeout")
                .await
                .is_ok_and(|it| it >= 2.0)
        };
        eventually("the node to give both up", SILENCE + SEEN, both).await?;
        let noticed = dark.elapsed();
        ensure!(
            noticed >= SILENCE - Duration::from_secs(5),
            "after {noticed:?} already"
        );
        anyhow::Ok(())
    };
    let (by_node, by_apps) = tokio::join!(node_notices, async {
        tokio::try_join!(
            ann_websocket.notice(&pair, "ann-1", false),
            ann_quic.notice(&pair, "ann-2", false),
            ben_websocket.notice(&pair, "ben-1", true),
            ben_quic.notice(&pair, "ben-2", true),
        )
    });
    by_node?;
    by_apps?;
    // The applications have ended by now; what were left would be dead.
    eventually("dead sessions to be gone", SOON, || async {
        let sessions = metric(&node, "conch_gateway_sessions").await;
        sessions.is_ok_and(|sessions| sessions == 0.0)
    })
    .await?;
    drop(gone);
    let mut said = texts(&node, &pair.ann, pair.channel).await?;
    said.sort();
    let wanted = ["ann-1", "ann-2", "ben-1", "ben-2"].map(words_of);
    ensure!(said == wanted, "{said:?}");
    Ok(())
}
