//! A client at QoS 1: waits for PUBACK, sends PUBACK for what it gets.

use super::packet::{self, CONNACK, PINGRESP, PUBACK, PUBLISH, SUBACK};
use crate::peers::codec::{Breach, Codec, Happening};
use crate::peers::topology::Line;

/// The packet id of SUBSCRIBE.
const SUBSCRIBING: u16 = 1;

/// One connection.
#[derive(Debug)]
pub(super) struct MqttCodec {
    line: Line,
    client: String,
    topic: String,
    next_publish: u16,
    next_ack: u16,
}

impl MqttCodec {
    /// `at`: the line's place, by which the client is called.
    pub(super) fn boxed(at: usize, line: Line) -> Box<dyn Codec> {
        Box::new(MqttCodec {
            line,
            client: format!("line{at}"),
            topic: format!("c/{}", line.channel()),
            next_publish: 1,
            next_ack: 1,
        })
    }
}

/// Ids go round; 0 is none.
fn after(id: u16) -> u16 {
    id.checked_add(1).unwrap_or(1)
}

impl Codec for MqttCodec {
    fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Breach> {
        packet::put_connect(out, &self.client);
        if !self.line.sends() {
            packet::put_subscribe(out, SUBSCRIBING, &self.topic);
        }
        Ok(())
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(Happening<'_>),
    ) -> Result<usize, Breach> {
        let mut done = 0;
        while let Some(packet) = packet::cut(&input[done..])? {
            done += packet.consumed;
            match (packet.kind, packet.body) {
                (CONNACK, [_, 0]) if self.line.sends() => seen(Happening::Ready),
                (CONNACK, [_, 0]) | (PINGRESP, _) => {}
                // Return code 1: the QoS that was asked for.
                (SUBACK, [_, _, 1]) => seen(Happening::Ready),
                (PUBACK, [high, low]) => {
                    let (id, due) = (u16::from_be_bytes([*high, *low]), self.next_ack);
                    if id != due {
                        return Err(Breach(format!(
                            "MQTT acknowledged packet {id} where {due} is due"
                        )));
                    }
                    self.next_ack = after(due);
                    seen(Happening::Acked { count: 1 });
                }
                (PUBLISH, _) => {
                    let (id, payload) = packet::published(&packet)
                        .ok_or_else(|| Breach::new("MQTT delivered at another QoS than 1"))?;
                    seen(Happening::Delivered { payload });
                    packet::put_puback(out, id);
                }
                (kind, body) => {
                    return Err(Breach(format!(
                        "MQTT sent a packet of type {kind}: {body:?}"
                    )));
                }
            }
        }
        Ok(done)
    }

    fn publish(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        packet::put_publish(out, self.next_publish, &self.topic, payload);
        self.next_publish = after(self.next_publish);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::codec::{in_pieces, split_anywhere};

    const CONNECTED: &[u8] = b"\x20\x02\0\0";

    #[test]
    fn deliveries_are_told_and_acknowledged_however_they_are_cut() {
        let input = [
            CONNECTED,
            b"\x90\x03\0\x01\x01",
            b"\x32\x09\0\x03c/7\0\x09hi",
        ]
        .concat();
        let receiver = || MqttCodec::boxed(1, Line::Receiver { channel: 7 });
        let (seen, out) = split_anywhere(receiver, &input);
        assert_eq!(seen, ["Ready", "Delivered { payload: [104, 105] }"]);
        assert_eq!(out, b"\x40\x02\0\x09");
    }

    #[test]
    fn acks_are_told_in_their_order_only() {
        let sender = || MqttCodec::boxed(0, Line::Sender { channel: 7 });
        let input = [CONNECTED, b"\x40\x02\0\x01", b"\x40\x02\0\x02"].concat();
        let (seen, _) = split_anywhere(sender, &input);
        assert_eq!(seen, ["Ready", "Acked { count: 1 }", "Acked { count: 1 }"]);
        assert!(in_pieces(&mut *sender(), b"\x40\x02\0\x02", 4).is_err());
    }

    #[test]
    fn a_refused_connection_or_subscription_is_a_breach() {
        for input in [&b"\x20\x02\0\x05"[..], b"\x90\x03\0\x01\x80"] {
            let mut receiver = MqttCodec::boxed(1, Line::Receiver { channel: 7 });
            assert!(in_pieces(&mut *receiver, input, input.len()).is_err());
        }
    }

    #[test]
    fn ids_go_round_without_zero() {
        assert_eq!((after(1), after(u16::MAX)), (2, 1));
    }
}
