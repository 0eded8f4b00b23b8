//! Torn tails and damage: what is cut, what is refused, what never counts.
//!
//! The sweeps over every byte work on the bytes of a real segment in memory, with the very functions that recovery
//! uses; samples of the same damage go through whole data folders.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::conformance::compare::expect_same;
use crate::conformance::script::Script;
use crate::row::Record;
use crate::{Lsn, MessageStore};

use super::super::codec::EVENT_OVERHEAD;
use super::super::folder::Folder;
use super::super::log::record::{self, Owner};
use super::super::log::recover::{End, proof_behind, scan};
use super::super::log::segment::{self, DATA_START, HeaderRead, Segment, State};
use super::super::overlay::ERASED_BODY_BYTES;
use super::super::{EmbeddedOptions, OpenError};
use super::{append, copy_folder, kill, open, options};

/// Where one record lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    lsn: Lsn,
    /// Newest lsn that was durable when its group was written.
    durable: Lsn,
    begin: usize,
    /// End of its bytes, without the padding.
    end: usize,
}

/// A log of one segment with more than 64 KiB of records in groups of one to four, ended by a kill.
struct Log {
    dir: TempDir,
    options: EmbeddedOptions,
    records: Vec<Record>,
    file: PathBuf,
    bytes: Vec<u8>,
    owner: Owner,
    places: Vec<Place>,
}

const TAIL: usize = 64 * 1024;

impl Log {
    async fn write() -> Log {
        let dir = TempDir::new().unwrap();
        let mut options = options(dir.path());
        options.segment_bytes = 256 * 1024;
        let store = open(options.clone()).unwrap();
        let mut script = Script::new();
        let mut records = vec![script.group(1, "g", &[10, 11])];
        append(&store, records.clone()).await;
        for number in 0.. {
            if number > 520 {
                break;
            }
            let mut batch = Vec::new();
            for part in 0..number % 4 + 1 {
                let text = "x".repeat(((number * 7 + part) % 90) as usize);
                batch.push(script.message(1, 10 + number % 2, number * 10 + part, &text));
            }
            if number % 5 == 0 {
                batch.push(script.mark(1, 11, script.head(1)));
            }
            records.extend(batch.clone());
            append(&store, batch).await;
        }
        kill(store);

        let data = Folder::open(dir.path(), false).unwrap();
        let identity = data.identity().unwrap();
        let file = only_live_segment(&data.log_dir(), identity.store_stamp());
        let bytes = fs::read(&file).unwrap();
        let HeaderRead::Good(header) = segment::read_header(&bytes, identity.store_stamp()) else {
            panic!("no header");
        };
        let owner = Owner {
            crc_seed: identity.crc_seed(),
            life: header.life as u32,
        };
        let mut places = Vec::new();
        let mut at = DATA_START as usize;
        while let Some(found) = record::read(&bytes[at..], owner.crc_seed) {
            places.push(Place {
                lsn: found.lsn,
                durable: found.durable,
                begin: at,
                end: at + record::HEADER_BYTES + found.payload.len(),
            });
            at += record::framed_bytes(found.payload.len());
        }
        assert_eq!(places.len(), records.len());
        assert!(at > DATA_START as usize + TAIL, "only {at} bytes of log");
        Log {
            dir,
            options,
            records,
            file,
            bytes,
            owner,
            places,
        }
    }

    fn end(&self) -> usize {
        self.places.last().unwrap().end
    }

    /// The record that holds a byte, or the padding behind it.
    fn holder(&self, at: usize) -> Place {
        let index = self.places.partition_point(|place| place.begin <= at);
        self.places[index - 1]
    }

    /// Whether a record was durable when a later one was written.
    fn is_proven(&self, lsn: Lsn) -> bool {
        self.places.last().unwrap().durable >= lsn
    }

    /// What recovery finds in damaged bytes, walking from the (intact) record before `at`.
    fn recovered(&self, bytes: &[u8], at: usize) -> (End, Option<String>) {
        let from = self.holder(at);
        let mut end = End {
            next: from.lsn,
            offset: from.begin as u64,
        };
        scan(bytes, self.owner, &mut end, &mut |_| Ok(true)).unwrap();
        let proof = proof_behind(&bytes[end.offset as usize..], self.owner, end.next);
        (end, proof)
    }

