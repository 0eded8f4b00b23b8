//! Any bytes through `conch_wire::fuzz::event_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| conch_wire::fuzz::event_body(input));
