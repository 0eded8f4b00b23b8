//! A node: everything put together, from the data folder to the listening port, and taken apart again in order.
//!
//! Start: store (recovers and replays), accounts, owners, hub, listeners, ready. Stop: readiness false → stop accepting →
//! GOAWAY → owners finish what was sequenced, acks go out → sessions close → store and accounts close. One deadline; a
//! second signal hurries. When the store or an owner fails for good nothing is acknowledged any more: everything is
//! dropped at once, and the program ends with the code for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conch_router::{ChannelFold, Fatal, Router, RouterConfig};
use conch_store::MessageStore;
use conch_store::accounts::Accounts;
use conch_store::embedded::{EmbeddedOptions, EmbeddedStore};
use conch_wire::Code;
use secrecy::SecretSlice;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Connections;
use crate::auth::Gate;
use crate::auth::passwords::Passwords;
use crate::auth::tokens::Tokens;
use crate::clock::Clock;
use crate::config::Settings;
use crate::exit::Failure;
use crate::http::limiter::Limiter;
use crate::http::listener::Listener;
use crate::http::origin::Scheme;
use crate::http::{Api, routes};
use crate::hub::Hub;
use crate::metrics;
use crate::quic::{QuicFacts, listener::Listener as QuicListener};
use crate::ready::Ready;
use crate::session::state::SessionConfig;
use crate::session::sync_token::InboxIdentity;
use crate::session::task::Edge;
use crate::tls::keys::Keys;
use crate::tls::tickets::Tickets;
use crate::tls::{Certificate, TlsError, development};

/// File of the accounts database in a data folder.
const ACCOUNTS_FILE: &str = "accounts.sqlite";
/// Housekeeping: sweeping limits, dropping expired rows.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a node is made of, besides its settings. Tests bring a memory store and a clock of their own.
pub struct Parts {
    pub store: Arc<dyn MessageStore>,
    pub accounts: Accounts,
    pub secret: SecretSlice<u8>,
    pub clock: Clock,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Parts {
    /// Opens the data folder of `settings`. Blocking work inside; call it before anything is served.
    pub async fn open(settings: &Settings, dev: bool) -> Result<Parts, Failure> {
        // Before the store, which looks its metrics up once.
        crate::prometheus::installed();
        let dir = settings.data.dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            EmbeddedStore::open(EmbeddedOptions::new(dir), Arc::new(ChannelFold))
        });
        let store = opened
            .await
            .map_err(|_| Failure::Other("opening the data folder panicked".to_owned()))??;
        let accounts = Accounts::open(settings.data.dir.join(ACCOUNTS_FILE))
            .await
            .map_err(|e| Failure::Accounts(Box::new(e)))?;
        let auth = &settings.auth;
        let secret = if dev && auth.token_secret.is_none() && auth.token_secret_file.is_none() {
            crate::secret::of_data_folder(&settings.data.dir)
                .map_err(Failure::io("the token secret in the data folder"))?
        } else {
            crate::secret::configured(auth)?
        };
        Ok(Parts {
            store: Arc::new(store),
            accounts,
            secret,
            clock: Clock::system(),
        })
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    pub api: Arc<Api>,
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    quic: Option<QuicListener>,
    /// Of HTTP and of QUIC; the same one, two or none.
    certificates: Vec<Arc<Certificate>>,
    tls: bool,
    /// Ends the accept loop.
    accepting: CancellationToken,
    /// Ends the rest.
    running: CancellationToken,
    tasks: TaskTracker,
    listeners: TaskTracker,
}

