//! TLS: the certificate, changing it while connections are open, and what is agreed on each port.
//!
//! A [`Certificate`] is a resolver that every port's configuration shares: new handshakes use the newest good pair of
//! files, open connections keep theirs. Files that cannot be used are logged and the old pair stays. rustls with aws-lc:
//! TLS 1.2 and 1.3 with ALPN `http/1.1` for HTTPS, TLS 1.3 with ALPN `conch/1` and no early data for QUIC; sessions are
//! resumed by [`tickets`]; [`stream`] is TLS over TCP.

pub mod development;
pub mod keys;
pub mod stream;
pub mod tickets;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the files' times are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The protocol's name and major version on QUIC.
pub const ALPN: &[u8] = b"conch/1";

/// Why a pair of files cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("tls_cert {path}: {source}")]
    Certificate {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("tls_cert {0}: no certificate in it")]
    NoCertificate(PathBuf),
    #[error("tls_key {path}: {source}")]
    Key {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("tls_cert and tls_key do not belong together or cannot be used: {0}")]
    Pair(#[from] rustls::Error),
    #[error("a certificate for development could not be made: {0}")]
    Development(#[from] rcgen::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    current: Arc<Current>,
    files: Option<Files>,
    /// Asked to look now (SIGHUP).
    look: Notify,
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What handshakes ask for.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    /// From a pair of PEM files, which are followed by [`Certificate::follow`].
    pub fn load(cert: &Path, key: &Path) -> Result<Certificate, TlsError> {
        let files = Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        let mut certificate = Certificate::fixed(files.read()?);
        certificate.files = Some(files);
        Ok(certificate)
    }

    /// One that never changes.
    fn fixed(pair: CertifiedKey) -> Certificate {
        Certificate {
            current: Arc::new(Current(ArcSwap::from_pointee(pair))),
            files: None,
            look: Notify::new(),
        }
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.0.load_full()
    }

    /// For HTTPS and WebSocket.
    pub fn for_https(&self, tickets: Arc<dyn ProducesTickets>) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        resume_by(&mut config, tickets);
        Ok(config)
    }

    /// For QUIC. Early data is off: what it carries could be replayed.
    pub fn for_quic(&self, tickets: Arc<dyn ProducesTickets>) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        resume_by(&mut config, tickets);
        Ok(config)
    }

    /// Reads the files again. The old pair stays when they cannot be used.
    pub fn reload(&self) -> Result<(), TlsError> {
        if let Some(files) = &self.files {
            self.current.0.store(Arc::new(files.read()?));
        }
        Ok(())
    }

    /// Reads the files again soon, changed or not.
    pub fn look_now(&self) {
        self.look.notify_one();
    }

    /// Follows the files until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Some(files) = &self.files else {
            return;
        };
        let mut seen = files.times();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.look.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = files.times();
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

/// By tickets alone: a store of sessions would be one node's.
fn resume_by(config: &mut ServerConfig, tickets: Arc<dyn ProducesTickets>) {
    config.ticketer = tickets;
    config.session_storage = Arc::new(NoServerSessionStorage {});
}

/// The one crypto provider.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Files {
    fn times(&self) -> [Option<SystemTime>; 2] {
        [&self.cert, &self.key].map(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok())
    }

    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| TlsError::Certificate {
                path: self.cert.clone(),
                source,
            })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.cert.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::Key {
            path: self.key.clone(),
            source,
        })?;
        Ok(CertifiedKey::from_der(chain, key, &provider())?)
    }
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

    #[test]
    fn quic_is_tls_13_with_its_own_name_and_no_early_data() {
        let certificate = development::certificate().unwrap().0;
        let keys = keys::Keys::of(&vec![7; 32].into());
        let tickets = tickets::Tickets::for_quic(keys, crate::clock::Clock::manual(0));
        let config = certificate.for_quic(Arc::new(tickets)).unwrap();
        assert_eq!(config.alpn_protocols, [b"conch/1".to_vec()]);
        assert_eq!(config.max_early_data_size, 0);
    }
}
