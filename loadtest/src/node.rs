//! Starts, watches and kills a real `conch` process.
//!
//! Used by the tests in `e2e`, by `conch-load chaos` and `conch-load measure`. A [`NodePlan`] says how to start; a
//! [`Node`] is one life of the process on the plan's data folder, listening on ports that the system chose and that the
//! ready file tells. Dropping a node kills it with -9. The node's output goes to a file per life beside the data folder,
//! so that a failed test can show it. Nothing here knows the protocol.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use thiserror::Error;

use crate::certificate::Certificate;
use crate::raw::{Doors, QuicDoor};

/// How often a condition of the process is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A configuration that lifts every rate limit: tests and load are faster than people.
pub const LIFTED_LIMITS: &str = "\
[limits]
log_ins_per_min_account = 1_000_000
log_ins_per_min_address = 1_000_000
sends_per_user = { per_s = 10_000_000, burst = 10_000_000 }
frames_per_connection = { per_s = 10_000_000, burst = 10_000_000 }
early_per_address = { per_s = 1_000_000, burst = 1_000_000 }
http_per_user = { per_s = 1_000_000, burst = 1_000_000 }
";

/// Why a node did not do what was asked of it.
#[derive(Debug, Error)]
pub enum NodeError {
    #[error("no `conch` program at {0}: run `make build`, or set CONCH_BIN")]
    NoProgram(PathBuf),
    #[error("the node could not be started: {0}")]
    Spawn(#[source] io::Error),
    #[error("the node ended while it started: {status}\n{stderr}")]
    EndedEarly { status: ExitStatus, stderr: String },
    /// `threads`: name, state and kernel function of each, to see a hang from outside.
    #[error("the node was not ready within {within:?}; its threads: {threads}\n{stderr}")]
    NotReady {
        within: Duration,
        threads: String,
        stderr: String,
    },
    #[error("the ready file is not what it should be: {0}")]
    BadReadyFile(String),
    #[error("the node did not end within {within:?}\n{stderr}")]
    DidNotEnd { within: Duration, stderr: String },
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// How a node is started; the same plan starts it again on the same data.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// The `conch` executable.
    pub program: PathBuf,
    /// Folder that holds `data`, ready files and output of every life.
    pub folder: PathBuf,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Added behind `serve`'s own arguments.
    pub args: Vec<String>,
    /// `--dev`, unless a test wants to see what happens without.
    pub dev: bool,
    /// Where QUIC listens, `ip:port`; not at all without.
    pub quic: Option<String>,
    /// HTTP, WebSocket and QUIC show this certificate; without it HTTP is plain, and QUIC shows one of the node's own.
    pub certificate: Option<Certificate>,
    /// A Ctrl-C in the terminal is not for the node: whoever started it ends it.
    pub own_group: bool,
    /// How long the start may take.
    pub start_within: Duration,
}

/// What a ready node says of itself in its ready file.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Address of HTTP and WebSocket, `ip:port`.
    pub http: String,
    /// Address of `/metrics`, `ip:port`, when it listens for it.
    #[serde(default)]
    pub metrics: Option<String>,
    /// Address of QUIC, `ip:port`, when it listens for it.
    #[serde(default)]
    pub quic: Option<String>,
    /// SHA-256 of the certificate that QUIC shows, hex of the DER.
    #[serde(default)]
    pub quic_certificate_sha256: Option<String>,
}

/// One life of a node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    ready: Ready,
    certificate: Option<Certificate>,
    stderr: PathBuf,
    /// From spawn to the ready file.
    pub started_in: Duration,
}

