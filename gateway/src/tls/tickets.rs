//! Session tickets: how a client that comes back skips the certificate, on whichever node it comes back.
//!
//! Stateless: a ticket is the session sealed by AES-256-GCM under a key that every node derives from the token secret and
//! the time, a new one every [`EPOCH_MS`]. Tickets of the current epoch and of the one before are opened, so each lives 6 to
//! 12 hours; the lifetime that is announced is the shorter.
//!
//! ```text
//! 0      u8   format: 1
//! 1..9   u64  epoch, big-endian
//! 9..21       nonce, random
//! 21..        sealed session and tag; bytes 0..9 are authenticated with it
//! ```
//! Only TLS 1.3 gets tickets: there a resumed session has keys of its own (an ephemeral exchange comes with it). In TLS 1.2
//! the ticket holds the keys of the session itself, and these keys are derived from a secret that may leak later.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use super::keys::Keys;
use crate::clock::Clock;

/// How long one key seals.
pub const EPOCH_MS: u64 = 6 * 60 * 60 * 1_000;
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 9;
/// Nothing of ours is longer; what comes from outside is not opened beyond it.
const TICKET_BYTES_MAX: usize = 4_096;

/// See the module.
#[derive(Clone, Debug)]
pub struct Tickets {
    keys: Keys,
    /// Ports do not open each other's tickets.
    label: &'static str,
    clock: Clock,
}

impl Tickets {
    pub fn for_https(keys: Keys, clock: Clock) -> Tickets {
        let label = "session tickets https";
        Tickets { keys, label, clock }
    }

    pub fn for_quic(keys: Keys, clock: Clock) -> Tickets {
        let label = "session tickets quic";
        Tickets { keys, label, clock }
    }

    fn key(&self, epoch: u64) -> LessSafeKey {
        let key = self.keys.derive(self.label, epoch);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes are a key"))
    }

    /// Seals `session` at the time `wall_ms`.
    fn seal(&self, wall_ms: u64, nonce: [u8; NONCE_LEN], session: &[u8]) -> Option<Vec<u8>> {
        let epoch = wall_ms / EPOCH_MS;
        let mut head = [0; HEAD_BYTES];
        head[0] = FORMAT;
        head[1..].copy_from_slice(&epoch.to_be_bytes());
        let mut sealed = session.to_vec();
        self.key(epoch)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(head),
                &mut sealed,
            )
            .ok()?;
        Some([&head[..], &nonce, &sealed].concat())
    }

    /// Opens what was sealed in this epoch or the one before; anything else is none.
    fn open(&self, wall_ms: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (head, rest) = ticket.split_first_chunk::<HEAD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (format, epoch) = head.split_first()?;
        let epoch = u64::from_be_bytes(epoch.try_into().ok()?);
        let age = (wall_ms / EPOCH_MS).checked_sub(epoch)?;
        if *format != FORMAT || age > 1 {
            return None;
        }
        let mut opened = sealed.to_vec();
        let session = self
            .key(epoch)
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(*head),
                &mut opened,
            )
            .ok()?
            .len();
        opened.truncate(session);
        Some(opened)
    }
}

