//! SEND and SEND_MANY: what is checked before an owner is asked.

use std::sync::PoisonError;

use bytes::Bytes;
use conch_router::{Refused, SendItem, SendRequest};
use conch_wire::event::check_send_tail;
use conch_wire::frame::Send;
use conch_wire::{Code, limits};
use smallvec::SmallVec;

use super::{Phase, Session};
use crate::session::effect::Effect;

impl Session {
    pub(super) fn on_send(
        &mut self,
        now_ms: u64,
        frame_type: u8,
        request: u32,
        sends: &[Send<'_>],
        chunk: &Bytes,
    ) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        let Some(channel) = sends
            .first()
            .and_then(|first| live.channels.channel_of(first.alias))
            .filter(|_| sends.iter().all(|s| s.alias == sends[0].alias))
        else {
            return self.refuse(request, frame_type, Code::BadAlias, "the alias is not open");
        };
        for (item, send) in sends.iter().enumerate() {
            if let Err(error) = check_send_tail(send.kind, send.flags, send.tail) {
                let refused = Refused {
                    code: error.code,
                    retry_after_ms: 0,
                    item: item as u16,
                    detail: error.what,
                };
                return self.put_refusal(request, frame_type, &refused);
            }
        }
        if live.sends_in_flight >= limits::SENDS_IN_FLIGHT_MAX {
            return self.refuse_flood(now_ms, request, frame_type, 50);
        }
        if let Some(budget) = &live.budget {
            let taken = budget.lock().unwrap_or_else(PoisonError::into_inner).take(
                self.config.sends,
                sends.len() as u32,
                now_ms,
            );
            if let Err(retry_after_ms) = taken {
                return self.refuse_flood(now_ms, request, frame_type, retry_after_ms);
            }
        }
        live.sends_in_flight += 1;
        let items: SmallVec<[SendItem; 1]> = sends
            .iter()
            .map(|send| SendItem {
                key: send.key,
                kind: send.kind,
                flags: send.flags,
                tail: keep(send.tail, chunk),
            })
            .collect();
        self.effects.push(Effect::Send(SendRequest {
            session: self.id,
            user: live.identity.user,
            device: live.identity.device,
            request,
            frame_type,
            channel,
            items,
        }));
    }

    /// A send was refused, by its owner or on the way to it.
    pub fn on_send_refused(&mut self, request: u32, frame_type: u8, refused: &Refused) {
        if let Phase::Live(live) = &mut self.phase {
            live.sends_in_flight = live.sends_in_flight.saturating_sub(1);
            self.put_refusal(request, frame_type, refused);
        }
    }
}

/// A tail that outlives its frame. Small ones are copied: a slice would pin the whole read buffer until the commit.
fn keep(tail: &[u8], chunk: &Bytes) -> Bytes {
    const COPIED_MAX: usize = 2_048;
    if tail.is_empty() {
        Bytes::new()
    } else if tail.len() <= COPIED_MAX {
        Bytes::copy_from_slice(tail)
    } else {
        chunk.slice_ref(tail)
    }
}