    /// Where the whole records of a log end whose bytes are damaged from `at` on.
    fn whole(&self, at: usize, damaged_from_at: &[u8]) -> End {
        let hit = self.holder(at);
        // The damage may have left the record as it was: in its padding, or where its own last bytes are the same.
        if damaged_from_at.starts_with(&self.bytes[at..hit.end.max(at)]) {
            End {
                next: hit.lsn + 1,
                offset: hit.end.next_multiple_of(record::ALIGNMENT) as u64,
            }
        } else {
            End {
                next: hit.lsn,
                offset: hit.begin as u64,
            }
        }
    }

    /// A copy of the folder with other bytes in the segment.
    fn copy_with(&self, bytes: &[u8]) -> (TempDir, EmbeddedOptions) {
        let copy = TempDir::new().unwrap();
        copy_folder(self.dir.path(), copy.path());
        let file = copy.path().join("log").join(self.file.file_name().unwrap());
        fs::write(file, bytes).unwrap();
        let mut options = self.options.clone();
        options.dir = copy.path().to_owned();
        (copy, options)
    }
}

fn only_live_segment(log_dir: &Path, store: u64) -> PathBuf {
    let live: Vec<PathBuf> = fs::read_dir(log_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let front = fs::read(path).unwrap();
            matches!(segment::read_header(&front, store), HeaderRead::Good(h) if h.state == State::Live)
        })
        .collect();
    assert_eq!(live.len(), 1);
    live.into_iter().next().unwrap()
}

/// Bytes that look like nothing, the same every time.
fn garbage(seed: usize) -> impl Iterator<Item = u8> {
    let mut state = seed as u64 | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_of_the_last_64_kib_is_cut_to_the_last_whole_record() {
    let log = Log::write().await;
    for at in log.end() - TAIL..log.end() {
        // From the record that is hit on, with the first of what is behind it: the rest is all zeros.
        let hit = log.holder(at);
        let intact = &log.bytes[hit.begin..at];
        for noisy in [false, true] {
            let mut bytes = intact.to_vec();
            let noise = garbage(at).map(|byte| if noisy { byte } else { 0 });
            bytes.extend(noise.take(2048));
            bytes.resize(intact.len() + 2048 + 64, 0);
            let mut end = End {
                next: hit.lsn,
                offset: 0,
            };
            scan(&bytes, log.owner, &mut end, &mut |_| Ok(true)).unwrap();
            let proof = proof_behind(&bytes[end.offset as usize..], log.owner, end.next);
            end.offset += hit.begin as u64;
            let expected = log.whole(at, &bytes[at - hit.begin..]);
            assert_eq!(
                (end, proof),
                (expected, None),
                "torn at {at}, noise: {noisy}"
            );
        }
    }
}

#[tokio::test]
async fn a_flip_of_any_byte_of_the_last_64_kib_is_refused_if_proven_and_cut_if_not() {
    let log = Log::write().await;
    let mut bytes = log.bytes.clone();
    let (mut refused, mut cut) = (0, 0);
    for at in log.end() - TAIL..log.end() {
        let hit = log.holder(at);
        bytes[at] ^= 0x40;
        let (end, proof) = log.recovered(&bytes, at);
        bytes[at] ^= 0x40;
        if at >= hit.end {
            assert_eq!(end.next, log.records.len() as Lsn + 1, "padding at {at}");
            continue;
        }
        assert_eq!(
            (end.next, end.offset as usize),
            (hit.lsn, hit.begin),
            "byte {at}"
        );
        assert_eq!(
            proof.is_some(),
            log.is_proven(hit.lsn),
            "byte {at}: {proof:?}"
        );
        refused += usize::from(proof.is_some());
        cut += usize::from(proof.is_none());
    }
    assert!(
        refused > TAIL / 2 && cut > 0,
        "{refused} refused, {cut} cut"
    );
}

#[tokio::test]
async fn a_folder_with_a_torn_tail_opens_with_every_whole_record_and_goes_on() {
    let log = Log::write().await;
    let samples = (log.end() - TAIL..log.end()).step_by(TAIL / 12 + 1);
    for (round, at) in samples.chain([log.end() - 1]).enumerate() {
        let mut bytes = log.bytes.clone();
        match round % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at..].fill(0),
            _ => {
                for (byte, noise) in bytes[at..].iter_mut().zip(garbage(at)) {
                    *byte = noise;
                }
            }
        }
        let mut read = bytes.clone();
        read.resize(log.bytes.len(), 0);
        let whole = log.whole(at, &read[at..]).next as usize - 1;
        let (_copy, options) = log.copy_with(&bytes);
        let store = open(options.clone()).unwrap();
        assert_eq!(store.durable_lsn(), whole as Lsn, "torn at {at}");
        let mut kept = log.records[..whole].to_vec();
        if round % 4 == 0 {
            expect_same(&store, &kept).await;
        }

        // What is written next does not wake anything that was cut.
        let more = Record::IdBlock { space: 9, end: 5 };
        append(&store, vec![more.clone()]).await;
        kept.push(more);
        kill(store);
        let store = open(options).unwrap();
        assert_eq!(store.durable_lsn(), kept.len() as Lsn);
        if round % 4 == 0 {
            expect_same(&store, &kept).await;
        }
    }
}

