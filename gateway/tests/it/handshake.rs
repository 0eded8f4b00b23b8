//! Before a session: the upgrade and HELLO. Rows A06, A08, A10, A11.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use conch_gateway::clock::Clock;
use conch_wire::event::SendFlags;
use conch_wire::frame::{Hello, Send};
use conch_wire::{ClientFrame, Code, MessageKey, ServerFrame, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{cursor, encoded, hello};
use crate::world::{SOON, with, world};

/// A GET of the WebSocket's route with these further headers; gives the head of the answer.
pub(crate) async fn upgrade(
    http: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {http}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    (stream, head)
}

pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let read = async {
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
            head.push(byte[0]);
        }
    };
    timeout(SOON, read).await.expect("in time");
    String::from_utf8(head).unwrap()
}

pub(crate) const GOOD: &[(&str, &str)] = &[
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "other, conch.1"),
];

fn changed<'a>(name: &str, value: Option<&'a str>) -> Vec<(&'a str, &'a str)>
where
    'static: 'a,
{
    let mut headers: Vec<(&str, &str)> = GOOD.iter().copied().filter(|(n, _)| *n != name).collect();
    if let (Some(value), Some((known, _))) = (value, GOOD.iter().find(|(n, _)| *n == name)) {
        headers.push((known, value));
    }
    headers
}

fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn the_upgrade_selects_the_subprotocol_and_no_extension() {
    let world = world().await;
    let mut headers = GOOD.to_vec();
    headers.push(("Sec-WebSocket-Extensions", "permessage-deflate"));
    let (_stream, head) = upgrade(world.node.http, "/v1/ws", &headers).await;
    assert_eq!(status(&head), 101);
    let head = head.to_ascii_lowercase();
    assert!(head.contains("sec-websocket-protocol: conch.1\r\n"));
    // The example of RFC 6455.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
    assert!(
        !head.contains("sec-websocket-extensions"),
        "A09: nothing to inflate"
    );
}

#[tokio::test]
async fn a08_a_bad_handshake_is_refused_before_the_upgrade() {
    let world = world().await;
    for (name, value, expected) in [
        ("Upgrade", None, 426),
        ("Connection", Some("close"), 426),
        ("Sec-WebSocket-Version", Some("8"), 426),
        ("Sec-WebSocket-Version", None, 426),
        ("Sec-WebSocket-Key", None, 400),
        ("Sec-WebSocket-Key", Some("c2hvcnQ="), 400),
        ("Sec-WebSocket-Key", Some("not base64 at all!"), 400),
        ("Sec-WebSocket-Protocol", None, 400),
        ("Sec-WebSocket-Protocol", Some("conch.2"), 426),
        ("Sec-WebSocket-Protocol", Some("CONCH.1"), 426),
    ] {
        let (_stream, head) = upgrade(world.node.http, "/v1/ws", &changed(name, value)).await;
        assert_eq!(status(&head), expected, "{name} {value:?}\n{head}");
        if expected == 426 {
            assert!(
                head.to_ascii_lowercase()
                    .contains("sec-websocket-version: 13"),
                "{head}"
            );
        }
    }
}

#[tokio::test]
async fn a08_too_many_or_too_large_headers_are_refused() {
    let world = world().await;
    let names: Vec<String> = (0..10_000).map(|n| format!("X-{n}")).collect();
    let mut many = GOOD.to_vec();
    many.extend(names[..100].iter().map(|n| (n.as_str(), "v")));
    let (_stream, head) = upgrade(world.node.http, "/v1/ws", &many).await;
    assert_eq!(status(&head), 431, "{head}");

    for text in [
        format!("GET /v1/ws HTTP/1.1\r\nX-Big: {}", "x".repeat(1 << 20)),
        format!(
            "GET /v1/ws HTTP/1.1\r\n{}",
            names
                .iter()
                .map(|n| format!("{n}: v\r\n"))
                .collect::<String>()
        ),
    ] {
        let mut stream = TcpStream::connect(world.node.http).await.unwrap();
        // The node stops reading long before the end: writing may fail.
        let _ = timeout(SOON, stream.write_all(text.as_bytes())).await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("it ends");
        let head = String::from_utf8_lossy(&answer);
        assert!(head.is_empty() || status(&head) == 431, "{head}");
    }
}

