//! A WebSocket client without a socket: tungstenite over memory.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::client::{IntoClientRequest, client_with_config};
use tokio_tungstenite::tungstenite::handshake::MidHandshake;
use tokio_tungstenite::tungstenite::handshake::client::ClientHandshake;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, HandshakeError, Message, WebSocket};

use crate::peers::codec::Breach;
use crate::raw::SUBPROTOCOL;

/// Bytes that tungstenite reads at a time.
const READ_BYTES: usize = 64 << 10;

/// What came and was not read, what was written and has not gone.
#[derive(Debug, Default)]
struct Memory {
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = &self.input[self.read..];
        if left.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = left.len().min(into.len());
        into[..taken].copy_from_slice(&left[..taken]);
        self.read += taken;
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        }
        Ok(taken)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum State {
    Shaking(Box<MidHandshake<ClientHandshake<Memory>>>),
    Open(Box<WebSocket<Memory>>),
    Broken,
}

/// One WebSocket of subprotocol `conch.1`.
pub(super) struct MemoryWebSocket {
    state: State,
}

impl MemoryWebSocket {
    /// Begins the handshake. `host`: `ip:port`.
    pub(super) fn start(host: &str, out: &mut Vec<u8>) -> Result<MemoryWebSocket, Breach> {
        let mut request = format!("ws://{host}/v1/ws")
            .into_client_request()
            .map_err(breach)?;
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", subprotocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(16 << 20));
        match client_with_config(request, Memory::default(), Some(config)) {
            Err(HandshakeError::Interrupted(mut shaking)) => {
                out.append(&mut shaking.get_mut().get_mut().output);
                let state = State::Shaking(Box::new(shaking));
                Ok(MemoryWebSocket { state })
            }
            Err(HandshakeError::Failure(error)) => Err(breach(error)),
            Ok(_) => Err(Breach::new(
                "an upgrade was answered before it was asked for",
            )),
        }
    }

    /// Takes what was read; gives the binary messages in it. `true`: the handshake is done, now or before.
    pub(super) fn take(
        &mut self,
        input: &[u8],
        messages: &mut Vec<Bytes>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Breach> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Shaking(mut shaking) => {
                let memory = shaking.get_mut().get_mut();
                memory.input.extend_from_slice(input);
                // Tungstenite takes an answer in many small parts for an attack: it gets the whole.
                let is_whole = memory.input.windows(4).any(|it| it == b"\r\n\r\n");
                if !is_whole {
                    self.state = State::Shaking(shaking);
                    return Ok(false);
                }
                self.state = match shaking.handshake() {
                    Ok((socket, _)) => State::Open(Box::new(socket)),
                    Err(HandshakeError::Interrupted(shaking)) => State::Shaking(Box::new(shaking)),
                    Err(HandshakeError::Failure(error)) => return Err(breach(error)),
                };
            }
            State::Open(mut socket) => {
                socket.get_mut().input.extend_from_slice(input);
                self.state = State::Open(socket);
            }
            State::Broken => return Err(Breach::new("the WebSocket has failed before")),
        }
        let State::Open(socket) = &mut self.state else {
            return Ok(false);
        };
        loop {
            match socket.read() {
                Ok(Message::Binary(bytes)) => messages.push(bytes),
                Ok(Message::Close(close)) => {
                    let why = close.map(|it| format!("{} {}", it.code, it.reason));
                    return Err(Breach(format!(
                        "the node closed: {}",
                        why.unwrap_or_default()
                    )));
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    break;
                }
                Err(error) => return Err(breach(error)),
            }
        }
        out.append(&mut socket.get_mut().output);
        Ok(true)
    }

    /// Sends one binary message; only once the handshake is done.
    pub(super) fn send(&mut self, message: Bytes, out: &mut Vec<u8>) -> Result<(), Breach> {
        let State::Open(socket) = &mut self.state else {
            return Err(Breach::new("a message before the handshake is done"));
        };
        socket.send(Message::Binary(message)).map_err(breach)?;
        out.append(&mut socket.get_mut().output);
        Ok(())
    }
}

fn breach(error: impl std::fmt::Display) -> Breach {
    Breach(format!("WebSocket: {error}"))
}

/// The other end, for tests: a server without a socket.
#[cfg(test)]
pub(super) struct FakeNode {
    socket: WebSocket<Memory>,
}

#[cfg(test)]
impl FakeNode {
    /// Answers a whole request.
    pub(super) fn accept(request: &[u8]) -> FakeNode {
        use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
        #[allow(clippy::result_large_err)] // the signature is tungstenite's
        fn select(_: &Request, mut answer: Response) -> Result<Response, ErrorResponse> {
            let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
            answer
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", subprotocol);
            Ok(answer)
        }
        let memory = Memory {
            input: request.to_vec(),
            ..Memory::default()
        };
        let socket = tungstenite::accept_hdr(memory, select).expect("the request is whole");
        FakeNode { socket }
    }

    /// Everything that it has written since the last time, with `messages` behind it.
    pub(super) fn say(&mut self, messages: &[Bytes]) -> Vec<u8> {
        for message in messages {
            let sent = self.socket.send(Message::Binary(message.clone()));
            sent.expect("memory takes every write");
        }
        std::mem::take(&mut self.socket.get_mut().output)
    }

    /// Messages in what the client has sent.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        self.socket.get_mut().input.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Ok(Message::Binary(message)) = self.socket.read() {
            messages.push(message);
        }
        messages
    }
}
