//! Channels that are opened and closed: the answer, the gap behind it, and what was held meanwhile.
//!
//! An opening asks for the channel's view, answers whoever waits for it, streams the gap from the cursor to that view's head,
//! and then lets out the events that came meanwhile. Whatever cannot be sent leaves a mark, so that nothing is missed
//! silently; an opening that leads nowhere still answers its waiters.

use conch_router::{ChannelView, HistoryRequest, HistoryRows, Refused};
use conch_wire::frame::{ChannelOpened, Cursor, ServerFrame, frame_type};
use conch_wire::{Alias, ChannelId, Code, Seq, limits};

use super::{Phase, Session};
use crate::session::channels::{OpenOutcome, Opening, Stage};
use crate::session::effect::PageFor;

impl Session {
    pub(super) fn on_open(&mut self, request: u32, cursor: &Cursor) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match live.channels.open(cursor, request, 0) {
            Ok(OpenOutcome::Started) => live.opens.push_back(cursor.channel),
            Ok(OpenOutcome::Joined) => {}
            Err(code) => self.refuse(
                request,
                frame_type::OPEN_CHANNEL,
                code,
                "the alias may not be used",
            ),
        }
    }

    pub(super) fn on_close_channel(&mut self, alias: Alias) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match live.channels.channel_of(alias) {
            Some(channel) => self.close_channel(channel),
            None => self.refuse(
                0,
                frame_type::CLOSE_CHANNEL,
                Code::BadAlias,
                "the alias is not open",
            ),
        }
    }

    /// Ends an alias. An opening that was under way is answered, and what it held collapses.
    pub(super) fn close_channel(&mut self, channel: ChannelId) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(opening) = live.channels.close(channel) else {
            return;
        };
        self.abandon(channel, &opening, &CLOSED_EARLY);
    }

    /// Answers the waiters of an opening that leads nowhere.
    pub(super) fn abandon(&mut self, channel: ChannelId, opening: &Opening, refused: &Refused) {
        if let Phase::Live(live) = &mut self.phase
            && opening.hello
        {
            live.hello_opens -= 1;
        }
        for waiter in &opening.waiters {
            let refused = Refused {
                item: waiter.item,
                ..*refused
            };
            self.put_refusal(waiter.request, frame_type::OPEN_CHANNEL, &refused);
        }
        if opening.overflowed || !opening.held.is_empty() {
            self.out.mark(channel);
        }
    }

    /// A channel that is being opened, as its owner sees it.
    pub(super) fn on_view(&mut self, channel: ChannelId, result: Result<ChannelView, Refused>) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(alias) = live.channels.alias_of(channel) else {
            return;
        };
        let opening = live.channels.opening_mut(channel);
        let Some(opening) = opening.filter(|o| o.stage == Stage::View) else {
            return;
        };
        let view = match result {
            Ok(view) => view,
            Err(refused) => {
                if let Some(opening) = live.channels.close(channel) {
                    self.abandon(channel, &opening, &refused);
                }
                return;
            }
        };
        let generation = self.config.inbox.generation;
        let waiters = std::mem::take(&mut opening.waiters);
        let mut gap_from: Option<Seq> = None;
        if waiters.is_empty() {
            self.out.put(&opened_frame(0, alias, &view, false));
        } else {
            opening.covered = view.head.head_seq;
        }
        for waiter in &waiters {
            let resync = waiter.generation != 0
                && (waiter.generation != generation || waiter.seq > view.head.head_seq);
            self.out
                .put(&opened_frame(waiter.request, alias, &view, resync));
            if waiter.generation == generation && waiter.seq > 0 && !resync {
                let from = (waiter.seq + 1).max(view.first_seq);
                gap_from = Some(gap_from.map_or(from, |other| other.min(from)));
            }
        }
        let head_seq = view.head.head_seq;
        // A longer gap, or one without credit, is the client's to fetch: it has the head from CHANNEL_OPENED.
        if let Some(from) = gap_from
            && from <= head_seq
            && head_seq - from < limits::GAP_STREAMED_MAX
            && self.out.has_credit()
            && !self.out.is_marked(channel)
        {
            opening.stage = Stage::Gap { to: head_seq };
            live.pages
                .push_back((gap_request(channel, from, head_seq), PageFor::Gap));
            return;
        }
        self.finish_opening(channel);
    }

    /// A page of the gap of a channel that is being opened.
    pub(super) fn on_gap(
        &mut self,
        request: &HistoryRequest,
        result: Result<HistoryRows, Refused>,
    ) {
        let channel = request.channel;
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(alias) = live.channels.alias_of(channel) else {
            return;
        };
        let streaming = live
            .channels
            .opening_mut(channel)
            .is_some_and(|o| o.stage == Stage::Gap { to: request.to });
        if !streaming {
            return;
        }
        match result {
            Ok(rows) => {
                let sent_all = rows
                    .bodies
                    .iter()
                    .all(|body| self.out.put_event(channel, alias, body));
                if sent_all && rows.covered_to >= rows.covered_from && rows.covered_to < request.to
                {
                    let next = gap_request(channel, rows.covered_to + 1, request.to);
                    live.pages.push_back((next, PageFor::Gap));
                    return;
                }
            }
            Err(_) => self.out.mark(channel),
        }
        self.finish_opening(channel);
    }

    /// Everything asked for is written: what was held follows, and events flow from here on.
    pub(super) fn finish_opening(&mut self, channel: ChannelId) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(alias) = live.channels.alias_of(channel) else {
            return;
        };
        let Some(opening) = live.channels.take_opening(channel) else {
            return;
        };
        for event in &opening.held {
            if event.seq > opening.covered {
                self.out.put_event(channel, alias, &event.body);
            }
        }
        if opening.overflowed {
            self.out.mark(channel);
        }
        if opening.hello {
            live.hello_opens -= 1;
        }
        if !opening.left && !opening.waiters.is_empty() {
            // Asked again while the gap was streamed: answered by a view of its own.
            let again = Opening {
                waiters: opening.waiters,
                ..Opening::queued()
            };
            live.channels.open_again(channel, again);
            live.opens.push_back(channel);
            return;
        }
        if opening.left {
            live.channels.close(channel);
            let rest = Opening {
                waiters: opening.waiters,
                ..Opening::queued()
            };
            self.abandon(channel, &rest, &CLOSED_EARLY);
        }
    }
}

pub(super) const CLOSED_EARLY: Refused = Refused {
    code: Code::Conflict,
    retry_after_ms: 0,
    item: 0,
    detail: "closed before it was open",
};

fn gap_request(channel: ChannelId, from: Seq, to: Seq) -> HistoryRequest {
    HistoryRequest {
        channel,
        from,
        to,
        items_max: limits::GAP_STREAMED_MAX as usize,
        bytes_max: limits::HISTORY_BYTES_MAX,
        newest_first: false,
    }
}

fn opened_frame(request: u32, alias: Alias, view: &ChannelView, resync: bool) -> ServerFrame {
    ServerFrame::ChannelOpened {
        request,
        opened: ChannelOpened {
            alias,
            head: view.head,
            kind: view.kind,
            title: view.title.clone(),
            peer: view.peer,
            first_seq: view.first_seq,
            resync,
        },
    }
}
