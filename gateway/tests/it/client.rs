//! A raw client of one WebSocket: frames as a test says them, frames as the node says them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use conch_wire::event::SendFlags;
use conch_wire::frame::{Cursor, Hello, Send, Welcome, split_frame};
use conch_wire::{
    Alias, ChannelId, ClientFrame, Code, Event, MessageKey, Seq, ServerFrame, limits,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::world::SOON;

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    frames: VecDeque<ServerFrame>,
    next_request: u32,
}

pub(crate) fn hello(token: &str) -> Hello {
    Hello {
        token: token.to_owned(),
        client: "test".to_owned(),
        ..Hello::default()
    }
}

pub(crate) fn cursor(channel: ChannelId, alias: Alias, generation: u32, seq: Seq) -> Cursor {
    Cursor {
        channel,
        generation,
        seq,
        alias,
    }
}

pub(crate) fn key() -> MessageKey {
    MessageKey(rand::random())
}

pub(crate) fn encoded(frame: &ClientFrame<'_>) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

impl Client {
    pub(crate) async fn connect(http: SocketAddr) -> Client {
        Client::over(TcpStream::connect(http).await.unwrap(), http).await
    }

    pub(crate) async fn over(stream: TcpStream, http: SocketAddr) -> Client {
        let mut request = format!("ws://{http}/v1/ws").into_client_request().unwrap();
        request.headers_mut().insert(
            "sec-websocket-protocol",
            HeaderValue::from_static("conch.1"),
        );
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        Client {
            socket,
            frames: VecDeque::new(),
            next_request: 1,
        }
    }

    pub(crate) async fn say(&mut self, frame: &ClientFrame<'_>) {
        self.say_bytes(encoded(frame)).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: Bytes) {
        self.socket.send(Message::Binary(bytes)).await.unwrap();
    }

    /// Says it without minding whether the node has closed already.
    pub(crate) async fn socket_say(&mut self, bytes: Bytes) -> Result<(), ()> {
        self.socket.send(Message::Binary(bytes)).await.map_err(drop)
    }

    /// The refusal of a request.
    pub(crate) async fn error_of(&mut self, request: u32) -> Code {
        match self
            .until(|f| matches!(f, ServerFrame::Error { request: r, .. } if *r == request))
            .await
        {
            ServerFrame::Error { error, .. } => error.code,
            _ => unreachable!(),
        }
    }

    pub(crate) fn request(&mut self) -> u32 {
        self.next_request += 1;
        self.next_request
    }

    /// HELLO with nothing in it but a token; the answer, and what follows it without being asked.
    pub(crate) async fn hello(&mut self, token: &str) -> Welcome {
        self.hello_with(hello(token)).await
    }

    pub(crate) async fn hello_with(&mut self, hello: Hello) -> Welcome {
        self.say(&ClientFrame::Hello(hello)).await;
        let welcome = match self.next().await {
            Ok(ServerFrame::Welcome(welcome)) => *welcome,
            other => panic!("{other:?}"),
        };
        self.until(|f| matches!(f, ServerFrame::SyncChanges { request: 0, .. }))
            .await;
        welcome
    }

    /// The next frame, or the status that the node closed with.
    pub(crate) async fn next(&mut self) -> Result<ServerFrame, u16> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            match timeout(SOON, self.socket.next()).await.expect("in time") {
                Some(Ok(Message::Binary(bytes))) => self.split(bytes),
                Some(Ok(Message::Close(close))) => {
                    return Err(close.map_or(1005, |c| c.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    fn split(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let split = split_frame(&bytes, limits::FRAME_BYTES_MAX)
                .unwrap()
                .expect("whole frames");
            let body = bytes.slice_ref(split.body);
            let consumed = split.consumed;
            self.frames
                .push_back(ServerFrame::decode(split.header, body).unwrap());
            bytes = bytes.slice(consumed..);
        }
    }

    /// Puts frames back that were read over.
    pub(crate) async fn until(
        &mut self,
        mut wanted: impl FnMut(&ServerFrame) -> bool,
    ) -> ServerFrame {
        let mut passed = VecDeque::new();
        loop {
            let frame = match self.next().await {
                Ok(frame) => frame,
                Err(status) => panic!("closed with {status} after {passed:?}"),
            };
            if wanted(&frame) {
                passed.append(&mut self.frames);
                self.frames = passed;
                return frame;
            }
            passed.push_back(frame);
        }
    }

    /// The status of the close; frames before it are looked at and dropped.
    pub(crate) async fn closed(&mut self) -> (u16, Option<Code>) {
        let mut last = None;
        loop {
            match self.next().await {
                Ok(ServerFrame::Error { request: 0, error }) => last = Some(error.code),
                Ok(_) => {}
                Err(status) => return (status, last),
            }
        }
    }

    /// The alias under which the channel opened.
    pub(crate) async fn open(&mut self, cursor: Cursor) -> Result<Alias, Code> {
        let request = self.request();
        self.say(&ClientFrame::OpenChannel { request, cursor })
            .await;
        let answer = self
            .until(|f| match f {
                ServerFrame::ChannelOpened { request: r, .. }
                | ServerFrame::Error { request: r, .. } => *r == request,
                _ => false,
            })
            .await;
        match answer {
            ServerFrame::ChannelOpened { opened, .. } => Ok(opened.alias),
            ServerFrame::Error { error, .. } => Err(error.code),
            _ => unreachable!(),
        }
    }

    pub(crate) async fn queue_send(&mut self, alias: Alias, text: &str, key: MessageKey) -> u32 {
        let request = self.request();
        let send = Send {
            key,
            alias,
            kind: 1,
            flags: SendFlags::default(),
            tail: text.as_bytes(),
        };
        self.say(&ClientFrame::Send { request, send }).await;
        request
    }

    pub(crate) async fn answer_of(&mut self, request: u32) -> Result<Seq, Code> {
        let answer = self
            .until(|f| match f {
                ServerFrame::SendAck { request: r, .. } | ServerFrame::Error { request: r, .. } => {
                    *r == request
                }
                _ => false,
            })
            .await;
        match answer {
            ServerFrame::SendAck { acks, .. } => Ok(acks[0].seq),
            ServerFrame::Error { error, .. } => Err(error.code),
            _ => unreachable!(),
        }
    }

    pub(crate) async fn send(&mut self, alias: Alias, text: &str) -> Result<Seq, Code> {
        let request = self.queue_send(alias, text, key()).await;
        self.answer_of(request).await
    }

    /// The next message, with the alias it came under.
    pub(crate) async fn message(&mut self) -> (Alias, Event) {
        match self
            .until(|f| matches!(f, ServerFrame::Deliver { .. }))
            .await
        {
            ServerFrame::Deliver { alias, event } => (alias, event),
            _ => unreachable!(),
        }
    }

    pub(crate) async fn head(&mut self, channel: ChannelId) -> conch_wire::frame::ChannelHead {
        match self
            .until(|f| matches!(f, ServerFrame::ChannelHead(h) if h.channel == channel))
            .await
        {
            ServerFrame::ChannelHead(head) => head,
            _ => unreachable!(),
        }
    }

    /// Asks and waits for the answer: everything before it has been handled.
    pub(crate) async fn ping(&mut self) -> u64 {
        let nonce = self.request();
        self.say(&ClientFrame::Ping { nonce }).await;
        match self
            .until(|f| matches!(f, ServerFrame::Pong { nonce: n, .. } if *n == nonce))
            .await
        {
            ServerFrame::Pong { inbox_position, .. } => inbox_position,
            _ => unreachable!(),
        }
    }

    /// Frames that came and were not asked for.
    pub(crate) fn passed(&mut self) -> Vec<ServerFrame> {
        self.frames.drain(..).collect()
    }
}

impl Client {
    /// Pings; false when the node has closed instead of answering (the close is still to be read).
    pub(crate) async fn socket_is_open(&mut self) -> bool {
        let nonce = self.request();
        let ping = encoded(&ClientFrame::Ping { nonce });
        if self.socket.send(Message::Binary(ping)).await.is_err() {
            return false;
        }
        loop {
            if self.frames.iter().any(|f| {
                matches!(f, ServerFrame::Error { request: 0, .. })
                    || matches!(f, ServerFrame::Pong { nonce: n, .. } if *n == nonce)
            }) {
                let open = !self
                    .frames
                    .iter()
                    .any(|f| matches!(f, ServerFrame::Error { request: 0, .. }));
                return open;
            }
            match timeout(SOON, self.socket.next()).await.expect("in time") {
                Some(Ok(Message::Binary(bytes))) => self.split(bytes),
                _ => return false,
            }
        }
    }
}
