//! `docs/protocol.md` against the code: what the normative document prints must be what the wire does.
//!
//! Compared are every example's bytes with the golden vector that it names, the printed schema with the schema file, the
//! catalogue's frame numbers with the frame types, and the numbering of the rules. The table of error codes is compared by
//! `cargo xtask tidy`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use conch_wire::frame::frame_type;
use serde_json::Value;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> String {
    read("../docs/protocol.md")
}

/// The contents of fenced blocks, without the fences.
fn fenced_blocks(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in document.lines() {
        match (&mut open, line.starts_with("```")) {
            (None, true) => open = Some(String::new()),
            (Some(block), true) => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            (Some(block), false) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(open.is_none(), "a fenced block is not closed");
    blocks
}

/// `vector: NAME`, then hex with spaces and `#` comments.
fn examples(document: &str) -> Vec<(String, String)> {
    fenced_blocks(document)
        .iter()
        .filter_map(|block| {
            let (name, lines) = block.strip_prefix("vector: ")?.split_once('\n')?;
            let bytes = lines.lines().map(|line| line.split('#').next().unwrap());
            let hex = bytes.flat_map(str::chars).filter(|c| !c.is_whitespace());
            Some((name.to_owned(), hex.collect()))
        })
        .collect()
}

#[test]
fn every_example_is_its_golden_vector() {
    let vectors: Vec<Value> = serde_json::from_str(&read("vectors/frames.json")).unwrap();
    let vectors: BTreeMap<&str, &str> = vectors
        .iter()
        .map(|vector| {
            (
                vector["name"].as_str().unwrap(),
                vector["hex"].as_str().unwrap(),
            )
        })
        .collect();
    let examples = examples(&document());
    assert!(examples.len() >= 20, "the worked session is missing");
    for (name, hex) in examples {
        let vector = vectors
            .get(name.as_str())
            .unwrap_or_else(|| panic!("no vector {name}"));
        assert_eq!(hex, **vector, "{name}");
    }
}

#[test]
fn the_printed_schema_is_the_schema() {
    let schema = read("schema/conch.fbs");
    let printed = fenced_blocks(&document())
        .into_iter()
        .find(|block| block.contains("namespace conch;"));
    assert_eq!(printed.expect("section 21 prints the schema"), schema);
}

#[test]
fn the_catalogue_lists_every_frame_type() {
    let document = document();
    let listed: BTreeMap<u8, &str> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| 0x")?.split(" | ");
            let number = u8::from_str_radix(cells.next()?, 16).ok()?;
            Some((number, cells.next()?))
        })
        .collect();
    let known: BTreeMap<u8, &str> = frame_type::ALL
        .iter()
        .map(|number| (*number, frame_type::name(*number).unwrap()))
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn every_rule_has_its_own_number() {
    let document = document();
    let mut seen = BTreeSet::new();
    for rule in document
        .split("**P-")
        .skip(1)
        .map(|rest| rest.split("**").next().unwrap())
    {
        let number: u32 = rule.parse().unwrap();
        assert!(seen.insert(number), "P-{rule} stands twice");
    }
    assert!(seen.len() >= 50, "the rules have lost their numbers");
}
