//! Whatever a client sends, cut however it arrives: the WebSocket decoder neither panics nor gathers beyond its limit.
#![no_main]

use bytes::BytesMut;
use conch_websocket::Decoder;
use libfuzzer_sys::fuzz_target;

const MESSAGE_BYTES_MAX: usize = 4_096;

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else {
        return;
    };
    let piece = usize::from(first) + 1;
    let (mut decoder, mut input) = (Decoder::new(MESSAGE_BYTES_MAX), BytesMut::new());
    for part in bytes.chunks(piece) {
        input.extend_from_slice(part);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(input.len() <= MESSAGE_BYTES_MAX + 14);
        assert!(decoder.held_bytes() <= 4 * MESSAGE_BYTES_MAX);
    }
});
