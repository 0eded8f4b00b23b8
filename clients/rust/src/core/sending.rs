//! Own messages on their way out: frames from the outbox, and what the server says to them.
//!
//! A send needs its channel's alias to be open; the outbox says what may go. See `outbox.rs` for the rules of order.

use conch_wire::event::Ack;
use conch_wire::frame::{ChannelHead, ChannelOpened, Cursor, ErrorFrame, Send};
use conch_wire::limits::GAP_STREAMED_MAX;
use conch_wire::{ChannelId, ClientFrame, Seq};

use super::advice::Advice;
use super::channel::{Channel, SERVER_ALIAS};
use super::event::Event;
use super::outbox::{OutboxItem, Refusal};
use super::persist::Persist;
use super::requests::Asked;
use super::{Core, Ms};

impl Core {
    /// The application's message: stored before its first byte leaves.
    pub(super) fn on_send(&mut self, item: OutboxItem) {
        self.used += 1;
        if let Some(channel) = self.channels.get_mut(&item.channel) {
            channel.used = self.used;
        }
        self.out.persist.push(Persist::Outbox(item.clone()));
        self.outbox_changed.insert(item.channel);
        self.outbox.push(item);
    }

    pub(super) fn pump_sends(&mut self, now: Ms) {
        if !self.link.takes_sends() {
            return;
        }
        for channel in self.outbox.ready(now) {
            match self.aliases.open(channel) {
                Some(alias) => self.send_next(channel, alias),
                None => self.open_if_needed(channel),
            }
        }
    }

    pub(super) fn next_send_at(&self) -> Option<Ms> {
        self.link.takes_sends().then(|| self.outbox.next_at())?
    }

    fn send_next(&mut self, channel: ChannelId, alias: u32) {
        let Some(frame) = self.outbox.next_frame(channel) else {
            return;
        };
        self.outbox_changed.insert(channel);
        let request = self.requests.ask(Asked::Send(channel));
        let sends: Vec<_> = frame
            .iter()
            .map(|(item, flags)| Send {
                key: item.key,
                alias,
                kind: item.kind,
                flags: *flags,
                tail: &item.tail,
            })
            .collect();
        match sends[..] {
            [send] => self.frames.put(&ClientFrame::Send { request, send }),
            _ => self.frames.put(&ClientFrame::SendMany { request, sends }),
        }
    }

    pub(super) fn on_send_ack(&mut self, now: Ms, request: u32, acks: &[Ack]) {
        let settled = match self.requests.answered(request) {
            Some(Asked::Send(channel)) => self.outbox.on_ack(channel, acks),
            _ => None,
        };
        let Some(settled) = settled else {
            return self.distrust(now, "an ack that answers nothing");
        };
        for settled in settled {
            self.on_settled(now, settled);
        }
    }

    pub(super) fn on_send_refused(&mut self, now: Ms, channel: ChannelId, error: &ErrorFrame) {
        self.outbox_changed.insert(channel);
        let refusal = self.outbox.on_refused(
            channel,
            error.code,
            error.item,
            error.retry_after_ms,
            now,
            &mut self.jitter,
        );
        match refusal {
            Some(Refusal::Waits { until }) => {
                self.out.events.push(Event::SendsDelayed {
                    channel,
                    code: error.code,
                    retry_in_ms: until - now,
                });
            }
            Some(Refusal::Dropped(settled)) => self.on_settled(now, settled),
            Some(Refusal::Reopen) => {
                self.aliases.forget(channel);
                self.outbox.delay(channel, 0, now, &mut self.jitter);
            }
            // The close that follows says what to do.
            Some(Refusal::Reconnect) => self.on_last_word(error),
            None => return self.distrust(now, "a refusal that answers nothing"),
        }
        // A certain refusal may have freed an event that was held.
        self.place(now, channel);
    }

    /// Asks for the channel's alias, unless that is under way.
    pub(super) fn open_if_needed(&mut self, channel: ChannelId) {
        let known = self.aliases.open(channel).is_some() || self.aliases.is_opening(channel);
        if known || !self.link.is_online() {
            return;
        }
        let Some(alias) = self.aliases.choose(channel) else {
            return;
        };
        let held = self.channels.get(&channel).map(|it| it.log.have());
        let request = self.requests.ask(Asked::Open(channel));
        self.put(&ClientFrame::OpenChannel {
            request,
            cursor: Cursor {
                channel,
                generation: held.map_or(0, |_| self.meta.generation),
                seq: held.unwrap_or(0),
                alias,
            },
        });
    }

