//! Any bytes through `conch_wire::fuzz::server_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| conch_wire::fuzz::server_frame(input));
