//! `conch-chat` in a real terminal: people sign up, chat through kills of the node, and get their terminal back as it was.
//!
//! The terminal is a pseudo-terminal pair of the system; what the program writes goes into an emulator, and tests look at
//! the screen that a person would see.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conch_e2e::{PASSWORD, Place, SOON, eventually, metric};
use conch_loadtest::forward::Forward;
use conch_loadtest::node::{Node, program};
use tokio::sync::watch;

use crate::chat;

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
const CTRL_N: &str = "\u{e}";
const CTRL_Q: &str = "\u{11}";

/// A terminal with the program in it.
struct Terminal {
    child: Child,
    keyboard: File,
    /// The program's side, held open so that its settings can be looked at when the program is gone.
    line: OwnedFd,
    before: Settings,
    seen: Arc<Mutex<Seen>>,
}

/// What was written to the terminal.
struct Seen {
    emulator: vt100::Parser,
    raw: Vec<u8>,
}

/// What a program may change of a terminal's line: input, output, control and local modes.
#[derive(PartialEq, Eq, Debug, Clone, Copy)]
struct Settings([libc::tcflag_t; 4]);

impl Settings {
    fn of(line: &OwnedFd) -> Result<Settings> {
        let mut settings = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the descriptor is open, and tcgetattr fills the whole struct when it returns 0.
        let settings = unsafe {
            let failed = libc::tcgetattr(line.as_raw_fd(), settings.as_mut_ptr()) != 0;
            ensure!(!failed, std::io::Error::last_os_error());
            settings.assume_init()
        };
        Ok(Settings([
            settings.c_iflag,
            settings.c_oflag,
            settings.c_cflag,
            settings.c_lflag,
        ]))
    }
}

/// Both ends of a new terminal.
fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let size = libc::winsize {
        ws_row: ROWS,
        ws_col: COLUMNS,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: both descriptors and the size are valid for the call; name and settings may be null. The descriptors that it
    // returns belong to nobody else.
    unsafe {
        let nothing = std::ptr::null_mut;
        let failed = libc::openpty(&mut ours, &mut theirs, nothing(), std::ptr::null(), &size) != 0;
        ensure!(!failed, std::io::Error::last_os_error());
        Ok((OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)))
    }
}

