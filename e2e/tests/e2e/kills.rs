//! The kill proof in short; `make chaos` runs the same for as long as one likes.

use std::time::Duration;

use anyhow::{Result, ensure};
use conch_loadtest::chaos::{self, ChaosPlan};

async fn chaos(seed: u64, seconds: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plan = ChaosPlan {
        seed,
        faults_for: Duration::from_secs(seconds),
        kills_max: u64::MAX,
        people: 5,
        pace: Duration::from_millis(60),
        folder: folder.path().to_owned(),
        failpoints: true,
        loss: 0.05,
        quic: true,
    };
    let report = chaos::run(&plan).await?;
    ensure!(report.is_clean(), "{report}");
    ensure!(
        report.kills() >= 10,
        "too few kills to prove much: {report}"
    );
    let (tcp, udp) = report.network.unwrap();
    let lost = udp.unwrap().dropped;
    ensure!(
        lost >= 20 && tcp.connections >= 20,
        "too good a network: {report}"
    );
    for on in [report.websocket, report.quic] {
        ensure!(
            on.devices == 5 && on.sdk > 0 && on.connections >= 10,
            "not both transports: {report}"
        );
    }
    let changes = report.verdict.as_ref().map_or(0, |v| v.counts.changes);
    ensure!(
        report.groups > 0 && changes > 0,
        "nobody came or went: {report}"
    );
    let acked = report
        .verdict
        .as_ref()
        .map_or(0, |v| v.counts.acked_messages);
    ensure!(acked >= 500, "too few messages to prove much: {report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_killed_again_and_again_loses_nothing() -> Result<()> {
    chaos(20_260_101, 45).await
}
