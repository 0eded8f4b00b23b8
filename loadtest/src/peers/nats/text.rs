//! The NATS client protocol: lines of text, and payloads of announced length behind two of them.

use std::io::Write;

use crate::peers::codec::Breach;

/// A line's length that no server of ours exceeds, INFO included.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Something that a server says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation<'a> {
    Info,
    Ping,
    Pong,
    Message {
        subject: &'a [u8],
        sid: &'a [u8],
        reply: Option<&'a [u8]>,
        payload: &'a [u8],
    },
}

/// Cuts the first whole operation off `input`, with its bytes. `Ok(None)`: more are needed.
pub(super) fn cut(input: &[u8]) -> Result<Option<(Operation<'_>, usize)>, Breach> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        if input.len() > LINE_BYTES_MAX {
            return Err(Breach::new("NATS sent a line without an end"));
        }
        return Ok(None);
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let after = end + 1;
    if let Some(arguments) = line.strip_prefix(b"MSG ") {
        return message(arguments, &input[after..])
            .map(|found| found.map(|(operation, payload)| (operation, after + payload)));
    }
    let operation = match line {
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        _ if line.starts_with(b"INFO ") => Operation::Info,
        _ => {
            return Err(Breach(format!(
                "NATS said {}",
                String::from_utf8_lossy(line)
            )));
        }
    };
    Ok(Some((operation, after)))
}

/// A MSG from its arguments, and the bytes of its payload with the line end behind it.
fn message<'a>(
    arguments: &'a [u8],
    rest: &'a [u8],
) -> Result<Option<(Operation<'a>, usize)>, Breach> {
    let wrong = || {
        let shown = String::from_utf8_lossy(arguments);
        Breach(format!("NATS sent a MSG that is none: {shown}"))
    };
    let mut fields = arguments.split(|byte| *byte == b' ');
    let subject = fields.next().ok_or_else(wrong)?;
    let sid = fields.next().ok_or_else(wrong)?;
    let third = fields.next().ok_or_else(wrong)?;
    let (reply, length) = match fields.next() {
        Some(length) => (Some(third), length),
        None => (None, third),
    };
    let length = std::str::from_utf8(length)
        .ok()
        .and_then(|it| it.parse::<usize>().ok());
    let length = length.ok_or_else(wrong)?;
    let Some(payload) = rest.get(..length + 2) else {
        return Ok(None);
    };
    let payload = payload.strip_suffix(b"\r\n").ok_or_else(wrong)?;
    let operation = Operation::Message {
        subject,
        sid,
        reply,
        payload,
    };
    Ok(Some((operation, length + 2)))
}

/// Appends a PUB.
pub(super) fn put_publish(out: &mut Vec<u8>, subject: &[u8], reply: Option<&[u8]>, payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject);
    out.push(b' ');
    if let Some(reply) = reply {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    write!(out, "{}\r\n", payload.len()).expect("a Vec takes every write");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends what a client says first: CONNECT, its subscriptions, and a PING whose PONG tells that all of it was heard.
pub(super) fn put_start(out: &mut Vec<u8>, subscriptions: &[String]) {
    out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"conch-load\",\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1}\r\n");
    for (sid, subject) in (1..).zip(subscriptions) {
        write!(out, "SUB {subject} {sid}\r\n").expect("a Vec takes every write");
    }
    out.extend_from_slice(b"PING\r\n");
}

/// The subject of a channel.
pub(super) fn subject(channel: u32) -> String {
    format!("c.{channel}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn operations_are_cut_whole() {
        let input = b"MSG c.1 9 a.reply 2\r\nhi\r\nPONG\r\n";
        let (operation, used) = cut(input).unwrap().unwrap();
        let expected = Operation::Message {
            subject: b"c.1",
            sid: b"9",
            reply: Some(b"a.reply"),
            payload: b"hi",
        };
        assert_eq!((operation, used), (expected, 25));
        assert_eq!(cut(&input[used..]), Ok(Some((Operation::Pong, 6))));
        for part in 0..used {
            assert_eq!(cut(&input[..part]), Ok(None), "{part} bytes");
        }
    }

    #[test]
    fn errors_and_nonsense_are_breaches() {
        assert!(cut(b"-ERR 'Unknown Protocol Operation'\r\n").is_err());
        assert!(cut(b"MSG c.1 9\r\n").is_err());
        assert!(cut(b"MSG c.1 9 many\r\n").is_err());
        assert!(cut(b"MSG c.1 9 2\r\nhi!!").is_err());
        assert!(cut(&[b'x'; LINE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_publish_is_these_bytes() {
        let mut out = Vec::new();
        put_publish(&mut out, b"c.7", None, b"hi");
        put_publish(&mut out, b"c.7", Some(b"r.1"), b"");
        assert_eq!(out, b"PUB c.7 2\r\nhi\r\nPUB c.7 r.1 0\r\n\r\n");
    }
}
