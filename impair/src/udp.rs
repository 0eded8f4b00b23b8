//! Datagrams through the proxy: one task per flow, which is a client's address; it owns the socket that the server sees.
//!
//! A datagram's copies wait in a heap until they are due, so delays reorder. A rebind gives the flow another socket and thus
//! another port; what the server sends to the old one is lost. What does not fit into a queue is dropped, as routers do.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::fate::Fates;
use super::{Shared, Way, count};

/// Datagrams of a client that its flow has not looked at yet.
const INCOMING: usize = 1_024;
/// Datagrams of a flow under way.
const UNDER_WAY: usize = 4_096;
/// Largest datagram, in bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;

pub(super) async fn listen(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A client that is gone is told by an error of the next receive; it concerns nobody else.
        let Ok((bytes, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let datagram = Bytes::copy_from_slice(&buffer[..bytes]);
        flows.retain(|_, flow| !flow.is_closed());
        let flow = flows.entry(client).or_insert_with(|| {
            let (sender, incoming) = mpsc::channel(INCOMING);
            let number = count(&shared.counters.connections);
            let flow = Flow {
                number,
                client,
                socket: socket.clone(),
                shared: shared.clone(),
                fates: [Way::ToServer, Way::ToClient]
                    .map(|way| Fates::new(shared.seed, number, way)),
                due: BinaryHeap::new(),
                copies: 0,
                free_at: [Instant::now(); 2],
            };
            tokio::spawn(flow.run(incoming));
            sender
        });
        if flow.try_send(datagram).is_err() {
            count(&shared.counters.dropped);
        }
    }
}

/// A copy of a datagram under way. Ordered by time, then by arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Copy {
    at: Instant,
    number: u64,
    to_server: bool,
    bytes: Bytes,
}

/// What a flow has to do next.
enum Next {
    /// `None`: nothing comes any more.
    FromClient(Option<Bytes>),
    /// Bytes in the buffer; an error of the socket concerns a datagram that is gone.
    FromServer(io::Result<usize>),
    /// A copy is due.
    Due,
}

struct Flow {
    number: u64,
    client: SocketAddr,
    /// The one that clients send to.
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
    fates: [Fates; 2],
    due: BinaryHeap<Reverse<Copy>>,
    copies: u64,
    /// When each direction's line has sent what is in front.
    free_at: [Instant; 2],
}

impl Flow {
    async fn run(mut self, mut incoming: mpsc::Receiver<Bytes>) {
        let mut settings = self.shared.settings.subscribe();
        let (mut rebinds, mut target, source) = {
            let now = settings.borrow_and_update();
            (now.rebinds, now.target, now.source)
        };
        let Ok(mut upstream) = bind(target, source).await else {
            return;
        };
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let next = self.due.peek().map(|Reverse(copy)| copy.at);
            tokio::select! {
                // What was said of the network holds for whatever comes after it.
                biased;
                changed = settings.changed() => {
                    let now = *settings.borrow_and_update();
                    if changed.is_err() || self.number < now.cut_below {
                        count(&self.shared.counters.cuts);
                        return;
                    }
                    if now.rebinds != rebinds || now.target != target {
                        (rebinds, target) = (now.rebinds, now.target);
                        match bind(target, now.source).await {
                            Ok(socket) => upstream = socket,
                            Err(_) => return,
                        }
                    }
                }
                next = async {
                    tokio::select! {
                        datagram = incoming.recv() => Next::FromClient(datagram),
                        received = receive(upstream.as_ref(), &mut buffer) => Next::FromServer(received),
                        () = until(next) => Next::Due,
                    }
                } => match next {
                    Next::FromClient(Some(datagram)) => self.take(Way::ToServer, datagram),
                    Next::FromClient(None) => return,
                    Next::FromServer(Ok(bytes)) => {
                        self.take(Way::ToClient, Bytes::copy_from_slice(&buffer[..bytes]));
                    }
                    Next::FromServer(Err(_)) => {}
                    Next::Due => self.forward(upstream.as_ref()).await,
                },
            }
        }
    }

    /// A datagram came; its fate is drawn whether or not it is swallowed, so that holes do not shift later fates.
    fn take(&mut self, way: Way, bytes: Bytes) {
        let settings = *self.shared.settings.borrow();
        let index = usize::from(way == Way::ToClient);
        let delays = self.fates[index].datagram(&settings.profile);
        let is_full = self.due.len() + delays.len() > UNDER_WAY;
        if delays.is_empty() || is_full || settings.swallows(self.number, way) {
            count(&self.shared.counters.dropped);
            return;
        }
        if delays.len() > 1 {
            count(&self.shared.counters.duplicated);
        }
        let seconds = |rate| Duration::from_secs_f64(bytes.len() as f64 / rate as f64);
        let on_the_wire = settings.profile.bytes_per_s.map_or(Duration::ZERO, seconds);
        self.free_at[index] = self.free_at[index].max(Instant::now()) + on_the_wire;
        for delay in delays {
            self.copies += 1;
            self.due.push(Reverse(Copy {
                at: self.free_at[index] + delay,
                number: self.copies,
                to_server: way == Way::ToServer,
                bytes: bytes.clone(),
            }));
        }
    }

    /// Sends the copy that is due.
    async fn forward(&mut self, upstream: Option<&UdpSocket>) {
        let Some(Reverse(copy)) = self.due.pop() else {
            return;
        };
        let way = if copy.to_server {
            Way::ToServer
        } else {
            Way::ToClient
        };
        let is_swallowed = self.shared.settings.borrow().swallows(self.number, way);
        let sent = match (way, upstream) {
            _ if is_swallowed => Err(io::ErrorKind::NetworkUnreachable.into()),
            (Way::ToServer, Some(upstream)) => upstream.send(&copy.bytes).await,
            (Way::ToServer, None) => Err(io::ErrorKind::NetworkUnreachable.into()),
            (Way::ToClient, _) => self.socket.send_to(&copy.bytes, self.client).await,
        };
        count(match sent {
            Ok(_) => &self.shared.counters.forwarded,
            Err(_) => &self.shared.counters.dropped,
        });
    }
}

