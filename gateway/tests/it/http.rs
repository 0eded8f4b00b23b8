//! The HTTP API: accounts, people, devices, channels, health.

use conch_gateway::clock::Clock;
use conch_gateway::config::SignUp;
use serde_json::{Value, json};

use crate::world::{Answer, PASSWORD, World, person, with, world};

fn code(answer: &Answer) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

async fn create_group(world: &World, token: &str, key: &str, body: &Value) -> Answer {
    let answer = world
        .http
        .post(world.url("/v1/channels"))
        .bearer_auth(token)
        .header("Idempotency-Key", key)
        .json(body)
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn sign_up_log_in_and_who_am_i() {
    let world = world().await;
    let body = json!({"handle": "Ann.B", "password": PASSWORD, "display_name": "Ann  B", "device_name": "phone", "platform": "test"});
    let (status, answer) = world.call("POST", "/v1/accounts", None, Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    let ann = person(&answer);
    let (status, me) = world.call("GET", "/v1/me", Some(&ann.token), None).await;
    assert_eq!(status, 200);
    assert_eq!(me["user_id"], json!(ann.user.to_string()));
    assert_eq!(me["device_id"], json!(ann.device.to_string()));
    assert_eq!(me["handle"], json!("ann.b"));
    let again = world.log_in("ann.b").await;
    assert_eq!(again.user, ann.user);
    assert_ne!(again.device, ann.device);
    let (status, me) = world
        .call(
            "PATCH",
            "/v1/me",
            Some(&ann.token),
            Some(json!({"display_name": "Anna"})),
        )
        .await;
    assert_eq!((status, &me["display_name"]), (200, &json!("Anna")));
    for name in ["", " \u{200b} ", &"x".repeat(65)] {
        let answer = world
            .call(
                "PATCH",
                "/v1/me",
                Some(&ann.token),
                Some(json!({"display_name": name})),
            )
            .await;
        assert_eq!(code(&answer), (400, "invalid_display_name"), "{name:?}");
    }
}

#[tokio::test]
async fn refusals_of_sign_up_have_stable_codes() {
    let world = world().await;
    world.sign_up("ann").await;
    for (handle, password, expected) in [
        ("ANN", PASSWORD, (409, "handle_taken")),
        ("a", PASSWORD, (400, "invalid_handle")),
        ("not a handle", PASSWORD, (400, "invalid_handle")),
        ("ben", "short", (400, "invalid_password")),
    ] {
        let body = json!({"handle": handle, "password": password});
        let answer = world.call("POST", "/v1/accounts", None, Some(body)).await;
        assert_eq!(code(&answer), expected, "{handle}");
        assert_eq!(answer.1["status"], json!(answer.0));
        assert_eq!(
            answer.1["type"],
            json!(format!("urn:conch:problem:{}", expected.1))
        );
    }
    let closed = with(|s| s.auth.sign_up = SignUp::Closed, Clock::system()).await;
    let body = json!({"handle": "ann", "password": PASSWORD});
    let answer = closed.call("POST", "/v1/accounts", None, Some(body)).await;
    assert_eq!(code(&answer), (403, "sign_up_closed"));
}

#[tokio::test]
async fn refresh_rotates_and_reuse_ends_the_device() {
    let clock = Clock::manual(1_800_000_000_000);
    let world = with(|_| {}, clock.clone()).await;
    let ann = world.sign_up("ann").await;
    let mut session = world.enter(&ann).await;
    let rotate = async |token: &str| {
        let body = json!({"refresh_token": token});
        world
            .call("POST", "/v1/tokens/refresh", None, Some(body))
            .await
    };
    let (status, second) = rotate(&ann.refresh_token).await;
    assert_eq!(status, 200, "{second}");
    let second = person(&second);
    let (status, third) = rotate(&second.refresh_token).await;
    assert_eq!(status, 200);
    let third = person(&third);
    // The first was superseded twice: whoever has it copied it.
    assert_eq!(
        code(&rotate(&ann.refresh_token).await),
        (401, "device_revoked")
    );
    assert_eq!(
        session.closed().await.0,
        conch_wire::Code::DeviceRevoked.number()
    );
    assert_eq!(
        code(&rotate(&third.refresh_token).await),
        (401, "unauthenticated")
    );
    let answer = world.call("GET", "/v1/me", Some(&third.token), None).await;
    assert_eq!(code(&answer), (401, "device_revoked"));
    assert_eq!(code(&rotate("nonsense").await), (401, "unauthenticated"));
    // A token that nobody used runs out.
    let ben = world.sign_up("ben").await;
    clock.advance(90 * 24 * 3_600 * 1_000);
    assert_eq!(
        code(&rotate(&ben.refresh_token).await),
        (401, "token_expired")
    );
}

#[tokio::test]
async fn people_are_found_by_handle_and_by_id() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let (status, found) = world
        .call("GET", "/v1/users/by-handle/BEN", Some(&ann.token), None)
        .await;
    assert_eq!(
        (status, &found["user_id"]),
        (200, &json!(ben.user.to_string()))
    );
    for handle in ["nobody", "no%20handle"] {
        let path = format!("/v1/users/by-handle/{handle}");
        let answer = world.call("GET", &path, Some(&ann.token), None).await;
        assert_eq!(code(&answer), (404, "not_found"));
    }
    let path = format!("/v1/users?ids={},{},123", ann.user, ben.user);
    let (status, found) = world.call("GET", &path, Some(&ann.token), None).await;
    assert_eq!(status, 200);
    assert_eq!(found["users"].as_array().unwrap().len(), 2);
    let many = vec!["1"; 101].join(",");
    for query in [
        "",
        "?ids=",
        "?ids=x",
        "?ids=-1",
        "?ids=9223372036854775808",
        &format!("?ids={many}"),
    ] {
        let answer = world
            .call("GET", &format!("/v1/users{query}"), Some(&ann.token), None)
            .await;
        assert_eq!(code(&answer), (400, "invalid"), "{query}");
    }
    let answer = world
        .call("GET", "/v1/users/by-handle/ben", None, None)
        .await;
    assert_eq!(code(&answer), (401, "unauthenticated"));
}

#[tokio::test]
async fn devices_are_listed_and_revoked_by_their_owner_only() {
    let world = world().await;
    let ann = world.sign_up("ann").await;
    let second = world.log_in("ann").await;
    let ben = world.sign_up("ben").await;
    let (status, list) = world
        .call("GET", "/v1/devices", Some(&ann.token), None)
        .await;
    assert_eq!(status, 200);
    let devices = list["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    assert!(
        devices
            .iter()
            .any(|d| d["current"] == json!(true) && d["name"] == json!("first"))
    );
    let path = format!("/v1/devices/{}", second.device);
    let answer = world.call("DELETE", &path, Some(&ben.token), None).await;
    assert_eq!(code(&answer), (404, "not_found"));
    let mut session = world.enter(&second).await;
    assert_eq!(
        world.call("DELETE", &path, Some(&ann.token), None).await.0,
        204
    );
    assert_eq!(
        session.closed().await.0,
        conch_wire::Code::DeviceRevoked.number()
    );
    let answer = world.call("DELETE", &path, Some(&ann.token), None).await;
    assert_eq!(code(&answer), (404, "not_found"));
    let answer = world.call("GET", "/v1/me", Some(&second.token), None).await;
    assert_eq!(code(&answer), (401, "device_revoked"));
}

#[tokio::test]
async fn a_pair_has_one_channel_whoever_opens_it() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    assert_eq!(world.direct(&ben, &ann).await, channel);
    let (_, view) = world
        .call(
            "GET",
            &format!("/v1/channels/{channel}"),
            Some(&ben.token),
            None,
        )
        .await;
    assert_eq!(view["kind"], json!("direct"));
    assert_eq!(view["peer_id"], json!(ann.user.to_string()));
    let body = json!({"user_id": "123"});
    let answer = world
        .call("POST", "/v1/channels/direct", Some(&ann.token), Some(body))
        .await;
    assert_eq!(code(&answer), (404, "not_found"));
}

