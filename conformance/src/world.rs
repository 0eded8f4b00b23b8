//! What the scripted server's store holds: people, channels with their logs, my marks, and the keys of messages.
//!
//! Pure: the session answers from it, the runner changes it as the script says. It is a model of a node as one person's
//! devices see it, so it has one membership and one set of read marks. Seqs and keys are as durable as the case; a
//! `restore` is the only thing that takes something back.

use std::collections::HashMap;

use bytes::Bytes;
use conch_wire::event::{Ack, ChannelKind, EventBody, EventFlags, EventMember, MessageBody};
use conch_wire::frame::{ChannelHead, ChannelOpened, History, HistoryPage, SyncChanges, SyncRow};
use conch_wire::limits::{HISTORY_BYTES_MAX, HISTORY_ITEMS_MAX};
use conch_wire::{
    AckFlags, Alias, ChannelId, Event, EventKind, MemberRole, MessageKey, Seq, UserId,
};

use crate::script::{ChannelSpec, ME};

/// First ids: above 2⁵³, so that a client whose numbers end there is found out.
const FIRST_USER: u64 = 0x4000_0000_0000_0001;
const FIRST_CHANNEL: u64 = 0x6000_0000_0000_0001;
/// When the world begins, ms since 1970.
const FIRST_TIME_MS: u64 = 1_790_000_000_000;

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) name: String,
    kind: ChannelKind,
    peer: Option<UserId>,
    pub(crate) first_seq: Seq,
    pub(crate) left_seq: Option<Seq>,
    /// I was out of it at some time.
    pub(crate) was_left: bool,
    pub(crate) read_seq: Seq,
    /// Event `i` has seq `i + 1`.
    pub(crate) log: Vec<Event>,
    /// The world's version when it was last touched.
    touched: u64,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) generation: u32,
    pub(crate) channels: Vec<Channel>,
    users: Vec<String>,
    keys: HashMap<(ChannelId, MessageKey), Seq>,
    version: u64,
    /// Of my inbox: tokens of another one are void.
    incarnation: u32,
}

/// What a sync token says: the changes behind `since`, as of a version, from a place in their listing on.
#[derive(Clone, Copy, Debug)]
struct Listing {
    /// `None`: everything, from the beginning.
    since: Option<u64>,
    as_of: u64,
    /// Only what was touched before, because the rest was listed on earlier pages.
    below: u64,
}

impl Channel {
    /// Newest seq that I may read.
    pub(crate) fn head_seq(&self) -> Seq {
        self.left_seq.unwrap_or(self.log.len() as Seq)
    }

    pub(crate) fn event(&self, seq: Seq) -> Option<&Event> {
        self.log.get(seq.checked_sub(1)? as usize)
    }

    fn ordinal(&self, seq: Seq) -> u32 {
        let is_message = |event: &&Event| is_message(event.kind);
        self.log
            .iter()
            .take(seq as usize)
            .filter(is_message)
            .count() as u32
    }

    pub(crate) fn head(&self) -> ChannelHead {
        ChannelHead {
            channel: self.id,
            head_seq: self.head_seq(),
            head_ordinal: self.ordinal(self.head_seq()),
            read_seq: self.read_seq,
            read_ordinal: self.ordinal(self.read_seq),
            mentions: 0,
        }
    }

    fn title(&self) -> String {
        match self.kind {
            ChannelKind::Group => self.name.clone(),
            _ => String::new(),
        }
    }

    pub(crate) fn opened(&self, alias: Alias, resync: bool) -> ChannelOpened {
        ChannelOpened {
            alias,
            head: self.head(),
            kind: self.kind,
            title: self.title(),
            peer: self.peer,
            first_seq: self.first_seq,
            resync,
        }
    }

    fn row(&self) -> SyncRow {
        SyncRow {
            head: self.head(),
            kind: self.kind,
            title: self.title(),
            peer: self.peer,
            first_seq: self.first_seq,
            left_seq: self.left_seq,
            role: MemberRole::Member,
        }
    }

    /// Texts of the log's messages, of one author or of all.
    pub(crate) fn texts(&self, author: Option<UserId>) -> Vec<&str> {
        self.log
            .iter()
            .filter(|event| author.is_none_or(|author| event.author == author))
            .filter_map(Event::text)
            .collect()
    }
}

