//! Whom this client trusts: the system's roots, and those that the application adds.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

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

/// The configuration of TLS connections. Roots of the system that cannot be read are left out.
pub(super) fn client_config(
    extra: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in extra {
        roots.add(root.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
