//! The certificate of a node that is only tried out: made at its start, for this machine, and trusted by its digest.
//!
//! QUIC has no way without TLS, so `--dev` needs one where HTTP is plain. ECDSA on secp256r1 and less than 14 days, which is what
//! browsers ask of a certificate that is trusted by its SHA-256. The key stays in memory.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::{Certificate, TlsError, provider};

const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks of clients may be behind.
const BEFORE: Duration = Duration::from_secs(60 * 60);

/// A fresh self-signed certificate, and the SHA-256 of its DER in hex.
pub fn certificate() -> Result<(Certificate, String), TlsError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params
        .distinguished_name
        .push(DnType::CommonName, "conch development");
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + 13 * DAY).into();
    let made = params.self_signed(&key)?;
    let digest = hex_of(&Sha256::digest(made.der()));
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let pair = CertifiedKey::from_der(vec![made.der().clone()], key, &provider())?;
    Ok((Certificate::fixed(pair), digest))
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_certificate_and_every_start_has_its_own() {
        let (first, digest) = certificate().expect("made");
        let (_, other) = certificate().expect("made");
        assert_eq!(digest.len(), 64);
        assert_ne!(digest, other);
        let der = first.current().cert[0].clone();
        assert_eq!(digest, hex_of(&Sha256::digest(&der)));
    }
}