/// A socket of a new port that leads to the target, if there is one.
async fn bind(target: Option<SocketAddr>, source: IpAddr) -> io::Result<Option<UdpSocket>> {
    let Some(target) = target else {
        return Ok(None);
    };
    let socket = UdpSocket::bind((source, 0)).await?;
    socket.connect(target).await?;
    Ok(Some(socket))
}

async fn receive(upstream: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<usize> {
    match upstream {
        Some(upstream) => upstream.recv(buffer).await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tokio::time::timeout;

    use super::super::{Carrier, Cut, Profile, Proxy};
    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_millis(150);

    /// Sends back what it gets, with the port that it came from in front.
    async fn echo() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((bytes, from)) = socket.recv_from(&mut buffer).await {
                let answer = [&from.port().to_be_bytes()[..], &buffer[..bytes]].concat();
                let _ = socket.send_to(&answer, from).await;
            }
        });
        address
    }

    async fn through(seed: u64, profile: Profile) -> (Proxy, UdpSocket) {
        let proxy = Proxy::start(Carrier::Udp, seed, echo().await, profile)
            .await
            .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(proxy.address()).await.unwrap();
        (proxy, socket)
    }

    /// The next answer: the port that the server saw, and the number that was sent.
    async fn answer(socket: &UdpSocket, within: Duration) -> Option<(u16, u16)> {
        let mut buffer = [0; 64];
        timeout(within, socket.recv(&mut buffer))
            .await
            .ok()?
            .unwrap();
        Some((
            u16::from_be_bytes([buffer[0], buffer[1]]),
            u16::from_be_bytes([buffer[2], buffer[3]]),
        ))
    }

    /// Sends numbers one behind the other and collects the answers until all have come: one for each number, but for those
    /// that were lost on either way and those that came twice.
    async fn exchange(proxy: &Proxy, socket: &UdpSocket, numbers: u16) -> Vec<u16> {
        for number in 0..numbers {
            socket.send(&number.to_be_bytes()).await.unwrap();
            // Lets the proxy read, so that no buffer of the system's overflows.
            tokio::task::yield_now().await;
        }
        let mut answers = Vec::new();
        let all = async {
            loop {
                let seen = proxy.seen();
                let awaited = u64::from(numbers) + seen.duplicated - seen.dropped;
                if answers.len() as u64 >= awaited {
                    return;
                }
                // Asked again now and then: the last ones may be lost ones.
                if let Some((_, number)) = answer(socket, QUIET).await {
                    answers.push(number);
                }
            }
        };
        timeout(SOON, all).await.unwrap();
        answers
    }

    /// Waits until the proxy has dropped so many datagrams.
    async fn dropped(proxy: &Proxy, datagrams: u64) {
        let dropped = async {
            while proxy.seen().dropped < datagrams {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, dropped).await.unwrap();
    }

    #[tokio::test]
    async fn a_clean_profile_passes_everything_in_order() {
        let (proxy, socket) = through(1, Profile::default()).await;
        assert_eq!(
            exchange(&proxy, &socket, 100).await,
            (0..100).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn the_same_seed_loses_the_same_datagrams() {
        let lossy = Profile {
            loss: 0.2,
            ..Profile::default()
        };
        let (proxy, socket) = through(5, lossy).await;
        let first = exchange(&proxy, &socket, 200).await;
        assert!((90..170).contains(&first.len()), "{} of 200", first.len());
        assert_eq!(proxy.seen().dropped as usize, 200 - first.len());
        let (other, socket) = through(5, lossy).await;
        assert_eq!(exchange(&other, &socket, 200).await, first);
    }

    #[tokio::test]
    async fn datagrams_are_doubled_and_overtaken() {
        let doubled = Profile {
            duplicate: 0.3,
            ..Profile::default()
        };
        let (proxy, socket) = through(2, doubled).await;
        let answers = exchange(&proxy, &socket, 100).await;
        assert!(answers.len() > 130, "{}", answers.len());
        assert!(proxy.seen().duplicated > 30);

        let mixed = Profile {
            reorder: 0.2,
            reorder_by: Duration::from_millis(30),
            ..Profile::default()
        };
        let (proxy, socket) = through(2, mixed).await;
        let mut answers = exchange(&proxy, &socket, 100).await;
        assert!(!answers.is_sorted());
        answers.sort_unstable();
        assert_eq!(answers, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn delay_is_added_each_way() {
        let (_proxy, socket) = through(
            1,
            Profile {
                delay: Duration::from_millis(60),
                ..Profile::default()
            },
        )
        .await;
        let began = Instant::now();
        socket.send(&[0, 9]).await.unwrap();
        assert_eq!(answer(&socket, SOON).await.unwrap().1, 9);
        assert!(began.elapsed() >= Duration::from_millis(120));
    }

    #[tokio::test]
    async fn a_rebind_changes_the_port_that_the_server_sees() {
        let (proxy, socket) = through(1, Profile::default()).await;
        socket.send(&[0, 1]).await.unwrap();
        let (before, _) = answer(&socket, SOON).await.unwrap();
        socket.send(&[0, 2]).await.unwrap();
        assert_eq!(answer(&socket, SOON).await, Some((before, 2)));
        proxy.rebind();
        let mut after = before;
        let began = Instant::now();
        while after == before && began.elapsed() < SOON {
            socket.send(&[0, 3]).await.unwrap();
            after = answer(&socket, QUIET)
                .await
                .map_or(before, |(port, _)| port);
        }
        assert_ne!(after, before);
        assert_eq!(proxy.seen().connections, 1);
    }

    #[tokio::test]
    async fn flows_follow_the_target() {
        let (proxy, socket) = through(1, Profile::default()).await;
        socket.send(&[0, 1]).await.unwrap();
        assert_eq!(answer(&socket, SOON).await.unwrap().1, 1);
        proxy.set_target(None);
        socket.send(&[0, 2]).await.unwrap();
        dropped(&proxy, 1).await;
        proxy.set_target(Some(echo().await));
        socket.send(&[0, 3]).await.unwrap();
        assert_eq!(answer(&socket, SOON).await.unwrap().1, 3);
        assert_eq!(proxy.seen().connections, 1);
    }

    #[tokio::test]
    async fn what_a_black_hole_swallows_is_gone() {
        let (proxy, socket) = through(1, Profile::default()).await;
        for (swallowed, way) in (1..).zip([Way::ToServer, Way::ToClient]) {
            proxy.black_hole(way);
            socket.send(&[0, 1]).await.unwrap();
            dropped(&proxy, swallowed).await;
            proxy.heal();
            socket.send(&[0, 2]).await.unwrap();
            assert_eq!(answer(&socket, SOON).await.unwrap().1, 2);
        }
    }

    #[tokio::test]
    async fn half_open_flows_stay_dead_and_cut_ones_start_afresh() {
        let (proxy, old) = through(1, Profile::default()).await;
        old.send(&[0, 1]).await.unwrap();
        let (before, _) = answer(&old, SOON).await.unwrap();
        proxy.half_open();
        old.send(&[0, 2]).await.unwrap();
        dropped(&proxy, 1).await;
        let new = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        new.connect(proxy.address()).await.unwrap();
        new.send(&[0, 3]).await.unwrap();
        assert_eq!(answer(&new, SOON).await.unwrap().1, 3);

        proxy.cut_all(Cut::Fin);
        let began = Instant::now();
        let mut after = None;
        while after.is_none() && began.elapsed() < SOON {
            old.send(&[0, 4]).await.unwrap();
            after = answer(&old, QUIET).await;
        }
        assert_ne!(after.unwrap().0, before);
    }
}
