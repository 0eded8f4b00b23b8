//! One channel per pair of people, whoever opens it first.
//!
//! The pair's slot has one owner, and that owner has one look-up under way per pair; everybody else who asks waits for
//! it. The pair's record is durable before its channel id is told; the channel's first event is then put idempotently
//! by whoever asked, so a crash between the two leaves a pair whose channel the next one makes.

use std::sync::Arc;

use conch_store::{MessageStore, Record};
use conch_wire::ChannelId;

use super::input::{PairKey, Reply};
use crate::id::{Ids, Space};
use crate::map::Map;
use crate::refuse;
use crate::router::FatalReport;
use crate::{Refused, router};

/// Bytes that the store is asked for: the pair's record, and the channel that follows.
const RECORD_BYTES: usize = 512;

/// Pairs being looked up or made, with everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    waiting: Map<PairKey, Vec<Reply<ChannelId>>>,
}

impl Pairs {
    /// `true`: nobody looks this pair up yet, the caller has to.
    pub(crate) fn wait(&mut self, pair: PairKey, reply: Reply<ChannelId>) -> bool {
        let waiting = self.waiting.entry(pair).or_default();
        waiting.push(reply);
        waiting.len() == 1
    }

    pub(crate) fn settle(&mut self, pair: PairKey, result: Result<ChannelId, Refused>) {
        for reply in self.waiting.remove(&pair).unwrap_or_default() {
            // Whoever asked may have gone.
            let _ = reply.send(result);
        }
    }
}

/// Finds the pair's channel, or makes the pair durable under a fresh id.
pub(crate) async fn find_or_make(
    store: Arc<dyn MessageStore>,
    ids: Arc<Ids>,
    fatal: FatalReport,
    (low, high): PairKey,
) -> Result<ChannelId, Refused> {
    let found = store.find_pair(low, high).await.map_err(|error| {
        tracing::warn!(%error, "a pair could not be read");
        refuse::unavailable("the store could not be read")
    })?;
    if let Some(channel) = found {
        return Ok(channel);
    }
    store.admit(RECORD_BYTES).map_err(refuse::not_admitted)?;
    let lost = |error| {
        fatal.report(router::Fatal::Store(error));
        refuse::unknown("the log failed")
    };
    let channel = ids.next(Space::Channel).await.map_err(lost)?;
    let channel = ChannelId(channel);
    let record = Record::Pair { low, high, channel };
    let lost = |error| {
        fatal.report(router::Fatal::Store(error));
        refuse::unknown("the log failed")
    };
    store.append(vec![record]).await.map_err(lost)?;
    Ok(channel)
}
