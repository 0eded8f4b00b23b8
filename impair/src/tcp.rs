//! Streams through the proxy: two pumps per connection, each a reader, a bounded line of delayed chunks, and a writer.
//!
//! Order and bytes are kept whatever the profile says. A writer that may not write (black hole, half open) waits; the line
//! fills and the reader stops, so the sender meets a full window as it would on a dead path. FIN travels behind the data.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::fate::Fates;
use super::{Cut, Settings, Shared, Way, count};

/// Largest chunk that shares one fate, in bytes.
const CHUNK_BYTES: usize = 4_096;
/// Chunks under way in one direction.
const LINE_CHUNKS: usize = 256;

pub(super) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            let number = count(&shared.counters.connections);
            tokio::spawn(connection(client, number, shared.clone()));
        }
    }
}

async fn connection(mut client: TcpStream, number: u64, shared: Arc<Shared>) {
    let target = shared.settings.borrow().target;
    let connected = match target {
        Some(target) => TcpStream::connect(target).await,
        None => Err(io::ErrorKind::ConnectionRefused.into()),
    };
    let Ok(mut server) = connected else {
        // The target refuses; so does the proxy.
        let _ = client.set_zero_linger();
        return;
    };
    // What was written in one piece leaves in one piece; delays are the profile's.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let mut settings = shared.settings.subscribe();
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, number, Way::ToServer, &shared);
        let down = pump(from_server, to_client, number, Way::ToClient, &shared);
        tokio::select! {
            both = async { tokio::try_join!(up, down) } => match both {
                Ok(_) => Cut::Fin,
                Err(_) => Cut::Reset,
            },
            cut = settings.wait_for(|it| number < it.cut_below) => {
                count(&shared.counters.cuts);
                cut.map_or(Cut::Reset, |it| it.cut)
            }
        }
    };
    for stream in [&mut client, &mut server] {
        // An end that is gone already cannot be told.
        let _ = match end {
            Cut::Reset => stream.set_zero_linger(),
            Cut::Fin => stream.shutdown().await,
        };
    }
}

