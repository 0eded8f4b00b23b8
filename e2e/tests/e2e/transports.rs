//! The SDK's transports with a real node: QUIC and WebSocket in one conversation, networks that block one of them, and
//! addresses that change in the middle of everything.
//!
//! Tests that impair the network put proxies for HTTP and for QUIC on a loopback address of their own; QUIC's has the port
//! that the node says, so the client goes through both without knowing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use conch_client::{
    Client, ClientBuilder, Config, ConnectionState, Event, EventStream, SendOutcome, Transport,
    Transports,
};
use conch_e2e::impair::{Carrier, Cut, Profile, Proxy, Way};
use conch_e2e::{PASSWORD, Pair, Place, SOON, enter, eventually, message, metric, texts};
use conch_loadtest::forward::Forward;
use conch_loadtest::node::{LIFTED_LIMITS, Node};
use tokio::sync::watch;
use tokio::time::timeout;

/// What an application waits for at most where UDP is blocked.
const WEBSOCKET_WITHIN: Duration = Duration::from_secs(3);
/// Where the proxies listen.
const FRONT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A network between a client and a node.
struct Network {
    tcp: Proxy,
    udp: Proxy,
}

impl Network {
    async fn before(node: &Node) -> Result<Network> {
        let quic: SocketAddr = node.ready().quic.as_ref().context("QUIC")?.parse()?;
        let at = |port| SocketAddr::from((FRONT, port));
        let clean = Profile::default();
        let http = Some(node.http().parse()?);
        Ok(Network {
            tcp: Proxy::start_at(Carrier::Tcp, 1, at(0), http, clean).await?,
            udp: Proxy::start_at(Carrier::Udp, 1, at(quic.port()), Some(quic), clean).await?,
        })
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.tcp.address())
    }

    fn block_quic(&self) {
        self.udp.black_hole(Way::ToServer);
        self.udp.black_hole(Way::ToClient);
    }

    /// Sockets of clients that QUIC was tried from.
    fn quic_attempts(&self) -> u64 {
        self.udp.seen().connections
    }
}

fn builder(endpoint: &str, folder: &Path) -> ClientBuilder {
    ClientBuilder::new(endpoint, folder).config(Config {
        reconnect_base_ms: 50,
        reconnect_cap_ms: 400,
        ..Config::default()
    })
}

/// A connected client, its events from before it connected, and what carries it.
async fn connected(builder: ClientBuilder, handle: &str) -> Result<(Client, EventStream)> {
    let client = builder.open().await?;
    if client.account().await.is_none() {
        client.log_in(handle, PASSWORD, "sdk").await?;
    }
    let mut events = client.events().await?;
    client.connect().await?;
    online(&mut events).await?;
    Ok((client, events))
}

async fn online(events: &mut EventStream) -> Result<()> {
    let heard = async {
        while let Some(event) = events.next().await {
            if event == Event::Connection(ConnectionState::Online) {
                return Ok(());
            }
        }
        anyhow::bail!("the client closed")
    };
    timeout(SOON, heard).await.context("not online")?
}

/// The client, which may use both, comes to QUIC by itself; on a busy machine WebSocket may have been there first.
async fn takes_quic(client: &Client, events: &mut EventStream) -> Result<()> {
    let taken = async {
        while client.transport() != Some(Transport::Quic) {
            client.disconnect().await?;
            client.connect().await?;
            online(events).await?;
        }
        anyhow::Ok(())
    };
    timeout(SOON, taken).await.context("QUIC is never taken")?
}

/// States of the connection that were given out so far.
fn states(events: &mut EventStream) -> Vec<ConnectionState> {
    let mut states = Vec::new();
    while let Some(event) = events.try_next() {
        if let Event::Connection(state) = event {
            states.push(state);
        }
    }
    states
}

