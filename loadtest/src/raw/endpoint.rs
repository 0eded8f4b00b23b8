//! Where a plain client connects to, over what, and whom it trusts there.
//!
//! TLS and QUIC trust exactly one certificate, by its SHA-256 (a node under test shows one that no root vouches for), or
//! whom roots vouch for, where load goes to a node that was there. A
//! dialer keeps session tickets between its connections if it is told to, so that full and resumed handshakes can be
//! told apart: the certificate is judged in full ones only, and those are counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::RawError;

/// ALPN of major version 1 on QUIC.
pub const QUIC_ALPN: &[u8] = b"conch/1";
/// Session tickets kept by a dialer.
const TICKETS: usize = 64;
/// Silence after which QUIC itself gives up.
const IDLE: Duration = Duration::from_secs(60);

/// Which transport, for reports and for choosing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// WebSocket without TLS.
    WebSocket,
    /// WebSocket over TLS.
    Tls,
    Quic,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Transport::WebSocket => "ws",
            Transport::Tls => "wss",
            Transport::Quic => "quic",
        })
    }
}

/// A node's address on one transport.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// `ip:port`.
    WebSocket(String),
    Tls(TlsDialer),
    Quic(QuicDialer),
}

impl Endpoint {
    /// Handshakes that were not resumed, where there are any.
    pub fn full_handshakes(&self) -> Option<&FullHandshakes> {
        match self {
            Endpoint::WebSocket(_) => None,
            Endpoint::Tls(dialer) => Some(&dialer.full),
            Endpoint::Quic(dialer) => Some(&dialer.full),
        }
    }
}

/// Where a node, or what stands in front of it, listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doors {
    /// HTTP and WebSocket, `ip:port`.
    pub http: String,
    /// SHA-256 of the certificate there (hex of the DER), if it is TLS.
    pub http_certificate_sha256: Option<String>,
    pub quic: Option<QuicDoor>,
}

/// Where QUIC listens, and the SHA-256 of the certificate there (hex of the DER).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuicDoor {
    pub address: SocketAddr,
    pub certificate_sha256: String,
}

impl Doors {
    /// One of them, with a dialer of its own that resumes nothing.
    pub fn endpoint(&self, transport: Transport) -> Result<Endpoint, RawError> {
        self.endpoint_with(transport, Tickets::None)
    }

    /// One of them, with a dialer of its own.
    pub fn endpoint_with(
        &self,
        transport: Transport,
        tickets: Tickets,
    ) -> Result<Endpoint, RawError> {
        match (transport, &self.http_certificate_sha256, &self.quic) {
            (Transport::WebSocket, None, _) => Ok(Endpoint::WebSocket(self.http.clone())),
            (Transport::Tls, Some(hash), _) => {
                Ok(Endpoint::Tls(TlsDialer::new(&self.http, hash, tickets)?))
            }
            (Transport::Quic, _, Some(quic)) => {
                let hash = &quic.certificate_sha256;
                let dialer = QuicDialer::new(quic.address, hash, tickets, Windows::default())?;
                Ok(Endpoint::Quic(dialer))
            }
            _ => Err(RawError::NotServed(transport)),
        }
    }
}

impl QuicDoor {
    /// The same, from a socket of its own that grants `windows`.
    pub fn endpoint(&self, windows: Windows) -> Result<Endpoint, RawError> {
        let hash = &self.certificate_sha256;
        let dialer = QuicDialer::new(self.address, hash, Tickets::None, windows)?;
        Ok(Endpoint::Quic(dialer))
    }
}

/// Whether a dialer resumes sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tickets {
    /// Every handshake is a full one.
    None,
    /// A connection resumes what an earlier one of the same dialer brought.
    Kept,
}

/// Full handshakes so far of one dialer.
#[derive(Clone, Debug, Default)]
pub struct FullHandshakes(Arc<AtomicU64>);

impl FullHandshakes {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whom a dialer trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The certificate of this SHA-256 (hex of the DER), whatever name it shows.
    Certificate(String),
    /// Who these roots vouch for, by name.
    Roots(Arc<RootCertStore>),
}

impl Trust {
    /// The roots of a PEM file.
    pub fn roots(pem: &str) -> Result<Trust, RawError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| RawError::Tls)?;
            roots.add(certificate).map_err(|_| RawError::Tls)?;
        }
        if roots.is_empty() {
            return Err(RawError::Tls);
        }
        Ok(Trust::Roots(Arc::new(roots)))
    }

    /// The system's roots; such as cannot be read are left out.
    pub fn system() -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Trust::Roots(Arc::new(roots))
    }
}

/// Connects by TLS over TCP.
#[derive(Clone, Debug)]
pub struct TlsDialer {
    /// `host:port`.
    pub address: String,
    /// The name that is asked for, and that roots have to vouch for.
    pub name: String,
    /// Full handshakes, where one certificate is trusted.
    pub full: FullHandshakes,
    pub(super) config: Arc<ClientConfig>,
}

