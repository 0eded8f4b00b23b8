//! Reads the log at a start: hands out its records in order and finds its end.
//!
//! Called once, before anything is served; blocking. Segments that lie wholly below what the index holds are not read.
//!
//! Where a record cannot be read, one of two things happened. Either the machine stopped while its group was being
//! written: nothing in that group was acknowledged, and everything from here on is cut. Or bytes that were durable are
//! damaged: then acknowledged messages are missing, and the start is refused. They are told apart by **proof**: a whole
//! record of this life somewhere behind, written when the unreadable one was already durable; the first record of a
//! later segment, which begins only when all before is synced; or any later record under a header that is unreadable
//! (headers are synced before records). Damage inside the very last group leaves no proof and looks like a torn write,
//! unless the store was closed in order (a seal proves the last group).
//!
//! A cut is zeroed and synced before serving: what is left is durable, and nothing behind it can come back.

use std::path::{Path, PathBuf};

use crate::row::Record;
use crate::{Lsn, embedded::codec};

use super::super::codec::kind;
use super::super::options::OpenError;
use super::record::{self, Owner};
use super::segment::{self, DATA_START, Header, HeaderRead, Number, Segment, State};

/// Which log, and what is known about it from elsewhere.
#[derive(Debug)]
pub(in crate::embedded) struct Expect<'a> {
    pub log_dir: &'a Path,
    pub store: u64,
    pub crc_seed: u32,
    /// Size of new segments: clean ones of another size are made anew.
    pub segment_bytes: u64,
    /// What the index holds.
    pub applied: Lsn,
    /// What the identity file says was durable.
    pub floor: Lsn,
}

/// A live segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::embedded) struct Live {
    pub number: Number,
    pub first_lsn: Lsn,
    pub life: u64,
    pub bytes: u64,
}

/// The log as it was found and mended.
#[derive(Debug, Default)]
pub(in crate::embedded) struct Recovered {
    /// In order of lsn; the last one is written on.
    pub live: Vec<Live>,
    /// Where the next record goes in the last live segment.
    pub offset: u64,
    pub last_lsn: Lsn,
    /// Highest life that any header told.
    pub life: u64,
    pub clean: Vec<Number>,
    /// Must be zeroed before use.
    pub dirty: Vec<Number>,
    pub number_max: Number,
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
}

struct File {
    number: Number,
    bytes: u64,
    header: HeaderRead,
}

/// Recovers the log; `visit` gets every record above `expect.applied`, in order, and may refuse it.
pub(in crate::embedded) fn recover(
    expect: &Expect<'_>,
    visit: &mut dyn FnMut(Lsn, Record) -> Result<(), OpenError>,
) -> Result<Recovered, OpenError> {
    let files = list(expect)?;
    let mut out = Recovered::default();
    let mut suspects = Vec::new();
    for file in &files {
        out.number_max = out.number_max.max(file.number);
        match file.header {
            HeaderRead::Good(header) => {
                out.life = out.life.max(header.life);
                match header.state {
                    State::Live => out.live.push(live(file, &header)),
                    State::Clean
                        if file.bytes == header.bytes && header.bytes == expect.segment_bytes =>
                    {
                        out.clean.push(file.number)
                    }
                    State::Clean | State::Dirty => out.dirty.push(file.number),
                }
            }
            HeaderRead::Blank | HeaderRead::Bad => {
                suspects.push(file);
                out.dirty.push(file.number);
            }
            HeaderRead::Unknown(version) => {
                let path = segment::path(expect.log_dir, file.number);
                let said = format!("segment format {version} is not known");
                return Err(OpenError::Format(path, said.into()));
            }
        }
    }
    out.live.sort_by_key(|live| live.first_lsn);

    let known = expect.applied.max(expect.floor);
    let oldest = out.live.first().map_or(1, |live| live.first_lsn);
    if oldest > expect.applied + 1 {
        return Err(OpenError::IndexBehind {
            applied: expect.applied,
            oldest,
        });
    }
    let start = out
        .live
        .partition_point(|live| live.first_lsn <= expect.applied + 1)
        .saturating_sub(1);
    let mut end = End {
        next: oldest,
        offset: DATA_START,
    };
    for index in start..out.live.len() {
        let live = out.live[index];
        if index > start && live.first_lsn != end.next {
            // The segment before ends early, although this one proves that it was whole.
            let path = segment::path(expect.log_dir, out.live[index - 1].number);
            return Err(corrupt(
                &end,
                path,
                format!("a later segment begins at record {}", live.first_lsn),
            ));
        }
        let last = index + 1 == out.live.len();
        end = walk(expect, live, last, &suspects, visit, &mut out.cut_bytes)?;
    }
    if out.live.is_empty() {
        for suspect in &suspects {
            prove_suspect(expect, suspect, &end)?;
        }
    }
    out.offset = end.offset;
    out.last_lsn = end.next - 1;
    if out.last_lsn < known {
        return Err(OpenError::LogBehind {
            last: out.last_lsn,
            known,
        });
    }
    Ok(out)
}

/// Where the log ends, as far as it was walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::embedded) struct End {
    /// The lsn that comes next.
    pub next: Lsn,
    /// Where it is expected.
    pub offset: u64,
}

fn list(expect: &Expect<'_>) -> Result<Vec<File>, OpenError> {
    let failed = || OpenError::io(format!("cannot list {}", expect.log_dir.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(expect.log_dir).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let Some(number) = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|stem| stem.parse().ok())
        else {
            continue;
        };
        let segment = open(expect, number)?;
        let front = segment.read_front().map_err(failed())?;
        files.push(File {
            number,
            bytes: segment.bytes().map_err(failed())?,
            header: segment::read_header(&front, expect.store),
        });
    }
    Ok(files)
}

