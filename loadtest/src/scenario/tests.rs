//! Every mistake of a scenario is one line with file, key and what is allowed; shipped scenarios are whole; the table of keys is
//! what the types read and what the documentation lists.

use std::collections::BTreeSet;

use serde::de::{self, DeserializeOwned, Visitor};

use super::schema::{Allowed, KEYS};
use super::*;

const SMALL: &str = "[population]\npeople = 4\n[[direct]]\npairs = 2\n[[send]]\nrate = 10\n";

/// The one line that a scenario is refused with: `SMALL` with some text replaced.
fn refusal(from: &str, to: &str) -> String {
    let text = SMALL.replace(from, to);
    assert_ne!(text, SMALL);
    let error = Scenario::parse("mine.toml", &text).expect_err("it is refused");
    let line = error.to_string();
    assert!(!line.contains('\n'), "one line: {line}");
    assert!(line.starts_with("mine.toml: "), "{line}");
    line
}

#[test]
fn shipped_scenarios_are_whole() {
    for (name, _) in SHIPPED {
        let (known_as, scenario) = Scenario::load(name).expect("a shipped scenario parses");
        assert_eq!(known_as, *name);
        assert!(!scenario.about.is_empty(), "{name} says what it is");
    }
}

#[test]
fn every_file_of_the_folder_is_shipped() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let files: BTreeSet<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|file| file.expect("a file").path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let shipped: BTreeSet<_> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, shipped);
}

#[test]
fn an_unknown_key_is_named_with_what_is_allowed() {
    let line = refusal("rate = 10", "rat = 10");
    assert!(
        line.contains("send[0].rat: unknown key; allowed here: to, rate,"),
        "{line}"
    );
    let line = refusal("[[send]]", "[[sent]]");
    assert!(line.contains("sent: unknown key; allowed here:"), "{line}");
    assert!(line.contains("send, history"), "{line}");
}

#[test]
fn values_out_of_their_range_are_refused() {
    for (from, to, key, allowed) in [
        (
            "rate = 10",
            "rate = -3",
            "send[0].rate: -3",
            "number, 0.01 to 10,000,000",
        ),
        (
            "rate = 10",
            "rate = nan",
            "send[0].rate: nan",
            "number, 0.01",
        ),
        (
            "rate = 10",
            "rate = \"10\"",
            "send[0].rate: \"10\"",
            "number, 0.01",
        ),
        (
            "people = 4",
            "people = 0",
            "population.people: 0",
            "whole number, 1 to 200,000",
        ),
        (
            "people = 4",
            "people = 4.5",
            "population.people: 4.5",
            "whole number",
        ),
        (
            "people = 4",
            "people = 4\ntransport = \"tcp\"",
            "population.transport: \"tcp\"",
            "\"ws\", \"wss\" or \"quic\"",
        ),
        (
            "rate = 10",
            "rate = 10\narrivals = \"bursts\"",
            "send[0].arrivals: \"bursts\"",
            "\"fixed\" or \"poisson\"",
        ),
        (
            "rate = 10",
            "rate = 10\nbatch = 65",
            "send[0].batch: 65",
            "1 to 64",
        ),
    ] {
        let line = refusal(from, to);
        assert!(
            line.contains(key) && line.contains("allowed: ") && line.contains(allowed),
            "{line}"
        );
    }
}

#[test]
fn a_missing_key_is_named() {
    let line = refusal("people = 4", "devices = 1");
    assert!(
        line.contains("population.people: missing; allowed: whole number"),
        "{line}"
    );
    let line = refusal("[population]\npeople = 4\n", "");
    assert!(line.contains("population.people: missing"), "{line}");
    let line = refusal("rate = 10", "batch = 1");
    assert!(
        line.contains("send[0].rate: missing; allowed: `rate` (open loop) or `window`"),
        "{line}"
    );
}

