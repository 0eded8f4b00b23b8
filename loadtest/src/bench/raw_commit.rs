//! Raw group commit at the batch that Conch made: the same bytes per commit, written and synced with nothing else to do.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Sub;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Long enough for thousands of commits.
const FOR: Duration = Duration::from_secs(1);
/// The file is written before, so that a commit changes no metadata; then it is gone over again and again.
const FILE_BYTES: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Commits of the log so far, and what was in them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct CommitCounts {
    commits: f64,
    records: f64,
    bytes: f64,
}

impl CommitCounts {
    /// Reads a node's metrics. Blocking. `address`: `ip:port`.
    pub(super) fn read(address: &str) -> Result<CommitCounts> {
        let mut socket = TcpStream::connect(address).context("connect to /metrics")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut answer = String::new();
        socket
            .read_to_string(&mut answer)
            .context("read /metrics")?;
        Ok(CommitCounts::parse(&answer))
    }

    /// A metric that was not counted yet is not there.
    fn parse(text: &str) -> CommitCounts {
        let sum = |name: &str| -> f64 {
            text.lines()
                .filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
                .sum()
        };
        CommitCounts {
            commits: sum("conch_store_group_records_count"),
            records: sum("conch_store_appended_records_total"),
            bytes: sum("conch_store_appended_bytes_total"),
        }
    }

    pub(super) fn records_each(self) -> f64 {
        self.records / self.commits.max(1.0)
    }

    pub(super) fn bytes_per_record(self) -> f64 {
        self.bytes / self.records.max(1.0)
    }
}

impl Sub for CommitCounts {
    type Output = CommitCounts;

    fn sub(self, earlier: CommitCounts) -> CommitCounts {
        CommitCounts {
            commits: self.commits - earlier.commits,
            records: self.records - earlier.records,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// Records per second that the disk in `folder` takes in commits as large as those were. Blocking.
pub(super) fn records_per_s(folder: &Path, like: CommitCounts) -> Result<f64> {
    ensure!(
        like.commits > 0.0 && like.records > 0.0,
        "the node counted no commits: its metrics are not those that are read here"
    );
    let path = folder.join("raw-commit");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))?;
    file.write_all_at(&vec![1; FILE_BYTES], 0)?;
    file.sync_all()?;
    let bytes = (like.bytes / like.commits.max(1.0)).round() as usize;
    let batch = vec![2; bytes.clamp(1, FILE_BYTES)];
    let (mut commits, mut at) = (0_u32, 0);
    let began = Instant::now();
    while began.elapsed() < FOR {
        if at + batch.len() > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&batch, at as u64)?;
        file.sync_data()?;
        at += batch.len();
        commits += 1;
    }
    let per_s = f64::from(commits) / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(per_s * like.records_each())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_metrics_and_subtracted() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE conch_store_group_records summary\n\
            conch_store_group_records_sum 30\nconch_store_group_records_count 3\n\
            conch_store_appended_records_total 30\nconch_store_appended_bytes_total 3000\n";
        let counts = CommitCounts::parse(text);
        assert!((counts.records_each() - 10.0).abs() < 1e-9);
        assert!((counts.bytes_per_record() - 100.0).abs() < 1e-9);
        assert_eq!((counts - counts).records, 0.0);
        assert_eq!(CommitCounts::parse("nothing").commits, 0.0);
    }

    #[test]
    fn the_disk_is_measured_at_that_batch() {
        let folder = tempfile::tempdir().unwrap();
        let like = CommitCounts {
            commits: 2.0,
            records: 20.0,
            bytes: 2_000.0,
        };
        assert!(records_per_s(folder.path(), like).unwrap() > 10.0);
    }
}
