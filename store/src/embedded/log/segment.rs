//! One segment file: its header, its states, and the few ways in which bytes reach it.
//!
//! A file is preallocated, full of zeros and never changes its size. The first [`DATA_START`] bytes are the header's:
//! magic, format u32, state u8 + 3 zeros, store u64, life u64, first lsn u64, size u64, CRC-32C u32, little-endian.
//! Records follow from there, back to back; zeros behind them.
//!
//! States. `Live`: holds records from `first_lsn` on, written under `life`; the header is synced before the first
//! record. `Clean`: zeros behind the header, may become live. `Dirty`: being zeroed; whoever finds it zeroes it again.
//! The way round is always Live → Dirty → Clean → Live with a higher life, each step synced before the next begins, so
//! a record of an earlier life can never lie behind a newer header.
//!
//! [`Segment::sync`] goes through libc's `fdatasync` (std's `sync_data` is that call), on a descriptor whose path ends
//! in `log/NNNNNNNN.seg`, so that a preloaded library can hold or fail exactly the log's syncs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::MmapMut;

use crate::Lsn;

/// Where records begin.
pub(in crate::embedded) const DATA_START: u64 = 4096;

const MAGIC: &[u8; 8] = b"CONCHSEG";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 52;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Bytes zeroed between two syncs when a segment is cleaned.
const CLEAN_STEP: u64 = 2 << 20;

/// Number of a segment file in the pool; says nothing about its place in the log.
pub(in crate::embedded) type Number = u32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::embedded) enum State {
    Dirty,
    Clean,
    Live,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::embedded) struct Header {
    pub state: State,
    /// Which store wrote it.
    pub store: u64,
    /// Rises with every use of any segment; unique.
    pub life: u64,
    /// Lsn of the first record (live segments).
    pub first_lsn: Lsn,
    /// Size of the file.
    pub bytes: u64,
}

/// What the header of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::embedded) enum HeaderRead {
    Good(Header),
    /// Nothing but zeros: a file that was being created.
    Blank,
    /// Damaged, of another store, or torn when it was written.
    Bad,
    /// A format that this version does not know.
    Unknown(u32),
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12] = match self.state {
            State::Dirty => 1,
            State::Clean => 2,
            State::Live => 3,
        };
        out[16..24].copy_from_slice(&self.store.to_le_bytes());
        out[24..32].copy_from_slice(&self.life.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_lsn.to_le_bytes());
        out[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[..48]);
        out[48..].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Reads a header from the front of a file of the store `store`.
pub(in crate::embedded) fn read_header(front: &[u8], store: u64) -> HeaderRead {
    let Some(bytes) = front.first_chunk::<HEADER_BYTES>() else {
        return if front.iter().all(|byte| *byte == 0) {
            HeaderRead::Blank
        } else {
            HeaderRead::Bad
        };
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return HeaderRead::Blank;
    }
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    if &bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..48]) != u32_at(48) {
        return HeaderRead::Bad;
    }
    if u32_at(8) != FORMAT {
        return HeaderRead::Unknown(u32_at(8));
    }
    let state = match bytes[12] {
        1 => State::Dirty,
        2 => State::Clean,
        3 => State::Live,
        _ => return HeaderRead::Bad,
    };
    if u64_at(16) != store {
        return HeaderRead::Bad;
    }
    HeaderRead::Good(Header {
        state,
        store,
        life: u64_at(24),
        first_lsn: u64_at(32),
        bytes: u64_at(40),
    })
}

/// Faults that tests put into the log's file operations.
#[cfg(test)]
#[derive(Default, Debug)]
pub(in crate::embedded) struct Faults {
    pub(in crate::embedded) fail_write: std::sync::atomic::AtomicBool,
    pub(in crate::embedded) fail_sync: std::sync::atomic::AtomicBool,
}

/// An open segment file.
#[derive(Debug)]
pub(in crate::embedded) struct Segment {
    file: File,
    #[cfg(test)]
    pub(in crate::embedded) faults: std::sync::Arc<Faults>,
}

/// Path of a segment file.
pub(in crate::embedded) fn path(log_dir: &Path, number: Number) -> PathBuf {
    log_dir.join(format!("{number:08}.seg"))
}