#[tokio::test]
async fn a_folder_damaged_below_a_proven_record_is_refused_and_left_alone() {
    let log = Log::write().await;
    let proven: Vec<Place> = log
        .places
        .iter()
        .copied()
        .filter(|place| log.is_proven(place.lsn))
        .collect();
    for place in proven.iter().step_by(proven.len() / 12) {
        let mut bytes = log.bytes.clone();
        let middle = (place.begin + place.end) / 2;
        if place.lsn % 2 == 0 {
            bytes[middle] ^= 1;
        } else {
            bytes[place.begin..place.end].fill(0);
        }
        let (copy, options) = log.copy_with(&bytes);
        let refused = open(options);
        let Err(OpenError::Corrupt { lsn, offset, .. }) = refused else {
            panic!("record {} is damaged: {refused:?}", place.lsn);
        };
        assert_eq!((lsn, offset), (place.lsn, place.begin as u64));
        let after = fs::read(copy.path().join("log").join(log.file.file_name().unwrap())).unwrap();
        assert!(after == bytes, "a refused log was changed");
    }
}

#[tokio::test]
async fn a_damaged_last_group_is_refused_after_an_orderly_close() {
    let log = Log::write().await;
    let (copy, options) = log.copy_with(&log.bytes);
    let store = open(options.clone()).unwrap();
    drop(store);
    let file = copy.path().join("log").join(log.file.file_name().unwrap());
    let mut bytes = fs::read(&file).unwrap();
    bytes[log.end() - 3] ^= 1;
    fs::write(&file, bytes).unwrap();
    let refused = open(options);
    assert!(
        matches!(refused, Err(OpenError::Corrupt { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_damaged_header_is_refused_when_records_lie_behind_it() {
    let log = Log::write().await;
    let mut bytes = log.bytes.clone();
    bytes[30] ^= 1;
    let (_copy, options) = log.copy_with(&bytes);
    let refused = open(options);
    assert!(
        matches!(refused, Err(OpenError::Corrupt { .. })),
        "{refused:?}"
    );

    bytes[..64].fill(0);
    let (_copy, options) = log.copy_with(&bytes);
    let refused = open(options);
    assert!(
        matches!(refused, Err(OpenError::Corrupt { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_log_that_lost_its_newest_segment_is_refused() {
    let log = Log::write().await;
    let (copy, options) = log.copy_with(&log.bytes);
    // A second start notes how far the log reached.
    kill(open(options.clone()).unwrap());
    fs::remove_file(copy.path().join("log").join(log.file.file_name().unwrap())).unwrap();
    let refused = open(options);
    assert!(
        matches!(refused, Err(OpenError::LogBehind { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn records_of_an_earlier_life_of_a_segment_are_never_taken_for_new_ones() {
    let log = Log::write().await;
    let (copy, options) = log.copy_with(&log.bytes);
    let data = Folder::open(copy.path(), false).unwrap();
    let stamp = data.identity().unwrap().store_stamp();
    drop(data);
    // As if the segment had come to its next life without having been zeroed.
    let HeaderRead::Good(mut header) = segment::read_header(&log.bytes, stamp) else {
        panic!("no header");
    };
    header.life += 1;
    let number = log
        .file
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let file = Segment::open(&copy.path().join("log"), number).unwrap();
    file.begin(&header).unwrap();

    let store = open(options.clone()).unwrap();
    assert_eq!(store.durable_lsn(), 0);
    expect_same(&store, &[]).await;
    let mut script = Script::new();
    let records = vec![script.group(2, "new", &[20])];
    append(&store, records.clone()).await;
    store.close().await;
    drop(store);
    let store = open(options).unwrap();
    expect_same(&store, &records).await;
}

#[tokio::test]
async fn a_message_shaped_like_a_record_proves_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(options(dir.path())).unwrap();
    let mut script = Script::new();
    append(&store, vec![script.group(1, "g", &[10])]).await;
    // Its author knows everything but the store's secret seed.
    // So that the forged records lie where records may begin: frame, channel, event and body header come before.
    let before = record::HEADER_BYTES + 8 + EVENT_OVERHEAD + ERASED_BODY_BYTES;
    let mut forged = vec![0; before.next_multiple_of(record::ALIGNMENT) - before];
    let owner = Owner {
        crc_seed: 0,
        life: 1,
    };
    let mut records = Vec::new();
    for lsn in 2..40 {
        record::put(&mut records, owner, lsn, lsn - 1, 5, 1, |out| {
            out.extend_from_slice(&[0; 9]);
        });
    }
    forged.extend(records);
    let key = crate::conformance::script::key(1);
    append(&store, vec![script.event(1, 1, 10, key, &forged)]).await;
    kill(store);

    // The message itself is torn at its beginning; what it carries lies behind.
    let data = Folder::open(dir.path(), false).unwrap();
    let file = only_live_segment(&data.log_dir(), data.identity().unwrap().store_stamp());
    drop(data);
    let mut bytes = fs::read(&file).unwrap();
    let first = {
        let length = u32::from_le_bytes(bytes[4096..4100].try_into().unwrap()) as usize;
        4096 + record::framed_bytes(length)
    };
    bytes[first + 4] ^= 1;
    fs::write(&file, bytes).unwrap();
    let store = open(options(dir.path())).unwrap();
    assert_eq!(store.durable_lsn(), 1);
}

#[tokio::test]
async fn whole_records_behind_a_torn_one_are_gone_for_good() {
    let dir = TempDir::new().unwrap();
    let mut script = Script::new();
    let mut records = vec![script.group(1, "g", &[10])];
    let store = open(options(dir.path())).unwrap();
    append(&store, records.clone()).await;
    let mut after_the_cut = script.clone();
    // One group: its later records reach the disk, its first does not.
    let group = (1..4)
        .map(|number| script.message(1, 10, number, "unacknowledged"))
        .collect();
    append(&store, group).await;
    kill(store);
    let data = Folder::open(dir.path(), false).unwrap();
    let file = only_live_segment(&data.log_dir(), data.identity().unwrap().store_stamp());
    drop(data);
    let mut bytes = fs::read(&file).unwrap();
    let start = DATA_START as usize;
    let length = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
    bytes[start + record::framed_bytes(length) + 50] ^= 1;
    fs::write(&file, bytes).unwrap();

    let store = open(options(dir.path())).unwrap();
    assert_eq!(store.durable_lsn(), 1);
    // Of the same size, so that the old ones would stand right behind it.
    records.push(after_the_cut.message(1, 10, 9, "other contents"));
    append(&store, records[1..].to_vec()).await;
    kill(store);
    let store = open(options(dir.path())).unwrap();
    assert_eq!(store.durable_lsn(), 2);
    expect_same(&store, &records).await;
}
