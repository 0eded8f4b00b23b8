//! One WebSocket connection: bytes both ways, closed with a code.

use std::sync::Arc;

use conch_wire::Code;
use conch_wire::limits::FRAME_BYTES_MAX;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use url::Url;

use super::{CLOSE_MAX, Outgoing, WRITE_MAX};
use crate::core::Input;

const SUBPROTOCOL: &str = "conch.1";
/// A server batches frames into messages; more than this at once is not ours.
const MESSAGE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens the WebSocket of an endpoint.
pub(super) async fn dial(endpoint: &Url, tls: &Arc<rustls::ClientConfig>) -> Result<Socket, Error> {
    let url = socket_url(endpoint.clone());
    let mut request = url.as_str().into_client_request()?;
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let connector = match url.scheme() {
        "wss" => Connector::Rustls(Arc::clone(tls)),
        _ => Connector::Plain,
    };
    let (socket, _) =
        connect_async_tls_with_config(request, Some(config), true, Some(connector)).await?;
    Ok(socket)
}

/// Where the WebSocket of an endpoint is.
fn socket_url(mut endpoint: Url) -> Url {
    let scheme = if endpoint.scheme() == "https" {
        "wss"
    } else {
        "ws"
    };
    // Both pairs are special schemes with a host, between which a URL may change.
    let changed = endpoint.set_scheme(scheme);
    debug_assert!(changed.is_ok(), "http(s) to ws(s)");
    if let Ok(mut segments) = endpoint.path_segments_mut() {
        segments.pop_if_empty().extend(["v1", "ws"]);
    }
    endpoint
}

/// Both directions until one ends. Returns the server's close code, if it said one.
pub(super) async fn pump(
    socket: Socket,
    connection: u64,
    inputs: &mpsc::Sender<Input>,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> Option<u16> {
    let (mut sink, mut stream) = socket.split();
    let write = async {
        let mut code = Code::GoingAway;
        while let Some(next) = outgoing.recv().await {
            match next {
                Outgoing::Message(bytes) => {
                    match timeout(WRITE_MAX, sink.send(Message::Binary(bytes))).await {
                        Ok(Ok(())) => {}
                        // The server may have said why: the reader has a moment to hear it.
                        Ok(Err(_)) | Err(_) => return tokio::time::sleep(CLOSE_MAX).await,
                    }
                }
                Outgoing::Close(reason) => {
                    code = reason;
                    break;
                }
            }
        }
        let close = Message::Close(Some(CloseFrame {
            code: CloseCode::from(code.number()),
            reason: "".into(),
        }));
        let _ = timeout(CLOSE_MAX, sink.send(close)).await;
        tokio::time::sleep(CLOSE_MAX).await;
    };
    let read = async {
        while let Some(message) = stream.next().await {
            match message {
                Ok(Message::Binary(bytes)) => {
                    let input = Input::Received { connection, bytes };
                    if inputs.send(input).await.is_err() {
                        return None;
                    }
                }
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "the connection broke");
                    return None;
                }
            }
        }
        None
    };
    tokio::select! {
        () = write => None,
        code = read => code,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn socket_is_beside_the_api() {
        for (endpoint, socket) in [
            ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/v1/ws"),
            ("https://chat.example/", "wss://chat.example/v1/ws"),
            (
                "https://chat.example/conch/",
                "wss://chat.example/conch/v1/ws",
            ),
        ] {
            assert_eq!(socket_url(Url::parse(endpoint).unwrap()).as_str(), socket);
        }
    }
}