impl TlsDialer {
    /// Trusts the certificate of this SHA-256 (hex of the DER).
    pub fn new(
        address: impl Into<String>,
        certificate_sha256: &str,
        tickets: Tickets,
    ) -> Result<TlsDialer, RawError> {
        let trust = Trust::Certificate(certificate_sha256.to_owned());
        TlsDialer::trusting(address, "localhost", &trust, tickets)
    }

    /// The same with any trust.
    pub fn trusting(
        address: impl Into<String>,
        name: &str,
        trust: &Trust,
        tickets: Tickets,
    ) -> Result<TlsDialer, RawError> {
        let full = FullHandshakes::default();
        let mut config = client_config(trust, tickets, &full)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsDialer {
            address: address.into(),
            name: name.to_owned(),
            full,
            config: Arc::new(config),
        })
    }
}

/// Flow control that a QUIC client grants, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Windows {
    pub stream: u32,
    pub connection: u32,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows {
            stream: 1 << 20,
            connection: 1 << 20,
        }
    }
}

/// Connects by QUIC, from one UDP socket.
#[derive(Clone, Debug)]
pub struct QuicDialer {
    pub address: SocketAddr,
    name: String,
    pub full: FullHandshakes,
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

impl QuicDialer {
    /// Trusts the certificate of this SHA-256 (hex of the DER). Must be called within a tokio runtime.
    pub fn new(
        address: SocketAddr,
        certificate_sha256: &str,
        tickets: Tickets,
        windows: Windows,
    ) -> Result<QuicDialer, RawError> {
        let trust = Trust::Certificate(certificate_sha256.to_owned());
        QuicDialer::trusting(address, "localhost", &trust, tickets, windows)
    }

    /// The same with any trust.
    pub fn trusting(
        address: SocketAddr,
        name: &str,
        trust: &Trust,
        tickets: Tickets,
        windows: Windows,
    ) -> Result<QuicDialer, RawError> {
        let full = FullHandshakes::default();
        let mut tls = client_config(trust, tickets, &full)?;
        tls.alpn_protocols = vec![QUIC_ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(tls).map_err(|_| RawError::Tls)?;
        let mut transport = quinn::TransportConfig::default();
        transport
            .stream_receive_window(windows.stream.into())
            .receive_window(windows.connection.into())
            .max_idle_timeout(Some(IDLE.try_into().expect("a minute is a valid timeout")));
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        // A socket on loopback reaches nothing else, and is reached by nothing else.
        let local: IpAddr = match address.ip() {
            ip if ip.is_loopback() && ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
            ip if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            ip if ip.is_ipv4() => Ipv4Addr::UNSPECIFIED.into(),
            _ => Ipv6Addr::UNSPECIFIED.into(),
        };
        let endpoint = quinn::Endpoint::client((local, 0).into()).map_err(RawError::Connect)?;
        Ok(QuicDialer {
            address,
            name: name.to_owned(),
            full,
            endpoint,
            config,
        })
    }

    /// A handshake, without a word of ours.
    pub async fn dial(&self) -> Result<quinn::Connection, RawError> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), self.address, &self.name)
            .map_err(|error| RawError::Connect(std::io::Error::other(error)))?;
        Ok(connecting.await.map_err(Box::new)?)
    }

    /// Sends from another UDP socket from here on: a change of address.
    pub fn rebind(&self) -> Result<(), RawError> {
        let socket =
            std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(RawError::Connect)?;
        self.endpoint.rebind(socket).map_err(RawError::Connect)
    }
}

/// SHA-256 of a certificate as nodes tell it: hex of the DER's.
pub fn certificate_sha256(der: &[u8]) -> String {
    Sha256::digest(der)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn client_config(
    trust: &Trust,
    tickets: Tickets,
    full: &FullHandshakes,
) -> Result<ClientConfig, RawError> {
    // AES-128 first, as the SDK and browsers ask for it.
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|it| it.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| RawError::Tls)?;
    let builder = match trust {
        Trust::Certificate(sha256) => {
            let pinned = Pinned {
                sha256: sha256.to_ascii_lowercase(),
                full: full.clone(),
                provider,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(pinned))
        }
        Trust::Roots(roots) => builder.with_root_certificates(Arc::clone(roots)),
    };
    let mut config = builder.with_no_client_auth();
    config.resumption = match tickets {
        Tickets::None => Resumption::disabled(),
        Tickets::Kept => Resumption::in_memory_sessions(TICKETS),
    };
    Ok(config)
}

/// Trusts one certificate.
#[derive(Debug)]
struct Pinned {
    sha256: String,
    full: FullHandshakes,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if certificate_sha256(end_entity) != self.sha256 {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        self.full.0.fetch_add(1, Ordering::Relaxed);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
