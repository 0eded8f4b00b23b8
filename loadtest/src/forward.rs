//! A fixed address in front of a node that comes back on another port each time: plain TCP, byte for byte.
//!
//! For clients that are told one endpoint for good, as real ones are. While the node is known to be down, connections
//! are accepted and closed; when it dies, those that lead to it end. Nothing is delayed or changed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A running forwarder; ends when dropped.
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forward {
    /// Listens on loopback and forwards to wherever the node is at the moment.
    pub async fn start(endpoint: watch::Receiver<Option<String>>) -> io::Result<Forward> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(run(listener, endpoint));
        Ok(Forward { address, task })
    }

    /// `http://ip:port`, the same for good.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, endpoint: watch::Receiver<Option<String>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else {
                    // Descriptors may be used up for a moment; the client tries again.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let target = endpoint.borrow().clone();
                connections.spawn(forward(client, target));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(mut client: TcpStream, target: Option<String>) {
    let Some(target) = target else { return };
    if let Ok(mut node) = TcpStream::connect(target).await {
        let _ = (client.set_nodelay(true), node.set_nodelay(true));
        // An error is the end of one side: both are dropped.
        let _ = copy_bidirectional(&mut client, &mut node).await;
    }
}