/// Whether a session as rustls writes it is of TLS 1.3: behind the server name, if there is one, stands the version.
fn is_tls_13(session: &[u8]) -> bool {
    let version = match session {
        [0, rest @ ..] => rest,
        [1, len, rest @ ..] => rest.get(usize::from(*len)..).unwrap_or_default(),
        _ => &[],
    };
    version.starts_with(&[3, 4])
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        (EPOCH_MS / 1_000) as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        // No randomness, no ticket: the connection goes on without.
        getrandom::fill(&mut nonce).ok()?;
        let sealed = self.seal(self.clock.wall_ms(), nonce, session)?;
        is_tls_13(session).then_some(sealed)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(self.clock.wall_ms(), ticket)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test ends at the first surprise
    use super::*;
    use crate::tls::development;
    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig,
        ServerConnection, SupportedProtocolVersion,
    };
    use secrecy::SecretSlice;
    use std::sync::Arc;

    fn tickets(secret: u8, clock: &Clock) -> Tickets {
        let keys = Keys::of(&SecretSlice::from(vec![secret; 32]));
        Tickets::for_https(keys, clock.clone())
    }

    #[test]
    fn a_ticket_lives_for_its_epoch_and_the_next() {
        let tickets = tickets(1, &Clock::manual(0));
        let at = 1_000 * EPOCH_MS;
        let ticket = tickets.seal(at, [7; NONCE_LEN], b"session").unwrap();
        let opened = |wall_ms| tickets.open(wall_ms, &ticket);
        assert_eq!(opened(at).as_deref(), Some(&b"session"[..]));
        // Sealed at the last moment of its epoch it still has what was announced.
        let last = tickets
            .seal(at + EPOCH_MS - 1, [7; NONCE_LEN], b"s")
            .unwrap();
        let announced = u64::from(tickets.lifetime()) * 1_000;
        assert!(tickets.open(at + EPOCH_MS - 1 + announced, &last).is_some());
        assert!(opened(at + 2 * EPOCH_MS - 1).is_some());
        assert!(opened(at + 2 * EPOCH_MS).is_none(), "two epochs later");
        assert!(opened(at - 1).is_none(), "from the future");
    }

    #[test]
    fn nodes_that_share_the_secret_open_each_others_and_nobody_else_does() {
        let clock = Clock::manual(5 * EPOCH_MS);
        let (here, there) = (tickets(1, &clock), tickets(1, &clock));
        let session = [0, 3, 4, 9, 9];
        let ticket = here.encrypt(&session).unwrap();
        assert_eq!(there.decrypt(&ticket).as_deref(), Some(&session[..]));
        assert!(tickets(2, &clock).decrypt(&ticket).is_none());
        let quic = Tickets::for_quic(here.keys.clone(), clock);
        assert!(quic.decrypt(&ticket).is_none(), "of another port");
        let again = here.encrypt(&session).unwrap();
        assert_ne!(ticket, again, "a nonce is not used twice");
    }

    proptest! {
        #[test]
        fn a_ticket_with_any_byte_changed_is_none(at in any::<prop::sample::Index>(), by in 1u8..) {
            let tickets = tickets(1, &Clock::manual(0));
            let mut ticket = tickets.seal(0, [7; NONCE_LEN], b"a session of somebody").unwrap();
            let at = at.index(ticket.len());
            ticket[at] ^= by;
            prop_assert_eq!(tickets.open(0, &ticket), None);
        }

        #[test]
        fn rubbish_is_none(ticket in prop::collection::vec(any::<u8>(), 0..5_000)) {
            prop_assert_eq!(tickets(1, &Clock::manual(0)).open(0, &ticket), None);
        }
    }

    /// One handshake in memory, and what kind the node says it was.
    fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(client.clone(), name).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        // Twice around more than a handshake takes, so that tickets have arrived.
        for _ in 0..8 {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut there = &wire[..];
            while !there.is_empty() {
                server.read_tls(&mut there).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut back = &wire[..];
            while !back.is_empty() {
                client.read_tls(&mut back).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        server.handshake_kind().unwrap()
    }

    fn client(
        trusted: &crate::tls::Certificate,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.current().cert[0].clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    #[test]
    fn a_session_is_resumed_on_another_node_and_only_in_tls_13() {
        let clock = Clock::manual(5 * EPOCH_MS);
        let certificate = development::certificate().unwrap().0;
        let node = |secret| {
            let tickets = Arc::new(tickets(secret, &clock));
            Arc::new(certificate.for_https(tickets).unwrap())
        };
        let (first, second, foreign) = (node(1), node(1), node(2));
        let tls_13 = client(&certificate, &rustls::version::TLS13);
        assert_eq!(handshake(&tls_13, &first), HandshakeKind::Full);
        assert_eq!(handshake(&tls_13, &second), HandshakeKind::Resumed);
        assert_ne!(handshake(&tls_13, &foreign), HandshakeKind::Resumed);
        let tls_12 = client(&certificate, &rustls::version::TLS12);
        for node in [&first, &second, &first] {
            assert_eq!(handshake(&tls_12, node), HandshakeKind::Full);
        }
        // Long after, nobody remembers.
        let tls_13 = client(&certificate, &rustls::version::TLS13);
        handshake(&tls_13, &first);
        clock.advance(2 * EPOCH_MS);
        assert_ne!(handshake(&tls_13, &first), HandshakeKind::Resumed);
    }
}
