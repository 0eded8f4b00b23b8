//! A client of JetStream: publishes with a reply subject and waits for the stream's ack; its push consumer delivers, and every
//! delivery is acknowledged.

use std::fmt::Write;

use super::text::{self, Operation};
use crate::peers::codec::{Breach, Codec, Happening};
use crate::peers::topology::Line;

/// Where the consumer of a line delivers to.
pub(super) fn deliver_subject(at: usize) -> String {
    format!("d.{at}")
}

/// One connection.
#[derive(Debug)]
pub(super) struct JetStreamCodec {
    line: Line,
    subject: String,
    /// Everything in front of a message's number in the subject that its ack comes to.
    inbox: String,
    subscription: String,
    next_publish: u64,
    next_ack: u64,
    reply: String,
}

impl JetStreamCodec {
    /// `at`: the line's place, by which its consumer is called.
    pub(super) fn boxed(at: usize, line: Line) -> Box<dyn Codec> {
        let inbox = format!("_INBOX.{at}.");
        Box::new(JetStreamCodec {
            line,
            subject: text::subject(line.channel()),
            subscription: match line {
                Line::Sender { .. } => format!("{inbox}*"),
                Line::Receiver { .. } => deliver_subject(at),
            },
            inbox,
            next_publish: 0,
            next_ack: 0,
            reply: String::new(),
        })
    }

    /// The stream's answer to a publish must be for the one that is due, and say where the message lies.
    fn on_ack(&mut self, subject: &[u8], payload: &[u8]) -> Result<(), Breach> {
        let due = self.next_ack;
        let number = subject
            .strip_prefix(self.inbox.as_bytes())
            .and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
        let is_stored = contains(payload, b"\"seq\":") && !contains(payload, b"\"error\"");
        if number != Some(due) || !is_stored {
            let (subject, payload) = (
                String::from_utf8_lossy(subject),
                String::from_utf8_lossy(payload),
            );
            return Err(Breach(format!(
                "JetStream answered message {due} with {payload} to {subject}"
            )));
        }
        self.next_ack += 1;
        Ok(())
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|it| it == part)
}

impl Codec for JetStreamCodec {
    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Breach> {
        text::put_start(out, std::slice::from_ref(&self.subscription));
        Ok(())
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<usize, Breach> {
        let mut done = 0;
        while let Some((operation, used)) = text::cut(&input[done..])? {
            done += used;
            match (operation, self.line) {
                (Operation::Info, _) => {}
                (Operation::Ping, _) => out.extend_from_slice(b"PONG\r\n"),
                (Operation::Pong, _) => seen(Happening::Ready),
                (
                    Operation::Message {
                        subject, payload, ..
                    },
                    Line::Sender { .. },
                ) => {
                    self.on_ack(subject, payload)?;
                    seen(Happening::Acked { count: 1 });
                }
                (Operation::Message { reply, payload, .. }, Line::Receiver { .. }) => {
                    let reply = reply
                        .ok_or_else(|| Breach::new("a delivery without where to acknowledge it"))?;
                    seen(Happening::Delivered { payload });
                    text::put_publish(out, reply, None, b"");
                }
            }
        }
        Ok(done)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.reply.clear();
        write!(self.reply, "{}{}", self.inbox, self.next_publish)
            .expect("a String takes every write");
        self.next_publish += 1;
        let reply = Some(self.reply.as_bytes());
        text::put_publish(out, self.subject.as_bytes(), reply, payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::codec::{in_pieces, split_anywhere};

    #[test]
    fn deliveries_are_told_and_acknowledged_however_they_are_cut() {
        let input = b"PONG\r\nMSG c.3 1 $JS.ACK.B.x.1.1.1.1.0 2\r\nhi\r\n";
        let receiver = || JetStreamCodec::boxed(5, Line::Receiver { channel: 3 });
        let (seen, out) = split_anywhere(receiver, input);
        assert_eq!(seen, ["Ready", "Delivered { payload: [104, 105] }"]);
        assert_eq!(out, b"PUB $JS.ACK.B.x.1.1.1.1.0 0\r\n\r\n");
    }

    #[test]
    fn acks_are_told_in_their_order_only() {
        let ack = |number: u64| {
            let body = format!("{{\"stream\":\"B\", \"seq\":{}}}", number + 1);
            format!("MSG _INBOX.4.{number} 1 {}\r\n{body}\r\n", body.len())
        };
        let sender = || JetStreamCodec::boxed(4, Line::Sender { channel: 2 });
        let (seen, _) = split_anywhere(sender, [ack(0), ack(1)].concat().as_bytes());
        assert_eq!(seen, ["Acked { count: 1 }"; 2]);
        let swapped = [ack(1), ack(0)].concat();
        assert!(in_pieces(&mut *sender(), swapped.as_bytes(), swapped.len()).is_err());
    }

    #[test]
    fn a_refused_publish_is_a_breach() {
        let body = "{\"error\":{\"code\":503,\"description\":\"no space, \\\"seq\\\":1\"}}";
        let input = format!("MSG _INBOX.4.0 1 {}\r\n{body}\r\n", body.len());
        let mut sender = JetStreamCodec::boxed(4, Line::Sender { channel: 2 });
        assert!(in_pieces(&mut *sender, input.as_bytes(), input.len()).is_err());
    }

    #[test]
    fn a_publish_names_where_its_ack_goes() {
        let mut out = Vec::new();
        let mut sender = JetStreamCodec::boxed(4, Line::Sender { channel: 2 });
        sender.publish(b"a", &mut out);
        sender.publish(b"b", &mut out);
        assert_eq!(
            out,
            b"PUB c.2 _INBOX.4.0 1\r\na\r\nPUB c.2 _INBOX.4.1 1\r\nb\r\n"
        );
    }
}
