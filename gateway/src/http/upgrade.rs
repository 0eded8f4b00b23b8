//! `GET /v1/ws`: from a request to a session on a WebSocket.
//!
//! Everything is checked before the upgrade: version, key, subprotocol, origin, the address's limit, and that there is no
//! query (a token in a URL ends up in logs; it belongs into HELLO). No extension is negotiated.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use conch_wire::Code;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::caller::{Address, Peer};
use super::listener::Held;
use super::problem::{Answer, HttpReason, Problem};
use super::{Api, origin};
use crate::admission::AddressPlace;
use crate::session::fresh_session_id;
use crate::session::task::{self, Edge};
use crate::tls::stream::TlsStream;
use crate::transport::websocket::WebSocket;

/// The protocol's name and major version.
pub const SUBPROTOCOL: &str = "conch.1";

/// `GET /v1/ws`
pub(super) async fn upgrade(
    State(api): State<Arc<Api>>,
    Address(address): Address,
    mut request: Request,
) -> Answer<Response> {
    let headers = request.headers();
    let accept = check(&api, &request, headers)?;
    api.limiter.early(address)?;
    if !api.is_ready() {
        return Err(Problem::wire(Code::GoingAway, "the node is stopping").retry_after(1_000));
    }
    let from = enter_from_behind_proxy(&api, address, &request)?;
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (edge, sessions) = (api.edge.clone(), api.sessions.clone());
    api.sessions.spawn(async move {
        match on_upgrade.await {
            Ok(upgraded) => begin(upgraded, from, edge, &sessions),
            Err(error) => tracing::debug!(%error, "an upgrade was not finished"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    answer.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(response)
}

/// Begins the session, on the socket itself: not through the layers that HTTP has put around it. It is a task of its own,
/// as small as it can be, because there are as many as there are connections.
fn begin(upgraded: Upgraded, from: Option<AddressPlace>, edge: Arc<Edge>, sessions: &TaskTracker) {
    let upgraded = match upgraded.downcast::<TokioIo<Held<TcpStream>>>() {
        Ok(plain) => return begin_on(plain, from, edge, sessions),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<Held<TlsStream<TcpStream>>>>() {
        Ok(tls) => begin_on(tls, from, edge, sessions),
        Err(_) => tracing::error!("an upgraded connection is on no socket of the listener's"),
    }
}

fn begin_on<S>(
    parts: Parts<TokioIo<Held<S>>>,
    from: Option<AddressPlace>,
    edge: Arc<Edge>,
    sessions: &TaskTracker,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut socket = parts.io.into_inner();
    socket.hold_from(from);
    let transport = WebSocket::new(socket, parts.read_buf);
    sessions.spawn(task::run(transport, fresh_session_id(), edge));
}

/// A proxy's clients take their address's place here, where the address is known; others took it when they connected.
fn enter_from_behind_proxy(
    api: &Api,
    address: IpAddr,
    request: &Request,
) -> Answer<Option<AddressPlace>> {
    let peer = request.extensions().get::<Peer>();
    if !api.settings.http.behind_proxy || peer.is_some_and(|Peer(peer)| *peer == address) {
        return Ok(None);
    }
    match api.connections.try_enter_from(address) {
        Some(place) => Ok(Some(place)),
        None => Err(Problem::wire(
            Code::RateLimited,
            "too many connections of one address",
        )),
    }
}

/// Checks the handshake; gives the value of `Sec-WebSocket-Accept`.
fn check(api: &Api, request: &Request, headers: &HeaderMap) -> Answer<HeaderValue> {
    let bad = |detail: &str| Problem::http(HttpReason::BadRequest, detail);
    if request.uri().query().is_some() {
        return Err(bad("no query here: the token belongs into HELLO"));
    }
    let origins: Vec<&[u8]> = headers
        .get_all(header::ORIGIN)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    if !origin::is_allowed(
        &origins,
        host,
        api.scheme,
        &api.settings.http.allowed_origins,
    ) {
        return Err(Problem::http(
            HttpReason::OriginRefused,
            "pages of this origin may not connect",
        ));
    }
    if !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err(Problem::http(
            HttpReason::UpgradeRequired,
            "this is a WebSocket: conch.1",
        ));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|v| v.as_bytes() != b"13")
    {
        return Err(Problem::http(
            HttpReason::UpgradeRequired,
            "WebSocket version 13 (RFC 6455)",
        ));
    }
    if headers.get(header::SEC_WEBSOCKET_PROTOCOL).is_none() {
        return Err(bad("Sec-WebSocket-Protocol: conch.1 is needed"));
    }
    if !has_exact(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(Problem::wire(
            Code::UnsupportedVersion,
            "this node speaks conch.1",
        ));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(bad("one Sec-WebSocket-Key is needed"));
    };
    if STANDARD.decode(key.as_bytes()).map_or(0, |k| k.len()) != 16 {
        return Err(bad("Sec-WebSocket-Key is not 16 bytes"));
    }
    HeaderValue::from_str(&accept_key(key.as_bytes()))
        .map_err(|_| bad("Sec-WebSocket-Key is not usable"))
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2): it proves that this is a WebSocket server, nothing more.
fn accept_key(key: &[u8]) -> String {
    let mut digest = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finish())
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

fn has_exact(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t == token)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::accept_key;
    use crate::http::listener::Held;
    use crate::session::task::Connection;
    use crate::transport::websocket::WebSocket;

    #[test]
    fn what_every_connection_costs_is_known() {
        // Its task. Whoever needs more for a while takes it from the heap for as long.
        let bytes = size_of::<Connection<WebSocket<Held<TcpStream>>>>();
        assert!(bytes <= 768, "{bytes} bytes");
    }

    #[test]
    fn the_example_of_the_rfc() {
        let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