fn open(expect: &Expect<'_>, number: Number) -> Result<Segment, OpenError> {
    Segment::open(expect.log_dir, number)
        .map_err(OpenError::io(format!("cannot open segment {number}")))
}

fn live(file: &File, header: &Header) -> Live {
    Live {
        number: file.number,
        first_lsn: header.first_lsn,
        life: header.life,
        bytes: header.bytes,
    }
}

/// Walks one live segment from its beginning; mends its end if it is the last.
fn walk(
    expect: &Expect<'_>,
    live: Live,
    last: bool,
    suspects: &[&File],
    visit: &mut dyn FnMut(Lsn, Record) -> Result<(), OpenError>,
    cut_bytes: &mut u64,
) -> Result<End, OpenError> {
    let path = segment::path(expect.log_dir, live.number);
    let failed = || OpenError::io(format!("cannot read {}", path.display()));
    let file = open(expect, live.number)?;
    if last {
        // After a kill the last group may lie in the page cache only. Replay feeds the index, which may reach the disk
        // on its own account: it must never hold a record that a power cut can still take from the log.
        file.sync().map_err(failed())?;
    }
    let bytes = file.read_all(live.bytes as usize).map_err(failed())?;
    let owner = Owner {
        crc_seed: expect.crc_seed,
        life: live.life as u32,
    };
    let mut end = End {
        next: live.first_lsn,
        offset: DATA_START,
    };
    let mut unknown = None;
    scan(&bytes, owner, &mut end, &mut |found| {
        let Some(record) = codec::payload(found.kind, found.format, found.payload) else {
            unknown = Some(format!(
                "record kind {} format {}",
                found.kind, found.format
            ));
            return Ok(false);
        };
        if found.lsn > expect.applied {
            fail::fail_point!("recovery.record", |_| crate::crash::kill_self());
            visit(found.lsn, record)?;
        }
        Ok(true)
    })?;
    if let Some(said) = unknown {
        return Err(OpenError::Format(path, said.into()));
    }
    if !last {
        return Ok(end);
    }

    let rest = bytes.get(end.offset as usize..).unwrap_or_default();
    if let Some(proof) = proof_behind(rest, owner, end.next) {
        return Err(corrupt(&end, path, proof));
    }
    for suspect in suspects {
        prove_suspect(expect, suspect, &end)?;
    }
    let torn = rest
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    *cut_bytes += torn as u64;
    let mend = || OpenError::io(format!("cannot mend {}", path.display()));
    file.restore_size(live.bytes).map_err(mend())?;
    file.zero(end.offset, end.offset + torn as u64)
        .map_err(mend())?;
    file.sync().map_err(mend())?;
    Ok(end)
}

/// Hands out the records of a segment from `end` on, in order, and moves `end` behind the last one. Ends where a record
/// cannot be read, is of another life, or is not the next; or when `visit` says `false`.
pub(in crate::embedded) fn scan(
    bytes: &[u8],
    owner: Owner,
    end: &mut End,
    visit: &mut dyn FnMut(record::Found<'_>) -> Result<bool, OpenError>,
) -> Result<(), OpenError> {
    loop {
        let rest = bytes.get(end.offset as usize..).unwrap_or_default();
        let found = record::read(rest, owner.crc_seed).filter(|r| r.life == owner.life);
        let Some(found) = found else {
            return Ok(());
        };
        let framed = record::framed_bytes(found.payload.len()) as u64;
        if found.kind == kind::SEAL && found.lsn + 1 == end.next {
            end.offset += framed;
            continue;
        }
        if found.lsn != end.next || !visit(found)? {
            return Ok(());
        }
        end.offset += framed;
        end.next += 1;
    }
}

/// A record of this life in `rest` that was written when record `bad` was durable.
pub(in crate::embedded) fn proof_behind(rest: &[u8], owner: Owner, bad: Lsn) -> Option<String> {
    let proves = |found: &record::Found<'_>| found.life == owner.life && found.durable >= bad;
    search(rest, owner.crc_seed, bad, proves)
        .map(|lsn| format!("record {lsn} behind it was written when it was already durable"))
}

/// Refuses when a file with an unreadable header holds records that belong behind the end of the log.
fn prove_suspect(expect: &Expect<'_>, suspect: &File, end: &End) -> Result<(), OpenError> {
    let path = segment::path(expect.log_dir, suspect.number);
    let bytes = open(expect, suspect.number)?
        .read_all(suspect.bytes as usize)
        .map_err(OpenError::io(format!("cannot read {}", path.display())))?;
    let rest = bytes.get(DATA_START as usize..).unwrap_or_default();
    match search(rest, expect.crc_seed, end.next, |_| true) {
        Some(lsn) => {
            let proof = format!("record {lsn} lies in this segment, whose header is damaged");
            Err(corrupt(end, path, proof))
        }
        None => Ok(()),
    }
}

/// Tries every place where a record of lsn `from` or later may start.
fn search(
    rest: &[u8],
    crc_seed: u32,
    from: Lsn,
    accept: impl Fn(&record::Found<'_>) -> bool,
) -> Option<Lsn> {
    // No segment holds more records than bytes, so a later lsn is no record of this log's end.
    let to = from.saturating_add(1 << 32);
    let mut at = 0;
    while at + record::HEADER_BYTES <= rest.len() {
        let here = &rest[at..];
        if record::plausible(here, from, to)
            && let Some(found) = record::read(here, crc_seed)
            && accept(&found)
        {
            return Some(found.lsn);
        }
        at += record::ALIGNMENT;
    }
    None
}

fn corrupt(end: &End, segment: PathBuf, proof: impl Into<Box<str>>) -> OpenError {
    OpenError::Corrupt {
        lsn: end.next,
        segment,
        offset: end.offset,
        proof: proof.into(),
    }
}
