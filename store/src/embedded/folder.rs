//! The data folder: its format marker, its lock, and the facts that live and die with the store.
//!
//! ```text
//! FORMAT        "conch-store 1", then a line for people; written first, checked before anything else is read
//! identity      the facts below as lines of text with a CRC line; replaced whole (write, fsync, rename, fsync folder)
//! log/          segments (see the log)
//! index/        the fjall index; may be deleted as long as the log reaches back to its beginning
//! ```
//!
//! `LOCK` (empty) is locked by `flock` for as long as [`Folder`] lives: one process at a time.
//!
//! What it does not do: look into the log or the index.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Lsn, StoreIdentity};

use super::options::OpenError;

const MARKER: &str = "conch-store 1";
const MARKER_TEXT: &str =
    "conch-store 1\nData folder of a Conch node: log (the truth), index (derived). Do not edit.\n";
const IDENTITY_HEAD: &str = "conch-identity 1";

/// How far id counters jump in a restored copy: more than a node can give out between two backups that matter.
pub const RESTORE_ID_SKIP: u64 = 1_000_000;

/// An opened, locked data folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    _lock: File,
}

/// The content of `identity`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) facts: StoreIdentity,
    /// Every record up to here is known to have been durable.
    pub(super) lsn_floor: Lsn,
    /// Added to every id block at the next start, once.
    pub(super) id_skip: u64,
}

impl Folder {
    /// Opens or creates a data folder and locks it.
    pub(super) fn open(dir: &Path, create: bool) -> Result<Folder, OpenError> {
        let failed = |what: &str| OpenError::io(format!("{what} {}", dir.display()));
        if create {
            fs::create_dir_all(dir).map_err(failed("cannot create"))?;
        } else if !dir.join("FORMAT").exists() {
            return Err(OpenError::Format(
                dir.into(),
                "it has no FORMAT file".into(),
            ));
        }
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("LOCK"))
            .map_err(failed("cannot open LOCK in"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.into())),
            Err(TryLockError::Error(source)) => return Err(failed("cannot lock")(source)),
        }
        let marker = dir.join("FORMAT");
        if !marker.exists() {
            refuse_foreign(dir)?;
            replace(dir, "FORMAT", MARKER_TEXT.as_bytes()).map_err(failed("cannot write into"))?;
        }
        let text = fs::read_to_string(&marker).map_err(failed("cannot read FORMAT in"))?;
        let first = text.lines().next().unwrap_or_default();
        if first != MARKER {
            let said = format!("FORMAT says {first:?}, this program knows {MARKER:?}");
            return Err(OpenError::Format(dir.into(), said.into()));
        }
        Ok(Folder {
            dir: dir.into(),
            _lock: lock,
        })
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(super) fn index_dir(&self) -> PathBuf {
        self.dir.join("index")
    }

    /// The identity, minted at the first start.
    pub(super) fn identity(&self) -> Result<Identity, OpenError> {
        let path = self.dir.join("identity");
        match fs::read_to_string(&path) {
            Ok(text) => Identity::parse(&text).ok_or_else(|| {
                OpenError::Format(self.dir.clone(), "its identity file is damaged".into())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.log_dir().exists() {
                    let what = "it has a log but no identity file";
                    return Err(OpenError::Format(self.dir.clone(), what.into()));
                }
                let identity = Identity::mint()?;
                self.write_identity(&identity)?;
                Ok(identity)
            }
            Err(error) => Err(OpenError::io("cannot read identity")(error)),
        }
    }

    pub(super) fn write_identity(&self, identity: &Identity) -> Result<(), OpenError> {
        replace(&self.dir, "identity", identity.render().as_bytes())
            .map_err(OpenError::io("cannot write identity"))
    }
}

/// Gives the store in `dir` a new generation, offline: after its folder was restored from a copy. Clients' cursors of
/// the generations before are void, inbox positions are not continued, and id counters jump ahead by
/// [`RESTORE_ID_SKIP`] at the next start, because the copy does not know what was given out after it was made.
pub fn new_generation(dir: &Path) -> Result<StoreIdentity, OpenError> {
    let folder = Folder::open(dir, false)?;
    let mut identity = folder.identity()?;
    let before = identity.facts.generation;
    while identity.facts.generation == before {
        identity.facts.generation = random_nonzero()?;
    }
    identity.facts.inbox_incarnation = random_nonzero()?;
    identity.id_skip += RESTORE_ID_SKIP;
    folder.write_identity(&identity)?;
    Ok(identity.facts)
}

