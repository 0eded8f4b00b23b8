//! `conch-load run` and `compare` as a person starts them: small scenarios on all transports with the checker on, and
//! everything that may go wrong with a report kept.
//!
//! Figures of a debug build on a shared machine may be the generator's own (exit code 3); what is asked for here is the
//! promise and that everything came.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use conch_loadtest::node::{LIFTED_LIMITS, Node, NodePlan, program};
use conch_loadtest::report::{Ended, Report};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);

const PAIRS: &str = "\
about = \"pairs\"
[population]
people = 8
[[direct]]
pairs = 4
[time]
warm_up_s = 0.5
duration_s = 2
[[send]]
rate = 80
";

/// A folder with a scenario, and where reports go.
struct Runs {
    folder: tempfile::TempDir,
}

impl Runs {
    fn new() -> Runs {
        Runs {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("conch-load").unwrap());
        command
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, args: &[&str]) -> Output {
        let run = self.command(args).output();
        timeout(PATIENCE, run).await.expect("it ends").unwrap()
    }

    fn scenario(&self, text: &str) {
        fs::write(self.path().join("small.toml"), text).unwrap();
    }

    /// Plays a scenario on a node of its own; the promise must hold.
    async fn play(&self, text: &str, args: &[&str]) -> Report {
        self.scenario(text);
        let mut all = vec!["run", "small.toml", "--spawn", "--out", "out"];
        all.extend(args);
        let output = self.output(&all).await;
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "{code:?}\n{}", words(&output));
        let report = self.report();
        assert_eq!(report.ended, Ended::Complete);
        let html = fs::read_to_string(self.path().join("out/small.html")).unwrap();
        assert!(html.contains("<svg") && html.ends_with("</html>"));
        report
    }

    fn report(&self) -> Report {
        Report::read(&self.path().join("out/small.json")).unwrap()
    }

    /// Starts a run on a node that is there, and waits until it sends.
    async fn sending(&self, text: &str, node: &Node) -> Sending {
        self.scenario(text);
        let url = node.base_url();
        let mut child = self
            .command(&["run", "small.toml", "--target", &url, "--out", "out"])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let sends = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let is_sending = line.contains("/s sent");
                seen.push(line);
                if is_sending {
                    return true;
                }
            }
            false
        };
        let is_sending = timeout(PATIENCE, sends).await.expect("it sends soon");
        assert!(is_sending, "it ended first: {seen:?}");
        // Its progress goes on and must be taken.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Sending { child }
    }
}

struct Sending {
    child: Child,
}

impl Sending {
    async fn ends_with(self, code: i32) {
        let output = timeout(PATIENCE, self.child.wait_with_output())
            .await
            .expect("it ends")
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", words(&output));
    }
}

