//! Sessions over the in-memory transport: a client whose reading is turned on and off exactly.

use bytes::Bytes;
use conch_gateway::clock::Clock;
use conch_gateway::session::task;
use conch_gateway::transport::memory::{MemoryClient, ToClient, pair};
use conch_wire::frame::{Hello, split_frame};
use conch_wire::{ClientFrame, Code, ServerFrame, SessionId, limits};
use tokio::time::timeout;

use crate::client::{cursor, encoded, hello};
use crate::world::{Person, SOON, World, with};

/// Starts a session whose way to the client holds `chunks_max` chunks.
fn enter(world: &World, person: &Person, chunks_max: usize, with: Hello) -> MemoryClient {
    let (transport, client) = pair(chunks_max);
    let edge = world.node.api.edge.clone();
    tokio::spawn(task::run(transport, SessionId(4_711), edge));
    let hello = Hello {
        token: person.token.clone(),
        ..with
    };
    client
        .to_node
        .send(encoded(&ClientFrame::Hello(hello)))
        .unwrap();
    client
}

fn frames_of(mut bytes: Bytes) -> Vec<ServerFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let split = split_frame(&bytes, limits::FRAME_BYTES_MAX)
            .unwrap()
            .unwrap();
        let body = bytes.slice_ref(split.body);
        frames.push(ServerFrame::decode(split.header, body).unwrap());
        bytes = bytes.slice(split.consumed..);
    }
    frames
}

async fn read(client: &mut MemoryClient) -> Result<Vec<ServerFrame>, Option<Code>> {
    match timeout(SOON, client.from_node.recv())
        .await
        .expect("in time")
    {
        Some(ToClient::Frames(bytes)) => Ok(frames_of(bytes)),
        Some(ToClient::Closed(code)) => Err(code),
        None => Err(None),
    }
}

async fn read_until(client: &mut MemoryClient, mut done: impl FnMut(&ServerFrame) -> bool) {
    loop {
        let frames = read(client).await.expect("open");
        if frames.iter().any(&mut done) {
            return;
        }
    }
}

#[tokio::test]
async fn a_reader_that_stops_and_goes_on_hears_of_everything() {
    let world = with(|_| {}, Clock::system()).await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let mut b = enter(&world, &ben, 1, hello(""));
    read_until(&mut b, |f| matches!(f, ServerFrame::SyncChanges { .. })).await;
    let mut last = 0;
    for _ in 0..300 {
        last = a.send(1, &"x".repeat(1_000)).await.unwrap();
    }
    // What waits for the reader is less than what was sent: it collapsed.
    let (mut delivered, mut bytes, mut heard) = (0, 0, 0);
    while heard < last {
        for frame in read(&mut b).await.expect("open") {
            match frame {
                ServerFrame::Deliver { event, .. } => {
                    delivered += 1;
                    bytes += event.tail.len();
                    heard = heard.max(event.seq);
                }
                ServerFrame::ChannelHead(head) => heard = heard.max(head.head_seq),
                _ => {}
            }
        }
    }
    assert!(
        delivered < 150 && bytes < limits::CREDIT_BYTES as usize / 2,
        "{delivered}, {bytes}"
    );
    // And from there it goes on as before.
    last = a.send(1, "again").await.unwrap();
    let mut seen = 0;
    read_until(&mut b, |f| {
        if let ServerFrame::Deliver { event, .. } = f {
            seen = event.seq;
        }
        seen == last
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_takes_nothing_for_thirty_seconds_is_given_up() {
    let clock = Clock::manual(1_800_000_000_000);
    let world = with(|_| {}, clock.clone()).await;
    let (ann, ben) = (world.sign_up("ann").await, world.sign_up("ben").await);
    let channel = world.direct(&ann, &ben).await;
    let mut a = world.enter(&ann).await;
    a.open(cursor(channel, 1, 0, 0)).await.unwrap();
    let mut b = enter(&world, &ben, 1, hello(""));
    read_until(&mut b, |f| matches!(f, ServerFrame::SyncChanges { .. })).await;
    // One chunk fits on the way, one is with the transport: from then on it stands.
    for _ in 0..20 {
        a.send(1, &"x".repeat(10_000)).await.unwrap();
    }
    a.ping().await;
    clock.advance(29_000);
    a.ping().await;
    assert_eq!(world.node.api.edge.hub.len(), 2);
    clock.advance(2_000);
    let hub = &world.node.api.edge.hub;
    let gone = async {
        while hub.len() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, gone).await.expect("it is given up");
    let code = loop {
        if let Err(code) = read(&mut b).await {
            break code;
        }
    };
    assert_eq!(code, Some(Code::SlowConsumer));
    a.ping().await;
}

#[tokio::test]
async fn a_client_that_is_gone_is_forgotten() {
    let world = with(|_| {}, Clock::system()).await;
    let ann = world.sign_up("ann").await;
    let mut client = enter(&world, &ann, 4, hello(""));
    read_until(&mut client, |f| {
        matches!(f, ServerFrame::SyncChanges { .. })
    })
    .await;
    assert_eq!(world.node.api.edge.hub.len(), 1);
    drop(client);
    let hub = &world.node.api.edge.hub;
    let gone = async {
        while !hub.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, gone).await.expect("it is forgotten");
}