impl Node {
    /// Starts serving.
    pub async fn start(settings: Settings, parts: Parts) -> Result<Node, Failure> {
        let metrics_handle = crate::prometheus::installed();
        let certificate = certificate_of(&settings.http.tls_cert, &settings.http.tls_key)?;
        let keys = Keys::of(&parts.secret);
        let tls = match &certificate {
            Some(certificate) => {
                let tickets = Tickets::for_https(keys.clone(), parts.clock.clone());
                Some(Arc::new(certificate.for_https(Arc::new(tickets))?))
            }
            None => None,
        };
        let connections = Connections::new(
            settings.limits.connections_max,
            settings.limits.connections_per_address_max,
        );
        let mut certificates = Vec::from_iter(certificate);
        let quic = match settings.quic.listen {
            Some(at) => {
                let bound = bind_quic(at, &settings, &parts, keys, &mut certificates, &connections);
                Some(bound?)
            }
            None => None,
        };
        let (quic, facts) = quic.unzip();
        let api = api_of(&settings, parts, tls.is_some(), connections.clone(), facts);
        let api = Arc::new(api);
        let (accepting, running) = (CancellationToken::new(), CancellationToken::new());
        let bind_failed = |name: &'static str, at: SocketAddr| Failure::io(format!("{name} {at}"));
        let http = Listener::bind(
            settings.http.listen,
            routes(api.clone()),
            tls.clone(),
            connections,
            settings.http.behind_proxy,
        )
        .await
        .map_err(bind_failed("http.listen", settings.http.listen))?;
        let scrape = Listener::bind(
            settings.metrics.listen,
            crate::prometheus::routes(metrics_handle.clone(), api.clone()),
            None,
            Connections::new(64, 64),
            false,
        )
        .await
        .map_err(bind_failed("metrics.listen", settings.metrics.listen))?;
        let address = |l: &Listener| l.address().map_err(Failure::io("the listening address"));
        let node = Node {
            http: address(&http)?,
            metrics: address(&scrape)?,
            tasks: TaskTracker::new(),
            listeners: TaskTracker::new(),
            quic,
            certificates,
            tls: tls.is_some(),
            api,
            accepting,
            running,
        };
        node.listeners.spawn(http.run(node.accepting.clone()));
        if let Some(quic) = &node.quic {
            let run = quic.clone().run(node.api.clone(), node.accepting.clone());
            node.listeners.spawn(run);
            let refuse = quic
                .clone()
                .refuse(node.accepting.clone(), node.running.clone());
            node.tasks.spawn(refuse);
        }
        node.tasks.spawn(scrape.run(node.running.clone()));
        node.tasks
            .spawn(node.api.edge.hub.clone().run(node.running.clone()));
        node.tasks
            .spawn(sweep(node.api.clone(), node.running.clone()));
        for certificate in &node.certificates {
            node.tasks
                .spawn(certificate.clone().follow(node.running.clone()));
        }
        node.api.ready.store(true, Ordering::Release);
        Ok(node)
    }

    /// The port of QUIC, if there is one.
    pub fn quic_listener(&self) -> Option<&QuicListener> {
        self.quic.as_ref()
    }

    /// Where QUIC is spoken, if it is.
    pub fn quic(&self) -> Option<&QuicFacts> {
        self.api.quic.as_ref()
    }

    /// What the ready file says.
    pub fn ready(&self) -> Ready {
        let scheme = if self.tls { "https" } else { "http" };
        Ready {
            http: self.http,
            url: format!("{scheme}://{}", self.http),
            metrics: self.metrics,
            node: self.api.settings.node.name.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            quic: self.quic().map(|quic| quic.address),
            quic_certificate_sha256: self.quic().and_then(|q| q.certificate_sha256.clone()),
        }
    }

    /// Writes the ready file.
    pub fn write_ready(&self, path: &Path) -> Result<(), Failure> {
        self.ready()
            .write(path)
            .map_err(Failure::io(format!("--ready-file {}", path.display())))
    }

    /// Looks at the certificate files now (SIGHUP).
    pub fn reload(&self) {
        for certificate in &self.certificates {
            certificate.look_now();
        }
    }

    /// Resolves when the node cannot go on.
    pub async fn failed(&self) -> Failure {
        match self.api.edge.router.fatal().await {
            Fatal::Store(error) => Failure::Log(error.to_string()),
            fatal @ Fatal::Shard { .. } => Failure::Other(fatal.to_string()),
        }
    }

    /// Stops in order, within the deadline of the settings; `hurry` cuts every wait short.
    pub async fn shut_down(self, hurry: CancellationToken) {
        let deadline = Duration::from_millis(self.api.settings.shutdown.deadline_ms);
        let orderly = self.stop_in_order();
        tokio::select! {
            () = orderly => {}
            () = hurry.cancelled() => tracing::warn!("stopping in a hurry"),
            () = tokio::time::sleep(deadline) => tracing::warn!("stopping took too long; ending now"),
        }
        // Durable in any case: whatever was acknowledged is on disk already.
        self.api.edge.router.store().close().await;
        self.api.accounts.close().await;
        if let Some(quic) = &self.quic {
            quic.close().await;
        }
        self.running.cancel();
    }

