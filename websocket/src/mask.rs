//! The mask that a client lays over its payloads (RFC 6455, section 5.3).

/// Takes the mask off, in place. The mask begins with the first byte of `payload`.
pub(crate) fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let pattern = u64::from_ne_bytes([
        key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3],
    ]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ pattern).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::unmask;

    #[test]
    fn every_length_is_unmasked_as_byte_by_byte() {
        let key = [0x12, 0x00, 0xff, 0x7a];
        for length in 0..40 {
            let masked: Vec<u8> = (0..length).map(|n: u8| n.wrapping_mul(7)).collect();
            let mut fast = masked.clone();
            unmask(&mut fast, key);
            let slow: Vec<u8> = masked
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ key[at % 4])
                .collect();
            assert_eq!(fast, slow, "{length} bytes");
        }
    }
}
