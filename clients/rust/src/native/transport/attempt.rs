//! One attempt at one endpoint: which transports to try, what to ask the node first, and what to learn from the end.
//!
//! QUIC needs to know its port, which the node says at `GET /v1/node`; what is remembered saves the question, and is asked
//! for again when it does not lead to a node. Where WebSocket wins and QUIC then does not come up at all, QUIC is not tried
//! for ten minutes; where it was only slower, nothing is held against it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

use super::memory::{Memory, QuicRoute};
use super::quic::QuicDialer;
use super::race::{Rival, Winner, race};
use super::{DialError, Link, Transports, websocket};
use crate::native::http::Api;

/// QUIC's head start before WebSocket.
const HEAD_START: Duration = Duration::from_secs(1);
/// How long a QUIC handshake may take while there is another transport, and when there is none.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
const HANDSHAKE_ALONE_MAX: Duration = Duration::from_secs(5);
/// How long the question for the node's QUIC may take.
const DISCOVERY_MAX: Duration = Duration::from_secs(3);

/// Makes attempts, and remembers what they taught.
#[derive(Debug)]
pub(in crate::native) struct Attempts {
    pub(in crate::native) transports: Transports,
    pub(in crate::native) api: Api,
    /// TLS of WebSocket.
    pub(in crate::native) tls: Arc<rustls::ClientConfig>,
    pub(in crate::native) quic: QuicDialer,
    pub(in crate::native) memory: Memory,
    /// QUIC that lost its race and may still come up; each ends within seconds.
    pub(in crate::native) late: Mutex<JoinSet<()>>,
}

impl Attempts {
    pub(super) async fn network_changed(&self) {
        self.quic.rebind();
        self.memory.network_changed().await;
    }

    /// Opens a transport to the endpoint; nothing was said over it yet.
    pub(super) async fn open(self: Arc<Self>, endpoint: Url) -> Result<Link, DialError> {
        match self.transports {
            Transports::WebSocketOnly => self.websocket(&endpoint).await,
            Transports::QuicOnly => {
                let quic = self.quic(&endpoint, HANDSHAKE_ALONE_MAX).await?;
                Ok(Link::Quic(quic))
            }
            Transports::Auto if self.memory.is_avoided(&endpoint) => {
                match self.websocket(&endpoint).await {
                    Ok(link) => Ok(link),
                    // A network that takes no TCP there, either: QUIC has not become less likely than that.
                    Err(error) if self.memory.route(&endpoint).is_none() => Err(error),
                    Err(_) => {
                        let quic = self.quic(&endpoint, HANDSHAKE_MAX).await?;
                        self.memory.works(&endpoint).await;
                        Ok(Link::Quic(quic))
                    }
                }
            }
            Transports::Auto => self.race(endpoint).await,
        }
    }

    async fn race(self: Arc<Self>, endpoint: Url) -> Result<Link, DialError> {
        let network = self.memory.network();
        let quic = {
            let (attempts, endpoint) = (Arc::clone(&self), endpoint.clone());
            Box::pin(async move { attempts.quic(&endpoint, HANDSHAKE_MAX).await })
        };
        match race(quic, self.websocket(&endpoint), HEAD_START).await? {
            Winner::Quic(quic) => {
                // An earlier attempt that is still late has nothing to say against this.
                self.late().abort_all();
                self.memory.works(&endpoint).await;
                Ok(Link::Quic(quic))
            }
            Winner::WebSocket(link, rival) => {
                // Beside the connection, which does not wait for what is learnt.
                let learning = Arc::clone(&self).learn(endpoint, network, rival);
                let mut late = self.late();
                while late.try_join_next().is_some() {}
                late.spawn(learning);
                Ok(link)
            }
        }
    }

    /// What the end of an attempt by QUIC tells that lost its race.
    async fn learn(
        self: Arc<Self>,
        endpoint: Url,
        network: u64,
        rival: Rival<quinn::Connection, DialError>,
    ) {
        let ended = match rival {
            Rival::Failed(error) => Err(error),
            Rival::Running(quic) => quic.await,
        };
        match ended {
            Ok(late) => late.close(0_u32.into(), b""),
            Err(error) => {
                tracing::debug!(%error, %endpoint, "no QUIC");
                if error.is_about_quic() {
                    self.memory.avoid(&endpoint, network).await;
                }
            }
        }
    }

    fn late(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is tried or remembered any more.
    pub(super) fn end(&self) {
        self.late().abort_all();
    }

    async fn websocket(&self, endpoint: &Url) -> Result<Link, DialError> {
        // The library's future is large, and is one of several that wait here.
        let socket = Box::pin(websocket::dial(endpoint, &self.tls)).await?;
        Ok(Link::WebSocket(Box::new(socket)))
    }

    /// By what is known; if that does not lead there, by what the node says now.
    async fn quic(
        &self,
        endpoint: &Url,
        handshake_max: Duration,
    ) -> Result<quinn::Connection, DialError> {
        let known = self.memory.route(endpoint);
        let error = match &known {
            Some(route) => match self.handshake(endpoint, route, handshake_max).await {
                Ok(quic) => return Ok(quic),
                Err(error) => Some(error),
            },
            None => None,
        };
        let told = self.look_up(endpoint).await?;
        match (told, error) {
            (None, _) => Err(DialError::NoQuic),
            (told, Some(error)) if told == known => Err(error),
            (Some(told), _) => self.handshake(endpoint, &told, handshake_max).await,
        }
    }

    async fn handshake(
        &self,
        endpoint: &Url,
        route: &QuicRoute,
        handshake_max: Duration,
    ) -> Result<quinn::Connection, DialError> {
        let dialling = self.quic.dial(endpoint, route);
        let dialled = timeout(handshake_max, dialling).await;
        dialled.unwrap_or(Err(DialError::TimedOut))
    }

    async fn look_up(&self, endpoint: &Url) -> Result<Option<QuicRoute>, DialError> {
        let asking = self.api.quic_route(endpoint);
        let route = match timeout(DISCOVERY_MAX, asking).await {
            Ok(route) => route?,
            Err(_) => return Err(DialError::TimedOut),
        };
        self.memory.learnt(endpoint, route.clone()).await;
        Ok(route)
    }
}

impl DialError {
    /// Whether it tells that QUIC does not work there now, and not that something else was in the way.
    fn is_about_quic(&self) -> bool {
        match self {
            DialError::NoQuic
            | DialError::TimedOut
            | DialError::Tls(_)
            | DialError::QuicConnect(_)
            | DialError::Quic(_)
            | DialError::Socket(_) => true,
            DialError::Discovery(_) | DialError::Name(_) | DialError::WebSocket(_) => false,
        }
    }
}
