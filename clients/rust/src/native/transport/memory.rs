//! What is remembered of each endpoint's QUIC: where it is, and until when it is not tried. Kept in the data folder, so
//! that the next start goes straight to QUIC, and does not pay again for a network that blocks it.
//!
//! Times are the wall clock's, because they outlive the program; a clock that was set back makes them void, not longer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use super::pin::CertificateHash;
use crate::native::login::wall_ms;
use crate::native::store::Store;

/// For how long QUIC is not tried where it did not work or is not there, in milliseconds.
const AVOID_MS: u64 = 600_000;
/// Endpoints that are remembered: nodes name new ones without end.
const ENDPOINTS_MAX: usize = 64;

/// Where an endpoint's QUIC is, and whom to expect there. The host is the endpoint's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::native) struct QuicRoute {
    pub(in crate::native) port: u16,
    /// The one certificate to trust, in development; `None`: ordinary verification.
    pub(in crate::native) certificate: Option<CertificateHash>,
}

/// What the data folder holds of one endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::native) struct RouteRow {
    pub(in crate::native) endpoint: String,
    pub(in crate::native) route: Option<QuicRoute>,
    /// ms since 1970 by this device's clock; 0: not avoided.
    pub(in crate::native) avoid_until_ms: u64,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Known {
    route: Option<QuicRoute>,
    avoid_until_ms: u64,
}

#[derive(Debug, Default)]
struct Inner {
    known: BTreeMap<String, Known>,
    network: u64,
}

/// What is known of all endpoints.
#[derive(Debug)]
pub(in crate::native) struct Memory {
    store: Store,
    inner: Mutex<Inner>,
}

