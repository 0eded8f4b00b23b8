//! What holds for every frame of a client, in every case: the rules of `docs/protocol.md` that a server can see broken.
//!
//! Pure: the session hands in what came and when, findings gather in [`Rules::broken`], each with the id of its rule. What
//! is known here outlives connections and restarts of the client: messages by their texts (the script makes them unique),
//! keys, attempts, what was answered, and which seqs the device can hold at all. Rules of a single connection (aliases,
//! requests in flight) are in `session`.

use std::collections::{BTreeSet, HashMap, HashSet};

use conch_wire::frame::Hello;
use conch_wire::{ChannelId, MessageKey, Seq};

use crate::script::ME;

/// Milliseconds since the case began.
pub(crate) type Ms = u64;

/// Clocks of two processes agree to about this, in milliseconds.
const TOLERANCE_MS: Ms = 5;

/// A message that the person under test wrote.
#[derive(Debug)]
struct Wanted {
    channel: ChannelId,
    text: String,
    key: Option<MessageKey>,
    /// An attempt of it was seen.
    attempted: bool,
    /// The client was told what became of it: where it lies, or that it never will.
    settled: bool,
}

/// A message in a SEND or SEND_MANY.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    pub(crate) key: MessageKey,
    pub(crate) text: String,
    pub(crate) retry: bool,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) broken: Vec<String>,
    /// In the order of writing.
    wanted: Vec<Wanted>,
    /// Seqs whose events the server gave out.
    given: HashMap<ChannelId, BTreeSet<Seq>>,
    tokens: HashSet<String>,
    void_tokens: HashSet<String>,
    sync_tokens: HashSet<Vec<u8>>,
    sessions: HashSet<u64>,
    hellos: usize,
    /// No connection before this, and why.
    connect_not_before: Option<(Ms, String)>,
    /// No connection any more, and why.
    stopped: Option<String>,
}

impl Rules {
    pub(crate) fn breach(&mut self, what: impl Into<String>) {
        self.broken.push(what.into());
    }

    /// The person wrote a message.
    pub(crate) fn wrote(&mut self, channel: ChannelId, text: &str) {
        self.wanted.push(Wanted {
            channel,
            text: text.to_owned(),
            key: None,
            attempted: false,
            settled: false,
        });
    }

    /// The client has this token to use.
    pub(crate) fn token(&mut self, token: &str) {
        self.tokens.insert(token.to_owned());
    }

    pub(crate) fn is_token(&self, token: &str) -> bool {
        self.tokens.contains(token)
    }

    /// The text of a message by its key, if it was seen.
    pub(crate) fn text_of(&self, key: MessageKey) -> Option<&str> {
        let it = self.wanted.iter().find(|it| it.key == Some(key))?;
        Some(&it.text)
    }

    pub(crate) fn gave(&mut self, channel: ChannelId, seq: Seq) {
        self.given.entry(channel).or_default().insert(seq);
    }

    /// The client may hold nothing of before: a restored store, or a person who is out.
    pub(crate) fn forget_given(&mut self) {
        self.given.clear();
    }

    pub(crate) fn gave_sync_token(&mut self, token: &[u8]) {
        self.sync_tokens.insert(token.to_vec());
    }

    pub(crate) fn is_sync_token(&self, token: &[u8]) -> bool {
        self.sync_tokens.contains(token)
    }

    pub(crate) fn gave_session(&mut self, session: u64) {
        self.sessions.insert(session);
    }

    /// The client was told the end of a message.
    pub(crate) fn settled(&mut self, key: MessageKey) {
        if let Some(it) = self.wanted.iter_mut().find(|it| it.key == Some(key)) {
            it.settled = true;
        }
    }

    /// Whether the client was told that this message is stored.
    pub(crate) fn is_settled(&self, text: &str) -> bool {
        self.wanted.iter().any(|it| it.text == text && it.settled)
    }

    /// GOAWAY, or a farewell with advice: no connection before.
    pub(crate) fn wait_before_connecting(&mut self, until: Ms, why: &str) {
        self.connect_not_before = Some((until, why.to_owned()));
    }

