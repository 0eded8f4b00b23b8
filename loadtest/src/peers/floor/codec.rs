//! The client's half of the floor's protocol.

use super::frame::{self, ACK, CHANNEL_MAX, DELIVER, SUBSCRIBED};
use crate::peers::codec::{Breach, Codec, Happening};
use crate::peers::topology::Line;

/// One connection to the floor.
#[derive(Debug)]
pub struct FloorCodec {
    line: Line,
    /// The seq that the next ack or delivery must have.
    next_seq: u32,
}

impl FloorCodec {
    pub fn boxed(line: Line) -> Box<dyn Codec> {
        Box::new(FloorCodec { line, next_seq: 1 })
    }

    fn expect(&mut self, rest: &[u8]) -> Result<usize, Breach> {
        let (seq, payload) = frame::number(rest)
            .ok_or_else(|| Breach::new("the floor sent a frame without a seq"))?;
        if seq != self.next_seq {
            let next = self.next_seq;
            return Err(Breach::new(format!(
                "the floor sent seq {seq} where {next} is due"
            )));
        }
        self.next_seq += 1;
        Ok(payload.len())
    }
}

impl Codec for FloorCodec {
    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Breach> {
        // A sender subscribes to nothing, but asks all the same, to know that it was heard: to a channel that nobody uses.
        let channel = match self.line {
            Line::Sender { .. } => CHANNEL_MAX,
            Line::Receiver { channel } => channel,
        };
        frame::put(out, frame::SUBSCRIBE, &[channel], &[]);
        Ok(())
    }

    fn take(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<usize, Breach> {
        let mut done = 0;
        let mut acked = 0;
        while let Some(frame) = frame::cut(&input[done..]).map_err(Breach::new)? {
            done += frame.consumed;
            match frame.kind {
                SUBSCRIBED => seen(Happening::Ready),
                ACK => {
                    self.expect(frame.rest)?;
                    acked += 1;
                }
                DELIVER => {
                    let bytes = self.expect(frame.rest)?;
                    let payload = &frame.rest[frame.rest.len() - bytes..];
                    seen(Happening::Delivered { payload });
                }
                kind => {
                    return Err(Breach::new(format!(
                        "the floor sent a frame of type {kind}"
                    )));
                }
            }
        }
        if acked > 0 {
            seen(Happening::Acked { count: acked });
        }
        Ok(done)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        frame::put(out, frame::PUBLISH, &[self.line.channel()], payload);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;
    use crate::peers::codec::split_anywhere;

    #[test]
    fn acks_and_deliveries_are_told_however_they_are_cut() {
        let mut input = vec![SUBSCRIBED, 4, 0, 9, 0, 0, 0];
        input.extend([DELIVER, 10, 0, 9, 0, 0, 0, 1, 0, 0, 0, b'h', b'i']);
        input.extend([DELIVER, 9, 0, 9, 0, 0, 0, 2, 0, 0, 0, b'!']);
        let receiver = || FloorCodec::boxed(Line::Receiver { channel: 9 });
        let (seen, out) = split_anywhere(receiver, &input);
        let delivered = |bytes: &[u8]| format!("Delivered {{ payload: {bytes:?} }}");
        assert_eq!(
            seen,
            ["Ready".to_owned(), delivered(b"hi"), delivered(b"!")]
        );
        assert!(out.is_empty());
    }

    #[test]
    fn acks_of_one_read_are_one() {
        let mut codec = FloorCodec::boxed(Line::Sender { channel: 1 });
        let input = [
            ACK, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, ACK, 8, 0, 1, 0, 0, 0, 2, 0, 0, 0,
        ];
        let mut acked = 0;
        let mut count = |it: Happening<'_>| {
            if let Happening::Acked { count } = it {
                acked += count;
            }
        };
        assert_eq!(
            codec.take(&input, &mut Vec::new(), &mut count),
            Ok(input.len())
        );
        assert_eq!(acked, 2);
    }

    #[test]
    fn a_seq_out_of_its_place_is_a_breach() {
        let mut codec = FloorCodec::boxed(Line::Receiver { channel: 1 });
        let input = [DELIVER, 8, 0, 1, 0, 0, 0, 2, 0, 0, 0];
        let taken = codec.take(&input, &mut Vec::new(), &mut |_| {});
        assert!(taken.unwrap_err().to_string().contains("seq 2 where 1"));
    }
}
