//! The physical floor of a durable ack: how long fdatasync takes on this disk now.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;

/// One block, overwritten in place in a file that was written before: the cheapest durable write there is, and what a
/// log with recycled segments does.
const BLOCK: usize = 4_096;
const FILE_BLOCKS: u64 = 1_024;

/// Longest latency that is told apart from longer ones, in microseconds: a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// An empty distribution of latencies in microseconds. Bounded from the start: a histogram that grows by itself only
/// does so for `record`, and `saturating_record` would cut every value to its first, tiny range.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .expect("bounds and digits are constants within the range")
}

/// A file to sync.
pub(crate) struct DiskProbe {
    file: File,
    next: u64,
    /// Microseconds from write to the end of fdatasync.
    pub(crate) took_us: Histogram<u64>,
}

impl DiskProbe {
    pub(crate) fn new(folder: &Path) -> io::Result<DiskProbe> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(folder.join("disk-probe"))?;
        for block in 0..FILE_BLOCKS {
            file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        let took_us = latencies();
        Ok(DiskProbe {
            file,
            next: 0,
            took_us,
        })
    }

    /// Writes and syncs one block after the other, `count` times. Blocking.
    pub(crate) fn run(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            let began = Instant::now();
            self.file
                .write_all_at(&[2; BLOCK], self.next % FILE_BLOCKS * BLOCK as u64)?;
            self.file.sync_data()?;
            self.took_us
                .saturating_record(began.elapsed().as_micros() as u64);
            self.next += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_latencies_are_not_cut() {
        let mut latencies = latencies();
        latencies.saturating_record(120);
        latencies.saturating_record(1_000_000);
        assert!(latencies.max() >= 1_000_000 && latencies.min() >= 120);
    }
}
