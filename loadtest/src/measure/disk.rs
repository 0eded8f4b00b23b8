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

/// A file to sync.
pub(super) struct DiskProbe {
    file: File,
    next: u64,
    /// Microseconds from write to the end of fdatasync.
    pub(super) took_us: Histogram<u64>,
}

impl DiskProbe {
    pub(super) fn new(folder: &Path) -> io::Result<DiskProbe> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(folder.join("disk-probe"))?;
        for block in 0..FILE_BLOCKS {
            file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        let took_us = Histogram::new(3).expect("three digits are within the histogram's range");
        Ok(DiskProbe {
            file,
            next: 0,
            took_us,
        })
    }

    /// Writes and syncs one block after the other, `count` times. Blocking.
    pub(super) fn run(&mut self, count: u64) -> io::Result<()> {
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