impl World {
    pub(crate) fn new(channels: &[ChannelSpec]) -> World {
        let mut world = World {
            generation: 77,
            channels: Vec::new(),
            users: vec![ME.to_owned()],
            keys: HashMap::new(),
            version: 1,
            incarnation: 1,
        };
        let bo = world.user("bo");
        for (index, spec) in channels.iter().enumerate() {
            let peer = spec.peer.as_ref().map(|name| world.user(name));
            world.channels.push(Channel {
                id: ChannelId(FIRST_CHANNEL + index as u64),
                name: spec.name.clone(),
                kind: peer.map_or(ChannelKind::Group, |_| ChannelKind::Direct),
                peer,
                first_seq: 1,
                left_seq: None,
                was_left: false,
                read_seq: 0,
                log: Vec::new(),
                touched: 0,
            });
            let created = EventBody {
                channel_kind: Some(world.channels[index].kind),
                title: peer.is_none().then(|| spec.name.clone()),
                members: [world.me(), peer.unwrap_or(bo)].map(member).to_vec(),
            };
            let created_kind = EventKind::ChannelCreated as u8;
            world.append(index, bo, created_kind, created.encode().into());
            for text in &spec.texts {
                world.append(index, bo, 1, text.clone().into());
            }
            for _ in 0..spec.fill {
                let text = format!("fill {}", world.channels[index].log.len() + 1);
                world.append(index, bo, 1, text.into());
            }
        }
        world
    }

    pub(crate) fn me(&self) -> UserId {
        UserId(FIRST_USER)
    }

    /// The id of a name; a new one for a new name.
    pub(crate) fn user(&mut self, name: &str) -> UserId {
        let index = self
            .users
            .iter()
            .position(|it| it == name)
            .unwrap_or_else(|| {
                self.users.push(name.to_owned());
                self.users.len() - 1
            });
        UserId(FIRST_USER + index as u64)
    }

    /// The place of a channel by its name.
    pub(crate) fn by_name(&self, name: &str) -> Option<usize> {
        self.channels.iter().position(|it| it.name == name)
    }

    pub(crate) fn by_id(&self, id: ChannelId) -> Option<usize> {
        self.channels.iter().position(|it| it.id == id)
    }

    fn touch(&mut self, channel: usize) {
        self.version += 1;
        self.channels[channel].touched = self.version;
    }

    /// Appends an event and says its seq. My own moves my mark.
    pub(crate) fn append(&mut self, channel: usize, author: UserId, kind: u8, tail: Bytes) -> Seq {
        let me = self.me();
        let time_ms = FIRST_TIME_MS + self.version * 1_000;
        let it = &mut self.channels[channel];
        let seq = it.log.len() as Seq + 1;
        it.log.push(Event {
            author,
            seq,
            time_ms,
            kind,
            flags: EventFlags::default(),
            tail,
        });
        if author == me {
            it.read_seq = seq;
        }
        self.touch(channel);
        seq
    }

    /// Stores a message of mine under its key, once.
    pub(crate) fn store(&mut self, channel: usize, key: MessageKey, sent: Event) -> Ack {
        let id = self.channels[channel].id;
        let (seq, flags) = match self.keys.get(&(id, key)) {
            Some(seq) => (*seq, AckFlags::DUP),
            None => {
                let seq = self.append(channel, self.me(), sent.kind, sent.tail);
                self.channels[channel].log[seq as usize - 1].flags = sent.flags;
                self.keys.insert((id, key), seq);
                (seq, AckFlags::default())
            }
        };
        let time_ms = self.channels[channel].log[seq as usize - 1].time_ms;
        Ack {
            seq,
            time_ms,
            flags,
        }
    }

    /// Where a message lies.
    pub(crate) fn stored(&self, channel: ChannelId, key: MessageKey) -> Option<(Seq, u64)> {
        let seq = *self.keys.get(&(channel, key))?;
        let event = self.channels[self.by_id(channel)?].event(seq)?;
        Some((seq, event.time_ms))
    }

    /// Moves my mark, never back and never beyond the head.
    pub(crate) fn read(&mut self, channel: usize, seq: Seq) {
        let it = &mut self.channels[channel];
        it.read_seq = it.read_seq.max(seq.min(it.head_seq()));
        self.touch(channel);
    }

    /// The event by which I am out.
    pub(crate) fn remove_me(&mut self, channel: usize, by: UserId) -> Seq {
        let body = EventBody {
            members: vec![member(self.me())],
            ..EventBody::default()
        };
        let kind = EventKind::MemberRemoved as u8;
        let seq = self.append(channel, by, kind, body.encode().into());
        self.channels[channel].left_seq = Some(seq);
        self.channels[channel].was_left = true;
        seq
    }

