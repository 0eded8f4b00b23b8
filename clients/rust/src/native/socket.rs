//! One WebSocket connection: opened with a token at hand, bytes both ways, closed with a code.
//!
//! Runs as a task of its own. What it reads goes to the driver through a bounded queue, so a driver that does not keep up
//! stops the reading, and with it the server's credit. What it writes is bounded by the protocol (sends and requests in
//! flight), not by the queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

use super::login::{TokenError, TokenProvider};
use crate::core::Input;

const SUBPROTOCOL: &str = "conch.1";
/// A server batches frames into messages; more than this at once is not ours.
const MESSAGE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// How long a close may take before the socket is dropped.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// How long one write may take: a peer that takes nothing for this long is gone.
const WRITE_MAX: Duration = Duration::from_secs(45);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the driver has for a connection.
#[derive(Debug)]
pub(super) enum Outgoing {
    Message(Bytes),
    Close(Code),
}

/// How connections are made.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) url: Url,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) tokens: Arc<dyn TokenProvider>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Dialer {
    /// Runs connection `number` to its end; says everything to `inputs`.
    pub(super) async fn run(
        self,
        number: u64,
        refresh_token: bool,
        inputs: mpsc::Sender<Input>,
        outgoing: mpsc::UnboundedReceiver<Outgoing>,
    ) {
        let end = match self.open(number, refresh_token, &inputs).await {
            Ok(socket) => Input::Closed {
                connection: number,
                code: pump(socket, number, &inputs, outgoing).await,
            },
            Err(end) => end,
        };
        // A driver that is gone needs no news.
        let _ = inputs.send(end).await;
    }

    async fn open(
        &self,
        number: u64,
        refresh_token: bool,
        inputs: &mpsc::Sender<Input>,
    ) -> Result<Socket, Input> {
        let closed = Input::Closed {
            connection: number,
            code: None,
        };
        let token = match self.tokens.token(refresh_token).await {
            Ok(token) => token,
            Err(TokenError::Rejected(why)) => {
                tracing::info!(%why, "no token any more");
                return Err(Input::TokenRejected { connection: number });
            }
            Err(TokenError::Unavailable(why)) => {
                tracing::debug!(%why, "no token now");
                return Err(closed);
            }
        };
        let socket = match self.dial().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, "no connection");
                return Err(closed);
            }
        };
        let opened = Input::Connected {
            connection: number,
            token,
        };
        inputs.send(opened).await.map_err(|_| closed)?;
        Ok(socket)
    }

    async fn dial(&self) -> Result<Socket, Error> {
        let mut request = self.url.as_str().into_client_request()?;
        request.headers_mut().insert(
            "sec-websocket-protocol",
            HeaderValue::from_static(SUBPROTOCOL),
        );
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connector = match self.url.scheme() {
            "wss" => Connector::Rustls(Arc::clone(&self.tls)),
            _ => Connector::Plain,
        };
        let (socket, _) =
            connect_async_tls_with_config(request, Some(config), true, Some(connector)).await?;
        Ok(socket)
    }
}

/// Both directions until one ends. Returns the server's close code, if it said one.
async fn pump(
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