#[tokio::test]
async fn a_group_is_made_grown_renamed_and_left() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let carl = world.sign_up("carl").await;
    let channel = world.group(&ann, &[&ben]).await;
    let members = format!("/v1/channels/{channel}/members");
    let body = json!({"members": [carl.user.to_string()]});
    let answer = world
        .call("POST", &members, Some(&ben.token), Some(body.clone()))
        .await;
    assert_eq!(code(&answer), (403, "forbidden"));
    let (status, view) = world
        .call("POST", &members, Some(&ann.token), Some(body))
        .await;
    assert_eq!((status, &view["members"]), (200, &json!(3)));
    let (status, list) = world.call("GET", &members, Some(&carl.token), None).await;
    assert_eq!(status, 200);
    let list = list["members"].as_array().unwrap();
    let role = |handle: &str| {
        list.iter()
            .find(|m| m["handle"] == json!(handle))
            .map(|m| m["role"].clone())
    };
    assert_eq!(role("ann"), Some(json!("owner")));
    assert_eq!(role("carl"), Some(json!("member")));
    let path = format!("/v1/channels/{channel}");
    let (status, view) = world
        .call(
            "PATCH",
            &path,
            Some(&ann.token),
            Some(json!({"title": " new "})),
        )
        .await;
    assert_eq!((status, &view["title"]), (200, &json!("new")));
    for title in ["", "  ", &"x".repeat(101)] {
        let answer = world
            .call(
                "PATCH",
                &path,
                Some(&ann.token),
                Some(json!({"title": title})),
            )
            .await;
        assert_eq!(code(&answer), (400, "invalid"));
    }
    let me = format!("{members}/{}", carl.user);
    assert_eq!(
        world.call("DELETE", &me, Some(&carl.token), None).await.0,
        204
    );
    let other = format!("{members}/{}", ann.user);
    let answer = world.call("DELETE", &other, Some(&ben.token), None).await;
    assert_eq!(code(&answer), (403, "forbidden"));
}