    /// The event by which I am in again; I may read from it on.
    pub(crate) fn add_me(&mut self, channel: usize, by: UserId) -> Seq {
        let body = EventBody {
            members: vec![member(self.me())],
            ..EventBody::default()
        };
        let kind = EventKind::MembersAdded as u8;
        self.channels[channel].left_seq = None;
        let seq = self.append(channel, by, kind, body.encode().into());
        self.channels[channel].first_seq = seq;
        seq
    }

    /// A message that names people: text and table.
    pub(crate) fn append_mention(
        &mut self,
        channel: usize,
        author: UserId,
        text: &str,
        mentions: Vec<UserId>,
    ) -> Seq {
        let tail = MessageBody { mentions }.encode_tail(text);
        let seq = self.append(channel, author, EventKind::Text as u8, tail.into());
        self.channels[channel].log[seq as usize - 1].flags = EventFlags::TABLE;
        seq
    }

    /// Every sync token that was given out is void.
    pub(crate) fn void_tokens(&mut self) {
        self.incarnation += 1;
    }

    /// Another generation, with only the first events of each log.
    pub(crate) fn restore(&mut self, generation: u32, keep: usize) {
        self.generation = generation;
        for channel in 0..self.channels.len() {
            let it = &mut self.channels[channel];
            it.log.truncate(keep);
            it.read_seq = it.read_seq.min(it.log.len() as Seq);
            let (id, head) = (it.id, it.log.len() as Seq);
            self.keys
                .retain(|(channel, _), seq| *channel != id || *seq <= head);
            self.touch(channel);
        }
    }

    pub(crate) fn trim(&mut self, channel: usize, first_seq: Seq) {
        self.channels[channel].first_seq = first_seq;
        self.touch(channel);
    }

    /// My inbox position: grows with everything that happens.
    pub(crate) fn inbox_position(&self) -> u64 {
        5_000_000_000 + self.version
    }

    fn token(&self, listing: Listing) -> Vec<u8> {
        let since = listing.since.map_or(0, |it| it + 1);
        [
            &self.generation.to_le_bytes()[..],
            &self.incarnation.to_le_bytes(),
            &since.to_le_bytes(),
            &listing.as_of.to_le_bytes(),
            &listing.below.to_le_bytes(),
        ]
        .concat()
    }

    fn listing(&self, token: &[u8]) -> Option<Listing> {
        let (generation, rest) = token.split_first_chunk::<4>()?;
        let (incarnation, rest) = rest.split_first_chunk::<4>()?;
        let (since, rest) = rest.split_first_chunk::<8>()?;
        let (as_of, below) = rest.split_first_chunk::<8>()?;
        let listing = Listing {
            since: u64::from_le_bytes(*since).checked_sub(1),
            as_of: u64::from_le_bytes(*as_of),
            below: u64::from_le_bytes(below.try_into().ok()?),
        };
        let is_ours = u32::from_le_bytes(*generation) == self.generation
            && u32::from_le_bytes(*incarnation) == self.incarnation
            && listing.as_of <= self.version;
        is_ours.then_some(listing)
    }

    /// Whether a token may be continued.
    pub(crate) fn is_valid(&self, token: &[u8]) -> bool {
        self.listing(token).is_some()
    }

    /// The answer to SYNC: at most so many rows.
    pub(crate) fn changes(&self, token: &[u8], rows_max: usize) -> SyncChanges {
        let asked = self.listing(token);
        let mut listing = asked.unwrap_or(Listing {
            since: None,
            as_of: self.version,
            below: u64::MAX,
        });
        if listing.below == u64::MAX {
            listing.as_of = self.version; // a first page
        }
        let is_listed = |it: &&Channel| {
            it.touched <= listing.as_of
                && it.touched < listing.below
                && match listing.since {
                    Some(since) => it.touched > since,
                    None => it.left_seq.is_none(),
                }
        };
        let mut changed: Vec<&Channel> = self.channels.iter().filter(is_listed).collect();
        changed.sort_unstable_by_key(|it| std::cmp::Reverse(it.touched));
        let more = changed.len() > rows_max;
        changed.truncate(rows_max);
        let next = match changed.last() {
            Some(last) if more => Listing {
                below: last.touched,
                ..listing
            },
            _ => Listing {
                since: Some(listing.as_of),
                as_of: listing.as_of,
                below: u64::MAX,
            },
        };
        SyncChanges {
            reset: asked.is_none(),
            rows: changed.into_iter().map(Channel::row).collect(),
            more,
            token: self.token(next),
        }
    }