impl Terminal {
    fn open(server: &str, data: &Path, args: &[&str]) -> Result<Terminal> {
        let (ours, line) = pair()?;
        let before = Settings::of(&line)?;
        let mut command = Command::new(program("conch-chat")?);
        command
            .args(["--server", server, "--data"])
            .arg(data)
            .args(args)
            .env("TERM", "xterm-256color")
            .env_remove("CONCH_PASSWORD")
            .stdin(Stdio::from(line.try_clone()?))
            .stdout(Stdio::from(line.try_clone()?))
            .stderr(Stdio::from(line.try_clone()?));
        // SAFETY: both calls are safe between fork and exec; standard input is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        let keyboard = File::from(ours);
        let mut screen = keyboard.try_clone()?;
        let seen = Arc::new(Mutex::new(Seen {
            emulator: vt100::Parser::new(
                NonZero::new(ROWS).context("rows")?,
                NonZero::new(COLUMNS).context("columns")?,
                0,
            ),
            raw: Vec::new(),
        }));
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut chunk = [0; 4_096];
            while let Ok(n @ 1..) = screen.read(&mut chunk) {
                let mut seen = sink.lock().unwrap();
                seen.emulator.process(&chunk[..n]);
                seen.raw.extend_from_slice(&chunk[..n]);
            }
        });
        Ok(Terminal {
            child,
            keyboard,
            line,
            before,
            seen,
        })
    }

    fn types(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    fn enters(&mut self, line: &str) -> Result<()> {
        self.types(&format!("{line}\r"))
    }

    fn screen(&self) -> String {
        self.seen.lock().unwrap().emulator.screen().contents()
    }

    async fn shows(&self, text: &str) -> Result<()> {
        let found = eventually(text, SOON, || async { self.screen().contains(text) }).await;
        found.with_context(|| format!("on the screen:\n{}", self.screen()))
    }

    /// Everything that was written, for programs in plain lines.
    async fn printed(&self, text: &str) -> Result<()> {
        let all = || String::from_utf8_lossy(&self.seen.lock().unwrap().raw).into_owned();
        let found = eventually(text, SOON, || async { all().contains(text) }).await;
        found.with_context(|| format!("printed so far:\n{}", all()))
    }

    async fn signs_up(&mut self, handle: &str) -> Result<()> {
        self.shows("Log in").await?;
        self.enters(&format!("/signup {handle}"))?;
        self.shows("once more").await?;
        self.enters(PASSWORD)?;
        self.enters(PASSWORD)?;
        self.shows("online").await
    }

    async fn ended(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        eventually("the end of the program", SOON, || {
            status = self.child.try_wait().unwrap();
            let is_over = status.is_some();
            async move { is_over }
        })
        .await
        .with_context(|| format!("on the screen:\n{}", self.screen()))?;
        status.context("a status")
    }

    /// The terminal is as it was before the program.
    async fn is_given_back(&self) -> Result<()> {
        let found = Settings::of(&self.line)?;
        ensure!(found == self.before, "{found:?} is not {:?}", self.before);
        // The last bytes may still be on their way to the emulator.
        eventually("the terminal's own screen", SOON, || async {
            let seen = self.seen.lock().unwrap();
            let screen = seen.emulator.screen();
            !screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor()
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_chat_on_screens_through_kills_of_the_node() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let server = forward.base_url();
    let mut ann = Terminal::open(&server, &place.path().join("ann"), &[])?;
    let mut ben = Terminal::open(&server, &place.path().join("ben"), &[])?;
    ann.signs_up("ann").await?;
    ben.signs_up("ben").await?;
    ensure!(
        Settings::of(&ann.line)? != ann.before,
        "keys come one by one"
    );
    ensure!(!String::from_utf8_lossy(&ann.seen.lock().unwrap().raw).contains(PASSWORD));

    ann.types(CTRL_N)?;
    ann.shows("Write to somebody").await?;
    ann.enters("ben")?;
    ann.shows("ben @ben").await?;
    ann.enters("hello, ben")?;
    ann.shows("✓").await?;
    // Ben's list has it, with one unread; Tab goes there.
    ben.shows("hello, ben").await?;
    ben.types("\t")?;
    ben.shows("ann @ann").await?;
    // Several lines, pasted, are one message.
    ben.types("\u{1b}[200~hello, ann\rand good morning\u{1b}[201~")?;
    ben.shows("and good morning").await?;
    ben.enters("")?;
    ann.shows("and good morning").await?;

    node.kill();
    endpoint.send_replace(None);
    ann.shows("offline").await?;
    ann.enters("are you still there?")?;
    ann.shows("are you still there?").await?;
    ann.shows("1 to send").await?;
    let node = place.start().await?;
    endpoint.send_replace(Some(node.http().to_owned()));
    ben.shows("are you still there?").await?;
    ben.enters("always")?;
    ann.shows("always").await?;
    ann.shows("online").await?;

    // Somebody's message commands no terminal.
    let sent = chat::command(&server, &place.path().join("ben-script"))?
        .args(["login", "ben"])
        .output()
        .await?;
    ensure!(sent.status.success(), "{sent:?}");
    let sent = chat::command(&server, &place.path().join("ben-script"))?
        .args([
            "send",
            "--to",
            "ann",
            "\u{1b}]0;owned\u{7}\u{1b}[2Jharm\u{202e}less",
        ])
        .output()
        .await?;
    ensure!(sent.status.success(), "{sent:?}");
    ann.shows("harm").await?;
    let raw = ann.seen.lock().unwrap().raw.clone();
    let raw = String::from_utf8_lossy(&raw);
    ensure!(!raw.contains("\u{1b}]0;") && !raw.contains('\u{202e}'));
    ann.shows("are you still there?").await?;

    ann.types(CTRL_Q)?;
    ensure!(ann.ended().await?.success());
    ann.is_given_back().await?;

    // Without a node it opens with what it has.
    node.kill();
    endpoint.send_replace(None);
    let mut ann = Terminal::open(&server, &place.path().join("ann"), &[])?;
    ann.shows("offline").await?;
    ann.types("\t")?;
    ann.shows("are you still there?").await?;
    ann.shows("always").await?;

    // A signal, too, gives the terminal back.
    // SAFETY: the process is ours and not reaped yet.
    unsafe { libc::kill(ann.child.id() as i32, libc::SIGTERM) };
    ensure!(ann.ended().await?.success());
    ann.is_given_back().await
}

/// The screen of somebody who has an account, as one of `many` connections by QUIC.
async fn on_quic(server: &str, data: &Path, node: &Node, many: f64) -> Result<Terminal> {
    // On a busy machine WebSocket may be there first; then it is opened again.
    for _ in 0..5 {
        let mut terminal = Terminal::open(server, data, &[])?;
        terminal.shows("online").await?;
        let by_quic = || async {
            let connections = metric(node, "conch_gateway_quic_connections").await;
            connections.is_ok_and(|connections| connections == many)
        };
        if eventually("QUIC", Duration::from_secs(2), by_quic)
            .await
            .is_ok()
        {
            return Ok(terminal);
        }
        terminal.types(CTRL_Q)?;
        terminal.ended().await?;
    }
    anyhow::bail!("QUIC is never taken")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn screens_take_quic_by_themselves_and_come_back_to_a_node_that_was_killed() -> Result<()> {
    let mut place = Place::with_quic()?;
    let metrics = ["--metrics", "127.0.0.1:0"].map(str::to_owned);
    place.plan.args.extend(metrics);
    let node = place.start().await?;
    // For good, as a node has it that clients remember.
    place.plan.quic = node.ready().quic.clone();
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let server = forward.base_url();
    let data = ["ann", "ben"].map(|handle| place.path().join(handle));
    for (handle, data) in ["ann", "ben"].into_iter().zip(&data) {
        let made = chat::command(&server, data)?
            .args(["signup", handle])
            .output()
            .await?;
        ensure!(made.status.success(), "{made:?}");
    }
    let mut ann = on_quic(&server, &data[0], &node, 1.0).await?;
    let mut ben = on_quic(&server, &data[1], &node, 2.0).await?;
    ann.types(CTRL_N)?;
    ann.shows("Write to somebody").await?;
    ann.enters("ben")?;
    ann.shows("ben @ben").await?;
    ann.enters("hello, ben")?;
    ben.shows("hello, ben").await?;
    ben.types("\t")?;
    ben.shows("ann @ann").await?;

    node.kill();
    endpoint.send_replace(None);
    let node = place.start().await?;
    endpoint.send_replace(Some(node.http().to_owned()));
    // What each says next tells that the node knows nothing of the connection.
    ann.enters("are you still there?")?;
    ben.enters("always")?;
    ben.shows("are you still there?").await?;
    ann.shows("always").await?;
    ann.shows("online").await?;
    for screen in [&mut ann, &mut ben] {
        screen.types(CTRL_Q)?;
        ensure!(screen.ended().await?.success());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_chat_in_plain_lines_of_a_terminal_through_kills_of_the_node() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let (endpoint, listening) = watch::channel(Some(node.http().to_owned()));
    let forward = Forward::start(listening).await?;
    let server = forward.base_url();
    let mut ann = Terminal::open(&server, &place.path().join("ann"), &["--plain"])?;
    let mut ben = Terminal::open(&server, &place.path().join("ben"), &["--plain"])?;
    for (who, handle) in [(&mut ann, "ann"), (&mut ben, "ben")] {
        who.printed("welcome").await?;
        who.enters(&format!("/signup {handle}"))?;
        who.printed("password: ").await?;
        who.enters(PASSWORD)?;
        who.printed("connected").await?;
    }
    ann.enters("/dm ben")?;
    ann.printed("you are in ben").await?;
    ann.enters("hello, ben")?;
    ann.printed("✓ stored").await?;
    ben.enters("/dm ann")?;
    ben.printed("] ann: hello, ben").await?;

    node.kill();
    endpoint.send_replace(None);
    ann.printed("no connection").await?;
    ann.enters("are you still there?")?;
    ann.printed("sending: are you still there?").await?;
    let node = place.start().await?;
    endpoint.send_replace(Some(node.http().to_owned()));
    ben.printed("] ann: are you still there?").await?;
    ben.enters("always")?;
    ann.printed("] ben: always").await?;
    let raw = ann.seen.lock().unwrap().raw.clone();
    ensure!(!String::from_utf8_lossy(&raw).contains(PASSWORD), "no echo");
    ensure!(!raw.contains(&0x1b), "nothing but lines");
    ann.enters("/quit")?;
    ensure!(ann.ended().await?.success());
    ann.is_given_back().await?;
    drop(node);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_that_was_logged_out_elsewhere_can_log_in_again() -> Result<()> {
    let place = Place::new()?;
    let node = place.start().await?;
    let server = node.base_url();
    let mut ann = Terminal::open(&server, &place.path().join("ann"), &[])?;
    ann.signs_up("ann").await?;
    ann.enters("/devices")?;
    ann.shows("this one").await?;
    ann.types("\u{1b}")?;
    let mut other = chat::Terminal::open(&server, &place.path().join("other"))?;
    other.types("/login ann").await?;
    other.shows("connected").await?;
    other.types("/devices").await?;
    other.shows("last seen").await?;
    other.types("/devices remove 1").await?;
    other.shows("is logged out").await?;
    ann.shows("was logged out").await?;
    ann.shows("password").await?;
    ann.enters(PASSWORD)?;
    ann.shows("online").await?;
    other.leaves().await
}
