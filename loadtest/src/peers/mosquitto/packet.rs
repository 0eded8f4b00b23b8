//! MQTT 3.1.1 packets, as far as a client at QoS 1 sees them.

use crate::peers::codec::Breach;

pub(super) const CONNACK: u8 = 2;
pub(super) const PUBLISH: u8 = 3;
pub(super) const PUBACK: u8 = 4;
pub(super) const SUBACK: u8 = 9;
pub(super) const PINGRESP: u8 = 13;

/// Low bits of a PUBLISH at QoS 1, first attempt.
const AT_LEAST_ONCE: u8 = 0x2;

/// A packet, not looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packet<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) body: &'a [u8],
    /// Bytes of the input that it took.
    pub(super) consumed: usize,
}

/// Cuts the first whole packet off `input`. `Ok(None)`: more bytes are needed.
pub(super) fn cut(input: &[u8]) -> Result<Option<Packet<'_>>, Breach> {
    let Some((first, rest)) = input.split_first() else {
        return Ok(None);
    };
    let (mut length, mut at) = (0, 0);
    loop {
        let Some(byte) = rest.get(at) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at == 4 {
            return Err(Breach::new("MQTT sent a length of more than four bytes"));
        }
    }
    Ok(rest.get(at..at + length).map(|body| Packet {
        kind: first >> 4,
        flags: first & 0xf,
        body,
        consumed: 1 + at + length,
    }))
}

/// What a PUBLISH at QoS 1 holds: packet id and payload. `None` when it is not one.
pub(super) fn published<'a>(packet: &Packet<'a>) -> Option<(u16, &'a [u8])> {
    if packet.flags & 0x6 != AT_LEAST_ONCE {
        return None;
    }
    let (length, rest) = packet.body.split_first_chunk::<2>()?;
    let behind = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
    let (id, payload) = behind.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*id), payload))
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = length as u8 & 0x7f;
        length >>= 7;
        if length == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a CONNECT with a clean session and without keep-alive.
pub(super) fn put_connect(out: &mut Vec<u8>, client: &str) {
    out.push(0x10);
    put_length(out, 10 + 2 + client.len());
    put_string(out, "MQTT");
    out.extend_from_slice(&[4, 2, 0, 0]);
    put_string(out, client);
}

/// Appends a SUBSCRIBE at QoS 1.
pub(super) fn put_subscribe(out: &mut Vec<u8>, id: u16, topic: &str) {
    out.push(0x82);
    put_length(out, 2 + 2 + topic.len() + 1);
    out.extend_from_slice(&id.to_be_bytes());
    put_string(out, topic);
    out.push(1);
}

/// Appends a PUBLISH at QoS 1.
pub(super) fn put_publish(out: &mut Vec<u8>, id: u16, topic: &str, payload: &[u8]) {
    out.push(PUBLISH << 4 | AT_LEAST_ONCE);
    put_length(out, 2 + topic.len() + 2 + payload.len());
    put_string(out, topic);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a PUBACK.
pub(super) fn put_puback(out: &mut Vec<u8>, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[PUBACK << 4, 2, high, low]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn packets_are_these_bytes() {
        let mut out = Vec::new();
        put_connect(&mut out, "ab");
        assert_eq!(out, b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab");
        out.clear();
        put_subscribe(&mut out, 1, "c/7");
        assert_eq!(out, b"\x82\x08\0\x01\0\x03c/7\x01");
        out.clear();
        put_publish(&mut out, 0x0102, "c/7", b"hi");
        assert_eq!(out, b"\x32\x09\0\x03c/7\x01\x02hi");
        let packet = cut(&out).unwrap().unwrap();
        assert_eq!(published(&packet), Some((0x0102, &b"hi"[..])));
        assert_eq!(packet.consumed, out.len());
    }

    #[test]
    fn lengths_of_every_size_are_read_as_they_are_written() {
        for length in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = vec![0x30];
            put_length(&mut out, length);
            let head = out.len();
            assert_eq!(
                cut(&out).unwrap().map(|it| it.consumed),
                (length == 0).then_some(head)
            );
            out.resize(head + length, 0);
            assert_eq!(cut(&out).unwrap().unwrap().body.len(), length);
        }
        assert!(cut(&[0x30, 0x80, 0x80, 0x80, 0x80, 1]).is_err());
    }
}