#[tokio::test]
async fn a08_headers_that_trickle_in_end_after_five_seconds() {
    let world = world().await;
    let mut stream = TcpStream::connect(world.node.http).await.unwrap();
    let began = Instant::now();
    let (mut reading, mut writing) = stream.split();
    let trickle = async {
        for byte in "GET /v1/ws HTTP/1.1\r\nX-Slow: "
            .bytes()
            .chain(std::iter::repeat(b'x'))
        {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = async {
        let mut sink = Vec::new();
        let _ = reading.read_to_end(&mut sink).await;
    };
    tokio::select! {
        () = trickle => {}
        () = ended => {}
        () = tokio::time::sleep(SOON) => panic!("still open"),
    }
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < Duration::from_secs(8),
        "{took:?}"
    );
}

#[tokio::test]
async fn a10_foreign_pages_may_not_connect() {
    let world = with(
        |s| s.http.allowed_origins = vec!["https://chat.example".to_owned()],
        Clock::system(),
    )
    .await;
    let own = format!("http://{}", world.node.http);
    let port = world.node.http.port();
    for (origin, expected) in [
        (own.clone(), 101),
        ("https://chat.example".to_owned(), 101),
        ("https://evil.example".to_owned(), 403),
        ("null".to_owned(), 403),
        ("https://chat.example.evil.example".to_owned(), 403),
        ("https://chat.example:444".to_owned(), 403),
        ("http://chat.example".to_owned(), 403),
        ("https://Chat.example".to_owned(), 403),
        (format!("http://127.0.0.1:{}", port ^ 1), 403),
        (format!("https://127.0.0.1:{port}"), 403),
    ] {
        let mut headers = GOOD.to_vec();
        headers.push(("Origin", &origin));
        let (_stream, head) = upgrade(world.node.http, "/v1/ws", &headers).await;
        assert_eq!(status(&head), expected, "{origin}\n{head}");
    }
    let (_stream, head) = upgrade(world.node.http, "/v1/ws", GOOD).await;
    assert_eq!(status(&head), 101, "programs send no origin");
}

#[tokio::test]
async fn a42_only_listed_origins_may_use_the_http_api_from_a_page() {
    let listed = "https://chat.example";
    let world = with(
        |s| s.http.allowed_origins = vec![listed.to_owned()],
        Clock::system(),
    )
    .await;
    let http = reqwest::Client::new();
    let at = |path: &str| format!("http://{}{path}", world.node.http);
    let ask = async |origin: &str, method: reqwest::Method, path: &str| {
        let request = http
            .request(method, at(path))
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization");
        request.send().await.unwrap()
    };
    let preflight = ask(listed, reqwest::Method::OPTIONS, "/v1/sessions").await;
    assert_eq!(preflight.status(), 200);
    let headers = preflight.headers();
    assert_eq!(headers["access-control-allow-origin"], listed);
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("authorization"), "{allowed}");
    assert!(headers.get("access-control-allow-credentials").is_none());
    // A refusal is as readable as an answer.
    let refused = ask(listed, reqwest::Method::GET, "/v1/me").await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["access-control-allow-origin"], listed);
    for foreign in [
        "https://evil.example",
        "null",
        "https://chat.example.evil.example",
    ] {
        for method in [reqwest::Method::OPTIONS, reqwest::Method::GET] {
            let answer = ask(foreign, method, "/v1/node").await;
            let allow = answer.headers().get("access-control-allow-origin");
            assert!(allow.is_none(), "{foreign}: {allow:?}");
        }
    }
}

#[tokio::test]
async fn without_a_list_there_is_no_cors() {
    let world = world().await;
    let answer = reqwest::Client::new()
        .request(
            reqwest::Method::OPTIONS,
            format!("http://{}/v1/node", world.node.http),
        )
        .header("Origin", "https://chat.example")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 405);
    assert!(
        answer
            .headers()
            .get("access-control-allow-origin")
            .is_none()
    );
}

#[tokio::test]
async fn a11_a_token_in_the_url_is_not_accepted() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    for query in ["token", "access_token", "ticket"] {
        let path = format!("/v1/ws?{query}={}", ann.token);
        let (_stream, head) = upgrade(world.node.http, &path, GOOD).await;
        assert_eq!(status(&head), 400, "{head}");
        let path = format!("/v1/me?{query}={}", ann.token);
        assert_eq!(world.call("GET", &path, None, None).await.0, 401);
    }
    // Nor in a header of the upgrade: HELLO is the only place.
    let bearer = format!("Bearer {}", ann.token);
    let mut headers = GOOD.to_vec();
    headers.push(("Authorization", &bearer));
    let (_stream, head) = upgrade(world.node.http, "/v1/ws", &headers).await;
    assert_eq!(status(&head), 101);
}

#[tokio::test]
async fn a06_nothing_is_looked_at_before_hello() {
    let world = world().await;
    let send = Send {
        key: MessageKey([1; 16]),
        alias: 1,
        kind: 1,
        flags: SendFlags::default(),
        tail: b"early",
    };
    for frame in [
        ClientFrame::Ping { nonce: 1 },
        ClientFrame::Send { request: 1, send },
        ClientFrame::Credit { bytes: 10 },
        ClientFrame::Goodbye,
        ClientFrame::OpenChannel {
            request: 1,
            cursor: cursor(conch_wire::ChannelId(1), 1, 0, 0),
        },
    ] {
        let mut client = world.connect().await;
        client.say(&frame).await;
        let code = Code::Unauthenticated;
        assert_eq!(
            client.closed().await,
            (code.number(), Some(code)),
            "{frame:?}"
        );
    }
    // A frame of a later version that may be skipped: not before HELLO either.
    let mut client = world.connect().await;
    let mut later = BytesMut::new();
    later.put_slice(&[0x9f, 0, 0, 0, 0, 0, 0, 0]);
    client.say_bytes(later.freeze()).await;
    assert_eq!(client.closed().await.0, Code::Unauthenticated.number());
}