    /// The answer to HISTORY.
    pub(crate) fn page(&self, channel: usize, asked: &History) -> HistoryPage {
        let it = &self.channels[channel];
        let (from, to) = (asked.from.max(it.first_seq), asked.to.min(it.head_seq()));
        let items_max = usize::from(asked.items_max).min(HISTORY_ITEMS_MAX);
        let mut bytes = 0;
        let mut fits = |event: &&Event| {
            bytes += event.tail.len();
            bytes <= HISTORY_BYTES_MAX || bytes == event.tail.len()
        };
        let range = it
            .log
            .iter()
            .filter(|event| (from..=to).contains(&event.seq));
        let mut events: Vec<Event> = if asked.newest_first {
            range
                .rev()
                .take(items_max)
                .take_while(&mut fits)
                .cloned()
                .collect()
        } else {
            range
                .take(items_max)
                .take_while(&mut fits)
                .cloned()
                .collect()
        };
        events.sort_unstable_by_key(|event| event.seq);
        let covered_from = events.first().map_or(from.max(1), |event| event.seq);
        HistoryPage {
            channel: it.id,
            generation: self.generation,
            covered_from,
            covered_to: covered_from + events.len() as Seq - 1,
            first_seq: it.first_seq,
            head_seq: it.head_seq(),
            events,
        }
    }
}

/// Whether a kind is somebody's message: it is shown and counted.
pub(crate) fn is_message(kind: u8) -> bool {
    (1..=15).contains(&kind)
}

fn member(user: UserId) -> EventMember {
    EventMember {
        user,
        role: MemberRole::Member,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn world() -> World {
        World::new(&[ChannelSpec {
            name: "a".into(),
            peer: None,
            texts: vec!["one".into()],
            fill: 3,
        }])
    }

    #[test]
    fn a_key_is_stored_once() {
        let mut world = world();
        let event = world.channels[0].event(2).unwrap().clone();
        let key = MessageKey([7; 16]);
        let first = world.store(0, key, event.clone());
        let second = world.store(0, key, event);
        assert_eq!((first.seq, second.seq), (6, 6));
        assert_eq!(second.flags, AckFlags::DUP);
        let head = world.channels[0].head();
        assert_eq!(
            head.head_ordinal, head.read_ordinal,
            "nothing of one's own is unread"
        );
    }

    #[test]
    fn tokens_end_with_their_generation() {
        let mut world = world();
        let token = world.changes(&[], 9).token;
        assert!(world.changes(&token, 9).rows.is_empty());
        world.append(0, UserId(9), 1, "more".into());
        assert_eq!(world.changes(&token, 9).rows.len(), 1);
        world.restore(78, 1);
        assert!(world.changes(&token, 9).reset);
    }

    #[test]
    fn listings_come_in_pages_and_go_on_where_they_were() {
        let channel = |name: &str| ChannelSpec {
            name: name.into(),
            peer: None,
            texts: Vec::new(),
            fill: 1,
        };
        let mut world = World::new(&["a", "b", "c"].map(channel));
        let names = |changes: &SyncChanges| -> Vec<String> {
            changes.rows.iter().map(|it| it.title.clone()).collect()
        };
        let first = world.changes(&[], 2);
        assert_eq!(
            (names(&first), first.more, first.reset),
            (vec!["c".into(), "b".into()], true, true)
        );
        world.append(2, UserId(9), 1, "meanwhile".into());
        let second = world.changes(&first.token, 2);
        assert_eq!(
            (names(&second), second.more, second.reset),
            (vec!["a".into()], false, false)
        );
        let third = world.changes(&second.token, 2);
        assert_eq!(names(&third), ["c"]);
        world.append(0, UserId(9), 1, "later".into());
        assert_eq!(names(&world.changes(&third.token, 2)), ["a"]);
        world.void_tokens();
        assert!(world.changes(&third.token, 2).reset);
    }

    #[test]
    fn pages_are_clipped_from_the_end_that_was_asked_for() {
        let world = world();
        let mut asked = History {
            channel: world.channels[0].id,
            from: 1,
            to: u32::MAX,
            items_max: 2,
            newest_first: false,
        };
        let page = world.page(0, &asked);
        assert_eq!((page.covered_from, page.covered_to), (1, 2));
        asked.newest_first = true;
        let page = world.page(0, &asked);
        assert_eq!((page.covered_from, page.covered_to), (4, 5));
        asked.from = 6;
        let page = world.page(0, &asked);
        assert!(page.covered_to < page.covered_from && page.events.is_empty());
    }
}
