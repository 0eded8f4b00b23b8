//! The shape of the public API: what bindings for other languages wrap. Owned results, no type parameters, no named lifetimes;
//! handles may go to any thread, and so may what a call awaits. And the README shows the example that the tests run.
#![cfg(feature = "native")]

use std::future::Future;
use std::path::Path;

use conch_client::{
    Channel, Client, ClientBuilder, ClientError, Event, EventStream, MessageKey, SendHandle,
    SendOutcome, View, ViewItem,
};

/// What an application holds of the driver.
const SOURCES: [(&str, &str); 7] = [
    ("builder.rs", include_str!("../src/native/builder.rs")),
    ("channel.rs", include_str!("../src/native/channel.rs")),
    ("client.rs", include_str!("../src/native/client.rs")),
    ("http.rs", include_str!("../src/native/http.rs")),
    ("login.rs", include_str!("../src/native/login.rs")),
    ("sending.rs", include_str!("../src/native/sending.rs")),
    ("view.rs", include_str!("../src/native/view.rs")),
];

/// The signatures of a file's public functions, each on one line.
fn signatures(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find("    pub ") {
        rest = &rest[at + 8..];
        let is_function = ["fn ", "async fn "].iter().any(|it| rest.starts_with(it));
        if let (true, Some(end)) = (is_function, rest.find('{')) {
            found.push(rest[..end].split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    found
}

/// What is wrong with a signature.
fn wrong(signature: &str) -> Option<&'static str> {
    let (head, arguments) = signature.split_once('(')?;
    let result = arguments.rsplit_once("->").map_or("", |(_, result)| result);
    let is_borrowed =
        result.contains('&') && !result.contains("&'static str") && result.trim() != "&str";
    if head.contains('<') {
        Some("has type parameters")
    } else if signature.contains("impl ") {
        Some("takes or gives an anonymous type")
    } else if signature.contains("<'") || signature.contains("&'a") {
        Some("names a lifetime")
    } else if is_borrowed {
        Some("gives something borrowed")
    } else {
        None
    }
}

#[test]
fn signatures_can_be_wrapped() {
    let mut seen = 0;
    for (file, source) in SOURCES {
        for signature in signatures(source) {
            assert_eq!(wrong(&signature), None, "{file}: {signature}");
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen} public functions were seen");
}

#[test]
fn the_rule_finds_what_it_is_about() {
    for signature in [
        "fn send<T: Into<String>>(&self, text: T) -> u32",
        "async fn send(&self, text: impl Into<String>) -> u32",
        "fn text<'a>(&'a self) -> Option<u32>",
        "fn people(&self) -> &[Person]",
    ] {
        assert!(wrong(signature).is_some(), "{signature}");
    }
    assert_eq!(
        wrong("async fn send(&self, text: &str) -> Result<u32, E>"),
        None
    );
}

fn object<T: Clone + Send + Sync + 'static>() {}
fn value<T: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static>() {}
fn shared<T: Send + Sync + 'static>() {}
fn awaited<F: Future + Send>(_: F) {}

/// Compiled, never called: the calls of an application may be awaited on any thread.
#[allow(dead_code, reason = "its types are the test")]
async fn calls(client: Client, channel: Channel, view: View, sending: SendHandle, key: MessageKey) {
    awaited(ClientBuilder::new("http://127.0.0.1:1", Path::new(".")).open());
    awaited(client.connect());
    awaited(client.events());
    awaited(client.retry(key));
    awaited(client.cancel(key));
    awaited(channel.send("text"));
    awaited(channel.history(None, 1));
    awaited(channel.newer(1, 1));
    awaited(channel.range(1, 2));
    awaited(channel.members());
    awaited(channel.view(1));
    awaited(view.items());
    awaited(view.older(1));
    awaited(view.changed());
    awaited(sending.outcome());
}

#[test]
fn handles_go_to_any_thread() {
    object::<Client>();
    object::<Channel>();
    object::<SendHandle>();
    shared::<View>();
    shared::<EventStream>();
    shared::<ClientError>();
    value::<Event>();
    value::<ViewItem>();
    value::<SendOutcome>();
}

#[test]
fn readme_shows_the_example_that_is_run() {
    let example = include_str!("../examples/hello.rs");
    let readme = include_str!("../README.md");
    let shown = readme
        .split("```rust,no_run\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a block of Rust");
    assert!(
        example.contains(shown.trim_end()),
        "examples/hello.rs and README.md differ"
    );
}
