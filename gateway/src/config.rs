//! The configuration of a node: a TOML file, then the environment, then flags; later ones win.
//!
//! An unknown key is an error that names it. Environment variables are `CONCH_` and the key with two underscores between
//! section and name, `CONCH_AUTH__SIGN_UP=open`; variables without the two underscores are not ours to read. Lists are
//! separated by commas there. `--dev` changes the defaults (loopback, plain HTTP, open sign-up, generous limits), never
//! what is set. [`Settings::check`] refuses what cannot be served safely and says what to set.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use conch_wire::limits::{GROUP_MEMBERS_DEFAULT, GROUP_MEMBERS_MAX};
use config::{Config, File, FileFormat};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::auth::tokens::SECRET_BYTES_MIN;
use crate::bucket::Rate;

/// Most threads that serve.
const WORKERS_MAX: usize = 256;

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct Settings {
    pub node: NodeSettings,
    pub data: DataSettings,
    pub http: HttpSettings,
    pub quic: QuicSettings,
    pub metrics: MetricsSettings,
    pub auth: AuthSettings,
    pub channels: ChannelSettings,
    pub limits: LimitSettings,
    pub log: LogSettings,
    pub shutdown: ShutdownSettings,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Name of this node, in WELCOME, logs and the ready file.
    pub name: String,
    /// Threads that serve connections and own channels, at most [`WORKERS_MAX`]; 0: one for every core but one, which is
    /// left to the log and the index.
    pub workers: usize,
}

impl NodeSettings {
    /// How many threads serve.
    pub fn workers(&self) -> usize {
        if self.workers > 0 {
            return self.workers;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores - 1).max(1)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// The data folder; one node at a time.
    pub dir: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address of HTTP and WebSocket.
    pub listen: SocketAddr,
    /// A proxy on this machine speaks TLS for the node: plain HTTP on loopback, the client's address from
    /// `X-Forwarded-For`.
    pub behind_proxy: bool,
    /// PEM file with the certificate chain.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key.
    pub tls_key: Option<PathBuf>,
    /// Origins of pages on other hosts that may open a WebSocket, exactly: `https://chat.example`.
    pub allowed_origins: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuicSettings {
    /// UDP address of QUIC; none: QUIC is off.
    pub listen: Option<SocketAddr>,
    /// PEM file with the certificate chain, where it is not that of HTTP (a proxy speaks TLS for HTTP only).
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key.
    pub tls_key: Option<PathBuf>,
    /// Handshakes under way at once; more are refused.
    pub handshakes_max: usize,
    /// With more handshakes than this under way, clients must show their address first (Retry).
    pub retry_above: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Address of `/metrics`.
    pub listen: SocketAddr,
}

/// Who may make an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignUp {
    Open,
    Closed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    pub sign_up: SignUp,
    /// Secret that signs access tokens, at least 32 bytes; the same on every node. Never printed.
    #[serde(skip_serializing)]
    pub token_secret: Option<SecretString>,
    /// File that holds the secret instead.
    pub token_secret_file: Option<PathBuf>,
    /// `iss` of access tokens.
    pub issuer: String,
    /// `aud` of access tokens.
    pub audience: String,
    /// Active devices of an account.
    pub devices_max: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelSettings {
    /// Members of a group, at most 1,000.
    pub group_members_max: usize,
    /// A channel without traffic for this long leaves memory, in milliseconds.
    pub idle_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Messages of a user.
    pub sends_per_user: Rate,
    /// Frames of a connection, by cost.
    pub frames_per_connection: Rate,
    /// Requests of an address before it is authenticated: sign-up, log-in, refresh, WebSocket. IPv6 counts by /64.
    pub early_per_address: Rate,
    /// HTTP requests of a user.
    pub http_per_user: Rate,
    /// Log-ins per minute for one account.
    pub log_ins_per_min_account: u32,
    /// Log-ins per minute from one address.
    pub log_ins_per_min_address: u32,
    /// Connections at once; more are closed on accept.
    pub connections_max: usize,
    /// Connections at once from one address (IPv6: one /64).
    pub connections_per_address_max: usize,
}

/// How logs look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    /// Levels by target: `info`, `conch_gateway=debug,info`.
    pub filter: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long a clean stop may take, in milliseconds.
    pub deadline_ms: u64,
    /// Clients are told to reconnect within this window, in milliseconds.
    pub reconnect_within_ms: u32,
}

impl Default for NodeSettings {
    fn default() -> Self {
        NodeSettings {
            name: "conch-1".to_owned(),
            workers: 0,
        }
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        DataSettings {
            dir: PathBuf::from("data"),
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            behind_proxy: false,
            tls_cert: None,
            tls_key: None,
            allowed_origins: Vec::new(),
        }
    }
}

impl Default for QuicSettings {
    fn default() -> Self {
        QuicSettings {
            listen: None,
            tls_cert: None,
            tls_key: None,
            handshakes_max: 1_000,
            retry_above: 100,
        }
    }
}

impl Default for MetricsSettings {
    fn default() -> Self {
        MetricsSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
        }
    }
}

