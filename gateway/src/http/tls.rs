//! The certificate, and changing it while connections are open.
//!
//! New connections use the newest good pair of files; open ones keep theirs. Files that cannot be used are logged and the
//! old pair stays. rustls with aws-lc, TLS 1.2 and 1.3, ALPN `http/1.1`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the files' times are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a pair of files cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("http.tls_cert {path}: {source}")]
    Certificate {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("http.tls_cert {0}: no certificate in it")]
    NoCertificate(PathBuf),
    #[error("http.tls_key {path}: {source}")]
    Key {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("http.tls_cert and http.tls_key do not belong together or cannot be used: {0}")]
    Pair(#[from] rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    current: ArcSwap<ServerConfig>,
    cert: PathBuf,
    key: PathBuf,
    /// Asked to look now (SIGHUP).
    look: Notify,
}

impl Certificate {
    pub fn load(cert: &Path, key: &Path) -> Result<Certificate, TlsError> {
        Ok(Certificate {
            current: ArcSwap::from_pointee(read(cert, key)?),
            cert: cert.to_owned(),
            key: key.to_owned(),
            look: Notify::new(),
        })
    }

    /// For the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again. The old pair stays when they cannot be used.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.cert, &self.key)?));
        Ok(())
    }

    /// Reads the files again soon, changed or not.
    pub fn look_now(&self) {
        self.look.notify_one();
    }

    fn times(&self) -> [Option<SystemTime>; 2] {
        [&self.cert, &self.key].map(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok())
    }

    /// Follows the files until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.times();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.look.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = self.times();
            if !asked && now == seen {
                continue;
            }
            seen = now;
            match self.reload() {
                Ok(()) => tracing::info!("the certificate was read again"),
                Err(error) => {
                    tracing::error!(%error, "the new certificate is not used; the old one stays")
                }
            }
        }
    }
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Certificate {
            path: cert.to_owned(),
            source,
        })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key {
        path: key.to_owned(),
        source,
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;

    fn write_pair(folder: &Path) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (cert, key)
    }

    #[test]
    fn a_bad_new_file_is_rejected_and_the_old_pair_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = write_pair(folder.path());
        let certificate = Certificate::load(&cert, &key).unwrap();
        let first = certificate.current();
        for bad in [
            "",
            "not a certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&cert, bad).unwrap();
            assert!(certificate.reload().is_err(), "{bad:?}");
            assert!(Arc::ptr_eq(&first, &certificate.current()));
        }
        // A certificate of another key.
        let other = tempfile::tempdir().unwrap();
        let (other_cert, _) = write_pair(other.path());
        std::fs::copy(other_cert, &cert).unwrap();
        assert!(matches!(certificate.reload(), Err(TlsError::Pair(_))));
        write_pair(folder.path());
        certificate.reload().unwrap();
        assert!(!Arc::ptr_eq(&first, &certificate.current()));
    }
}
