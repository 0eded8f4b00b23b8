//! Keys that nodes of one deployment have in common without telling each other: derived from the token secret.
//!
//! HKDF-SHA256, one label per purpose, so that no two purposes share a key and none tells the secret. Whoever learns the
//! secret can derive them all, past ones too: nothing that must stay secret after that may hang on them alone.

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretSlice};

const SALT: &[u8] = b"conch/1 derived keys";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Prk);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    pub fn of(secret: &SecretSlice<u8>) -> Keys {
        Keys(Salt::new(HKDF_SHA256, SALT).extract(secret.expose_secret()))
    }

    /// 32 bytes for `label` and `number`. Labels end in a byte that is in no other place of them.
    pub fn derive(&self, label: &str, number: u64) -> [u8; 32] {
        let mut key = [0; 32];
        let info = [label.as_bytes(), b"\0", &number.to_be_bytes()];
        self.0
            .expand(&info, HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are within what HKDF gives");
        key
    }

    /// Seals the tokens by which a client of QUIC proves its address.
    pub fn address_tokens(&self) -> Prk {
        Prk::new_less_safe(HKDF_SHA256, &self.derive("quic address tokens", 0))
    }

    /// Makes the tokens by which a node that was started again resets connections of its life before. One per node: two
    /// nodes that shared it could be asked for each other's.
    pub fn stateless_resets(&self, node: &str) -> hmac::Key {
        let key = self.derive(&format!("quic stateless resets {node}"), 0);
        hmac::Key::new(hmac::HMAC_SHA256, &key)
    }

    /// Marks the connection ids of a node, so that it knows those of its life before.
    pub fn connection_ids(&self, node: &str) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.derive(&format!("quic connection ids {node}"), 0);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_gives_the_same_keys_and_every_purpose_its_own() {
        let keys = |byte| Keys::of(&SecretSlice::from(vec![byte; 32]));
        assert_eq!(keys(1).derive("a", 7), keys(1).derive("a", 7));
        assert_ne!(keys(1).derive("a", 7), keys(1).derive("a", 8));
        assert_ne!(keys(1).derive("a", 7), keys(1).derive("b", 7));
        assert_ne!(keys(1).derive("a", 7), keys(2).derive("a", 7));
        assert_eq!(keys(1).connection_ids("one"), keys(1).connection_ids("one"));
        assert_ne!(keys(1).connection_ids("one"), keys(1).connection_ids("two"));
    }
}
