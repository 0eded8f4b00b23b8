//! A certificate for a node under test: made at once, on the disk for the node, by its hash for plain clients and as a root for
//! the others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::raw::certificate_sha256;

/// Names that it vouches for.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A self-signed certificate (ECDSA on secp256r1) in a folder.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM files for the node.
    pub chain: PathBuf,
    pub key: PathBuf,
    pub pem: String,
    /// Of the DER, hex.
    pub sha256: String,
}

impl Certificate {
    /// Makes one and writes it into `folder`.
    pub fn make(folder: &Path) -> io::Result<Certificate> {
        let names = NAMES.map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let certificate = Certificate {
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
            pem: made.cert.pem(),
            sha256: certificate_sha256(made.cert.der()),
        };
        fs::write(&certificate.chain, &certificate.pem)?;
        fs::write(&certificate.key, made.signing_key.serialize_pem())?;
        Ok(certificate)
    }
}
