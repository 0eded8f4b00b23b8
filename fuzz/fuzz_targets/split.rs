//! Any bytes through `conch_wire::fuzz::split`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| conch_wire::fuzz::split(input));
