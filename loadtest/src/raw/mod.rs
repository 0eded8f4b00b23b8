//! A plain protocol client: one WebSocket or the control stream of one QUIC connection, frames in and out, answers matched
//! to requests. Nothing else: no resume, no merging, no outbox, no reconnecting.
//!
//! Tests use it to say exactly what they mean and to see exactly what a node answers, wrong input included; the load
//! generator uses it because it costs little. It shares only `conch-wire` with the node. Frames that a caller did not
//! wait for stay queued in the order of arrival; [`RawClient::recv`] gives them out. Credit is granted back only when the
//! caller says so ([`RawClient::grant`]), so that a test can be a reader that stops.

mod carrier;
mod endpoint;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use conch_wire::event::{Ack, SendFlags};
use conch_wire::frame::{
    ChannelOpened, Cursor, ErrorFrame, Hello, History, HistoryPage, Send, SyncChanges, Welcome,
    split_frame,
};
use conch_wire::{
    Alias, ChannelId, ClientFrame, Code, EventKind, MessageKey, Seq, ServerFrame, WireError, limits,
};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use carrier::{Broken, Carrier, ControlStream};
pub use endpoint::{
    Doors, Endpoint, FullHandshakes, QUIC_ALPN, QuicDialer, QuicDoor, Tickets, TlsDialer,
    Transport, Trust, Windows, certificate_sha256,
};

