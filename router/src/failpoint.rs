//! The stages of a send at which the kill proof ends the process, and the poison that panics a channel.
//!
//! Compiled to nothing without the feature `failpoints`. `owner.sequenced`: seqs are given, nothing is appended.
//! `owner.committed`: durable, nobody is told. `owner.acked`: acks are with the sessions, no delivery is.
//! `owner.fanned_out`: the owners of all members have it, the mark has not moved. `owner.poison(text)`: handling a send
//! whose tail is exactly this text panics.

use crate::SendRequest;

pub(crate) const SEQUENCED: &str = "owner.sequenced";
pub(crate) const COMMITTED: &str = "owner.committed";
pub(crate) const ACKED: &str = "owner.acked";
pub(crate) const FANNED_OUT: &str = "owner.fanned_out";

/// A stage is reached: ends the process if a test has said so.
pub(crate) fn stage(name: &'static str) {
    let _ = name;
    fail::fail_point!(name, |_| conch_store::crash::kill_self());
}

/// Panics on a send that a test has poisoned.
pub(crate) fn poison(request: &SendRequest) {
    fail::fail_point!("owner.poison", |text| {
        let text: String = text.unwrap_or_default();
        let poisoned = |tail: &[u8]| tail == text.as_bytes();
        assert!(
            !request.items.iter().any(|item| poisoned(&item.tail)),
            "poisoned by a failpoint"
        );
    });
    let _ = request;
}
