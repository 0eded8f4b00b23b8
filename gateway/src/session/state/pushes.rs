//! What owners push: acks, refusals, events, heads, and the word that something was dropped on the way.

use conch_router::{ChannelView, Published, Push, Refused};
use conch_wire::frame::{PushMode, ServerFrame};
use conch_wire::{ChannelId, Code};

use super::{HEAD_RETRY_MS, Phase, Session};

impl Session {
    /// Something from an owner.
    pub fn on_push(&mut self, push: Push) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        match push {
            Push::Acked { request, acks } => {
                live.sends_in_flight = live.sends_in_flight.saturating_sub(1);
                self.out.put(&ServerFrame::SendAck {
                    request,
                    acks: acks.into_vec(),
                });
            }
            Push::Refused {
                request,
                frame_type,
                refused,
            } => self.on_send_refused(request, frame_type, &refused),
            Push::Events(events) => {
                self.out.expect(events.iter().map(|event| &event.body));
                events.iter().for_each(|event| self.on_event(event));
            }
            Push::Head(head) => self.out.put(&ServerFrame::ChannelHead(head)),
            Push::Close(code) => self.end(code, 0, code.name()),
        }
    }

    /// Events of these channels were dropped on the way here.
    pub fn on_collapsed(&mut self, channels: &[ChannelId], left: &[ChannelId], all: bool) {
        for channel in channels {
            self.out.mark(*channel);
        }
        if all {
            self.out.mark_all();
        }
        for channel in left {
            self.close_channel(*channel);
        }
    }

    pub(super) fn on_event(&mut self, event: &Published) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let channel = event.channel;
        let left = event.left.contains(&live.identity.user);
        // Its sender gets the ack in its place.
        let own = event.origin == Some(self.id);
        match live.channels.alias_of(channel) {
            Some(alias) => {
                if let Some(opening) = live.channels.opening_mut(channel) {
                    opening.left |= left;
                    if !own {
                        opening.hold(event.clone());
                    }
                    return;
                }
                if !own {
                    self.out.put_event(channel, alias, &event.body);
                }
                if left {
                    live.channels.close(channel);
                }
            }
            None if own => {}
            None => match live.push {
                PushMode::Opened => self.out.owe_head(channel),
                PushMode::All if !self.out.has_credit() || self.out.is_marked(channel) => {
                    self.out.mark(channel);
                }
                PushMode::All => {
                    live.channels.open_for_push(event.clone(), left);
                    live.opens.push_back(channel);
                }
            },
        }
    }

    pub(super) fn on_head(
        &mut self,
        now_ms: u64,
        channel: ChannelId,
        result: Result<ChannelView, Refused>,
    ) {
        match result {
            Ok(view) => self.out.put(&ServerFrame::ChannelHead(view.head)),
            // Not this user's channel: there is nothing to tell.
            Err(refused) if matches!(refused.code, Code::NotFound | Code::Forbidden) => {}
            Err(_) => {
                self.out.owe_head(channel);
                if let Phase::Live(live) = &mut self.phase {
                    live.retry_heads_ms = now_ms + HEAD_RETRY_MS;
                }
            }
        }
    }
}