impl Default for AuthSettings {
    fn default() -> Self {
        AuthSettings {
            sign_up: SignUp::Closed,
            token_secret: None,
            token_secret_file: None,
            issuer: "conch".to_owned(),
            audience: "conch".to_owned(),
            devices_max: 100,
        }
    }
}

impl Default for ChannelSettings {
    fn default() -> Self {
        ChannelSettings {
            group_members_max: GROUP_MEMBERS_DEFAULT,
            idle_ms: 300_000,
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        let rate = |per_s, burst| Rate { per_s, burst };
        LimitSettings {
            sends_per_user: rate(10, 30),
            frames_per_connection: rate(50, 300),
            early_per_address: rate(10, 50),
            http_per_user: rate(20, 100),
            log_ins_per_min_account: 5,
            log_ins_per_min_address: 5,
            connections_max: 100_000,
            connections_per_address_max: 2_000,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            format: LogFormat::Json,
            // The index's library tells its housekeeping at info.
            filter: "info,fjall=warn,lsm_tree=warn".to_owned(),
        }
    }
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        ShutdownSettings {
            deadline_ms: 20_000,
            reconnect_within_ms: 5_000,
        }
    }
}

impl Settings {
    /// The defaults under `--dev`: everything on this machine and nothing in the way of trying things out.
    pub fn dev() -> Settings {
        let rate = |per_s, burst| Rate { per_s, burst };
        let mut settings = Settings::default();
        settings.http.listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        settings.metrics.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.auth.sign_up = SignUp::Open;
        settings.log.format = LogFormat::Text;
        settings.limits = LimitSettings {
            sends_per_user: rate(1_000, 5_000),
            frames_per_connection: rate(5_000, 20_000),
            early_per_address: rate(1_000, 5_000),
            http_per_user: rate(1_000, 5_000),
            log_ins_per_min_account: 10_000,
            log_ins_per_min_address: 10_000,
            connections_per_address_max: settings.limits.connections_max,
            ..settings.limits
        };
        settings
    }
}

/// What the command line sets; `None`: not said.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub dev: bool,
    pub config: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub http: Option<SocketAddr>,
    pub quic: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub behind_proxy: bool,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
}

