//! What a node says of itself: public facts, health, and a word for people who open its address in a browser.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conch_wire::{Code, limits};
use serde_json::json;

use super::Api;
use super::json::answer;
use super::page;
use super::problem::Problem;

/// `GET /v1/node`
pub(super) async fn facts(State(api): State<Arc<Api>>) -> Response {
    let limits = api.edge.config.limits();
    let mut facts = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": api.settings.node.name,
        "ws_path": "/v1/ws",
        "subprotocol": super::upgrade::SUBPROTOCOL,
        "sign_up": api.settings.auth.sign_up,
        "limits": {
            "text_chars_max": limits.text_chars_max,
            "payload_bytes_max": limits.payload_bytes_max,
            "frame_bytes_max": limits.frame_bytes_max,
            "group_members_max": limits.group_members_max,
            "title_chars_max": limits::TITLE_CHARS_MAX,
            "heartbeat_ms": limits.heartbeat_ms,
        },
    });
    if let Some(quic) = &api.quic {
        facts["quic"] = json!({ "port": quic.address.port() });
        if let Some(digest) = &quic.certificate_sha256 {
            facts["quic"]["certificate_sha256"] = json!(digest);
        }
    }
    answer(StatusCode::OK, &facts)
}

/// `GET /livez`: the process runs and answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: clients may be sent here.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    if api.is_ready() {
        "ok\n".into_response()
    } else {
        Problem::wire(Code::GoingAway, "the node is starting or stopping")
            .retry_after(1_000)
            .into_response()
    }
}

/// `GET /`: the page for a browser, a word in plain text for everything else.
pub(super) async fn landing(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    if let Some(page) = page::index(&headers) {
        return page;
    }
    let mut text = format!(
        "Conch {version}: this node runs.\n\n\
         To chat from a terminal, with the address of this page:\n\n    \
         conch-chat --server http(s)://HOST:PORT\n\n\
         Sign-up is {sign_up}. Facts for programs: /v1/node\n",
        version = env!("CARGO_PKG_VERSION"),
        sign_up = match api.settings.auth.sign_up {
            crate::config::SignUp::Open => "open",
            crate::config::SignUp::Closed => "closed",
        },
    );
    if !page::is_built() {
        text.push('\n');
        text.push_str(page::HOW_TO_BUILD);
    }
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
