//! Read marks on their way to the server: kept until its word has reached them, one question per channel at a time.

use conch_wire::frame::ErrorFrame;
use conch_wire::{ChannelId, ClientFrame, Seq};

use super::advice::Advice;
use super::requests::Asked;
use super::{Core, Ms};

impl Core {
    pub(super) fn on_mark_read(&mut self, id: ChannelId, seq: Seq) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.marks.want(seq.min(channel.log.head())) {
            self.marks_due.insert(id);
            self.changed.insert(id);
        }
    }

    pub(super) fn pump_marks(&mut self, now: Ms) {
        let mut asked = Vec::new();
        let mut settled = Vec::new();
        for id in &self.marks_due {
            match self.channels.get_mut(id) {
                Some(channel) if channel.marks.wanted > 0 => {
                    if !channel.read_asked && channel.read_due <= now {
                        channel.read_asked = true;
                        asked.push((*id, channel.marks.wanted));
                    }
                }
                _ => settled.push(*id),
            }
        }
        for id in settled {
            self.marks_due.remove(&id);
        }
        for (channel, seq) in asked {
            let request = self.requests.ask(Asked::Read(channel));
            self.put(&ClientFrame::Read {
                request,
                channel,
                seq,
            });
        }
    }

    pub(super) fn on_read_refused(&mut self, now: Ms, id: ChannelId, error: &ErrorFrame) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.read_asked = false;
        if Advice::of(error.code.number()) == Advice::RetryHere {
            let delay = channel
                .read_backoff
                .failed(error.retry_after_ms.into(), &mut self.jitter);
            channel.read_due = now + delay;
        } else {
            channel.marks.wanted = 0;
            self.changed.insert(id);
        }
    }
}