#[test]
fn a_section_in_the_wrong_form_is_refused() {
    let line = refusal("[[send]]", "[send]");
    assert!(
        line.contains("send: a section that may be repeated: [[send]]"),
        "{line}"
    );
    let line = refusal("[population]", "[[population]]");
    assert!(
        line.contains("population: a section: [population]"),
        "{line}"
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let line = refusal("rate = 10", "rate = = 10");
    assert!(line.starts_with("mine.toml: line 6: "), "{line}");
}

#[test]
fn parts_that_do_not_fit_each_other_are_refused() {
    for (from, to, words) in [
        (
            "people = 4",
            "people = 1",
            "population.people: two people for a pair",
        ),
        (
            "[[send]]",
            "[[group]]\nmembers = 5\n[[send]]",
            "group[0].members: 5 members",
        ),
        (
            "rate = 10",
            "rate = 10\nto = \"hot\"",
            "no channels are called \"hot\"; allowed: direct",
        ),
        (
            "[[send]]\nrate = 10\n",
            "",
            "check: true, and nothing is ever sent",
        ),
        (
            "[[direct]]\npairs = 2\n",
            "",
            "send: there is no channel to act on",
        ),
        (
            "rate = 10",
            "rate = 10\nwindow = 2",
            "send[0].window: a rate stands there too",
        ),
        (
            "rate = 10",
            "rate = 10\n[[storm]]\nat_s = 31",
            "storm.at_s: 31 s and 0 s more are beyond",
        ),
        (
            "rate = 10",
            "rate = 10\n[search]\np99_ms = 5\nrate_max = 5",
            "search.rate_max: below",
        ),
        (
            "rate = 10",
            "window = 10\n[search]\np99_ms = 5\nrate_max = 5",
            "search: 0 sends have a rate",
        ),
        (
            "people = 4",
            "people = 4\ntransport = { ws = 0.5, wss = 0.5 }",
            "ws and wss together",
        ),
        (
            "people = 4",
            "people = 4\ntransport = { ws = 0.5 }",
            "the shares sum to 0.5",
        ),
        (
            "[[send]]",
            "[[group]]\nname = \"direct\"\nmembers = 2\n[[send]]",
            "\"direct\" is the name of two",
        ),
        (
            "rate = 10",
            "rate = 10\nbatch = 64\npayload_bytes = 2_000",
            "do not fit one SEND_MANY",
        ),
    ] {
        let line = refusal(from, to);
        assert!(line.contains(words), "{words}: {line}");
    }
}

#[test]
fn a_file_that_is_not_there_tells_the_shipped_ones() {
    let line = Scenario::load("dirrect")
        .expect_err("there is none")
        .to_string();
    assert!(
        line.contains("dirrect") && line.contains("direct, group-10"),
        "{line}"
    );
}

/// Reads a struct's field names without a value: what serde was told of it.
struct Fields<'a>(&'a mut Vec<&'static str>);

impl<'de> de::Deserializer<'de> for Fields<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only structs"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(fields);
        Err(de::Error::custom("only the names were wanted"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields_of<T: DeserializeOwned>() -> Vec<&'static str> {
    let mut fields = Vec::new();
    let _ = T::deserialize(Fields(&mut fields));
    fields
}

#[test]
fn the_table_of_keys_is_what_the_types_read() {
    let sections: [(&str, Vec<&str>); 11] = [
        ("population", fields_of::<Population>()),
        ("time", fields_of::<Time>()),
        ("direct", fields_of::<Direct>()),
        ("group", fields_of::<Group>()),
        ("send", fields_of::<Send>()),
        ("history", fields_of::<History>()),
        ("read", fields_of::<Read>()),
        ("storm", fields_of::<Storm>()),
        ("stall", fields_of::<Stall>()),
        ("absence", fields_of::<Absence>()),
        ("search", fields_of::<Search>()),
    ];
    let mut read = BTreeSet::new();
    for name in fields_of::<Scenario>() {
        match sections.iter().find(|(section, _)| *section == name) {
            Some((section, fields)) => {
                assert!(!fields.is_empty(), "{section} has fields");
                read.extend(fields.iter().map(|field| format!("{section}.{field}")));
            }
            None => {
                read.insert(name.to_owned());
            }
        }
    }
    let listed: BTreeSet<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(listed, read);
}

#[test]
fn the_documentation_lists_every_key_with_what_is_allowed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/loadtest.md");
    let text = std::fs::read_to_string(path).expect("docs/loadtest.md is there");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for key in KEYS {
        let name = format!("`{}`", key.path);
        let row = rows.iter().find(|row| row[0] == name);
        let row = row.unwrap_or_else(|| panic!("docs/loadtest.md has no row for {name}"));
        let allowed = key.allowed.to_string();
        assert_eq!(row[1], allowed, "what is allowed at {name}");
        assert_eq!(
            row[2],
            key.default.unwrap_or("required"),
            "what holds without {name}"
        );
        assert!(row[3].len() > 5, "{name} is explained");
    }
    let documented = rows.iter().filter(|row| row.len() == 4).count();
    assert_eq!(documented, KEYS.len(), "a row for each key and no other");
    for (name, _) in SHIPPED {
        assert!(
            rows.iter().any(|row| row[0] == format!("`{name}`")),
            "{name} has a row"
        );
    }
    assert!(
        KEYS.iter()
            .any(|key| matches!(key.allowed, Allowed::Transport))
    );
}
