//! Whom this client trusts: the system's roots, those that the application adds, and in development one certificate.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use thiserror::Error;

use super::transport::{CertificateHash, Pinned};

/// QUIC's name for the protocol.
const QUIC_ALPN: &[u8] = b"conch/1";
/// Nodes whose session tickets are kept for a shorter next handshake.
const TICKET_NODES: usize = 16;

/// Why a root certificate cannot be used.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("a root certificate is not readable: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("a root certificate is not usable: {0}")]
    Root(#[from] rustls::Error),
}

/// Certificates of a PEM file.
pub(super) fn read_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Ok(CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?)
}

/// The system's roots, and these. Roots of the system that cannot be read are left out.
pub(super) fn roots(extra: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in extra {
        roots.add(root.clone())?;
    }
    Ok(Arc::new(roots))
}

/// aws-lc's suites, AES-128 before the others, as browsers ask for it: under SHA-256 a handshake costs either side less.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|it| it.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// For HTTP and WebSocket.
pub(super) fn http_config(roots: Arc<RootCertStore>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For QUIC: against the roots, or one certificate exactly. Holds the session tickets of its connections in memory, so
/// one must be kept over reconnects. Early data stays off: it could be replayed.
pub(super) fn quic_config(
    roots: Arc<RootCertStore>,
    pin: Option<CertificateHash>,
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match pin {
        Some(hash) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { hash, provider })),
        None => builder.with_root_certificates(roots),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![QUIC_ALPN.to_vec()];
    config.resumption = Resumption::in_memory_sessions(TICKET_NODES);
    Ok(config)
}
