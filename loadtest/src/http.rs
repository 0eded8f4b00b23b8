//! The part of the HTTP API that tests and load need: accounts, devices, channels.
//!
//! One [`Api`] per node address. Nothing is retried: a test wants to see the answer. Ids are decimal strings in JSON.

use std::time::Duration;

use conch_wire::{ChannelId, DeviceId, UserId};
use reqwest::{Client, Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// Why a call gave nothing.
#[derive(Debug, Error)]
pub enum HttpError {
    #[error("the call failed: {0}")]
    Call(#[from] reqwest::Error),
    #[error("HTTP {status} {code}: {detail}")]
    Problem {
        status: u16,
        /// The stable `code` of problem+json.
        code: String,
        detail: String,
    },
    #[error("the answer is not what the API promises: {0}")]
    BadAnswer(String),
}

/// A logged-in device.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: UserId,
    pub device: DeviceId,
    pub access_token: String,
    pub refresh_token: String,
}

/// The HTTP API of one node.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    client: Client,
}

/// A call that may have to be repeated.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    body: Option<Value>,
    /// Makes repeats of it one.
    idempotency_key: Option<String>,
}

impl Call {
    pub fn post(path: impl Into<String>, body: Value) -> Call {
        Call {
            method: Method::POST,
            path: path.into(),
            body: Some(body),
            idempotency_key: None,
        }
    }

    pub fn delete(path: impl Into<String>) -> Call {
        Call {
            method: Method::DELETE,
            path: path.into(),
            body: None,
            idempotency_key: None,
        }
    }

    /// The same under an Idempotency-Key.
    pub fn under(mut self, key: String) -> Call {
        self.idempotency_key = Some(key);
        self
    }
}

#[derive(Deserialize)]
struct LoginAnswer {
    user_id: String,
    device_id: String,
    access_token: String,
    refresh_token: String,
}

impl Api {
    /// `base`: `http://ip:port`.
    pub fn new(base: impl Into<String>) -> Api {
        Api {
            base: base.into(),
            client: Client::new(),
        }
    }

    /// The same, but an answer is waited for no longer than `patience`: for a node or a network that may be gone.
    pub fn patient(base: impl Into<String>, patience: Duration) -> Api {
        let client = Client::builder().timeout(patience).build();
        Api {
            base: base.into(),
            client: client.expect("a timeout is a valid option"),
        }
    }

    /// The same for a node that shows this certificate (PEM).
    pub fn trusting(base: impl Into<String>, pem: &str) -> Result<Api, HttpError> {
        let certificate = reqwest::Certificate::from_pem(pem.as_bytes())?;
        let client = Client::builder().tls_certs_only([certificate]).build()?;
        Ok(Api {
            base: base.into(),
            client,
        })
    }

    /// Makes an account and logs its first device in.
    pub async fn sign_up(&self, handle: &str, password: &str) -> Result<Login, HttpError> {
        self.credentials("/v1/accounts", handle, password, "first")
            .await
    }

    /// Logs another device in.
    pub async fn log_in(
        &self,
        handle: &str,
        password: &str,
        device_name: &str,
    ) -> Result<Login, HttpError> {
        self.credentials("/v1/sessions", handle, password, device_name)
            .await
    }

    /// The direct channel with another person.
    pub async fn direct(&self, token: &str, other: UserId) -> Result<ChannelId, HttpError> {
        let body = json!({ "user_id": other.to_string() });
        let answer = self
            .call(Method::POST, "/v1/channels/direct", Some(token), Some(body))
            .await?;
        channel_of(&answer)
    }

    /// A new group of the caller and `members`.
    pub async fn group(
        &self,
        token: &str,
        title: &str,
        members: &[UserId],
    ) -> Result<ChannelId, HttpError> {
        let members: Vec<_> = members.iter().map(UserId::to_string).collect();
        let body = json!({ "title": title, "members": members });
        let answer = self
            .call(Method::POST, "/v1/channels", Some(token), Some(body))
            .await?;
        channel_of(&answer)
    }

    /// Adds people to a group.
    pub async fn add_members(
        &self,
        token: &str,
        channel: ChannelId,
        users: &[UserId],
    ) -> Result<(), HttpError> {
        let users: Vec<_> = users.iter().map(UserId::to_string).collect();
        let path = format!("/v1/channels/{channel}/members");
        self.call(
            Method::POST,
            &path,
            Some(token),
            Some(json!({ "members": users })),
        )
        .await?;
        Ok(())
    }

    /// Removes someone from a group.
    pub async fn remove_member(
        &self,
        token: &str,
        channel: ChannelId,
        user: UserId,
    ) -> Result<(), HttpError> {
        let path = format!("/v1/channels/{channel}/members/{user}");
        self.call(Method::DELETE, &path, Some(token), None).await?;
        Ok(())
    }

    /// Any call; gives the JSON of a success (`null` for an empty body).
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Value, HttpError> {
        read(self.send(method, path, token, body).await?).await
    }

    /// Makes a call that may be a repeat.
    pub async fn make(&self, call: &Call, token: &str) -> Result<Value, HttpError> {
        let url = format!("{}{}", self.base, call.path);
        let mut request = self.client.request(call.method.clone(), url);
        request = request.bearer_auth(token);
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        read(request.send().await?).await
    }

    /// Any call, with the answer as it came.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Response, HttpError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Ok(request.send().await?)
    }

    /// Fresh tokens for the device of `login`; the old refresh token is used up.
    pub async fn refresh(&self, login: &Login) -> Result<Login, HttpError> {
        let body = json!({ "refresh_token": login.refresh_token });
        let path = "/v1/tokens/refresh";
        login_of(self.call(Method::POST, path, None, Some(body)).await?)
    }

    async fn credentials(
        &self,
        path: &str,
        handle: &str,
        password: &str,
        device_name: &str,
    ) -> Result<Login, HttpError> {
        let body = json!({ "handle": handle, "password": password, "device_name": device_name });
        login_of(self.call(Method::POST, path, None, Some(body)).await?)
    }
}

/// The JSON of a success (`null` for an empty body).
async fn read(answer: Response) -> Result<Value, HttpError> {
    let status = answer.status();
    let text = answer.text().await?;
    if status.is_success() {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_str(&text).map_err(|_| HttpError::BadAnswer(text));
    }
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let field = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    Err(HttpError::Problem {
        status: status.as_u16(),
        code: field("code"),
        detail: field("detail"),
    })
}

fn login_of(answer: Value) -> Result<Login, HttpError> {
    let bad = || HttpError::BadAnswer("no tokens in the answer".to_owned());
    let login: LoginAnswer = serde_json::from_value(answer).map_err(|_| bad())?;
    Ok(Login {
        user: login.user_id.parse().map_err(|_| bad())?,
        device: login.device_id.parse().map_err(|_| bad())?,
        access_token: login.access_token,
        refresh_token: login.refresh_token,
    })
}

pub(crate) fn channel_of(answer: &Value) -> Result<ChannelId, HttpError> {
    answer["channel_id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| HttpError::BadAnswer(answer.to_string()))
}