#[tokio::test]
async fn the_same_idempotency_key_makes_one_group() {
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let body = json!({"title": "house", "members": [ben.user.to_string()]});
    let (status, first) = create_group(&world, &ann.token, "k-1", &body).await;
    assert_eq!(status, 201);
    let (status, again) = create_group(&world, &ann.token, "k-1", &body).await;
    assert_eq!((status, &again), (201, &first));
    let other = json!({"title": "other", "members": [ben.user.to_string()]});
    let answer = create_group(&world, &ann.token, "k-1", &other).await;
    assert_eq!(code(&answer), (409, "idempotency_mismatch"));
    let (status, bens) = create_group(&world, &ben.token, "k-1", &body).await;
    assert_eq!(status, 201);
    assert_ne!(
        bens["channel_id"], first["channel_id"],
        "keys are per person"
    );
    // All at once.
    let tries = (0..8).map(|_| create_group(&world, &ann.token, "k-2", &body));
    let answers = futures_util::future::join_all(tries).await;
    for answer in &answers {
        assert_eq!(
            answer.1["channel_id"], answers[0].1["channel_id"],
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_group_that_was_begun_before_a_crash_is_finished_not_doubled() {
    use conch_store::accounts::{Memory, RequestHash};
    use sha2::{Digest, Sha256};
    let world = world().await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let body = json!({"title": "house", "members": [ben.user.to_string()]});
    // What is on disk when the node dies between remembering and answering.
    let mut hash = Sha256::new();
    hash.update(b"POST /v1/channels\n");
    hash.update(serde_json::to_vec(&body).unwrap());
    let reserved = world.node.api.edge.router.next_channel_id().await.unwrap();
    let memory = world
        .accounts
        .remember_request(
            ann.user,
            "k-9",
            RequestHash(hash.finalize().into()),
            reserved.0,
            world.clock.wall_ms(),
        )
        .await
        .unwrap();
    assert_eq!(memory, Memory::Fresh);
    for _ in 0..2 {
        let (status, made) = create_group(&world, &ann.token, "k-9", &body).await;
        assert_eq!(status, 201, "{made}");
        assert_eq!(made["channel_id"], json!(reserved.to_string()));
    }
}

#[tokio::test]
async fn health_and_facts_are_public_and_metrics_are_not() {
    let world = world().await;
    for path in ["/livez", "/readyz", "/", "/v1/node"] {
        assert_eq!(world.call("GET", path, None, None).await.0, 200, "{path}");
    }
    assert_eq!(world.call("GET", "/metrics", None, None).await.0, 404);
    world.sign_up("ann").await;
    let text = world
        .http
        .get(format!("http://{}/metrics", world.node.metrics))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        text.contains("conch_gateway_http_requests_total{route=\"/v1/accounts\",class=\"2xx\"}"),
        "{text}"
    );
    assert!(world.node.metrics.ip().is_loopback());
    let answer = world.call("GET", "/v1/nothing", None, None).await;
    assert_eq!(code(&answer), (404, "no_such_route"));
    let answer = world.call("DELETE", "/v1/me", None, None).await;
    assert_eq!(code(&answer), (405, "method_not_allowed"));
}
