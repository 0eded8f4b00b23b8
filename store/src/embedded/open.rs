//! Opening a data folder: lock, identity, index, log, replay, and only then threads.
//!
//! Blocking. Nothing is changed before everything that could refuse has been looked at, except the cut of a torn tail.
//! The epoch is raised after the log was recovered and before anything is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::row::Record;
use crate::{Fold, Lsn};

use super::EmbeddedStore;
use super::fold::Folder;
use super::folder::Folder as DataFolder;
use super::index::{Index, IndexError, shared_text};
use super::log::pool::Pool;
use super::log::recover::{self, Expect};
use super::log::writer::{Resume, Writer};
use super::options::{EmbeddedOptions, OpenError};
use super::shared::{Parts, Shared};
use super::tail::Tail;

impl From<IndexError> for OpenError {
    fn from(error: IndexError) -> OpenError {
        OpenError::Index(shared_text(&error))
    }
}

/// Folds replayed records; brings the index forward whenever the tail is as large as it may grow.
struct Replay {
    folder: Folder,
    tail: Tail,
    index: Index,
    applied: Lsn,
    apply_bytes: usize,
    id_blocks: BTreeMap<u8, u64>,
    records: u64,
}

impl Replay {
    fn take(&mut self, lsn: Lsn, record: Record) -> Result<(), OpenError> {
        if let Record::IdBlock { space, end } = &record {
            let known = self.id_blocks.entry(*space).or_default();
            *known = (*known).max(*end);
        }
        if let Err(wrong) = self.folder.check(std::slice::from_ref(&record))? {
            let said = format!(
                "record {lsn} is event {} of channel {}, which is at {}",
                wrong.seq, wrong.channel, wrong.next
            );
            return Err(OpenError::Index(said.into()));
        }
        let folder = &mut self.folder;
        self.tail.fold(|active| folder.apply(active, lsn, record));
        self.records += 1;
        if self.tail.active_bytes() >= self.apply_bytes {
            self.settle()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), OpenError> {
        if let Some(frozen) = self.tail.freeze() {
            fail::fail_point!("index.before_apply", |_| crate::crash::kill_self());
            self.index.apply(&frozen)?;
            fail::fail_point!("index.applied", |_| crate::crash::kill_self());
            self.applied = frozen.last_lsn;
            self.tail.release_frozen();
        }
        let tail = &self.tail;
        self.folder.trim(|channel| tail.layers().holds(channel));
        Ok(())
    }
}

pub(super) fn open(
    options: EmbeddedOptions,
    fold: Arc<dyn Fold>,
) -> Result<EmbeddedStore, OpenError> {
    options.check()?;
    let data = DataFolder::open(&options.dir, true)?;
    let mut identity = data.identity()?;
    let log_dir = data.log_dir();
    std::fs::create_dir_all(&log_dir)
        .and_then(|()| super::folder::sync_dir(&options.dir))
        .map_err(OpenError::io("cannot create the log's folder"))?;

    let index = Index::open(&data.index_dir(), options.index_cache_bytes)?;
    let applied = index.applied()?;
    let mut replay = Replay {
        folder: Folder::new(fold, index.clone(), options.hot_bytes_max),
        tail: Tail::default(),
        id_blocks: index.view().id_blocks()?.into_iter().collect(),
        index,
        applied,
        apply_bytes: options.apply_bytes,
        records: 0,
    };
    let expect = Expect {
        log_dir: &log_dir,
        store: identity.store_stamp(),
        crc_seed: identity.crc_seed(),
        segment_bytes: options.segment_bytes,
        applied,
        floor: identity.lsn_floor,
    };
    let recovered = recover::recover(&expect, &mut |lsn, record| replay.take(lsn, record))?;
    if recovered.cut_bytes > 0 {
        tracing::warn!(
            bytes = recovered.cut_bytes,
            last_lsn = recovered.last_lsn,
            "a torn tail of the log was cut; nothing in it was acknowledged"
        );
    }
    tracing::info!(
        last_lsn = recovered.last_lsn,
        applied,
        replayed = replay.records,
        "log recovered"
    );

    let id_skip = identity.id_skip;
    identity.facts.epoch =
        identity.facts.epoch.checked_add(1).ok_or_else(|| {
            OpenError::Format(options.dir.clone(), "its epochs are used up".into())
        })?;
    identity.lsn_floor = recovered.last_lsn;
    data.write_identity(&identity)?;

    // The index is not known to be fsynced before the first persist of this life.
    let pool = Pool::new(
        log_dir,
        identity.store_stamp(),
        options.segment_bytes,
        options.retained_segments,
        &recovered,
        0,
    );
    if !pool.has_current() || id_skip > 0 {
        pool.prepare()
            .map_err(OpenError::io("cannot create a log segment"))?;
    }
    let index = replay.index;
    let shared = Arc::new(Shared::new(Parts {
        options,
        identity: identity.facts,
        tail: replay.tail,
        pool,
        index: index.clone(),
        id_blocks: replay.id_blocks,
        durable: recovered.last_lsn,
        applied: replay.applied,
    }));
    let resume = Resume {
        offset: recovered.offset,
        next_lsn: recovered.last_lsn + 1,
        crc_seed: identity.crc_seed(),
    };
    let mut writer = Writer::new(shared.clone(), replay.folder, resume)
        .map_err(OpenError::io("cannot open the current log segment"))?;
    if id_skip > 0 {
        skip_ids(&shared, &mut writer, id_skip)?;
        identity.id_skip = 0;
        data.write_identity(&identity)?;
    }
    start(shared, writer, index, data)
}

fn start(
    shared: Arc<Shared>,
    writer: Writer,
    index: Index,
    data: DataFolder,
) -> Result<EmbeddedStore, OpenError> {
    let failed = OpenError::io("cannot start a thread");
    // From here on dropping the store ends what was started.
    let store = EmbeddedStore::new(shared, data);
    store
        .start_threads(writer, index)
        .map_err(failed)
        .map(|()| store)
}

/// After a restore: moves every id counter ahead, durably.
fn skip_ids(shared: &Shared, writer: &mut Writer, skip: u64) -> Result<(), OpenError> {
    let blocks: Vec<Record> = shared
        .id_blocks()
        .into_iter()
        .map(|(space, end)| Record::IdBlock {
            space,
            end: end.saturating_add(skip),
        })
        .collect();
    writer
        .append_now(blocks)
        .map_err(|error| OpenError::io("cannot skip ids")(std::io::Error::other(error.to_string())))
}
