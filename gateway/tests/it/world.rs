//! A node for one test, and people in it.

use std::sync::Arc;
use std::time::Duration;

use conch_gateway::clock::Clock;
use conch_gateway::config::Settings;
use conch_gateway::exit::Failure;
use conch_gateway::node::{Node, Parts};
use conch_router::ChannelFold;
use conch_store::MemoryStore;
use conch_store::accounts::Accounts;
use conch_wire::{ChannelId, DeviceId, UserId};
use secrecy::SecretSlice;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;

/// What a test waits for at most, on a machine that has other things to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Waits until it holds, which may take a handshake's time and that of saying so.
pub(crate) async fn eventually(mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(3 * SOON, held).await.expect("in time");
}

/// A running node.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) store: MemoryStore,
    pub(crate) accounts: Accounts,
    pub(crate) clock: Clock,
    pub(crate) http: reqwest::Client,
    _folder: TempDir,
}

/// A logged-in device.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) token: String,
    pub(crate) refresh_token: String,
}

/// The status and JSON of an answer.
pub(crate) type Answer = (u16, Value);

pub(crate) async fn world() -> World {
    with(|_| {}, Clock::system()).await
}

/// A node whose development settings were changed.
pub(crate) async fn with(change: impl FnOnce(&mut Settings), clock: Clock) -> World {
    try_with(change, clock).await.unwrap()
}

/// The same, where it may fail to start.
pub(crate) async fn try_with(
    change: impl FnOnce(&mut Settings),
    clock: Clock,
) -> Result<World, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::new(Arc::new(ChannelFold));
    let accounts = Accounts::open(folder.path().join("accounts.sqlite"))
        .await
        .unwrap();
    let mut settings = Settings::dev();
    settings.http.listen.set_port(0);
    change(&mut settings);
    let parts = Parts {
        store: Arc::new(store.clone()),
        accounts: accounts.clone(),
        secret: SecretSlice::from(vec![7; 32]),
        clock: clock.clone(),
    };
    Ok(World {
        node: Node::start(settings, parts).await?,
        store,
        accounts,
        clock,
        http: reqwest::Client::new(),
        _folder: folder,
    })
}

impl World {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.node.http)
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.http.request(method.parse().unwrap(), self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn sign_up(&self, handle: &str) -> Person {
        let body = json!({"handle": handle, "password": PASSWORD, "device_name": "first"});
        let (status, answer) = self.call("POST", "/v1/accounts", None, Some(body)).await;
        assert_eq!(status, 201, "{answer}");
        person(&answer)
    }

    pub(crate) async fn log_in(&self, handle: &str) -> Person {
        let body = json!({"handle": handle, "password": PASSWORD, "device_name": "again"});
        let (status, answer) = self.call("POST", "/v1/sessions", None, Some(body)).await;
        assert_eq!(status, 201, "{answer}");
        person(&answer)
    }

    pub(crate) async fn direct(&self, one: &Person, other: &Person) -> ChannelId {
        let body = json!({"user_id": other.user.to_string()});
        let (status, answer) = self
            .call("POST", "/v1/channels/direct", Some(&one.token), Some(body))
            .await;
        assert_eq!(status, 200, "{answer}");
        channel(&answer)
    }

    pub(crate) async fn group(&self, by: &Person, members: &[&Person]) -> ChannelId {
        let members: Vec<_> = members.iter().map(|m| m.user.to_string()).collect();
        let body = json!({"title": "house", "members": members});
        let (status, answer) = self
            .call("POST", "/v1/channels", Some(&by.token), Some(body))
            .await;
        assert_eq!(status, 201, "{answer}");
        channel(&answer)
    }

    /// A connection that has said nothing.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.node.http).await
    }

    /// A session with nothing open.
    pub(crate) async fn enter(&self, person: &Person) -> Client {
        let mut client = self.connect().await;
        client.hello(&person.token).await;
        client
    }
}

pub(crate) fn person(answer: &Value) -> Person {
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    Person {
        user: text("user_id").parse().unwrap(),
        device: text("device_id").parse().unwrap(),
        token: text("access_token"),
        refresh_token: text("refresh_token"),
    }
}

pub(crate) fn channel(answer: &Value) -> ChannelId {
    answer["channel_id"].as_str().unwrap().parse().unwrap()
}
