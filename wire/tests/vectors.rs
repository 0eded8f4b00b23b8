//! Golden vectors: `vectors/frames.json` holds every frame as hex, with its meaning and its fields, for this and every
//! other implementation. The file, and the seeds of `fuzz/corpus/`, are written only by explicit command (`cargo xtask vectors`, or
//! `cargo test -p conch-wire --test vectors -- --ignored write_vectors`); the other tests here read it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::{Frame, decode_client, decode_server, encode_client, encode_server, samples};
use conch_wire::frame::frame_type;
use conch_wire::{ClientFrame, ServerFrame};
use serde_json::Value;

fn vectors_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/frames.json")
}

fn vectors() -> Vec<Value> {
    let text = std::fs::read_to_string(vectors_path()).expect("vectors are committed");
    serde_json::from_str(&text).unwrap()
}

fn bytes_of(vector: &Value) -> Vec<u8> {
    hex::decode(vector["hex"].as_str().unwrap()).unwrap()
}

#[test]
#[ignore = "writes the committed files; run by explicit command"]
fn write_vectors() {
    let samples = samples();
    let vectors: Vec<Value> = samples.iter().map(|sample| sample.to_json()).collect();
    std::fs::create_dir_all(vectors_path().parent().unwrap()).unwrap();
    std::fs::write(
        vectors_path(),
        serde_json::to_string_pretty(&vectors).unwrap() + "\n",
    )
    .unwrap();

    for sample in &samples {
        let bytes = sample.bytes();
        seed("split", sample.name, &[&bytes[..], &bytes].concat());
        match &sample.frame {
            Frame::Client(frame) => {
                seed("client_frame", sample.name, &bytes);
                if let ClientFrame::Send { send, .. } = frame {
                    seed("event_body", sample.name, send.tail);
                }
            }
            Frame::Server(frame) => {
                seed("server_frame", sample.name, &bytes);
                if let ServerFrame::Deliver { event, .. } | ServerFrame::Event { event, .. } = frame
                {
                    seed("event_body", sample.name, &bytes[8..]);
                    seed("event_body", &format!("{}_tail", sample.name), &event.tail);
                }
            }
        }
    }
}

/// Writes one input of a fuzz target's corpus.
fn seed(target: &str, name: &str, input: &[u8]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), input).unwrap();
}

#[test]
fn committed_vectors_are_what_is_encoded_today() {
    let committed = vectors();
    let samples = samples();
    assert_eq!(
        committed.len(),
        samples.len(),
        "a sample without a vector, or a vector without a sample"
    );
    for (vector, sample) in committed.iter().zip(&samples) {
        assert_eq!(*vector, sample.to_json(), "{}", sample.name);
    }
}

#[test]
fn vectors_decode_to_their_samples_and_encode_to_the_same_bytes() {
    for (vector, sample) in vectors().iter().zip(samples()) {
        let bytes = bytes_of(vector);
        match sample.frame {
            Frame::Client(expected) => {
                let frame = decode_client(&bytes)
                    .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
                assert_eq!(frame, expected, "{}", sample.name);
                assert_eq!(encode_client(&frame), bytes, "{}", sample.name);
            }
            Frame::Server(expected) => {
                let frame = decode_server(&bytes)
                    .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
                assert_eq!(frame, expected, "{}", sample.name);
                assert_eq!(encode_server(&frame), bytes, "{}", sample.name);
            }
        }
    }
}

#[test]
fn every_frame_type_has_a_vector() {
    let types: BTreeSet<u8> = vectors().iter().map(|vector| bytes_of(vector)[0]).collect();
    for known in frame_type::ALL {
        assert!(
            types.contains(known),
            "no vector of {}",
            frame_type::name(*known).unwrap()
        );
    }
}