/// Subprotocol of major version 1.
pub const SUBPROTOCOL: &str = "conch.1";
/// How long a helper waits for its answer unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may take to stand. A node that dies meanwhile may never answer on QUIC.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection is of no more use, or an answer did not come.
#[derive(Debug, Error)]
pub enum RawError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// The HTTP answer in place of the upgrade.
    #[error("the upgrade was refused with HTTP {0}")]
    UpgradeRefused(u16),
    #[error("the socket failed: {0}")]
    Socket(#[from] Box<tungstenite::Error>),
    #[error("QUIC failed: {0}")]
    Quic(#[from] Box<quinn::ConnectionError>),
    #[error("a QUIC connection carries no WebSocket messages")]
    NoWebSocket,
    #[error("the node does not serve {0}")]
    NotServed(Transport),
    #[error("TLS cannot be set up")]
    Tls,
    #[error("the node sent what is not a frame: {0}")]
    Frame(#[from] WireError),
    /// The close status, if there was one, and the last ERROR that concerned the connection.
    #[error("the node closed the connection: status {status:?}, {error:?}")]
    Closed {
        status: Option<u16>,
        error: Option<ErrorFrame>,
    },
    #[error("no {0} within the deadline")]
    Timeout(&'static str),
    #[error("refused: {} {}", .0.code, .0.detail)]
    Refused(ErrorFrame),
}

impl RawError {
    /// The code that the node closed or refused with.
    pub fn code(&self) -> Option<Code> {
        match self {
            RawError::Closed { status, error } => error
                .as_ref()
                .map(|error| error.code)
                .or_else(|| status.and_then(Code::from_u16)),
            RawError::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}

/// A frame and how many bytes it took on the wire (what credit is charged by).
#[derive(Clone, Debug)]
pub struct Received {
    pub frame: ServerFrame,
    pub wire_bytes: u32,
}

/// What became of a SEND or SEND_MANY.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Acked(Vec<Ack>),
    Refused(ErrorFrame),
}

/// One message to send.
#[derive(Clone, Debug)]
pub struct Draft {
    pub key: MessageKey,
    pub text: Bytes,
    pub retry: bool,
}

impl Draft {
    /// A text that was never attempted before.
    pub fn text(key: MessageKey, text: impl Into<Bytes>) -> Draft {
        Draft {
            key,
            text: text.into(),
            retry: false,
        }
    }

    /// The same message, attempted again.
    pub fn again(&self) -> Draft {
        Draft {
            retry: true,
            ..self.clone()
        }
    }

    fn item(&self, alias: Alias) -> Send<'_> {
        Send {
            key: self.key,
            alias,
            kind: EventKind::Text as u8,
            flags: if self.retry {
                SendFlags::RETRY
            } else {
                SendFlags::default()
            },
            tail: &self.text,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct RawClient {
    carrier: Carrier,
    /// Frames that arrived while something else was waited for.
    waiting: VecDeque<Received>,
    out: BytesMut,
    last_request: u32,
    connection_error: Option<ErrorFrame>,
}

impl RawClient {
    /// Connects over WebSocket; says nothing yet. `http` is `ip:port`.
    pub async fn connect(http: &str) -> Result<RawClient, RawError> {
        let stream = TcpStream::connect(http).await.map_err(RawError::Connect)?;
        RawClient::upgrade(stream, http).await
    }

    /// Upgrades a TCP connection that the caller made (with socket options of its own).
    pub async fn upgrade(stream: TcpStream, host: &str) -> Result<RawClient, RawError> {
        let _ = stream.set_nodelay(true);
        let socket = upgrade(stream, host).await?;
        Ok(RawClient::on(Carrier::WebSocket(Box::new(socket))))
    }

    /// Connects over any transport; says nothing yet.
    pub async fn connect_to(endpoint: &Endpoint) -> Result<RawClient, RawError> {
        match timeout(CONNECT_PATIENCE, connect_to(endpoint)).await {
            Ok(carrier) => carrier.map(RawClient::on),
            Err(_) => Err(RawError::Timeout("connection")),
        }
    }

    fn on(carrier: Carrier) -> RawClient {
        RawClient {
            carrier,
            waiting: VecDeque::new(),
            out: BytesMut::new(),
            last_request: 0,
            connection_error: None,
        }
    }

    /// The QUIC connection under this client, if it is one.
    pub fn quic(&self) -> Option<&quinn::Connection> {
        self.carrier.quic()
    }

    /// Connects over any transport and shakes hands.
    pub async fn open_at(
        endpoint: &Endpoint,
        hello: Hello,
    ) -> Result<(RawClient, Welcome), RawError> {
        let mut client = RawClient::connect_to(endpoint).await?;
        let welcome = client.hello(hello).await?;
        Ok((client, welcome))
    }

    /// Connects over WebSocket and shakes hands.
    pub async fn open(http: &str, hello: Hello) -> Result<(RawClient, Welcome), RawError> {
        let mut client = RawClient::connect(http).await?;
        let welcome = client.hello(hello).await?;
        Ok((client, welcome))
    }

    /// Says HELLO and waits for WELCOME.
    pub async fn hello(&mut self, hello: Hello) -> Result<Welcome, RawError> {
        self.send(&ClientFrame::Hello(hello)).await?;
        let frame = self
            .wait_for("WELCOME", PATIENCE, |frame| {
                matches!(frame, ServerFrame::Welcome(_))
            })
            .await?;
        match frame {
            ServerFrame::Welcome(welcome) => Ok(*welcome),
            _ => Err(RawError::Timeout("WELCOME")),
        }
    }

    /// A request id that was not used on this connection.
    pub fn next_request(&mut self) -> u32 {
        self.last_request += 1;
        self.last_request
    }

    /// Sends one frame (a WebSocket message of its own).
    pub async fn send(&mut self, frame: &ClientFrame<'_>) -> Result<(), RawError> {
        frame.encode(&mut self.out);
        let bytes = self.out.split().freeze();
        self.send_bytes(bytes).await
    }

    /// Sends bytes, whatever they are; over WebSocket as one binary message.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), RawError> {
        let sent = self.carrier.send(bytes).await;
        sent.map_err(|broken| self.ended(broken))
    }

    /// Sends any WebSocket message.
    pub async fn send_message(&mut self, message: Message) -> Result<(), RawError> {
        let sent = self.carrier.send_message(message).await;
        sent.map_err(|broken| self.ended(broken))
    }

    /// Appends a frame to the next [`RawClient::flush`].
    pub fn queue(&mut self, frame: &ClientFrame<'_>) {
        frame.encode(&mut self.out);
    }

    /// Bytes queued and not flushed.
    pub fn queued_bytes(&self) -> usize {
        self.out.len()
    }

    /// Sends everything queued, over WebSocket as one message.
    pub async fn flush(&mut self) -> Result<(), RawError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let bytes = self.out.split().freeze();
        self.send_bytes(bytes).await
    }

    /// The next frame, or `None` when none came before the deadline. Cancel-safe.
    pub async fn recv_until(&mut self, deadline: Instant) -> Result<Option<Received>, RawError> {
        match timeout_at(deadline, self.recv()).await {
            Ok(received) => received.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The next frame. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Received, RawError> {
        loop {
            if let Some(received) = self.waiting.pop_front() {
                return Ok(received);
            }
            self.fill().await?;
        }
    }

    /// Frames that arrived and were not looked at.
    pub fn try_recv(&mut self) -> Option<Received> {
        self.waiting.pop_front()
    }

    /// Waits for a frame that `wanted` accepts; the others stay queued. An ERROR about the connection ends it.
    pub async fn wait_for(
        &mut self,
        what: &'static str,
        within: Duration,
        mut wanted: impl FnMut(&ServerFrame) -> bool,
    ) -> Result<ServerFrame, RawError> {
        let deadline = Instant::now() + within;
        let mut looked_at = 0;
        loop {
            while looked_at < self.waiting.len() {
                if wanted(&self.waiting[looked_at].frame) {
                    let found = self
                        .waiting
                        .remove(looked_at)
                        .expect("the index was checked");
                    return Ok(found.frame);
                }
                looked_at += 1;
            }
            match timeout_at(deadline, self.fill()).await {
                Ok(filled) => filled?,
                Err(_) => return Err(RawError::Timeout(what)),
            }
        }
    }

    /// Whether nothing that `unwanted` accepts arrives within `quiet`. What arrives stays queued.
    pub async fn stays_silent(
        &mut self,
        quiet: Duration,
        unwanted: impl FnMut(&ServerFrame) -> bool,
    ) -> Result<bool, RawError> {
        match self.wait_for("silence", quiet, unwanted).await {
            Ok(_) => Ok(false),
            Err(RawError::Timeout(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Opens a channel and waits for the alias that holds.
    pub async fn open_channel(&mut self, cursor: Cursor) -> Result<ChannelOpened, RawError> {
        let request = self.next_request();
        self.send(&ClientFrame::OpenChannel { request, cursor })
            .await?;
        match self.answer("CHANNEL_OPENED", request).await? {
            ServerFrame::ChannelOpened { opened, .. } => Ok(opened),
            other => Err(unexpected(other, "CHANNEL_OPENED")),
        }
    }

    /// Opens a channel of which nothing is held, under `alias` or under the one that it has already: the answer says which
    /// holds (P-022).
    pub async fn open_fresh(
        &mut self,
        channel: ChannelId,
        alias: Alias,
    ) -> Result<ChannelOpened, RawError> {
        self.open_channel(Cursor {
            channel,
            generation: 0,
            seq: 0,
            alias,
        })
        .await
    }

    /// Puts a SEND on the wire; gives its request id.
    pub async fn start_send(&mut self, alias: Alias, draft: &Draft) -> Result<u32, RawError> {
        let request = self.next_request();
        let send = draft.item(alias);
        self.send(&ClientFrame::Send { request, send }).await?;
        Ok(request)
    }

    /// Appends a SEND (or SEND_MANY) to the next flush; gives its request id.
    pub fn queue_sends(&mut self, alias: Alias, drafts: &[Draft]) -> u32 {
        let request = self.next_request();
        let sends: Vec<_> = drafts.iter().map(|draft| draft.item(alias)).collect();
        if let [send] = sends[..] {
            self.queue(&ClientFrame::Send { request, send });
        } else {
            self.queue(&ClientFrame::SendMany { request, sends });
        }
        request
    }

    /// Puts a SEND_MANY on the wire; gives its request id.
    pub async fn start_send_many(
        &mut self,
        alias: Alias,
        drafts: &[Draft],
    ) -> Result<u32, RawError> {
        let request = self.next_request();
        let sends = drafts.iter().map(|draft| draft.item(alias)).collect();
        self.send(&ClientFrame::SendMany { request, sends }).await?;
        Ok(request)
    }

    /// Waits for the answer to a send.
    pub async fn sent(&mut self, request: u32) -> Result<Answer, RawError> {
        match self.answer("SEND_ACK", request).await? {
            ServerFrame::SendAck { acks, .. } => Ok(Answer::Acked(acks)),
            ServerFrame::Error { error, .. } => Ok(Answer::Refused(error)),
            other => Err(unexpected(other, "SEND_ACK")),
        }
    }

    /// Sends one message and waits for its ack.
    pub async fn say(&mut self, alias: Alias, draft: &Draft) -> Result<Ack, RawError> {
        let request = self.start_send(alias, draft).await?;
        match self.sent(request).await? {
            Answer::Acked(acks) => acks.first().copied().ok_or(RawError::Timeout("an ack")),
            Answer::Refused(error) => Err(RawError::Refused(error)),
        }
    }

    /// One page of history.
    pub async fn history(&mut self, history: History) -> Result<HistoryPage, RawError> {
        let request = self.next_request();
        self.send(&ClientFrame::History { request, history })
            .await?;
        match self.answer("HISTORY_PAGE", request).await? {
            ServerFrame::HistoryPage { page, .. } => Ok(page),
            other => Err(unexpected(other, "HISTORY_PAGE")),
        }
    }

    /// The whole history of a channel as this user may see it: all pages in one, ascending.
    pub async fn full_history(&mut self, channel: ChannelId) -> Result<HistoryPage, RawError> {
        let mut whole: Option<HistoryPage> = None;
        let mut from: Seq = 1;
        loop {
            let page = self
                .history(History {
                    channel,
                    from,
                    to: Seq::MAX,
                    items_max: limits::HISTORY_ITEMS_MAX as u16,
                    newest_first: false,
                })
                .await?;
            let (to, head, empty) = (page.covered_to, page.head_seq, page.events.is_empty());
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => {
                    whole.covered_to = page.covered_to.max(whole.covered_to);
                    whole.head_seq = page.head_seq;
                    whole.events.extend(page.events);
                }
            }
            if empty || to >= head {
                return whole.ok_or(RawError::Timeout("HISTORY_PAGE"));
            }
            from = to + 1;
        }
    }

    /// One page of SYNC.
    pub async fn sync(&mut self, token: Vec<u8>, rows_max: u16) -> Result<SyncChanges, RawError> {
        let request = self.next_request();
        self.send(&ClientFrame::Sync {
            request,
            token,
            rows_max,
        })
        .await?;
        match self.answer("SYNC_CHANGES", request).await? {
            ServerFrame::SyncChanges { changes, .. } => Ok(changes),
            other => Err(unexpected(other, "SYNC_CHANGES")),
        }
    }

    /// The first page of changes, which follows WELCOME without being asked for.
    pub async fn first_changes(&mut self) -> Result<SyncChanges, RawError> {
        let frame = self
            .wait_for("SYNC_CHANGES", PATIENCE, |frame| {
                matches!(frame, ServerFrame::SyncChanges { request: 0, .. })
            })
            .await?;
        match frame {
            ServerFrame::SyncChanges { changes, .. } => Ok(changes),
            other => Err(unexpected(other, "SYNC_CHANGES")),
        }
    }

    /// Pings; gives the inbox position in the PONG.
    pub async fn ping(&mut self) -> Result<u64, RawError> {
        let nonce = self.next_request();
        self.send(&ClientFrame::Ping { nonce }).await?;
        let frame = self
            .wait_for(
                "PONG",
                PATIENCE,
                |frame| matches!(frame, ServerFrame::Pong { nonce: n, .. } if *n == nonce),
            )
            .await?;
        match frame {
            ServerFrame::Pong { inbox_position, .. } => Ok(inbox_position),
            other => Err(unexpected(other, "PONG")),
        }
    }

    /// Grants credit.
    pub async fn grant(&mut self, bytes: u32) -> Result<(), RawError> {
        self.send(&ClientFrame::Credit { bytes }).await
    }

    /// Waits for the frame that answers `request`; an ERROR for it is given out as it is only for sends.
    async fn answer(&mut self, what: &'static str, request: u32) -> Result<ServerFrame, RawError> {
        self.wait_for(what, PATIENCE, |frame| answers(frame) == Some(request))
            .await
    }

    /// Waits for the connection to be closed by the node, reading on until then.
    pub async fn closed(&mut self, within: Duration) -> Result<RawError, RawError> {
        let deadline = Instant::now() + within;
        loop {
            match timeout_at(deadline, self.fill()).await {
                Ok(Ok(())) => self.waiting.clear(),
                Ok(Err(error)) => return Ok(error),
                Err(_) => return Err(RawError::Timeout("close")),
            }
        }
    }

    /// Reads what comes next into the queue.
    async fn fill(&mut self) -> Result<(), RawError> {
        match self.carrier.next().await {
            Ok(bytes) => self.cut(bytes),
            Err(broken) => Err(self.ended(broken)),
        }
    }

    fn cut(&mut self, mut bytes: Bytes) -> Result<(), RawError> {
        while !bytes.is_empty() {
            let Some(split) = split_frame(&bytes, limits::FRAME_BYTES_MAX)? else {
                return Err(RawError::Frame(WireError {
                    code: Code::BadFrame,
                    what: "a message that ends inside a frame",
                }));
            };
            let (header, consumed) = (split.header, split.consumed);
            let start = consumed - split.body.len();
            let frame = ServerFrame::decode(header, bytes.slice(start..consumed))?;
            bytes.advance(consumed);
            if let ServerFrame::Error { request: 0, error } = &frame
                && error.refused_type == 0
            {
                self.connection_error = Some(error.clone());
            }
            self.waiting.push_back(Received {
                frame,
                wire_bytes: consumed as u32,
            });
        }
        Ok(())
    }

    fn ended(&self, broken: Broken) -> RawError {
        match broken {
            Broken::Closed(status) => RawError::Closed {
                status,
                error: self.connection_error.clone(),
            },
            Broken::Failed(error) => error,
        }
    }
}

async fn connect_to(endpoint: &Endpoint) -> Result<Carrier, RawError> {
    match endpoint {
        Endpoint::WebSocket(address) => {
            let stream = tcp(address).await?;
            let socket = upgrade(stream, address).await?;
            Ok(Carrier::WebSocket(Box::new(socket)))
        }
        Endpoint::Tls(dialer) => {
            let stream = tcp(&dialer.address).await?;
            let name = ServerName::try_from(dialer.name.clone()).map_err(|_| RawError::Tls)?;
            let stream = TlsConnector::from(dialer.config.clone())
                .connect(name, stream)
                .await
                .map_err(RawError::Connect)?;
            let socket = upgrade(stream, &dialer.address).await?;
            Ok(Carrier::Tls(Box::new(socket)))
        }
        Endpoint::Quic(dialer) => {
            let stream = ControlStream::open(dialer.dial().await?).await?;
            Ok(Carrier::Quic(Box::new(stream)))
        }
    }
}

async fn tcp(address: &str) -> Result<TcpStream, RawError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(RawError::Connect)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn upgrade<S>(stream: S, host: &str) -> Result<WebSocketStream<S>, RawError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("ws://{host}/v1/ws")
        .into_client_request()
        .map_err(Box::new)?;
    request.headers_mut().insert(
        "Sec-WebSocket-Protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let config = WebSocketConfig::default()
        .read_buffer_size(8_192)
        .write_buffer_size(0)
        .max_message_size(Some(16 << 20));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => {
            Err(RawError::UpgradeRefused(answer.status().as_u16()))
        }
        Err(error) => Err(Box::new(error).into()),
    }
}

/// The request that a frame answers.
pub fn answers(frame: &ServerFrame) -> Option<u32> {
    match frame {
        ServerFrame::SendAck { request, .. }
        | ServerFrame::ChannelOpened { request, .. }
        | ServerFrame::SyncChanges { request, .. }
        | ServerFrame::HistoryPage { request, .. }
        | ServerFrame::AuthRefreshed { request, .. }
        | ServerFrame::Error { request, .. } => Some(*request).filter(|request| *request != 0),
        _ => None,
    }
}

fn unexpected(frame: ServerFrame, what: &'static str) -> RawError {
    match frame {
        ServerFrame::Error { error, .. } => RawError::Refused(error),
        _ => RawError::Timeout(what),
    }
}
