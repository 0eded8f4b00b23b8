//! How a [`Client`] is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use conch_wire::frame::PushMode;
use tokio::sync::{broadcast, mpsc, watch};

use super::client::{Client, Shared};
use super::driver::Driver;
use super::error::ClientError;
use super::http::Api;
use super::login::{OwnTokens, TokenProvider, Tokens};
use super::store::{Opened, Store};
use super::tls;
use super::transport::{
    Attempts, Dialer, Endpoints, Memory, QuicDialer, Transports, parse_endpoint,
};
use crate::core::{Config, ConnectionState, Core, StopReason};

/// Calls that wait for the driver; more wait in their callers.
const REQUESTS_MAX: usize = 256;
/// Changes that whoever looks at a channel may be behind; then it looks again.
const TOUCHED_MAX: usize = 256;

/// Settings of a client. Endpoint and data folder are needed; the rest has defaults.
#[derive(Clone)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    transports: Transports,
    data_folder: PathBuf,
    roots_pem: Vec<Vec<u8>>,
    tokens: Option<Arc<dyn TokenProvider>>,
    config: Config,
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoints", &self.endpoints)
            .field("transports", &self.transports)
            .field("data_folder", &self.data_folder)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// `endpoint`: `http://…` or `https://…`, as the node prints it. `data_folder`: made if it is not there; one process
    /// at a time.
    pub fn new(endpoint: &str, data_folder: &Path) -> ClientBuilder {
        ClientBuilder {
            endpoints: vec![endpoint.to_owned()],
            transports: Transports::Auto,
            data_folder: data_folder.to_owned(),
            roots_pem: Vec::new(),
            tokens: None,
            config: Config::default(),
        }
    }

    /// Several nodes of one deployment, in place of the one endpoint: the first is used until it cannot be connected to or
    /// says that it goes away, then the next in turn. All `http` or all `https`.
    pub fn endpoints(mut self, endpoints: Vec<String>) -> ClientBuilder {
        self.endpoints = endpoints;
        self
    }

    /// What may carry connections; [`Transports::Auto`] unless told otherwise.
    pub fn transports(mut self, transports: Transports) -> ClientBuilder {
        self.transports = transports;
        self
    }

    /// Trusts these certificates too (PEM), besides the system's.
    pub fn root_certificates(mut self, pem: Vec<u8>) -> ClientBuilder {
        self.roots_pem.push(pem);
        self
    }

    /// Tokens from an identity provider of the application's own, in place of the node's accounts.
    pub fn token_provider(mut self, tokens: Arc<dyn TokenProvider>) -> ClientBuilder {
        self.tokens = Some(tokens);
        self
    }

    /// Events of all channels (default), or only of opened ones.
    pub fn push(mut self, push: PushMode) -> ClientBuilder {
        self.config.push = push;
        self
    }

    /// Program and version, for the server's logs; ≤ 64 bytes.
    pub fn program(mut self, program: &str) -> ClientBuilder {
        self.config.client = program.to_owned();
        self
    }

    /// How much of a channel that is new to this device is loaded at once: its newest events, so many. `u32::MAX`: all.
    pub fn first_sight_events(mut self, events: u32) -> ClientBuilder {
        self.config.first_sight_events = events;
        self
    }

    /// How many of a channel's newest events stay on this device when nobody looks at it: 200 unless said.
    pub fn held_events(mut self, events: u32) -> ClientBuilder {
        self.config.held_events_max = events;
        self
    }

    /// Everything else; see [`Config`]. The seed is drawn from the system whatever it says.
    pub fn config(mut self, config: Config) -> ClientBuilder {
        self.config = config;
        self
    }

    /// Opens the data folder. Nothing is connected yet: subscribe to events, then [`Client::connect`].
    pub async fn open(self) -> Result<Client, ClientError> {
        let endpoints = self
            .endpoints
            .into_iter()
            .map(|text| parse_endpoint(&text).ok_or(ClientError::Endpoint(text)))
            .collect::<Result<Vec<_>, _>>()?;
        let endpoints = Endpoints::new(endpoints).ok_or(ClientError::Endpoint(String::new()))?;
        let endpoints = Arc::new(endpoints);
        let tls_failed = |error: tls::TlsError| ClientError::Tls(error.to_string());
        let added = self
            .roots_pem
            .iter()
            .map(|pem| tls::read_pem(pem))
            .collect::<Result<Vec<_>, _>>()
            .map_err(tls_failed)?
            .concat();
        let roots = tls::roots(&added).map_err(tls_failed)?;
        let tls = tls::http_config(Arc::clone(&roots)).map_err(tls_failed)?;
        let api = Api::new(
            Arc::clone(&endpoints),
            Arc::clone(&tls),
            &self.config.client,
        )?;
        let Opened {
            store,
            loaded,
            people,
            login,
            rebuilt,
        } = Store::open(&self.data_folder).await?;
        let owner = loaded.meta.user;
        let own_tokens = Tokens::new(api.clone(), store.clone(), login);

        let tokens = self
            .tokens
            .unwrap_or_else(|| Arc::new(OwnTokens(Arc::clone(&own_tokens))));
        let attempts = Attempts {
            transports: self.transports,
            api: api.clone(),
            tls,
            quic: QuicDialer::new(roots),
            memory: Memory::load(store.clone()).await,
            late: Default::default(),
        };
        let dialer = Dialer::new(Arc::clone(&tokens), endpoints, attempts);
        let transport = dialer.in_use();
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|_| ClientError::Randomness)?;
        let config = Config {
            seed: u64::from_le_bytes(seed),
            ..self.config
        };
        let (requests, requests_receiver) = mpsc::channel(REQUESTS_MAX);
        let (state, state_receiver) = watch::channel(ConnectionState::Stopped(StopReason::Closed));
        let core = Core::new(config, loaded);
        let (touched, _) = broadcast::channel(TOUCHED_MAX);
        let driver = Driver::new(
            core,
            store.clone(),
            dialer,
            requests_receiver,
            touched.clone(),
            state,
        );
        tokio::spawn(driver.run());
        Ok(Client::new(Shared {
            api,
            store,
            tokens,
            own_tokens,
            requests,
            touched,
            state: state_receiver,
            transport,
            owner,
            rebuilt,
            people: people
                .into_iter()
                .map(|person| (person.user, person))
                .collect::<std::collections::BTreeMap<_, _>>()
                .into(),
        }))
    }
}
