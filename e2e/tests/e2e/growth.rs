//! The sweeps of `conch-load growth`, and its idle connections, small, against a real node.

use std::time::Duration;

use conch_loadtest::growth::{self, Dimension, Scale, Table};
use conch_loadtest::measure;
use conch_loadtest::raw::Transport;

/// Two sizes of everything: whether each sweep goes through and counts right, not what it measures.
fn tiny() -> Scale {
    Scale {
        members: vec![2, 6],
        connections: vec![110, 130],
        channels: vec![1, 25],
        stored: vec![1_000, 3_000],
        depth: vec![200, 1_000],
        rounds: 2,
        round: Duration::from_millis(400),
        pages: 10,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sweep_gives_each_of_its_figures_at_each_size() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = 0;
    let sweeps = growth::run(folder.path(), &Dimension::ALL, &tiny(), |_, _| told += 1)
        .await
        .unwrap();
    assert_eq!(told, 10, "each point is told");
    for sweep in &sweeps {
        let trends = sweep.trends();
        assert!(trends.len() >= 3, "{sweep:?}");
        for trend in trends {
            assert_eq!(trend.points.len(), 2, "{trend:?}");
            assert!(trend.points.iter().all(|(_, y)| *y >= 0.0), "{trend:?}");
        }
        for row in sweep.rows() {
            assert!(row.min <= row.median && row.median <= row.max, "{row:?}");
        }
    }
    let table = Table(&sweeps).to_string();
    for dimension in Dimension::ALL {
        assert!(
            table.contains(&format!("| {} |", dimension.name())),
            "{table}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_weighed_on_each_transport() {
    let folder = tempfile::tempdir().unwrap();
    let transports = [Transport::WebSocket, Transport::Tls, Transport::Quic];
    let mut seen = Vec::new();
    measure::idle(folder.path(), &transports, Some(150), |figures| {
        seen.push(figures.transport);
        let sizes: Vec<_> = figures.points.iter().map(|it| it.connections).collect();
        assert_eq!(sizes, [50, 150]);
        assert!(figures.points.iter().all(|it| it.resident_bytes > 0));
    })
    .await
    .unwrap();
    assert_eq!(seen, transports);
}

#[tokio::test]
async fn more_connections_than_descriptors_are_refused_with_what_is_possible() {
    let folder = tempfile::tempdir().unwrap();
    let refused = measure::idle(
        folder.path(),
        &[Transport::WebSocket],
        Some(10_000_000),
        |_| {},
    )
    .await
    .unwrap_err()
    .to_string();
    assert!(
        refused.contains("descriptors is measured with 100 to"),
        "{refused}"
    );
}
