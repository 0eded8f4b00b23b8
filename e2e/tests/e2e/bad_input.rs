//! Hostile and broken input over real sockets. Every refusal is an ERROR with its code or a close with the same number,
//! never silence; and the node goes on serving others. Tests carry the number of their row in the attack table.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use conch_e2e::{PASSWORD, Pair, Place, SOON, api, connect, enter, hello, message, texts};
use conch_loadtest::node::Node;
use conch_loadtest::raw::{RawClient, RawError};
use conch_wire::frame::{Hello, History};
use conch_wire::{ChannelId, ClientFrame, Code, ServerFrame, limits};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

async fn node() -> Result<(Place, Node)> {
    let place = Place::new()?;
    let node = place.start().await?;
    Ok((place, node))
}

/// The code that ended a connection.
async fn end(client: &mut RawClient) -> Result<Code> {
    let end = client.closed(SOON).await?;
    end.code()
        .with_context(|| format!("ended without a code: {end}"))
}

/// A frame header that announces `body` bytes.
fn header(frame_type: u8, body: u32, reference: u32) -> Vec<u8> {
    let mut bytes = vec![frame_type];
    bytes.extend(&body.to_le_bytes()[..3]);
    bytes.extend(reference.to_le_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a01_length_above_the_cap_closes_before_the_body_comes() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    // Before HELLO the cap is smaller.
    let mut early = RawClient::connect(node.http()).await?;
    let announced = header(1, limits::HELLO_BYTES_MAX as u32, 0);
    early.send_bytes(announced.into()).await?;
    ensure!(end(&mut early).await? == Code::TooLarge);
    let (mut late, _) = connect(&node, &pair.ann).await?;
    let announced = header(3, limits::FRAME_BYTES_MAX as u32, 1);
    late.send_bytes(announced.into()).await?;
    ensure!(end(&mut late).await? == Code::TooLarge);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a02_random_and_mutated_bytes_end_in_codes_and_never_in_silence() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    let mut rng = StdRng::seed_from_u64(2);
    let mut valid = bytes::BytesMut::new();
    ClientFrame::History {
        request: 1,
        history: History {
            channel: pair.channel,
            from: 1,
            to: 9,
            items_max: 5,
            newest_first: false,
        },
    }
    .encode(&mut valid);
    for round in 0..60 {
        let (mut client, _) = connect(&node, &pair.ann).await?;
        let bytes: Vec<u8> = if round % 2 == 0 {
            (0..rng.random_range(1..200))
                .map(|_| rng.random())
                .collect()
        } else {
            let mut bytes = valid.to_vec();
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
            bytes
        };
        client.send_bytes(bytes.clone().into()).await?;
        // Whatever it was: an answer, or the end. A frame that may be skipped is answered by nothing, so ask behind it.
        match client.ping().await {
            Ok(_) => {}
            Err(error) => ensure!(error.code().is_some(), "{bytes:02x?}: {error}"),
        }
    }
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    ann.say(1, &message(1)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a05_unknown_frames_are_skipped_or_closed_as_their_bit_says() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    let (mut client, _) = connect(&node, &pair.ann).await?;
    let mut skippable = header(0x80 | 0x3f, 3, 0);
    skippable.extend([1, 2, 3]);
    client.send_bytes(skippable.into()).await?;
    client.ping().await?;
    client.send_bytes(header(0x3f, 0, 0).into()).await?;
    ensure!(end(&mut client).await? == Code::UnknownFrame);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a06_nothing_is_done_before_hello() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    let mut client = RawClient::connect(node.http()).await?;
    client.send(&ClientFrame::Ping { nonce: 1 }).await?;
    ensure!(end(&mut client).await? == Code::Unauthenticated);
    let (mut client, _) = connect(&node, &pair.ann).await?;
    client.send(&ClientFrame::Hello(hello(&pair.ann))).await?;
    ensure!(end(&mut client).await? == Code::UnexpectedFrame);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a06_silence_before_hello_is_given_five_seconds() -> Result<()> {
    let (_place, node) = node().await?;
    let began = tokio::time::Instant::now();
    let mut client = RawClient::connect(node.http()).await?;
    ensure!(end(&mut client).await? == Code::HelloTimeout);
    let took = began.elapsed();
    ensure!(took > Duration::from_secs(4), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a07_breaches_of_websocket_close_with_its_own_numbers() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    let (mut client, _) = connect(&node, &pair.ann).await?;
    client.send_message(Message::text("hello")).await?;
    ensure!(end(&mut client).await? == Code::BadFrame);
    let (mut client, _) = connect(&node, &pair.ann).await?;
    client.send_bytes(Bytes::new()).await?;
    ensure!(end(&mut client).await? == Code::BadFrame);

    // An unmasked frame, a reserved bit, an unknown opcode, a fragmented and an oversized ping, text that is not UTF-8.
    let breaches: [(&str, Vec<u8>, &[u16]); 6] = [
        ("unmasked", vec![0x82, 1, 0], &[1002]),
        ("reserved bit", vec![0xc2, 0x81, 0, 0, 0, 0, 0], &[1002]),
        ("opcode", vec![0x8b, 0x80, 0, 0, 0, 0], &[1002]),
        ("fragmented ping", vec![0x09, 0x80, 0, 0, 0, 0], &[1002]),
        (
            "oversized ping",
            [vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], vec![0; 126]].concat(),
            &[1002],
        ),
        (
            "text that is not UTF-8",
            vec![0x81, 0x81, 0, 0, 0, 0, 0xff],
            &[1007, Code::BadFrame as u16],
        ),
    ];
    for (what, bytes, wanted) in breaches {
        let mut socket = upgraded(&node).await?;
        socket.write_all(&bytes).await?;
        let status = close_status(&mut socket).await?;
        ensure!(wanted.contains(&status), "{what}: closed with {status}");
    }
    Ok(())
}

/// A plain socket behind a finished upgrade.
async fn upgraded(node: &Node) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(node.http()).await?;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: conch.1\r\n\r\n",
        node.http()
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await?);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 101"));
    Ok(socket)
}

/// The status of the close frame that the node sends, whatever else comes before it.
async fn close_status(socket: &mut TcpStream) -> Result<u16> {
    let read = async {
        loop {
            let opcode = socket.read_u8().await? & 0x0f;
            let mut length = u64::from(socket.read_u8().await?);
            if length == 126 {
                length = socket.read_u16().await?.into();
            }
            let mut body = vec![0; length as usize];
            socket.read_exact(&mut body).await?;
            if opcode == 8 {
                ensure!(body.len() >= 2, "a close without a status");
                return Ok(u16::from_be_bytes([body[0], body[1]]));
            }
        }
    };
    tokio::time::timeout(SOON, read)
        .await
        .context("no close came")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a08_upgrades_that_are_too_large_too_slow_or_of_another_version_are_refused() -> Result<()>
{
    let (_place, node) = node().await?;
    let many = (0..10_000)
        .map(|n| format!("X-{n}: 1\r\n"))
        .collect::<String>();
    let large = format!("X-Large: {}\r\n", "x".repeat(1 << 20));
    for headers in [many, large] {
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {}\r\n{headers}\r\n",
            node.http()
        );
        let status = status_of(&node, request.as_bytes()).await?;
        ensure!([400, 431].contains(&status), "{status}");
    }
    let old = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: conch.1\r\n\r\n",
        node.http()
    );
    let status = status_of(&node, old.as_bytes()).await?;
    ensure!([400, 426].contains(&status), "{status}");

    let began = tokio::time::Instant::now();
    let mut slow = TcpStream::connect(node.http()).await?;
    let (mut reader, mut writer) = slow.split();
    let drip = async {
        for byte in
            b"GET /v1/ws HTTP/1.1\r\nHost: slow\r\nX-Slow: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = reader.read_to_end(&mut answer) => {}
    }
    let took = began.elapsed();
    ensure!(
        took < Duration::from_secs(12),
        "headers dripped for {took:?}"
    );
    Ok(())
}