/// Why a configuration is refused. Says what to set.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("configuration: {0}")]
    Read(#[from] config::ConfigError),
    #[error("configuration: defaults cannot be written: {0}")]
    Defaults(#[from] toml::ser::Error),
    #[error("the environment sets {0}, which is no setting")]
    UnknownVariable(String),
    #[error(
        "no certificate: set http.tls_cert and http.tls_key (--tls-cert, --tls-key), or --behind-proxy when a proxy on \
         this machine speaks TLS, or --dev to try things out"
    )]
    NoCertificate,
    #[error("http.tls_cert and http.tls_key belong together: set both")]
    HalfCertificate,
    #[error("quic.tls_cert and quic.tls_key belong together: set both")]
    HalfQuicCertificate,
    #[error(
        "no certificate for QUIC: set http.tls_cert and http.tls_key (--tls-cert, --tls-key), or quic.tls_cert and \
         quic.tls_key when a proxy speaks TLS for HTTP, or --dev to try things out"
    )]
    NoQuicCertificate,
    #[error("--dev listens on loopback only, but quic.listen is {0}: set --quic 127.0.0.1:PORT")]
    QuicNotLoopback(SocketAddr),
    #[error(
        "{option} listens on loopback only, but http.listen is {listen}: set --http 127.0.0.1:PORT"
    )]
    NotLoopback {
        option: &'static str,
        listen: SocketAddr,
    },
    #[error("metrics.listen is {0}: metrics are for loopback addresses only")]
    PublicMetrics(SocketAddr),
    #[error(
        "no token secret: set auth.token_secret_file to a file with at least {SECRET_BYTES_MIN} random bytes \
         (openssl rand -hex 32 > FILE), or CONCH_AUTH__TOKEN_SECRET"
    )]
    NoSecret,
    #[error(
        "the token secret has {0} bytes: auth.token_secret needs at least {SECRET_BYTES_MIN} random ones"
    )]
    ShortSecret(usize),
    #[error("the token secret is an example, not a secret: make one with openssl rand -hex 32")]
    DefaultSecret,
    #[error("auth.token_secret_file {path}: {source}")]
    SecretFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("node.workers is {0}: at most {WORKERS_MAX}, or 0 for as many as suit the machine")]
    Workers(usize),
    #[error("channels.group_members_max is {0}: 2 to {GROUP_MEMBERS_MAX}")]
    GroupMembers(usize),
    #[error("http.allowed_origins: {0:?} is not an origin like https://chat.example")]
    BadOrigin(String),
    #[error("log.filter: {0}")]
    LogFilter(String),
}

/// Settings that are lists, for the environment.
const LISTS: &[&str] = &["http.allowed_origins"];

