//! The floor's file: records of one batch behind each other, written at once, and synced at once where that is asked for.
//!
//! The file has its full length from the start, with every block written: an append changes no metadata, so that fdatasync is as
//! cheap as the disk allows. At its end it begins again at the front: a floor is not read back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Whether a batch is on stable storage before anybody hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Syncing {
    Never,
    EachBatch,
}

/// Bytes written at a time while the file is made.
const CHUNK_BYTES: usize = 1 << 20;

/// The file, and the batch that gathers.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    bytes: u64,
    at: u64,
    batch: Vec<u8>,
    syncing: Syncing,
}

impl Journal {
    /// Makes the file anew with `bytes`, all written and on the disk.
    pub(super) fn make(path: &Path, bytes: u64, syncing: Syncing) -> io::Result<Journal> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        let chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < bytes {
            let part = (bytes - at).min(CHUNK_BYTES as u64);
            file.write_all_at(&chunk[..part as usize], at)?;
            at += part;
        }
        file.sync_all()?;
        Ok(Journal {
            file,
            bytes,
            at: 0,
            batch: Vec::new(),
            syncing,
        })
    }

    /// Adds a record to the batch.
    pub(super) fn add(&mut self, channel: u32, seq: u32, payload: &[u8]) {
        for number in [payload.len() as u32, channel, seq] {
            self.batch.extend_from_slice(&number.to_le_bytes());
        }
        self.batch.extend_from_slice(payload);
    }

    /// Writes the batch, and syncs it if that is asked for.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let bytes = self.batch.len() as u64;
        if self.at + bytes > self.bytes {
            self.at = 0;
        }
        self.file.write_all_at(&self.batch, self.at)?;
        self.at += bytes;
        self.batch.clear();
        match self.syncing {
            Syncing::Never => Ok(()),
            Syncing::EachBatch => self.file.sync_data(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_written_whole_and_the_file_begins_again_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::make(&path, 40, Syncing::EachBatch).unwrap();
        journal.add(7, 1, b"one");
        journal.add(7, 2, b"two");
        journal.commit().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 40);
        assert_eq!(&bytes[..15], b"\x03\0\0\0\x07\0\0\0\x01\0\0\0one");
        assert_eq!(&bytes[15..30], b"\x03\0\0\0\x07\0\0\0\x02\0\0\0two");
        journal.add(7, 3, b"six");
        journal.commit().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 40);
        assert_eq!(&bytes[..15], b"\x03\0\0\0\x07\0\0\0\x03\0\0\0six");
    }
}
