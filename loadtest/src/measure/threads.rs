//! CPU time of a process by the name of its threads, from the scheduler's own count.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::time::Duration;

/// Names shown in a figure.
const SHOWN: usize = 8;

/// CPU time of threads. A thread that ends takes what it used with it.
#[derive(Clone, Default, Debug)]
pub struct ByThread(HashMap<String, Thread>);

#[derive(Clone, Debug)]
struct Thread {
    /// Numbers at its end cut off.
    name: String,
    used: Duration,
}

impl ByThread {
    /// What the threads that live now have used since they began.
    pub fn now(pid: u32) -> ByThread {
        let mut threads = HashMap::new();
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return ByThread(threads);
        };
        for task in tasks.flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name));
            let (Ok(name), Ok(schedstat)) = (read("comm"), read("schedstat")) else {
                continue;
            };
            // The first number is the time on a core in nanoseconds.
            let nanos = schedstat
                .split_whitespace()
                .next()
                .and_then(|field| field.parse().ok())
                .unwrap_or(0);
            let name = name
                .trim_end()
                .trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '#');
            let thread = Thread {
                name: name.to_owned(),
                used: Duration::from_nanos(nanos),
            };
            threads.insert(task.file_name().to_string_lossy().into_owned(), thread);
        }
        ByThread(threads)
    }

    /// What was used since `earlier`.
    pub fn since(mut self, earlier: &ByThread) -> ByThread {
        for (id, thread) in &mut self.0 {
            if let Some(before) = earlier.0.get(id) {
                thread.used = thread.used.saturating_sub(before.used);
            }
        }
        self
    }

    /// Of threads with such a name.
    pub fn of(&self, is_meant: impl Fn(&str) -> bool) -> Duration {
        let meant = self.0.values().filter(|thread| is_meant(&thread.name));
        meant.map(|thread| thread.used).sum()
    }

    /// Writes CPU-µs for each of `count`, largest first.
    pub fn write_each(&self, f: &mut fmt::Formatter<'_>, count: u64) -> fmt::Result {
        let mut by_name: BTreeMap<&str, Duration> = BTreeMap::new();
        for thread in self.0.values() {
            *by_name.entry(&thread.name).or_default() += thread.used;
        }
        let mut times: Vec<_> = by_name.into_iter().collect();
        times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        for (name, time) in times.iter().take(SHOWN) {
            let each = time.as_nanos() as f64 / 1_000.0 / count.max(1) as f64;
            write!(f, " {name} {each:.3}")?;
        }
        Ok(())
    }
}

/// Threads that work behind the ack: the index and what it runs on.
pub(crate) fn is_index(name: &str) -> bool {
    ["index", "fjall", "lsm", "apply"]
        .iter()
        .any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::{ByThread, Duration, is_index};

    #[test]
    fn what_a_thread_did_between_two_looks_is_counted_under_its_name() {
        let pid = std::process::id();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (told, tell) = std::sync::mpsc::channel();
        let before = ByThread::now(pid);
        let worker = std::thread::Builder::new()
            .name("index-probe-7".to_owned())
            .spawn(move || {
                let began = std::time::Instant::now();
                while began.elapsed() < Duration::from_millis(20) {}
                // The scheduler counts at the latest when the thread stops running.
                told.send(()).expect("the test waits for it");
                let _ = gone.recv();
            })
            .expect("a thread can be started");
        tell.recv().expect("the thread tells");
        let mut used = Duration::ZERO;
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while used.is_zero() && std::time::Instant::now() < deadline {
            used = ByThread::now(pid)
                .since(&before)
                .of(|name| name == "index-probe");
        }
        assert!(!used.is_zero());
        drop(go);
        worker.join().expect("it ends by itself");
        assert!(is_index("index-probe"));
    }
}