    async fn stop_in_order(&self) {
        let edge = &self.api.edge;
        self.api.ready.store(false, Ordering::Release);
        self.accepting.cancel();
        let window_ms = self.api.settings.shutdown.reconnect_within_ms;
        edge.hub
            .for_each(|mailbox| mailbox.signal(|s| s.goaway = Some((0, window_ms))));
        // Requests under way still need the owners.
        self.listeners.close();
        self.listeners.wait().await;
        edge.router.shutdown().await;
        edge.hub
            .for_each(|mailbox| mailbox.signal(|s| s.close = Some(Code::GoingAway)));
        self.api.sessions.close();
        self.api.sessions.wait().await;
    }
}

/// The certificate of two files, if they are set.
fn certificate_of(
    cert: &Option<PathBuf>,
    key: &Option<PathBuf>,
) -> Result<Option<Arc<Certificate>>, TlsError> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(Arc::new(Certificate::load(cert, key)?))),
        _ => Ok(None),
    }
}

/// Binds QUIC under its own certificate, else that of HTTP, else one made for development: [`Settings::check`] has
/// refused the last where it is not development.
fn bind_quic(
    at: SocketAddr,
    settings: &Settings,
    parts: &Parts,
    keys: Keys,
    certificates: &mut Vec<Arc<Certificate>>,
    connections: &Connections,
) -> Result<(QuicListener, QuicFacts), Failure> {
    certificates.extend(certificate_of(
        &settings.quic.tls_cert,
        &settings.quic.tls_key,
    )?);
    let tickets = Arc::new(Tickets::for_quic(keys.clone(), parts.clock.clone()));
    let (tls, certificate_sha256) = match certificates.last() {
        Some(certificate) => (certificate.for_quic(tickets)?, None),
        None => {
            let (certificate, digest) = development::certificate()?;
            (certificate.for_quic(tickets)?, Some(digest))
        }
    };
    let identity = parts.store.identity();
    let node = format!(
        "{} {} {}",
        settings.node.name, identity.generation, identity.inbox_incarnation
    );
    let failed = || Failure::io(format!("quic.listen {at}"));
    let listener = QuicListener::bind(at, &settings.quic, tls, &keys, &node, connections.clone())
        .map_err(failed())?;
    let facts = QuicFacts {
        address: listener.address().map_err(failed())?,
        certificate_sha256,
    };
    Ok((listener, facts))
}

fn api_of(
    settings: &Settings,
    parts: Parts,
    tls: bool,
    connections: Connections,
    quic: Option<QuicFacts>,
) -> Api {
    let identity = parts.store.identity();
    let hub = Hub::new(parts.clock.clone());
    let router_config = RouterConfig {
        // An owner loop and the sessions that it serves then share their thread as often as can be.
        shards: settings.node.workers(),
        group_members_max: settings.channels.group_members_max,
        channel_idle_ms: settings.channels.idle_ms,
        ..RouterConfig::default()
    };
    let router = Router::start(router_config, parts.store, hub.clone());
    let tokens = Tokens::new(
        &parts.secret,
        &settings.auth.issuer,
        &settings.auth.audience,
    );
    let gate = Gate::new(tokens, parts.accounts.clone(), parts.clock.clone());
    let config = Arc::new(SessionConfig {
        node: settings.node.name.clone(),
        inbox: InboxIdentity {
            generation: identity.generation,
            incarnation: identity.inbox_incarnation,
        },
        group_members_max: settings.channels.group_members_max,
        sends: settings.limits.sends_per_user,
        frames: settings.limits.frames_per_connection,
    });
    let edge = Arc::new(Edge {
        hub,
        router,
        gate,
        clock: parts.clock,
        config,
    });
    Api {
        edge,
        accounts: parts.accounts,
        passwords: Passwords::new(std::thread::available_parallelism().map_or(1, usize::from)),
        limiter: Limiter::new(&settings.limits),
        connections,
        scheme: match (tls, settings.http.behind_proxy) {
            (true, _) => Scheme::Https,
            (false, true) => Scheme::Either,
            (false, false) => Scheme::Http,
        },
        quic,
        settings: settings.clone(),
        ready: AtomicBool::new(false),
        sessions: TaskTracker::new(),
    }
}

async fn sweep(api: Arc<Api>, stop: CancellationToken) {
    let mut turn = tokio::time::interval(SWEEP_EVERY);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => {}
        }
        api.limiter.sweep();
        // What histograms gathered since the last scrape is folded, so that it does not grow where nobody scrapes.
        crate::prometheus::installed().run_upkeep();
        if let Err(error) = api.accounts.purge(api.edge.clock.wall_ms()).await {
            tracing::error!(%error, "expired rows could not be dropped");
        }
        metrics::connections(api.edge.hub.len());
    }
}
