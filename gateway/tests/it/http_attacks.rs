//! Rows of the attack table over HTTP: A21, A24 (as far as it is built), A26, A44.

use std::time::{Duration, Instant};

use conch_gateway::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{PASSWORD, SOON, World, with, world};

async fn post(
    world: &World,
    path: &str,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> (u16, Value) {
    let answer = world
        .http
        .post(world.url(path))
        .header("Content-Type", content_type)
        .body(body)
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn a21_forged_tokens_open_nothing() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let (head, rest) = ann.token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0Iiwia2lkIjoiMSJ9";
    for forged in [
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{head}.{claims}."),
        format!("{head}.{claims}.{}", "A".repeat(43)),
        ann.refresh_token.clone(),
        String::new(),
        "a b".to_owned(),
    ] {
        let (status, answer) = world.call("GET", "/v1/me", Some(&forged), None).await;
        assert_eq!(
            (status, &answer["code"]),
            (401, &json!("unauthenticated")),
            "{forged}"
        );
    }
    // Twice is none.
    let answer = world
        .http
        .get(world.url("/v1/me"))
        .bearer_auth(&ann.token)
        .header("Authorization", format!("Bearer {}", ann.token))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.headers()["www-authenticate"],
        "Bearer realm=\"conch\""
    );
}

#[tokio::test]
async fn a24_log_in_answers_alike_whether_the_account_exists() {
    let world = world().await;
    world.sign_up("ann").await;
    let mut answers = Vec::new();
    let mut times = Vec::new();
    for (handle, password) in [
        ("ann", "a wrong password"),
        ("nobody", "a wrong password"),
        ("not a handle", "a wrong password"),
        ("ann", "short"),
    ] {
        let began = Instant::now();
        let body = json!({"handle": handle, "password": password});
        answers.push(world.call("POST", "/v1/sessions", None, Some(body)).await);
        times.push(began.elapsed());
    }
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert_eq!(
        (answers[0].0, &answers[0].1["code"]),
        (401, &json!("wrong_credentials"))
    );
    // Both hash: within an order of magnitude of each other, on a busy machine too.
    assert!(
        times[1] > times[0] / 10 && times[0] > times[1] / 10,
        "{times:?}"
    );
}

#[tokio::test]
async fn a24_log_ins_are_limited_by_account_and_address() {
    let world = with(|s| s.limits.log_ins_per_min_account = 3, Clock::system()).await;
    world.sign_up("ann").await;
    let body = || Some(json!({"handle": "ann", "password": "a wrong password"}));
    for _ in 0..3 {
        assert_eq!(
            world.call("POST", "/v1/sessions", None, body()).await.0,
            401
        );
    }
    let answer = world
        .http
        .post(world.url("/v1/sessions"))
        .json(&body())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 429);
    let wait: u64 = answer.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&wait));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], json!("rate_limited"));
    assert!(problem["retry_after_ms"].as_u64().unwrap() > 0);
    // Others are not in it.
    world.sign_up("ben").await;
    world.log_in("ben").await;
}

