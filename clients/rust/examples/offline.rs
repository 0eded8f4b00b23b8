//! What an application shows before there is a connection, and if there is none: its last state. `offline ENDPOINT FOLDER`
#![allow(
    clippy::print_stdout,
    unreachable_pub,
    reason = "an example speaks to a terminal, and its function is run by a test"
)]

use std::path::Path;

use conch_client::{ClientBuilder, ClientError, RefusalAdvice, SendState, ViewItem};

pub async fn offline(endpoint: &str, folder: &Path) -> Result<(), ClientError> {
    let client = ClientBuilder::new(endpoint, folder).open().await?;
    if let Some(rebuilt) = client.rebuilt() {
        println!(
            "the data folder was damaged: {} unsent messages are kept",
            rebuilt.outbox_kept
        );
    }
    for info in client.channels().await? {
        let last = info.last.map_or(String::new(), |last| last.text);
        println!("{} ({} unread): {last}", info.title, info.unread);

        let view = client.channel(info.channel).view(30).await?;
        for item in view.items().await? {
            match item {
                ViewItem::Message(message) => println!("  {}", message.text().unwrap_or("…")),
                ViewItem::Outbox(own) => println!("  {:?} ({:?})", own.content, own.state),
            }
        }
    }
    for own in client.outbox().await? {
        if let SendState::Refused { reason } = own.state {
            match reason.advice() {
                RefusalAdvice::Retry => drop(client.retry(own.key).await?),
                _ => drop(client.cancel(own.key).await?),
            }
        }
    }
    client.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_default();
    let folder = arguments.next().unwrap_or_else(|| "./data".to_owned());
    offline(&endpoint, Path::new(&folder)).await
}
