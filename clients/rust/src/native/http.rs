//! The HTTP API of a node: accounts, people, channels and their members. See `docs/http.md`.
//!
//! One method per route, owned types in and out. Refusals carry the problem's stable `code`; a request that could not be
//! made at all is [`ApiError::Network`], and whether it was carried out is then not known.

use std::sync::Arc;
use std::time::Duration;

use conch_wire::event::ChannelKind;
use conch_wire::{ChannelId, DeviceId, MemberRole, MessageKey, Seq, UserId};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use super::transport::{Endpoints, QuicRoute};

/// A node answers within 10 s or not at all.
const ANSWER_MAX: Duration = Duration::from_secs(15);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The node refuses.
    #[error("{detail} ({code})")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// Stable; see `docs/http.md`.
        code: String,
        /// For people.
        detail: String,
        /// Not sooner again than that; 0: no advice.
        retry_after_ms: u32,
    },
    /// The node cannot be reached, or its answer was lost.
    #[error("the server cannot be reached: {0}")]
    Network(String),
    /// The answer is not one of this API.
    #[error("the server's answer makes no sense: {0}")]
    Answer(String),
    /// Nobody is logged in.
    #[error("not logged in")]
    LoggedOut,
}

impl ApiError {
    /// A stable name: the node's code, or one of the SDK's.
    pub fn code(&self) -> &str {
        match self {
            ApiError::Refused { code, .. } => code,
            ApiError::Network(_) => "unreachable",
            ApiError::Answer(_) => "bad_answer",
            ApiError::LoggedOut => "logged_out",
        }
    }

    /// Whether it is this refusal.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, ApiError::Refused { code, .. } if code == wanted)
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        match self {
            ApiError::Network(_) | ApiError::Answer(_) => true,
            ApiError::Refused { status, .. } => *status >= 500 || *status == 429,
            ApiError::LoggedOut => false,
        }
    }
}

/// A person, as everybody may see them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// Their id, for ever.
    pub user: UserId,
    /// The name that they are found by.
    pub handle: String,
    /// The name that is shown.
    pub display_name: String,
}

/// What sign-up, log-in and refresh answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub person: Person,
    /// On which device.
    pub device: DeviceId,
    /// For requests and connections.
    pub access_token: String,
    /// How long the access token is good.
    pub expires_in_ms: u64,
    /// For the next pair of tokens, once.
    pub refresh_token: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Tokens do not go into logs.
        f.debug_struct("Login")
            .field("person", &self.person)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// A channel as the caller sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelDetails {
    /// Which one.
    pub channel: ChannelId,
    /// Direct, group or one's own.
    pub kind: ChannelKind,
    /// Of a group; empty for a direct channel.
    pub title: String,
    /// Direct channel: the other person.
    pub peer: Option<UserId>,
    /// What the caller may do in it.
    pub role: MemberRole,
    /// How many there are.
    pub members: u32,
    /// First seq that there is for the caller.
    pub first_seq: Seq,
    /// Where the caller left; nothing behind it is theirs.
    pub left_seq: Option<Seq>,
    /// Its newest seq.
    pub head_seq: Seq,
    /// People's messages behind the caller's read mark.
    pub unread: u32,
}

/// A member of a channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who.
    pub person: Person,
    /// What they may do in it.
    pub role: MemberRole,
    /// The event by which they joined.
    pub joined_seq: Seq,
}

/// A device of one's own that is logged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its id.
    pub device: DeviceId,
    /// What it was called when it logged in.
    pub name: String,
    /// Its operating system.
    pub platform: String,
    /// ms since 1970 by the server's clock.
    pub created_ms: u64,
    /// Last use, to the hour; ms since 1970 by the server's clock.
    pub seen_ms: u64,
    /// It is this one.
    pub current: bool,
}