/// One direction, until its FIN is through. An error ends the connection.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: u64,
    way: Way,
    shared: &Shared,
) -> io::Result<()> {
    let (line, mut due) = mpsc::channel::<(Instant, Bytes)>(LINE_CHUNKS);
    let mut fates = Fates::new(shared.seed, number, way);
    let mut settings = shared.settings.subscribe();
    let read = async move {
        let mut buffer = BytesMut::new();
        let mut free_at = Instant::now();
        loop {
            buffer.reserve(CHUNK_BYTES);
            let mut chunk = (&mut from).take(CHUNK_BYTES as u64);
            if chunk.read_buf(&mut buffer).await? == 0 {
                return Ok(()); // dropping the line lets the writer say FIN
            }
            let profile = shared.settings.borrow().profile;
            let fate = fates.chunk(&profile);
            if fate.is_cut {
                count(&shared.counters.cuts);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let seconds = |rate| Duration::from_secs_f64(buffer.len() as f64 / rate as f64);
            let on_the_wire = profile.bytes_per_s.map_or(Duration::ZERO, seconds);
            free_at = free_at.max(Instant::now()) + fate.stall + on_the_wire;
            if line
                .send((free_at + fate.delay, buffer.split().freeze()))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    };
    let write = async {
        let mut last = Instant::now();
        while let Some((at, bytes)) = due.recv().await {
            last = last.max(at);
            sleep_until(last).await;
            passable(&mut settings, number, way).await;
            to.write_all(&bytes).await?;
            count(&shared.counters.forwarded);
        }
        passable(&mut settings, number, way).await;
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Waits until something may pass this way.
async fn passable(settings: &mut watch::Receiver<Settings>, number: u64, way: Way) {
    if settings
        .wait_for(|it| !it.swallows(number, way))
        .await
        .is_err()
    {
        std::future::pending().await // the proxy is gone, and with it this connection
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::SocketAddr;

    use tokio::time::timeout;

    use super::super::{Carrier, Profile, Proxy};
    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    /// Long enough to see that nothing comes.
    const QUIET: Duration = Duration::from_millis(150);

    /// Sends back what it gets, until the client's FIN.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn through(profile: Profile) -> (Proxy, TcpStream) {
        let proxy = Proxy::start(Carrier::Tcp, 11, echo().await, profile)
            .await
            .unwrap();
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) {
        stream.write_all(text).await.unwrap();
    }

    async fn hear(stream: &mut TcpStream, text: &[u8]) {
        let mut heard = vec![0; text.len()];
        timeout(SOON, stream.read_exact(&mut heard))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(heard, text);
    }

    async fn is_quiet(stream: &mut TcpStream) -> bool {
        timeout(QUIET, stream.read_u8()).await.is_err()
    }

    #[tokio::test]
    async fn bytes_and_order_are_kept_under_jitter_and_stalls() {
        let profile = Profile {
            jitter: Duration::from_millis(3),
            stall: 0.05,
            stall_for: Duration::from_millis(10),
            ..Profile::default()
        };
        let (_proxy, mut stream) = through(profile).await;
        let sent: Vec<u8> = (0..300_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
        let (mut from, mut to) = stream.split();
        let write = async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let read = from.read_to_end(&mut heard);
        timeout(SOON, async { tokio::join!(write, read) })
            .await
            .unwrap()
            .1
            .unwrap();
        assert!(heard == sent, "{} of {} bytes", heard.len(), sent.len());
    }

    #[tokio::test]
    async fn delay_is_added_each_way() {
        let profile = Profile {
            delay: Duration::from_millis(60),
            ..Profile::default()
        };
        let (_proxy, mut stream) = through(profile).await;
        let began = Instant::now();
        say(&mut stream, b"x").await;
        hear(&mut stream, b"x").await;
        assert!(began.elapsed() >= Duration::from_millis(120));
    }

    #[tokio::test]
    async fn bandwidth_is_bounded() {
        let profile = Profile {
            bytes_per_s: Some(200_000),
            ..Profile::default()
        };
        let (_proxy, mut stream) = through(profile).await;
        let sent = vec![7; 40_000];
        let began = Instant::now();
        say(&mut stream, &sent).await;
        hear(&mut stream, &sent).await;
        assert!(began.elapsed() >= Duration::from_millis(200));
    }

    #[tokio::test]
    async fn cuts_are_seen_as_what_they_are() {
        let (proxy, mut stream) = through(Profile::default()).await;
        say(&mut stream, b"x").await;
        hear(&mut stream, b"x").await;
        proxy.cut_all(Cut::Reset);
        let end = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);

        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut stream, b"y").await;
        hear(&mut stream, b"y").await;
        proxy.cut_all(Cut::Fin);
        let end = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!((proxy.seen().connections, proxy.seen().cuts), (2, 2));
    }

    #[tokio::test]
    async fn a_profile_may_cut() {
        let (proxy, mut stream) = through(Profile {
            cut: 1.0,
            ..Profile::default()
        })
        .await;
        say(&mut stream, b"x").await;
        assert!(timeout(SOON, stream.read_u8()).await.unwrap().is_err());
        assert_eq!(proxy.seen().cuts, 1);
    }

    #[tokio::test]
    async fn what_a_black_hole_swallows_comes_when_it_heals() {
        let (proxy, mut stream) = through(Profile::default()).await;
        for way in [Way::ToServer, Way::ToClient] {
            proxy.black_hole(way);
            say(&mut stream, b"late").await;
            assert!(is_quiet(&mut stream).await);
            proxy.heal();
            hear(&mut stream, b"late").await;
        }
    }

    #[tokio::test]
    async fn half_open_is_for_ever_and_for_what_was_connected() {
        let (proxy, mut old) = through(Profile::default()).await;
        say(&mut old, b"x").await;
        hear(&mut old, b"x").await;
        proxy.half_open();
        say(&mut old, b"into the void").await;
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut new, b"y").await;
        hear(&mut new, b"y").await;
        proxy.heal();
        assert!(is_quiet(&mut old).await);
    }

    #[tokio::test]
    async fn new_connections_follow_the_target() {
        let (proxy, mut old) = through(Profile::default()).await;
        say(&mut old, b"x").await;
        hear(&mut old, b"x").await;
        proxy.set_target(None);
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(timeout(SOON, refused.read_u8()).await.unwrap().is_err());
        proxy.set_target(Some(echo().await));
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        for stream in [&mut old, &mut new] {
            say(stream, b"y").await;
            hear(stream, b"y").await;
        }
    }

    #[tokio::test]
    async fn everything_ends_with_the_proxy() {
        let (proxy, mut stream) = through(Profile::default()).await;
        say(&mut stream, b"x").await;
        hear(&mut stream, b"x").await;
        drop(proxy);
        assert!(timeout(SOON, stream.read_u8()).await.unwrap().is_err());
    }
}
