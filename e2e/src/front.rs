//! A real nginx or HAProxy in front of a node, configured by the very words of `docs/operations.md`.
//!
//! [`Front::start`] takes the snippet out of the document and puts only addresses, certificate and the idle timeout of the
//! test into it. The proxy inherits sockets that are bound already, so there is no race for a port; it stays in the
//! foreground, lives in a folder of the test, and ends with the [`Front`], or with the test's thread if that comes first.
//! It listens twice: with TLS, as operators run it, and plain, for clients of tests that speak no TLS.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The idle timeout that the document's snippets have.
const DOCUMENTED_IDLE: &str = "75s";
/// How long a proxy may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Which proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Nginx,
    Haproxy,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
        }
    }

    /// The language of its block in the document.
    fn language(self) -> &'static str {
        self.program()
    }

    /// What tells the running proxy to read its configuration again.
    fn reload_signal(self) -> i32 {
        match self {
            Kind::Nginx => libc::SIGHUP,
            Kind::Haproxy => libc::SIGUSR2,
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Front {
    kind: Kind,
    child: Child,
    tls: SocketAddr,
    plain: String,
    certificate_pem: String,
    output: PathBuf,
    /// The proxy has copies of these; ours keep the ports.
    _sockets: [TcpListener; 2],
}

impl Front {
    /// Starts a proxy whose files lie in `folder`, in front of `node` (`ip:port`), that ends what is idle for `idle`.
    pub fn start(kind: Kind, folder: &Path, node: &str, idle: Duration) -> Result<Front> {
        let folder = folder.join(kind.program());
        fs::create_dir_all(&folder)?;
        let sockets = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let (tls, plain) = (sockets[0].local_addr()?, sockets[1].local_addr()?);
        let fds = [sockets[0].as_raw_fd(), sockets[1].as_raw_fd()];

        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let certificate_pem = made.cert.pem();
        let key_pem = made.signing_key.serialize_pem();
        fs::write(folder.join("chain.pem"), &certificate_pem)?;
        fs::write(folder.join("key.pem"), &key_pem)?;
        let both = format!("{certificate_pem}{key_pem}");
        fs::write(folder.join("chain-and-key.pem"), both)?;

        let snippet = documented(kind)?;
        let files = folder.display().to_string();
        let idle = format!("{}ms", idle.as_millis());
        let snippet = replaced(&snippet, "/etc/conch", &files)?;
        let snippet = replaced(&snippet, "127.0.0.1:8080", node)?;
        let snippet = replaced(&snippet, DOCUMENTED_IDLE, &idle)?;
        let (whole, arguments) = match kind {
            Kind::Nginx => nginx(&snippet, &files, tls, plain)?,
            Kind::Haproxy => haproxy(&snippet, fds)?,
        };
        let file = folder.join("proxy.conf");
        fs::write(&file, whole)?;
        let output = folder.join("output.log");
        let child = spawn(kind, &file, &arguments, fds, &output)?;
        Ok(Front {
            kind,
            child,
            tls,
            plain: plain.to_string(),
            certificate_pem,
            output,
            _sockets: sockets,
        })
    }

    /// `https://ip:port`.
    pub fn base_url(&self) -> String {
        format!("https://{}", self.tls)
    }

    /// `ip:port` without TLS.
    pub fn plain(&self) -> &str {
        &self.plain
    }

    /// What clients must trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Tells the proxy to read its configuration again.
    pub fn reload(&self) {
        self.signal(self.kind.reload_signal());
    }

    /// What the proxy wrote.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill takes plain numbers; the child is ours and not reaped yet, so its id is not another process's.
        unsafe {
            libc::kill(self.child.id() as libc::pid_t, signal);
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // SIGKILL would leave the workers behind.
        self.signal(libc::SIGTERM);
        let began = Instant::now();
        while began.elapsed() < END_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The snippet of the document.
fn documented(kind: Kind) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let document = fs::read_to_string(path)?;
    let opening = format!("```{}\n", kind.language());
    let block = document
        .split_once(&opening)
        .and_then(|(_, rest)| rest.split_once("```"));
    let (snippet, _) = block.with_context(|| format!("operations.md has no {opening}"))?;
    Ok(snippet.to_owned())
}

/// `text` with every `from` replaced; there must be one.
fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(
        text.contains(from),
        "the documented snippet has no {from}:\n{text}"
    );
    Ok(text.replace(from, to))
}

/// The snippet is what stands within `http`.
fn nginx(
    snippet: &str,
    files: &str,
    tls: SocketAddr,
    plain: SocketAddr,
) -> Result<(String, Vec<String>)> {
    let listen = format!("listen {tls} ssl;\n    listen {plain};");
    let snippet = replaced(snippet, "listen 443 ssl;", &listen)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("    {of}_temp_path {files}/{of};\n"))
        .concat();
    let whole = format!(
        "daemon off;\npid {files}/nginx.pid;\nerror_log stderr notice;\nworker_processes 1;\nworker_shutdown_timeout 1s;\n\
         events {{ worker_connections 512; }}\nhttp {{\n    access_log off;\n{temporary}{snippet}}}\n"
    );
    Ok((whole, ["-e", "stderr", "-c"].map(str::to_owned).to_vec()))
}

/// The snippet is everything but `global`.
fn haproxy(snippet: &str, fds: [RawFd; 2]) -> Result<(String, Vec<String>)> {
    let [tls, plain] = fds.map(|fd| format!("bind fd@{fd}"));
    let snippet = replaced(snippet, "bind :443", &format!("{plain}\n    {tls}"))?;
    let whole = format!("global\n    maxconn 512\n    hard-stop-after 1s\n\n{snippet}");
    Ok((whole, ["-W", "-db", "-f"].map(str::to_owned).to_vec()))
}

fn spawn(
    kind: Kind,
    file: &Path,
    arguments: &[String],
    fds: [RawFd; 2],
    output: &Path,
) -> Result<Child> {
    let log = fs::File::create(output)?;
    let mut command = Command::new(find(kind.program())?);
    command
        .args(arguments)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if kind == Kind::Nginx {
        // How nginx hands its sockets to the next nginx.
        command.env("NGINX", format!("{};{};", fds[0], fds[1]));
    }
    let inherit = move || {
        for fd in fds {
            // SAFETY: a plain flag of a descriptor that this process holds; nothing is allocated between fork and exec.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        // SAFETY: a plain setting of this process: it ends with whoever started it, even when that is killed.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        Ok(())
    };
    // SAFETY: the closure makes two system calls and nothing else.
    unsafe { command.pre_exec(inherit) };
    command
        .spawn()
        .with_context(|| format!("start {}", kind.program()))
}

/// The program, in the PATH or where Debian has it for root only.
fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    for folder in folders {
        let program = folder.join(name);
        if program.is_file() {
            return Ok(program);
        }
    }
    bail!("there is no {name}: run `make setup-test`")
}
