//! A client of NATS core: publishes into the dark, gets what it subscribed to.

use super::text::{self, Operation};
use crate::peers::codec::{Breach, Codec, Happening};
use crate::peers::topology::Line;

/// One connection.
#[derive(Debug)]
pub(super) struct CoreCodec {
    line: Line,
    subject: String,
}

impl CoreCodec {
    pub(super) fn boxed(line: Line) -> Box<dyn Codec> {
        let subject = text::subject(line.channel());
        Box::new(CoreCodec { line, subject })
    }
}

impl Codec for CoreCodec {
    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Breach> {
        let subscriptions = match self.line {
            Line::Sender { .. } => vec![],
            Line::Receiver { .. } => vec![self.subject.clone()],
        };
        text::put_start(out, &subscriptions);
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
            match operation {
                Operation::Info => {}
                Operation::Ping => out.extend_from_slice(b"PONG\r\n"),
                Operation::Pong => seen(Happening::Ready),
                Operation::Message { payload, .. } => seen(Happening::Delivered { payload }),
            }
        }
        Ok(done)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        text::put_publish(out, self.subject.as_bytes(), None, payload);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;
    use crate::peers::codec::split_anywhere;

    #[test]
    fn a_conversation_means_the_same_however_it_is_cut() {
        let input = b"INFO {\"x\":1}\r\nPONG\r\nPING\r\nMSG c.3 1 2\r\n\r\n\r\nMSG c.3 1 0\r\n\r\n";
        let receiver = || CoreCodec::boxed(Line::Receiver { channel: 3 });
        let (seen, out) = split_anywhere(receiver, input);
        let delivered = |bytes: &[u8]| format!("Delivered {{ payload: {bytes:?} }}");
        assert_eq!(
            seen,
            ["Ready".to_owned(), delivered(b"\r\n"), delivered(b"")]
        );
        assert_eq!(out, b"PONG\r\n");
    }

    #[test]
    fn a_receiver_subscribes_to_its_channel() {
        let mut out = Vec::new();
        CoreCodec::boxed(Line::Receiver { channel: 3 })
            .start(&mut out)
            .unwrap();
        assert!(out.ends_with(b"\r\nSUB c.3 1\r\nPING\r\n"));
    }
}
