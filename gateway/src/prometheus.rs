//! `/metrics`, on a listener of its own that is for loopback only.
//!
//! The recorder belongs to the process: the first node installs it, further ones (in tests) share it.

use std::sync::{Arc, OnceLock};

use axum::Router as Routes;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::http::Api;
use crate::metrics;

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Upper bounds of latencies, in seconds.
const LATENCY_BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// The process's recorder.
pub fn installed() -> &'static PrometheusHandle {
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), LATENCY_BUCKETS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        // Another recorder is there already: the program around us has its own, and ours stays silent.
        let _ = ::metrics::set_global_recorder(recorder);
        metrics::describe();
        conch_store::metrics::describe();
        conch_router::metrics::describe();
        handle
    })
}

/// The one route.
pub fn routes(handle: PrometheusHandle, api: Arc<Api>) -> Routes {
    Routes::new().route(
        "/metrics",
        get(move || {
            let (handle, api) = (handle.clone(), api.clone());
            async move {
                metrics::connections(api.edge.hub.len());
                handle.run_upkeep();
                (
                    [(
                        header::CONTENT_TYPE,
                        "text/plain; version=0.0.4; charset=utf-8",
                    )],
                    handle.render(),
                )
                    .into_response()
            }
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_every_crate_come_with_their_help() {
        let handle = installed();
        ::metrics::counter!(conch_store::metrics::APPENDED_RECORDS.name).increment(1);
        ::metrics::counter!(conch_router::metrics::ALL[0].name).increment(1);
        let text = handle.render();
        for name in [
            conch_store::metrics::APPENDED_RECORDS.name,
            conch_router::metrics::ALL[0].name,
        ] {
            assert!(
                text.contains(&format!("# HELP {name} ")),
                "{name} is not described"
            );
        }
    }
}