/// The HTTP status that a raw request is answered with.
async fn status_of(node: &Node, request: &[u8]) -> Result<u16> {
    let mut socket = TcpStream::connect(node.http()).await?;
    let (mut reader, mut writer) = socket.split();
    let mut first = [0; 12];
    let answer = async {
        reader.read_exact(&mut first).await?;
        Ok::<_, std::io::Error>(())
    };
    // The node may answer, and close, before it has read everything.
    let (_, answered) = tokio::join!(
        writer.write_all(request),
        tokio::time::timeout(SOON, answer)
    );
    answered??;
    let text = std::str::from_utf8(&first)?;
    Ok(text[9..12].parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_foreign_origins_are_refused_before_the_upgrade() -> Result<()> {
    let (_place, node) = node().await?;
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://127.0.0.1.evil.example",
    ] {
        let answer = api_upgrade(&node, "/v1/ws", Some(origin)).await?;
        ensure!(answer == 403, "{origin}: {answer}");
    }
    let own = format!("http://{}", node.http());
    ensure!(api_upgrade(&node, "/v1/ws", Some(&own)).await? == 101);
    Ok(())
}

async fn api_upgrade(node: &Node, path: &str, origin: Option<&str>) -> Result<u16> {
    let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: conch.1\r\n{origin}\r\n",
        node.http()
    );
    status_of(node, request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_token_in_the_url_is_not_a_token() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    let path = format!("/v1/ws?token={}&access_token=x", pair.ann.access_token);
    let status = api_upgrade(&node, &path, None).await?;
    ensure!([101, 400].contains(&status), "{status}");
    // Upgraded or not: a HELLO without a token is refused.
    let mut client = RawClient::connect(node.http()).await?;
    let error = client.hello(Hello::default()).await.unwrap_err();
    ensure!(
        matches!(error.code(), Some(Code::Unauthenticated | Code::BadFrame)),
        "{error}"
    );
    ensure!(
        !node.output().contains(&pair.ann.access_token),
        "the token is in the log"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a12_ping_flood_ends_in_a_refusal_and_not_in_a_queue() -> Result<()> {
    let place = Place::with_config("")?;
    let node = place.start().await?;
    let pair = Pair::meet(&node).await?;
    let (mut client, _) = connect(&node, &pair.ann).await?;
    let flood = async {
        for _ in 0..2_000 {
            for nonce in 0..100 {
                client.queue(&ClientFrame::Ping { nonce });
            }
            client.flush().await?;
        }
        Ok::<_, RawError>(())
    };
    let flooded = tokio::time::timeout(SOON, flood).await;
    // Either the node closed, or it answered everything, or it stopped reading: all bounded. Others are served.
    drop(flooded);
    let (mut ben, _) = connect(&node, &pair.ben).await?;
    ben.ping().await?;
    let rss = node.rss_bytes()?;
    ensure!(rss < 512 << 20, "{rss} bytes after a flood of pings");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a21_forged_tokens_are_refused_alike() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    let good = &pair.ann.access_token;
    let mut parts = good.split('.');
    let (head, claims) = (
        parts.next().context("a header")?,
        parts.next().context("claims")?,
    );
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let other = pair
        .ben
        .access_token
        .rsplit('.')
        .next()
        .context("a signature")?;
    for token in [
        String::new(),
        "x".to_owned(),
        format!("{none}.{claims}."),
        format!("{head}.{claims}."),
        format!("{head}.{claims}.{other}"),
        format!("{good}x"),
        pair.ann.refresh_token.clone(),
    ] {
        let mut greeting = hello(&pair.ann);
        greeting.token = token.clone();
        let mut client = RawClient::connect(node.http()).await?;
        let error = client.hello(greeting).await.unwrap_err();
        ensure!(
            matches!(error.code(), Some(Code::Unauthenticated | Code::BadFrame)),
            "{token}: {error}"
        );
        let answer = api(&node)
            .send(Method::GET, "/v1/me", Some(&token), None)
            .await?;
        ensure!(answer.status() == 401, "{token}: {}", answer.status());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a27_a28_channel_of_others_answers_like_one_that_is_not_there() -> Result<()> {
    let (_place, node) = node().await?;
    let pair = Pair::meet(&node).await?;
    let stranger = api(&node).sign_up("stranger", PASSWORD).await?;
    let mut ann = enter(&node, &pair.ann, pair.channel, 1).await?;
    ann.say(1, &message(1)).await?;
    let (mut client, _) = connect(&node, &stranger).await?;
    let mut answers = Vec::new();
    for channel in [pair.channel, ChannelId(pair.channel.0 ^ 1)] {
        let opened = client.open_fresh(channel, 10 + answers.len() as u32).await;
        let history = client.full_history(channel).await;
        let request = client.next_request();
        client
            .send(&ClientFrame::Read {
                request,
                channel,
                seq: 1,
            })
            .await?;
        let read = client
            .wait_for(
                "an answer to READ",
                SOON,
                |f| matches!(f, ServerFrame::Error { request: r, .. } if *r == request),
            )
            .await?;
        let ServerFrame::Error { error: read, .. } = read else {
            continue;
        };
        answers.push((
            opened.unwrap_err().code(),
            history.unwrap_err().code(),
            read.code,
            read.detail,
        ));
    }
    ensure!(answers[0] == answers[1], "{answers:?}");
    ensure!(answers[0].0 == Some(Code::NotFound), "{answers:?}");
    ensure!(answers[0].1 == Some(Code::NotFound), "{answers:?}");
    ensure!(answers[0].2 == Code::NotFound, "{answers:?}");
    // An alias that did not open stores nothing.
    let error = client.say(10, &message(2)).await.unwrap_err();
    ensure!(error.code() == Some(Code::BadAlias), "{error}");
    ensure!(texts(&node, &pair.ben, pair.channel).await? == ["message 1"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a26_a44_bad_json_and_passwords_are_refused_as_problems() -> Result<()> {
    let (_place, node) = node().await?;
    let api = api(&node);
    let huge = "x".repeat(1 << 20);
    let deep = "[".repeat(50_000);
    let base = node.base_url();
    let client = reqwest::Client::new();
    for body in [
        "{",
        "null",
        "[]",
        "{\"handle\":1,\"password\":2}",
        "{\"handle\":\"ann\",\"handle\":\"ben\",\"password\":\"correct horse battery\",\"device_name\":\"d\"}",
        "{\"handle\":\"ann\",\"password\":1e400}",
        deep.as_str(),
        &format!("{{\"handle\":\"ann\",\"password\":\"{huge}\",\"device_name\":\"d\"}}"),
    ] {
        let answer = client
            .post(format!("{base}/v1/accounts"))
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await?;
        let status = answer.status().as_u16();
        let kind = answer
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let shown: String = body.chars().take(40).collect();
        ensure!([400, 413, 422].contains(&status), "{shown}: {status}");
        ensure!(
            kind.starts_with("application/problem+json"),
            "{shown}: {kind}"
        );
    }
    for password in ["short", "nul\0 is in here", &"p".repeat(300)] {
        let answer = api
            .send(
                Method::POST,
                "/v1/accounts",
                None,
                Some(json!({ "handle": "dora", "password": password, "device_name": "d" })),
            )
            .await?;
        ensure!(answer.status().is_client_error(), "{}", answer.status());
    }
    // The same password in another Unicode form is the same password.
    api.sign_up("dora", "pa\u{308}ssword with umlaut").await?;
    api.log_in("dora", "p\u{e4}ssword with umlaut", "second")
        .await?;
    // Unknown person and wrong password answer alike.
    let mut answers = Vec::new();
    for handle in ["dora", "nobody"] {
        let answer = api.log_in(handle, "not the password", "x").await;
        answers.push(answer.unwrap_err().to_string());
    }
    ensure!(answers[0] == answers[1], "{answers:?}");
    Ok(())
}