impl Segment {
    /// Opens a segment file, creating an empty one if there is none.
    pub(in crate::embedded) fn open(log_dir: &Path, number: Number) -> io::Result<Segment> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path(log_dir, number))?;
        Ok(Segment {
            file,
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        })
    }

    /// Makes the file `bytes` long and full of zeros behind the header, and says so in the header: Dirty first, then
    /// Clean, each synced. `life` is remembered so that lives never repeat.
    pub(in crate::embedded) fn clean(&self, store: u64, life: u64, bytes: u64) -> io::Result<()> {
        let mut header = Header {
            state: State::Dirty,
            store,
            life,
            first_lsn: 0,
            bytes,
        };
        self.write_at(&header.encode(), 0)?;
        self.sync()?;
        self.file.set_len(bytes)?;
        let mut at = HEADER_BYTES as u64;
        while at < bytes {
            let end = bytes.min(at + CLEAN_STEP);
            self.zero(at, end)?;
            // In steps, so that the log's own syncs never wait behind a whole segment of zeros.
            self.sync()?;
            at = end;
        }
        // The size may have changed, which only a full sync covers.
        self.file.sync_all()?;
        header.state = State::Clean;
        self.write_at(&header.encode(), 0)?;
        self.sync()
    }

    /// Makes a clean segment live, synced.
    pub(in crate::embedded) fn begin(&self, header: &Header) -> io::Result<()> {
        self.write_at(&header.encode(), 0)?;
        self.sync()
    }

    /// Overwrites `from .. to` with zeros. Not synced.
    pub(in crate::embedded) fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let count = (to - at).min(ZEROS.len() as u64) as usize;
            self.file.write_all_at(&ZEROS[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    /// Gives the file its size again after something cut it.
    pub(in crate::embedded) fn restore_size(&self, bytes: u64) -> io::Result<()> {
        if self.file.metadata()?.len() != bytes {
            self.file.set_len(bytes)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// The whole file, padded with zeros or cut to `bytes`. In memory of its own, which goes back to the system at once: an
    /// allocator would keep it for others.
    pub(in crate::embedded) fn read_all(&self, bytes: usize) -> io::Result<MmapMut> {
        let mut out = MmapMut::map_anon(bytes)?;
        self.read_into(&mut out)?;
        Ok(out)
    }

    /// The bytes of the header's place.
    pub(in crate::embedded) fn read_front(&self) -> io::Result<Vec<u8>> {
        let mut out = vec![0; self.bytes()?.min(DATA_START) as usize];
        self.read_into(&mut out)?;
        Ok(out)
    }

    /// What the file has of it, from its beginning.
    fn read_into(&self, out: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            match self.file.read_at(&mut out[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Size of the file.
    pub(in crate::embedded) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes at an offset. Not synced.
    pub(in crate::embedded) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if self
            .faults
            .fail_write
            .load(std::sync::atomic::Ordering::SeqCst)
        {
            return Err(io::Error::other("a write that a test lets fail"));
        }
        self.file.write_all_at(bytes, offset)
    }

    /// `fdatasync`. Whoever calls it for records must never call it again after an error: the kernel may have dropped
    /// the pages and report success the next time.
    pub(in crate::embedded) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self
            .faults
            .fail_sync
            .load(std::sync::atomic::Ordering::SeqCst)
        {
            return Err(io::Error::other("a sync that a test lets fail"));
        }
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed step is a failed test

    use super::*;

    const HEADER: Header = Header {
        state: State::Live,
        store: 3,
        life: 4,
        first_lsn: 5,
        bytes: 65_536,
    };

    #[test]
    fn a_header_reads_back() {
        assert_eq!(read_header(&HEADER.encode(), 3), HeaderRead::Good(HEADER));
        assert_eq!(read_header(&HEADER.encode(), 4), HeaderRead::Bad);
        assert_eq!(read_header(&[0; 4096], 3), HeaderRead::Blank);
        assert_eq!(read_header(&[], 3), HeaderRead::Blank);
    }

    #[test]
    fn a_flipped_header_is_bad() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_header(&bytes, 3), HeaderRead::Bad, "bit {bit}");
        }
    }

    #[test]
    fn a_cleaned_segment_is_zeros_behind_its_header() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment::open(dir.path(), 1).unwrap();
        segment.write_at(&[7; 9000], 0).unwrap();
        segment.clean(3, 9, 16_384).unwrap();
        let bytes = segment.read_all(16_384).unwrap();
        let HeaderRead::Good(header) = read_header(&bytes, 3) else {
            panic!("no header");
        };
        assert_eq!((header.state, header.life), (State::Clean, 9));
        assert!(bytes[HEADER_BYTES..].iter().all(|byte| *byte == 0));
    }
}
