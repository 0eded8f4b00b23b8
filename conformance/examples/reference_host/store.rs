//! What the reference client keeps on its device: one JSON file.
//!
//! Written by rename, so that a kill leaves the old state or the new one. Everything that must be known after a crash is in
//! here: the outbox with its keys, what is held of each channel, how far it was shown, and the sync token.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A message as it is kept. Other events keep their place without a text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) author: u64,
    pub(crate) kind: u8,
    pub(crate) text: Option<String>,
}

/// One channel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Channel {
    /// Last seq held without a gap, and highest seq heard of.
    pub(crate) have: u32,
    pub(crate) known: u32,
    pub(crate) first_seq: u32,
    /// Lowest seq held.
    pub(crate) base: u32,
    /// Everything up to here was shown.
    pub(crate) shown: u32,
    pub(crate) head_seq: u32,
    pub(crate) head_ordinal: u32,
    pub(crate) read_seq: u32,
    pub(crate) read_ordinal: u32,
    pub(crate) left: bool,
    pub(crate) events: BTreeMap<u32, Kept>,
}

/// A message to be sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) key: [u8; 16],
    pub(crate) channel: u64,
    pub(crate) id: String,
    pub(crate) text: String,
    /// A frame with it may have left.
    pub(crate) attempted: bool,
    /// An attempt of it is unanswered: its outcome is open.
    pub(crate) open: bool,
}

/// See the file's head.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Store {
    pub(crate) user: u64,
    pub(crate) generation: u32,
    pub(crate) session: Option<u64>,
    pub(crate) sync_token: Vec<u8>,
    pub(crate) channels: BTreeMap<u64, Channel>,
    pub(crate) outbox: Vec<Waiting>,
    #[serde(skip)]
    path: PathBuf,
}

impl Store {
    /// What is in the folder, or nothing.
    pub(crate) fn load(folder: &Path) -> Result<Store> {
        let path = folder.join("state.json");
        let mut store: Store = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).context("the state is not readable")?,
            Err(_) => Store::default(),
        };
        store.path = path;
        Ok(store)
    }

    pub(crate) fn save(&self) -> Result<()> {
        let next = self.path.with_extension("next");
        fs::write(&next, serde_json::to_string(self)?)?;
        fs::rename(&next, &self.path).context("the state is not writable")
    }
}