fn words(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

async fn node(folder: &Path) -> Node {
    let folder = folder.join("node");
    fs::create_dir_all(&folder).unwrap();
    let plan = NodePlan::new(&folder)
        .unwrap()
        .config(LIFTED_LIMITS)
        .unwrap();
    plan.start().await.unwrap()
}

#[track_caller]
fn assert_whole(report: &Report, channels: usize, devices: usize) {
    let verdict = report.verdict.as_ref().expect("it was checked");
    assert!(verdict.is_whole, "{verdict:?}");
    assert_eq!(verdict.violations_total, 0, "{verdict:?}");
    assert_eq!((verdict.channels, verdict.devices), (channels, devices));
    assert!(verdict.full_reads >= channels as u64);
    let counts = &report.figures.counts;
    assert!(
        counts.acked > 0 && counts.delivered >= counts.acked,
        "{counts:?}"
    );
    assert_eq!((counts.unanswered, counts.missing), (0, 0));
    assert!(report.latencies.ack_us.count() > 0 && report.latencies.delivery_us.count() > 0);
}

#[tokio::test]
async fn load_pairs_over_websocket_are_checked_and_measured() {
    let runs = Runs::new();
    let report = runs.play(PAIRS, &[]).await;
    assert_whole(&report, 4, 8);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    // 80 per second for 2 s, Poisson: six deviations.
    let sent = report.figures.counts.sent;
    assert!((84..=236).contains(&sent), "{sent}");
    let server = report
        .figures
        .server
        .as_ref()
        .expect("its process is known");
    assert!(server.rss_bytes_max > 1 << 20);
    assert!(report.series.len() >= 2);
}

#[tokio::test]
async fn load_groups_over_tls_and_quic_in_two_workers_are_checked() {
    let runs = Runs::new();
    let text = "\
[population]
people = 12
devices = 2
transport = { wss = 0.5, quic = 0.5 }
[[group]]
groups = 4
members = 6
[time]
warm_up_s = 0.5
duration_s = 2
[[send]]
rate = 40
arrivals = \"fixed\"
batch = 2
";
    let report = runs.play(text, &["--workers", "2"]).await;
    assert_whole(&report, 4, 24);
    assert_eq!(report.generator.workers.len(), 2);
    assert!(report.generator.workers.iter().all(|it| it.devices == 12));
    // Each message goes to 5 others with two devices, and to the sender's second one.
    let counts = &report.figures.counts;
    assert!(counts.delivered >= 10 * counts.acked, "{counts:?}");
}

#[tokio::test]
async fn load_of_all_activities_at_once_keeps_the_promise() {
    let runs = Runs::new();
    let text = "\
[population]
people = 20
[[group]]
groups = 4
members = 10
stored = 300
[[direct]]
pairs = 10
[time]
warm_up_s = 0.5
duration_s = 4
[[send]]
to = \"group\"
rate = 60
[[send]]
to = \"direct\"
window = 4
batch = 2
senders = 1
for_s = 3
[[history]]
rate = 50
items = 40
[[read]]
rate = 50
[[storm]]
at_s = 1
share = 0.5
within_s = 0.2
[[stall]]
at_s = 1.5
for_s = 1
share = 0.2
[[absence]]
at_s = 0.5
for_s = 2
share = 0.2
";
    let report = runs.play(text, &[]).await;
    assert_whole(&report, 14, 20);
    let figures = &report.figures;
    assert!(
        figures.counts.pages > 0 && figures.page.count > 0,
        "{figures:?}"
    );
    assert!(figures.counts.read_marks > 0);
    assert!(figures.counts.reconnects >= 10, "{figures:?}");
    assert!(figures.catch_up.count >= 10, "{figures:?}");
    assert!(figures.counts.caught_up > 0, "{figures:?}");
    assert!(
        report.verdict.unwrap().messages >= 1_200,
        "with those that were stored"
    );
}

#[tokio::test]
async fn load_looks_for_the_highest_rate() {
    let runs = Runs::new();
    let text = "\
[population]
people = 4
[[direct]]
pairs = 2
[time]
warm_up_s = 0
duration_s = 1
[[send]]
rate = 20
[search]
p99_ms = 60_000
rate_max = 40
probe_s = 1
";
    let report = runs.play(text, &[]).await;
    let search = report.search.expect("it looked");
    assert!(!search.probes.is_empty());
    // A generator that was late breaks a probe, as it should: on a quiet machine 40 holds.
    assert!(search.rate.is_none_or(|rate| rate <= 40.0), "{search:?}");
    for probe in &search.probes {
        assert_eq!(
            search.rate.is_some_and(|rate| rate >= probe.rate),
            probe.broke.is_empty(),
            "{search:?}"
        );
    }
}

#[tokio::test]
async fn load_without_the_checker_says_so() {
    let runs = Runs::new();
    let report = runs.play(PAIRS, &["--no-check", "--seconds", "1"]).await;
    assert_eq!(report.verdict, None);
    assert!(report.verdict_line().contains("nothing was checked"));
    assert!(report.figures.counts.acked > 0);
}

#[tokio::test]
async fn load_on_a_node_that_dies_ends_with_a_verdict_and_keeps_the_report() {
    let runs = Runs::new();
    let node = node(runs.path()).await;
    let text = PAIRS.replace("duration_s = 2", "duration_s = 60");
    let run = runs.sending(&text, &node).await;
    node.kill();
    run.ends_with(1).await;
    let report = runs.report();
    assert!(
        matches!(report.ended, Ended::ServerFailed(_)),
        "{:?}",
        report.ended
    );
    assert!(
        report.series.iter().any(|row| row.sent > 0),
        "what was measured is kept"
    );
    let verdict = report.verdict.expect("it was checked");
    assert!(!verdict.is_whole);
    assert_eq!(verdict.violations_total, 0, "{verdict:?}");
}

#[tokio::test]
async fn load_that_is_interrupted_writes_the_report_so_far() {
    let runs = Runs::new();
    let node = node(runs.path()).await;
    let text = PAIRS.replace("duration_s = 2", "duration_s = 60");
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let run = runs.sending(&text, &node).await;
        let pid = run.child.id().unwrap() as libc::pid_t;
        // SAFETY: kill takes plain numbers; the child is ours and not reaped yet.
        unsafe { libc::kill(pid, signal) };
        run.ends_with(4).await;
        let report = runs.report();
        assert_eq!(report.ended, Ended::Interrupted);
        assert!(
            report.series.iter().any(|row| row.sent > 0),
            "what was measured is kept"
        );
        fs::remove_dir_all(runs.path().join("out")).unwrap();
    }
}

