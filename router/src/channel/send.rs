//! Sends: a key has one message, and a message one place.
//!
//! Dedupe comes first, so that a stored message answers its sender whatever has changed since: a key that is on its way
//! waits for that commit, one that is stored is answered with its place, one that came with other content is a
//! conflict. What memory cannot decide (a window hit outside the tail, a RETRY of a key that the window does not know)
//! is looked up in the store; the request is parked and judged again from the start when the rows are there, because
//! another attempt may have got a place meanwhile. Only then come membership, kind and room. A SEND_MANY is judged as
//! one: the first item that cannot be refuses all.

use conch_store::{content_hash, key_hash};
use conch_wire::event::{Ack, SendFlags};
use conch_wire::{AckFlags, Code, EventFlags, EventKind, MessageKey, Seq, UserId};
use smallvec::SmallVec;

use super::state::{ChannelState, Draft, PARKED_MAX, Parked, Waiter};
use super::{Context, Effects, Known, Lookup, LookupId};
use crate::refuse;
use crate::{Push, Refused, SendItem, SendRequest};

/// What the store said about one key so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// The row that the window pointed at.
    row: Option<Option<Known>>,
    /// The message under the key.
    key: Option<Option<Known>>,
    asking: Option<Lookup>,
}

impl Found {
    pub(super) fn ask(&mut self, lookup: Lookup) {
        self.asking = Some(lookup);
    }

    pub(super) fn answer(&mut self, found: Option<Known>) {
        match self.asking.take() {
            Some(Lookup::Row(_)) => self.row = Some(found),
            Some(Lookup::Key { .. }) => self.key = Some(found),
            None => {}
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }
}

/// What is known of a key.
pub(super) enum Fate {
    /// It has a place, durable or on its way.
    Placed(Known),
    Unknown,
    Ask(Lookup),
}

/// A send that waits for rows of the store.
#[derive(Debug)]
pub(super) struct ParkedSend {
    pub(super) request: SendRequest,
    found: SmallVec<[Found; 1]>,
    /// The sequenced position when the store was asked.
    asked_at: Seq,
}

impl ParkedSend {
    pub(super) fn refuse(self, refused: Refused, effects: &mut Effects) {
        refuse_send(&self.request, refused, effects);
    }
}

/// What becomes of one item.
#[derive(Clone, Copy)]
enum Verdict {
    /// With the hash of its content.
    New(u64),
    /// Answered with the place it has.
    Again(Known),
    /// The same key as an earlier item of the same frame.
    SameAs(usize),
}

enum Judgement {
    Refuse(Refused),
    Ask(SmallVec<[(u16, Lookup); 1]>),
    Take(SmallVec<[Verdict; 1]>),
}

pub(crate) fn refuse_send(request: &SendRequest, refused: Refused, effects: &mut Effects) {
    effects.pushes.push((
        request.session,
        Push::Refused {
            request: request.request,
            frame_type: request.frame_type,
            refused,
        },
    ));
}

/// Bytes of a send's records, about: what the store is asked for.
pub(crate) fn record_bytes(request: &SendRequest) -> usize {
    const RECORD: usize = 128;
    request
        .items
        .iter()
        .map(|item| item.tail.len() + RECORD)
        .sum()
}

fn content_of(item: &SendItem) -> u64 {
    content_hash(item.kind, item.flags.0 & SendFlags::TABLE.0, &item.tail)
}

impl ChannelState {
    /// A SEND or SEND_MANY; the session hears of it by push.
    pub(crate) fn on_send(
        &mut self,
        context: &Context<'_>,
        request: SendRequest,
        effects: &mut Effects,
    ) {
        let found = SmallVec::from_elem(Found::default(), request.items.len());
        let parked = ParkedSend {
            asked_at: self.sequenced.seq,
            request,
            found,
        };
        self.judge_and_act(context, parked, effects);
    }

    pub(super) fn resume_send(
        &mut self,
        context: &Context<'_>,
        id: LookupId,
        mut send: ParkedSend,
        found: Result<Option<Known>, ()>,
        effects: &mut Effects,
    ) {
        let Ok(found) = found else {
            let refused = refuse::unknown("whether this key is stored could not be read");
            return send.refuse(refused, effects);
        };
        if let Some(item) = send.found.get_mut(usize::from(id.item)) {
            item.answer(found);
        }
        if send.found.iter().any(Found::is_asking) {
            self.parked.insert(id.park, Parked::Send(send));
            return;
        }
        if !self.window.covers_after(send.asked_at) {
            // So much was sequenced while the store was asked that "absent" may be out of date: ask again.
            send.found.fill(Found::default());
            send.asked_at = self.sequenced.seq;
        }
        self.judge_and_act(context, send, effects);
    }

    fn judge_and_act(
        &mut self,
        context: &Context<'_>,
        mut send: ParkedSend,
        effects: &mut Effects,
    ) {
        match self.judge(context, &send) {
            Judgement::Refuse(refused) => send.refuse(refused, effects),
            Judgement::Ask(_) if self.parked.len() >= PARKED_MAX => {
                let refused = refuse::overloaded("too many sends wait for the store");
                send.refuse(refused, effects);
            }
            Judgement::Ask(lookups) => {
                for (item, lookup) in &lookups {
                    send.found[usize::from(*item)].ask(*lookup);
                }
                let park = self.park(Parked::Send(send));
                let ids = lookups
                    .iter()
                    .map(|&(item, lookup)| (LookupId { park, item }, lookup));
                effects.lookups.extend(ids);
            }
            Judgement::Take(verdicts) => self.take(context.now_ms, send.request, verdicts, effects),
        }
    }

