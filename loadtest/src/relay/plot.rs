//! What a faulty relay makes of the frames of one connection. Pure: frames in, frames out.

use std::collections::HashSet;

use bytes::BytesMut;
use conch_wire::event::{Ack, AckFlags, PendingAnswer, SendFlags};
use conch_wire::frame::{ChannelHead, ErrorFrame, HistoryPage, Send, split_frame};
use conch_wire::{ClientFrame, Code, Event, MessageKey, Seq, ServerFrame, WireError, limits};

use super::{Fault, Plan};

/// A text that no test and no generator writes.
const FORGED: &[u8] = b"nobody wrote this";
/// Requests of the relay's own; clients count from 1.
const OWN_REQUEST: u32 = u32::MAX;

/// One connection under a plan.
#[derive(Debug)]
pub(super) struct Plot {
    plan: Plan,
    pub(super) to_node: BytesMut,
    pub(super) to_client: BytesMut,
    /// Frames with sends so far.
    sends: u32,
    /// The highest seq that passed; the channel of a plan's test is one.
    last_seq: Seq,
    /// As WELCOME told it.
    inbox_position: u64,
    /// A frame of the client that waits for the next one.
    held_send: BytesMut,
    held_push: Option<ServerFrame>,
    used_keys: HashSet<MessageKey>,
    /// Requests with a message that was sent again.
    again: HashSet<u32>,
    /// A request whose answer the client already has.
    answered: Option<u32>,
}

impl Plot {
    pub(super) fn new(plan: Plan) -> Plot {
        Plot {
            plan,
            to_node: BytesMut::new(),
            to_client: BytesMut::new(),
            sends: 0,
            last_seq: 0,
            inbox_position: 0,
            held_send: BytesMut::new(),
            held_push: None,
            used_keys: HashSet::new(),
            again: HashSet::new(),
            answered: None,
        }
    }

    /// Whole frames came from the client.
    pub(super) fn on_client(&mut self, mut input: &[u8]) -> Result<(), WireError> {
        while let Some(split) = split_frame(input, limits::FRAME_BYTES_MAX)? {
            let frame = ClientFrame::decode(split.header, split.body)?;
            self.client_frame(frame);
            input = &input[split.consumed..];
        }
        Ok(())
    }

    fn client_frame(&mut self, mut frame: ClientFrame<'_>) {
        match &mut frame {
            ClientFrame::Hello(hello) => {
                for cursor in &mut hello.cursors {
                    cursor.seq = self.real(cursor.seq);
                }
            }
            ClientFrame::OpenChannel { cursor, .. } => cursor.seq = self.real(cursor.seq),
            ClientFrame::Read { seq, .. } => *seq = self.real(*seq),
            ClientFrame::History { history, .. } => {
                history.from = self.real(history.from);
                history.to = self.real(history.to);
            }
            ClientFrame::Send { .. } | ClientFrame::SendMany { .. } => {
                self.sends += 1;
                self.send(frame);
                return;
            }
            _ => {}
        }
        frame.encode(&mut self.to_node);
    }

    fn send(&mut self, mut frame: ClientFrame<'_>) {
        let (request, sends) = match &mut frame {
            ClientFrame::Send { request, send } => (*request, std::slice::from_mut(send)),
            ClientFrame::SendMany { request, sends } => (*request, sends.as_mut_slice()),
            _ => return,
        };
        let is_it = self.sends == self.plan.at;
        match self.plan.fault {
            Some(Fault::Lose) if is_it => {
                let first = self.last_seq + 1;
                let acks = (first..).take(sends.len());
                let acks = acks.map(|seq| Ack {
                    seq,
                    time_ms: 0,
                    flags: AckFlags::default(),
                });
                let acks = acks.collect();
                ServerFrame::SendAck { request, acks }.encode(&mut self.to_client);
                return;
            }
            Some(Fault::Refuse) if is_it => {
                self.answered = Some(request);
                let error = ErrorFrame {
                    code: Code::RateLimited,
                    retry_after_ms: 1_000,
                    refused_type: frame.frame_type(),
                    item: 0,
                    detail: "too many messages".to_owned(),
                };
                ServerFrame::Error { request, error }.encode(&mut self.to_client);
            }
            Some(Fault::StoreTwice) if is_it => {
                frame.encode(&mut self.to_node);
                self.answered = Some(OWN_REQUEST);
                match &mut frame {
                    ClientFrame::Send { request, send } => {
                        *request = OWN_REQUEST;
                        send.key = other(send.key);
                    }
                    ClientFrame::SendMany { request, sends } => {
                        *request = OWN_REQUEST;
                        sends.iter_mut().for_each(|send| send.key = other(send.key));
                    }
                    _ => {}
                }
            }
            Some(Fault::ChangeKey) => {
                for send in sends {
                    if !self.used_keys.insert(send.key) {
                        send.key = other(send.key);
                    }
                }
            }
            Some(Fault::MoveAck) if sends.iter().any(is_again) => {
                self.again.insert(request);
            }
            Some(Fault::Overtake) if is_it => {
                frame.encode(&mut self.held_send);
                return;
            }
            _ => {}
        }
        frame.encode(&mut self.to_node);
        self.to_node.unsplit(self.held_send.split());
    }

