//! The node under load: one that is started for the run, or one that is there already.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use url::Url;

use super::wire::{DoorsPlan, TrustPlan};
use crate::http::Api;
use crate::node::{self, LIFTED_LIMITS, Node, NodePlan};
use crate::raw::Transport;
use crate::scenario::Scenario;

/// How long an answer of a node that is there may take. Password hashing queues up.
const HTTP_PATIENCE: Duration = Duration::from_secs(60);

/// How long a node may take to say what it is.
const FACTS_PATIENCE: Duration = Duration::from_secs(10);

/// Which node.
#[derive(Clone, Debug)]
pub enum Target {
    /// One of its own, with its data in `folder`.
    Spawn { folder: PathBuf },
    /// One that is there.
    Url {
        url: String,
        /// PEM file that vouches for it, where the system's roots do not.
        root_certificate: Option<PathBuf>,
        /// Its process on this machine, for CPU and memory.
        pid: Option<u32>,
    },
}

/// A node that answers.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) doors: DoorsPlan,
    pub(super) api: Api,
    /// What it says of its version.
    pub(super) version: String,
    /// The configuration that it was given; `None`: it was there already.
    pub(super) configuration: Option<String>,
    node: Option<Node>,
    pid: Option<u32>,
}

impl Server {
    pub(super) async fn reach(target: &Target, scenario: &Scenario) -> Result<Server> {
        match target {
            Target::Spawn { folder } => spawn(folder, scenario).await,
            Target::Url {
                url,
                root_certificate,
                pid,
            } => {
                let pem = match root_certificate {
                    Some(path) => Some(
                        std::fs::read_to_string(path)
                            .with_context(|| format!("--root-certificate {}", path.display()))?,
                    ),
                    None => None,
                };
                reach(url, pem, *pid, scenario).await
            }
        }
    }

    /// Why there is no use in going on, if so.
    pub(super) fn death(&mut self) -> Option<String> {
        if let Some(node) = &mut self.node {
            return node.try_ended().map(|status| {
                let output = node.output();
                let last = output.lines().last().unwrap_or_default().to_owned();
                format!("the node ended: {status}; its last line: {last}")
            });
        }
        let pid = self.pid?;
        (!node::is_there(pid)).then(|| format!("process {pid} ended"))
    }

    /// CPU time used so far and resident bytes, where the process is known.
    pub(super) fn sample(&self) -> Option<(Duration, u64)> {
        let pid = self.pid?;
        Some((node::cpu_of(pid).ok()?, node::rss_of(pid).ok()?))
    }
}

async fn spawn(folder: &std::path::Path, scenario: &Scenario) -> Result<Server> {
    let shares = &scenario.population.transport;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let configuration = format!("{LIFTED_LIMITS}[channels]\ngroup_members_max = 1_000\n");
    let mut plan = NodePlan::new(folder)?
        .config(&configuration)?
        .in_own_group();
    if shares.has(Transport::Tls) {
        plan = plan.with_tls()?;
    }
    if shares.has(Transport::Quic) {
        plan = plan.with_quic();
    }
    let node = plan.start().await.context("start the node")?;
    let pem = node
        .certificate()
        .map(|certificate| certificate.pem.clone());
    let api = match &pem {
        Some(pem) => Api::trusting(node.base_url(), pem)?,
        None => Api::patient(node.base_url(), HTTP_PATIENCE),
    };
    let doors = node.doors();
    let facts = facts(&api).await?;
    Ok(Server {
        doors: DoorsPlan {
            base_url: node.base_url(),
            http: doors.http.clone(),
            name: "localhost".to_owned(),
            tls: doors.http_certificate_sha256.map(TrustPlan::Certificate),
            quic: doors.quic.map(|quic| {
                let trust = TrustPlan::Certificate(quic.certificate_sha256);
                (quic.address.to_string(), trust)
            }),
            root_pem: pem,
        },
        api,
        version: facts.version,
        configuration: Some(configuration),
        pid: Some(node.pid()),
        node: Some(node),
    })
}

async fn reach(
    url: &str,
    pem: Option<String>,
    pid: Option<u32>,
    scenario: &Scenario,
) -> Result<Server> {
    let shares = &scenario.population.transport;
    let parsed = Url::parse(url).with_context(|| format!("--target {url}"))?;
    let is_tls = parsed.scheme() == "https";
    ensure!(
        is_tls || parsed.scheme() == "http",
        "--target {url}: allowed: http://HOST:PORT or https://HOST:PORT"
    );
    let host = parsed.host_str().context("--target without a host")?;
    let port = parsed
        .port_or_known_default()
        .context("--target without a port")?;
    if let Some(pid) = pid {
        ensure!(node::is_there(pid), "--pid {pid}: there is no such process");
    }
    ensure!(
        !is_tls || !shares.has(Transport::WebSocket),
        "the scenario's transport is ws and --target speaks TLS; use wss (--transport wss)"
    );
    ensure!(
        is_tls || !shares.has(Transport::Tls),
        "the scenario's transport is wss and --target is plain; use ws (--transport ws)"
    );
    let base_url = format!("{}://{host}:{port}", parsed.scheme());
    let api = match &pem {
        Some(pem) => Api::trusting(&base_url, pem).context("--root-certificate")?,
        None => Api::patient(&base_url, HTTP_PATIENCE),
    };
    let facts = facts(&api)
        .await
        .with_context(|| format!("--target {url}"))?;
    if facts.sign_up == "closed" {
        bail!(
            "--target {url}: nobody may sign up there (auth.sign_up = \"closed\"), and a run needs people of its own"
        );
    }
    let roots = || pem.clone().map_or(TrustPlan::System, TrustPlan::Roots);
    let quic = facts.quic_port.map(|port| {
        let trust = facts
            .quic_certificate
            .map_or_else(roots, TrustPlan::Certificate);
        (format!("{host}:{port}"), trust)
    });
    ensure!(
        quic.is_some() || !shares.has(Transport::Quic),
        "--target {url}: it does not speak QUIC, and the scenario does"
    );
    Ok(Server {
        doors: DoorsPlan {
            base_url,
            http: format!("{host}:{port}"),
            name: host.trim_matches(['[', ']']).to_owned(),
            tls: is_tls.then(roots),
            quic,
            root_pem: pem,
        },
        api,
        version: facts.version,
        configuration: None,
        node: None,
        pid,
    })
}

/// What a node says of itself.
struct Facts {
    version: String,
    sign_up: String,
    quic_port: Option<u64>,
    quic_certificate: Option<String>,
}

async fn facts(api: &Api) -> Result<Facts> {
    let asked = api.call(Method::GET, "/v1/node", None, None);
    let answer = tokio::time::timeout(FACTS_PATIENCE, asked)
        .await
        .context("ask it what it is (GET /v1/node): no answer")?
        .context("ask it what it is (GET /v1/node)")?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Ok(Facts {
        version: text(&answer["version"])
            .context("GET /v1/node tells no version: it is no Conch node")?,
        sign_up: text(&answer["sign_up"]).unwrap_or_default(),
        quic_port: answer["quic"]["port"].as_u64(),
        quic_certificate: text(&answer["quic"]["certificate_sha256"]),
    })
}