    /// CHANNEL_OPENED: the answer to HELLO or OPEN_CHANNEL, or by itself before the first event under a server's alias.
    pub(super) fn on_channel_opened(&mut self, now: Ms, request: u32, opened: &ChannelOpened) {
        let id = opened.head.channel;
        match self.requests.answered(request) {
            None if request == 0 => {}
            Some(Asked::Open(asked)) if asked == id => {}
            Some(Asked::Head(asked)) if asked == id => return self.on_counted(opened),
            _ => return self.distrust(now, "CHANNEL_OPENED that answers nothing"),
        }
        self.aliases.opened(id, opened.alias);
        if opened.resync {
            self.reset_channel(id);
        }
        let held = self.channels.get(&id).map_or(0, |it| it.log.have());
        let is_streamed = held > 0 && opened.head.head_seq.saturating_sub(held) <= GAP_STREAMED_MAX;
        let window = self.config.first_sight_events;
        let channel = self.channels.entry(id).or_insert_with(|| {
            Channel::new(
                id,
                opened.kind,
                opened.first_seq,
                opened.head.head_seq,
                window,
            )
        });
        channel.on_opened(opened);
        channel.shown |= self.shown.contains(&id);
        channel.listed = self.meta.listing.round;
        self.changed.insert(id);
        if opened.head.head_seq >= opened.first_seq {
            self.skip_to(id, opened.first_seq);
        }
        self.place(now, id);
        if self.channels.get(&id).is_some_and(|it| it.marks.uncounted) {
            self.uncounted.insert(id);
        }
        // A short gap behind a cursor is streamed; any other is ours to fetch. Events that follow by themselves are near.
        let is_answer = opened.alias & SERVER_ALIAS == 0;
        if is_answer && !is_streamed {
            self.note_gap(now, id);
        }
    }

    /// What is known of the channel's log is void.
    fn reset_channel(&mut self, id: ChannelId) {
        if self.channels.remove(&id).is_some() {
            self.gaps.remove(&id);
            self.drop_unplaced(id, Seq::MAX);
            self.out.persist.push(Persist::MessagesRemoved(id));
            self.out.events.push(Event::ChannelReset { channel: id });
        }
    }

    pub(super) fn on_open_refused(&mut self, now: Ms, channel: ChannelId, error: &ErrorFrame) {
        self.aliases.forget(channel);
        self.note_gap(now, channel);
        if Advice::of(error.code.number()) == Advice::RetryHere {
            self.outbox
                .delay(channel, error.retry_after_ms, now, &mut self.jitter);
            return;
        }
        let (settled, some_are_unknown) = self.outbox.on_open_refused(channel, error.code);
        for settled in settled {
            self.on_settled(now, settled);
        }
        if some_are_unknown {
            self.drop_connection(now, error.code, "ask again what became of sends");
        }
    }

    /// CHANNEL_HEAD: events that are not pushed, or a mark that moved.
    pub(super) fn on_channel_head(&mut self, now: Ms, head: &ChannelHead) {
        let Some(channel) = self.channels.get_mut(&head.channel) else {
            self.sync.want();
            return;
        };
        channel.marks.on_head(head);
        channel.log.note_head(head.head_seq);
        channel.listed = self.meta.listing.round;
        self.changed.insert(head.channel);
        self.note_gap(now, head.channel);
    }

    /// The application shows a channel.
    pub(super) fn on_open(&mut self, now: Ms, id: ChannelId) {
        self.used += 1;
        self.shown.insert(id);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.shown = true;
            channel.used = self.used;
            self.changed.insert(id);
        }
        self.open_if_needed(id);
        self.note_gap(now, id);
    }

    pub(super) fn on_close(&mut self, id: ChannelId) {
        self.shown.remove(&id);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.shown = false;
            self.trim(id, self.config.held_events_max);
        }
        if let Some(alias) = self.aliases.forget(id) {
            self.put(&ClientFrame::CloseChannel { alias });
        }
    }
}
