//! Child processes of a comparison, and what the kernel says that a process used.
//!
//! A [`Process`] writes its output to a file, is killed when it is dropped, and can say why it ended. CPU time is read from the
//! process's own clock, which is exact to the nanosecond where `/proc/PID/stat` counts ticks of 10 ms, and holds threads that
//! have ended.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a start is looked at.
const POLL: Duration = Duration::from_millis(2);
/// Longest start of a peer.
pub const START_WITHIN: Duration = Duration::from_secs(10);
/// As much of the output as a message can show, in bytes.
const OUTPUT_SHOWN: usize = 2_000;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `folder`. `remedy`: what to do when the program is not there.
    pub fn spawn(
        name: &'static str,
        mut command: Command,
        folder: &Path,
        remedy: &str,
    ) -> Result<Process> {
        let output = folder.join(format!("{name}.log"));
        let file = File::create(&output).with_context(|| format!("make {}", output.display()))?;
        let again = file.try_clone().context("share the output file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(again)
            .stderr(file)
            .spawn()
            .with_context(|| {
                let program = command.get_program().display();
                format!("{name} cannot be started from {program}; {remedy}")
            })?;
        Ok(Process {
            name,
            child,
            output,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it wrote so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// How it ended and the end of its output, if it did.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let output = self.output();
        let mut from = output.len().saturating_sub(OUTPUT_SHOWN);
        while !output.is_char_boundary(from) {
            from += 1;
        }
        Some(format!(
            "{} ended: {status}\n{}",
            self.name,
            output[from..].trim()
        ))
    }

    /// Waits until `ready` gives something, at most [`START_WITHIN`]. Blocking.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&Process) -> Option<T>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            if let Some(why) = self.ended() {
                bail!("{why}");
            }
            if began.elapsed() > START_WITHIN {
                bail!(
                    "{}: no {what} within {START_WITHIN:?}\n{}",
                    self.name,
                    self.output().trim()
                );
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process, user and system, of all threads that it has or had.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: the call writes one clock id into the place that it is given.
    let failed = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    clock_time(clock)
}

/// CPU time of the calling thread.
pub fn own_cpu() -> Duration {
    clock_time(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

fn clock_time(clock: libc::clockid_t) -> io::Result<Duration> {
    // SAFETY: all fields of the struct are plain numbers, for which zero is valid; the call fills it in.
    let (failed, time) = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        (libc::clock_gettime(clock, &raw mut time), time)
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// CPU time of the running threads of a process whose name is wanted; none of a process that is gone.
pub fn cpu_of_threads(pid: u32, is_wanted: fn(&str) -> bool) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let used = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        // Nanoseconds on a CPU, then two more numbers.
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let on_cpu = text.split_whitespace().next()?.parse().ok()?;
        is_wanted(name.trim()).then_some(Duration::from_nanos(on_cpu))
    };
    tasks.flatten().filter_map(used).sum()
}

/// Resident memory of a process in bytes.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: Option<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib * 1_024)
        .ok_or_else(|| io::Error::other("no VmRSS in /proc/PID/status"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_process_grows_with_what_it_does() {
        let before = cpu(std::process::id()).unwrap();
        let own = own_cpu();
        while own_cpu() < own + Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        assert!(cpu(std::process::id()).unwrap() >= before + Duration::from_millis(5));
        let of_threads = cpu_of_threads(std::process::id(), |_| true);
        assert!(of_threads >= Duration::from_millis(5));
        assert_eq!(
            cpu_of_threads(std::process::id(), |_| false),
            Duration::ZERO
        );
        assert!(rss_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn a_program_that_is_missing_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let command = Command::new("/nowhere/server");
        let error = Process::spawn("peer", command, folder.path(), "run `make setup-bench`");
        let text = format!("{:#}", error.unwrap_err());
        assert!(text.contains("make setup-bench"), "{text}");
    }

    #[test]
    fn a_program_that_ends_is_an_error_with_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the port is taken; exit 3"]);
        let mut process = Process::spawn("peer", command, folder.path(), "").unwrap();
        let error = process.until("port", |_| None::<u16>).unwrap_err();
        assert!(error.to_string().contains("the port is taken"), "{error}");
    }
}