#[tokio::test]
async fn load_whose_worker_dies_ends_with_a_verdict() {
    let runs = Runs::new();
    let node = node(runs.path()).await;
    let text = PAIRS.replace("duration_s = 2", "duration_s = 60");
    let run = runs.sending(&text, &node).await;
    let worker = child_of(run.child.id().unwrap());
    // SAFETY: kill takes plain numbers; the process is a child of a child that still runs.
    unsafe { libc::kill(worker, libc::SIGKILL) };
    run.ends_with(1).await;
    let report = runs.report();
    let Ended::WorkerFailed(why) = &report.ended else {
        panic!("{:?}", report.ended);
    };
    assert!(why.contains("worker 0 ended"), "{why}");
}

/// The process that `pid` started.
fn child_of(pid: u32) -> libc::pid_t {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children: Vec<_> = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .collect();
    let text = children.concat();
    text.split_whitespace()
        .next()
        .expect("it has a worker")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn load_is_compared_with_an_exit_code_to_match() {
    let runs = Runs::new();
    let mut report = runs.play(PAIRS, &["--seconds", "1"]).await;
    // Valid or not on this machine: here it is about the comparison.
    report.invalid.clear();
    let write = |name: &str, report: &Report| {
        let text = serde_json::to_string(report).unwrap();
        fs::write(runs.path().join(name), text).unwrap();
    };
    write("a.json", &report);
    let output = runs.output(&["compare", "a.json", "a.json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let server = report.figures.server.as_mut().unwrap();
    server.rss_bytes_max = server.rss_bytes_max * 3 / 2;
    write("b.json", &report);
    let output = runs.output(&["compare", "a.json", "b.json"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("node memory") && words(&output).contains("FAIL: 1 of"));
    report.scenario.seed += 1;
    write("c.json", &report);
    fs::write(runs.path().join("d.json"), "{}").unwrap();
    for (other, word) in [
        ("c.json", "different scenarios"),
        ("d.json", "not a report"),
        ("e.json", "e.json"),
    ] {
        let output = runs.output(&["compare", "a.json", other]).await;
        assert_eq!(output.status.code(), Some(2), "{}", words(&output));
        assert!(words(&output).contains(word), "{}", words(&output));
    }
}

#[tokio::test]
async fn load_that_cannot_be_begun_says_what_to_do() {
    let runs = Runs::new();
    let node = node(runs.path()).await;
    let url = node.base_url();
    let nobody = unused_address();
    let with = |from: &str, to: &str| PAIRS.replace(from, to);
    let cases: Vec<(String, Vec<&str>, &str)> = vec![
        (
            with("rate = 80", "rat = 80"),
            vec!["--spawn"],
            "small.toml: send[0].rat: unknown key; allowed here:",
        ),
        (
            with("rate = 80", "rate = -1"),
            vec!["--spawn"],
            "small.toml: send[0].rate: -1 is not allowed; allowed: number, 0.01",
        ),
        (
            with("people = 8", "people = 0"),
            vec!["--spawn"],
            "small.toml: population.people: 0 is not allowed",
        ),
        (PAIRS.to_owned(), vec![], "--target"),
        (
            PAIRS.to_owned(),
            vec!["--target", &url, "--spawn"],
            "cannot be used with",
        ),
        (
            PAIRS.to_owned(),
            vec!["--spawn", "--seconds", "-1"],
            "--seconds",
        ),
        (
            PAIRS.to_owned(),
            vec!["--target", &nobody],
            "ask it what it is",
        ),
        (
            PAIRS.to_owned(),
            vec!["--target", "ftp://there"],
            "allowed: http://HOST:PORT",
        ),
        (
            PAIRS.to_owned(),
            vec!["--target", &url, "--transport", "wss"],
            "use ws",
        ),
        (
            PAIRS.to_owned(),
            vec!["--target", &url, "--transport", "quic"],
            "does not speak QUIC",
        ),
        (
            PAIRS.to_owned(),
            vec!["--target", &url, "--transport", "tcp"],
            "possible values: ws, wss, quic",
        ),
        (
            PAIRS.to_owned(),
            vec!["--target", &url, "--pid", "4194304"],
            "there is no such process",
        ),
    ];
    for (text, args, word) in cases {
        runs.scenario(&text);
        let mut all = vec!["run", "small.toml", "--out", "out"];
        all.extend(&args);
        let output = runs.output(&all).await;
        assert_eq!(output.status.code(), Some(2), "{args:?} {}", words(&output));
        assert!(
            words(&output).contains(word),
            "{args:?} {word}\n{}",
            words(&output)
        );
    }
    let output = runs.output(&["run", "nowhere.toml", "--spawn"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("or one of: direct, group-10"),
        "{}",
        words(&output)
    );
    assert!(!runs.path().join("out").exists(), "nothing was begun");
    let left: Vec<PathBuf> = fs::read_dir(runs.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("conch-load-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A URL of this machine where nothing listens.
fn unused_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn load_on_a_node_with_tls_trusts_the_root_that_it_is_given() {
    let runs = Runs::new();
    let folder = runs.path().join("node");
    fs::create_dir_all(&folder).unwrap();
    let plan = NodePlan::new(&folder)
        .unwrap()
        .config(LIFTED_LIMITS)
        .unwrap();
    let node = plan.with_tls().unwrap().with_quic().start().await.unwrap();
    let root = node.certificate().unwrap().chain.display().to_string();
    let transport = "people = 8\ntransport = { wss = 0.5, quic = 0.5 }";
    runs.scenario(&PAIRS.replace("people = 8", transport));
    let (url, pid) = (node.base_url(), node.pid().to_string());
    let args = ["run", "small.toml", "--out", "out", "--target", &url];
    let output = runs.output(&args).await;
    assert_eq!(
        output.status.code(),
        Some(2),
        "nobody vouches for it: {}",
        words(&output)
    );
    let trusting = ["--root-certificate", &root, "--pid", &pid];
    let output = runs.output(&[&args[..], &trusting[..]].concat()).await;
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}",
        words(&output)
    );
    let report = runs.report();
    assert_whole(&report, 4, 8);
    assert!(report.figures.server.is_some(), "its process was told");
    let left = report.environment.left_behind.expect("it was there before");
    assert!(left.contains("8 accounts load-"), "{left}");
}

#[tokio::test]
async fn load_on_what_is_no_node_or_lets_nobody_in_ends_soon() {
    let runs = Runs::new();
    runs.scenario(PAIRS);
    // Answers nothing, ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nonsense = answers_nonsense().await;
    let closed = runs.path().join("closed");
    fs::create_dir_all(&closed).unwrap();
    let configuration = format!("{LIFTED_LIMITS}[auth]\nsign_up = \"closed\"\n");
    let closed = NodePlan::new(&closed)
        .unwrap()
        .config(&configuration)
        .unwrap();
    let closed = closed.start().await.unwrap();
    for (url, word) in [
        (nonsense, "ask it what it is"),
        (closed.base_url(), "nobody may sign up there"),
    ] {
        let output = runs.output(&["run", "small.toml", "--target", &url]).await;
        assert_eq!(output.status.code(), Some(2), "{}", words(&output));
        assert!(words(&output).contains(word), "{}", words(&output));
    }
    let url = format!("http://{}", silent.local_addr().unwrap());
    let began = Instant::now();
    let output = runs.output(&["run", "small.toml", "--target", &url]).await;
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(began.elapsed() < Duration::from_secs(60));
}

/// Answers every request with words that no node says.
async fn answers_nonsense() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1_024];
            let _ = socket.read(&mut request).await;
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
                .await;
        }
    });
    url
}
