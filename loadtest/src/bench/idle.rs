//! Memory of a peer per idle connection: the same server with few and with many of them, each with one subscription.
//!
//! Conch's own figure has a session with 20 channels per connection; see `crate::measure::idle`.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Case;
use super::ledger::Entry;
use crate::peers::drive::Drive;
use crate::peers::topology::Topology;
use crate::peers::{self, Peer};
use crate::stop::Stop;

const FEW: u32 = 200;
const MANY: u32 = 1_200;
/// Until what connecting took is given back.
const REST: Duration = Duration::from_secs(1);

/// Blocking.
pub(super) fn measure(peer: Peer, folder: &Path, stop: &Stop) -> Result<Vec<Entry>> {
    let mut bytes = [0.0; 2];
    for (at, connections) in [FEW, MANY].into_iter().enumerate() {
        let folder = folder.join(connections.to_string());
        let mut server = peers::start(peer, &folder)?;
        let _drive = Drive::connect(&mut server, Topology::Fan(connections), stop)?;
        std::thread::sleep(REST);
        bytes[at] = server.rss_bytes()? as f64;
    }
    let each = (bytes[1] - bytes[0]) / f64::from(MANY - FEW);
    Ok(vec![Entry {
        case: Case::Idle.name().to_owned(),
        class: peer.class(),
        server: peer.to_string(),
        values: vec![("bytes_per_connection", each)],
        invalid: None,
    }])
}