async fn outbox_is_empty(client: &Client) -> Result<()> {
    eventually("an empty outbox", SOON, || async {
        client.outbox().await.is_ok_and(|outbox| outbox.is_empty())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_chat_whatever_carries_each_of_them() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let by = |transports, name: &str| {
        builder(&node.base_url(), &place.path().join(name)).transports(transports)
    };
    let (ann, mut told) = connected(by(Transports::Auto, "ann"), "ann").await?;
    takes_quic(&ann, &mut told).await?;
    drop(told);
    let (ben, mut heard) = connected(by(Transports::WebSocketOnly, "ben"), "ben").await?;
    ensure!(ben.transport() == Some(Transport::WebSocket));
    for n in 0..50 {
        let speaker = if n % 2 == 0 { &ann } else { &ben };
        let sent = speaker.send(pair.channel, &n.to_string()).await?;
        let outcome = timeout(SOON, sent).await??;
        ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
    }
    let mut texts = Vec::new();
    while texts.len() < 50 {
        if let Event::Message(message) = timeout(SOON, heard.next()).await?.context("closed")? {
            texts.extend(message.text().map(str::to_owned));
        }
    }
    ensure!(texts == (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_comes_on_streams_of_its_own_and_is_the_log() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    for n in 0..600 {
        ann.say(1, &message(n)).await?;
    }
    let only =
        builder(&node.base_url(), &place.path().join("ben")).transports(Transports::QuicOnly);
    let (ben, _events) = connected(only, "ben").await?;
    // `history` begins at the newest event that the device holds, and the log's end is on its way until here.
    eventually("the channel's newest events", SOON, || async {
        let info = ben.channel_info(pair.channel).await;
        matches!(info, Ok(Some(info)) if info.held_to == info.head_seq && info.held_from > 1)
    })
    .await?;
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = ben.history(pair.channel, before, 150).await?;
        let Some(first) = page.first() else { break };
        before = Some(first.seq);
        seen.splice(
            0..0,
            page.iter().filter_map(|it| Some(it.text()?.to_owned())),
        );
    }
    ensure!(seen.len() == 600, "{}", seen.len());
    ensure!(seen == texts(&node, &pair.ben, pair.channel).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_of_an_https_endpoint_is_verified_by_its_name() -> Result<()> {
    let mut place = Place::with_quic()?;
    place.plan = place.plan.with_tls()?;
    let node = place.start().await?;
    let pem = node.certificate().context("a certificate")?.pem.clone();
    let folder = place.path().join("ann");
    let client = builder(&node.base_url(), &folder)
        .root_certificates(pem.into_bytes())
        .transports(Transports::QuicOnly)
        .open()
        .await?;
    client.sign_up("ann", PASSWORD, None, "sdk").await?;
    let mut events = client.events().await?;
    client.connect().await?;
    online(&mut events).await?;
    ensure!(client.transport() == Some(Transport::Quic));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p073_client_that_is_asked_for_its_address_comes_back_with_it() -> Result<()> {
    // As under a flood of handshakes, from the first one on.
    let asking = format!("{LIFTED_LIMITS}[quic]\nretry_above = 0\n");
    let mut place = Place::with_config(&asking)?;
    place.plan = place.plan.with_quic();
    let metrics = ["--metrics", "127.0.0.1:0"].map(str::to_owned);
    place.plan.args.extend(metrics);
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let only =
        builder(&node.base_url(), &place.path().join("ann")).transports(Transports::QuicOnly);
    let (ann, _events) = connected(only, "ann").await?;
    timeout(SOON, ann.send(pair.channel, "here I am").await?).await??;
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["here I am"]);
    ensure!(metric(&node, "conch_gateway_quic_retries_total").await? >= 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f41_network_that_blocks_udp_costs_a_second_once() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let network = Network::before(&node).await?;
    let _pair = Pair::meet(&node).await?;
    network.block_quic();
    // The promise is the client's own: one time of a few must keep it, whatever else the machine does.
    let (folder, client, mut events, took) = 'soon: {
        for n in 1..=4 {
            let folder = place.path().join(format!("ann-{n}"));
            let client = builder(&network.endpoint(), &folder).open().await?;
            client.log_in("ann", PASSWORD, "sdk").await?;
            let mut events = client.events().await?;
            let began = Instant::now();
            client.connect().await?;
            online(&mut events).await?;
            let took = began.elapsed();
            ensure!(client.transport() == Some(Transport::WebSocket));
            if took < WEBSOCKET_WITHIN {
                break 'soon (folder, client, events, took);
            }
            client.close().await;
        }
        bail!("WebSocket is never there within {WEBSOCKET_WITHIN:?}");
    };

    // That it is blocked, and not only slow, is known a little later; then a restart does not try it. (Every attempt begins on
    // a socket of its own, which is another flow to the network.)
    let given_up = async {
        loop {
            let before = network.quic_attempts();
            network.tcp.cut_all(Cut::Reset);
            online(&mut events).await?;
            if network.quic_attempts() == before {
                return anyhow::Ok(());
            }
        }
    };
    timeout(SOON, given_up)
        .await
        .context("QUIC is tried for ever")??;
    client.close().await;
    let before = network.quic_attempts();
    let began = Instant::now();
    let (client, mut events) = connected(builder(&network.endpoint(), &folder), "ann").await?;
    let again = began.elapsed();
    ensure!(client.transport() == Some(Transport::WebSocket));
    ensure!(network.quic_attempts() == before, "QUIC was tried again");
    figure(&format!(
        "UDP dropped: connected after {took:?}; after a restart {again:?}"
    ));

    // Another network lets it through.
    network.udp.heal();
    client.network_changed().await?;
    takes_quic(&client, &mut events).await
}

/// Sends numbers and changes addresses meanwhile: everything is stored once, in order, by one session.
async fn send_through(changes: impl AsyncFn(&Network, &Client, usize) -> Result<()>) -> Result<()> {
    const SENDS: usize = 120;
    let mut place = Place::with_quic()?;
    let metrics = ["--metrics", "127.0.0.1:0"].map(str::to_owned);
    place.plan.args.extend(metrics);
    let node = place.start().await?;
    let network = Network::before(&node).await?;
    let pair = Pair::meet(&node).await?;
    let only =
        builder(&network.endpoint(), &place.path().join("ann")).transports(Transports::QuicOnly);
    let (ann, mut events) = connected(only, "ann").await?;
    let connections = metric(&node, "conch_gateway_connections_total").await?;
    let mut sent = Vec::new();
    for n in 0..SENDS {
        sent.push(ann.send(pair.channel, &n.to_string()).await?);
        changes(&network, &ann, n).await?;
    }
    for sending in sent {
        let outcome = timeout(SOON, sending).await.context("no answer")??;
        ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
    }
    ensure!(states(&mut events).is_empty(), "it connected again");
    ensure!(ann.connection() == ConnectionState::Online);
    let after = metric(&node, "conch_gateway_connections_total").await?;
    ensure!(
        after == connections,
        "another session: {connections} then {after}"
    );
    let wanted: Vec<_> = (0..SENDS).map(|n| n.to_string()).collect();
    ensure!(texts(&node, &pair.ben, pair.channel).await? == wanted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_that_changes_in_the_middle_of_sends_loses_nothing() -> Result<()> {
    send_through(async |network, _, n| {
        if n % 40 == 20 {
            network.udp.rebind();
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_that_changes_in_the_middle_of_sends_loses_nothing() -> Result<()> {
    send_through(async |network, client, n| {
        if n % 40 == 20 {
            let source = IpAddr::from([127, 0, 0, 2 + (n / 40) as u8]);
            network.udp.rebind_to(source);
            client.network_changed().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_that_changes_is_resumed_at_once() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let network = Network::before(&node).await?;
    let pair = Pair::meet(&node).await?;
    let only =
        builder(&network.endpoint(), &place.path().join("ben")).transports(Transports::QuicOnly);
    let (ben, mut events) = connected(only, "ben").await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    let mut took = Vec::new();
    for n in 0..10 {
        network
            .udp
            .rebind_to(IpAddr::from([127, 0, 0, 20 + n as u8]));
        let began = Instant::now();
        ben.network_changed().await?;
        // Ben only listens: what Ann says finds him at his new address.
        ann.say(1, &message(n)).await?;
        loop {
            match timeout(SOON, events.next()).await?.context("closed")? {
                Event::Message(_) => break,
                Event::Connection(state) => anyhow::bail!("{state:?}"),
                _ => {}
            }
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    figure(&format!(
        "address changed: the next message after {:?} (median of {}), {:?} at most",
        took[took.len() / 2],
        took.len(),
        took[took.len() - 1]
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_begun_by_quic_and_finished_by_websocket_is_one() -> Result<()> {
    let place = Place::with_quic()?;
    let node = place.start().await?;
    let network = Network::before(&node).await?;
    let pair = Pair::meet(&node).await?;
    let auto = builder(&network.endpoint(), &place.path().join("ann"));
    let (ann, mut events) = connected(auto, "ann").await?;
    takes_quic(&ann, &mut events).await?;
    timeout(SOON, ann.send(pair.channel, "first").await?).await??;
    // The node hears, and is not heard.
    network.udp.black_hole(Way::ToClient);
    let sending = ann.send(pair.channel, "second").await?;
    eventually("the message is stored", SOON, || async {
        let texts = texts(&node, &pair.ben, pair.channel).await;
        texts.is_ok_and(|texts| texts.len() == 2)
    })
    .await?;
    network.block_quic();
    // Into a network that blocks UDP: the connection does not answer, another one is made.
    ann.network_changed().await?;
    online(&mut events).await?;
    ensure!(ann.transport() == Some(Transport::WebSocket));
    let outcome = timeout(SOON, sending).await??;
    ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
    outbox_is_empty(&ann).await?;
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["first", "second"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_starts_again_elsewhere_is_found_by_quic_again() -> Result<()> {
    let place = Place::with_quic()?;
    let mut node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let only =
        builder(&forward.base_url(), &place.path().join("ann")).transports(Transports::QuicOnly);
    let (ann, mut events) = connected(only, "ann").await?;
    for n in 0..2 {
        timeout(SOON, ann.send(pair.channel, &n.to_string()).await?).await??;
        // Another port and another certificate.
        node.kill();
        endpoint.send_replace(None);
        node = place.start().await?;
        endpoint.send_replace(Some(node.http().to_owned()));
        // The dead connection is silent; the application knows better.
        ann.network_changed().await?;
        online(&mut events).await?;
        ensure!(ann.transport() == Some(Transport::Quic));
    }
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["0", "1"]);
    Ok(())
}

/// A line for whoever measures.
#[allow(clippy::print_stdout, reason = "shown with --nocapture only")]
fn figure(line: &str) {
    println!("{line}");
}