impl Identity {
    fn mint() -> Result<Identity, OpenError> {
        let mut id_key = [0; 16];
        random(&mut id_key)?;
        Ok(Identity {
            facts: StoreIdentity {
                generation: random_nonzero()?,
                inbox_incarnation: random_nonzero()?,
                epoch: 0,
                id_key,
            },
            lsn_floor: 0,
            id_skip: 0,
        })
    }

    fn render(&self) -> String {
        let facts = &self.facts;
        let lines = format!(
            "{IDENTITY_HEAD}\ngeneration {}\ninbox_incarnation {}\nepoch {}\nid_key {}\nlsn_floor {}\nid_skip {}\n",
            facts.generation,
            facts.inbox_incarnation,
            facts.epoch,
            hex::encode(facts.id_key),
            self.lsn_floor,
            self.id_skip,
        );
        let crc = crc32c::crc32c(lines.as_bytes());
        format!("{lines}crc {crc:08x}\n")
    }

    fn parse(text: &str) -> Option<Identity> {
        let (lines, crc) = text.split_once("crc ")?;
        if u32::from_str_radix(crc.trim_end(), 16).ok()? != crc32c::crc32c(lines.as_bytes()) {
            return None;
        }
        let mut lines = lines.lines();
        if lines.next()? != IDENTITY_HEAD {
            return None;
        }
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let generation = value("generation")?.parse().ok()?;
        let inbox_incarnation = value("inbox_incarnation")?.parse().ok()?;
        let epoch = value("epoch")?.parse().ok()?;
        let mut id_key = [0; 16];
        hex::decode_to_slice(value("id_key")?, &mut id_key).ok()?;
        Some(Identity {
            facts: StoreIdentity {
                generation,
                inbox_incarnation,
                epoch,
                id_key,
            },
            lsn_floor: value("lsn_floor")?.parse().ok()?,
            id_skip: value("id_skip")?.parse().ok()?,
        })
    }

    /// Stamped into every segment header: segments of two stores are never mixed.
    pub(super) fn store_stamp(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(&self.facts.id_key, 0x5E6)
    }

    /// Where the checksums of this store's records start.
    pub(super) fn crc_seed(&self) -> u32 {
        xxhash_rust::xxh3::xxh3_64_with_seed(&self.facts.id_key, 0x10C) as u32
    }
}

/// Replaces a file of `dir` whole: after a crash there is the old one or the new one.
fn replace(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let draft = dir.join(format!("{name}.new"));
    let mut file = File::create(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(name))?;
    sync_dir(dir)
}

/// Makes created, renamed and removed names of a folder durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A folder without a marker may be created into only if nothing of ours or of a stranger lies there already.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    for name in ["identity", "log", "index"] {
        if dir.join(name).exists() {
            let said = format!("it has no FORMAT file, but a {name:?}");
            return Err(OpenError::Format(dir.into(), said.into()));
        }
    }
    Ok(())
}

fn random(bytes: &mut [u8]) -> Result<(), OpenError> {
    getrandom::fill(bytes)
        .map_err(|error| OpenError::io("no randomness")(io::Error::other(error.to_string())))
}

fn random_nonzero() -> Result<u32, OpenError> {
    loop {
        let mut bytes = [0; 4];
        random(&mut bytes)?;
        let number = u32::from_le_bytes(bytes);
        if number != 0 {
            return Ok(number);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed step is a failed test

    use super::*;

    #[test]
    fn an_identity_reads_back_and_a_damaged_one_does_not() {
        let identity = Identity::mint().unwrap();
        let text = identity.render();
        assert_eq!(Identity::parse(&text), Some(identity));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let flipped = String::from_utf8(bytes).unwrap();
            let read = Identity::parse(&flipped);
            assert!(read.is_none() || read == Some(identity), "byte {at}");
        }
    }

    #[test]
    fn a_second_opener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path(), true).unwrap();
        let second = Folder::open(dir.path(), true);
        assert!(matches!(second, Err(OpenError::Locked(_))), "{second:?}");
        drop(first);
        Folder::open(dir.path(), true).unwrap();
    }

    #[test]
    fn an_unknown_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path(), true).unwrap());
        fs::write(dir.path().join("FORMAT"), "conch-store 2\n").unwrap();
        let refused = Folder::open(dir.path(), true);
        assert!(matches!(refused, Err(OpenError::Format(..))), "{refused:?}");
    }

    #[test]
    fn a_folder_that_lost_its_marker_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path(), true).unwrap());
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::remove_file(dir.path().join("FORMAT")).unwrap();
        let refused = Folder::open(dir.path(), true);
        assert!(matches!(refused, Err(OpenError::Format(..))), "{refused:?}");
    }
}
