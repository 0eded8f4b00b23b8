//! TLS on the HTTP port: served, reloaded while connections are open, bad files rejected.

use std::path::Path;

use conch_gateway::clock::Clock;

use crate::world::{SOON, with};

fn write_pair(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.pem()
}

fn trusting(pem: &str) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()])
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

#[tokio::test]
async fn the_certificate_is_changed_without_a_restart_and_a_bad_one_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_pair(folder.path());
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let world = with(
        |s| {
            s.http.tls_cert = Some(cert.clone());
            s.http.tls_key = Some(key);
        },
        Clock::system(),
    )
    .await;
    let url = format!("https://localhost:{}/livez", world.node.http.port());
    assert!(world.node.ready().url.starts_with("https://"));
    let answers = async |client: &reqwest::Client| {
        client
            .get(&url)
            .send()
            .await
            .is_ok_and(|a| a.status() == 200)
    };
    assert!(answers(&trusting(&first)).await);
    // Plain text on the TLS port gets nothing.
    let plain = reqwest::get(url.replace("https", "http")).await;
    assert!(plain.is_err());

    std::fs::write(&cert, "nothing of the kind").unwrap();
    world.node.reload();
    assert!(answers(&trusting(&first)).await, "the old one stays");

    let second = write_pair(folder.path());
    world.node.reload();
    let changed = async {
        while !answers(&trusting(&second)).await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, changed)
        .await
        .expect("the new one is used");
    assert!(!answers(&trusting(&first)).await);
}
