//! The comparison: every message of a load comes out, on the floor and on a real node; files and errors of the program.
//!
//! NATS and Mosquitto are not needed here: their codecs have tests of their own, and `make bench` needs the programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use conch_loadtest::node;
use conch_loadtest::peers::conch::Template;
use conch_loadtest::peers::drive::{Drive, Load, Outcome, Shape};
use conch_loadtest::peers::topology::Topology;
use conch_loadtest::peers::{self, Peer, Running};
use conch_loadtest::stop::Stop;

const PAIRS: Topology = Topology::Pairs(2);
const FAN: Topology = Topology::Fan(3);

fn load(shape: Shape) -> Load {
    Load {
        shape,
        payload_bytes: 100,
        warm: Duration::from_millis(100),
        measured: Duration::from_millis(400),
        stalled: false,
        rest_within: Duration::ZERO,
    }
}

/// Closed and open loop, one after the other on the same connections.
fn run_both(mut server: Running, topology: Topology) -> Vec<Outcome> {
    let mut drive = Drive::connect(&mut server, topology, &Stop::never()).unwrap();
    let shapes = [Shape::Closed { window: 8 }, Shape::Open { rate: 200 }];
    shapes
        .map(|shape| drive.run(&mut server, &load(shape)).unwrap())
        .into()
}

/// Nothing is lost, repeated or swapped, all is acknowledged, and there is a figure for everything.
fn all_came(outcomes: Vec<Outcome>, topology: Topology) {
    for outcome in outcomes {
        assert_eq!(outcome.fault, None);
        let counted = outcome.settled;
        assert!(counted.published > 0);
        assert!(counted.acked >= counted.published);
        assert!(counted.delivered >= counted.published * u64::from(topology.subscribers()));
        assert!(outcome.server_cpu > Duration::ZERO && outcome.rss_bytes > 0);
        assert!(!outcome.ack_us.is_empty() && !outcome.delivery_us.is_empty());
        let overhead = outcome.overhead_per_delivery(100);
        assert!((1.0..200.0).contains(&overhead), "{overhead} bytes");
    }
}

#[test]
fn the_floor_delivers_everything_with_and_without_fdatasync() {
    let folder = tempfile::tempdir().unwrap();
    for peer in [Peer::Floor, Peer::FloorFsync] {
        for topology in [PAIRS, FAN] {
            let folder = folder
                .path()
                .join(format!("{peer}-{}", topology.subscribers()));
            let server = peers::start(peer, &folder).unwrap();
            all_came(run_both(server, topology), topology);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_delivers_everything_to_the_generator() {
    let folder = tempfile::tempdir().unwrap();
    let topologies = [PAIRS, FAN];
    let template = Template::make(&folder.path().join("template"), &topologies)
        .await
        .unwrap();
    for (at, topology) in topologies.into_iter().enumerate() {
        let server = template
            .start(&folder.path().join(at.to_string()))
            .await
            .unwrap();
        let outcomes = tokio::task::spawn_blocking(move || run_both(server, topology));
        all_came(outcomes.await.unwrap(), topology);
    }
}

/// The floor, killed in the middle: an error that says so, soon, and not a hang.
#[test]
fn a_server_that_dies_under_load_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = peers::start(Peer::Floor, folder.path()).unwrap();
    let mut drive = Drive::connect(&mut server, PAIRS, &Stop::never()).unwrap();
    let pid = server.pids()[0].to_string();
    Command::new("kill").args(["-9", &pid]).status().unwrap();
    let long = Load {
        measured: Duration::from_secs(60),
        ..load(Shape::Closed { window: 8 })
    };
    let error = drive.run(&mut server, &long).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("clos") || text.contains("ended") || text.contains("reset"),
        "{text}"
    );
}

fn bench(folder: &Path, arguments: &[&str], nats: &str) -> Output {
    let results: PathBuf = folder.join("results");
    Command::new(node::program("conch-load").unwrap())
        .args(["bench", "--rounds", "2", "--seconds", "1", "--folder"])
        .arg(folder)
        .arg("--results")
        .arg(results)
        .args(arguments)
        .env("NATS_SERVER", nats)
        .output()
        .unwrap()
}

#[test]
fn a_comparison_leaves_a_table_with_a_row_per_case_server_and_metric() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("speed.md");
    let blocks = ["run", "row-1", "case-pairs-saturated"]
        .map(|name| format!("Prose of {name}.\n<!-- bench:{name} -->\n<!-- /bench:{name} -->\n"));
    std::fs::write(&document, blocks.concat()).unwrap();
    let shown = document.display().to_string();
    let arguments = [
        "--cases",
        "pairs-saturated",
        "--servers",
        "floor,floor-fsync",
        "--document",
        &shown,
    ];
    let output = bench(folder.path(), &arguments, "");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let table = std::fs::read_to_string(folder.path().join("results/table.json")).unwrap();
    let table: Vec<serde_json::Value> = serde_json::from_str(&table).unwrap();
    for (server, class) in [("floor", "page cache"), ("floor-fsync", "fsync")] {
        let row = table
            .iter()
            .find(|row| row["server"] == server && row["metric"] == "cpu_us_per_delivery")
            .unwrap();
        assert_eq!((&row["class"], &row["rounds"]), (&class.into(), &2.into()));
        assert!(row["median"].as_f64().unwrap() > 0.0);
    }
    assert!(folder.path().join("results/run.json").is_file());
    let document = std::fs::read_to_string(document).unwrap();
    assert!(
        document.contains("Prose of row-1.") && document.contains("| floor-fsync | fsync |"),
        "{document}"
    );
}

#[test]
fn a_peer_that_cannot_be_had_is_an_error_with_a_word_about_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--cases", "pairs-saturated", "--servers", "floor,nats"];
    let output = bench(folder.path(), &arguments, "/nowhere/nats-server");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("make setup-bench"), "{said}");
}

#[test]
fn a_case_or_a_server_that_does_not_exist_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [["--cases", "pears"], ["--servers", "pears"]] {
        let output = bench(folder.path(), &arguments, "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("\"pears\""), "{said}");
    }
}
