//! The UDP socket of the port: several datagrams in and out by one call of the system, and nothing beyond its measure to an
//! address that is only claimed.
//!
//! Sending never waits. A socket that takes nothing says so, and any number of connections may wait for it at once
//! ([`Socket::writable`]). What the system refuses for another reason is lost, as on any network.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use tokio::io::Interest;

use super::unshown::Unshown;

/// What the kernel may hold for all connections of the port; less if it does not allow it.
const BUFFER_BYTES: usize = 4_194_304;

/// See the module.
#[derive(Debug)]
pub(super) struct Socket {
    udp: tokio::net::UdpSocket,
    state: UdpSocketState,
    unshown: Mutex<Unshown>,
    /// Whether anything is remembered in `unshown`: else nothing is looked up.
    any_unshown: AtomicBool,
    #[cfg(test)]
    pub(super) refuses: tokio::sync::watch::Sender<bool>,
}

impl Socket {
    /// Binds; inside a runtime.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
        let udp = std::net::UdpSocket::bind(address)?;
        // What the kernel does not give is not worth refusing to start for.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&udp, BUFFER_BYTES);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&udp, BUFFER_BYTES);
        let state = UdpSocketState::new((&udp).into())?;
        Ok(Socket {
            udp: tokio::net::UdpSocket::from_std(udp)?,
            state,
            unshown: Mutex::default(),
            any_unshown: AtomicBool::new(false),
            #[cfg(test)]
            refuses: tokio::sync::watch::Sender::new(false),
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Whether a datagram that is too large for its path is cut on the way.
    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Most datagrams of one [`Socket::send`].
    pub(super) fn send_datagrams_max(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Most datagrams in one of the [`BATCH_SIZE`] parts that [`Socket::receive`] fills.
    pub(super) fn receive_datagrams_max(&self) -> usize {
        self.state.gro_segments()
    }

    /// Sends datagrams that lie one behind the other in `bytes`. The only error is `WouldBlock`.
    pub(super) fn send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        let datagram_bytes = transmit.segment_size.unwrap_or(bytes.len());
        let allowed = match self.some_unshown() {
            None => bytes.len(),
            Some(mut unshown) => unshown.allow(transmit.destination, bytes.len(), datagram_bytes),
        };
        if allowed == 0 {
            return Ok(());
        }
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.map(ecn_out),
            contents: &bytes[..allowed],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.udp.try_io(Interest::WRITABLE, || {
            #[cfg(test)]
            if *self.refuses.borrow() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.state.send((&self.udp).into(), &transmit)
        })
    }

    /// Until the socket may take something again; everybody who waits is woken. An error: it never will.
    pub(super) async fn writable(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            let mut refuses = self.refuses.subscribe();
            if *refuses.borrow_and_update() {
                let _ = refuses.wait_for(|refuses| !refuses).await;
                return Ok(());
            }
        }
        self.udp.writable().await
    }

    /// What came: each of `metas` tells of one part of `buffer`, which is cut into [`BATCH_SIZE`] equal ones.
    pub(super) async fn receive(
        &self,
        buffer: &mut [u8],
        metas: &mut [RecvMeta; BATCH_SIZE],
    ) -> io::Result<usize> {
        let part_bytes = buffer.len() / BATCH_SIZE;
        let received = self.udp.async_io(Interest::READABLE, || {
            let mut parts = buffer.chunks_exact_mut(part_bytes);
            let mut parts: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()));
            self.state.recv((&self.udp).into(), &mut parts, metas)
        });
        let received = received.await?;
        if let Some(mut unshown) = self.some_unshown() {
            for meta in &metas[..received] {
                unshown.received(meta.addr, meta.len);
            }
        }
        Ok(received)
    }

    fn unshown(&self) -> MutexGuard<'_, Unshown> {
        self.unshown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn some_unshown(&self) -> Option<MutexGuard<'_, Unshown>> {
        self.any_unshown
            .load(Ordering::Acquire)
            .then(|| self.unshown())
    }

    /// See [`Unshown::begin`].
    pub(super) fn begin(&self, address: SocketAddr, now_ms: u64) -> bool {
        let mut unshown = self.unshown();
        let begun = unshown.begin(address, now_ms);
        self.any_unshown.store(true, Ordering::Release);
        begun
    }

    /// See [`Unshown::shown`].
    pub(super) fn shown(&self, address: SocketAddr) {
        let mut unshown = self.unshown();
        unshown.shown(address);
        self.any_unshown
            .store(!unshown.is_empty(), Ordering::Release);
    }

    /// See [`Unshown::ended`].
    pub(super) fn ended(&self, address: SocketAddr, now_ms: u64) {
        self.unshown().ended(address, now_ms);
    }
}

fn ecn_out(ecn: EcnCodepoint) -> quinn_udp::EcnCodepoint {
    match ecn {
        EcnCodepoint::Ect0 => quinn_udp::EcnCodepoint::Ect0,
        EcnCodepoint::Ect1 => quinn_udp::EcnCodepoint::Ect1,
        EcnCodepoint::Ce => quinn_udp::EcnCodepoint::Ce,
    }
}

/// Congestion marks of a datagram that came.
pub(super) fn ecn_in(ecn: quinn_udp::EcnCodepoint) -> EcnCodepoint {
    match ecn {
        quinn_udp::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
        quinn_udp::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
        quinn_udp::EcnCodepoint::Ce => EcnCodepoint::Ce,
    }
}