impl Settings {
    /// Reads file, environment and flags over the defaults.
    pub fn load(
        flags: &Flags,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Settings, ConfigError> {
        let defaults = if flags.dev {
            Settings::dev()
        } else {
            Settings::default()
        };
        let defaults = toml::to_string(&defaults)?;
        let mut builder = Config::builder().add_source(File::from_str(&defaults, FileFormat::Toml));
        if let Some(path) = &flags.config {
            builder = builder.add_source(File::from(path.as_path()).format(FileFormat::Toml));
        }
        for (name, value) in env {
            let Some(key) = name.strip_prefix("CONCH_").filter(|k| k.contains("__")) else {
                continue;
            };
            let key = key.to_ascii_lowercase().replace("__", ".");
            let plain = key.split('.').all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            });
            if !plain {
                return Err(ConfigError::UnknownVariable(name));
            }
            builder = if LISTS.contains(&key.as_str()) {
                let items: Vec<String> = value.split(',').map(|s| s.trim().to_owned()).collect();
                builder.set_override(&key, items)?
            } else {
                builder.set_override(&key, value)?
            };
        }
        let path = |p: &Path| p.display().to_string();
        builder = builder
            .set_override_option("data.dir", flags.data.as_deref().map(path))?
            .set_override_option("http.listen", flags.http.map(|a| a.to_string()))?
            .set_override_option("quic.listen", flags.quic.map(|a| a.to_string()))?
            .set_override_option("metrics.listen", flags.metrics.map(|a| a.to_string()))?
            .set_override_option("http.behind_proxy", flags.behind_proxy.then_some(true))?
            .set_override_option("http.tls_cert", flags.tls_cert.as_deref().map(path))?
            .set_override_option("http.tls_key", flags.tls_key.as_deref().map(path))?;
        Ok(builder.build()?.try_deserialize()?)
    }

    /// Refuses what cannot be served safely.
    pub fn check(&self, dev: bool) -> Result<(), ConfigError> {
        let http = &self.http;
        if http.tls_cert.is_some() != http.tls_key.is_some() {
            return Err(ConfigError::HalfCertificate);
        }
        let plain = http.tls_cert.is_none();
        if plain && !dev && !http.behind_proxy {
            return Err(ConfigError::NoCertificate);
        }
        if (plain || dev) && !http.listen.ip().is_loopback() {
            return Err(ConfigError::NotLoopback {
                option: if dev { "--dev" } else { "--behind-proxy" },
                listen: http.listen,
            });
        }
        self.check_quic(dev)?;
        if !self.metrics.listen.ip().is_loopback() {
            return Err(ConfigError::PublicMetrics(self.metrics.listen));
        }
        if self.node.workers > WORKERS_MAX {
            return Err(ConfigError::Workers(self.node.workers));
        }
        if !(2..=GROUP_MEMBERS_MAX).contains(&self.channels.group_members_max) {
            return Err(ConfigError::GroupMembers(self.channels.group_members_max));
        }
        for origin in &http.allowed_origins {
            if !crate::http::origin::is_origin(origin) {
                return Err(ConfigError::BadOrigin(origin.clone()));
            }
        }
        self.log
            .filter
            .parse::<tracing_subscriber::filter::Targets>()
            .map_err(|e| ConfigError::LogFilter(e.to_string()))?;
        if !dev || self.auth.token_secret.is_some() || self.auth.token_secret_file.is_some() {
            crate::secret::configured(&self.auth)?;
        }
        Ok(())
    }

    fn check_quic(&self, dev: bool) -> Result<(), ConfigError> {
        let quic = &self.quic;
        if quic.tls_cert.is_some() != quic.tls_key.is_some() {
            return Err(ConfigError::HalfQuicCertificate);
        }
        let Some(listen) = quic.listen else {
            return Ok(());
        };
        if dev && !listen.ip().is_loopback() {
            return Err(ConfigError::QuicNotLoopback(listen));
        }
        if !dev && quic.tls_cert.is_none() && self.http.tls_cert.is_none() {
            return Err(ConfigError::NoQuicCertificate);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;
    use std::io::Write;

    const SECRET: &str = "f2b7c1d09a8e4f6b8c3d5e7f9a1b2c3d";

    fn file(text: &str) -> (tempfile::NamedTempFile, Flags) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            ..Flags::default()
        };
        (file, flags)
    }

    fn env(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        pairs.into_iter()
    }

    #[test]
    fn workers_suit_the_machine_unless_they_are_set() {
        let workers = |workers| {
            NodeSettings {
                workers,
                ..NodeSettings::default()
            }
            .workers()
        };
        assert!(workers(0) >= 1);
        assert_eq!(workers(3), 3);
        let mut settings = Settings::dev();
        settings.node.workers = WORKERS_MAX + 1;
        let refused = settings.check(true).unwrap_err().to_string();
        assert!(refused.contains("node.workers is 257"), "{refused}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        for (text, key) in [
            ("speling_mistake = 1\n", "speling_mistake"),
            ("[auth]\nsing_up = \"open\"\n", "sing_up"),
            (
                "[limits.sends_per_user]\nper_s = 1\nburst = 1\nbrust = 2\n",
                "brust",
            ),
        ] {
            let (_file, flags) = file(text);
            let error = Settings::load(&flags, env(&[])).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let error = Settings::load(&Flags::default(), env(&[("CONCH_AUTH__SING_UP", "open")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("sing_up"), "{error}");
    }

    #[test]
    fn the_environment_wins_over_the_file_and_flags_over_both() {
        let (_file, mut flags) = file(
            "[http]\nlisten = \"127.0.0.1:1\"\n[auth]\nsign_up = \"closed\"\n[limits.sends_per_user]\nper_s = 7\nburst = 8\n",
        );
        let variables = [
            ("CONCH_HTTP__LISTEN", "127.0.0.1:2"),
            ("CONCH_AUTH__SIGN_UP", "open"),
            (
                "CONCH_HTTP__ALLOWED_ORIGINS",
                "https://a.example, https://b.example",
            ),
            ("CONCH_LIMITS__HTTP_PER_USER__PER_S", "3"),
            ("CONCH_BIN", "not a setting"),
        ];
        let settings = Settings::load(&flags, env(&variables)).unwrap();
        assert_eq!(settings.http.listen.port(), 2);
        assert_eq!(settings.auth.sign_up, SignUp::Open);
        assert_eq!(settings.http.allowed_origins.len(), 2);
        assert_eq!(settings.limits.sends_per_user, Rate { per_s: 7, burst: 8 });
        assert_eq!(settings.limits.http_per_user.per_s, 3);
        flags.http = Some(SocketAddr::from(([127, 0, 0, 1], 3)));
        assert_eq!(
            Settings::load(&flags, env(&variables))
                .unwrap()
                .http
                .listen
                .port(),
            3
        );
    }

    #[test]
    fn what_is_printed_is_a_configuration_and_has_no_secret() {
        let mut settings = Settings::dev();
        settings.auth.token_secret = Some(SECRET.into());
        let printed = toml::to_string_pretty(&settings).unwrap();
        assert!(!printed.contains(SECRET));
        assert!(!format!("{settings:?}").contains(SECRET));
        let (_file, flags) = file(&printed);
        Settings::load(&flags, env(&[]))
            .unwrap()
            .check(true)
            .unwrap();
    }

    #[test]
    fn without_dev_it_needs_a_certificate_or_a_proxy_on_this_machine() {
        let mut settings = Settings::default();
        settings.auth.token_secret = Some(SECRET.into());
        assert!(matches!(
            settings.check(false),
            Err(ConfigError::NoCertificate)
        ));
        settings.http.tls_cert = Some("cert.pem".into());
        assert!(matches!(
            settings.check(false),
            Err(ConfigError::HalfCertificate)
        ));
        settings.http.tls_key = Some("key.pem".into());
        settings.check(false).unwrap();
        settings.http.tls_cert = None;
        settings.http.tls_key = None;
        settings.http.behind_proxy = true;
        assert!(matches!(
            settings.check(false),
            Err(ConfigError::NotLoopback { .. })
        ));
        settings.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.check(false).unwrap();
        settings.metrics.listen = SocketAddr::from(([0, 0, 0, 0], 9464));
        assert!(matches!(
            settings.check(false),
            Err(ConfigError::PublicMetrics(_))
        ));
    }

    #[test]
    fn quic_needs_a_certificate_and_stays_on_loopback_under_dev() {
        let at = |text: &str| Some(text.parse().unwrap());
        let mut settings = Settings::dev();
        settings.quic.listen = at("127.0.0.1:0");
        settings.check(true).unwrap();
        settings.quic.listen = at("0.0.0.0:4433");
        assert!(matches!(
            settings.check(true),
            Err(ConfigError::QuicNotLoopback(_))
        ));
        let mut settings = Settings::default();
        settings.auth.token_secret = Some(SECRET.into());
        settings.http.behind_proxy = true;
        settings.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.quic.listen = at("0.0.0.0:4433");
        assert!(matches!(
            settings.check(false),
            Err(ConfigError::NoQuicCertificate)
        ));
        settings.quic.tls_cert = Some("cert.pem".into());
        assert!(matches!(
            settings.check(false),
            Err(ConfigError::HalfQuicCertificate)
        ));
        settings.quic.tls_key = Some("key.pem".into());
        settings.check(false).unwrap();
    }

    #[test]
    fn a_missing_short_or_example_secret_is_refused() {
        let mut settings = Settings::default();
        settings.http.behind_proxy = true;
        settings.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        assert!(matches!(settings.check(false), Err(ConfigError::NoSecret)));
        settings.auth.token_secret = Some("short".into());
        assert!(matches!(
            settings.check(false),
            Err(ConfigError::ShortSecret(5))
        ));
        for example in ["change-me-change-me-change-me-change-me", &"a".repeat(40)] {
            settings.auth.token_secret = Some(example.into());
            assert!(
                matches!(settings.check(false), Err(ConfigError::DefaultSecret)),
                "{example}"
            );
        }
        settings.auth.token_secret = Some(SECRET.into());
        settings.check(false).unwrap();
    }

    #[test]
    fn dev_never_listens_beyond_loopback() {
        let mut settings = Settings::dev();
        settings.check(true).unwrap();
        settings.http.listen = SocketAddr::from(([0, 0, 0, 0], 8080));
        assert!(matches!(
            settings.check(true),
            Err(ConfigError::NotLoopback { .. })
        ));
    }
}
