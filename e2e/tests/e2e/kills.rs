//! The kill proof in short; `make chaos` runs the same for as long as one likes.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_loadtest::chaos::{self, ChaosPlan};
use conch_loadtest::node::program;
use conch_loadtest::stop::Stop;
use tokio::process::Command;
use tokio::time::timeout;

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
    let report = chaos::run(&plan, &Stop::never()).await?;
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

#[tokio::test]
async fn proof_that_is_interrupted_is_judged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("chaos");
    let run = Command::new(program("conch-load")?)
        .args(["chaos", "--seconds", "600", "--people", "3", "--folder"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // As a terminal does it: the signal is for the whole group.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = run.id().context("it runs")? as libc::pid_t;
    // The third life: somebody was killed.
    let third = data.join("output-2.log");
    let lives = async {
        while !third.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), lives).await?;
    // SAFETY: kill takes plain numbers; the group's leader is our child and not reaped yet.
    unsafe { libc::kill(-group, libc::SIGINT) };
    let output = timeout(Duration::from_secs(150), run.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("faults ended early by a signal"),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