#[tokio::test]
async fn a06_a_connection_that_says_nothing_is_closed_after_five_seconds() {
    let clock = Clock::manual(1_800_000_000_000);
    let world = with(|_| {}, clock.clone()).await;
    let mut client = world.connect().await;
    let mut late = world.connect().await;
    clock.advance(4_000);
    late.say(&ClientFrame::Hello(hello("bad"))).await;
    assert_eq!(late.closed().await.0, Code::Unauthenticated.number());
    clock.advance(1_001);
    assert_eq!(client.closed().await.0, Code::HelloTimeout.number());
}

#[tokio::test]
async fn a_hello_that_is_refused_closes_with_its_code() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    for (token, code) in [
        (String::new(), Code::Unauthenticated),
        ("x".repeat(5_000), Code::Unauthenticated),
        (format!("{}x", ann.token), Code::Unauthenticated),
        (ann.refresh_token.clone(), Code::Unauthenticated),
    ] {
        let mut client = world.connect().await;
        client.say(&ClientFrame::Hello(hello(&token))).await;
        assert_eq!(client.closed().await, (code.number(), Some(code)));
    }
}

#[tokio::test]
async fn a01_a_hello_above_its_limit_closes_by_its_header_alone() {
    let world = world().await;
    for claimed in [limits::HELLO_BYTES_MAX as u32, 500_000, 0xff_ffff] {
        let mut client = world.connect().await;
        let mut header = BytesMut::new();
        header.put_u32_le(claimed << 8 | 0x01);
        header.put_u32_le(0);
        client.say_bytes(header.freeze()).await;
        assert_eq!(client.closed().await.0, Code::TooLarge.number());
    }
    // After it frames may be larger; the cap holds all the same.
    let ann = world.sign_up("ann").await;
    let mut client = world.enter(&ann).await;
    let mut header = BytesMut::new();
    header.put_u32_le((limits::FRAME_BYTES_MAX as u32) << 8 | 0x03);
    header.put_u32_le(0);
    client.say_bytes(header.freeze()).await;
    assert_eq!(client.closed().await.0, Code::TooLarge.number());
}

#[tokio::test]
async fn hello_comes_once() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let mut client = world.enter(&ann).await;
    client.say(&ClientFrame::Hello(hello(&ann.token))).await;
    let code = Code::UnexpectedFrame;
    assert_eq!(client.closed().await, (code.number(), Some(code)));
}

#[tokio::test]
async fn sends_pipelined_behind_hello_are_handled_after_it() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    for one_message in [true, false] {
        let mut client = world.connect().await;
        let hello = encoded(&ClientFrame::Hello(Hello {
            cursors: vec![cursor(channel, 3, 0, 0)],
            ..hello(&ann.token)
        }));
        let send = Send {
            key: MessageKey([u8::from(one_message); 16]),
            alias: 3,
            kind: 1,
            flags: SendFlags::default(),
            tail: b"pipelined",
        };
        let send = encoded(&ClientFrame::Send { request: 8, send });
        if one_message {
            client.say_bytes([hello, send].concat().into()).await;
        } else {
            client.say_bytes(hello).await;
            client.say_bytes(send).await;
        }
        assert!(matches!(client.next().await, Ok(ServerFrame::Welcome(_))));
        client.answer_of(8).await.unwrap();
    }
    // Behind a HELLO that is refused nothing is looked at.
    let mut client = world.connect().await;
    let bad = encoded(&ClientFrame::Hello(hello("bad")));
    let ping = encoded(&ClientFrame::Ping { nonce: 5 });
    client.say_bytes([bad, ping].concat().into()).await;
    let code = Code::Unauthenticated;
    assert_eq!(client.closed().await, (code.number(), Some(code)));
}

#[tokio::test]
async fn a_cursor_of_a_channel_that_is_not_mine_is_refused_alone() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let carl = world.sign_up("carl").await;
    let channel = world.direct(&ann, &ben).await;
    let mine = world.direct(&carl, &ben).await;
    let mut client = world.connect().await;
    client
        .hello_with(Hello {
            cursors: vec![cursor(mine, 1, 0, 0), cursor(channel, 2, 1, 1)],
            ..hello(&carl.token)
        })
        .await;
    let frames = client.passed();
    let refused = frames.iter().find_map(|f| match f {
        ServerFrame::Error { request: 0, error } => {
            Some((error.code, error.refused_type, error.item))
        }
        _ => None,
    });
    assert_eq!(refused, Some((Code::NotFound, 0x0c, 1)));
    assert!(frames.iter().any(
        |f| matches!(f, ServerFrame::ChannelOpened { opened, .. } if opened.head.channel == mine)
    ));
}