    /// A frame came from the node.
    pub(super) fn on_node(&mut self, mut frame: ServerFrame) {
        match &mut frame {
            ServerFrame::Welcome(welcome) => {
                self.inbox_position = welcome.inbox_position;
                for answer in &mut welcome.pending {
                    if let PendingAnswer::Stored { seq, .. } = answer {
                        *seq = self.told(*seq);
                    }
                }
            }
            ServerFrame::Deliver { .. } | ServerFrame::Event { .. } => {
                self.push(frame);
                return;
            }
            ServerFrame::SendAck { request, acks } => {
                if self.answered == Some(*request) {
                    return;
                }
                let more = u32::from(self.again.remove(request));
                for ack in acks {
                    ack.seq = self.told(ack.seq) + more;
                    self.last_seq = self.last_seq.max(ack.seq);
                }
            }
            ServerFrame::Error { request, .. } if self.answered == Some(*request) => return,
            ServerFrame::ChannelHead(head) => self.head(head),
            ServerFrame::ChannelOpened { opened, .. } => {
                opened.first_seq = self.told(opened.first_seq);
                self.head(&mut opened.head);
                let back = u32::from(self.plan.fault == Some(Fault::ReadBack));
                opened.head.read_seq = opened.head.read_seq.saturating_sub(back);
            }
            ServerFrame::SyncChanges { changes, .. } => {
                let back = u32::from(self.plan.fault == Some(Fault::ReadLost));
                for row in &mut changes.rows {
                    row.first_seq = self.told(row.first_seq);
                    self.head(&mut row.head);
                    row.head.read_seq = row.head.read_seq.saturating_sub(back);
                }
            }
            ServerFrame::HistoryPage { page, .. } => self.page(page),
            ServerFrame::Pong { inbox_position, .. } => {
                *inbox_position = match self.plan.fault {
                    Some(Fault::InboxBack) => self.inbox_position.saturating_sub(1),
                    _ => *inbox_position,
                };
            }
            // What it was is not known, and a client of this version skips it.
            ServerFrame::Skipped { .. } => return,
            _ => {}
        }
        frame.encode(&mut self.to_client);
    }

    fn push(&mut self, mut frame: ServerFrame) {
        let (ServerFrame::Deliver { event, .. } | ServerFrame::Event { event, .. }) = &mut frame
        else {
            return;
        };
        event.seq = self.told(event.seq);
        self.last_seq = self.last_seq.max(event.seq);
        let is_it = event.seq == self.plan.at;
        let is_next = event.seq == self.plan.at + 1;
        match self.plan.fault {
            Some(Fault::Drop) if is_it => return,
            Some(Fault::Repeat) if is_it => frame.encode(&mut self.to_client),
            Some(Fault::Forge) if is_it => event.tail = FORGED.into(),
            Some(Fault::Swap | Fault::OtherOrder) if is_it => event.seq += 1,
            Some(Fault::Swap | Fault::OtherOrder) if is_next => event.seq -= 1,
            Some(Fault::Reorder) if is_it => {
                self.held_push = Some(frame);
                return;
            }
            _ => {}
        }
        frame.encode(&mut self.to_client);
        if is_next && let Some(held) = self.held_push.take() {
            held.encode(&mut self.to_client);
        }
    }

    fn head(&mut self, head: &mut ChannelHead) {
        head.head_seq = self.told(head.head_seq);
        head.read_seq = self.told(head.read_seq);
        self.last_seq = self.last_seq.max(head.head_seq);
    }

    fn page(&mut self, page: &mut HistoryPage) {
        let at = self.plan.at;
        match self.plan.fault {
            Some(Fault::Gap) if page.covered_from < at && page.covered_to >= at => {
                // What lies behind the gap is a page of its own.
                page.events.retain(|event| event.seq < at);
                page.covered_to = at - 1;
            }
            Some(Fault::SeqTwice) => page.events.retain(|event| event.seq != at + 1),
            Some(Fault::Forget) => {
                page.events.retain(|event| event.seq <= at);
                page.covered_to = page.covered_to.min(at);
                page.head_seq = page.head_seq.min(at);
            }
            Some(Fault::OtherOrder) => {
                let first = page.events.iter().position(|event| event.seq == at);
                if let Some([one, two]) =
                    first.and_then(|first| page.events.get_mut(first..first + 2))
                {
                    exchange(one, two);
                }
            }
            _ => {}
        }
        for event in &mut page.events {
            event.seq = self.told(event.seq);
        }
        page.covered_from = self.told(page.covered_from);
        page.covered_to = self.told(page.covered_to);
        page.first_seq = self.told(page.first_seq);
        page.head_seq = self.told(page.head_seq);
    }

    /// The seq that clients are told.
    fn told(&self, real: Seq) -> Seq {
        match self.plan.fault {
            Some(Fault::Gap) if real >= self.plan.at => real + 1,
            Some(Fault::SeqTwice) if real > self.plan.at => real - 1,
            _ => real,
        }
    }

    /// The seq that the node has for it.
    fn real(&self, told: Seq) -> Seq {
        match self.plan.fault {
            Some(Fault::Gap) if told > self.plan.at => told - 1,
            Some(Fault::SeqTwice) if told > self.plan.at => told.saturating_add(1),
            _ => told,
        }
    }
}

/// Two neighbours change places; the places keep their seqs.
fn exchange(one: &mut Event, two: &mut Event) {
    std::mem::swap(one, two);
    std::mem::swap(&mut one.seq, &mut two.seq);
}

fn is_again(send: &Send<'_>) -> bool {
    send.flags.contains(SendFlags::RETRY)
}

fn other(key: MessageKey) -> MessageKey {
    MessageKey(key.0.map(|byte| !byte))
}