    /// Decides without changing anything: all or none.
    fn judge(&self, context: &Context<'_>, send: &ParkedSend) -> Judgement {
        let request = &send.request;
        if context.fences.holds(request.user, request.session) {
            let refused = refuse::refused(Code::SessionReplaced, "another session took over");
            return Judgement::Refuse(refused);
        }
        let mut verdicts: SmallVec<[Verdict; 1]> = SmallVec::new();
        let mut lookups = SmallVec::new();
        let mut first_new = None;
        let mut new = 0;
        for (index, item) in request.items.iter().enumerate() {
            let refuse = |refused: Refused| {
                Judgement::Refuse(Refused {
                    item: index as u16,
                    ..refused
                })
            };
            let content = content_of(item);
            if let Some(earlier) = earlier_item(&request.items[..index], item.key) {
                if content_of(&request.items[earlier]) != content {
                    return refuse(conflict());
                }
                verdicts.push(Verdict::SameAs(earlier));
                continue;
            }
            let retry = item.flags.contains(SendFlags::RETRY);
            match self.fate(request.user, item.key, retry, &send.found[index]) {
                Fate::Placed(known) if known.content_hash != content => return refuse(conflict()),
                Fate::Placed(known) => verdicts.push(Verdict::Again(known)),
                Fate::Ask(lookup) => {
                    lookups.push((index as u16, lookup));
                    verdicts.push(Verdict::New(content));
                }
                Fate::Unknown => {
                    if let Some(refused) = self.not_allowed(request.user, item.kind) {
                        return refuse(refused);
                    }
                    first_new.get_or_insert(index);
                    new += 1;
                    verdicts.push(Verdict::New(content));
                }
            }
        }
        if !lookups.is_empty() {
            return Judgement::Ask(lookups);
        }
        if let Some(first_new) = first_new
            && let Some(refused) = self.no_room(context, new)
        {
            return Judgement::Refuse(Refused {
                item: first_new as u16,
                ..refused
            });
        }
        if new == 0 && !self.has_room_to_wait() {
            // What it repeats is on its way; whether it arrives cannot be said without waiting.
            return Judgement::Refuse(refuse::unknown("too many attempts wait for this channel"));
        }
        Judgement::Take(verdicts)
    }

    /// What is known of a key, by memory first.
    pub(super) fn fate(&self, sender: UserId, key: MessageKey, retry: bool, found: &Found) -> Fate {
        let is_it = |known: &Known| known.sender == sender && known.key == key;
        if let Some(seq) = self.window.find(key_hash(sender, &key)) {
            match (self.row(seq), found.row) {
                (Some(row), _) if is_it(&Known::of(row)) => return Fate::Placed(Known::of(row)),
                (None, Some(Some(known))) if is_it(&known) => return Fate::Placed(known),
                (None, None) => return Fate::Ask(Lookup::Row(seq)),
                // The hash met another key's: the window says nothing about this one.
                _ => {}
            }
        }
        // Who was never a member has stored nothing here; no need to ask the store for a stranger.
        if !retry || self.roster.sequenced(sender).is_none() {
            return Fate::Unknown;
        }
        match found.key {
            Some(Some(known)) if is_it(&known) => Fate::Placed(known),
            Some(_) => Fate::Unknown,
            None => Fate::Ask(Lookup::Key { sender, key }),
        }
    }

    fn not_allowed(&self, user: UserId, kind: u8) -> Option<Refused> {
        if !self
            .roster
            .sequenced(user)
            .is_some_and(super::roster::Member::is_present)
        {
            return Some(refuse::not_found());
        }
        let is_message = EventKind::from_u8(kind).is_some_and(EventKind::is_message);
        (!is_message).then(|| refuse::refused(Code::Invalid, "kind: not a message"))
    }

    fn take(
        &mut self,
        now_ms: u64,
        mut request: SendRequest,
        verdicts: SmallVec<[Verdict; 1]>,
        effects: &mut Effects,
    ) {
        let mut acks: SmallVec<[Ack; 1]> = SmallVec::with_capacity(verdicts.len());
        let mut ready_at = 0;
        for (item, verdict) in request.items.iter_mut().zip(&verdicts) {
            let ack = match *verdict {
                Verdict::New(content_hash) => {
                    let draft = Draft {
                        author: request.user,
                        device: request.device,
                        key: item.key,
                        kind: item.kind,
                        flags: EventFlags(item.flags.0 & SendFlags::TABLE.0),
                        tail: std::mem::take(&mut item.tail),
                        content_hash,
                        origin: Some(request.session),
                    };
                    let seq = self.sequence(now_ms, draft);
                    Ack {
                        seq,
                        time_ms: self.sequenced.created_ms,
                        flags: AckFlags::default(),
                    }
                }
                Verdict::Again(known) => Ack {
                    seq: known.seq,
                    time_ms: known.time_ms,
                    flags: AckFlags::DUP,
                },
                Verdict::SameAs(earlier) => Ack {
                    flags: AckFlags::DUP,
                    ..acks[earlier]
                },
            };
            ready_at = ready_at.max(ack.seq);
            acks.push(ack);
        }
        let waiter = Waiter::Sent {
            session: request.session,
            request: request.request,
            frame_type: request.frame_type,
            acks,
        };
        self.wait_for(ready_at, waiter, effects);
    }
}

fn earlier_item(items: &[SendItem], key: MessageKey) -> Option<usize> {
    items.iter().position(|item| item.key == key)
}

fn conflict() -> Refused {
    refuse::refused(Code::Conflict, "the key was used for other content")
}
