//! The accept loop, and what a connection is before it is a request.
//!
//! Own instead of a ready-made server, because four things belong here: backing off when descriptors run out (and going
//! on when there are some again), the cap of connections, small socket buffers (a client that does not read must not hide
//! behind the kernel), and an end that leaves upgraded connections to their sessions. Headers must be complete within
//! 5 s, at most 64 of them in 16 KiB; the TLS handshake has 5 s too.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::Peer;
use crate::admission::{AddressPlace, Connections, Place};
use crate::metrics;
use crate::tls::stream::TlsStream;

/// Headers, and a TLS handshake, must be complete within this.
const HEADER_MAX: Duration = Duration::from_secs(5);
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16_384;
/// What the kernel may hold for a client that does not read; it doubles it for its own bookkeeping.
const SEND_BUFFER_BYTES: usize = 32_768;
/// First and longest pause after a failed accept.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What a connection holds while it is open.
type Places = (Place, Option<AddressPlace>);

/// Where requests go.
#[derive(Clone, Debug)]
struct Serving {
    routes: axum::Router,
    peer: IpAddr,
}

impl Service<Request<Incoming>> for Serving {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<axum::Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.peer));
        TowerToHyperService::new(self.routes.clone()).call(request)
    }
}

/// Connections that the kernel keeps until they are accepted, as far as its own limit allows: what does not fit, when everybody
/// comes back at once, is not refused but asks again after a second, and then two, and four.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listening port with its routes.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    routes: axum::Router,
    tls: Option<Arc<ServerConfig>>,
    connections: Connections,
    /// The peer is a proxy on this machine: clients' addresses are known later.
    behind_proxy: bool,
}

impl Listener {
    /// Binds; port 0 takes a free one. `connections` is what it may share with other ports.
    pub async fn bind(
        address: SocketAddr,
        routes: axum::Router,
        tls: Option<Arc<ServerConfig>>,
        connections: Connections,
        behind_proxy: bool,
    ) -> std::io::Result<Listener> {
        Ok(Listener {
            socket: listen(address)?,
            routes,
            tls,
            connections,
            behind_proxy,
        })
    }

    /// Where it really listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop`; then lets requests under way finish, and ends. Upgraded connections are not waited for.
    pub async fn run(self, stop: CancellationToken) {
        let requests = TaskTracker::new();
        let mut pause = BACK_OFF.0;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = BACK_OFF.0;
                    let Some(places) = self.try_enter(peer.ip()) else {
                        continue;
                    };
                    requests.spawn(self.connection(stream, peer.ip(), places, stop.clone()));
                }
                // The client was gone before it was accepted.
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    metrics::accept_error();
                    tracing::warn!(%error, "accepting fails; pausing");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
        }
        // From here on connecting is refused.
        drop(self.socket);
        requests.close();
        requests.wait().await;
    }

    fn try_enter(&self, peer: IpAddr) -> Option<Places> {
        let from = if self.behind_proxy {
            None
        } else {
            Some(self.connections.try_enter_from(peer)?)
        };
        Some((self.connections.try_enter()?, from))
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        places: Places,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let serving = Serving {
            routes: self.routes.clone(),
            peer,
        };
        let tls = self.tls.clone();
        async move {
            // Neither is worth refusing a client for.
            let _ = stream.set_nodelay(true);
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
            let Some(tls) = tls else {
                return serve(
                    Held {
                        stream,
                        _places: places,
                    },
                    serving,
                    stop,
                )
                .await;
            };
            match tokio::time::timeout(HEADER_MAX, TlsStream::accept(stream, tls)).await {
                Ok(Ok(stream)) => {
                    serve(
                        Held {
                            stream,
                            _places: places,
                        },
                        serving,
                        stop,
                    )
                    .await
                }
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake was not finished in time"),
            }
        }
    }
}

fn is_the_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Requests on one connection, until it ends or is upgraded.
async fn serve<S>(stream: S, serving: Serving, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_MAX)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), serving)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// A stream that counts as a connection for as long as it lives, upgraded or not.
pub(super) struct Held<S> {
    stream: S,
    _places: Places,
}

impl<S> Held<S> {
    /// A place that was found later: the client is behind a proxy.
    pub(super) fn hold_from(&mut self, from: Option<AddressPlace>) {
        if from.is_some() {
            self._places.1 = from;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_comes_at_once_finds_room_before_anybody_is_accepted() -> std::io::Result<()> {
        for address in [
            Ipv4Addr::LOCALHOST.into(),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            let socket = listen(SocketAddr::new(address, 0))?;
            let to = socket.local_addr()?;
            let mut waiting = Vec::new();
            for _ in 0..600 {
                // A second is what the kernel takes to ask again.
                let come = tokio::time::timeout(Duration::from_millis(900), TcpStream::connect(to));
                waiting.push(come.await.expect("there is room")?);
            }
        }
        Ok(())
    }
}
