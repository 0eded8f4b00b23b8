//! The refusals that owners give, each in one place with its advice.
//!
//! A refusal is certain: what was asked did not happen and will not (an earlier attempt under the same key may still be
//! stored; asking again with RETRY tells). Only [`unknown`] is not. Pure.

use conch_store::Refusal;
use conch_wire::Code;

use crate::Refused;

/// A full queue drains within a few commits; clients add their own jitter.
const RETRY_AFTER_MS: u32 = 200;
/// What needs a person or a restart is not asked again at once.
const RETRY_LATER_MS: u32 = 2_000;

pub(crate) const fn refused(code: Code, detail: &'static str) -> Refused {
    Refused {
        code,
        retry_after_ms: 0,
        item: 0,
        detail,
    }
}

pub(crate) const fn not_found() -> Refused {
    refused(Code::NotFound, "no such channel")
}

pub(crate) const fn overloaded(detail: &'static str) -> Refused {
    Refused {
        retry_after_ms: RETRY_AFTER_MS,
        ..refused(Code::Overloaded, detail)
    }
}

pub(crate) const fn unavailable(detail: &'static str) -> Refused {
    Refused {
        retry_after_ms: RETRY_LATER_MS,
        ..refused(Code::Unavailable, detail)
    }
}

pub(crate) const fn going_away() -> Refused {
    refused(Code::GoingAway, "the node is shutting down")
}

pub(crate) const fn quarantined() -> Refused {
    refused(
        Code::Quarantined,
        "the channel is out of order; it can be read",
    )
}

pub(crate) const fn unknown(detail: &'static str) -> Refused {
    Refused {
        retry_after_ms: RETRY_AFTER_MS,
        ..refused(Code::OutcomeUnknown, detail)
    }
}

/// What the store said when asked for room.
pub(crate) const fn not_admitted(refusal: Refusal) -> Refused {
    let (code, retry_after_ms, detail) = match refusal {
        Refusal::Overloaded { retry_after_ms } => {
            (Code::Overloaded, retry_after_ms, "the index is behind")
        }
        Refusal::StorageFull { retry_after_ms } => {
            (Code::StorageFull, retry_after_ms, "the disk is full")
        }
    };
    Refused {
        retry_after_ms,
        ..refused(code, detail)
    }
}
