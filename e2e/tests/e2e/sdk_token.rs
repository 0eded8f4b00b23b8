//! F64: the access token ends in the middle of a session. It is announced a minute before and renewed on the connection; when
//! that fails, the connection ends a minute behind it and the next one begins with another token.
//!
//! The node runs in this process, on a clock that the test turns. The SDK has the machine's clock: it learns of the end from
//! the node only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use conch_client::{
    Client, ClientBuilder, Code, Config, ConnectionState, Event, EventStream, SendOutcome,
    TokenError, TokenFuture, TokenProvider,
};
use conch_e2e::{PASSWORD, SOON, eventually};
use conch_gateway::clock::Clock;
use conch_gateway::config::Settings;
use conch_gateway::node::{Node, Parts};
use conch_loadtest::http::{Api, Login};
use conch_router::ChannelFold;
use conch_store::MemoryStore;
use conch_store::accounts::Accounts;
use conch_wire::ChannelId;
use secrecy::SecretSlice;
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Shorter than the silence after which a node gives a connection up.
const STEP_S: u64 = 20;
/// The life of an access token.
const TOKEN_S: u64 = 15 * 60;

struct Scene {
    node: Node,
    clock: Clock,
    folder: TempDir,
}

impl Scene {
    async fn set() -> Result<Scene> {
        let folder = tempfile::tempdir()?;
        let clock = Clock::manual(1_800_000_000_000);
        let mut settings = Settings::dev();
        settings.http.listen.set_port(0);
        let parts = Parts {
            store: Arc::new(MemoryStore::new(Arc::new(ChannelFold))),
            accounts: Accounts::open(folder.path().join("accounts.sqlite")).await?,
            secret: SecretSlice::from(vec![7; 32]),
            clock: clock.clone(),
        };
        Ok(Scene {
            node: Node::start(settings, parts).await?,
            clock,
            folder,
        })
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.node.http)
    }

    /// An application with this provider of tokens, online.
    async fn app(&self, tokens: Arc<Tokens>) -> Result<(Client, EventStream)> {
        let client = ClientBuilder::new(&self.endpoint(), &self.folder.path().join("app"))
            .config(Config {
                reconnect_base_ms: 50,
                reconnect_cap_ms: 400,
                ..Config::default()
            })
            .token_provider(tokens)
            .open()
            .await?;
        let mut events = client.events().await?;
        client.connect().await?;
        ensure!(next_state(&mut events).await? == ConnectionState::Connecting);
        ensure!(next_state(&mut events).await? == ConnectionState::Online);
        Ok((client, events))
    }

    /// Turns the clock, with a word on the connection at every step, as an application in use has.
    async fn pass(&self, client: &Client, channel: ChannelId, seconds: u64) -> Result<()> {
        for _ in 0..seconds / STEP_S {
            self.clock.advance(STEP_S * 1_000);
            let sending = client.send(channel, "still here").await?;
            let outcome = tokio::time::timeout(SOON, sending).await??;
            ensure!(matches!(outcome, SendOutcome::Stored { .. }), "{outcome:?}");
        }
        Ok(())
    }
}

/// Gives out a login's token, and renews it over HTTP; the first renewals fail as the test says.
#[derive(Clone)]
struct Tokens {
    api: Api,
    login: Arc<Mutex<Login>>,
    asked: Arc<AtomicU32>,
    failing: u32,
}

impl Tokens {
    async fn sign_up(scene: &Scene, failing: u32) -> Result<Arc<Tokens>> {
        let api = Api::new(scene.endpoint());
        let login = api.sign_up("ann", PASSWORD).await?;
        Ok(Arc::new(Tokens {
            api,
            login: Arc::new(Mutex::new(login)),
            asked: Arc::default(),
            failing,
        }))
    }

    /// How often another token was asked for.
    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Another token was asked for so often. (The node looks at its deadlines four times a second of the machine's clock.)
    async fn are_asked(&self, times: u32) -> Result<()> {
        eventually("a renewal", SOON, || async { self.asked() == times }).await
    }

    /// The person's own log.
    async fn channel(&self) -> Result<ChannelId> {
        let login = self.login.lock().await;
        Ok(self.api.direct(&login.access_token, login.user).await?)
    }
}

impl TokenProvider for Tokens {
    fn token(&self, refresh: bool) -> TokenFuture {
        let tokens = self.clone();
        Box::pin(async move {
            let mut login = tokens.login.lock().await;
            if refresh {
                if tokens.asked.fetch_add(1, Ordering::SeqCst) < tokens.failing {
                    return Err(TokenError::Unavailable("not now".to_owned()));
                }
                let fresh = tokens.api.refresh(&login).await;
                *login = fresh.map_err(|error| TokenError::Unavailable(error.to_string()))?;
            }
            Ok(login.access_token.clone())
        })
    }
}

async fn next_state(events: &mut EventStream) -> Result<ConnectionState> {
    let found = async {
        while let Some(event) = events.next().await {
            if let Event::Connection(state) = event {
                return Ok(state);
            }
        }
        anyhow::bail!("the client closed")
    };
    tokio::time::timeout(SOON, found)
        .await
        .context("no other state")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f64_token_is_renewed_on_the_connection_a_minute_before_its_end() -> Result<()> {
    let scene = Scene::set().await?;
    let tokens = Tokens::sign_up(&scene, 0).await?;
    let channel = tokens.channel().await?;
    let (client, mut events) = scene.app(Arc::clone(&tokens)).await?;
    scene.pass(&client, channel, TOKEN_S - 80).await?;
    ensure!(tokens.asked() == 0, "asked for more than a minute before");
    scene.pass(&client, channel, 40).await?;
    // Over two more lives of a token: each is renewed, and the connection is the same.
    tokens.are_asked(1).await?;
    scene.pass(&client, channel, TOKEN_S - STEP_S).await?;
    tokens.are_asked(2).await?;
    scene.pass(&client, channel, TOKEN_S - STEP_S).await?;
    tokens.are_asked(3).await?;
    scene.pass(&client, channel, 120).await?;
    client.close().await;
    while let Some(event) = events.next().await {
        let ended = matches!(event, Event::Connection(state) if !matches!(state, ConnectionState::Stopped(_)));
        ensure!(!ended, "the connection was another one: {event:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f64_token_that_is_not_renewed_ends_the_connection_and_the_next_has_another() -> Result<()>
{
    let scene = Scene::set().await?;
    let tokens = Tokens::sign_up(&scene, 1).await?;
    let channel = tokens.channel().await?;
    let (client, mut events) = scene.app(Arc::clone(&tokens)).await?;
    // The renewal a minute before fails. The minute behind the end is still good.
    scene.pass(&client, channel, TOKEN_S - 40).await?;
    tokens.are_asked(1).await?;
    scene.pass(&client, channel, 80).await?;
    scene.clock.advance(STEP_S * 1_000 + 1_000);
    let code = match next_state(&mut events).await? {
        ConnectionState::Offline { code, .. } => code,
        other => anyhow::bail!("{other:?}"),
    };
    ensure!(code == Some(Code::TokenExpired.number()), "{code:?}");
    ensure!(next_state(&mut events).await? == ConnectionState::Connecting);
    ensure!(next_state(&mut events).await? == ConnectionState::Online);
    ensure!(tokens.asked() == 2, "{} renewals", tokens.asked());
    scene.pass(&client, channel, STEP_S).await
}
