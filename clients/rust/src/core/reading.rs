//! Read marks on their way to the server: kept until its word has reached them.
//!
//! A mark that moves nothing is not answered, so nothing waits for an answer: each mark is told once per connection, a newer
//! one after a pause.

use conch_wire::frame::{ChannelOpened, Cursor, ErrorFrame};
use conch_wire::{ChannelId, ClientFrame, Seq};

use super::advice::Advice;
use super::channel::Channel;
use super::requests::Asked;
use super::{Core, Ms};

/// Marks of a channel that follow each other faster than this are told as one, in milliseconds.
const READ_PAUSE_MS: Ms = 500;

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
                    if channel.has_mark_to_tell() && channel.read_due <= now {
                        channel.read_asked = Some(channel.marks.wanted);
                        channel.read_due = now + READ_PAUSE_MS;
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

    /// Where messages were passed over unseen, the server is asked how many people's messages there are: opening a channel
    /// that is open answers with its head. Asked again until the answer is as high as what was placed meanwhile.
    pub(super) fn pump_uncounted(&mut self) {
        for id in std::mem::take(&mut self.uncounted) {
            let is_uncounted = |it: &Channel| it.marks.uncounted;
            if !self.channels.get(&id).is_some_and(is_uncounted) || self.requests.is_counting(id) {
                continue;
            }
            if self.aliases.open(id).is_none() {
                self.open_if_needed(id);
                continue;
            }
            let Some(alias) = self.aliases.spare() else {
                continue;
            };
            let request = self.requests.ask(Asked::Head(id));
            self.put(&ClientFrame::OpenChannel {
                request,
                cursor: Cursor {
                    channel: id,
                    generation: 0,
                    seq: 0,
                    alias,
                },
            });
        }
    }

    pub(super) fn on_counted(&mut self, opened: &ChannelOpened) {
        let id = opened.head.channel;
        self.aliases.opened(id, opened.alias);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.marks.on_head(&opened.head);
            channel.log.note_head(opened.head.head_seq);
            self.changed.insert(id);
            if channel.marks.uncounted {
                self.uncounted.insert(id);
            }
        }
    }

    pub(super) fn on_read_refused(&mut self, now: Ms, id: ChannelId, error: &ErrorFrame) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        channel.read_asked = None;
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
