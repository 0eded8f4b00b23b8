//! One stream for all channels and a push consumer per receiver, made over a connection of their own before the load begins.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::jetstream::deliver_subject;
use super::text::{self, Operation};
use crate::peers::topology::Line;

const STREAM: &str = "BENCH";
const INBOX: &str = "_INBOX.setup";
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Makes what `lines` will use. Blocking.
pub(super) fn make_stream(address: SocketAddr, lines: &[Line]) -> Result<()> {
    let mut api = Requests::connect(address)?;
    let stream = json!({
        "name": STREAM, "subjects": ["c.*"], "storage": "file", "retention": "limits", "discard": "old",
        "num_replicas": 1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
    });
    api.request(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &stream)?;
    for (at, line) in lines.iter().enumerate() {
        let Line::Receiver { channel } = line else {
            continue;
        };
        let name = format!("line{at}");
        let consumer = json!({
            "stream_name": STREAM,
            "config": {
                "durable_name": name, "deliver_subject": deliver_subject(at), "filter_subject": text::subject(*channel),
                "deliver_policy": "all", "ack_policy": "explicit", "replay_policy": "instant", "max_ack_pending": 10_000,
            },
        });
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{name}");
        api.request(&subject, &consumer)?;
    }
    Ok(())
}

/// Requests one after the other.
struct Requests {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Requests {
    fn connect(address: SocketAddr) -> Result<Requests> {
        let mut socket = TcpStream::connect(address).context("connect to NATS")?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut start = Vec::new();
        text::put_start(&mut start, &[INBOX.to_owned()]);
        socket.write_all(&start)?;
        let unread = Vec::new();
        Ok(Requests { socket, unread })
    }

    fn request(&mut self, subject: &str, body: &Value) -> Result<()> {
        let mut request = Vec::new();
        let body = body.to_string();
        text::put_publish(
            &mut request,
            subject.as_bytes(),
            Some(INBOX.as_bytes()),
            body.as_bytes(),
        );
        self.socket.write_all(&request)?;
        let answer = self
            .answer()
            .with_context(|| format!("{subject}: no answer"))?;
        ensure!(
            answer.get("error").is_none(),
            "{subject} was refused: {answer}"
        );
        Ok(())
    }

    fn answer(&mut self) -> Result<Value> {
        let mut chunk = [0; 16 << 10];
        loop {
            while let Some((operation, used)) = text::cut(&self.unread)? {
                let answer = match operation {
                    Operation::Message { payload, .. } => Some(serde_json::from_slice(payload)?),
                    _ => None,
                };
                self.unread.drain(..used);
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            }
            let read = self.socket.read(&mut chunk)?;
            if read == 0 {
                bail!("NATS closed the connection");
            }
            self.unread.extend_from_slice(&chunk[..read]);
        }
    }
}
