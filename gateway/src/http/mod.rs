//! The HTTP side of a node: accounts, devices, channels, the WebSocket's upgrade, health.
//!
//! Routes, all JSON; ids are decimal strings; refusals are [`problem`]s. `A` needs `Authorization: Bearer <access token>`.
//!
//! | route | body → answer |
//! |---|---|
//! | `POST /v1/accounts` | `{handle, password, display_name?, device_name?, platform?}` → 201 tokens |
//! | `POST /v1/sessions` | `{handle, password, device_name?, platform?}` → 201 tokens (log-in: a new device) |
//! | `POST /v1/tokens/refresh` | `{refresh_token}` → 200 tokens |
//! | `POST /v1/sessions/logout` A | → 204; the device is revoked, its connections close |
//! | `GET /v1/me` A, `PATCH /v1/me` A | `{display_name}` → `{user_id, handle, display_name, device_id}` |
//! | `GET /v1/users/by-handle/{handle}` A | → `{user_id, handle, display_name}` |
//! | `GET /v1/users?ids=1,2` A | ≤ 100 → `{users: [..]}`, unknown ids left out |
//! | `GET /v1/devices` A | → `{devices: [{device_id, name, platform, created_ms, seen_ms, current}]}` |
//! | `DELETE /v1/devices/{id}` A | → 204 |
//! | `POST /v1/channels/direct` A | `{user_id}` → 200 channel |
//! | `POST /v1/channels` A | `{title, members: [id]}`, header `Idempotency-Key?` → 201 channel |
//! | `GET /v1/channels/{id}` A | → channel |
//! | `PATCH /v1/channels/{id}` A | `{title}` → channel |
//! | `GET /v1/channels/{id}/members` A | → `{members: [{user_id, role, joined_seq, handle, display_name}]}` |
//! | `POST /v1/channels/{id}/members` A | `{members: [id]}` → channel |
//! | `DELETE /v1/channels/{id}/members/{user}` A | → 204; oneself: leave |
//! | `GET /v1/node` | → `{version, node, ws_path, subprotocol, quic?, sign_up, limits}` |
//! | `GET /v1/ws` | WebSocket, subprotocol `conch.1` |
//! | `GET /livez`, `GET /readyz` | 200 while the process runs; 200 or 503 |
//!
//! *tokens*: `{user_id, handle, display_name, device_id, access_token, expires_in_ms, refresh_token,
//! refresh_expires_in_ms}`. *channel*: `{channel_id, kind, title, peer_id?, role, members, first_seq, left_seq?, head_seq,
//! head_ordinal, read_seq, read_ordinal, unread}`.
//!
//! Handlers change channels only through the router, like any device.

pub mod accounts;
pub mod caller;
pub mod channels;
mod cors;
pub mod devices;
pub mod json;
pub mod limiter;
pub mod listener;
pub mod node;
pub mod origin;
mod page;
pub mod people;
pub mod problem;
pub mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router as Routes;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use conch_store::accounts::Accounts;
use tokio_util::task::TaskTracker;

use crate::admission::Connections;
use crate::auth::passwords::Passwords;
use crate::config::Settings;
use crate::metrics;
use crate::quic::QuicFacts;
use crate::session::task::Edge;
use limiter::Limiter;
use origin::Scheme;
use problem::{HttpReason, Problem};

/// Longest body of a request.
const BODY_BYTES_MAX: usize = 65_536;
/// A request must be answered within this; a body that trickles in counts too.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// What handlers work with. One per node.
#[derive(Debug)]
pub struct Api {
    pub edge: Arc<Edge>,
    pub accounts: Accounts,
    pub passwords: Passwords,
    pub limiter: Limiter,
    pub connections: Connections,
    pub settings: Settings,
    pub scheme: Scheme,
    /// Where QUIC is spoken, if it is.
    pub quic: Option<QuicFacts>,
    /// False while starting and from the first moment of shutting down.
    pub ready: AtomicBool,
    /// Sessions under way.
    pub sessions: TaskTracker,
}

impl Api {
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn wall_ms(&self) -> u64 {
        self.edge.clock.wall_ms()
    }
}

/// The routes over `api`.
pub fn routes(api: Arc<Api>) -> Routes {
    let v1 = Routes::new()
        .route("/accounts", post(accounts::sign_up))
        .route("/sessions", post(accounts::log_in))
        .route("/sessions/logout", post(accounts::log_out))
        .route("/tokens/refresh", post(accounts::refresh))
        .route("/me", get(people::me).patch(people::rename_me))
        .route("/users", get(people::by_ids))
        .route("/users/by-handle/{handle}", get(people::by_handle))
        .route("/devices", get(devices::list))
        .route("/devices/{device}", delete(devices::revoke))
        .route("/channels", post(channels::create_group))
        .route("/channels/direct", post(channels::direct))
        .route(
            "/channels/{channel}",
            get(channels::view).patch(channels::rename),
        )
        .route(
            "/channels/{channel}/members",
            get(channels::members).post(channels::add_members),
        )
        .route(
            "/channels/{channel}/members/{user}",
            delete(channels::remove_member),
        )
        .route("/node", get(node::facts))
        .route("/ws", get(upgrade::upgrade));
    let cors = cors::layer(&api.settings.http.allowed_origins);
    let routes = Routes::new()
        .nest("/v1", v1)
        .route("/", get(node::landing))
        .route("/livez", get(node::livez))
        .route("/readyz", get(node::readyz))
        .fallback(page::file)
        .method_not_allowed_fallback(|| async {
            Problem::http(HttpReason::MethodNotAllowed, "not by this method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(answer_in_time))
        .with_state(api);
    match cors {
        // Outermost: refusals too must be readable for the page that asked.
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// Around every request: the deadline, headers that belong to every answer, the metrics.
async fn answer_in_time(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    // HEAD goes by the routes of GET; everything else unknown by the fallbacks.
    let known = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::POST | Method::PATCH | Method::DELETE
    );
    let mut response = if known {
        tokio::time::timeout(REQUEST_MAX, next.run(request))
            .await
            .unwrap_or_else(|_| {
                Problem::http(HttpReason::RequestTimeout, "not complete in time").into_response()
            })
    } else {
        Problem::http(HttpReason::MethodNotAllowed, "not by this method").into_response()
    };
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let class = match response.status().as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    metrics::http_answered(route, class, began.elapsed().as_secs_f64());
    response
}
