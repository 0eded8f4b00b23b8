//! Every ERROR that is not an ending, and the patience with those who go too fast.

use conch_router::Refused;
use conch_wire::Code;
use conch_wire::frame::{ErrorFrame, ServerFrame};

use super::Session;
use crate::bucket::Rate;

/// Refusals for going too fast, before the connection is closed as a flood.
pub(super) const STRIKES: Rate = Rate {
    per_s: 1,
    burst: 50,
};

impl Session {
    pub(super) fn refuse(
        &mut self,
        request: u32,
        refused_type: u8,
        code: Code,
        detail: &'static str,
    ) {
        let refused = Refused {
            code,
            retry_after_ms: 0,
            item: 0,
            detail,
        };
        self.put_refusal(request, refused_type, &refused);
    }

    pub(super) fn refuse_busy(&mut self, request: u32, refused_type: u8) {
        let refused = Refused {
            code: Code::RateLimited,
            retry_after_ms: 50,
            item: 0,
            detail: "too many requests in flight",
        };
        self.put_refusal(request, refused_type, &refused);
    }

    pub(super) fn refuse_flood(
        &mut self,
        now_ms: u64,
        request: u32,
        refused_type: u8,
        retry_after_ms: u32,
    ) {
        let refused = Refused {
            code: Code::RateLimited,
            retry_after_ms,
            item: 0,
            detail: "too many requests",
        };
        self.put_refusal(request, refused_type, &refused);
        self.strike(now_ms, refused_type);
    }

    pub(super) fn strike(&mut self, now_ms: u64, refused_type: u8) {
        if self.strikes.take(STRIKES, 1, now_ms).is_err() {
            self.end(
                Code::Flooding,
                refused_type,
                "the flood went on after refusals",
            );
        }
    }

    pub(super) fn put_refusal(&mut self, request: u32, refused_type: u8, refused: &Refused) {
        self.out.put(&ServerFrame::Error {
            request,
            error: ErrorFrame {
                code: refused.code,
                retry_after_ms: refused.retry_after_ms,
                refused_type,
                item: refused.item,
                detail: refused.detail.to_owned(),
            },
        });
    }
}