impl Memory {
    /// What the data folder holds. If it cannot be read nothing is remembered, which costs a question and a second.
    pub(in crate::native) async fn load(store: Store) -> Memory {
        let rows = store.routes().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what was remembered of transports cannot be read");
            Vec::new()
        });
        let known = rows.into_iter().map(|row| {
            let known = Known {
                route: row.route,
                avoid_until_ms: row.avoid_until_ms,
            };
            (row.endpoint, known)
        });
        Memory {
            store,
            inner: Mutex::new(Inner {
                known: known.collect(),
                network: 0,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the endpoint's QUIC is, as far as is known.
    pub(super) fn route(&self, endpoint: &Url) -> Option<QuicRoute> {
        let inner = self.inner();
        inner.known.get(endpoint.as_str())?.route.clone()
    }

    /// Whether QUIC is not to be tried there now.
    pub(super) fn is_avoided(&self, endpoint: &Url) -> bool {
        let inner = self.inner();
        let known = inner.known.get(endpoint.as_str());
        let left = known.map_or(0, |it| it.avoid_until_ms.saturating_sub(wall_ms()));
        (1..=AVOID_MS).contains(&left)
    }

    /// Which network this is; what is learnt in one is not said of the next.
    pub(super) fn network(&self) -> u64 {
        self.inner().network
    }

    /// The node said where its QUIC is, or that it has none.
    pub(super) async fn learnt(&self, endpoint: &Url, route: Option<QuicRoute>) {
        self.change(endpoint, |known| known.route = route).await;
    }

    /// QUIC works there.
    pub(super) async fn works(&self, endpoint: &Url) {
        self.change(endpoint, |known| known.avoid_until_ms = 0)
            .await;
    }

    /// QUIC does not work there, in that network.
    pub(super) async fn avoid(&self, endpoint: &Url, network: u64) {
        if self.network() != network {
            return;
        }
        tracing::debug!(%endpoint, "QUIC is not tried for ten minutes");
        let until = wall_ms() + AVOID_MS;
        self.change(endpoint, |known| known.avoid_until_ms = until)
            .await;
    }

    /// Another network may let through what the last one did not.
    pub(super) async fn network_changed(&self) {
        let rows: Vec<_> = {
            let mut inner = self.inner();
            inner.network += 1;
            let avoided = inner
                .known
                .iter_mut()
                .filter(|(_, it)| it.avoid_until_ms > 0);
            avoided
                .map(|(endpoint, known)| {
                    known.avoid_until_ms = 0;
                    row(endpoint, known)
                })
                .collect()
        };
        for row in rows {
            self.save(&row).await;
        }
    }

    async fn change(&self, endpoint: &Url, change: impl FnOnce(&mut Known)) {
        let (changed, dropped) = {
            let mut inner = self.inner();
            let known = inner.known.entry(endpoint.to_string()).or_default();
            let before = known.clone();
            change(known);
            let changed = (*known != before).then(|| row(endpoint.as_str(), known));
            (changed, make_room(&mut inner.known, endpoint.as_str()))
        };
        if let Some(row) = changed {
            self.save(&row).await;
        }
        if let Some(endpoint) = dropped
            && let Err(error) = self.store.forget_route(&endpoint).await
        {
            tracing::warn!(%error, "a forgotten endpoint stays in the data folder");
        }
    }

    async fn save(&self, row: &RouteRow) {
        if let Err(error) = self.store.save_route(row).await {
            tracing::warn!(%error, "what was learnt of a transport is not remembered");
        }
    }
}

fn row(endpoint: &str, known: &Known) -> RouteRow {
    RouteRow {
        endpoint: endpoint.to_owned(),
        route: known.route.clone(),
        avoid_until_ms: known.avoid_until_ms,
    }
}

/// Any other endpoint leaves when there are too many.
fn make_room(known: &mut BTreeMap<String, Known>, endpoint: &str) -> Option<String> {
    if known.len() <= ENDPOINTS_MAX {
        return None;
    }
    let other = known.keys().find(|it| *it != endpoint)?.clone();
    known.remove(&other);
    Some(other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn url(n: usize) -> Url {
        Url::parse(&format!("http://node-{n}/")).unwrap()
    }

    fn route() -> QuicRoute {
        QuicRoute {
            port: 4433,
            certificate: Some([7; 32]),
        }
    }

    #[tokio::test]
    async fn what_was_learnt_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap().store;
        let memory = Memory::load(store.clone()).await;
        memory.learnt(&url(1), Some(route())).await;
        memory.avoid(&url(2), memory.network()).await;
        store.close().await;

        let memory = Memory::load(Store::open(folder.path()).await.unwrap().store).await;
        assert_eq!(memory.route(&url(1)), Some(route()));
        assert!(!memory.is_avoided(&url(1)) && memory.is_avoided(&url(2)));
        memory.works(&url(2)).await;
        assert!(!memory.is_avoided(&url(2)));
    }

    #[tokio::test]
    async fn another_network_forgets_what_was_blocked_and_hears_nothing_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap().store;
        let memory = Memory::load(store.clone()).await;
        memory.learnt(&url(1), Some(route())).await;
        let old = memory.network();
        memory.avoid(&url(1), old).await;
        memory.network_changed().await;
        assert!(!memory.is_avoided(&url(1)));
        assert_eq!(store.routes().await.unwrap()[0].avoid_until_ms, 0);
        // An attempt of the old network ends.
        memory.avoid(&url(1), old).await;
        assert!(!memory.is_avoided(&url(1)));
        assert_eq!(memory.route(&url(1)), Some(route()));
    }

    #[tokio::test]
    async fn ten_minutes_end_and_a_clock_that_was_set_back_does_not_prolong_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap().store;
        for (n, avoid_until_ms) in [(1, wall_ms() - 1), (2, wall_ms() + 2 * AVOID_MS)] {
            let row = RouteRow {
                endpoint: url(n).to_string(),
                route: None,
                avoid_until_ms,
            };
            store.save_route(&row).await.unwrap();
        }
        let memory = Memory::load(store).await;
        assert!(!memory.is_avoided(&url(1)) && !memory.is_avoided(&url(2)));
    }

    #[tokio::test]
    async fn endpoints_without_end_are_not_all_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap().store;
        let memory = Memory::load(store.clone()).await;
        for n in 0..ENDPOINTS_MAX + 3 {
            memory.learnt(&url(n), Some(route())).await;
        }
        assert_eq!(store.routes().await.unwrap().len(), ENDPOINTS_MAX);
        assert_eq!(memory.route(&url(ENDPOINTS_MAX + 2)), Some(route()));
    }
}