/// The HTTP API of a node, without a memory: tokens are passed in. With several endpoints it goes to the one in use.
#[derive(Clone, Debug)]
pub struct Api {
    endpoints: Arc<Endpoints>,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct ProblemJson {
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    retry_after_ms: u32,
}

#[derive(Deserialize)]
struct LoginJson {
    #[serde(flatten)]
    person: PersonJson,
    device_id: String,
    access_token: String,
    expires_in_ms: u64,
    refresh_token: String,
}

#[derive(Deserialize)]
struct PersonJson {
    user_id: String,
    handle: String,
    display_name: String,
}

#[derive(Deserialize)]
struct PeopleJson {
    users: Vec<PersonJson>,
}

#[derive(Deserialize)]
struct ChannelJson {
    channel_id: String,
    kind: String,
    #[serde(default)]
    title: String,
    peer_id: Option<String>,
    role: String,
    members: u32,
    first_seq: Seq,
    left_seq: Option<Seq>,
    head_seq: Seq,
    unread: u32,
}

#[derive(Deserialize)]
struct MemberJson {
    #[serde(flatten)]
    person: PersonJson,
    role: String,
    joined_seq: Seq,
}

#[derive(Deserialize)]
struct MembersJson {
    members: Vec<MemberJson>,
}

#[derive(Deserialize)]
struct DeviceJson {
    device_id: String,
    name: String,
    platform: String,
    created_ms: u64,
    seen_ms: u64,
    current: bool,
}

#[derive(Deserialize)]
struct DevicesJson {
    devices: Vec<DeviceJson>,
}

#[derive(Deserialize)]
struct NodeJson {
    quic: Option<QuicJson>,
}

#[derive(Deserialize)]
struct QuicJson {
    port: u16,
    #[serde(default)]
    certificate_sha256: Option<String>,
}

impl QuicJson {
    /// Over `https` the name is verified. Plain `http` is development: only the one certificate that the node names.
    fn route(&self, endpoint: &Url) -> Option<QuicRoute> {
        let certificate = match endpoint.scheme() {
            "https" => None,
            _ => Some(unhex(self.certificate_sha256.as_deref()?)?),
        };
        (self.port != 0).then_some(QuicRoute {
            port: self.port,
            certificate,
        })
    }
}

#[derive(Serialize)]
struct Credentials<'a> {
    handle: &'a str,
    password: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    device_name: &'a str,
    platform: &'a str,
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|_| ApiError::Answer("an id is not a number".to_owned()))
}

fn role(text: &str) -> MemberRole {
    match text {
        "owner" => MemberRole::Owner,
        "admin" => MemberRole::Admin,
        _ => MemberRole::Member,
    }
}

impl TryFrom<PersonJson> for Person {
    type Error = ApiError;

    fn try_from(json: PersonJson) -> Result<Person, ApiError> {
        Ok(Person {
            user: number(&json.user_id)?,
            handle: json.handle,
            display_name: json.display_name,
        })
    }
}

impl TryFrom<LoginJson> for Login {
    type Error = ApiError;

    fn try_from(json: LoginJson) -> Result<Login, ApiError> {
        Ok(Login {
            person: json.person.try_into()?,
            device: number(&json.device_id)?,
            access_token: json.access_token,
            expires_in_ms: json.expires_in_ms,
            refresh_token: json.refresh_token,
        })
    }
}

impl TryFrom<ChannelJson> for ChannelDetails {
    type Error = ApiError;

    fn try_from(json: ChannelJson) -> Result<ChannelDetails, ApiError> {
        Ok(ChannelDetails {
            channel: number(&json.channel_id)?,
            kind: match json.kind.as_str() {
                "direct" => ChannelKind::Direct,
                "self" => ChannelKind::SelfLog,
                _ => ChannelKind::Group,
            },
            title: json.title,
            peer: json.peer_id.as_deref().map(number).transpose()?,
            role: role(&json.role),
            members: json.members,
            first_seq: json.first_seq,
            left_seq: json.left_seq,
            head_seq: json.head_seq,
            unread: json.unread,
        })
    }
}