    /// The connection was ended with a code.
    pub(crate) fn ended(&mut self, code: u16, token: &str) {
        match code / 100 {
            45 if code != 4502 => {
                self.void_tokens.insert(token.to_owned());
            }
            46 => self.stopped = Some(format!("code {code}")),
            _ if code == 4204 || code == 4426 => self.stopped = Some(format!("code {code}")),
            _ => {}
        }
    }

    /// The program was started again.
    pub(crate) fn restarted(&mut self) {
        self.stopped = None;
        self.connect_not_before = None;
    }

    pub(crate) fn on_connection(&mut self, now: Ms) {
        if let Some(why) = &self.stopped {
            let what = format!("connected again by itself after {why}");
            self.breach(what);
        }
        if let Some((until, why)) = self.connect_not_before.take()
            && now + TOLERANCE_MS < until
        {
            self.breach(format!(
                "P-057: connected {} ms too early after {why}",
                until - now
            ));
        }
    }

    pub(crate) fn on_hello(
        &mut self,
        hello: &Hello,
        generation: u32,
        first_seqs: &HashMap<ChannelId, Seq>,
    ) {
        if !self.tokens.contains(&hello.token) {
            self.breach("P-012: HELLO's token is none that the client was given");
        }
        if self.void_tokens.contains(&hello.token) {
            self.breach("HELLO with a token that the server has refused as ended");
        }
        if !hello.sync_token.is_empty() && !self.sync_tokens.contains(&hello.sync_token) {
            self.breach("HELLO's sync token is none that the server gave out");
        }
        if self.hellos == 0 && !(hello.sync_token.is_empty() && hello.cursors.is_empty()) {
            self.breach("a fresh device comes with cursors or a sync token");
        }
        if hello
            .replaces
            .is_some_and(|it| !self.sessions.contains(&it.0))
        {
            self.breach("HELLO replaces a session that never was");
        }
        self.hellos += 1;
        let mut channels = HashSet::new();
        for cursor in &hello.cursors {
            if !channels.insert(cursor.channel) {
                self.breach("HELLO has two cursors of one channel");
            }
            if cursor.generation == generation {
                let first = first_seqs.get(&cursor.channel).copied().unwrap_or(1);
                self.check_cursor(cursor.channel, cursor.seq, first);
            }
        }
        self.check_pending_order(hello);
    }

    /// A cursor says "without a gap": everything from the first event that was given to it must have been given.
    fn check_cursor(&mut self, channel: ChannelId, seq: Seq, first_seq: Seq) {
        let given = self.given.entry(channel).or_default();
        let Some(lowest) = given.first().copied() else {
            return;
        };
        if let Some(hole) = (lowest.max(first_seq)..=seq).find(|seq| !given.contains(seq)) {
            self.breach(format!(
                "P-038: a cursor says {seq} without a gap, but seq {hole} was never given out"
            ));
        }
    }

    /// Pending sends are in the order of writing, so the oldest are not left out.
    fn check_pending_order(&mut self, hello: &Hello) {
        let places: Vec<_> = hello
            .pending
            .iter()
            .filter_map(|it| {
                self.wanted
                    .iter()
                    .position(|wanted| wanted.key == Some(it.key))
            })
            .collect();
        let per_channel = |place: &usize| self.wanted[*place].channel;
        for pair in places.windows(2) {
            if per_channel(&pair[0]) == per_channel(&pair[1]) && pair[0] >= pair[1] {
                return self
                    .breach("P-019: pending sends of a channel are not in the order of writing");
            }
        }
    }

    /// The messages of one SEND or SEND_MANY.
    pub(crate) fn on_items(&mut self, channel: ChannelId, items: &[Item]) {
        for (at, item) in items.iter().enumerate() {
            let Some(place) = self
                .wanted
                .iter()
                .position(|it| it.text == item.text && it.channel == channel)
            else {
                self.breach(format!(
                    "sent \"{}\", which {ME} never wrote there",
                    short(&item.text)
                ));
                continue;
            };
            self.check_key(place, item);
            self.check_order(place, &items[..at]);
            self.wanted[place].key = Some(item.key);
            self.wanted[place].attempted = true;
        }
    }