#[tokio::test]
async fn a26_passwords_are_bounded_before_they_are_hashed() {
    let world = world().await;
    let began = Instant::now();
    for (password, expected) in [
        ("x".repeat(1 << 20), (413, "too_large")),
        ("x".repeat(60_000), (400, "invalid_password")),
        ("x".repeat(257), (400, "invalid_password")),
        ("1234567".to_owned(), (400, "invalid_password")),
        ("nul\0inside it".to_owned(), (400, "invalid_password")),
    ] {
        let body = json!({"handle": "ann", "password": password});
        let (status, answer) = world.call("POST", "/v1/accounts", None, Some(body)).await;
        assert_eq!((status, answer["code"].as_str().unwrap()), expected);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    // NFC: what one keyboard composes another does not.
    let body = json!({"handle": "ann", "password": "pa\u{308}sswo\u{308}rd"});
    assert_eq!(
        world.call("POST", "/v1/accounts", None, Some(body)).await.0,
        201
    );
    let body = json!({"handle": "ann", "password": "p\u{e4}ssw\u{f6}rd"});
    assert_eq!(
        world.call("POST", "/v1/sessions", None, Some(body)).await.0,
        201
    );
    // Not NFKC: a full-width text is another password.
    let body = json!({"handle": "ann", "password": "p\u{e4}ssw\u{f6}r\u{ff44}"});
    assert_eq!(
        world.call("POST", "/v1/sessions", None, Some(body)).await.0,
        401
    );
}

#[tokio::test]
async fn a44_json_that_is_not_what_a_route_takes_is_refused() {
    let world = world().await;
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let long = format!("{{\"handle\":[{}]}}", vec!["1"; 20_000].join(","));
    let padded = format!(
        "{{\"handle\":\"ann\",\"password\":\"{PASSWORD}\"{}}}",
        " ".repeat(70_000)
    );
    for (what, body, status, code) in [
        ("nothing", String::new(), 400, "bad_json"),
        ("not JSON", "{".to_owned(), 400, "bad_json"),
        ("two values", "{} {}".to_owned(), 400, "bad_json"),
        ("deep", deep, 400, "bad_json"),
        ("long", long, 400, "bad_json"),
        ("too large", padded, 413, "too_large"),
        (
            "unknown field",
            r#"{"handle":"ann","password":"12345678","admin":true}"#.to_owned(),
            400,
            "bad_json",
        ),
        (
            "twice",
            r#"{"handle":"ann","handle":"ben","password":"12345678"}"#.to_owned(),
            400,
            "bad_json",
        ),
        ("missing", r#"{"handle":"ann"}"#.to_owned(), 400, "bad_json"),
        (
            "number",
            r#"{"handle":1e400,"password":"12345678"}"#.to_owned(),
            400,
            "bad_json",
        ),
        (
            "null",
            r#"{"handle":null,"password":"12345678"}"#.to_owned(),
            400,
            "bad_json",
        ),
        (
            "not UTF-8 by escape",
            r#"{"handle":"\ud800","password":"12345678"}"#.to_owned(),
            400,
            "bad_json",
        ),
        ("array", "[]".to_owned(), 400, "bad_json"),
    ] {
        let (got, answer) = post(&world, "/v1/accounts", "application/json", body).await;
        assert_eq!(
            (got, answer["code"].as_str().unwrap_or_default()),
            (status, code),
            "{what}"
        );
        assert!(
            !answer["detail"].as_str().unwrap().contains("12345678"),
            "a value is told back"
        );
    }
    let not_utf8 = b"{\"handle\":\"\xff\",\"password\":\"12345678\"}".to_vec();
    assert_eq!(
        post(&world, "/v1/accounts", "application/json", not_utf8)
            .await
            .0,
        400
    );
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let body = r#"{"handle":"ann","password":"12345678"}"#;
        let (status, answer) = post(&world, "/v1/accounts", content_type, body).await;
        assert_eq!(
            (status, &answer["code"]),
            (415, &json!("unsupported_media_type"))
        );
    }
}

#[tokio::test]
async fn a44_ids_are_plain_decimal_numbers() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    for id in [
        "0x1",
        "+1",
        "-1",
        "1e3",
        "01",
        "9223372036854775808",
        "%31%00",
        "..%2f1",
        "１",
    ] {
        let path = format!("/v1/channels/{id}");
        let (status, answer) = world.call("GET", &path, Some(&ann.token), None).await;
        assert_eq!(
            (status, &answer["code"]),
            (404, &json!("not_found")),
            "{id}"
        );
        let body = json!({"user_id": id});
        let (status, _) = world
            .call("POST", "/v1/channels/direct", Some(&ann.token), Some(body))
            .await;
        assert_eq!(status, 404, "{id}");
    }
    for key in ["", &"k".repeat(129)] {
        let answer = world
            .http
            .post(world.url("/v1/channels"))
            .bearer_auth(&ann.token)
            .header("Idempotency-Key", key)
            .json(&json!({"title": "t", "members": []}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400);
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_is_given_up() {
    let world = world().await;
    let mut stream = TcpStream::connect(world.node.http).await.unwrap();
    let head = "POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    let read = stream.read_exact(&mut answer);
    tokio::time::timeout(SOON + SOON, read)
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}