impl TryFrom<MemberJson> for Member {
    type Error = ApiError;

    fn try_from(json: MemberJson) -> Result<Member, ApiError> {
        Ok(Member {
            person: json.person.try_into()?,
            role: role(&json.role),
            joined_seq: json.joined_seq,
        })
    }
}

impl TryFrom<DeviceJson> for Device {
    type Error = ApiError;

    fn try_from(json: DeviceJson) -> Result<Device, ApiError> {
        Ok(Device {
            device: number(&json.device_id)?,
            name: json.name,
            platform: json.platform,
            created_ms: json.created_ms,
            seen_ms: json.seen_ms,
            current: json.current,
        })
    }
}

impl Api {
    pub(super) fn new(
        endpoints: Arc<Endpoints>,
        tls: Arc<rustls::ClientConfig>,
        client: &str,
    ) -> Result<Api, ApiError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .user_agent(client)
            .timeout(ANSWER_MAX)
            .connect_timeout(CONNECT_MAX)
            .build()
            .map_err(|error| ApiError::Network(error.to_string()))?;
        Ok(Api { endpoints, http })
    }

    fn request(&self, method: Method, path: &[&str], token: Option<&str>) -> RequestBuilder {
        let url = route(self.endpoints.current(), path);
        let request = self.http.request(method, url);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Vec<u8>, ApiError> {
        let answer = self.send(request).await.map_err(network)?;
        read(answer).await
    }

    /// An endpoint that cannot be connected to has carried nothing out: the next one is asked the same.
    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, reqwest::Error> {
        let mut request = request.build()?;
        let mut others = self.endpoints.count() - 1;
        loop {
            let base = self.endpoints.base_of(request.url());
            let again = request.try_clone();
            let ended = self.http.execute(request).await;
            match (&ended, base, again) {
                (Err(error), Some(base), Some(mut again)) if error.is_connect() && others > 0 => {
                    others -= 1;
                    let next = self.endpoints.failed(&base);
                    let path = &again.url().as_str()[base.as_str().len()..];
                    let Ok(url) = next.join(path) else {
                        return ended;
                    };
                    *again.url_mut() = url;
                    request = again;
                }
                _ => return ended,
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ApiError> {
        let body = self.answer(request).await?;
        serde_json::from_slice(&body).map_err(|error| ApiError::Answer(error.to_string()))
    }

    /// Where the QUIC of this endpoint is; `None`: it has none that can be trusted.
    pub(super) async fn quic_route(&self, endpoint: &Url) -> Result<Option<QuicRoute>, ApiError> {
        let request = self.http.get(route(endpoint.clone(), &["node"]));
        let body = read(request.send().await.map_err(network)?).await?;
        let node: NodeJson =
            serde_json::from_slice(&body).map_err(|error| ApiError::Answer(error.to_string()))?;
        Ok(node.quic.and_then(|quic| quic.route(endpoint)))
    }

    /// Makes an account, with this device as its first.
    pub async fn sign_up(
        &self,
        handle: &str,
        password: &str,
        display_name: Option<&str>,
        device_name: &str,
    ) -> Result<Login, ApiError> {
        let credentials = Credentials {
            handle,
            password,
            display_name,
            device_name,
            platform: std::env::consts::OS,
        };
        let request = self.request(Method::POST, &["accounts"], None);
        let login: LoginJson = self.json(request.json(&credentials)).await?;
        login.try_into()
    }

    /// A new device of an account.
    pub async fn log_in(
        &self,
        handle: &str,
        password: &str,
        device_name: &str,
    ) -> Result<Login, ApiError> {
        let credentials = Credentials {
            handle,
            password,
            display_name: None,
            device_name,
            platform: std::env::consts::OS,
        };
        let request = self.request(Method::POST, &["sessions"], None);
        let login: LoginJson = self.json(request.json(&credentials)).await?;
        login.try_into()
    }

    /// The next pair of tokens. The old refresh token is used up; one request at a time.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Login, ApiError> {
        let body = serde_json::json!({ "refresh_token": refresh_token });
        let request = self.request(Method::POST, &["tokens", "refresh"], None);
        let login: LoginJson = self.json(request.json(&body)).await?;
        login.try_into()
    }

    /// Logs the token's device out, for good.
    pub async fn log_out(&self, token: &str) -> Result<(), ApiError> {
        let request = self.request(Method::POST, &["sessions", "logout"], Some(token));
        self.answer(request).await.map(drop)
    }

    /// The caller.
    pub async fn me(&self, token: &str) -> Result<Person, ApiError> {
        let request = self.request(Method::GET, &["me"], Some(token));
        self.json::<PersonJson>(request).await?.try_into()
    }

    /// The caller's devices that are logged in.
    pub async fn devices(&self, token: &str) -> Result<Vec<Device>, ApiError> {
        let request = self.request(Method::GET, &["devices"], Some(token));
        let devices: DevicesJson = self.json(request).await?;
        devices.devices.into_iter().map(Device::try_from).collect()
    }

    /// Logs a device of the caller's out.
    pub async fn remove_device(&self, token: &str, device: DeviceId) -> Result<(), ApiError> {
        let path = ["devices", &device.to_string()];
        let request = self.request(Method::DELETE, &path, Some(token));
        self.answer(request).await.map(drop)
    }

    /// The person of this handle.
    pub async fn user_by_handle(&self, token: &str, handle: &str) -> Result<Person, ApiError> {
        let request = self.request(Method::GET, &["users", "by-handle", handle], Some(token));
        self.json::<PersonJson>(request).await?.try_into()
    }

    /// Up to 100; ids that nobody has are left out.
    pub async fn users(&self, token: &str, ids: &[UserId]) -> Result<Vec<Person>, ApiError> {
        let ids: Vec<_> = ids.iter().map(UserId::to_string).collect();
        let mut url = route(self.endpoints.current(), &["users"]);
        url.set_query(Some(&format!("ids={}", ids.join(","))));
        let request = self.http.get(url).bearer_auth(token);
        let people: PeopleJson = self.json(request).await?;
        people.users.into_iter().map(Person::try_from).collect()
    }

    /// The one channel with this person, made if there is none; with oneself, one's own log.
    pub async fn direct(&self, token: &str, user: UserId) -> Result<ChannelDetails, ApiError> {
        let body = serde_json::json!({ "user_id": user.to_string() });
        let request = self.request(Method::POST, &["channels", "direct"], Some(token));
        self.json::<ChannelJson>(request.json(&body))
            .await?
            .try_into()
    }

    /// Makes a group; the same `key` makes one group however often it is asked for.
    pub async fn create_group(
        &self,
        token: &str,
        key: MessageKey,
        title: &str,
        members: &[UserId],
    ) -> Result<ChannelDetails, ApiError> {
        let request = self
            .request(Method::POST, &["channels"], Some(token))
            .header("idempotency-key", hex(&key.0))
            .json(&serde_json::json!({ "title": title, "members": texts(members) }));
        self.json::<ChannelJson>(request).await?.try_into()
    }

    /// One channel of the caller's.
    pub async fn channel(
        &self,
        token: &str,
        channel: ChannelId,
    ) -> Result<ChannelDetails, ApiError> {
        let request = self.request(
            Method::GET,
            &["channels", &channel.to_string()],
            Some(token),
        );
        self.json::<ChannelJson>(request).await?.try_into()
    }

    /// Gives a group another title.
    pub async fn rename(
        &self,
        token: &str,
        channel: ChannelId,
        title: &str,
    ) -> Result<ChannelDetails, ApiError> {
        let request = self
            .request(
                Method::PATCH,
                &["channels", &channel.to_string()],
                Some(token),
            )
            .json(&serde_json::json!({ "title": title }));
        self.json::<ChannelJson>(request).await?.try_into()
    }

    /// The members of a channel.
    pub async fn members(&self, token: &str, channel: ChannelId) -> Result<Vec<Member>, ApiError> {
        let path = ["channels", &channel.to_string(), "members"];
        let request = self.request(Method::GET, &path, Some(token));
        let members: MembersJson = self.json(request).await?;
        members.members.into_iter().map(Member::try_from).collect()
    }

    /// Adds people to a group.
    pub async fn add_members(
        &self,
        token: &str,
        channel: ChannelId,
        users: &[UserId],
    ) -> Result<ChannelDetails, ApiError> {
        let path = ["channels", &channel.to_string(), "members"];
        let request = self
            .request(Method::POST, &path, Some(token))
            .json(&serde_json::json!({ "members": texts(users) }));
        self.json::<ChannelJson>(request).await?.try_into()
    }

    /// Removes somebody; with one's own id: leaves.
    pub async fn remove_member(
        &self,
        token: &str,
        channel: ChannelId,
        user: UserId,
    ) -> Result<(), ApiError> {
        let path = [
            "channels",
            &channel.to_string(),
            "members",
            &user.to_string(),
        ];
        let request = self.request(Method::DELETE, &path, Some(token));
        self.answer(request).await.map(drop)
    }
}

/// `path` below an endpoint's `/v1`.
fn route(mut endpoint: Url, path: &[&str]) -> Url {
    if let Ok(mut segments) = endpoint.path_segments_mut() {
        segments.pop_if_empty().push("v1").extend(path);
    }
    endpoint
}

fn network(error: reqwest::Error) -> ApiError {
    ApiError::Network(innermost(&error))
}

async fn read(answer: reqwest::Response) -> Result<Vec<u8>, ApiError> {
    let status = answer.status();
    let body = answer.bytes().await.map_err(network)?;
    if status.is_success() {
        return Ok(body.to_vec());
    }
    Err(refusal(status, &body))
}

fn texts(users: &[UserId]) -> Vec<String> {
    users.iter().map(UserId::to_string).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(bytes)
}

fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<ProblemJson>(body) {
        Ok(problem) => ApiError::Refused {
            status: status.as_u16(),
            code: problem.code,
            detail: problem.detail,
            retry_after_ms: problem.retry_after_ms,
        },
        Err(_) => ApiError::Answer(format!("status {status}")),
    }
}

/// What really went wrong: libraries wrap it several times, and may name a URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn quic(endpoint: &str, node: &str) -> Option<QuicRoute> {
        let node: NodeJson = serde_json::from_str(node).unwrap();
        node.quic?.route(&Url::parse(endpoint).unwrap())
    }

    #[test]
    fn quic_is_believed_by_name_over_https_and_by_hash_in_development() {
        let hash = "0aff".repeat(16);
        let node = format!(r#"{{"quic":{{"port":4433,"certificate_sha256":"{hash}"}}}}"#);
        let route = quic("http://127.0.0.1:8080/", &node).unwrap();
        assert_eq!(route.port, 4433);
        assert_eq!(route.certificate.unwrap()[..2], [0x0a, 0xff]);
        let route = quic("https://chat.example/", &node).unwrap();
        assert_eq!(route.certificate, None);
    }

    #[test]
    fn quic_without_anybody_to_trust_is_none() {
        for node in [
            r#"{}"#,
            r#"{"quic":null}"#,
            r#"{"quic":{"port":4433}}"#,
            r#"{"quic":{"port":4433,"certificate_sha256":"0a"}}"#,
        ] {
            assert_eq!(quic("http://127.0.0.1:8080/", node), None, "{node}");
        }
        assert_eq!(
            quic("https://chat.example/", r#"{"quic":{"port":0}}"#),
            None
        );
        let odd = format!(
            r#"{{"quic":{{"port":1,"certificate_sha256":"{}"}}}}"#,
            "é".repeat(32)
        );
        assert_eq!(quic("http://127.0.0.1:8080/", &odd), None);
    }
}
