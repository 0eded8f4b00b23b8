//! Connects, sends, receives, and pages back through history. `hello ENDPOINT FOLDER`, where ada and grace have accounts.
#![allow(
    clippy::print_stdout,
    unreachable_pub,
    reason = "an example speaks to a terminal, and its function is run by a test"
)]

use std::path::Path;

use conch_client::{ClientBuilder, ClientError, Event, SendOutcome};

pub async fn hello(endpoint: &str, folder: &Path) -> Result<(), ClientError> {
    let client = ClientBuilder::new(endpoint, folder).open().await?; // works offline, too
    if client.account().await.is_none() {
        client
            .log_in("ada", "correct horse battery", "laptop")
            .await?;
    }
    let mut events = client.events().await?;
    client.connect().await?; // and stays connected

    let grace = client.user_by_handle("grace").await?;
    let channel = client.direct(grace.user).await?;
    let sending = channel.send("hello").await?; // safe on this device from here on
    match sending.await? {
        SendOutcome::Stored { seq, .. } => println!("stored as {seq}"),
        SendOutcome::Refused { reason } => println!("{reason}: {:?}", reason.advice()),
    }
    while let Some(event) = events.next().await {
        if let Event::Message(message) = event
            && message.author == grace.user
        {
            println!("grace: {}", message.text().unwrap_or("…"));
            break;
        }
    }
    let mut page = channel.history(None, 20).await?;
    while let Some(oldest) = page.first() {
        println!("{} events from {} on", page.len(), oldest.seq);
        page = channel.history(Some(oldest.seq), 20).await?;
    }
    client.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_default();
    let folder = arguments.next().unwrap_or_else(|| "./data".to_owned());
    hello(&endpoint, Path::new(&folder)).await
}