impl NodePlan {
    /// A node with its data in `folder`/data and the program beside this executable.
    pub fn new(folder: &Path) -> Result<NodePlan, NodeError> {
        Ok(NodePlan {
            program: program("conch")?,
            folder: folder.to_owned(),
            env: Vec::new(),
            args: Vec::new(),
            dev: true,
            quic: None,
            certificate: None,
            own_group: false,
            start_within: Duration::from_secs(60),
        })
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The plan with QUIC on a free port of loopback.
    pub fn with_quic(mut self) -> NodePlan {
        self.quic = Some("127.0.0.1:0".to_owned());
        self
    }

    /// The plan with a process group of the node's own.
    pub fn in_own_group(mut self) -> NodePlan {
        self.own_group = true;
        self
    }

    /// The plan with TLS, and a certificate made for it.
    pub fn with_tls(mut self) -> Result<NodePlan, NodeError> {
        let made = Certificate::make(&self.folder).map_err(|source| NodeError::Io {
            what: "make a certificate",
            source,
        })?;
        self.certificate = Some(made);
        Ok(self)
    }

    /// The plan with one more variable in the environment.
    pub fn env(mut self, name: &str, value: &str) -> NodePlan {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The plan with a configuration file of this content.
    pub fn config(mut self, toml: &str) -> Result<NodePlan, NodeError> {
        let path = self.folder.join("conch.toml");
        fs::write(&path, toml).map_err(|source| NodeError::Io {
            what: "write the configuration",
            source,
        })?;
        self.args.push("--config".to_owned());
        self.args.push(path.display().to_string());
        Ok(self)
    }

    /// Spawns the process without waiting for it to be ready.
    pub fn spawn(&self) -> Result<Starting, NodeError> {
        static LIVES: AtomicU64 = AtomicU64::new(0);
        let life = LIVES.fetch_add(1, Ordering::Relaxed);
        let ready_file = self.folder.join(format!("ready-{life}.json"));
        let stderr = self.folder.join(format!("output-{life}.log"));
        let output = File::create(&stderr).map_err(NodeError::Spawn)?;
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args(["--http", "127.0.0.1:0"])
            .arg("--ready-file")
            .arg(&ready_file)
            .args(self.dev.then_some("--dev"))
            .args(self.certificate.iter().flat_map(|it| {
                let (chain, key) = (it.chain.as_os_str(), it.key.as_os_str());
                ["--tls-cert".as_ref(), chain, "--tls-key".as_ref(), key]
            }))
            .args(self.quic.iter().flat_map(|address| ["--quic", address]))
            .args(&self.args)
            .envs(
                self.env
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(NodeError::Spawn)?)
            .stderr(output);
        if self.own_group {
            command.process_group(0);
        }
        let began = Instant::now();
        let child = command.spawn().map_err(NodeError::Spawn)?;
        Ok(Starting {
            child: Some(child),
            certificate: self.certificate.clone(),
            began,
            ready_file,
            stderr,
            within: self.start_within,
        })
    }

    /// Starts the node and waits until it is ready.
    pub async fn start(&self) -> Result<Node, NodeError> {
        self.spawn()?.ready().await
    }
}

/// A node that was spawned and is not known to be ready.
#[derive(Debug)]
pub struct Starting {
    child: Option<Child>,
    certificate: Option<Certificate>,
    began: Instant,
    ready_file: PathBuf,
    stderr: PathBuf,
    within: Duration,
}

impl Starting {
    /// Waits for the ready file.
    pub async fn ready(mut self) -> Result<Node, NodeError> {
        loop {
            if let Ok(text) = fs::read_to_string(&self.ready_file) {
                let started_in = self.began.elapsed();
                let ready = serde_json::from_str(&text)
                    .map_err(|error| NodeError::BadReadyFile(format!("{error}: {text}")))?;
                let _ = fs::remove_file(&self.ready_file);
                return Ok(Node {
                    child: self.child.take().expect("taken only here and in ended"),
                    ready,
                    certificate: self.certificate.clone(),
                    stderr: self.stderr.clone(),
                    started_in,
                });
            }
            if let Some(status) = self.try_ended()? {
                return Err(NodeError::EndedEarly {
                    status,
                    stderr: tail_of(&self.stderr),
                });
            }
            if self.began.elapsed() > self.within {
                let pid = self.child.as_ref().map_or(0, Child::id);
                return Err(NodeError::NotReady {
                    within: self.within,
                    threads: threads_of(pid),
                    stderr: tail_of(&self.stderr),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for a process that is expected not to start; gives its status and output.
    pub async fn ended(mut self) -> Result<(ExitStatus, String), NodeError> {
        loop {
            if let Some(status) = self.try_ended()? {
                return Ok((status, tail_of(&self.stderr)));
            }
            if self.began.elapsed() > self.within {
                return Err(NodeError::DidNotEnd {
                    within: self.within,
                    stderr: tail_of(&self.stderr),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills it with -9 in the middle of its start.
    pub fn kill(mut self) {
        end(&mut self.child);
    }

    fn try_ended(&mut self) -> Result<Option<ExitStatus>, NodeError> {
        let child = self.child.as_mut().expect("taken only when ready");
        child.try_wait().map_err(|source| NodeError::Io {
            what: "wait for the node",
            source,
        })
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Node {
    /// `ip:port` of HTTP and WebSocket.
    pub fn http(&self) -> &str {
        &self.ready.http
    }

    /// Where clients connect to.
    pub fn doors(&self) -> Doors {
        let address = self.ready.quic.as_deref().and_then(|it| it.parse().ok());
        let of_files = self.certificate.as_ref().map(|it| it.sha256.clone());
        let of_quic = of_files
            .clone()
            .or_else(|| self.ready.quic_certificate_sha256.clone());
        let quic = address
            .zip(of_quic)
            .map(|(address, certificate_sha256)| QuicDoor {
                address,
                certificate_sha256,
            });
        Doors {
            http: self.ready.http.clone(),
            http_certificate_sha256: of_files,
            quic,
        }
    }

    /// `http://ip:port`, or `https://` with a certificate.
    pub fn base_url(&self) -> String {
        let scheme = if self.certificate.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.ready.http)
    }

    /// The certificate that it was given.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// What the ready file said.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that this life wrote so far (its end, when it is long).
    pub fn output(&self) -> String {
        tail_of(&self.stderr)
    }

    /// Kills with -9 and waits for the process to be gone.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks for a clean shutdown.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes plain numbers; the child is ours and not reaped yet, so its id is not another process's.
        unsafe {
            libc::kill(self.child.id() as libc::pid_t, signal);
        }
    }

    /// The exit status, if the process ended.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus, NodeError> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.try_ended() {
                return Ok(status);
            }
            if began.elapsed() > within {
                return Err(NodeError::DidNotEnd {
                    within,
                    stderr: self.output(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// CPU time that the process used so far; see [`cpu_of`].
    pub fn cpu(&self) -> Result<Duration, NodeError> {
        cpu_of(self.pid())
    }

    /// File descriptors that the process may have open.
    pub fn descriptors_max(&self) -> Result<usize, NodeError> {
        let text = proc_file(self.pid(), "limits")?;
        Ok(text
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(1_024))
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> Result<u64, NodeError> {
        rss_of(self.pid())
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> Result<usize, NodeError> {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .map(Iterator::count)
            .map_err(|source| NodeError::Io {
                what: "count descriptors",
                source,
            })
    }
}

/// CPU time that a process used so far, user and system, of threads that ended too. To the nanosecond: the ticks of /proc
/// are 10 ms, which is much of a short run.
pub fn cpu_of(pid: u32) -> Result<Duration, NodeError> {
    let failed = |source| NodeError::Io {
        what: "read a process's CPU clock",
        source,
    };
    let mut clock: libc::clockid_t = 0;
    // SAFETY: it writes one clock id to the place it is given.
    let found = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if found != 0 {
        return Err(failed(io::Error::from_raw_os_error(found)));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes one timespec to the place it is given.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Resident memory of a process, in bytes.
pub fn rss_of(pid: u32) -> Result<u64, NodeError> {
    let text = proc_file(pid, "status")?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    Ok(kib * 1_024)
}

/// Whether there is such a process.
pub fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn proc_file(pid: u32, file: &str) -> Result<String, NodeError> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|source| NodeError::Io {
        what: "read /proc",
        source,
    })
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process ended by SIGKILL (a failpoint's, or ours).
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

/// An executable of this workspace, beside the running one: `CONCH_BIN` names another `conch`; a test executable lies one
/// folder deeper than the programs.
pub fn program(name: &str) -> Result<PathBuf, NodeError> {
    if name == "conch"
        && let Some(path) = std::env::var_os("CONCH_BIN")
    {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().map_err(|source| NodeError::Io {
        what: "find this executable",
        source,
    })?;
    let mut folders = own.ancestors().skip(1).take(2);
    let beside = own.with_file_name(name);
    folders
        .find_map(|folder| {
            let path = folder.join(name);
            path.is_file().then_some(path)
        })
        .ok_or(NodeError::NoProgram(beside))
}

/// What every thread of a process is doing, as far as the kernel tells.
fn threads_of(pid: u32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return "gone".to_owned();
    };
    let of = |task: fs::DirEntry| {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let stat = read("stat");
        // proc(5): pid (name) state ...
        let state = stat.rsplit_once(") ").map_or("?", |(_, rest)| &rest[..1]);
        format!("{} {state} {}", read("comm").trim(), read("wchan"))
    };
    let threads: Vec<_> = tasks.flatten().map(of).collect();
    threads.join(", ")
}

/// The last 16 KiB of a file, as text.
fn tail_of(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let from = bytes.len().saturating_sub(16_384);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}