    fn check_key(&mut self, place: usize, item: &Item) {
        let it = &self.wanted[place];
        let text = short(&item.text);
        if it.key.is_some_and(|key| key != item.key) {
            self.breach(format!(
                "P-029: \"{text}\" came under another key than before"
            ));
        }
        if self
            .wanted
            .iter()
            .enumerate()
            .any(|(at, other)| at != place && other.key == Some(item.key))
        {
            self.breach(format!(
                "P-029: \"{text}\" came under another message's key"
            ));
        }
        let it = &self.wanted[place];
        if it.attempted && !item.retry {
            self.breach(format!(
                "P-030: \"{text}\" was attempted before, but comes without RETRY"
            ));
        }
        if self.wanted[place].settled {
            self.breach(format!(
                "\"{text}\" is sent again although its answer was given"
            ));
        }
    }

    /// Nothing that was written earlier may still be open, unless it goes ahead in the same frame.
    fn check_order(&mut self, place: usize, ahead: &[Item]) {
        let channel = self.wanted[place].channel;
        let earlier = self.wanted[..place]
            .iter()
            .filter(|it| it.channel == channel && !it.settled)
            .find(|it| !ahead.iter().any(|item| item.text == it.text));
        if let Some(earlier) = earlier {
            let what = format!(
                "P-035: \"{}\" overtakes \"{}\", whose outcome is open",
                short(&self.wanted[place].text),
                short(&earlier.text)
            );
            self.breach(what);
        }
    }
}

/// A text as findings show it.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId(5);

    fn item(text: &str, key: u8, retry: bool) -> Item {
        Item {
            key: MessageKey([key; 16]),
            text: text.into(),
            retry,
        }
    }

    fn rules() -> Rules {
        let mut rules = Rules::default();
        for text in ["one", "two", "three"] {
            rules.wrote(CHANNEL, text);
        }
        rules
    }

    #[test]
    fn a_client_that_keeps_the_rules_is_left_alone() {
        let mut rules = rules();
        rules.on_items(CHANNEL, &[item("one", 1, false)]);
        rules.on_items(CHANNEL, &[item("one", 1, true), item("two", 2, false)]);
        rules.settled(MessageKey([1; 16]));
        rules.settled(MessageKey([2; 16]));
        rules.on_items(CHANNEL, &[item("three", 3, false)]);
        assert_eq!(rules.broken, Vec::<String>::new());
    }

    #[test]
    fn each_breach_is_found() {
        let found = |items: &[&[Item]]| {
            let mut rules = rules();
            for items in items {
                rules.on_items(CHANNEL, items);
            }
            rules.broken.first().map(|it| it[..5].to_owned())
        };
        let one = || item("one", 1, false);
        assert_eq!(found(&[&[one()], &[one()]]).as_deref(), Some("P-030"));
        assert_eq!(
            found(&[&[one()], &[item("one", 2, true)]]).as_deref(),
            Some("P-029")
        );
        assert_eq!(found(&[&[item("two", 2, false)]]).as_deref(), Some("P-035"));
        assert_eq!(
            found(&[&[one(), item("two", 1, false)]]).as_deref(),
            Some("P-029")
        );
        assert_eq!(
            found(&[&[item("four", 4, false)]]).as_deref(),
            Some("sent ")
        );
    }

    #[test]
    fn a_cursor_above_a_hole_is_found() {
        let mut rules = Rules::default();
        rules.gave(CHANNEL, 2);
        rules.gave(CHANNEL, 4);
        rules.check_cursor(CHANNEL, 2, 1);
        assert!(rules.broken.is_empty());
        rules.check_cursor(CHANNEL, 4, 1);
        assert_eq!(rules.broken.len(), 1);
    }
}
