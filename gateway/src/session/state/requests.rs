//! HISTORY and SYNC: what is asked for, and the page that answers.
//!
//! At most [`limits::REQUESTS_IN_FLIGHT_MAX`] are under way; a page is read only while the connection takes what it has.

use conch_router::{HistoryRequest, HistoryRows, Refused, SyncRows};
use conch_wire::frame::{
    ChannelHead, History, HistoryPage, ServerFrame, SyncChanges, SyncRow, frame_type,
    put_history_page,
};
use conch_wire::{Code, limits};

use super::{Phase, Session};
use crate::session::effect::{Effect, PageFor};
use crate::session::sync_token::SyncPlace;

impl Session {
    pub(super) fn on_history(&mut self, request: u32, history: &History) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        if history.to < history.from || history.items_max == 0 {
            let detail = "to is before from, or items_max is 0";
            return self.refuse(request, frame_type::HISTORY, Code::Invalid, detail);
        }
        if live.requests_in_flight >= limits::REQUESTS_IN_FLIGHT_MAX {
            return self.refuse_busy(request, frame_type::HISTORY);
        }
        live.requests_in_flight += 1;
        let items_max = usize::from(history.items_max).min(limits::HISTORY_ITEMS_MAX);
        live.pages.push_back((
            HistoryRequest {
                channel: history.channel,
                from: history.from,
                to: history.to,
                items_max,
                bytes_max: limits::HISTORY_BYTES_MAX,
                newest_first: history.newest_first,
            },
            PageFor::Request(request),
        ));
    }

    pub(super) fn on_sync(&mut self, request: u32, token: &[u8], rows_max: u16) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        if live.requests_in_flight >= limits::REQUESTS_IN_FLIGHT_MAX {
            return self.refuse_busy(request, frame_type::SYNC);
        }
        live.requests_in_flight += 1;
        let rows_max = match usize::from(rows_max) {
            0 => limits::SYNC_ROWS_MAX,
            asked => asked.min(limits::SYNC_ROWS_MAX),
        };
        self.effects.push(Effect::Sync {
            request,
            place: SyncPlace::from_token(token, self.config.inbox),
            rows_max,
        });
    }

    pub(super) fn on_page(
        &mut self,
        request: u32,
        asked: &HistoryRequest,
        result: Result<HistoryRows, Refused>,
    ) {
        match result {
            Ok(rows) => {
                let page = HistoryPage {
                    channel: asked.channel,
                    generation: self.config.inbox.generation,
                    covered_from: rows.covered_from,
                    covered_to: rows.covered_to,
                    first_seq: rows.first_seq,
                    head_seq: rows.head_seq,
                    events: Vec::new(),
                };
                self.out
                    .write(|out| put_history_page(out, request, &page, &rows.bodies));
            }
            Err(refused) => self.put_refusal(request, frame_type::HISTORY, &refused),
        }
    }

    pub(super) fn on_sync_page(
        &mut self,
        request: u32,
        place: SyncPlace,
        result: Result<SyncRows, Refused>,
    ) {
        match result {
            Ok(rows) => {
                let (next, more) = place.after_page(&rows);
                self.out.put(&ServerFrame::SyncChanges {
                    request,
                    changes: SyncChanges {
                        reset: place == SyncPlace::Fresh,
                        more,
                        token: next.to_token(self.config.inbox),
                        rows: rows.rows.into_iter().map(sync_row).collect(),
                    },
                });
            }
            Err(refused) => {
                self.put_refusal(request, frame_type::SYNC, &refused);
                if request == 0 {
                    // The page after WELCOME has nobody who asks again.
                    self.out.mark_all();
                }
            }
        }
    }
}

fn sync_row(row: conch_store::InboxRow) -> SyncRow {
    SyncRow {
        head: ChannelHead {
            channel: row.channel,
            head_seq: row.head.seq,
            head_ordinal: row.head.ordinal,
            read_seq: row.member.read_seq,
            read_ordinal: row.member.read_ordinal,
            mentions: 0,
        },
        kind: row.meta.kind,
        title: row.meta.title,
        peer: row.peer,
        first_seq: row.member.visible_from,
        left_seq: row.member.left_seq,
        role: row.member.role,
    }
}
