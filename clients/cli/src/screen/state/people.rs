//! What people are called, as far as it is known here, and whom to ask about.
//!
//! A name is good for [`FRESH_MS`]: it is shown on after that, and asked for again when it is needed. A failed question is
//! not repeated before [`AGAIN_MS`]. At most [`PEOPLE_MAX`] are remembered, those asked about last.

use std::collections::{BTreeMap, BTreeSet};

use conch_client::Person;
use conch_client::wire::UserId;

use crate::harmless;

/// How long a name is taken for the person's present one, in milliseconds.
pub(crate) const FRESH_MS: u64 = 600_000;
/// Pause after a question that was not answered, in milliseconds.
const AGAIN_MS: u64 = 15_000;
/// People in one question.
const ASKED_MAX: usize = 100;
/// People remembered.
const PEOPLE_MAX: usize = 5_000;

#[derive(Clone, Debug)]
struct Known {
    name: String,
    handle: String,
    /// When the server said so; 0: from an earlier run.
    said_ms: u64,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct People {
    known: BTreeMap<UserId, Known>,
    wanted: BTreeSet<UserId>,
    asking: bool,
    not_before_ms: u64,
}

impl People {
    /// The display name, else the number.
    pub(crate) fn name(&self, user: UserId) -> String {
        let known = self.known.get(&user);
        known.map_or_else(|| format!("#{user}"), |it| it.name.clone())
    }

    pub(crate) fn handle(&self, user: UserId) -> Option<&str> {
        self.known.get(&user).map(|it| it.handle.as_str())
    }

    /// A person of this handle whom we know.
    pub(crate) fn by_handle(&self, handle: &str) -> Option<UserId> {
        let mut known = self.known.iter();
        known
            .find(|(_, it)| it.handle == handle)
            .map(|(user, _)| *user)
    }

    /// This person's name is shown: it should be right.
    pub(crate) fn want(&mut self, now_ms: u64, user: UserId) {
        let is_fresh = |it: &Known| it.said_ms + FRESH_MS > now_ms;
        if !self.known.get(&user).is_some_and(is_fresh) {
            self.wanted.insert(user);
        }
    }

    /// Whom to ask about now. One question at a time.
    pub(crate) fn ask(&mut self, now_ms: u64) -> Option<Vec<UserId>> {
        if self.asking || self.wanted.is_empty() || now_ms < self.not_before_ms {
            return None;
        }
        let asked: Vec<_> = self.wanted.iter().copied().take(ASKED_MAX).collect();
        for user in &asked {
            self.wanted.remove(user);
        }
        self.asking = true;
        Some(asked)
    }

    /// When [`People::ask`] may have something to ask for again.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        (!self.asking && !self.wanted.is_empty()).then_some(self.not_before_ms)
    }

    /// What this device remembered of them.
    pub(crate) fn on_remembered(&mut self, people: &[Person]) {
        for person in people {
            if !self.known.contains_key(&person.user) {
                self.put(person, 0);
            }
        }
    }

    /// The server's answer to a question.
    pub(crate) fn on_answer(&mut self, now_ms: u64, asked: &[UserId], found: Option<&[Person]>) {
        self.asking = false;
        let Some(found) = found else {
            self.wanted.extend(asked);
            self.not_before_ms = now_ms + AGAIN_MS;
            return;
        };
        for person in found {
            self.put(person, now_ms);
        }
    }

    /// The connection is there again: what could not be asked can.
    pub(crate) fn on_online(&mut self) {
        self.not_before_ms = 0;
    }

    pub(crate) fn put(&mut self, person: &Person, said_ms: u64) {
        if self.known.len() >= PEOPLE_MAX && !self.known.contains_key(&person.user) {
            let oldest = self.known.iter().min_by_key(|(_, it)| it.said_ms);
            if let Some(user) = oldest.map(|(user, _)| *user) {
                self.known.remove(&user);
            }
        }
        let handle = harmless::name(&person.handle);
        let name = match harmless::name(&person.display_name) {
            // A name of nothing but what cannot be shown.
            name if name.is_empty() => handle.clone(),
            name => name,
        };
        let known = Known {
            name,
            handle,
            said_ms,
        };
        self.known.insert(person.user, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: UserId = UserId(1);

    fn ada(name: &str) -> Person {
        Person {
            user: ADA,
            handle: "ada".to_owned(),
            display_name: name.to_owned(),
        }
    }

    #[test]
    fn name_is_asked_for_again_when_it_is_old() {
        let mut people = People::default();
        people.want(0, ADA);
        assert_eq!(people.ask(0), Some(vec![ADA]));
        people.want(0, ADA);
        assert_eq!(people.ask(0), None, "one question at a time");
        people.on_answer(5, &[ADA], Some(&[ada("Ada")]));
        people.ask(5);
        people.on_answer(5, &[ADA], Some(&[ada("Ada")]));
        people.want(FRESH_MS, ADA);
        assert_eq!(people.ask(FRESH_MS), None);
        people.want(FRESH_MS + 5, ADA);
        assert_eq!(people.ask(FRESH_MS + 5), Some(vec![ADA]));
        people.on_answer(FRESH_MS + 6, &[ADA], Some(&[ada("Ada L.")]));
        assert_eq!(people.name(ADA), "Ada L.");
    }

    #[test]
    fn remembered_name_is_shown_and_checked() {
        let mut people = People::default();
        people.on_remembered(&[ada("Old")]);
        assert_eq!(people.name(ADA), "Old");
        people.want(FRESH_MS, ADA);
        assert_eq!(people.ask(FRESH_MS), Some(vec![ADA]));
        people.on_answer(FRESH_MS, &[ADA], None);
        assert_eq!(people.ask(FRESH_MS), None, "not at once again");
        assert_eq!(people.ask(FRESH_MS + AGAIN_MS), Some(vec![ADA]));
    }

    #[test]
    fn names_are_harmless() {
        let mut people = People::default();
        people.put(&ada("\u{1b}[2JA\u{202e}da\n"), 1);
        assert_eq!(people.name(ADA), "\u{fffd}[2JA\u{fffd}da");
        people.put(&ada("\u{200b}"), 1);
        assert_eq!(people.name(ADA), "ada");
    }
}
